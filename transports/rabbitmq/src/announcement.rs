//! How gateways and services hear of one another: MessagePack maps, published to the announcement exchange (SPEC 7).
//!
//! They are hints, and not believed: whoever answers at the queue they name has to prove itself.

use router_common::identity::Incarnation;
use serde::{Deserialize, Serialize};

/// Routing key of what gateways say to services.
pub(crate) const SOLICIT: &str = "solicit";
/// Routing key of what services say to gateways.
pub(crate) const WHO: &str = "who";
/// The protocol version that is meant.
pub(crate) const VERSION: u16 = 1;
/// Longest announcement, in bytes.
const BYTES: usize = 1024;
/// Longest name of a queue that is believed, in bytes.
const QUEUE_BYTES: usize = 128;
/// Longest name of a node, in bytes: a DNS label.
const NODE_BYTES: usize = router_common::limits::NAME_BYTES;

/// A gateway is there, or leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Solicit {
    pub(crate) version: u16,
    /// The gateway's name, as in WELCOME.
    pub(crate) node: String,
    /// Which process of that name it is: gateways that nobody has named are all called the same. Drawn for this alone; one
    /// that does not say it is the only one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<Incarnation>,
    /// Its queue: links are opened there.
    pub(crate) queue: String,
    /// No links are to be opened there any more.
    #[serde(default)]
    pub(crate) leaving: bool,
}

impl Solicit {
    /// What tells this gateway from all others here: its name, and behind it, where it is known, which process that is.
    pub(crate) fn gateway(&self) -> String {
        match &self.process {
            Some(Incarnation(bytes)) => format!("{}#{:016x}", self.node, u128::from_be_bytes(*bytes) >> 64),
            None => self.node.clone(),
        }
    }
}

/// A service asks all gateways to solicit; they answer to its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    pub(crate) version: u16,
    pub(crate) queue: String,
}

/// What an announcement says, if it is one, of a version that is spoken here.
pub(crate) fn read_solicit(payload: &[u8]) -> Option<Solicit> {
    let solicit: Solicit = read(payload)?;
    let is_sound = is_queue(&solicit.queue) && is_name(&solicit.node, NODE_BYTES);
    (solicit.version == VERSION && is_sound).then_some(solicit)
}

/// Likewise.
pub(crate) fn read_who(payload: &[u8]) -> Option<Who> {
    let who: Who = read(payload)?;
    (who.version == VERSION && is_queue(&who.queue)).then_some(who)
}

pub(crate) fn write(announcement: &impl Serialize) -> Vec<u8> {
    // Plain maps of numbers and short texts can always be written.
    rmp_serde::to_vec_named(announcement).unwrap_or_default()
}

/// Whether a queue's name is one that this transport makes, or could have: nothing else is published to, or logged.
pub(crate) fn is_queue(name: &str) -> bool {
    is_name(name, QUEUE_BYTES)
}

fn is_name(name: &str, most: usize) -> bool {
    (1..=most).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    if payload.len() > BYTES {
        return None;
    }
    rmp_serde::from_slice(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_read_as_they_were_written_and_may_grow() {
        let queue = "stella.gateway.1";
        for process in [None, Some(Incarnation([7; 16]))] {
            let solicit = Solicit { version: 1, node: "gw-1".into(), process, queue: queue.into(), leaving: false };
            assert_eq!(read_solicit(&write(&solicit)), Some(solicit));
        }
        #[derive(Serialize)]
        struct Later {
            version: u16,
            queue: &'static str,
            more: u8,
        }
        let later = write(&Later { version: 1, queue: "q", more: 1 });
        assert_eq!(read_who(&later), Some(Who { version: 1, queue: "q".into() }));
    }

    #[test]
    fn gateways_of_one_name_are_told_apart_by_their_processes() {
        let of = |process| {
            let (node, queue) = ("gateway".into(), "q".into());
            Solicit { version: 1, node, process, queue, leaving: false }.gateway()
        };
        let process = |byte| Some(Incarnation([byte; 16]));
        assert_eq!(of(None), "gateway");
        assert_eq!(of(process(10)), "gateway#0a0a0a0a0a0a0a0a");
        assert_ne!(of(process(1)), of(process(2)));
    }

    #[test]
    fn whatever_else_comes_is_passed_over() {
        let odd = |node: &str, queue: &str, version| {
            let (node, queue) = (node.into(), queue.into());
            read_solicit(&write(&Solicit { version, node, process: None, queue, leaving: false }))
        };
        assert_eq!(odd("gw", "a queue", 1), None);
        assert_eq!(odd("gw\n", "q", 1), None);
        assert_eq!(odd("gw", "", 1), None);
        assert_eq!(odd("gw", "q", 2), None);
        assert_eq!(odd("gw", &"q".repeat(200), 1), None);
        assert_eq!(read_who(b"who is there"), None);
        assert_eq!(read_who(&[0x90; 4096]), None);
    }
}
