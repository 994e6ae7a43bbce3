//! `router-gateway certs dev`: certificates to try TLS with on one machine, and the lines of configuration that use them.
//!
//! It is for development: the CA's key stays beside what it has signed.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use router_common::identity::ServiceName;
use transport_tls::development::{DevelopmentCa, DevelopmentError};

/// The names under which everybody on this machine reaches a gateway on it.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Whoever can read a key can be who it is for.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
/// Services that one command makes certificates for.
const SERVICES: usize = 256;

const USAGE: u8 = 2;

/// Make certificates.
#[derive(clap::Args)]
pub(crate) struct Certs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(clap::Subcommand)]
enum Kind {
    /// A development CA, a gateway's certificate, and services' ones, and how to use them. Not for production.
    Dev(Dev),
}

#[derive(clap::Args)]
struct Dev {
    /// The folder to write to; it is made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A further name or address of the gateway, beside localhost, 127.0.0.1 and ::1; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// A service that gets a certificate, with the name spiffe://dev/SERVICE; may be repeated.
    #[arg(long = "service", value_name = "SERVICE", default_value = "service")]
    services: Vec<ServiceName>,
    /// Replace what is there. The CA is a new one: all that the old one has signed is worth nothing any more.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is there already; `--force` replaces it, and all that was signed before is worth nothing then", .0.display())]
    There(PathBuf),
    #[error("`{0}` cannot be a service here: its files would take the place of others")]
    Service(ServiceName),
    #[error("more than {SERVICES} services")]
    Services,
    #[error(transparent)]
    Certificate(#[from] DevelopmentError),
}

/// Does it.
pub(crate) fn run(command: &Certs) -> ExitCode {
    let Kind::Dev(dev) = &command.kind;
    match dev.make() {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                Problem::File { .. } | Problem::Certificate(_) => ExitCode::FAILURE,
                Problem::There(_) | Problem::Service(_) | Problem::Services => ExitCode::from(USAGE),
            }
        }
    }
}

impl Dev {
    /// Writes all files, or none where one is there already; says how to use them.
    fn make(&self) -> Result<String, Problem> {
        if self.services.len() > SERVICES {
            return Err(Problem::Services);
        }
        for (place, service) in self.services.iter().enumerate() {
            if ["ca", "gateway"].contains(&service.as_str())
                || self.services.iter().skip(place + 1).any(|s| s == service)
            {
                return Err(Problem::Service(service.clone()));
            }
        }
        let authority = DevelopmentCa::new()?;
        let names: Vec<&str> = LOCAL.into_iter().chain(self.names.iter().map(String::as_str)).collect();
        let gateway = authority.gateway(&names)?;
        let mut files = vec![
            ("ca.pem".to_owned(), authority.certificate().to_owned(), CERTIFICATE_MODE),
            ("ca.key".to_owned(), authority.key().to_owned(), KEY_MODE),
            ("gateway.pem".to_owned(), gateway.certificate, CERTIFICATE_MODE),
            ("gateway.key".to_owned(), gateway.key, KEY_MODE),
        ];
        for service in &self.services {
            let made = authority.service(&format!("spiffe://dev/{service}"))?;
            files.push((format!("{service}.pem"), made.certificate, CERTIFICATE_MODE));
            files.push((format!("{service}.key"), made.key, KEY_MODE));
        }
        std::fs::create_dir_all(&self.out).map_err(|source| Problem::File { path: self.out.clone(), source })?;
        if !self.force
            && let Some(there) = files.iter().map(|(name, ..)| self.out.join(name)).find(|path| path.exists())
        {
            return Err(Problem::There(there));
        }
        for (name, text, mode) in &files {
            let path = self.out.join(name);
            write(&path, text, *mode).map_err(|source| Problem::File { path, source })?;
        }
        Ok(self.told())
    }

    fn told(&self) -> String {
        let folder = std::path::absolute(&self.out).unwrap_or_else(|_| self.out.clone());
        let file = |name: &str| folder.join(name).display().to_string();
        let mut text = format!(
            "# router.yaml\n\
             transports:\n  \
               tls:\n    \
                 certificate: {}\n    \
                 key: {}\n    \
                 client_ca: {}\n    \
                 client_certificate: required\n\
             services:\n",
            file("gateway.pem"),
            file("gateway.key"),
            file("ca.pem")
        );
        for service in &self.services {
            text.push_str(&format!("  {service}: {{ identities: [\"spiffe://dev/{service}\"] }}\n"));
        }
        for service in &self.services {
            text.push_str(&format!(
                "\n# microservice.yaml of {service}\n\
                 gateways:\n  \
                   - url: tls://localhost:5101\n    \
                     ca: {}\n    \
                     certificate: {}\n    \
                     key: {}\n",
                file("ca.pem"),
                file(&format!("{service}.pem")),
                file(&format!("{service}.key"))
            ));
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// Writes a file whole: readers see the old one or the new one, and never with another's mode.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&unfinished, path)
}
