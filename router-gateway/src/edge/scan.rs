//! What the HTTP library does not tell about a request head, read from its raw bytes as they pass.
//!
//! The library resolves a head that has both Content-Length and Transfer-Encoding by dropping the former.
//! A gateway should refuse such a head. This scanner only notices: it parses nothing and
//! decides nothing.

/// Longest field name it looks for, with its colon.
const PREFIX: usize = 18;
const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Reads one head, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// The first bytes of the line that is being read.
    line: [u8; PREFIX],
    /// How long that line is so far, without CR and LF; beyond [`PREFIX`] only the fact counts.
    length: usize,
    /// The request line has been read.
    past_request_line: bool,
    /// Bytes of the head so far.
    seen: usize,
    complete: bool,
    found: Found,
}

/// What was noticed in one head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) content_length: bool,
    pub(super) transfer_encoding: bool,
}

impl Found {
    pub(super) const fn two_lengths(self) -> bool {
        self.content_length && self.transfer_encoding
    }
}

impl HeadScan {
    /// Whether the blank line after the head has been seen.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// How long the head is so far, in bytes.
    pub(super) const fn seen(&self) -> usize {
        self.seen
    }

    pub(super) const fn found(&self) -> Found {
        self.found
    }

    /// Reads on; what comes after the head is not looked at.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.seen = self.seen.saturating_add(bytes.len());
        while !self.complete {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.keep(bytes);
                return;
            };
            let (line, rest) = bytes.split_at(end);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if self.length == 0 {
                // The whole line is here, as nearly always.
                self.end_line(line);
            } else {
                self.keep(line);
                let kept = self.line;
                self.end_line(kept.get(..self.length).unwrap_or(&kept));
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if let Some(room) = self.line.get_mut(self.length..) {
            for (place, byte) in room.iter_mut().zip(part) {
                *place = *byte;
            }
        }
        self.length = self.length.saturating_add(part.len());
    }

    fn end_line(&mut self, line: &[u8]) {
        // A CR that came alone at the end of the last piece.
        let blank = line.is_empty() || line == b"\r";
        if self.past_request_line {
            self.complete = blank;
            self.found.content_length |= begins_with(line, CONTENT_LENGTH);
            self.found.transfer_encoding |= begins_with(line, TRANSFER_ENCODING);
        } else {
            // RFC 9112 2.2: empty lines before the request line are ignored.
            self.past_request_line = !blank;
        }
        self.length = 0;
    }
}

fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH: 5\r\nX-Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\ncontent-length: no";

    #[test]
    fn both_lengths_are_noticed_in_any_pieces() {
        for size in 1..HEAD.len() {
            let mut scan = HeadScan::default();
            for piece in HEAD.chunks(size) {
                scan.feed(piece);
            }
            assert!(scan.is_complete(), "pieces of {size}");
            assert!(scan.found().two_lengths(), "pieces of {size}");
        }
    }

    #[test]
    fn what_follows_the_head_is_not_looked_at() {
        let mut scan = HeadScan::default();
        scan.feed(b"GET / HTTP/1.1\nHost: a\n\nContent-Length: 1\nTransfer-Encoding: chunked\n\n");
        assert!(scan.is_complete());
        assert_eq!(scan.found(), Found::default());
    }

    #[test]
    fn an_unfinished_head_is_not_complete() {
        let mut scan = HeadScan::default();
        scan.feed(b"GET / HTTP/1.1\r\nContent-Length: 1\r\n");
        assert!(!scan.is_complete());
        assert!(scan.found().content_length && !scan.found().two_lengths());
    }
}
