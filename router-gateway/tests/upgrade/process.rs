//! The gateway's program as a child process, and what it needs around it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{PATIENCE, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_router-gateway");

/// A configuration and a folder, shared by all processes of a test.
pub(crate) struct Scene(tempfile::TempDir);

impl Scene {
    /// With free ports and an upgrade socket, and what else `yaml` says.
    pub(crate) fn new(yaml: &str) -> Self {
        let scene = Self(tempfile::tempdir().expect("a folder"));
        scene.configure(yaml);
        scene
    }

    /// Another configuration, for the processes that start from now on.
    pub(crate) fn configure(&self, yaml: &str) {
        std::fs::write(self.file("router.yaml"), yaml).expect("a file");
    }

    /// Makes a CA and the gateway's certificate, with the program itself; returns their folder.
    pub(crate) fn certificates(&self) -> PathBuf {
        let folder = self.file("certificates");
        let made = Command::new(PROGRAM).args(["certs", "dev", "--out"]).arg(&folder).stdout(Stdio::null()).status();
        assert!(made.expect("the program runs").success());
        folder
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.file("upgrade.sock")
    }

    fn arguments(&self) -> Vec<String> {
        let config = self.file("router.yaml").display().to_string();
        let listen = ["http", "admin", "transports.tcp"].map(|section| format!("{section}.listen=127.0.0.1:0"));
        let socket = format!("upgrade.socket={}", self.socket().display());
        let overrides = listen.into_iter().chain([socket]).flat_map(|one| ["--set".to_owned(), one]);
        ["serve".to_owned(), "--config".into(), config].into_iter().chain(overrides).collect()
    }
}

/// A running gateway; killed if a test ends before it does.
pub(crate) struct Gateway {
    child: Child,
    lines: watch::Receiver<Vec<String>>,
}

impl Gateway {
    /// Starts the program.
    pub(crate) fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(scene.arguments()).args(arguments).stdout(Stdio::null());
        Self::spawn(command)
    }

    /// Starts it and waits until it serves.
    pub(crate) fn serve(scene: &Scene, arguments: &[&str]) -> Self {
        let gateway = Self::start(scene, arguments);
        gateway.up();
        gateway
    }

    /// Starts it as a service manager does that has opened its sockets: they are the descriptors 3 and 4, which a shell
    /// makes of its input and output.
    pub(crate) fn activated(scene: &Scene, http: &std::net::TcpListener, tcp: &std::net::TcpListener) -> Self {
        let copy = |socket: &std::net::TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().expect("a copy")));
        let mut command = Command::new("sh");
        let script = "exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
        command.args(["-c", script, PROGRAM]).args(scene.arguments()).stdin(copy(http)).stdout(copy(tcp));
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "http:tcp").env("NOTIFY_SOCKET", scene.file("notify"));
        let gateway = Self::spawn(command);
        gateway.up();
        gateway
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.env_remove("RUST_LOG").stderr(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, lines) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sender.send_modify(|lines| lines.push(line));
            }
        });
        Self { child, lines }
    }

    /// Waits on this thread, so that it can be called where there is no runtime to spare.
    fn up(&self) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.line("services may join at").is_none() {
            assert!(std::time::Instant::now() < end, "it does not come up: {:#?}", self.lines.borrow());
            std::thread::yield_now();
        }
    }

    fn line(&self, part: &str) -> Option<String> {
        self.lines.borrow().iter().find(|line| line.contains(part)).cloned()
    }

    /// What follows a text in what it has said, up to a blank.
    fn said_after(&self, text: &str) -> String {
        let line = self.line(text).unwrap_or_else(|| panic!("`{text}` was not said: {:#?}", self.lines.borrow()));
        let (_, rest) = line.split_once(text).expect("it contains it");
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// Waits until it has said something.
    pub(crate) async fn says(&self, text: &str) {
        let mut lines = self.lines.clone();
        let said = lines.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        let said = tokio::time::timeout(PATIENCE, said).await.is_ok_and(|said| said.is_ok());
        assert!(said, "`{text}` was not said: {:#?}", self.lines.borrow());
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.said_after("serving HTTP on http://").parse().expect("an address")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.said_after("admin pages on http://").parse().expect("an address")
    }

    pub(crate) fn tcp(&self) -> String {
        self.said_after("services may join at ")
    }

    /// Where services join over this carrier, when it has said so.
    pub(crate) async fn joined_at(&self, scheme: &str) -> String {
        let text = format!("services may join at {scheme}://");
        self.says(&text).await;
        format!("{scheme}://{}", self.said_after(&text))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-s", "TERM", &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut turns = tokio::time::interval(std::time::Duration::from_millis(10));
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status;
                }
                turns.tick().await;
            }
        };
        within("the gateway ends", ended).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed or does not care.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("gateway {}: {:#?}", self.pid(), self.lines.borrow());
        }
    }
}

/// Stands before a gateway, and can refuse links that are new.
pub(crate) struct Proxy {
    pub(crate) url: String,
    open: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(gateway: &str) -> Self {
        let to: SocketAddr = gateway.trim_start_matches("tcp://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("tcp://{}", listener.local_addr().expect("an address"));
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if !*is_open.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    if let Ok(mut gateway) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
                    }
                });
            }
        });
        Self { url, open }
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}
