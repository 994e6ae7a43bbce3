//! The stand: everything that is compared, started side by side on loopback.
//!
//! The gateway has its own service behind it; nginx, HAProxy and the hyper proxy share one hyper service, which also
//! answers without any proxy. Only one of them is under load at a time. It knows how each is configured, and nothing
//! of what is measured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::launch::{Cores, Process, RunFolder, free_addresses};
use super::machine;
use super::tools;
use crate::metadata::Metadata;
use crate::process::Workspace;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Peer {
    Gateway,
    Nginx,
    Haproxy,
    HyperProxy,
    NoProxy,
}

impl Peer {
    pub(super) const ALL: [Self; 5] = [Self::Gateway, Self::Nginx, Self::Haproxy, Self::HyperProxy, Self::NoProxy];
    pub(super) const PROXIES: [Self; 4] = [Self::Gateway, Self::Nginx, Self::Haproxy, Self::HyperProxy];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Stella Router",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::HyperProxy => "hyper proxy",
            Self::NoProxy => "no proxy",
        }
    }
}

/// Where proxies, services and clients run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Placement {
    /// Proxy and service share core 0 and are single-threaded; the client has core 1.
    Pinned,
    /// Everything anywhere; proxies and services may use every core.
    Unpinned,
}

impl Placement {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
        }
    }

    pub(super) const fn servers(self) -> Cores {
        match self {
            Self::Pinned => Cores::Only(0),
            Self::Unpinned => Cores::Any,
        }
    }

    pub(super) const fn client(self) -> Cores {
        match self {
            Self::Pinned => Cores::Only(1),
            Self::Unpinned => Cores::Any,
        }
    }

    /// Threads of each server.
    fn threads(self) -> usize {
        match self {
            Self::Pinned => 1,
            Self::Unpinned => machine::cores(),
        }
    }

    /// An error where the machine is too small for it.
    pub(super) fn check(self) -> Result<()> {
        if self == Self::Pinned && machine::cores() < 2 {
            bail!("pinned, servers and client need a core each; this machine has one");
        }
        Ok(())
    }
}

/// The programs of this repository, built for release.
pub(super) struct Programs {
    pub(super) gateway: PathBuf,
    pub(super) service: PathBuf,
    /// `bench-peers`
    pub(super) peers: PathBuf,
}

impl Programs {
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let target = Metadata::read(workspace)?.target_directory;
        let own = ["build", "--release", "--package", "router-gateway", "--package", "bench-service", "--bins"];
        if !workspace.cargo(own).run()? {
            bail!("the gateway and its service do not build");
        }
        let peers = build_peer(workspace, &target, "bench-peers")?;
        let release = target.join("release");
        Ok(Self { gateway: release.join("router-gateway"), service: release.join("bench-service"), peers })
    }
}

/// Builds a program of the peers' own workspace.
pub(super) fn build_peer(workspace: &Workspace, target: &Path, package: &str) -> Result<PathBuf> {
    let folder = target.join("peers");
    let built = workspace
        .cargo(["build", "--release", "--manifest-path", "benches/peers/Cargo.toml", "--package", package])
        .env("CARGO_TARGET_DIR", &folder)
        .run()?;
    if !built {
        bail!("{package} does not build");
    }
    Ok(folder.join("release").join(package))
}

/// How the gateway's service is to be started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServiceOptions {
    /// Requests that may be in flight; the service's default unless set.
    pub(super) lease: Option<usize>,
}

/// All of it, running. Ended when dropped.
pub(super) struct Stand {
    servers: Vec<(Role, Process)>,
    fronts: [SocketAddr; 5],
    /// Where services join the gateway.
    pub(super) join: SocketAddr,
    service_program: PathBuf,
    cores: Cores,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Proxy(Peer),
    GatewayService,
    HyperService,
}

impl Stand {
    pub(super) fn start(
        folder: &RunFolder,
        programs: &Programs,
        placement: Placement,
        options: ServiceOptions,
    ) -> Result<Self> {
        let [gateway, nginx, haproxy, hyper_proxy, hyper_service, admin, join] = free_addresses()?;
        let (cores, threads) = (placement.servers(), placement.threads());
        let mut stand = Self {
            servers: Vec::new(),
            fronts: [gateway, nginx, haproxy, hyper_proxy, hyper_service],
            join,
            service_program: programs.service.clone(),
            cores,
        };

        let threads_text = threads.to_string();
        let args = words(&["service", "--listen", &hyper_service.to_string(), "--threads", &threads_text]);
        let service = folder.serve("hyper-service", cores, &programs.peers, &args)?;
        stand.add(Role::HyperService, service, hyper_service)?;

        let args = ["proxy", "--listen", &hyper_proxy.to_string(), "--to", &hyper_service.to_string(), "--threads"];
        let args = [words(&args), vec![threads_text.clone()]].concat();
        let proxy = folder.serve("hyper-proxy", cores, &programs.peers, &args)?;
        stand.add(Role::Proxy(Peer::HyperProxy), proxy, hyper_proxy)?;

        let file = folder.write("nginx.conf", &nginx_configuration(folder, threads, nginx, hyper_service))?;
        let errors = folder.path().join("nginx-errors.log");
        let args = [path(folder.path()), path(&file), path(&errors)];
        let args = words(&["-p", &args[0], "-c", &args[1], "-e", &args[2]]);
        let program = tools::NGINX.path().context("nginx is gone")?;
        stand.add(Role::Proxy(Peer::Nginx), folder.serve("nginx", cores, &program, &args)?, nginx)?;

        let file = folder.write("haproxy.cfg", &haproxy_configuration(threads, haproxy, hyper_service))?;
        let program = tools::HAPROXY.path().context("haproxy is gone")?;
        let proxy = folder.serve("haproxy", cores, &program, &words(&["-db", "-f", &path(&file)]))?;
        stand.add(Role::Proxy(Peer::Haproxy), proxy, haproxy)?;

        let file = folder.write("router.yaml", &gateway_configuration(placement, gateway, admin, join))?;
        let proxy = folder.serve("gateway", cores, &programs.gateway, &words(&["serve", "--config", &path(&file)]))?;
        stand.servers.push((Role::Proxy(Peer::Gateway), proxy));
        stand.server(Role::Proxy(Peer::Gateway))?.listens(gateway)?;

        let mut args = vec!["--threads".to_owned(), threads_text.clone(), "--links".to_owned(), threads_text];
        if let Some(lease) = options.lease {
            args.extend(["--lease".to_owned(), lease.to_string()]);
        }
        let service = stand.launch_service(folder, "bench-service", &args)?;
        stand.servers.push((Role::GatewayService, service));
        stand.server(Role::Proxy(Peer::Gateway))?.answers(gateway)?;
        Ok(stand)
    }

    fn add(&mut self, role: Role, process: Process, at: SocketAddr) -> Result<()> {
        self.servers.push((role, process));
        self.server(role)?.answers(at)
    }

    /// Starts a further service and waits until it is ready.
    pub(super) fn launch_service(&self, folder: &RunFolder, name: &'static str, args: &[String]) -> Result<Process> {
        let join = vec!["--gateway".to_owned(), format!("tcp://{}", self.join)];
        let mut service = folder.serve(name, self.cores, &self.service_program, &[join, args.to_vec()].concat())?;
        service.prints("ready")?;
        Ok(service)
    }

    /// Where its clients connect.
    pub(super) const fn front(&self, peer: Peer) -> SocketAddr {
        self.fronts[peer as usize]
    }

    /// The process that proxies; none where there is no proxy.
    pub(super) fn proxy(&self, peer: Peer) -> Option<u32> {
        self.find(Role::Proxy(peer)).map(Process::id)
    }

    /// The process behind it.
    pub(super) fn backend(&self, peer: Peer) -> Option<u32> {
        let role = if peer == Peer::Gateway { Role::GatewayService } else { Role::HyperService };
        self.find(role).map(Process::id)
    }

    fn find(&self, role: Role) -> Option<&Process> {
        self.servers.iter().find(|(is, _)| *is == role).map(|(_, process)| process)
    }

    fn server(&mut self, role: Role) -> Result<&mut Process> {
        let found = self.servers.iter_mut().find(|(is, _)| *is == role);
        found.map(|(_, process)| process).with_context(|| format!("{role:?} was not started"))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // In the reverse order, so that services leave before what they have joined.
        while self.servers.pop().is_some() {}
    }
}

/// A gateway alone, for services to join.
pub(super) struct Site {
    // Ended in this order: services leave before what they have joined.
    pub(super) services: Vec<Process>,
    pub(super) gateway: Process,
    pub(super) http: SocketAddr,
    join: SocketAddr,
    service_program: PathBuf,
}

impl Site {
    pub(super) fn start(
        folder: &RunFolder,
        programs: &Programs,
        placement: Placement,
        name: &'static str,
    ) -> Result<Self> {
        let [http, admin, join] = free_addresses()?;
        let configuration = gateway_configuration(placement, http, admin, join);
        let file = folder.write(&format!("{name}.yaml"), &configuration)?;
        let args = words(&["serve", "--config", &path(&file)]);
        let mut gateway = folder.serve(name, placement.servers(), &programs.gateway, &args)?;
        gateway.listens(http)?;
        Ok(Self { services: Vec::new(), gateway, http, join, service_program: programs.service.clone() })
    }

    /// Starts a single-threaded service and waits until all its instances are ready.
    pub(super) fn launch_service(
        &self,
        folder: &RunFolder,
        name: &'static str,
        cores: Cores,
        args: &[String],
    ) -> Result<Process> {
        let join = words(&["--threads", "1", "--gateway", &format!("tcp://{}", self.join)]);
        let mut service = folder.serve(name, cores, &self.service_program, &[join, args.to_vec()].concat())?;
        service.prints("ready")?;
        Ok(service)
    }
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// The defaults, on ports of this run's own; pinned, one worker, as everything else there.
pub(super) fn gateway_configuration(
    placement: Placement,
    http: SocketAddr,
    admin: SocketAddr,
    join: SocketAddr,
) -> String {
    let node = match placement {
        Placement::Pinned => "node: { workers: 1 }\n",
        Placement::Unpinned => "",
    };
    format!(
        "{node}http: {{ listen: \"{http}\" }}\nadmin: {{ listen: \"{admin}\" }}\n\
         transports: {{ tcp: {{ listen: \"{join}\" }} }}\n"
    )
}

/// Without access log, without gathering request bodies, with connections to the service that are kept.
fn nginx_configuration(folder: &RunFolder, workers: usize, listen: SocketAddr, to: SocketAddr) -> String {
    let path = folder.path().display();
    let descriptors = folder.descriptors();
    let connections = descriptors / 2;
    // As its own user where it can change it, it could not write into the run's folder.
    format!(
        "\
daemon off;
user root;
pid {path}/nginx.pid;
error_log {path}/nginx-errors.log error;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {path}/nginx-body;
    proxy_temp_path {path}/nginx-proxy;
    fastcgi_temp_path {path}/nginx-fastcgi;
    uwsgi_temp_path {path}/nginx-uwsgi;
    scgi_temp_path {path}/nginx-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_max_body_size 0;
    upstream service {{
        server {to};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"
    )
}

fn haproxy_configuration(threads: usize, listen: SocketAddr, to: SocketAddr) -> String {
    format!(
        "\
global
    nbthread {threads}
    maxconn 8000
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    timeout http-keep-alive 3600s
frontend clients
    bind {listen}
    default_backend services
backend services
    server service {to}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_stand_where_their_fronts_are() {
        for (place, peer) in Peer::ALL.into_iter().enumerate() {
            assert_eq!(peer as usize, place, "{}", peer.name());
        }
    }

    #[test]
    fn pinned_gateways_have_one_worker_and_others_the_default() {
        let [http, admin, join] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let pinned = gateway_configuration(Placement::Pinned, http, admin, join);
        assert!(pinned.starts_with("node: { workers: 1 }\nhttp: { listen: \"127.0.0.1:1\" }\n"), "{pinned}");
        assert!(!gateway_configuration(Placement::Unpinned, http, admin, join).contains("workers"));
    }
}
