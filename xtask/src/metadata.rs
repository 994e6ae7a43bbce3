//! What cargo says about the workspace, reduced to what the checks and benches ask.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::Workspace;

#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    /// `lib`, `proc-macro`, `bin`, `test`, ...
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    kind: Option<String>,
    optional: bool,
    /// Set for a dependency inside the workspace.
    path: Option<PathBuf>,
}

/// Each crate of the workspace with its normal dependencies in the workspace, and whether they are optional.
pub(crate) type CrateGraph = BTreeMap<String, BTreeMap<String, Requirement>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    Always,
    Optional,
}

impl Metadata {
    pub(crate) fn read(workspace: &Workspace) -> Result<Self> {
        let json = workspace.cargo(["metadata", "--no-deps", "--format-version", "1"]).read()?;
        serde_json::from_slice(&json).context("cargo metadata printed something unexpected")
    }

    pub(crate) fn crate_graph(&self) -> CrateGraph {
        self.packages
            .iter()
            .map(|package| {
                let mut wanted = BTreeMap::new();
                for dependency in package.normal().filter(|d| d.path.is_some()) {
                    // Named twice (say, per target): needed always if needed always once.
                    let requirement = wanted.entry(dependency.name.clone()).or_insert(Requirement::Optional);
                    if !dependency.optional {
                        *requirement = Requirement::Always;
                    }
                }
                (package.name.clone(), wanted)
            })
            .collect()
    }

    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

impl Package {
    pub(crate) fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new(""))
    }

    /// Whether there is a library, whose documentation may hold tests.
    pub(crate) fn has_library(&self) -> bool {
        self.targets.iter().flat_map(|target| &target.kind).any(|kind| kind == "lib" || kind == "proc-macro")
    }

    /// Names of all normal dependencies, inside and outside the workspace.
    pub(crate) fn normal_dependencies(&self) -> BTreeSet<&str> {
        self.normal().map(|dependency| dependency.name.as_str()).collect()
    }

    /// Whether it uses this crate, in its tests or as a whole.
    pub(crate) fn tests_with(&self, name: &str) -> bool {
        self.dependencies
            .iter()
            .any(|dependency| dependency.name == name && dependency.kind.as_deref() != Some("build"))
    }

    fn normal(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|dependency| dependency.kind.is_none())
    }
}
