//! The `shutdown` and `upgrade` sections: how a gateway ends, alone or with another one in its place.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::positive;
use crate::scalar::HumanDuration;
use crate::validate::{Checks, Validate};

/// How a gateway ends (SPEC 13).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Time for what is in flight to finish. Default 30 s; then it is cut.
    pub grace: HumanDuration,
    /// How long a client connection that asks for nothing is kept, so that a request that is on its way is answered and
    /// told that it is the connection's last. Default 5 s, never longer than the grace; when another process takes over,
    /// as long as the grace.
    pub idle_linger: HumanDuration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: HumanDuration::from_secs(30), idle_linger: HumanDuration::from_secs(5) }
    }
}

/// How another process of this gateway takes over (SPEC 13).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeConfig {
    /// A Unix socket over which this process gives its listening sockets to one that is started with `--take-over`.
    /// Absent: none.
    pub socket: Option<PathBuf>,
    /// How long the new process waits for the instances of the old one to come over before it serves without them.
    /// Default 15 s.
    pub wait: HumanDuration,
}

impl Default for UpgradeConfig {
    fn default() -> Self {
        Self { socket: None, wait: HumanDuration::from_secs(15) }
    }
}

impl Validate for UpgradeConfig {
    fn validate(&self, checks: &mut Checks) {
        positive(checks, "wait", self.wait);
        if let Some(socket) = &self.socket
            && !socket.is_absolute()
        {
            checks
                .refuse("socket", format!("found `{}`", socket.display()))
                .allowed("an absolute path, such as `/run/stella/gw-1.sock`")
                .help("both processes are to mean the same file, wherever each was started");
        }
    }
}
