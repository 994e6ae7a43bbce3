//! The reference of a configuration file, as Markdown tables: drawn from the types themselves, so that a document that
//! holds it cannot say anything else.
//!
//! It reads JSON Schemas and knows nothing of what the keys do.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One table a section of the file, in the order of their names.
#[must_use]
pub fn tables(schema: &Value) -> String {
    let mut tables = Tables { schema, waiting: Vec::new(), done: Vec::new(), text: String::new() };
    tables.object("", schema);
    while !tables.waiting.is_empty() {
        let (key, schema) = tables.waiting.remove(0);
        tables.object(&key, schema);
    }
    tables.text.trim_end().to_owned() + "\n"
}

struct Tables<'s> {
    schema: &'s Value,
    /// Objects that were met, under the key at which they stand.
    waiting: Vec<(String, &'s Value)>,
    done: Vec<String>,
    text: String,
}

impl<'s> Tables<'s> {
    /// The table of one object, whose own objects are left for later.
    fn object(&mut self, key: &str, object: &'s Value) {
        let object = self.resolved(object);
        let Some(properties) = object["properties"].as_object() else { return };
        if self.done.contains(&key.to_owned()) {
            return;
        }
        self.done.push(key.to_owned());
        let (mut rows, mut nested) = (String::new(), Vec::new());
        for (name, property) in properties {
            let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            match self.inner_object(&path, property) {
                Some(inner) if self.is_section(property) => nested.push(inner),
                inner => {
                    nested.extend(inner);
                    let required = object["required"].as_array().is_some_and(|all| all.contains(&name.as_str().into()));
                    self.row(&mut rows, name, property, required);
                }
            }
        }
        if !rows.is_empty() {
            let title = if key.is_empty() { "the file itself".to_owned() } else { format!("`{key}`") };
            let about = Some(&object["description"]).filter(|_| !key.is_empty());
            let about = about.and_then(Value::as_str).map(|text| format!("{}\n\n", one_line(text))).unwrap_or_default();
            let _ = write!(
                self.text,
                "### {title}\n\n{about}| key | value | default | meaning |\n|---|---|---|---|\n{rows}\n"
            );
        }
        self.waiting.splice(0..0, nested);
    }

    fn row(&self, rows: &mut String, name: &str, property: &'s Value, required: bool) {
        let default = match property.get("default") {
            _ if required => "required".to_owned(),
            None | Some(Value::Null) => "absent".to_owned(),
            Some(value) => code(value),
        };
        let own = property["description"].as_str();
        let meaning = own.or_else(|| self.resolved(property)["description"].as_str()).map(one_line).unwrap_or_default();
        let _ = writeln!(rows, "| `{name}` | {} | {default} | {meaning} |", self.kind(property));
    }

    /// A section is written as tables of its own; anything else needs a row too.
    fn is_section(&self, property: &'s Value) -> bool {
        property.get("$ref").is_some() && self.resolved(property)["properties"].is_object()
    }

    /// The object with keys of its own that stands at, in a list at, or in a map at a property.
    fn inner_object(&self, path: &str, property: &'s Value) -> Option<(String, &'s Value)> {
        let resolved = self.resolved(property);
        if resolved["properties"].is_object() {
            return Some((path.to_owned(), resolved));
        }
        for (at, place) in [("items", "[]"), ("additionalProperties", ".<name>")] {
            if let Some(inner) = resolved.get(at).filter(|inner| inner.is_object()) {
                return self.inner_object(&format!("{path}{place}"), inner);
            }
        }
        let mut choices = resolved["anyOf"].as_array()?.iter().filter(|choice| choice["type"] != "null");
        match (choices.next(), choices.next()) {
            (Some(only), None) => self.inner_object(path, only),
            _ => None,
        }
    }

    fn resolved(&self, schema: &'s Value) -> &'s Value {
        match schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            Some(name) => self.resolved(&self.schema["$defs"][name]),
            None => schema,
        }
    }

    /// What may stand there, in a word or two.
    fn kind(&self, schema: &'s Value) -> String {
        let resolved = self.resolved(schema);
        if let Some(word) = WORDS.iter().find(|(name, _)| schema["$ref"] == format!("#/$defs/{name}")) {
            return word.1.to_owned();
        }
        if let Some(values) = resolved["enum"].as_array() {
            return values.iter().map(code).collect::<Vec<_>>().join(", ");
        }
        if let Some(value) = resolved.get("const") {
            return code(value);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = resolved[choice].as_array() {
                let kinds = choices.iter().filter(|choice| choice["type"] != "null").map(|choice| self.kind(choice));
                return kinds.collect::<Vec<_>>().join(", ");
            }
        }
        let example = resolved["examples"][0].as_str().map(|example| format!(", as `{example}`")).unwrap_or_default();
        match &resolved["type"] {
            Value::String(kind) => self.simple(kind, resolved) + &example,
            Value::Array(kinds) => {
                let kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
                kinds.map(|kind| self.simple(kind, resolved)).collect::<Vec<_>>().join(" or ") + &example
            }
            _ => "text".to_owned(),
        }
    }

    fn simple(&self, kind: &str, schema: &'s Value) -> String {
        match kind {
            "string" => "text".to_owned(),
            "integer" | "number" => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
                (Some(least), Some(most)) => format!("number, {least} to {most}"),
                (Some(least), None) if least > 0 => format!("number, from {least}"),
                _ => "number".to_owned(),
            },
            "boolean" => "`true`, `false`".to_owned(),
            "array" => match self.kind(&schema["items"]) {
                maps if maps.starts_with("map of") => "list of maps, below".to_owned(),
                kind => format!("list of {kind}"),
            },
            "object" => match schema["properties"].as_object().map(Map::keys) {
                Some(keys) => format!("map of {}", keys.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")),
                None => "maps by name, below".to_owned(),
            },
            other => other.to_owned(),
        }
    }
}

/// Types that are more to a reader than what JSON makes of them.
const WORDS: &[(&str, &str)] = &[
    ("ByteSize", "size, as `16MiB`"),
    ("HumanDuration", "duration, as `250ms`"),
    ("ListenAddr", "address and port"),
    ("SecretRef", "`env:NAME`, `file:/path`"),
    ("SharedSecrets", "a secret, or a map of key ids to one or several"),
];

fn code(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Object(map) if map.is_empty() => "none".to_owned(),
        other => format!("`{other}`"),
    }
}

/// Table cells hold no line breaks and no bars, and readers of a reference do not look for sections of the design.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    match line.split_once(" (SPEC ").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{before}{after}"),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_become_tables_and_lists_of_maps_too() {
        let schema = serde_json::json!({
            "properties": {
                "node": { "$ref": "#/$defs/Node", "default": {} },
                "size": { "type": "integer", "minimum": 1, "default": 3, "description": "How\nlarge." },
                "items": { "type": "array", "items": { "$ref": "#/$defs/Item" }, "default": [] },
            },
            "$defs": {
                "Node": { "description": "Who.", "properties": { "id": { "type": "string", "default": "gw" } } },
                "Item": { "type": "object", "properties": { "name": { "type": ["string", "null"] } }, "required": ["name"] },
            },
        });
        let expected = "\
### the file itself

| key | value | default | meaning |
|---|---|---|---|
| `items` | list of maps, below | none |  |
| `size` | number, from 1 | `3` | How large. |

### `items[]`

| key | value | default | meaning |
|---|---|---|---|
| `name` | text | required |  |

### `node`

Who.

| key | value | default | meaning |
|---|---|---|---|
| `id` | text | `gw` |  |
";
        assert_eq!(tables(&schema), expected);
    }
}
