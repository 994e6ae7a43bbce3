//! Diagnostics: what is wrong, where, what was found, and what is allowed, laid out like a compiler's (SPEC 10).
//!
//! This file knows how a diagnostic looks. It does not know how one is found; `load` does.

use std::fmt;
use std::path::PathBuf;

/// Why a configuration was refused. Displays as text for a terminal, several lines long.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("error: cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is larger than any configuration should be.
    #[error("error: the configuration file {} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    /// Something in it is wrong: at least one diagnostic.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Diagnostic>),
}

impl ConfigError {
    /// The diagnostics, if the file could be read at all.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(diagnostics) => diagnostics,
            Self::Read { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Invalid(vec![diagnostic])
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// What is wrong, in a few words, with the key.
    pub summary: String,
    /// The key, as in `transports.tcp.listen`. Absent where the text could not be read as keys and values.
    pub key: Option<String>,
    /// Where it was written. Absent for a value that was written nowhere.
    pub place: Option<Place>,
    /// What was found.
    pub found: String,
    /// What is allowed.
    pub allowed: Option<String>,
    /// What to do about it, and what was probably meant.
    pub help: Vec<String>,
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub origin: Origin,
    /// What stands there, with literal secrets masked.
    pub excerpt: Option<Excerpt>,
}

/// What something was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file; the line counts from 1, and is absent where none can be told.
    File { file: String, line: Option<usize> },
    /// An environment variable.
    Variable { name: String },
    /// An override of the command line.
    Argument { key: String },
}

/// A line of source with the part that is meant; columns count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    pub column: usize,
    pub width: usize,
}

impl Place {
    /// The whole of a file.
    pub(crate) const fn file(file: String) -> Self {
        Self { origin: Origin::File { file, line: None }, excerpt: None }
    }

    /// A part of a line of a file.
    pub(crate) const fn line(file: String, line: usize, excerpt: Excerpt) -> Self {
        Self { origin: Origin::File { file, line: Some(line) }, excerpt: Some(excerpt) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.excerpt) {
            (Origin::File { file, line: Some(line) }, Some(excerpt)) => write!(f, "{file}:{line}:{}", excerpt.column),
            (Origin::File { file, line: Some(line) }, None) => write!(f, "{file}:{line}"),
            (Origin::File { file, line: None }, _) => f.write_str(file),
            (Origin::Variable { name }, _) => write!(f, "environment variable {name}"),
            (Origin::Argument { key }, _) => write!(f, "command line, override of {key}"),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match &self.place {
            Some(Place { origin: Origin::File { line: Some(line), .. }, .. }) => line.to_string(),
            _ => " ".to_owned(),
        };
        let gutter = " ".repeat(number.len());
        write!(f, "error: {}", self.summary)?;
        if let Some(place) = &self.place {
            write!(f, "\n{gutter}--> {place}")?;
        }
        match self.place.as_ref().and_then(|place| place.excerpt.as_ref()).map(Excerpt::cut) {
            Some(Excerpt { text, column, width }) => {
                let (space, carets) = (" ".repeat(column - 1), "^".repeat(width));
                write!(f, "\n{gutter} |\n{number} | {text}\n{gutter} | {space}{carets} {}", self.found)?;
                if self.allowed.is_some() || !self.help.is_empty() {
                    write!(f, "\n{gutter} |")?;
                }
            }
            None => write!(f, "\n{gutter} = {}", self.found)?,
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "\n{gutter} = allowed: {allowed}")?;
        }
        self.help.iter().try_for_each(|help| write!(f, "\n{gutter} = help: {help}"))
    }
}

/// Longest excerpt: a minified file is one line.
const SHOWN: usize = 120;

impl Excerpt {
    /// As it can be printed: what is meant stays in sight, however long the line, and nothing moves the cursor.
    fn cut(&self) -> Self {
        let before = self.column.saturating_sub(1);
        let skip = if before < SHOWN * 2 / 3 { 0 } else { before - SHOWN / 3 };
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = self.text.chars().skip(skip).take(SHOWN).map(visible).collect();
        let before = before - skip;
        let width = self.width.min(text.chars().count().saturating_sub(before)).max(1);
        Self { text: text.trim_end().to_owned(), column: before + 1, width }
    }
}

struct Lines<'a>(&'a [Diagnostic]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if place == 0 { "" } else { "\n\n" })?;
        }
        Ok(())
    }
}

/// The one of `known` that `written` was probably meant to be.
pub(crate) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let written = plain(written);
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &plain(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_and_a_distant_one_is_not() {
        let known = ["listen", "shared_secret", "insecure"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("shared-secret", &known), Some("shared_secret"));
        assert_eq!(nearest("SharedSecret", &known), Some("shared_secret"));
        assert_eq!(nearest("certificate", &known), None);
        assert_eq!(nearest("", &known), None);
    }

    #[test]
    fn a_long_line_is_cut_around_what_is_underlined() {
        let text = format!("{}wrong{}", "a".repeat(300), "b".repeat(300));
        let excerpt = Excerpt { text, column: 301, width: 5 }.cut();
        assert_eq!(excerpt.text.chars().skip(excerpt.column - 1).take(excerpt.width).collect::<String>(), "wrong");
        assert!(excerpt.text.len() <= SHOWN);
    }
}
