//! Stand: a gateway and services as processes of their own, on loopback addresses of their own.
//!
//! Every process is told by the kernel to end when this program does (`setpriv --pdeathsig`), and is ended when its owner
//! drops it. What they print goes to files of a folder that is kept when a trial fails.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::books::Books;
use crate::ways::{SERVICE, Ways, free_addresses};

/// Longest wait for a process to serve.
const START: Duration = Duration::from_secs(30);
/// Longest wait for one to end by itself after it was asked to: the grace of a drain, and a little.
const END: Duration = Duration::from_secs(40);
/// Between two looks at whether something has come about.
const LOOK: Duration = Duration::from_millis(20);

/// The programs under trial.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Programs {
    /// The gateway's program.
    #[arg(long, value_name = "FILE")]
    gateway_program: PathBuf,
    /// The service's program.
    #[arg(long, value_name = "FILE")]
    service_program: PathBuf,
}

/// A folder with logs, a configuration, and addresses.
pub(crate) struct Stand {
    programs: Programs,
    folder: tempfile::TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    dial: Vec<String>,
    started: std::cell::Cell<usize>,
}

/// How a service is started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServiceOptions {
    pub(crate) instances: usize,
    /// Requests in flight in one instance; 0: the SDK's.
    pub(crate) lease: u32,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    said: Option<Lines<BufReader<ChildStdout>>>,
}

impl Stand {
    /// Free addresses and a `router.yaml` that names them; `extra` is appended to it. `{folder}` in it is the stand's own
    /// folder.
    ///
    /// # Errors
    /// When there is no free port, or the folder cannot be written.
    pub(crate) fn new(programs: &Programs, ways: &Ways, extra: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stella-endurance-").tempdir()?;
        let [http, admin] = free_addresses()?;
        let transports = ways.yaml();
        let yaml = format!("http: {{ listen: \"{http}\" }}\nadmin: {{ listen: \"{admin}\" }}\n{transports}{extra}");
        let yaml = yaml.replace("{folder}", &folder.path().to_string_lossy());
        std::fs::write(folder.path().join("router.yaml"), yaml)?;
        let (programs, dial) = (programs.clone(), ways.dial().to_vec());
        Ok(Self { programs, folder, http, admin, dial, started: std::cell::Cell::new(0) })
    }

    /// The folder that its processes run in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has the gateway's program make a CA and certificates that it has signed, in a folder of this name.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn make_certificates(&self, name: &str) -> Result<()> {
        let arguments = ["certs", "dev", "--out", name, "--service", SERVICE];
        let mut making = self.spawn("certs", &self.programs.gateway_program, &arguments)?;
        let status = making.ended().await?;
        ensure!(status.success(), "no certificates were made:\n{}", making.last_words());
        Ok(())
    }

    pub(crate) fn books(&self) -> Books {
        Books::at(self.admin)
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get there; its last words are in the error.
    pub(crate) async fn gateway(&self) -> Result<Process> {
        let mut gateway =
            self.spawn("gateway", &self.programs.gateway_program, &["serve", "--config", "router.yaml"])?;
        self.until_ready(&mut gateway).await?;
        Ok(gateway)
    }

    /// Starts a gateway that takes the sockets over from the running one, and waits until that one has ended.
    ///
    /// # Errors
    /// When either does not get there.
    pub(crate) async fn replace(&self, mut old: Process) -> Result<Process> {
        let arguments = ["serve", "--config", "router.yaml", "--take-over"];
        let mut new = self.spawn("gateway", &self.programs.gateway_program, &arguments)?;
        let status = tokio::select! {
            status = old.ended() => status?,
            ended = new.child.wait() => bail!("the new gateway ended ({:?}):\n{}", ended.ok(), new.last_words()),
        };
        ensure!(status.success(), "the old gateway ended with {status}:\n{}", old.last_words());
        self.until_ready(&mut new).await?;
        Ok(new)
    }

    async fn until_ready(&self, gateway: &mut Process) -> Result<()> {
        let books = self.books();
        let ready = async {
            while !books.is_ready().await {
                if let Some(status) = gateway.child.try_wait()? {
                    bail!("{} ended with {status}", gateway.name);
                }
                sleep(LOOK).await;
            }
            Ok(())
        };
        match timeout(START, ready).await {
            Ok(outcome) => outcome.with_context(|| gateway.last_words()),
            Err(_) => bail!("{} was not ready within {START:?}:\n{}", gateway.name, gateway.last_words()),
        }
    }

    /// Starts a service and waits until it gets requests.
    ///
    /// # Errors
    /// When it does not get there.
    pub(crate) async fn service(&self, options: ServiceOptions) -> Result<Process> {
        let mut arguments = self.dial.clone();
        arguments.extend(["--instances".to_owned(), options.instances.max(1).to_string()]);
        if options.lease > 0 {
            arguments.extend(["--lease".to_owned(), options.lease.to_string()]);
        }
        self.service_by(&arguments).await
    }

    /// The same with all its arguments.
    ///
    /// # Errors
    /// When it does not get there.
    pub(crate) async fn service_by(&self, arguments: &[String]) -> Result<Process> {
        let mut service = self.begin_service(arguments)?;
        let Some(mut said) = service.said.take() else { bail!("the service's output is missing") };
        let ready = async {
            while let Some(line) = said.next_line().await? {
                if line.starts_with("ready") {
                    return anyhow::Ok(());
                }
            }
            bail!("it ended")
        };
        match timeout(START, ready).await {
            Ok(outcome) => outcome.with_context(|| service.last_words())?,
            Err(_) => bail!("{} was not ready within {START:?}:\n{}", service.name, service.last_words()),
        }
        service.said = Some(said);
        Ok(service)
    }

    /// Starts one and does not wait for it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn begin_service(&self, arguments: &[String]) -> Result<Process> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.spawn("service", &self.programs.service_program, &arguments)
    }

    fn spawn(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Process> {
        let number = self.started.replace(self.started.get() + 1);
        let name = format!("{name}-{number}");
        let log = self.folder.path().join(format!("{name}.log"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let said = child.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Process { name, child, log, said })
    }

    /// Keeps the folder, for whoever wants to know why a trial failed.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Sends it a signal: `TERM`, `KILL`, `HUP`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().with_context(|| format!("{} is gone", self.name))?;
        // By way of the shell, whose `kill` is always there.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().await?;
        ensure!(status.success(), "{} could not be sent SIG{name}", self.name);
        Ok(())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        match timeout(END, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not end within {END:?}:\n{}", self.name, self.last_words()),
        }
    }

    /// Asks it to end in good order, and waits for that.
    ///
    /// # Errors
    /// When it does not, or not in good order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.signal("TERM").await?;
        let status = self.ended().await?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.last_words());
        Ok(())
    }

    /// Bytes of its own memory: neither files nor shared.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("it has ended")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// Descriptors that it has open.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.id()))?.count())
    }

    /// What it said last.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Waits until something is so, and says how long that took; `None` when it is not within the patience.
pub(crate) async fn eventually(patience: Duration, mut is_so: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while !is_so().await {
        if began.elapsed() >= patience {
            return None;
        }
        sleep(LOOK).await;
    }
    Some(began.elapsed())
}
