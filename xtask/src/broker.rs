//! A RabbitMQ broker for the tests, or for whoever wants one at hand: `cargo xtask broker`.
//!
//! A broker that is there already is named by `AMQP_URL`. Otherwise a private node of the system's own package is run,
//! which `test-broker` ends with this program, however that ends; where the package is missing it is installed by apt.

use std::env;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use test_broker::{Node, Options, URL_VARIABLE};

use crate::metadata::Metadata;
use crate::process::Workspace;

/// The crate that tests which need a broker depend on.
const NEEDED_BY: &str = "test-broker";
const PACKAGE: &str = "rabbitmq-server";

/// A broker for one run of the tests.
pub(crate) enum ForTests {
    /// None of the packages asks for one, or one is there.
    NotStarted,
    Starting(JoinHandle<Result<Node>>),
    Running(Node),
}

impl ForTests {
    /// Begins to start one, if the tests of these packages (none: of all) need it. To be waited for by [`Self::url`].
    pub(crate) fn start(workspace: &Workspace, packages: &[String]) -> Result<Self> {
        if env::var_os(URL_VARIABLE).is_some() {
            return Ok(Self::NotStarted);
        }
        let metadata = Metadata::read(workspace)?;
        let is_needed = metadata
            .packages
            .iter()
            .filter(|package| packages.is_empty() || packages.contains(&package.name))
            .any(|package| package.tests_with(NEEDED_BY));
        if !is_needed {
            return Ok(Self::NotStarted);
        }
        install()?;
        eprintln!("==> starting a private RabbitMQ node");
        Ok(Self::Starting(thread::spawn(|| Ok(Node::start(Options::default())?))))
    }

    /// Where it is, for the tests; `None`: nowhere, or where the environment says already.
    pub(crate) fn url(&mut self) -> Result<Option<String>> {
        if let Self::Starting(_) = self
            && let Self::Starting(starting) = std::mem::replace(self, Self::NotStarted)
        {
            let node = starting.join().map_err(|_| anyhow::anyhow!("the starting of a broker panicked"))??;
            *self = Self::Running(node);
        }
        match self {
            Self::Running(node) => Ok(Some(node.url())),
            _ => Ok(None),
        }
    }
}

/// `cargo xtask broker`: runs one until it is ended, by Ctrl-C say.
pub(crate) fn run() -> Result<()> {
    install()?;
    eprintln!("==> starting a private RabbitMQ node");
    let node = Node::start(Options::default())?;
    println!("{URL_VARIABLE}={}", node.url());
    eprintln!("==> it runs until this program is ended");
    loop {
        thread::park();
    }
}

/// Sees to it that the server is there, where no broker is named.
pub(crate) fn see_to_it() -> Result<()> {
    if env::var_os(URL_VARIABLE).is_some() { Ok(()) } else { install() }
}

/// Sees to it that the server is there.
fn install() -> Result<()> {
    if test_broker::is_installed() {
        return Ok(());
    }
    let help = format!("install the package `{PACKAGE}`, or name a broker by {URL_VARIABLE}");
    let apt = |arguments: &[&str]| {
        eprintln!("==> apt-get {}", arguments.join(" "));
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("there is no RabbitMQ, and no apt-get to install it by: {help}"))
    };
    let install = ["install", "--yes", "--quiet", "--no-install-recommends", PACKAGE];
    if !apt(&install)?.success() {
        // The lists may be missing or old.
        apt(&["update", "--quiet"])?;
        if !apt(&install)?.success() {
            bail!("RabbitMQ could not be installed by apt-get (is this user root?): {help}");
        }
    }
    if !test_broker::is_installed() {
        bail!("apt-get installed `{PACKAGE}`, but its programs are not where they are expected: {help}");
    }
    Ok(())
}
