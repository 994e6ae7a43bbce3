//! What a measurement was made on and with, so that its figures mean something later.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::tools::Tool;
use crate::process::Workspace;

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    memory_mib: u64,
    /// Before the measurement began.
    load_average: f64,
    commit: String,
    versions: BTreeMap<&'static str, String>,
    /// Seconds since 1970.
    measured_at: u64,
}

impl Machine {
    pub(super) fn describe(workspace: &Workspace, tools: &[Tool]) -> Self {
        let mut versions: BTreeMap<_, _> =
            tools.iter().map(|tool| (tool.program, tool.version().unwrap_or_else(|| "unknown".to_owned()))).collect();
        versions.insert("rustc", rustc());
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let kibibytes =
            field(&file("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            processor: field(&file("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: cores(),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kibibytes.unwrap_or(0) / 1024,
            load_average: file("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            commit: commit(workspace),
            versions,
            measured_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, memory_mib, load_average, commit, .. } = self;
        writeln!(f, "{processor}, {cores} cores, {memory_mib} MiB, Linux {kernel}; load before: {load_average}")?;
        let versions: Vec<String> = self.versions.values().map(|version| shortened(version)).collect();
        write!(f, "commit {commit}; {}", versions.join("; "))
    }
}

/// The compiler and its version.
pub(super) fn rustc() -> String {
    first_line(Command::new("rustc").arg("--version"))
}

/// How many cores this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Some programs add who wrote them.
fn shortened(version: &str) -> String {
    let end = version.find(" Copyright").or_else(|| version.find(" - http")).unwrap_or(version.len());
    version.get(..end).unwrap_or(version).trim().to_owned()
}

/// The value of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

fn commit(workspace: &Workspace) -> String {
    let git = |args: &[&str]| first_line(Command::new("git").args(args).current_dir(workspace.root()));
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{}{}", git(&["rev-parse", "--short=12", "HEAD"]), if changed { " with changes" } else { "" })
}

fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nMemTotal:       24576 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(field(text, "MemTotal").as_deref(), Some("24576 kB"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn versions_are_told_without_their_authors() {
        assert_eq!(shortened("wrk debian/4.1.0 [epoll] Copyright (C) 2012"), "wrk debian/4.1.0 [epoll]");
        assert_eq!(
            shortened("HAProxy version 2.6.12 2026/10/17 - https://haproxy.org/"),
            "HAProxy version 2.6.12 2026/10/17"
        );
        assert_eq!(shortened("nginx/1.22.1"), "nginx/1.22.1");
    }
}
