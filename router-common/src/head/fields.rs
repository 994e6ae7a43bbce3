//! Header fields as heads and trailers carry them: a count, then `name length, name, value length, value` each.
//!
//! Both ends refuse what must never cross: upper case, CR, LF, NUL, and hop-by-hop fields (SPEC 4).

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::error::HeadError;
use super::reader::Reader;
use crate::limits;

/// Fields that belong to one HTTP connection only (RFC 9110 7.6.1), so that a frame never carries them.
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.len() {
        2 => name == b"te",
        7 => name == b"upgrade",
        10 => name == b"connection" || name == b"keep-alive",
        16 => name == b"proxy-connection",
        17 => name == b"transfer-encoding",
        _ => false,
    }
}

const fn is_lower_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// The same as a table: names are short, and each of their bytes is looked at on each hop.
const LOWER_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_lower_token(byte as u8);
        byte += 1;
    }
    table
};

fn is_field_name(name: &[u8]) -> bool {
    let all = |bytes: &[u8]| bytes.iter().fold(true, |so_far, byte| so_far & LOWER_TOKEN[usize::from(*byte)]);
    let (fours, rest) = name.as_chunks::<4>();
    !name.is_empty() && fours.iter().fold(true, |so_far, four| so_far & all(four)) & all(rest)
}

/// RFC 9110 5.5: visible characters, space, tab, and what is above ASCII.
const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Eight bytes at a time; only words with a control character, of which a tab is allowed, are looked at byte by byte.
fn is_field_value(value: &[u8]) -> bool {
    let all = |bytes: &[u8]| bytes.iter().all(|byte| is_value_byte(*byte));
    let (words, rest) = value.as_chunks::<8>();
    words.iter().all(|word| has_no_controls(u64::from_ne_bytes(*word)) || all(word)) && all(rest)
}

/// Whether no byte of a word is below 0x20 or is 0x7f: the high bit of each byte tells, where it was not set before.
const fn has_no_controls(word: u64) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    let (below, delete) = (word.wrapping_sub(EACH * 0x20) & !word, word ^ (EACH * 0x7f));
    (below | (delete.wrapping_sub(EACH) & !delete)) & (EACH * 0x80) == 0
}

fn quoted(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned()
}

/// Writes all fields of `headers`, whose names are lower-case tokens and whose values are legal by their types. What
/// [`check`] would say of them is told without reading them again.
pub(super) fn put(headers: &HeaderMap, out: &mut BytesMut) -> Result<Section, HeadError> {
    let count = headers.len();
    if count > limits::HEAD_FIELDS {
        return Err(HeadError::TooManyFields);
    }
    out.put_u16(count as u16);
    let start = out.len();
    let mut content_length = None;
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if is_hop_by_hop(name) {
            return Err(HeadError::HopByHop(quoted(name)));
        }
        let too_large = |size| HeadError::TooLarge { what: "a header field", size, limit: limits::HEAD_BYTES };
        out.put_u16(u16::try_from(name.len()).map_err(|_| too_large(name.len()))?);
        out.put_slice(name);
        out.put_u16(u16::try_from(value.len()).map_err(|_| too_large(value.len()))?);
        out.put_slice(value);
        note_content_length(name, value, &mut content_length)?;
    }
    Ok(Section { count: count as u16, start: start as u16, content_length })
}

/// What reading a field section learns on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) count: u16,
    /// Where the first field begins.
    pub(super) start: u16,
    pub(super) content_length: Option<u64>,
}

impl Section {
    /// Instead of [`check`], where this section has just been written: goes on behind it.
    pub(super) fn skip(self, reader: &mut Reader<'_>, behind: usize) -> Result<Self, HeadError> {
        reader.take(behind.saturating_sub(reader.position()), "the fields")?;
        Ok(self)
    }
}

/// Reads and checks a field section, leaving `reader` behind it.
pub(super) fn check(reader: &mut Reader<'_>) -> Result<Section, HeadError> {
    match check_quickly(reader.rest()) {
        Some((section, length)) => {
            let start = reader.position() as u16 + section.start;
            reader.take(length, "the fields")?;
            Ok(Section { start, ..section })
        }
        None => check_telling(reader),
    }
}

/// Checks a section as [`check_telling`] does, without finding out what is wrong: what is not known to be right is read
/// again. `start` is counted from the beginning of `bytes`; gives the section's length too.
fn check_quickly(bytes: &[u8]) -> Option<(Section, usize)> {
    let (count, mut rest) = bytes.split_first_chunk::<2>()?;
    let count = u16::from_be_bytes(*count);
    if usize::from(count) > limits::HEAD_FIELDS {
        return None;
    }
    let mut content_length = None;
    for _ in 0..count {
        let (name, behind_name) = split_prefixed(rest)?;
        let (value, behind_value) = split_prefixed(behind_name)?;
        if !is_field_name(name) || is_hop_by_hop(name) || !is_field_value(value) {
            return None;
        }
        note_content_length(name, value, &mut content_length).ok()?;
        rest = behind_value;
    }
    Some((Section { count, start: 2, content_length }, bytes.len() - rest.len()))
}

/// A u16 length and as many bytes, and what is behind them.
fn split_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Likewise, and says what is wrong.
fn check_telling(reader: &mut Reader<'_>) -> Result<Section, HeadError> {
    let count = reader.u16("the field count")?;
    if usize::from(count) > limits::HEAD_FIELDS {
        return Err(HeadError::TooManyFields);
    }
    let start = reader.position();
    let mut content_length = None;
    for _ in 0..count {
        let name = reader.prefixed("a field name")?;
        if !is_field_name(name) {
            return Err(HeadError::FieldName(quoted(name)));
        }
        if is_hop_by_hop(name) {
            return Err(HeadError::HopByHop(quoted(name)));
        }
        let value = reader.prefixed("a field value")?;
        if !is_field_value(value) {
            return Err(HeadError::FieldValue(quoted(name)));
        }
        note_content_length(name, value, &mut content_length)?;
    }
    Ok(Section { count, start: start as u16, content_length })
}

fn note_content_length(name: &[u8], value: &[u8], length: &mut Option<u64>) -> Result<(), HeadError> {
    if name == b"content-length" && length.replace(decimal(value).ok_or(HeadError::ContentLength)?).is_some() {
        return Err(HeadError::ContentLength);
    }
    Ok(())
}

/// Digits only, without sign or list: RFC 9110 8.6.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The fields of a section that has been checked, as `(name, value)`. Values share the head's memory; names, which are
/// mostly known to who reads them, are only shown.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    bytes: &'a Bytes,
    rest: &'a [u8],
    left: u16,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a Bytes, section: Section) -> Self {
        Self { bytes, rest: bytes.get(usize::from(section.start)..).unwrap_or_default(), left: section.count }
    }

    /// The value of a field, of several the first. `name` is lower-case.
    #[must_use]
    pub fn value(mut self, name: &[u8]) -> Option<&'a [u8]> {
        std::iter::from_fn(|| self.next_raw()).find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        self.left = self.left.checked_sub(1)?;
        let (name, rest) = split_prefixed(self.rest)?;
        let (value, rest) = split_prefixed(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Bytes);

    fn next(&mut self) -> Option<(&'a [u8], Bytes)> {
        let (name, value) = self.next_raw()?;
        Some((name, self.bytes.slice_ref(value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Fields<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_quickly_finds_what_reading_carefully_finds() {
        let mut headers = HeaderMap::new();
        headers.insert("content-length", http::HeaderValue::from_static("12"));
        headers.insert("te-x", http::HeaderValue::from_static("a b\t"));
        let mut whole = BytesMut::from(&b"before"[..]);
        put(&headers, &mut whole).unwrap();
        whole.put_slice(b"behind");
        let read = |bytes: &[u8], check: fn(&mut Reader<'_>) -> Result<Section, HeadError>| {
            let mut reader = Reader::new(bytes);
            reader.take(6, "before")?;
            check(&mut reader).map(|section| (section, reader.left()))
        };
        for at in 6..whole.len() {
            for byte in 0..=u8::MAX {
                let mut changed = whole.clone();
                changed[at] = byte;
                assert_eq!(read(&changed, check), read(&changed, check_telling), "{byte} at {at}");
                assert_eq!(read(&changed[..at], check), read(&changed[..at], check_telling), "cut at {at}");
            }
        }
    }

    #[test]
    fn a_forbidden_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for length in 1..20 {
                for at in 0..length {
                    for filler in [b'a', b'\t', 0x80, 0xff, b' '] {
                        let mut value = vec![filler; length];
                        value[at] = byte;
                        assert_eq!(is_field_value(&value), is_value_byte(byte), "{value:?}");
                    }
                }
            }
        }
    }
}
