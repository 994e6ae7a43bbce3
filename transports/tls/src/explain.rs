//! What went wrong in TLS, in words for whoever runs the service or the gateway: whose certificate, which name, what to do.
//!
//! It knows errors, not connections.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// Whose words are wanted: who speaks of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// A gateway, of a service.
    Gateway,
    /// A service, of a gateway.
    Service,
}

/// Why a handshake failed.
pub(crate) fn handshake(speaker: Speaker, error: &io::Error) -> String {
    let Some(error) = tls(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ended the connection in the middle of the TLS handshake".to_owned(),
            _ => error.to_string(),
        };
    };
    match error {
        Error::AlertReceived(alert) => refused(speaker, *alert),
        Error::InvalidCertificate(why) => format!("its certificate is refused: {}", certificate(speaker, why)),
        Error::NoCertificatesPresented => "it shows no certificate, and `client_certificate: required`".to_owned(),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::PeerIncompatible(why) => format!("it has no TLS version or cipher that is allowed here: {why:?}"),
        other => other.to_string(),
    }
}

/// Why a service's certificate, verified when its session began, is not good enough any more.
pub(crate) fn resumed(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => {
            format!("the certificate of its resumed session is refused: {}", certificate(Speaker::Gateway, why))
        }
        other => other.to_string(),
    }
}

/// The error of an established connection, with an alert in words.
pub(crate) fn ended(error: io::Error) -> io::Error {
    match tls(&error) {
        Some(Error::AlertReceived(alert)) => {
            // Who verifies last under TLS 1.3 is the gateway: its refusal comes when the service's handshake is over.
            io::Error::new(io::ErrorKind::PermissionDenied, refused(Speaker::Service, *alert))
        }
        _ => error,
    }
}

/// Whether the peer ended the connection with an alert.
pub(crate) fn is_alert(error: &io::Error) -> bool {
    matches!(tls(error), Some(Error::AlertReceived(_)))
}

/// A time as HTTP writes it.
pub(crate) fn date(time: UnixTime) -> String {
    httpdate::fmt_http_date(system_time(time))
}

pub(crate) fn system_time(time: UnixTime) -> SystemTime {
    // Later than any date that can be written is as good as never.
    const LAST: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(time.as_secs().min(LAST))
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The peer said no.
fn refused(speaker: Speaker, alert: AlertDescription) -> String {
    let (peer, own) = match speaker {
        Speaker::Gateway => ("the service", "the gateway's certificate"),
        Speaker::Service => ("the gateway", "the service's certificate"),
    };
    match alert {
        AlertDescription::CertificateRequired => format!("{peer} wants a certificate, and none was shown"),
        AlertDescription::AccessDenied => format!("{own} is valid, but {peer} does not list its names as allowed"),
        AlertDescription::UnknownCA => format!("{peer} does not trust the CA that signed {own}"),
        AlertDescription::DecryptError => format!("{peer} refuses {own}: a signature does not fit"),
        AlertDescription::CertificateExpired => format!("{peer} refuses {own}: it has expired, or is not valid yet"),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked => format!("{peer} refuses {own} (TLS alert {alert:?})"),
        AlertDescription::ProtocolVersion => format!("{peer} speaks no TLS version that is allowed here"),
        alert => format!("{peer} ended the connection with the TLS alert {alert:?}"),
    }
}

fn certificate(speaker: Speaker, why: &CertificateError) -> String {
    match why {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            match presented.as_slice() {
                [] => format!("it is for no name at all, and not for `{expected}`"),
                names => format!(
                    "it is not for `{expected}` but for {}; dial such a name, or set `server_name`",
                    names.join(", ")
                ),
            }
        }
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired on {}", date(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", date(*not_before))
        }
        CertificateError::BadSignature => {
            "its signature does not fit: another CA of the same name has signed it, perhaps".to_owned()
        }
        CertificateError::UnknownIssuer => match speaker {
            Speaker::Gateway => "no CA of `client_ca` has signed it".to_owned(),
            Speaker::Service => "no CA of `ca` has signed it".to_owned(),
        },
        CertificateError::ApplicationVerificationFailure => "none of its names is among `identities`".to_owned(),
        CertificateError::InvalidPurposeContext { .. } => match speaker {
            Speaker::Gateway => "it is not made for clients (extended key usage)".to_owned(),
            Speaker::Service => "it is not made for servers (extended key usage)".to_owned(),
        },
        other => other.to_string(),
    }
}
