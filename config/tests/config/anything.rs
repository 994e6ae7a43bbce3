//! Whatever stands in a file, in a variable or on the command line: an answer, never a panic.

use proptest::prelude::*;
use router_config::{ByteSize, GatewayUrl, HumanDuration, IpRange, ListenAddr};

use crate::settings::{microservice, router, router_with};

const FILE: &str = "\
node: { id: gw-1, region: eu-west, workers: 2 }
transports:
  tcp: { listen: 127.0.0.1:5100, shared_secret: { team-a: [hunter2, env:OLD] } }
health: &h { heartbeat: 10s, degraded_after: 15s }
services:
  orders: { default_version: 1.2.0, endpoints: [{ method: GET, path: '/orders/{id}', timeout: 1s }] }
";

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        let _ = router(&text).map_err(|error| error.to_string());
        let _ = microservice(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn a_file_with_a_mistake_is_answered_and_shows_no_secret(
        at in 0..FILE.len(),
        removed in 0..12usize,
        inserted in "[ -~\n\t{}\\[\\]:,&*é]{0,6}",
    ) {
        let end = (at + removed).min(FILE.len());
        let text = format!("{}{inserted}{}", &FILE[..at], &FILE[end..]);
        if let Err(error) = router(&text) {
            prop_assert!(!error.diagnostics().is_empty());
            let shown = error.to_string();
            // Where the secret, and what says that it is one, stand untouched in text that is YAML.
            let secret = FILE.find("hunter2").unwrap();
            let touched = at < secret + 7 && end + 1 >= FILE.find("shared_secret").unwrap();
            let broken = error.diagnostics().iter().any(|diagnostic| diagnostic.key.is_none());
            prop_assert!(touched || broken || !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn arbitrary_variables_and_overrides_are_answered(name in "[A-Z_]{0,20}", value in any::<String>(), key in any::<String>()) {
        let name = format!("ROUTER__{name}");
        let _ = router_with(FILE, &[(&name, &value)], &[]).map_err(|error| error.to_string());
        let _ = router_with(FILE, &[], &[&format!("{key}={value}")]).map_err(|error| error.to_string());
    }

    #[test]
    fn scalars_that_are_read_print_as_what_reads_the_same(text in "[0-9a-zA-Z:./\\[\\]@%]{0,24}") {
        fn check<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
            if let Ok(value) = text.parse::<T>() {
                assert_eq!(value.to_string().parse::<T>().ok(), Some(value), "{text}");
            }
        }
        check::<HumanDuration>(&text);
        check::<ByteSize>(&text);
        check::<ListenAddr>(&text);
        check::<IpRange>(&text);
        if let Ok(url) = text.parse::<GatewayUrl>() {
            prop_assert_eq!(url.expose().parse::<GatewayUrl>().ok(), Some(url));
        }
    }
}
