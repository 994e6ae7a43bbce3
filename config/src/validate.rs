//! Rules that join several keys, and the paths that name keys.
//!
//! A settings type checks itself here, after it was read; it does not know where its values came from. The loader
//! turns what was refused into diagnostics with a place.

use std::fmt;

/// The way to a key: `services.orders.endpoints[0].path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// Reads `a.b[0].c`. Keys that hold a dot or a bracket cannot be written so.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indices) = part.split_once('[').map_or((part, ""), |(key, indices)| (key, indices));
            if !key.is_empty() {
                steps.push(Step::Key(key.to_owned()));
            }
            let indices = indices.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok());
            steps.extend(indices.map(Step::Index));
        }
        Self(steps)
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if place == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A settings type that knows which of its values do not go together.
pub trait Validate {
    /// Says what is wrong through `checks`; nothing said means all is well.
    fn validate(&self, checks: &mut Checks);
}

impl Validate for () {
    fn validate(&self, _: &mut Checks) {}
}

impl<T: Validate> Validate for Option<T> {
    fn validate(&self, checks: &mut Checks) {
        if let Some(settings) = self {
            settings.validate(checks);
        }
    }
}

/// Collects what [`Validate`] refuses, each with the key it is about.
#[derive(Debug, Default)]
pub struct Checks {
    at: KeyPath,
    refused: Vec<Refusal>,
}

/// One thing that was refused, before it has a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) keys: Vec<KeyPath>,
    pub(crate) problem: String,
    pub(crate) notes: Vec<(String, String)>,
}

impl Refusal {
    /// About `key`; `problem` says what was found, without a full stop.
    #[must_use]
    pub fn new(key: &str, problem: impl Into<String>) -> Self {
        Self { keys: vec![KeyPath::parse(key)], problem: problem.into(), notes: Vec::new() }
    }

    /// Adds what is allowed.
    pub fn allowed(&mut self, allowed: impl Into<String>) -> &mut Self {
        self.note("allowed", allowed)
    }

    /// Adds what to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.note("help", help)
    }

    fn note(&mut self, kind: &str, text: impl Into<String>) -> &mut Self {
        self.notes.push((kind.to_owned(), text.into()));
        self
    }

    /// The key it is about, as written in `a.b[0].c`.
    #[must_use]
    pub fn key(&self) -> String {
        self.keys.first().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key(), self.problem)?;
        self.notes.iter().try_for_each(|(kind, text)| write!(f, "\n{kind}: {text}"))
    }
}

impl std::error::Error for Refusal {}

impl Checks {
    /// Refuses the value of `key`, seen from the current section. `problem` says what was found.
    pub fn refuse(&mut self, key: &str, problem: impl Into<String>) -> &mut Refusal {
        self.refuse_one_of(&[key], problem)
    }

    /// Refuses values that do not go together: the place shown is that of the first key that was written at all, since
    /// the others have their defaults.
    pub fn refuse_one_of(&mut self, keys: &[&str], problem: impl Into<String>) -> &mut Refusal {
        let keys = keys.iter().map(|key| self.at.join(&KeyPath::parse(key))).collect();
        self.push(Refusal { keys, problem: problem.into(), notes: Vec::new() })
    }

    /// Takes over what a function of one setting refused, its key seen from the current section.
    pub fn take(&mut self, result: Result<(), Refusal>) {
        if let Err(mut refusal) = result {
            refusal.keys = refusal.keys.iter().map(|key| self.at.join(key)).collect();
            self.push(refusal);
        }
    }

    /// Checks the section under `key`.
    pub fn section(&mut self, key: &str, section: &impl Validate) {
        self.within(self.at.key(key), |checks| section.validate(checks));
    }

    /// Checks the items of the list under `key`.
    pub fn items<'a, T: Validate + 'a>(&mut self, key: &str, items: impl IntoIterator<Item = &'a T>) {
        let list = self.at.key(key);
        for (index, item) in items.into_iter().enumerate() {
            self.within(list.index(index), |checks| item.validate(checks));
        }
    }

    fn within(&mut self, at: KeyPath, check: impl FnOnce(&mut Self)) {
        let above = std::mem::replace(&mut self.at, at);
        check(self);
        self.at = above;
    }

    fn push(&mut self, refusal: Refusal) -> &mut Refusal {
        let place = self.refused.len();
        self.refused.push(refusal);
        &mut self.refused[place]
    }

    pub(crate) fn into_refused(self) -> Vec<Refusal> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_path_reads_as_it_prints() {
        for text in ["node.id", "services.orders.endpoints[0].path", "a[1][2]", ""] {
            assert_eq!(KeyPath::parse(text).to_string(), text);
        }
    }
}
