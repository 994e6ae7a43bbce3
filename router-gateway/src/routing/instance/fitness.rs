//! Whether an instance may serve at all: what it says of itself, whether it is heard, and whether it has failed too often.
//!
//! Values only; where they are kept, and who changes them, is not known here.

use router_common::frame::HealthStatus;

/// How much an instance may be used, best first. What a service says and what its silence says, whichever is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    Degraded,
    /// Serves nothing, by its own word.
    Unhealthy,
    /// Nothing was heard yet, or a word of a later version: serves nothing.
    Unknown,
}

impl Health {
    /// As a word for lists and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }

    const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Healthy,
            1 => Self::Degraded,
            2 => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }
}

impl From<HealthStatus> for Health {
    fn from(status: HealthStatus) -> Self {
        match status {
            HealthStatus::Healthy => Self::Healthy,
            HealthStatus::Degraded => Self::Degraded,
            HealthStatus::Unhealthy => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }
}

/// Whether an instance may serve at all, in one byte: what it says, whether it is heard, whether it may be routed to, and
/// whether it has failed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitness(pub(super) u8);

impl Fitness {
    /// The lowest two bits: what the service last said of itself.
    pub(super) const STATUS: u8 = 0b0000_0011;
    /// No link of it was heard of for `degraded_after`.
    pub(super) const SILENT: u8 = 0b0000_0100;
    /// Its first heartbeat was acknowledged, on some link.
    pub(super) const ROUTABLE: u8 = 0b0000_1000;
    /// All its links drain.
    pub(super) const DRAINING: u8 = 0b0001_0000;
    /// It has failed too often: passed over while anybody else is fit.
    pub(super) const EJECTED: u8 = 0b0010_0000;

    /// The service's own word and its silence, whichever is worse.
    #[must_use]
    pub fn health(self) -> Health {
        let silence = u8::from(self.0 & Self::SILENT != 0) * Health::Degraded as u8;
        Health::from_u8((self.0 & Self::STATUS).max(silence))
    }

    /// Nothing was heard of it for `degraded_after`.
    #[must_use]
    pub const fn is_silent(self) -> bool {
        self.0 & Self::SILENT != 0
    }

    #[must_use]
    pub const fn is_routable(self) -> bool {
        self.0 & Self::ROUTABLE != 0
    }

    #[must_use]
    pub const fn is_draining(self) -> bool {
        self.0 & Self::DRAINING != 0
    }

    /// Whether it is passed over while another instance of its version is fit. It is fit itself all the same.
    #[must_use]
    pub const fn is_ejected(self) -> bool {
        self.0 & Self::EJECTED != 0
    }

    /// Routable, not draining, and healthy or degraded.
    #[must_use]
    pub const fn is_fit(self) -> bool {
        self.0 & (Self::ROUTABLE | Self::DRAINING) == Self::ROUTABLE && self.0 & Self::STATUS <= Health::Degraded as u8
    }
}
