//! A snippet in a document compiles, or it is not there.
//!
//! The compiling itself is rustdoc's: documents are included into a crate as its doctests. This module checks
//! that none is forgotten, and that every block says its language, because rustdoc takes one that does not for Rust.

/// Checks one document. `included` is the text of `includer`, the file that turns documents into doctests.
pub(super) fn check(path: &str, document: &str, includer: &str, included: &str) -> Vec<String> {
    let fences = opening_fences(document);
    let is_included = included.contains(&format!("include_str!(\"../../{path}\")"));
    let mut findings = Vec::new();
    if is_included {
        for (line, _) in fences.iter().filter(|(_, language)| language.is_empty()) {
            findings.push(format!("{path}:{line}: the block names no language; `text` if it has none"));
        }
    } else if let Some((line, _)) = fences.iter().find(|(_, language)| is_rust(language)) {
        findings.push(format!("{path}:{line}: holds Rust, but {includer} does not include it"));
    }
    findings
}

/// The line (from 1) and the info string of each fence that opens a block.
fn opening_fences(document: &str) -> Vec<(usize, &str)> {
    let mut fences = Vec::new();
    let mut open: Option<&str> = None;
    for (index, line) in document.lines().enumerate() {
        let line = line.trim_start();
        let mark = &line[..line.len() - line.trim_start_matches('`').len()];
        if mark.len() < 3 {
            continue;
        }
        match open {
            Some(opened) if mark.len() >= opened.len() && line == mark => open = None,
            Some(_) => {}
            None => {
                open = Some(mark);
                fences.push((index + 1, line[mark.len()..].trim()));
            }
        }
    }
    fences
}

fn is_rust(info: &str) -> bool {
    info.split([',', ' ']).next() == Some("rust")
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCLUDED: &str = "#[doc = include_str!(\"../../README.md\")]";

    #[test]
    fn rust_in_an_included_document_is_fine() {
        assert_eq!(check("README.md", "```rust\nfn f() {}\n```\n", "lib.rs", INCLUDED), [""; 0]);
    }

    #[test]
    fn rust_in_a_forgotten_document_is_found() {
        let found = check("docs/GUIDE.md", "x\n```rust,no_run\n```\n", "lib.rs", INCLUDED);
        assert_eq!(found, ["docs/GUIDE.md:2: holds Rust, but lib.rs does not include it"]);
    }

    #[test]
    fn a_block_without_a_language_is_found_where_it_would_be_compiled() {
        let document = "```sh\ncurl\n```\n\n```\nplain\n```\n";
        assert_eq!(check("README.md", document, "lib.rs", INCLUDED).len(), 1);
        assert_eq!(check("docs/A.md", document, "lib.rs", INCLUDED), [""; 0]);
    }

    #[test]
    fn longer_fences_hold_shorter_ones() {
        assert_eq!(opening_fences("````text\n```rust\n```\n````\n```sh\n```\n"), [(1, "text"), (5, "sh")]);
    }
}
