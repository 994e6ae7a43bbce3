//! The rule that keeps strangers from registering: a listener that others can reach wants authentication (SPEC 8).
//!
//! What authentication is, each transport knows for itself.

use crate::scalar::ListenAddr;
use crate::validate::Refusal;

/// What the rule asks about one listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenerSafety {
    /// Where it listens.
    pub listen: ListenAddr,
    /// Whether whoever connects must prove who they are.
    pub authenticated: bool,
    /// Whether the configuration says `insecure: true`.
    pub insecure: bool,
}

impl ListenerSafety {
    /// "A listener bound beyond loopback without authentication refuses to start unless `insecure: true`" (SPEC 8).
    ///
    /// `key` is the key of the address, as seen from the section that is checked: give the result to
    /// [`Checks::take`](crate::validate::Checks::take).
    ///
    /// # Errors
    /// The listener is none of: on loopback, authenticated, insecure on purpose.
    pub fn check(self, key: &str) -> Result<(), Refusal> {
        if self.authenticated || self.insecure || self.listen.is_loopback() {
            return Ok(());
        }
        let mut refusal = Refusal::new(
            key,
            format!(
                "`{}` can be reached from other machines, and whoever connects could register any service",
                self.listen
            ),
        );
        refusal
            .help("add `shared_secret: env:NAME`, or listen on 127.0.0.1")
            .help("if the network itself keeps strangers out, say so with `insecure: true`");
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, authenticated: bool, insecure: bool) -> Result<(), String> {
        let listen = listen.parse().unwrap();
        ListenerSafety { listen, authenticated, insecure }.check("tcp.listen").map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn only_an_open_listener_without_authentication_is_refused() {
        assert_eq!(check("127.0.0.1:5100", false, false), Ok(()));
        assert_eq!(check("[::1]:5100", false, false), Ok(()));
        assert_eq!(check("0.0.0.0:5100", true, false), Ok(()));
        assert_eq!(check("0.0.0.0:5100", false, true), Ok(()));
        for open in ["0.0.0.0:5100", "[::]:5100", "10.0.0.1:5100", "[::ffff:0.0.0.0]:5100"] {
            let error = check(open, false, false).unwrap_err();
            assert!(error.starts_with("`tcp.listen`: ") && error.contains("insecure: true"), "{error}");
        }
    }
}
