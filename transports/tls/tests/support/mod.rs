//! Certificates in a folder of the test's own, and listeners and connectors that use them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use transport_tls::development::{DevelopmentCa, DevelopmentCertificate};
use transport_tls::{ClientTls, TlsConnector, TlsListener, TlsListenerSettings};

/// A CA, with what it has signed.
pub(crate) struct Files {
    pub(crate) authority: DevelopmentCa,
    folder: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let authority = DevelopmentCa::new().expect("a CA");
        let folder = tempfile::tempdir().expect("a folder");
        let files = Self { authority, folder };
        files.write("ca.pem", files.authority.certificate());
        let gateway = files.authority.gateway(&["localhost", "127.0.0.1"]).expect("a certificate");
        files.put("gateway", &gateway);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write(&path, text);
        path
    }

    /// Writes `name.pem` and `name.key`.
    pub(crate) fn put(&self, name: &str, certificate: &DevelopmentCertificate) {
        self.write(&format!("{name}.pem"), &certificate.certificate);
        self.write(&format!("{name}.key"), &certificate.key);
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A listener that asks for nothing.
    pub(crate) fn gateway(&self) -> TlsListenerSettings {
        let mut settings = TlsListenerSettings::new(self.path("gateway.pem"), self.path("gateway.key"));
        settings.listen = "127.0.0.1:0".parse().expect("an address");
        settings
    }

    /// Someone who shows nothing.
    pub(crate) fn anonymous(&self) -> ClientTls {
        ClientTls { ca: Some(self.ca()), ..ClientTls::default() }
    }

    /// Someone with a certificate of this URI.
    pub(crate) fn service(&self, uri: &str) -> ClientTls {
        self.holder("service", &self.authority.service(uri).expect("a certificate"))
    }

    /// Someone with this certificate.
    pub(crate) fn holder(&self, name: &str, certificate: &DevelopmentCertificate) -> ClientTls {
        self.put(name, certificate);
        ClientTls {
            certificate: Some(self.path(&format!("{name}.pem"))),
            key: Some(self.path(&format!("{name}.key"))),
            ..self.anonymous()
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
}

pub(crate) fn listener(settings: &TlsListenerSettings) -> TlsListener {
    TlsListener::bind(settings).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn connector(listener: &TlsListener, tls: ClientTls) -> TlsConnector {
    let url = format!("tls://{}", listener.local_addr());
    TlsConnector::new(&url, tls).unwrap_or_else(|error| panic!("{error}"))
}
