//! One node: its folder, ports, settings, life and death. Several of one cluster share folder, cookie and port mapper.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::watched::Watched;
use crate::{BrokerError, START, program};

/// What AMQP 0-9-1 begins with.
const AMQP_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// How long one attempt to be answered may take.
const ANSWER: Duration = Duration::from_secs(1);
/// Lines of a log that an error shows.
const SHOWN_LINES: usize = 25;

/// Below those of Linux's clients (32768 and above).
const PORTS: Range<u16> = 10_000..32_000;

/// How a node is to be.
#[derive(Debug, Default)]
pub struct Options {
    /// Listens for AMQPS, too.
    pub tls: Option<Tls>,
    /// Further lines of `rabbitmq.conf`.
    pub settings: Vec<String>,
}

/// What a node needs for AMQPS: paths of PEM files.
#[derive(Debug)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate of that CA.
    pub client_certificate: bool,
}

/// A running node, or one that was killed and can start again. It ends, and its folder goes, when it is dropped.
#[derive(Debug)]
pub struct Node {
    // Ends before what it stands on.
    running: Option<Watched>,
    name: String,
    ports: Ports,
    configuration: PathBuf,
    log: PathBuf,
    ground: Arc<Ground>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    amqps: u16,
    distribution: u16,
}

/// What the nodes of one cluster share.
#[derive(Debug)]
struct Ground {
    _port_mapper: Watched,
    port: u16,
    folder: PathBuf,
    nodes: AtomicU32,
}

impl Node {
    /// Starts a node, and waits until it answers.
    ///
    /// # Errors
    /// When the server is not installed, or does not come up.
    pub fn start(options: Options) -> Result<Self, BrokerError> {
        let ground = Arc::new(Ground::new()?);
        Self::on(ground, options, &[])
    }

    /// Starts a second node that joins this one's cluster, and waits until it answers.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn join(&self, options: Options) -> Result<Self, BrokerError> {
        Self::on(Arc::clone(&self.ground), options, &[&self.name])
    }

    fn on(ground: Arc<Ground>, options: Options, others: &[&str]) -> Result<Self, BrokerError> {
        let number = ground.nodes.fetch_add(1, Ordering::Relaxed);
        let name = format!("test{number}@localhost");
        let folder = ground.folder.join(format!("node{number}"));
        fs::create_dir_all(&folder).map_err(BrokerError::io("making the node's folder"))?;
        let [amqp, amqps, distribution] = free_ports()?;
        let ports = Ports { amqp, amqps, distribution };
        let configuration = folder.join("rabbitmq.conf");
        let text = configured(ports, &options, others, &name);
        fs::write(&configuration, text).map_err(BrokerError::io("writing rabbitmq.conf"))?;
        fs::write(folder.join("enabled_plugins"), "[].\n").map_err(BrokerError::io("writing enabled_plugins"))?;
        let log = folder.join("output.log");
        let mut node = Self { running: None, name, ports, configuration, log, ground };
        node.start_again()?;
        Ok(node)
    }

    /// Starts it after a [`kill`](Node::kill), on the same ports, and waits until it answers.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_again(&mut self) -> Result<(), BrokerError> {
        let server = program("rabbitmq-server")?;
        let running = Watched::start(&[server.as_os_str()], &self.environment(), &self.log, None);
        self.running = Some(running.map_err(BrokerError::io("starting the server"))?);
        self.answers()
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// `amqp://` with the user, the password and the virtual host that every new broker has.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// Its address for plain AMQP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp))
    }

    /// The same for AMQPS, by the name that a certificate can be made for.
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.ports.amqps)
    }

    /// `rabbitmqctl` with these arguments; gives what it prints.
    ///
    /// # Errors
    /// With what it prints, when it fails.
    pub fn control(&self, arguments: &[&str]) -> Result<String, BrokerError> {
        let output = Command::new(program("rabbitmqctl")?)
            .args(["--quiet", "--node", &self.name])
            .args(arguments)
            .envs(self.environment())
            .stdin(Stdio::null())
            .output()
            .map_err(BrokerError::io("starting rabbitmqctl"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let said = said + &String::from_utf8_lossy(&output.stderr);
        Err(BrokerError::Control { arguments: arguments.join(" "), said })
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let folder = self.configuration.parent().unwrap_or(&self.configuration);
        let inside = |name: &str| text(&folder.join(name));
        vec![
            ("HOME", text(&self.ground.folder)),
            ("ERL_EPMD_PORT", self.ground.port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_NODE_PORT", self.ports.amqp.to_string()),
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string()),
            ("RABBITMQ_CONFIG_FILE", text(&self.configuration)),
            ("RABBITMQ_CONF_ENV_FILE", inside("none")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("none")),
            ("RABBITMQ_MNESIA_BASE", inside("data")),
            ("RABBITMQ_LOG_BASE", inside("log")),
            ("RABBITMQ_PID_FILE", inside("pid")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
            // A test's broker leaves the processor to others when it has nothing to do, and speaks to this machine alone.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
            ),
        ]
    }

    /// Waits until it answers an AMQP header.
    fn answers(&self) -> Result<(), BrokerError> {
        let deadline = Instant::now() + START;
        while !speaks_amqp(self.address()) {
            if Instant::now() >= deadline {
                return Err(BrokerError::Silent { port: self.ports.amqp, after: START, said: last_lines(&self.log) });
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Ground {
    fn new() -> Result<Self, BrokerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        program("rabbitmq-server")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("test-broker-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).map_err(BrokerError::io("making a folder for the broker"))?;
        let cookie = folder.join(".erlang.cookie");
        fs::write(&cookie, format!("TEST{}", std::process::id())).map_err(BrokerError::io("writing the cookie"))?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o600))
            .map_err(BrokerError::io("guarding the cookie"))?;
        let [port] = free_ports()?;
        // Started here and not by the server, which would leave it behind.
        let port_text = port.to_string();
        let arguments = ["epmd", "-address", "127.0.0.1", "-port", &port_text].map(OsStr::new);
        let log = folder.join("epmd.log");
        let port_mapper = Watched::start(&arguments, &[], &log, Some(&folder));
        let port_mapper = port_mapper.map_err(BrokerError::io("starting epmd"))?;
        Ok(Self { _port_mapper: port_mapper, port, folder, nodes: AtomicU32::new(0) })
    }
}

/// `rabbitmq.conf`.
fn configured(ports: Ports, options: &Options, others: &[&str], own: &str) -> String {
    let mut text = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\nlog.console = true\nlog.console.level = warning\n\
         log.file = false\ndisk_free_limit.absolute = 50MB\n",
        ports.amqp
    );
    if let Some(tls) = &options.tls {
        let _ = writeln!(text, "listeners.ssl.1 = 127.0.0.1:{}", ports.amqps);
        for (key, path) in [("cacertfile", &tls.ca), ("certfile", &tls.certificate), ("keyfile", &tls.key)] {
            let _ = writeln!(text, "ssl_options.{key} = {}", path.display());
        }
        let verify = if tls.client_certificate { "verify_peer" } else { "verify_none" };
        let _ = writeln!(text, "ssl_options.verify = {verify}");
        let _ = writeln!(text, "ssl_options.fail_if_no_peer_cert = {}", tls.client_certificate);
    }
    if !others.is_empty() {
        text.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
        for (number, node) in others.iter().chain([&own]).enumerate() {
            let _ = writeln!(text, "cluster_formation.classic_config.nodes.{} = {node}", number + 1);
        }
    }
    for line in &options.settings {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn speaks_amqp(address: SocketAddr) -> bool {
    let answered = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(AMQP_HEADER)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        // A method frame: Connection.Start.
        Ok(first == [1])
    };
    answered().unwrap_or(false)
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Ports that nobody uses, all different. None of those that the system gives to clients: one that dials a broker which
/// is being restarted would otherwise be given the broker's own, sooner or later.
fn free_ports<const N: usize>() -> Result<[u16; N], BrokerError> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        *port = loop {
            let tried = PORTS.start + (RandomState::new().hash_one(0) % u64::from(PORTS.end - PORTS.start)) as u16;
            match TcpListener::bind((Ipv4Addr::LOCALHOST, tried)) {
                Ok(listener) => {
                    held.push(listener);
                    break tried;
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(BrokerError::io("looking for a free port")(error)),
            }
        };
    }
    Ok(ports)
}
