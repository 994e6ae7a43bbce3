//! `cargo xtask tidy`: the rules of this house that no other tool checks.
//!
//! Each check is a module that turns text into findings and is tested on small texts; this file alone reads the
//! disk. The checks are textual on purpose: they run in a moment, on code that does not compile too.

mod documents;
mod files;
mod graph;
mod modules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::metadata::Metadata;
use crate::process::Workspace;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// The file whose doctests compile the snippets of the documents.
const SNIPPETS: &str = "tests/src/lib.rs";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    eprintln!("==> tidy");
    let metadata = Metadata::read(workspace)?;
    let root = workspace.root();
    let sources = rust_files(root)?;
    let architecture = read(root, ARCHITECTURE)?;

    let mut report = Report::default();
    report.add("crate graph", graph::check(&architecture, &metadata.crate_graph()));
    report.add("every crate is named", graph::unnamed(&architecture, &metadata.crate_graph()));
    report.add("module cycles", module_cycles(root, &metadata, &sources));
    report.add("file headers", sources.iter().flat_map(files::header).collect());
    report.add("file lengths", sources.iter().flat_map(files::length).collect());
    report.add("banned words", sources.iter().flat_map(files::banned_words).collect());
    report.add("pure core", pure_core(&metadata, &sources));
    report.add("document snippets", snippets(root)?);
    report.conclude()
}

/// A Rust file of the repository: its path from the root with `/` between the parts, and its text.
pub(crate) struct SourceFile {
    path: String,
    text: String,
}

#[derive(Default)]
struct Report {
    findings: usize,
}

impl Report {
    fn add(&mut self, check: &str, findings: Vec<String>) {
        if findings.is_empty() {
            eprintln!("    ok     {check}");
        } else {
            eprintln!("    FAILED {check}: {}", findings.len());
        }
        for finding in &findings {
            eprintln!("           {}", finding.replace('\n', "\n           "));
        }
        self.findings += findings.len();
    }

    fn conclude(self) -> Result<()> {
        match self.findings {
            0 => Ok(()),
            1 => bail!("tidy: 1 finding"),
            many => bail!("tidy: {many} findings"),
        }
    }
}

fn module_cycles(root: &Path, metadata: &Metadata, sources: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let directory = package.directory().strip_prefix(root).unwrap_or(package.directory());
        let prefix = format!("{}/src/", slashed(directory));
        let files: Vec<_> =
            sources.iter().filter_map(|file| Some((file.path.strip_prefix(&prefix)?, file.text.as_str()))).collect();
        findings.extend(modules::cycles(&package.name, &files));
    }
    findings
}

fn pure_core(metadata: &Metadata, sources: &[SourceFile]) -> Vec<String> {
    let mut findings: Vec<_> = sources.iter().flat_map(files::impurities).collect();
    match metadata.package(files::PURE_CRATE) {
        Some(package) => findings.extend(files::impure_dependencies(&package.normal_dependencies())),
        None => findings.push(format!("there is no crate `{}`", files::PURE_CRATE)),
    }
    findings
}

fn snippets(root: &Path) -> Result<Vec<String>> {
    let included = read(root, SNIPPETS)?;
    let mut findings = Vec::new();
    for path in markdown_files(root)? {
        findings.extend(documents::check(&path, &read(root, &path)?, SNIPPETS, &included));
    }
    Ok(findings)
}

/// The documents whose snippets must compile: the front page and everything under docs/.
fn markdown_files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    walk(root, &root.join("docs"), "md", &mut found)?;
    if root.join("README.md").exists() {
        found.push("README.md".to_owned());
    }
    found.sort();
    Ok(found)
}

fn rust_files(root: &Path) -> Result<Vec<SourceFile>> {
    let mut found = Vec::new();
    walk(root, root, "rs", &mut found)?;
    found.sort();
    found.into_iter().map(|path| Ok(SourceFile { text: read(root, &path)?, path })).collect()
}

/// Collects the paths, from `root`, of the files under `directory` that end in `extension`; build output and
/// hidden directories are passed over.
fn walk(root: &Path, directory: &Path, extension: &str, found: &mut Vec<String>) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                walk(root, &path, extension, found)?;
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(slashed(path.strip_prefix(root).unwrap_or(&path)));
        }
    }
    Ok(())
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
