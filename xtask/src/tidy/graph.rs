//! The crate graph is what ARCHITECTURE.md says it is.
//!
//! The document holds the law, in a fenced block named `crate-graph`; cargo tells the facts. Knows no crate by
//! name: which way knowledge flows is decided in the document, where a reviewer sees the change.

use std::collections::BTreeMap;

use crate::metadata::{CrateGraph, Requirement};

const OPENING: &str = "```crate-graph";

/// Compares the block with the facts, crate by crate.
pub(super) fn check(architecture: &str, actual: &CrateGraph) -> Vec<String> {
    let stated = match parse(architecture) {
        Ok(stated) => stated,
        Err(problem) => return vec![format!("ARCHITECTURE.md: {problem}")],
    };
    let mut findings = Vec::new();
    for (name, dependencies) in actual {
        let Some(stated) = stated.get(name) else {
            findings.push(format!("`{name}` is not stated; its line is:\n{}", line(name, dependencies)));
            continue;
        };
        let differences = differences(stated, dependencies);
        if !differences.is_empty() {
            findings.push(format!(
                "`{name}` {}; its line would be:\n{}",
                differences.join(", "),
                line(name, dependencies)
            ));
        }
    }
    for name in stated.keys().filter(|name| !actual.contains_key(*name)) {
        findings.push(format!("`{name}` is stated, but there is no such crate"));
    }
    findings
}

/// The crates that the document's prose, outside the block, does not name in backticks.
pub(super) fn unnamed(architecture: &str, actual: &CrateGraph) -> Vec<String> {
    let prose = match block(architecture) {
        Some((before, _, after)) => format!("{before}{after}"),
        None => architecture.to_owned(),
    };
    actual
        .keys()
        .filter(|name| !prose.contains(&format!("`{name}`")))
        .map(|name| format!("ARCHITECTURE.md does not say what `{name}` is"))
        .collect()
}

fn differences(stated: &BTreeMap<String, Requirement>, actual: &BTreeMap<String, Requirement>) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, requirement) in actual {
        match (stated.get(name), requirement) {
            (None, _) => differences.push(format!("also depends on `{name}`")),
            (Some(Requirement::Always), Requirement::Optional) => {
                differences.push(format!("depends on `{name}` only optionally (`{name}?`)"));
            }
            (Some(Requirement::Optional), Requirement::Always) => {
                differences.push(format!("depends on `{name}` always, not optionally"));
            }
            _ => {}
        }
    }
    for name in stated.keys().filter(|name| !actual.contains_key(*name)) {
        differences.push(format!("does not depend on `{name}`"));
    }
    differences
}

/// The text before, inside and behind the block.
fn block(architecture: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = architecture.split_once(OPENING)?;
    let (inside, after) = rest.split_once("```")?;
    Some((before, inside, after))
}

fn parse(architecture: &str) -> Result<CrateGraph, String> {
    let (_, inside, _) = block(architecture).ok_or(format!("there is no block {OPENING}"))?;
    let mut graph = CrateGraph::new();
    for line in inside.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, dependencies) =
            line.split_once("->").ok_or(format!("`{line}` is not of the form `crate -> dependency, dependency?`"))?;
        let dependencies = dependencies
            .split(',')
            .map(str::trim)
            .filter(|dependency| !dependency.is_empty())
            .map(|dependency| match dependency.strip_suffix('?') {
                Some(name) => (name.to_owned(), Requirement::Optional),
                None => (dependency.to_owned(), Requirement::Always),
            })
            .collect();
        let name = name.trim().to_owned();
        if graph.insert(name.clone(), dependencies).is_some() {
            return Err(format!("`{name}` is stated twice"));
        }
    }
    Ok(graph)
}

fn line(name: &str, dependencies: &BTreeMap<String, Requirement>) -> String {
    let list: Vec<_> = dependencies
        .iter()
        .map(|(name, requirement)| match requirement {
            Requirement::Always => name.clone(),
            Requirement::Optional => format!("{name}?"),
        })
        .collect();
    format!("{name} -> {}", list.join(", ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str) -> CrateGraph {
        parse(&document(text)).expect("the block is well-formed")
    }

    fn document(text: &str) -> String {
        format!("Bird's eye.\n{OPENING}\n{text}\n```\nThe `core` is pure.\n")
    }

    #[test]
    fn a_true_statement_has_no_findings() {
        let text = "core ->\nlink -> core\nsdk -> link, gateway?";
        assert_eq!(check(&document(text), &graph(text)), [""; 0]);
    }

    #[test]
    fn each_difference_is_named() {
        let stated = document("core -> link\nlink ->\nsdk -> link?, gateway\nold ->");
        let actual = graph("core ->\nlink -> core\nsdk -> link, gateway?\nnew -> core");
        assert_eq!(
            check(&stated, &actual),
            [
                "`core` does not depend on `link`; its line would be:\ncore ->",
                "`link` also depends on `core`; its line would be:\nlink -> core",
                "`new` is not stated; its line is:\nnew -> core",
                "`sdk` depends on `gateway` only optionally (`gateway?`), depends on `link` always, \
                 not optionally; its line would be:\nsdk -> gateway?, link",
                "`old` is stated, but there is no such crate",
            ]
        );
    }

    #[test]
    fn a_missing_or_broken_block_is_said() {
        assert_eq!(check("no block", &graph("")).len(), 1);
        assert_eq!(check(&document("core"), &graph("")).len(), 1);
        assert_eq!(check(&document("core ->\ncore ->"), &graph("")).len(), 1);
    }

    #[test]
    fn the_block_alone_does_not_count_as_naming_a_crate() {
        let text = "core ->\nlink -> core";
        assert_eq!(unnamed(&document(text), &graph(text)), ["ARCHITECTURE.md does not say what `link` is"]);
    }
}
