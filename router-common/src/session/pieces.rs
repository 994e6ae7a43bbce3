//! Pieces: body bytes that wait, first in, first out.
//!
//! Most bodies are one piece, which waits without an allocation of its own. Small pieces behind others are joined, so
//! that a peer that sends byte by byte makes this side hold bytes, and not a list entry for each.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces below this size, in bytes, are joined when they have to wait behind others, and do not keep the read buffer
/// alive that they came in.
const SMALL: usize = 4 * 1024;
/// Small pieces are joined up to this size, in bytes.
const JOINED: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The oldest piece; empty if it was taken.
    first: Bytes,
    /// What waits behind it.
    more: Option<Box<More>>,
    len: usize,
}

#[derive(Debug, Default)]
struct More {
    queue: VecDeque<Bytes>,
    /// Small pieces, behind all others.
    joined: BytesMut,
}

impl Pieces {
    /// Bytes of all pieces together.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if self.is_empty() {
            self.len = bytes.len();
            self.first = bytes;
            return;
        }
        self.len += bytes.len();
        let more = self.more.get_or_insert_default();
        if bytes.len() >= SMALL {
            more.seal();
            more.queue.push_back(bytes);
            return;
        }
        if more.joined.len() + bytes.len() > JOINED {
            more.seal();
        }
        more.joined.extend_from_slice(&bytes);
    }

    /// Adds a piece that may wait for long: a small one is copied out of the buffer it came in.
    pub(super) fn push_detached(&mut self, bytes: Bytes) {
        let copy = self.is_empty() && bytes.len() < SMALL;
        self.push(if copy { Bytes::copy_from_slice(&bytes) } else { bytes });
    }

    /// Takes the oldest piece.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let piece = if self.first.is_empty() { self.more.as_mut()?.pop()? } else { std::mem::take(&mut self.first) };
        self.len -= piece.len();
        if self.len == 0 {
            self.more = None;
        }
        Some(piece)
    }

    /// Takes the oldest piece, or as much of it as `most` allows; empty if nothing waits.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        if most == 0 {
            return Bytes::new();
        }
        let Some(mut piece) = self.pop() else { return Bytes::new() };
        if piece.len() > most {
            self.first = piece.split_off(most);
            self.len += self.first.len();
        }
        piece
    }

    /// Forgets everything; gives how many bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).len
    }
}

impl More {
    fn seal(&mut self) {
        if !self.joined.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.joined).freeze());
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.queue.pop_front().or_else(|| (!self.joined.is_empty()).then(|| std::mem::take(&mut self.joined).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes and takes by a fixed pattern, and holds the result to a plain list of bytes.
    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        for pattern in 0..64_usize {
            let (mut pieces, mut given, mut taken) = (Pieces::default(), Vec::new(), Vec::new());
            for turn in 0..200 {
                let length = [1, 0, 100, SMALL, 3, JOINED, SMALL - 1, 2][(turn * 7 + pattern) % 8];
                let bytes: Vec<u8> = (0..length).map(|at| (at + turn) as u8).collect();
                given.extend_from_slice(&bytes);
                match (turn + pattern) % 3 {
                    0 => pieces.push(bytes.into()),
                    _ => pieces.push_detached(bytes.into()),
                }
                match (turn * 5 + pattern) % 7 {
                    0 => taken.extend(pieces.pop().unwrap_or_default()),
                    most @ 1..=4 => taken.extend(pieces.take(most * 1500)),
                    _ => taken.extend(pieces.take(0)),
                }
                assert_eq!(pieces.len(), given.len() - taken.len());
            }
            while let Some(piece) = pieces.pop() {
                assert!(!piece.is_empty());
                taken.extend_from_slice(&piece);
            }
            assert!(pieces.is_empty() && given == taken, "pattern {pattern}");
        }
    }

    #[test]
    fn single_bytes_are_joined() {
        let mut pieces = Pieces::default();
        for _ in 0..64 * 1024 {
            pieces.push_detached(Bytes::from_static(b"x"));
        }
        let lengths: Vec<_> = std::iter::from_fn(|| pieces.pop()).map(|piece| piece.len()).collect();
        assert_eq!(lengths, [1, JOINED, JOINED, JOINED, JOINED - 1]);
    }

    #[test]
    fn a_single_piece_is_neither_copied_nor_joined() {
        let mut pieces = Pieces::default();
        let bytes = Bytes::from(vec![7; 100]);
        pieces.push(bytes.clone());
        assert!(pieces.more.is_none());
        assert_eq!(pieces.pop().unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(pieces.clear(), 0);
    }
}
