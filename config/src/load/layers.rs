//! The layers over each other, and where each value came from. The merging is `figment`'s.
//!
//! Which keys there are, and what they mean, is not known here.

use std::collections::HashMap;
use std::fmt;

use figment::value::{Dict, Empty, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Text;
use super::typed::{About, TypedError};
use super::yaml::{self, Node, Span};
use crate::error::{ConfigError, Diagnostic, Excerpt, Origin, Place, nearest};
use crate::scalar::without_password;
use crate::validate::{KeyPath, Refusal, Step};

/// All layers, merged. `Debug` shows nothing of them: they may hold literal secrets.
pub(super) struct Layers {
    figment: Figment,
    merged: Value,
    /// What the layers above the file came from; a layer's metadata names its index here plus one.
    inputs: Vec<Input>,
    file: Option<Shown>,
    marks: HashMap<KeyPath, Mark>,
}

enum Input {
    Variable { name: String, value: String },
    Argument { key: String, value: String },
}

/// The file as diagnostics may show it.
struct Shown {
    name: String,
    lines: Vec<String>,
}

/// Where the file has a key and its value. Items of a list have no key.
#[derive(Debug, Clone, Copy)]
struct Mark {
    key: Option<Span>,
    value: Span,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scalar,
    Nothing,
    List,
    Map,
}

/// One layer as figment sees it.
struct Layer {
    index: usize,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.index.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

const FILE: usize = 0;

impl Layers {
    pub(super) fn build(
        prefix: &str,
        file: Option<Text>,
        mut environment: Vec<(String, String)>,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let mut layers = Self {
            figment: Figment::new(),
            merged: Value::Dict(Tag::Default, Dict::new()),
            inputs: Vec::new(),
            file: None,
            marks: HashMap::new(),
        };
        if let Some(file) = file {
            layers.add_file(file)?;
        }
        environment.sort();
        for (name, value) in environment {
            let keys: Vec<String> = name[prefix.len()..].split("__").map(str::to_lowercase).collect();
            let keys = layers.spelled_as_in_the_file(keys);
            layers.add(keys, Input::Variable { name, value });
        }
        for text in overrides {
            let (keys, input) = argument(text)?;
            layers.add(keys, input);
        }
        // The root is a dictionary whatever the layers hold, so it is always found.
        layers.merged = layers.figment.find_value("").unwrap_or(layers.merged);
        Ok(layers)
    }

    pub(super) const fn merged(&self) -> &Value {
        &self.merged
    }

    fn add_file(&mut self, file: Text) -> Result<(), ConfigError> {
        let root = yaml::parse(&file)?;
        let mut secrets = Vec::new();
        let value = self.mark(&root, &KeyPath::default(), None, false, &mut secrets);
        let shown = Shown { lines: yaml::mask(&file.text, &secrets), name: file.name };
        let dict = match value {
            Value::Dict(_, dict) => dict,
            Value::Empty(..) => Dict::new(),
            other => {
                return Err(Diagnostic {
                    summary: "the file is not a map".to_owned(),
                    key: None,
                    place: Some(shown.at(root.span)),
                    found: format!("found {}", if matches!(other, Value::Array(..)) { "a list" } else { "text" }),
                    allowed: Some("sections as keys with their settings, such as `node: { id: gw-1 }`".to_owned()),
                    help: Vec::new(),
                }
                .into());
            }
        };
        self.file = Some(shown);
        self.merge(FILE, dict);
        Ok(())
    }

    /// Turns a value of the file into figment's, noting where each part stands.
    fn mark(
        &mut self,
        node: &Node,
        at: &KeyPath,
        key: Option<Span>,
        sensitive: bool,
        secrets: &mut Vec<Span>,
    ) -> Value {
        let kind = match &node.value {
            yaml::Value::Scalar(_) => Kind::Scalar,
            yaml::Value::Null | yaml::Value::Nothing => Kind::Nothing,
            yaml::Value::List(_) => Kind::List,
            yaml::Value::Map(_) => Kind::Map,
        };
        self.marks.insert(at.clone(), Mark { key, value: node.span, kind });
        match &node.value {
            yaml::Value::Null => Value::Empty(Tag::Default, Empty::None),
            yaml::Value::Nothing => Value::Empty(Tag::Default, Empty::Unit),
            yaml::Value::Scalar(text) => {
                if sensitive && !yaml::is_reference(text) {
                    secrets.push(node.span);
                }
                Value::String(Tag::Default, text.clone())
            }
            yaml::Value::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    values.push(self.mark(item, &at.index(index), None, sensitive, secrets));
                }
                Value::Array(Tag::Default, values)
            }
            yaml::Value::Map(entries) => {
                let mut dict = Dict::new();
                for (key, span, value) in entries {
                    let sensitive = sensitive || yaml::is_sensitive(key);
                    dict.insert(key.clone(), self.mark(value, &at.key(key), Some(*span), sensitive, secrets));
                }
                Value::Dict(Tag::Default, dict)
            }
        }
    }

    fn add(&mut self, keys: Vec<String>, input: Input) {
        let (Input::Variable { value, .. } | Input::Argument { value, .. }) = &input;
        let mut value = read_value(value);
        for key in keys.into_iter().rev() {
            value = Value::Dict(Tag::Default, Dict::from([(key, value)]));
        }
        self.inputs.push(input);
        if let Value::Dict(_, dict) = value {
            self.merge(self.inputs.len(), dict);
        }
    }

    fn merge(&mut self, index: usize, dict: Dict) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = figment.merge(Layer { index, dict });
    }

    /// Names of variables have no hyphens and no small letters; the file's keys have.
    fn spelled_as_in_the_file(&self, keys: Vec<String>) -> Vec<String> {
        let mut at = KeyPath::default();
        let mut spelled = Vec::with_capacity(keys.len());
        for key in keys {
            let same = self.marks.keys().find_map(|path| match path.steps().split_last() {
                Some((Step::Key(last), above))
                    if above == at.steps() && last.to_lowercase().replace('-', "_") == key =>
                {
                    Some(last.clone())
                }
                _ => None,
            });
            let key = same.unwrap_or(key);
            at = at.key(&key);
            spelled.push(key);
        }
        spelled
    }

    /// The diagnostic of what the wanted type refused.
    pub(super) fn diagnose(&self, error: TypedError) -> ConfigError {
        let TypedError { at, about, problem, mut allowed, mut help } = error;
        let at = at.unwrap_or_default();
        let key = at.to_string();
        let (summary, found, place) = match about {
            About::Value if key.is_empty() => {
                ("the configuration is not valid".to_owned(), problem, self.place(&at, Part::Value))
            }
            About::Value => (format!("`{key}` is not valid"), problem, self.place(&at, Part::Value)),
            About::Key => (format!("`{key}` is not valid"), problem, self.place(&at, Part::Key)),
            About::Missing { field } => {
                let key = at.key(field).to_string();
                let place = self.place(&at, Part::Key);
                return Diagnostic {
                    summary: format!("`{key}` is missing"),
                    key: Some(key),
                    place,
                    found: format!("found no key `{field}` here"),
                    allowed,
                    help,
                }
                .into();
            }
            About::Unknown { written, known } => {
                let parent = at.parent().filter(|parent| !parent.steps().is_empty());
                let known_here = match &parent {
                    Some(parent) => format!("not a key of `{parent}`"),
                    None => "not a section of the configuration".to_owned(),
                };
                let mut sorted = known.to_vec();
                sorted.sort_unstable();
                allowed = Some(match sorted.is_empty() {
                    true => "no keys at all".to_owned(),
                    false => sorted.join(", "),
                });
                if let Some(meant) = nearest(&written, known) {
                    help.push(format!("did you mean `{meant}`?"));
                }
                (format!("unknown key `{key}`"), known_here, self.place(&at, Part::Key))
            }
        };
        Diagnostic { summary, key: Some(key).filter(|key| !key.is_empty()), place, found, allowed, help }.into()
    }

    /// The diagnostic of what a rule over several keys refused.
    pub(super) fn locate(&self, refusal: Refusal) -> Diagnostic {
        let Refusal { keys, problem, notes } = refusal;
        let written = keys.iter().find(|key| self.value(key).is_some()).or(keys.first()).cloned().unwrap_or_default();
        let notes_of =
            |kind: &str| notes.iter().filter(|(k, _)| k == kind).map(|(_, text)| text.clone()).collect::<Vec<_>>();
        Diagnostic {
            summary: format!("`{written}` is not valid"),
            place: self.place(&written, Part::Value),
            key: Some(written.to_string()),
            found: problem,
            allowed: notes_of("allowed").into_iter().next(),
            help: notes_of("help"),
        }
    }

    fn value(&self, path: &KeyPath) -> Option<&Value> {
        path.steps().iter().try_fold(&self.merged, |value, step| match (value, step) {
            (Value::Dict(_, dict), Step::Key(key)) => dict.get(key),
            (Value::Array(_, items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    /// Where a key, or its value, was written; for what was written nowhere, where the section around it was.
    fn place(&self, path: &KeyPath, part: Part) -> Option<Place> {
        let Some(value) = self.value(path) else {
            return self.place(&path.parent()?, Part::Key);
        };
        let input = self.figment.get_metadata(value.tag()).and_then(|metadata| metadata.name.parse::<usize>().ok());
        let in_file = self.marks.get(path).filter(|mark| match value {
            // A section of several layers is shown where the file has it.
            Value::Dict(..) => matches!(mark.kind, Kind::Map | Kind::Nothing),
            _ => input == Some(FILE),
        });
        match (in_file, input, &self.file) {
            (Some(mark), _, Some(file)) => Some(match (part, mark) {
                // A section as a value is shown by its key, and the root by the file's name.
                (Part::Value, Mark { kind: Kind::Scalar, value, .. }) => file.at(*value),
                (_, Mark { key: Some(key), .. }) => file.at(*key),
                _ if path.steps().is_empty() => Place::file(file.name.clone()),
                (_, Mark { value, .. }) => file.at(*value),
            }),
            (None, Some(input), _) if input > FILE => self.inputs.get(input - 1).map(|input| input.place(path, part)),
            (_, _, Some(file)) if path.steps().is_empty() => Some(Place::file(file.name.clone())),
            _ => None,
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

/// What of an entry a diagnostic is about.
#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
}

impl Shown {
    fn at(&self, span: Span) -> Place {
        let text = self.lines.get(span.line.saturating_sub(1)).cloned().unwrap_or_default();
        Place::line(self.name.clone(), span.line, Excerpt { text, column: span.column, width: span.width })
    }
}

impl Input {
    /// The place of a key, or its value, that this input gave: shown with the part of the name that is the key.
    fn place(&self, path: &KeyPath, part: Part) -> Place {
        let (name, value, separator, outer, origin) = match self {
            Self::Variable { name, value } => (name, value, "__", 1, Origin::Variable { name: name.clone() }),
            Self::Argument { key, value } => (key, value, ".", 0, Origin::Argument { key: key.clone() }),
        };
        // A map or a list may hold secrets further down.
        let secret = (yaml::is_sensitive(name) || value.starts_with(['[', '{'])) && !yaml::is_reference(value);
        let value = if secret { "***".to_owned() } else { without_password(value) };
        let width = |text: &str| text.chars().count();
        let (column, width) = match part {
            Part::Value => (width(name) + 2, width(&value)),
            Part::Key => {
                let segments: Vec<_> = name.split(separator).collect();
                let last = (path.steps().len() + outer).clamp(1, segments.len()) - 1;
                let before = segments[..last].iter().map(|segment| width(segment) + separator.len()).sum::<usize>();
                (before + 1, width(segments[last]))
            }
        };
        Place { origin, excerpt: Some(Excerpt { text: format!("{name}={value}"), column, width }) }
    }
}

/// Reads `key.path=value`.
fn argument(text: &str) -> Result<(Vec<String>, Input), ConfigError> {
    let refuse = |found: &str, key: &str| {
        ConfigError::from(Diagnostic {
            summary: "an override of the command line is not valid".to_owned(),
            key: None,
            place: Some(Place { origin: Origin::Argument { key: key.to_owned() }, excerpt: None }),
            found: found.to_owned(),
            allowed: Some("`key.path=value`, such as `node.region=eu-west`".to_owned()),
            help: Vec::new(),
        })
    };
    let Some((key, value)) = text.split_once('=') else { return Err(refuse("found no `=`", text)) };
    if key.contains('[') {
        return Err(refuse("found an index: a list is replaced as a whole", key));
    }
    let keys: Vec<String> = key.split('.').map(|key| key.trim().to_owned()).collect();
    if keys.iter().any(String::is_empty) {
        return Err(refuse("found an empty key", key));
    }
    Ok((keys, Input::Argument { key: key.to_owned(), value: value.to_owned() }))
}

/// Reads what a variable or an override says: text as it stands, but lists and maps as in YAML.
fn read_value(text: &str) -> Value {
    let parsed = text
        .starts_with(['[', '{'])
        .then(|| yaml::parse(&Text { name: String::new(), text: text.to_owned() }).ok().map(|node| plain(&node)));
    parsed.flatten().unwrap_or_else(|| Value::String(Tag::Default, text.to_owned()))
}

fn plain(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Empty(Tag::Default, Empty::None),
        yaml::Value::Nothing => Value::Empty(Tag::Default, Empty::Unit),
        yaml::Value::Scalar(text) => Value::String(Tag::Default, text.clone()),
        yaml::Value::List(items) => Value::Array(Tag::Default, items.iter().map(plain).collect()),
        yaml::Value::Map(entries) => {
            Value::Dict(Tag::Default, entries.iter().map(|(key, _, value)| (key.clone(), plain(value))).collect())
        }
    }
}
