//! Byte credit (SPEC 4, credit). Only body bytes count.
//!
//! A stream's credit returns when its bytes are consumed, so a slow reader holds no more than its window. A link's
//! credit returns when bytes arrive, so no stalled stream can stall the link.

use crate::limits;

/// A peer broke the rules of credit; the link closes with `flow_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowError;

/// What this side may still send.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendCredit(u64);

impl SendCredit {
    pub(super) const fn new(credit: u32) -> Self {
        Self(credit as u64)
    }

    pub(super) const fn available(self) -> usize {
        self.0 as usize
    }

    /// The peer granted more.
    pub(super) fn grant(&mut self, bytes: u32) -> Result<(), FlowError> {
        let credit = self.0 + u64::from(bytes);
        if credit > limits::WINDOW_MAX {
            return Err(FlowError);
        }
        self.0 = credit;
        Ok(())
    }

    /// `bytes` of body are sent. The scheduler never takes more than is available.
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes as u64);
    }
}

/// What the peer may still send, and what it is owed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    /// Bytes that the peer may still send.
    granted: u64,
    /// Bytes that were taken and not yet granted again.
    owed: u32,
    size: u32,
    max: u32,
}

impl ReceiveWindow {
    /// A window that may grow from `size` to `max`.
    pub(super) const fn new(size: u32, max: u32) -> Self {
        Self { granted: size as u64, owed: 0, size, max: if max < size { size } else { max } }
    }

    /// `bytes` of body arrived.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), FlowError> {
        self.granted = self.granted.checked_sub(bytes as u64).ok_or(FlowError)?;
        Ok(())
    }

    /// `bytes` were taken. Returns whether enough is owed that it is worth a WINDOW frame.
    pub(super) const fn take(&mut self, bytes: usize) -> bool {
        self.owed = self.owed.saturating_add(bytes as u32);
        self.owed > 0 && self.owed >= self.size / 2
    }

    /// The reader has taken everything there was: double the window, up to its bound.
    pub(super) fn grow(&mut self) {
        let size = self.size.saturating_mul(2).min(self.max);
        self.owed = self.owed.saturating_add(size - self.size);
        self.size = size;
    }

    /// What is owed, as the content of one WINDOW frame.
    pub(super) fn settle(&mut self) -> u32 {
        let bytes = std::mem::take(&mut self.owed);
        self.granted += u64::from(bytes);
        bytes
    }

    /// The invariant that every simulation checks: granted and owed never exceed the window.
    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn is_sound(&self) -> bool {
        self.granted + self.owed as u64 <= self.size as u64 && self.size <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_returns_when_half_is_owed() {
        let mut window = ReceiveWindow::new(100, 100);
        assert_eq!(window.receive(60), Ok(()));
        assert!(!window.take(49));
        assert!(window.take(1));
        assert_eq!(window.settle(), 50);
        assert_eq!(window.receive(91), Err(FlowError));
        assert_eq!(window.receive(90), Ok(()));
    }

    #[test]
    fn a_window_grows_to_its_bound() {
        let mut window = ReceiveWindow::new(100, 250);
        window.grow();
        window.grow();
        window.grow();
        assert_eq!(window.settle(), 150);
        assert!(window.is_sound());
    }

    #[test]
    fn credit_beyond_its_bound_is_refused() {
        let mut credit = SendCredit::new(limits::STREAM_WINDOW);
        assert_eq!(credit.grant(u32::MAX), Err(FlowError));
        assert_eq!(credit.available(), limits::STREAM_WINDOW as usize);
    }
}
