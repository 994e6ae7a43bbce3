//! Rules that one file keeps or breaks by itself: its header, its length, its words, its purity.
//!
//! Knows nothing of modules or crates beyond the path a file stands under.

use std::collections::BTreeSet;

use super::SourceFile;
use super::source::{code_only, lines_with, without_tests};

/// The crate that does no I/O, spawns nothing and reads no clock.
pub(super) const PURE_CRATE: &str = "router-common";

const MAX_LINES: usize = 800;

/// What may not stand in code outside tests, and why.
const BANNED: &[(&str, &str)] = &[
    ("todo!(", "unfinished work does not land"),
    ("unimplemented!(", "unfinished work does not land"),
    ("dbg!(", "a trace left behind"),
    ("unbounded_channel", "every queue has a bound"),
    ("allow(dead_code)", "dead code is deleted"),
];

/// What may not stand anywhere, tests included, and why.
const BANNED_EVERYWHERE: &[(&str, &str)] =
    &[("#[ignore", "a test that does not run is no test"), ("allow(clippy::all)", "too wide")];

/// What would end the purity of the core.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    ".elapsed(",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "tokio",
    "hyper",
];

/// Crates that bring a runtime, I/O, a clock or randomness of their own.
const IMPURE_DEPENDENCIES: &[&str] = &[
    "async-io",
    "async-std",
    "fastrand",
    "futures-timer",
    "getrandom",
    "hyper",
    "hyper-util",
    "mio",
    "rand",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
];

/// A file opens with `//!`: what it is, and what it deliberately does not know.
pub(super) fn header(file: &SourceFile) -> Vec<String> {
    if is_specimen(&file.path) || file.text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{}:1: does not open with `//!` (what it is, what it does not know)", file.path)]
}

pub(super) fn length(file: &SourceFile) -> Vec<String> {
    let lines = file.text.lines().count();
    if is_specimen(&file.path) || lines <= MAX_LINES {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, {MAX_LINES} are the limit: split it by idea", file.path)]
}

pub(super) fn banned_words(file: &SourceFile) -> Vec<String> {
    if is_specimen(&file.path) {
        return Vec::new();
    }
    let code = code_only(&file.text);
    let mut findings = occurrences(file, &code, BANNED_EVERYWHERE);
    if !is_test(&file.path) {
        findings.extend(occurrences(file, &without_tests(&code), BANNED));
    }
    findings
}

pub(super) fn impurities(file: &SourceFile) -> Vec<String> {
    if !file.path.starts_with(&format!("{PURE_CRATE}/src/")) {
        return Vec::new();
    }
    // The test support behind its feature needs some instant to begin virtual time with; there is no other way to one.
    let is_support = file.path.starts_with(&format!("{PURE_CRATE}/src/testing"));
    let code = without_tests(&code_only(&file.text));
    IMPURE
        .iter()
        .filter(|word| !(is_support && **word == "Instant::now"))
        .flat_map(|word| {
            lines_with(&code, word).into_iter().map(move |line| {
                format!("{}:{line}: `{word}`: {PURE_CRATE} is pure, time comes in as an argument", file.path)
            })
        })
        .collect()
}

pub(super) fn impure_dependencies(dependencies: &BTreeSet<&str>) -> Vec<String> {
    IMPURE_DEPENDENCIES
        .iter()
        .filter(|name| dependencies.contains(*name))
        .map(|name| format!("{PURE_CRATE}/Cargo.toml: depends on `{name}`, and may not"))
        .collect()
}

fn occurrences(file: &SourceFile, code: &str, banned: &[(&str, &str)]) -> Vec<String> {
    banned
        .iter()
        .flat_map(|(word, why)| {
            lines_with(code, word).into_iter().map(move |line| format!("{}:{line}: `{word}`: {why}", file.path))
        })
        .collect()
}

/// Files that are data: the inputs of compile-time tests, golden outputs, generated code.
fn is_specimen(path: &str) -> bool {
    path.contains("/tests/ui/") || path.split('/').any(|part| matches!(part, "golden" | "generated" | "snapshots"))
}

/// Files that only tests use.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs")) || path.ends_with("_tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(header(&file("a/src/b.rs", "//! B.\n")), [""; 0]);
        assert_eq!(header(&file("a/tests/ui/fail/b.rs", "fn main() {}")), [""; 0]);
        assert!(header(&file("a/src/b.rs", "use c;\n"))[0].starts_with("a/src/b.rs:1:"));
    }

    #[test]
    fn a_file_over_the_limit_is_found() {
        assert_eq!(length(&file("a/src/b.rs", &"\n".repeat(800))), [""; 0]);
        assert_eq!(length(&file("a/src/b.rs", &"\n".repeat(801))).len(), 1);
        assert_eq!(length(&file("a/src/generated/b.rs", &"\n".repeat(801))), [""; 0]);
    }

    #[test]
    fn banned_words_are_found_in_code_alone() {
        let text = "//! todo!()\nfn f() {\n    todo!()\n}\nconst S: &str = \"dbg!(x)\";\n\
                    #[cfg(test)]\nmod tests { fn g() { todo!() } }\n";
        assert_eq!(banned_words(&file("a/src/b.rs", text)), ["a/src/b.rs:3: `todo!(`: unfinished work does not land"]);
        assert_eq!(banned_words(&file("a/tests/b.rs", text)), [""; 0]);
    }

    #[test]
    fn ignored_tests_are_found_in_tests_too() {
        let text = "#[cfg(test)]\nmod tests {\n    #[test]\n    #[ignore]\n    fn f() {}\n}\n";
        assert_eq!(banned_words(&file("a/tests/b.rs", text)).len(), 1);
    }

    #[test]
    fn clocks_are_found_in_the_core_alone() {
        let text = "//! tokio\nfn f() {\n    let now = Instant::now();\n}\n";
        assert_eq!(impurities(&file("router-common/src/a.rs", text)).len(), 1);
        assert_eq!(impurities(&file("transports/link/src/a.rs", text)), [""; 0]);
        assert_eq!(impurities(&file("router-common/src/testing.rs", text)), [""; 0], "virtual time begins somewhere");
    }

    #[test]
    fn runtimes_are_found_among_the_dependencies_of_the_core() {
        assert_eq!(impure_dependencies(&BTreeSet::from(["bytes", "http"])), [""; 0]);
        assert_eq!(impure_dependencies(&BTreeSet::from(["bytes", "tokio"])).len(), 1);
    }
}
