//! Durations with units: `30s`, `1h30m`. A bare number is refused, because nobody remembers which unit it was.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{ScalarError, text_scalar};

const ALLOWED: &str = "a duration with units, such as `250ms`, `30s`, `5m` or `1h30m`";

/// Largest first, which is also the order in which they must be written.
const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// A span of time as people write it: whole numbers with the units `d h m s ms us`, largest first (SPEC 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// `seconds` seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span as the standard library has it.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Whether it is `0s`.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        let refuse = || ScalarError::found(input, ALLOWED);
        if input.is_empty() {
            return Err(refuse());
        }
        let mut rest = input;
        let mut smaller_units = &UNITS[..];
        let mut micros: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit_len);
            if number.is_empty() {
                return Err(refuse());
            }
            if unit.is_empty() {
                return Err(match tail.is_empty() && rest.len() == input.len() {
                    true => refuse().help(format!("a bare number has no unit: write `{number}s` or `{number}ms`")),
                    false if tail.starts_with('.') => refuse().help("write a smaller unit instead of a fraction"),
                    false => refuse(),
                });
            }
            let place = smaller_units.iter().position(|(name, _)| *name == unit).ok_or_else(|| {
                match UNITS.iter().any(|(name, _)| *name == unit) {
                    true => refuse().help("write each unit once, the largest first"),
                    false => refuse().help(format!("`{unit}` is not a unit; the units are d, h, m, s, ms and us")),
                }
            })?;
            let scale = smaller_units[place].1;
            smaller_units = &smaller_units[place + 1..];
            micros = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(scale))
                .and_then(|part| part.checked_add(micros))
                .ok_or_else(|| refuse().help("that is longer than any clock runs"))?;
            rest = tail;
        }
        Ok(Self(Duration::from_micros(micros)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS {
            let scale = u128::from(scale);
            if micros >= scale {
                write!(f, "{}{unit}", micros / scale)?;
                micros %= scale;
            }
        }
        Ok(())
    }
}

text_scalar!(HumanDuration, allowed: ALLOWED, schema: {
    "type": "string",
    "description": ALLOWED,
    "pattern": "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?$",
    "examples": ["250ms", "30s", "5m", "1h30m"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_people_write_them() {
        for (text, micros, printed) in [
            ("30s", 30_000_000, "30s"),
            ("5m", 300_000_000, "5m"),
            ("250ms", 250_000, "250ms"),
            ("1h30m", 5_400_000_000, "1h30m"),
            ("90s", 90_000_000, "1m30s"),
            ("1d2h3m4s5ms6us", 93_784_005_006, "1d2h3m4s5ms6us"),
            ("0s", 0, "0s"),
            ("0030s", 30_000_000, "30s"),
        ] {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!(duration.as_duration(), Duration::from_micros(micros), "{text}");
            assert_eq!(duration.to_string(), printed);
            assert_eq!(printed.parse(), Ok(duration));
        }
    }

    #[test]
    fn a_refusal_says_how_to_write_it() {
        let help = |text: &str| text.parse::<HumanDuration>().unwrap_err().help.unwrap_or_default();
        assert_eq!(help("30"), "a bare number has no unit: write `30s` or `30ms`");
        assert_eq!(help("1.5s"), "write a smaller unit instead of a fraction");
        assert_eq!(help("30m1h"), "write each unit once, the largest first");
        assert_eq!(help("5sec"), "`sec` is not a unit; the units are d, h, m, s, ms and us");
        assert_eq!(help("99999999999999999999s"), "that is longer than any clock runs");
        for bad in ["", "s", "-5s", "5 s", " 5s", "5s ", "1h30", "é", "5é", "soon"] {
            let error = bad.parse::<HumanDuration>().unwrap_err();
            assert_eq!(error.allowed, ALLOWED, "{bad}");
        }
    }
}
