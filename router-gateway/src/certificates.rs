//! The certificates of listeners, as the gateway sees them: that they can be renewed while it runs, and how that went.
//!
//! It knows no TLS and no files; those are the transports'.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What a listener shows and believes. Connections live on when it changes.
pub trait Certificates: fmt::Debug + Send + Sync {
    /// Looks at the files now, and puts to use what has changed and is in order; what came of it is logged and counted. It
    /// blocks while it reads.
    fn renew(&self);

    /// How it has gone since the start.
    fn figures(&self) -> CertificateFigures;
}

/// What has been counted of a listener's certificates and of its handshakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CertificateFigures {
    /// Changes of the files that were put to use,
    pub renewed: u64,
    /// and those that could not be.
    pub refused: u64,
    /// Handshakes from the beginning,
    pub full: u64,
    /// those that went on with an earlier session,
    pub resumed: u64,
    /// and those that brought nothing.
    pub failed: u64,
    /// When the certificate that ends first does.
    pub expires: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The same as metrics, of all listeners together.
#[derive(Debug, Default)]
pub(crate) struct CertificateMetrics {
    reloads: Family<OutcomeLabels, Counter>,
    handshakes: Family<OutcomeLabels, Counter>,
    expires: Gauge,
}

impl CertificateMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let meaning =
            "Changes of TLS certificates on disk: put to use, or refused while the last good ones stay in use";
        registry.register("tls_reloads", meaning, self.reloads.clone());
        registry.register("tls_handshakes", "TLS handshakes of services", self.handshakes.clone());
        let meaning =
            "When the first of the listeners' certificates ends, in seconds since the Unix epoch; 0: there is none";
        registry.register("tls_certificate_expiry_timestamp_seconds", meaning, self.expires.clone());
        self.set(&[]);
    }

    pub(crate) fn set(&self, listeners: &[Arc<dyn Certificates>]) {
        let all: Vec<_> = listeners.iter().map(|listener| listener.figures()).collect();
        let put = |family: &Family<OutcomeLabels, Counter>, outcome, count: fn(&CertificateFigures) -> u64| {
            let sum = all.iter().map(count).fold(0, u64::saturating_add);
            family.get_or_create(&OutcomeLabels { outcome }).inner().store(sum, std::sync::atomic::Ordering::Relaxed);
        };
        put(&self.reloads, "renewed", |figures| figures.renewed);
        put(&self.reloads, "refused", |figures| figures.refused);
        put(&self.handshakes, "full", |figures| figures.full);
        put(&self.handshakes, "resumed", |figures| figures.resumed);
        put(&self.handshakes, "failed", |figures| figures.failed);
        let first = all.iter().filter_map(|figures| figures.expires).min();
        let since = first.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
        self.expires.set(i64::try_from(since).unwrap_or(i64::MAX));
    }
}
