//! What a gateway shows and asks for in TLS: its certificates, the CAs of its services, and how both are exchanged while
//! connections live on.
//!
//! It opens no socket. When it looks at its files is its listener's to say.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use router_common::identity::Identity;
use rustls::pki_types::{DnsName, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::server::{
    ClientHello, NoClientAuth, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{CommonState, HandshakeKind, ServerConfig, version};
use webpki::EndEntityCert;

use crate::config::{CertificatePair, ClientCertificates, MinimumVersion, TlsListenerSettings};
use crate::explain;
use crate::files::{self, CertificateProblem, Contents, Look, Usage};
use crate::identity::Names;
use crate::provider;
use crate::verifier::ClientVerifier;

/// Sessions that are remembered for services that resume by id (TLS 1.2): a few hundred bytes each.
const SESSIONS: usize = 1024;

/// The certificates of one listener: those it shows, and those it believes. What is in use is exchanged whole, so that a
/// handshake never sees the half of a change.
#[derive(Debug)]
pub struct Credentials {
    pairs: Vec<CertificatePair>,
    settings: TlsListenerSettings,
    live: ArcSwap<Live>,
    /// Outlive the exchange of certificates: a session that is resumed is verified anew ([`Live::identity`]).
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    seen: Mutex<Seen>,
    pub(crate) counters: Counters,
}

/// What handshakes are made with, at one moment.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: Arc<ServerConfig>,
    verifier: Option<Arc<ClientVerifier>>,
    expires: Option<SystemTime>,
}

/// What the files looked like.
#[derive(Debug)]
struct Seen {
    /// What is in use.
    live: Look,
    /// What was found not to be usable.
    refused: Option<Look>,
    /// What was there at the last look: files that are being written change again.
    last: Look,
}

/// What came of a look at the files.
#[derive(Debug)]
#[non_exhaustive]
pub enum Renewal {
    /// They are as they were, or are just being changed.
    Unchanged,
    /// New handshakes show and believe what they say now.
    Renewed,
    /// They cannot be used; the last good ones are in use. Said once for each change.
    Refused(CertificateProblem),
}

/// What has been counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Changes of the files that were put to use.
    pub renewed: u64,
    /// Changes that could not be, while the last good ones stayed.
    pub refused: u64,
    /// Handshakes from the beginning.
    pub full: u64,
    /// Handshakes that went on with an earlier session.
    pub resumed: u64,
    /// Handshakes that brought nothing: refused, garbled, broken off.
    pub failed: u64,
    /// Of these, those that took too long.
    pub timed_out: u64,
    /// Of these, those that had to go for others.
    pub evicted: u64,
    /// When the certificate that ends first does.
    pub expires: Option<SystemTime>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    renewed: AtomicU64,
    refused: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) evicted: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn made(&self, kind: Option<HandshakeKind>) {
        Self::count(if kind == Some(HandshakeKind::Resumed) { &self.resumed } else { &self.full });
    }
}

impl Credentials {
    /// Reads and checks all files that the settings name.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(settings: &TlsListenerSettings) -> Result<Arc<Self>, CertificateProblem> {
        let own = CertificatePair { certificate: settings.certificate.clone(), key: settings.key.clone() };
        let pairs: Vec<_> = std::iter::once(own).chain(settings.certificates.iter().cloned()).collect();
        let tickets =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| CertificateProblem::Tls(error.to_string()))?;
        let sessions = ServerSessionMemoryCache::new(SESSIONS);
        let loading = Loading { pairs: &pairs, settings, tickets: &tickets, sessions: &(Arc::clone(&sessions) as _) };
        let (live, look) = loading.read()?;
        let seen = Mutex::new(Seen { live: look, refused: None, last: look });
        let live = ArcSwap::from_pointee(live);
        let settings = settings.clone();
        Ok(Arc::new(Self { pairs, settings, live, tickets, sessions, seen, counters: Counters::default() }))
    }

    /// Looks at the files, and puts to use what has changed and is in order. Blocks while it reads.
    pub fn renew(&self) -> Renewal {
        self.look(Haste::AtOnce)
    }

    /// The same, but files that have changed since the last look may still be in the making.
    pub(crate) fn watch(&self) -> Renewal {
        self.look(Haste::WhenAtRest)
    }

    fn look(&self, haste: Haste) -> Renewal {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Look::at(self.paths());
        let at_rest = std::mem::replace(&mut seen.last, now) == now;
        if now == seen.live {
            seen.refused = None;
            return Renewal::Unchanged;
        }
        if haste == Haste::WhenAtRest && (!at_rest || seen.refused == Some(now)) {
            return Renewal::Unchanged;
        }
        let Self { pairs, settings, tickets, sessions, .. } = self;
        match (Loading { pairs, settings, tickets, sessions }).read() {
            Ok((live, look)) => {
                self.live.store(Arc::new(live));
                (seen.live, seen.last, seen.refused) = (look, look, None);
                Counters::count(&self.counters.renewed);
                tracing::info!(certificate = %settings.certificate.display(), "new TLS certificates are in use");
                Renewal::Renewed
            }
            Err(error) => {
                seen.refused = Some(now);
                Counters::count(&self.counters.refused);
                tracing::error!(%error, "the new TLS certificates cannot be used; the last good ones stay in use");
                Renewal::Refused(error)
            }
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs.iter().flat_map(|pair| [pair.certificate.as_path(), pair.key.as_path()]);
        pairs.chain(self.settings.client_ca.as_deref())
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// What has been counted, and when the certificate in use ends.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { renewed, refused, full, resumed, failed, timed_out, evicted } = &self.counters;
        Figures {
            renewed: of(renewed),
            refused: of(refused),
            full: of(full),
            resumed: of(resumed),
            failed: of(failed),
            timed_out: of(timed_out),
            evicted: of(evicted),
            expires: self.live.load().expires,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    AtOnce,
    WhenAtRest,
}

/// What a reading of the files needs.
struct Loading<'a> {
    pairs: &'a [CertificatePair],
    settings: &'a TlsListenerSettings,
    tickets: &'a Arc<dyn ProducesTickets>,
    sessions: &'a Arc<dyn StoresServerSessions>,
}

impl Loading<'_> {
    fn read(&self) -> Result<(Live, Look), CertificateProblem> {
        let settings = self.settings;
        let now = SystemTime::now();
        let mut contents = Vec::new();
        let mut keys = Vec::new();
        for pair in self.pairs {
            let (certificate, key) = (Contents::read(&pair.certificate)?, Contents::read(&pair.key)?);
            keys.push(files::pair(&certificate, &key, Usage::Server, now)?);
            contents.extend([certificate, key]);
        }
        let mut verifier = None;
        if let Some(path) = &settings.client_ca {
            let ca = Contents::read(path)?;
            if settings.client_certificate != ClientCertificates::None {
                let names = Names::new(&settings.identities);
                verifier = Some(ClientVerifier::new(ca.roots()?, settings.client_certificate, names)?);
            }
            contents.push(ca);
        }
        let expires = keys.iter().filter_map(|key| files::expires(key)).min();
        let versions: &[_] = match settings.minimum_version {
            MinimumVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinimumVersion::Tls13 => &[&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| CertificateProblem::Tls(error.to_string()))?
            .with_client_cert_verifier(match &verifier {
                Some(verifier) => Arc::clone(verifier) as _,
                None => Arc::new(NoClientAuth),
            })
            .with_cert_resolver(Arc::new(ByName(keys)));
        // What binds the session's proofs to this connection is only sound with it (RFC 9266).
        config.require_ems = true;
        config.ticketer = Arc::clone(self.tickets);
        config.session_storage = Arc::clone(self.sessions);
        Ok((Live { config: Arc::new(config), verifier, expires }, Look::of(&contents)))
    }
}

impl Live {
    /// Who the peer of a finished handshake is, by its certificate; `None`: it showed none.
    ///
    /// # Errors
    /// Why its certificate is not good enough now: that of a resumed session was verified when the session began.
    pub(crate) fn identity(&self, connection: &CommonState, counters: &Counters) -> Result<Option<Identity>, String> {
        let kind = connection.handshake_kind();
        let identity = match (&self.verifier, connection.peer_certificates()) {
            (Some(verifier), Some([end_entity, intermediates @ ..])) => {
                if kind == Some(HandshakeKind::Resumed) {
                    verifier
                        .verify_client_cert(end_entity, intermediates, UnixTime::now())
                        .map_err(|error| explain::resumed(&error))?;
                }
                verifier.names.of(end_entity)
            }
            _ => None,
        };
        counters.made(kind);
        Ok(identity)
    }
}

/// Certificates, the first of them for whoever asks for no name of another one.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        if self.0.len() == 1 {
            return Some(Arc::clone(first));
        }
        let asked = hello.server_name().and_then(|name| DnsName::try_from(name.to_owned()).ok());
        let Some(name) = asked.map(ServerName::DnsName) else { return Some(Arc::clone(first)) };
        let is_for_it = |key: &&Arc<CertifiedKey>| {
            let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
            certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        Some(Arc::clone(self.0.iter().find(is_for_it).unwrap_or(first)))
    }
}
