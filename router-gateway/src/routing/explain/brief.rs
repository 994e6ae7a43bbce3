//! Explanations in one line that fits into a header: who was left after each step and why the others fell.

use http::HeaderValue;
use serde::Serialize;

use super::{Explanation, Refused};
use crate::routing::trace::{Step, VersionBy, Why};

/// The longest line, in bytes.
pub(super) const BRIEF_BYTES: usize = 4096;
/// How many of those that fell in a step are named, one attempt after the other until the line is short enough.
const NAMED: [usize; 4] = [usize::MAX, 8, 2, 0];

#[derive(Serialize)]
struct Brief<'e> {
    /// The how manieth decision it was; more than one where the request waited or was sent again.
    decisions: u32,
    /// Something was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<VersionBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    strategy: &'e str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<BriefStep<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'e Refused>,
}

#[derive(Serialize)]
struct BriefStep<'e> {
    step: Step,
    /// How many were left.
    left: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallen: Vec<(&'e str, Why)>,
}

impl Explanation {
    /// In one line of JSON, visible ASCII, of at most 4 KiB; what is left out for that is said by `truncated`.
    #[must_use]
    pub fn brief(&self, decisions: u32) -> HeaderValue {
        let fits = |brief: &Brief<'_>| {
            let line = ascii(&serde_json::to_string(brief).ok()?);
            if line.len() > BRIEF_BYTES { None } else { HeaderValue::from_str(&line).ok() }
        };
        NAMED
            .iter()
            .find_map(|named| fits(&self.briefly(decisions, *named)))
            .or_else(|| {
                // A template or a detail that is long by itself.
                let bare = Brief { endpoint: None, refused: None, ..self.briefly(decisions, 0) };
                fits(&Brief { truncated: Some(true), ..bare })
            })
            .unwrap_or(HeaderValue::from_static("{\"truncated\":true}"))
    }

    fn briefly(&self, decisions: u32, named: usize) -> Brief<'_> {
        let truncated = self.steps.iter().any(|taken| taken.fallen.len() > named);
        let steps = self.steps.iter().map(|taken| BriefStep {
            step: taken.step,
            left: taken.survivors.len(),
            fallen: taken.fallen.iter().take(named).map(|fallen| (fallen.instance.as_str(), fallen.why)).collect(),
        });
        Brief {
            decisions,
            truncated: truncated.then_some(true),
            service: self.service.as_deref(),
            version: self.version.as_ref().map(|selected| selected.version.as_str()),
            because: self.version.as_ref().map(|selected| selected.because),
            endpoint: self.endpoint.as_ref().map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)),
            strategy: &self.strategy,
            steps: steps.collect(),
            chosen: self.chosen.as_ref().map(|chosen| chosen.instance.as_str()),
            link: self.chosen.as_ref().map(|chosen| chosen.link),
            refused: self.refused.as_ref(),
        }
    }
}

/// The same JSON in ASCII: other characters stand in strings alone, where they can be escaped.
fn ascii(json: &str) -> String {
    if json.is_ascii() {
        return json.to_owned();
    }
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            line.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ascii_is_escaped() {
        assert_eq!(ascii("{\"a\":\"é𝄞x\"}"), "{\"a\":\"\\u00e9\\ud834\\udd1ex\"}");
        let read: serde_json::Value = serde_json::from_str(&ascii("\"é𝄞x\"")).unwrap();
        assert_eq!(read, "é𝄞x");
    }
}
