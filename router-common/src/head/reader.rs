//! A cursor over a head: every read is checked and says where the bytes ran out.

use super::error::HeadError;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) const fn position(&self) -> usize {
        self.position
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    pub(super) const fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(super) fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], HeadError> {
        let end = self.position.checked_add(length).ok_or(HeadError::Truncated(what))?;
        let taken = self.bytes.get(self.position..end).ok_or(HeadError::Truncated(what))?;
        self.position = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], HeadError> {
        self.take(N, what)?.try_into().map_err(|_| HeadError::Truncated(what))
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, HeadError> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, HeadError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// A u16 length and as many bytes.
    pub(super) fn prefixed(&mut self, what: &'static str) -> Result<&'a [u8], HeadError> {
        let length = self.u16(what)?;
        self.take(usize::from(length), what)
    }
}
