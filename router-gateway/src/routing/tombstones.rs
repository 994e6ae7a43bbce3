//! What is remembered of lost endpoints, so that an outage is not taken for "does not exist" (SPEC 5).
//!
//! A tombstone owns nothing and decides only which error is given: 503 for five minutes, then 404.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use router_common::endpoint::PathTemplate;
use router_common::identity::{ServiceName, Version};
use router_common::path::RequestPath;
use rustc_hash::FxHashMap;

use super::key::EndpointKey;
use super::trie::Trie;

/// How long an outage is remembered.
pub const TOMBSTONE_LIFE: Duration = Duration::from_secs(5 * 60);
/// Most tombstones of a node; past it the oldest goes.
pub const TOMBSTONES: usize = 10_000;

/// One (endpoint, version) whose last instance was lost.
#[derive(Debug, Clone)]
pub struct Tombstone {
    pub service: ServiceName,
    pub version: Version,
    pub until: Instant,
}

/// The tombstones as a snapshot holds them.
#[derive(Debug, Default)]
pub struct Tombstones {
    methods: FxHashMap<Method, Trie<Vec<Tombstone>>>,
}

impl Tombstones {
    /// Whether an outage explains that this version of a path cannot be served; `None`: any version.
    #[must_use]
    pub fn explains(&self, method: &Method, path: &RequestPath<'_>, version: Option<&Version>, now: Instant) -> bool {
        let applies = |stone: &Tombstone| stone.until > now && version.is_none_or(|wanted| *wanted == stone.version);
        let find = |method: &Method| {
            self.methods.get(method).and_then(|trie| trie.find(path, |stones| stones.iter().any(applies)))
        };
        find(method).is_some() || (*method == Method::HEAD && find(&Method::GET).is_some())
    }
}

/// The tombstones as the registry keeps them: bounded, the oldest leaving first.
#[derive(Debug, Default)]
pub struct Graveyard {
    /// In the order of loss.
    stones: BTreeMap<u64, (EndpointKey, PathTemplate, Tombstone)>,
    places: FxHashMap<EndpointKey, Vec<u64>>,
    next: u64,
}

impl Graveyard {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stones.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.stones.len()
    }

    /// Remembers a loss; an earlier one of the same version is replaced.
    pub fn lost(&mut self, key: &EndpointKey, template: &PathTemplate, stone: Tombstone) {
        self.remove(key, |old| old.version == stone.version && old.service == stone.service);
        let place = self.next;
        self.next += 1;
        self.stones.insert(place, (key.clone(), template.clone(), stone));
        self.places.entry(key.clone()).or_default().push(place);
        if self.stones.len() > TOMBSTONES
            && let Some((oldest, (key, ..))) = self.stones.pop_first()
        {
            self.unlink(&key, |place| place != oldest);
        }
    }

    /// Forgets what a registration has made untrue: the same version lives again, or somebody else owns the path now.
    /// Says whether there was any.
    pub fn revived(&mut self, key: &EndpointKey, service: &ServiceName, version: &Version) -> bool {
        self.remove(key, |stone| stone.service != *service || stone.version == *version)
    }

    /// Forgets what is over. Says whether there was any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        // All live equally long, so the oldest end first.
        while let Some(entry) = self.stones.first_entry() {
            if entry.get().2.until > now {
                break;
            }
            let (place, (key, ..)) = entry.remove_entry();
            self.unlink(&key, |other| other != place);
            any = true;
        }
        any
    }

    /// As it is now, for a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Tombstones> {
        let mut methods: FxHashMap<Method, Trie<Vec<Tombstone>>> = FxHashMap::default();
        for (key, template, stone) in self.stones.values() {
            let trie = methods.entry(key.method().clone()).or_default();
            trie.place(template).get_or_insert_default().push(stone.clone());
        }
        Arc::new(Tombstones { methods })
    }

    fn remove(&mut self, key: &EndpointKey, which: impl Fn(&Tombstone) -> bool) -> bool {
        let before = self.stones.len();
        let Self { stones, places, .. } = self;
        if let Some(of_key) = places.get_mut(key) {
            of_key.retain(|place| {
                let gone = stones.get(place).is_none_or(|(.., stone)| which(stone));
                if gone {
                    stones.remove(place);
                }
                !gone
            });
            if of_key.is_empty() {
                places.remove(key);
            }
        }
        stones.len() != before
    }

    fn unlink(&mut self, key: &EndpointKey, keep: impl Fn(u64) -> bool) {
        if let Some(of_key) = self.places.get_mut(key) {
            of_key.retain(|place| keep(*place));
            if of_key.is_empty() {
                self.places.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> (EndpointKey, PathTemplate) {
        let template: PathTemplate = path.parse().unwrap();
        (EndpointKey::new(Method::GET, &template), template)
    }

    fn stone(version: &str, until: Instant) -> Tombstone {
        Tombstone { service: "orders".parse().unwrap(), version: version.parse().unwrap(), until }
    }

    #[test]
    fn an_outage_explains_its_version_until_it_is_over() {
        let now = Instant::now();
        let mut graveyard = Graveyard::default();
        let (orders, template) = key("/orders/{id}");
        graveyard.lost(&orders, &template, stone("1.0.0", now + TOMBSTONE_LIFE));
        let stones = graveyard.snapshot();
        let path = RequestPath::parse("/orders/7").unwrap();
        let (one, two) = ("1.0.0".parse().unwrap(), "2.0.0".parse().unwrap());
        assert!(stones.explains(&Method::GET, &path, None, now));
        assert!(stones.explains(&Method::HEAD, &path, Some(&one), now));
        assert!(!stones.explains(&Method::GET, &path, Some(&two), now));
        assert!(!stones.explains(&Method::POST, &path, None, now));
        assert!(!stones.explains(&Method::GET, &path, None, now + TOMBSTONE_LIFE));
        assert!(!graveyard.expire(now) && graveyard.expire(now + TOMBSTONE_LIFE));
        assert!(graveyard.is_empty() && graveyard.places.is_empty());
    }

    #[test]
    fn a_registration_makes_them_untrue() {
        let until = Instant::now() + TOMBSTONE_LIFE;
        let mut graveyard = Graveyard::default();
        let (orders, template) = key("/orders");
        graveyard.lost(&orders, &template, stone("1.0.0", until));
        graveyard.lost(&orders, &template, stone("2.0.0", until));
        assert!(graveyard.revived(&orders, &"orders".parse().unwrap(), &"2.0.0".parse().unwrap()));
        assert_eq!(graveyard.len(), 1);
        assert!(graveyard.revived(&orders, &"others".parse().unwrap(), &"3.0.0".parse().unwrap()));
        assert!(graveyard.is_empty() && graveyard.places.is_empty());
    }

    #[test]
    fn they_are_bounded_and_the_oldest_goes_first() {
        let until = Instant::now() + TOMBSTONE_LIFE;
        let mut graveyard = Graveyard::default();
        let (first, template) = key("/first");
        graveyard.lost(&first, &template, stone("1.0.0", until));
        for number in 0..TOMBSTONES {
            let (key, template) = key(&format!("/e/{number}"));
            graveyard.lost(&key, &template, stone("1.0.0", until));
        }
        assert_eq!((graveyard.len(), graveyard.places.len()), (TOMBSTONES, TOMBSTONES));
        assert!(!graveyard.places.contains_key(&first));
    }
}
