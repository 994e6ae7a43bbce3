//! The documents say what the program does: tables are drawn from it, examples are read by it.
//!
//! A table that has changed is written anew by `UPDATE_DOCUMENTS=1 cargo test -p integration-tests --test documents`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use integration_tests::carriers;
use integration_tests::reference;
use integration_tests::services::one;
use integration_tests::stage::Stage;
use router_common::problem::ProblemCode;
use router_config::{MicroserviceConfig, Sources, load, schema_for_microservice, schema_for_router};
use router_gateway::settings::{Settings, Transports};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(document: &str) -> String {
    std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Holds the part of a document between its marks to what it should be.
fn check(document: &str, part: &str, expected: &str) {
    let text = read(document);
    let (begin, end) = (format!("<!-- generated: {part} -->\n"), "<!-- end -->");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{document} has no `{begin}`"));
    let (found, after) = rest.split_once(end).unwrap_or_else(|| panic!("{document} has no `{end}`"));
    let expected = format!("\n{}\n\n", expected.trim());
    if found == expected {
        return;
    }
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        let text = format!("{before}{begin}{expected}{end}{after}");
        std::fs::write(root().join(document), text).unwrap_or_else(|error| panic!("{document}: {error}"));
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(&expected));
    let missing = expected.iter().filter(|line| !found.contains(line)).map(|line| format!("\n+ {line}"));
    let surplus = found.iter().filter(|line| !expected.contains(line)).map(|line| format!("\n- {line}"));
    let difference: String = surplus.chain(missing).collect();
    panic!("{document} is behind; set UPDATE_DOCUMENTS=1 to write it anew:{difference}");
}

#[test]
fn the_configuration_reference_lists_every_key() {
    // One after another, because both are parts of one file.
    check("docs/CONFIGURATION.md", "router.yaml", &reference::tables(&schema_for_router::<Transports>()));
    check("docs/CONFIGURATION.md", "microservice.yaml", &reference::tables(&schema_for_microservice()));
}

#[test]
fn the_capability_matrix_is_what_the_transports_say() {
    check("docs/TRANSPORTS.md", "matrix", &integration_tests::matrix(carriers::ALL));
}

#[test]
fn every_problem_code_is_listed_with_its_status() {
    let mut table = "| code | status | |\n|---|---|---|\n".to_owned();
    for code in ProblemCode::ALL {
        let _ = writeln!(table, "| `{code}` | {} | {} |", code.status(), code.title());
    }
    check("docs/HTTP.md", "problems", &table);
}

#[tokio::test]
async fn every_metric_is_listed() {
    let stage = Stage::new(carriers::IN_MEMORY).await;
    let _service = stage.join(one("measured", "1.0.0", "/measured", "once")).await;
    stage.client().get("/measured").await;
    let answer = stage.admin().get("/metrics").await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let mut table = "| metric | kind | labels | |\n|---|---|---|---|\n".to_owned();
    for line in text.lines() {
        let Some((name, meaning)) = line.strip_prefix("# HELP ").and_then(|help| help.split_once(' ')) else {
            continue;
        };
        let kind = format!("# TYPE {name} ");
        let kind =
            text.lines().find_map(|line| line.strip_prefix(&kind)).unwrap_or_else(|| panic!("{name} in\n{text}"));
        let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let sample = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in\n{text}"));
        let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').map_or("", |(all, _)| all));
        let labels: Vec<_> =
            labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label).collect();
        let labels: Vec<_> = labels.into_iter().filter(|label| *label != "le").collect();
        let _ = writeln!(table, "| `{shown}` | {kind} | {} | {meaning} |", labels.join(", "));
    }
    check("docs/OPERATIONS.md", "metrics", &table);
}

#[test]
fn every_configuration_that_a_document_shows_is_accepted() {
    let mut shown = 0;
    for document in
        ["README.md", "docs/CONFIGURATION.md", "docs/OPERATIONS.md", "docs/HTTP.md", "docs/RABBITMQ.md", "docs/TLS.md"]
    {
        let text = read(document);
        for block in text.split("```yaml\n").skip(1) {
            let yaml = block.split("```").next().unwrap_or_default();
            let checked = match yaml.lines().next() {
                Some("# router.yaml") => load::<Settings>(Sources::router().text(document, yaml)).map(drop),
                Some("# microservice.yaml") => {
                    load::<MicroserviceConfig>(Sources::microservice().text(document, yaml)).map(drop)
                }
                other => panic!("{document}: which file is the block that begins with {other:?}?"),
            };
            if let Err(error) = checked {
                panic!("{error}");
            }
            shown += 1;
        }
    }
    assert!(shown >= 3, "the documents show {shown} configurations");
}
