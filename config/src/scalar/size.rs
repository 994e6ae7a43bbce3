//! Sizes in bytes with units: `16MiB`, `10MB`, `1000`.

use std::fmt;
use std::str::FromStr;

use super::ScalarError;

const ALLOWED: &str = "a size in bytes, such as `64KiB`, `16MiB`, `1GiB`, `10MB` or `1000`";

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number of bytes: a whole number, alone or with one of `B KB MB GB TB KiB MiB GiB TiB` in any case (SPEC 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `bytes` bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `n` times 1024 bytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1024 KiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes, at most what this machine can address.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

impl FromStr for ByteSize {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        let refuse = || ScalarError::found(input, ALLOWED);
        let digits = input.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = input.split_at(digits);
        if number.is_empty() {
            return Err(refuse());
        }
        let scale = match unit {
            "" => 1,
            unit => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, scale)| *scale)
                .ok_or_else(|| match unit.to_ascii_uppercase().as_str() {
                    short @ ("K" | "M" | "G" | "T") => refuse()
                        .help(format!("write `{number}{short}iB` (powers of 1024) or `{number}{short}B` (of 1000)")),
                    _ if unit.starts_with('.') => refuse().help("write a smaller unit instead of a fraction"),
                    _ => refuse(),
                })?,
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| refuse().help("that is more than 64 bits can count"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS
            .iter()
            .rev()
            .find(|(name, scale)| name.ends_with("iB") && self.0 != 0 && self.0.is_multiple_of(*scale));
        match exact {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => self.0.fmt(f),
        }
    }
}

impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;

        impl serde::de::Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ALLOWED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
        }

        deserializer.deserialize_any(Size)
    }
}

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": ALLOWED,
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+([kKmMgGtT]?[iI]?[bB])?$" }
            ],
            "examples": ["64KiB", "16MiB", "10MB", 1000]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print_as_people_write_them() {
        for (text, bytes, printed) in [
            ("16MiB", 16 << 20, "16MiB"),
            ("64kib", 64 << 10, "64KiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1000", 1000, "1000"),
            ("10MB", 10_000_000, "10000000"),
            ("1024", 1024, "1KiB"),
            ("0", 0, "0"),
            ("7B", 7, "7"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.as_u64(), bytes, "{text}");
            assert_eq!(size.to_string(), printed);
            assert_eq!(printed.parse(), Ok(size));
        }
    }

    #[test]
    fn a_refusal_says_how_to_write_it() {
        let help = |text: &str| text.parse::<ByteSize>().unwrap_err().help.unwrap_or_default();
        assert_eq!(help("16M"), "write `16MiB` (powers of 1024) or `16MB` (of 1000)");
        assert_eq!(help("1.5GiB"), "write a smaller unit instead of a fraction");
        assert_eq!(help("99999999999TiB"), "that is more than 64 bits can count");
        for bad in ["", "MiB", "-1", "16 MiB", "16PiB", "all"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
