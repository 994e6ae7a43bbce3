//! Reading the golden vectors: `router-common/golden/vectors.json`, and bytes in hexadecimal.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the vectors stand.
pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/vectors.json")
}

/// The whole file.
pub(crate) fn read() -> Value {
    let text = std::fs::read_to_string(file()).expect("the golden vectors");
    serde_json::from_str(&text).expect("the golden vectors are JSON")
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "an odd number of digits");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}
