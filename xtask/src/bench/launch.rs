//! Starting the processes of a measurement, and ending every one of them, whatever happens.
//!
//! Each process is told by the kernel to end when this program does (`setpriv --pdeathsig`), so that Ctrl-C and a kill
//! leave nothing behind; on every other way out it is ended when its owner drops it. What a process prints goes
//! to a file of the run's folder.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::accounting;

/// Longest wait for a process to serve.
const START: Duration = Duration::from_secs(20);
/// Longest wait for a process to end by itself after it was asked to.
const END: Duration = Duration::from_secs(3);

/// Where processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cores {
    /// On this core alone.
    Only(usize),
    /// Wherever the system puts them.
    Any,
}

/// A folder for one run's configuration files and logs. It is left where it is if something failed.
pub(super) struct RunFolder {
    path: PathBuf,
    descriptors: u64,
}

impl RunFolder {
    /// `target/bench/NAME`, new and empty.
    pub(super) fn create(target: &Path, name: &str) -> Result<Self> {
        let path = target.join("bench").join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Ok(Self { path, descriptors: hard_descriptor_limit(&limits).unwrap_or(1024) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// How many descriptors a process may have at most.
    pub(super) const fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// A command that ends with this program by `signal`, has all the descriptors it can get, and runs on `cores`.
    pub(super) fn command(&self, cores: Cores, signal: &str, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", signal, "prlimit"]).arg(format!("--nofile={}:", self.descriptors));
        if let Cores::Only(core) = cores {
            command.args(["taskset", "--cpu-list", &core.to_string()]);
        }
        command.arg(program).current_dir(&self.path).stdin(Stdio::null());
        // What this program's caller set is not part of the measurement.
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command
    }

    /// Starts a process that serves until it is ended.
    pub(super) fn serve(&self, name: &'static str, cores: Cores, program: &Path, args: &[String]) -> Result<Process> {
        let mut command = self.command(cores, "TERM", program);
        command.args(args);
        let log = self.path.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name, child, log })
    }

    /// Starts a client that says on its standard output what it has come to.
    pub(super) fn client(&self, name: &'static str, cores: Cores, program: &Path, args: &[String]) -> Result<Client> {
        let mut command = self.command(cores, "KILL", program);
        command.args(args);
        let log = self.path.join(format!("{name}.log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let said = BufReader::new(child.stdout.take().context("the client's output is missing")?);
        let told = child.stdin.take().context("the client's input is missing")?;
        Ok(Client { process: Process { name, child, log }, said, told })
    }
}

fn hard_descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_ascii_whitespace().nth(1)?;
    // More than this is never needed, and some programs allocate by it.
    Some(hard.parse().unwrap_or(65_536).min(65_536))
}

/// A process of a measurement. It is ended when this is dropped.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it answers `GET /hello` as it should.
    pub(super) fn answers(&mut self, at: SocketAddr) -> Result<()> {
        let what = format!("{} to answer at {at}", self.name);
        self.until(&what, || hello(at).is_ok()).with_context(|| match hello(at) {
            Ok(()) => "it did at last".to_owned(),
            Err(error) => format!("{error:#}"),
        })
    }

    /// Waits until it accepts connections.
    pub(super) fn listens(&mut self, at: SocketAddr) -> Result<()> {
        let what = format!("{} to listen at {at}", self.name);
        self.until(&what, || TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok())
    }

    /// Waits until it has printed a line that begins so.
    pub(super) fn prints(&mut self, word: &str) -> Result<()> {
        let log = self.log.clone();
        let said = move || fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line.starts_with(word)));
        self.until(&format!("{} to say `{word}`", self.name), said)
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        while !condition() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) instead:\n{}", self.name, self.last_words());
            }
            ensure!(Instant::now() < deadline, "waited {START:?} for {what}; it says:\n{}", self.last_words());
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let mut words = String::new();
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            let _ = writeln!(words, "    {line}");
        }
        words
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Asked first, because a killed nginx leaves its workers.
        let family = accounting::family(self.id());
        signal("TERM", &[self.id()]);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            pause(Duration::from_millis(10));
        }
        signal("KILL", &family);
        let _ = self.child.wait();
    }
}

/// By way of the shell, whose `kill` is always there.
fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let script = format!("kill -{name} {} 2>/dev/null", pids.join(" "));
    // Whoever is gone already needs no signal.
    let _ = Command::new("sh").args(["-c", &script]).status();
}

/// A client that works in steps.
pub(super) struct Client {
    process: Process,
    said: BufReader<ChildStdout>,
    told: ChildStdin,
}

impl Client {
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line that begins so, and gives the rest of it.
    pub(super) fn says(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        match line.trim_end().strip_prefix(word) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => {
                let _ = self.said.get_mut().read_to_string(&mut line);
                bail!("{} did not say `{word}` but: {line}\n{}", self.process.name, self.process.last_words())
            }
        }
    }

    /// Tells it to go on.
    pub(super) fn go_on(&mut self) -> Result<()> {
        self.told.write_all(b"\n")?;
        Ok(self.told.flush()?)
    }
}

/// Loopback addresses with free ports, all different.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::with_capacity(N);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).context("no free port on 127.0.0.1")?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}

/// Asks for `/hello` and looks at the answer.
fn hello(at: SocketAddr) -> Result<()> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&at, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nHello, World!"),
        "{at} answers {answer:?} to GET /hello"
    );
    Ok(())
}

/// Waits; for measurements, which need time to pass.
pub(super) fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_of_descriptors_is_read() {
        let text = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 20000                files\n";
        assert_eq!(hard_descriptor_limit(text), Some(20_000));
        assert_eq!(hard_descriptor_limit("Max open files  1024  unlimited  files"), Some(65_536));
        assert_eq!(hard_descriptor_limit(""), None);
    }

    #[test]
    fn addresses_differ() {
        let [a, b, c] = free_addresses::<3>().expect("ports");
        assert!(a != b && b != c && a != c);
    }
}
