//! Cookies: an address is proved by sending one back, and until then nothing is kept of it (SPEC 7).
//!
//! The cookie is the gateway's nonce of the handshake. It is a MAC over the address, the time slot and the HELLO that it
//! answers, under a key that lives as long as the listener.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A cookie is good in the slot in which it was made, and in the next one.
const SLOT: Duration = Duration::from_secs(10);
/// Longest life of a cookie.
pub const COOKIE_LIFE: Duration = Duration::from_secs(20);

const LABEL: &[u8] = b"stella/1 udp cookie";

/// A cookie, and the nonce of the CHALLENGE that brings it.
pub type Cookie = [u8; 32];

/// Makes and checks a listener's cookies.
#[derive(Clone)]
pub struct Cookies {
    key: Hmac<Sha256>,
    start: Instant,
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(..)")
    }
}

impl Cookies {
    /// `key` is random.
    #[must_use]
    pub fn new(key: [u8; 32], start: Instant) -> Self {
        Self { key: Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length"), start }
    }

    /// The cookie of a HELLO, given by the hash of its frame, from this address.
    #[must_use]
    pub fn make(&self, hello: &[u8; 32], from: SocketAddr, now: Instant) -> Cookie {
        self.at(self.slot(now), hello, from)
    }

    /// Whether a cookie was made for this HELLO and this address, not long ago; in constant time.
    #[must_use]
    pub fn check(&self, cookie: &Cookie, hello: &[u8; 32], from: SocketAddr, now: Instant) -> bool {
        let slot = self.slot(now);
        let current = self.at(slot, hello, from).ct_eq(cookie);
        let before = slot.checked_sub(1).map_or(current, |slot| self.at(slot, hello, from).ct_eq(cookie));
        (current | before).into()
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / SLOT.as_secs()
    }

    fn at(&self, slot: u64, hello: &[u8; 32], from: SocketAddr) -> Cookie {
        let mut mac = self.key.clone();
        mac.update(LABEL);
        mac.update(&slot.to_be_bytes());
        let address = match from.ip().to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        mac.update(&address.octets());
        mac.update(&from.port().to_be_bytes());
        mac.update(hello);
        mac.finalize().into_bytes().into()
    }
}

/// The number of the connection that a cookie leads to.
#[must_use]
pub fn connection_of(cookie: &Cookie) -> u64 {
    match cookie.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)) {
        // 0 says that there is no connection yet.
        None | Some(0) => 1,
        Some(connection) => connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_fits_one_address_one_hello_one_listener_and_not_for_long() {
        let start = Instant::now();
        let cookies = Cookies::new([1; 32], start);
        let (here, there) = ("192.0.2.1:5000".parse().unwrap(), "192.0.2.1:5001".parse().unwrap());
        let mapped = "[::ffff:192.0.2.1]:5000".parse().unwrap();
        let (one, other) = ([3; 32], [4; 32]);
        let made_at = start + Duration::from_secs(17);
        let cookie = cookies.make(&one, here, made_at);
        let check = |hello, from, after| cookies.check(&cookie, hello, from, made_at + Duration::from_secs(after));
        assert!(check(&one, here, 0) && check(&one, here, 12) && check(&one, mapped, 0));
        assert!(!check(&one, here, 13), "its slot and the next one are over");
        assert!(!check(&one, there, 0) && !check(&other, here, 0));
        assert!(!Cookies::new([2; 32], start).check(&cookie, &one, here, made_at));
        assert!(!cookies.check(&cookie, &one, here, start), "not before it was made");
    }

    #[test]
    fn no_connection_is_number_0() {
        assert_eq!(connection_of(&[0; 32]), 1);
        assert_eq!(connection_of(&[1; 32]), 0x0101_0101_0101_0101);
    }
}
