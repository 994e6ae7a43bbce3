//! Rust text with what is not code blanked out, so that the checks can search it plainly.
//!
//! A small lexer, not a parser: it knows comments, literals and bracket pairs. Blanked bytes become spaces and
//! line ends stay, so every offset and line number still points into the original.

use std::ops::Range;

/// `text` with comments, strings and character literals blanked.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !continues_a_word(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at,
            },
            b'\'' => char_end(text, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            at += 1;
        } else {
            blank(&mut code, at..end);
            at = end;
        }
    }
    into_text(code)
}

/// `code` (already without comments and literals) with every item under `#[cfg(test)]` blanked.
pub(super) fn without_tests(code: &str) -> String {
    let mut rest = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(") {
        let start = from + found;
        let condition: String =
            code[start + "#[cfg(".len()..].chars().filter(|c| !c.is_whitespace()).take("all(test".len()).collect();
        let is_test = ["test)", "test,", "all(test", "any(test"].iter().any(|prefix| condition.starts_with(prefix));
        let after_attribute = matching_end(code.as_bytes(), start + 1);
        from = if is_test { item_end(code.as_bytes(), after_attribute) } else { after_attribute };
        if is_test {
            blank(&mut rest, start..from);
        }
    }
    into_text(rest)
}

/// The lines (from 1) on which `needle` stands as a whole word.
pub(super) fn lines_with(code: &str, needle: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find(needle) {
        let start = from + found;
        from = start + needle.len();
        let open_left = needle.starts_with(is_word_char) && code[..start].ends_with(is_word_char);
        let open_right = needle.ends_with(is_word_char) && code[from..].starts_with(is_word_char);
        if !open_left && !open_right {
            lines.push(line_of(code, start));
        }
    }
    lines
}

/// The line (from 1) that holds the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count()
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn continues_a_word(bytes: &[u8], at: usize) -> bool {
    // `br"..."` and `cr"..."` are raw strings too.
    let before = match at.checked_sub(1).map(|i| bytes[i]) {
        Some(b'b' | b'c') => at.checked_sub(2).map(|i| bytes[i]),
        other => other,
    };
    before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii())
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_u32;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    let body = at + 1 + hashes;
    if bytes.get(body) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let length = bytes[body + 1..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| body + 1 + length + close.len()))
}

/// The end of a character literal, or `None` for a lifetime.
fn char_end(text: &str, at: usize) -> Option<usize> {
    let mut rest = text[at + 1..].char_indices();
    match rest.next()?.1 {
        '\\' => {
            rest.next();
            let (length, _) = rest.find(|&(_, c)| c == '\'')?;
            Some(at + 1 + length + 1)
        }
        '\'' => None,
        c => text[at + 1 + c.len_utf8()..].starts_with('\'').then_some(at + 2 + c.len_utf8()),
    }
}

/// The offset behind the bracket that closes the one at `open`.
fn matching_end(code: &[u8], open: usize) -> usize {
    let mut depth = 0_u32;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The offset behind the item that begins at `at`: behind its `;` or its braces.
fn item_end(code: &[u8], mut at: usize) -> usize {
    while at < code.len() {
        match code[at] {
            b'(' | b'[' => at = matching_end(code, at),
            b'{' => return matching_end(code, at),
            b';' => return at + 1,
            // The item was a last field or arm: its parent's brace is not ours.
            b'}' => return at,
            _ => at += 1,
        }
    }
    code.len()
}

fn blank(code: &mut [u8], range: Range<usize>) {
    let end = range.end.min(code.len());
    for byte in &mut code[range.start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Blanking replaces whole characters, so what remains is UTF-8; if ever not, the check sees marks, not a panic.
fn into_text(code: Vec<u8>) -> String {
    String::from_utf8(code).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let text = "a // b\nc /* d /* e */ f */ g \"h\\\"i\" j r#\"k\"l\"# m 'n' '\\'' 'o: p br\"q\" é";
        let code = code_only(text);
        assert_eq!(squeezed(&code), "a c g j m 'o: p b é");
        assert_eq!(code.len(), text.len());
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn words_that_end_in_r_do_not_begin_raw_strings() {
        assert_eq!(squeezed(&code_only("for r#type in bar")), "for r#type in bar");
    }

    #[test]
    fn quotes_inside_char_literals_do_not_open_strings() {
        assert_eq!(squeezed(&code_only("['\"', b'\"', '{'] x 'é' y")), "[ , b , ] x y");
    }

    #[test]
    fn test_items_are_blanked_to_their_end() {
        let code = "use a; #[cfg(test)] mod tests { fn f() { [1]; } } fn g() {} \
                    #[cfg(test)] use b::c; #[cfg(all(test, unix))] #[x(y)] fn h() -> [u8; 2] {} fn i() {}";
        assert_eq!(squeezed(&without_tests(code)), "use a; fn g() {} fn i() {}");
    }

    #[test]
    fn other_conditions_stay() {
        let code = "#[cfg(feature = x)] fn f() {} #[cfg(testing)] fn g() {}";
        assert_eq!(without_tests(code), code);
    }

    #[test]
    fn words_are_found_whole() {
        assert_eq!(lines_with("tokio::a\nmy_tokio tokio_util\ntokio", "tokio"), [1, 3]);
        assert_eq!(lines_with("x.elapsed()\ny.elapsed_ms()", ".elapsed("), [1]);
    }
}
