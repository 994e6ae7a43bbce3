//! Running cargo: one step at a time, shown before it starts and timed when it ends.
//!
//! Knows nothing of what the steps mean; a command's own module says which steps it is made of.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The checkout that this program belongs to.
pub(crate) struct Workspace {
    root: PathBuf,
    cargo: OsString,
}

impl Workspace {
    /// Finds the workspace from xtask's own place in it, so that the caller's directory does not matter.
    pub(crate) fn locate() -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask has no parent directory")?.to_path_buf();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self { root, cargo })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo call in the workspace's root.
    pub(crate) fn cargo<I>(&self, args: I) -> Step
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut step = Step { command: Command::new(&self.cargo), shown: "cargo".to_owned() };
        step.command.current_dir(&self.root).stdin(Stdio::null());
        // What cargo told this program of itself would have some build scripts run anew.
        for (name, _) in env::vars_os().filter(|(name, _)| is_of_this_package(&name.to_string_lossy())) {
            step.command.env_remove(name);
        }
        for arg in args {
            step.shown.push(' ');
            step.shown.push_str(&arg.as_ref().to_string_lossy());
            step.command.arg(arg);
        }
        step
    }

    /// Whether cargo has this subcommand; asked quietly.
    pub(crate) fn has_cargo_subcommand(&self, name: &str) -> bool {
        Command::new(&self.cargo)
            .args([name, "--version"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Which of a child's two streams is watched; the other one passes untouched.
#[derive(Clone, Copy)]
pub(crate) enum Watched {
    Stdout,
    Stderr,
}

/// One call of another program.
pub(crate) struct Step {
    command: Command,
    shown: String,
}

impl Step {
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{key}={:?} {}", value.as_ref(), self.shown);
        self.command.env(key, value);
        self
    }

    /// Runs with the terminal as it is; true if it succeeded.
    pub(crate) fn run(mut self) -> Result<bool> {
        let started = self.announce();
        let status = self.command.status().with_context(|| format!("cannot start `{}`", self.shown))?;
        self.conclude(started, status.success());
        Ok(status.success())
    }

    /// Runs and shows everything, handing each line of one stream to `line` as well, without its colours.
    pub(crate) fn run_watching(mut self, watched: Watched, mut line: impl FnMut(&str)) -> Result<bool> {
        let started = self.announce();
        if env::var_os("CARGO_TERM_COLOR").is_none() && std::io::stderr().is_terminal() {
            // The child sees a pipe and would drop its colours.
            self.command.env("CARGO_TERM_COLOR", "always");
        }
        match watched {
            Watched::Stdout => self.command.stdout(Stdio::piped()),
            Watched::Stderr => self.command.stderr(Stdio::piped()),
        };
        let mut child = self.command.spawn().with_context(|| format!("cannot start `{}`", self.shown))?;
        let (source, mut sink): (Option<Box<dyn Read>>, Box<dyn Write>) = match watched {
            Watched::Stdout => {
                (child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>), Box::new(std::io::stdout()))
            }
            Watched::Stderr => {
                (child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>), Box::new(std::io::stderr()))
            }
        };
        let mut source = BufReader::new(source.context("the child's pipe is missing")?);
        let mut raw = Vec::new();
        while source.read_until(b'\n', &mut raw)? > 0 {
            sink.write_all(&raw)?;
            sink.flush()?;
            line(&without_colours(&String::from_utf8_lossy(&raw)));
            raw.clear();
        }
        let status = child.wait()?;
        self.conclude(started, status.success());
        Ok(status.success())
    }

    /// Runs and gives back what it printed, failing if the program does.
    pub(crate) fn read(mut self) -> Result<Vec<u8>> {
        let output =
            self.command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{}`", self.shown))?;
        anyhow::ensure!(output.status.success(), "`{}` failed: {}", self.shown, output.status);
        Ok(output.stdout)
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn announce(&self) -> Instant {
        eprintln!("==> {}", self.shown);
        Instant::now()
    }

    fn conclude(&self, started: Instant, succeeded: bool) {
        let word = if succeeded { "done" } else { "FAILED" };
        eprintln!("==> {word} in {}: {}", seconds(started.elapsed()), self.shown);
    }
}

/// A duration as people read it in a log.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Whether cargo sets this variable to tell a program which package it is.
fn is_of_this_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}

/// Removes terminal escape sequences of the form `ESC [ ... letter`.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if rest.next() == Some('[') {
            for c in rest.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{is_of_this_package, without_colours};

    #[test]
    fn what_names_this_package_is_not_handed_on() {
        assert!(is_of_this_package("CARGO_MANIFEST_DIR") && is_of_this_package("CARGO_PKG_NAME"));
        assert!(!is_of_this_package("CARGO_TARGET_DIR") && !is_of_this_package("CARGO_HOME"));
    }

    #[test]
    fn colours_are_removed_and_nothing_else() {
        assert_eq!(without_colours("\u{1b}[32;1m   Summary\u{1b}[0m [0.1s]"), "   Summary [0.1s]");
        assert_eq!(without_colours("plain"), "plain");
    }
}
