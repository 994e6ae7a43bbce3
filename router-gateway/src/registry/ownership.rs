//! Which service owns which endpoint: the first one that lives keeps it, the others wait in line (SPEC 2).
//!
//! A service claims an endpoint once for each of its endpoint sets that has it. Nothing here knows instances, versions
//! or links.

use router_common::identity::ServiceName;
use rustc_hash::FxHashMap;

use crate::routing::key::EndpointKey;

/// Who claims what; the first claimant of each endpoint owns it.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    claims: FxHashMap<EndpointKey, Vec<Claimant>>,
    /// How many of them have more than one claimant.
    contested: usize,
}

#[derive(Debug)]
struct Claimant {
    service: ServiceName,
    sets: usize,
}

impl Ownership {
    /// Distinct endpoints that somebody claims.
    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn owner(&self, key: &EndpointKey) -> Option<&ServiceName> {
        self.claims.get(key)?.first().map(|claimant| &claimant.service)
    }

    pub(super) fn owns(&self, service: &ServiceName, key: &EndpointKey) -> bool {
        self.owner(key) == Some(service)
    }

    /// The endpoints that more than one service claims, with their owners: usually none.
    pub(super) fn contested(&self) -> FxHashMap<EndpointKey, ServiceName> {
        if self.contested == 0 {
            return FxHashMap::default();
        }
        let contested = self.claims.iter().filter(|(_, claimants)| claimants.len() > 1);
        contested.filter_map(|(key, claimants)| Some((key.clone(), claimants.first()?.service.clone()))).collect()
    }

    pub(super) fn is_claimed(&self, key: &EndpointKey) -> bool {
        self.claims.contains_key(key)
    }

    /// One more set of the service has the endpoint.
    pub(super) fn claim(&mut self, key: &EndpointKey, service: &ServiceName) {
        let claimants = self.claims.entry(key.clone()).or_default();
        match claimants.iter_mut().find(|claimant| claimant.service == *service) {
            Some(claimant) => claimant.sets += 1,
            None => {
                claimants.push(Claimant { service: service.clone(), sets: 1 });
                self.contested += usize::from(claimants.len() == 2);
            }
        }
    }

    /// One set less. Names the new owner if the endpoint changed hands.
    pub(super) fn release(&mut self, key: &EndpointKey, service: &ServiceName) -> Option<ServiceName> {
        let claimants = self.claims.get_mut(key)?;
        let place = claimants.iter().position(|claimant| claimant.service == *service)?;
        let claimant = claimants.get_mut(place)?;
        claimant.sets = claimant.sets.saturating_sub(1);
        if claimant.sets > 0 {
            return None;
        }
        claimants.remove(place);
        self.contested -= usize::from(claimants.len() == 1);
        let Some(next) = claimants.first() else {
            self.claims.remove(key);
            return None;
        };
        (place == 0).then(|| next.service.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keeps_what_it_has_until_its_last_set_goes() {
        let mut ownership = Ownership::default();
        let key = EndpointKey::new(http::Method::GET, &"/x".parse().unwrap());
        let [a, b, c]: [ServiceName; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
        for service in [&a, &b, &a, &c] {
            ownership.claim(&key, service);
        }
        assert!(ownership.owns(&a, &key) && !ownership.owns(&b, &key));
        assert_eq!(ownership.contested(), FxHashMap::from_iter([(key.clone(), a.clone())]));
        assert_eq!(ownership.release(&key, &a), None);
        assert_eq!(ownership.release(&key, &b), None, "it did not own it");
        assert_eq!(ownership.release(&key, &a), Some(c.clone()));
        assert_eq!(ownership.contested(), FxHashMap::default());
        assert_eq!(ownership.release(&key, &c), None);
        assert!(ownership.len() == 0 && !ownership.is_claimed(&key));
    }
}
