//! Programs that are measured beside, or with: where they are, and how they come from Debian if they are not there.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// A program, and the package of Debian that it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) program: &'static str,
    package: &'static str,
    /// What makes it tell its version.
    version: &'static [&'static str],
}

pub(super) const WRK: Tool = Tool { program: "wrk", package: "wrk", version: &["-v"] };
pub(super) const H2LOAD: Tool = Tool { program: "h2load", package: "nghttp2-client", version: &["--version"] };
pub(super) const NGINX: Tool = Tool { program: "nginx", package: "nginx", version: &["-v"] };
pub(super) const HAPROXY: Tool = Tool { program: "haproxy", package: "haproxy", version: &["-v"] };
pub(super) const VALGRIND: Tool = Tool { program: "valgrind", package: "valgrind", version: &["--version"] };
pub(super) const NATS: Tool = Tool { program: "nats-server", package: "nats-server", version: &["--version"] };

/// Of util-linux, which no Debian is without.
const STARTERS: [Tool; 3] = [
    Tool { program: "setpriv", package: "util-linux", version: &["--version"] },
    Tool { program: "prlimit", package: "util-linux", version: &["--version"] },
    Tool { program: "taskset", package: "util-linux", version: &["--version"] },
];

impl Tool {
    /// Where it is: in the search path, or where Debian keeps servers.
    pub(super) fn path(self) -> Option<PathBuf> {
        let search = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&search).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        folders.map(|folder| folder.join(self.program)).find(|path| path.is_file())
    }

    /// The first line of what it says of itself.
    pub(super) fn version(self) -> Option<String> {
        let output = Command::new(self.path()?).args(self.version).stdin(Stdio::null()).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }
}

/// Sees that all of them are there.
pub(super) fn ensure(wanted: &[Tool]) -> Result<()> {
    let missing =
        || -> Vec<Tool> { wanted.iter().chain(&STARTERS).copied().filter(|tool| tool.path().is_none()).collect() };
    let first = missing();
    if first.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = first.iter().map(|tool| tool.package).collect();
    packages.dedup();
    eprintln!("==> installing {} from Debian", packages.join(", "));
    let update = apt(&["update", "-qq"]);
    let install = [&["install", "--yes", "-qq", "--no-install-recommends"], packages.as_slice()].concat();
    let installed = update && apt(&install);
    let still = missing();
    if still.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = still.iter().map(|tool| tool.program).collect();
    let why = if installed { "was installed, and is not there" } else { "could not be installed" };
    bail!(
        "needed for this measurement: {}; `apt-get install {}` {why} (on other systems, install these programs by hand; \
         apt-get needs to be run as root)",
        names.join(", "),
        packages.join(" ")
    )
}

fn apt(args: &[&str]) -> bool {
    // A service that Debian would start by itself would take a port, and be in the way of the measurement.
    let policy = [("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")];
    Command::new("apt-get").args(args).envs(policy).stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_missing() {
        let nowhere = Tool { program: "no-such-program-anywhere", package: "none", version: &[] };
        assert_eq!(nowhere.path(), None);
        assert_eq!(nowhere.version(), None);
        let shell = Tool { program: "sh", package: "dash", version: &["-c", "echo; echo version 3"] };
        assert_eq!(shell.version().as_deref(), Some("version 3"));
    }
}
