//! Shares: how the bound of an instance is divided over its gateways, whatever leads to each (SPEC 4, lease).
//!
//! Each entry of the configuration has an equal share of the bound; where it leads to several gateways, they divide it. Two
//! entries that turn out to lead to one gateway put their shares together, because an instance has one lease there. So the
//! leases add up to the bound at all times, but that each gateway has one slot at least. Nothing here is said to anybody:
//! whoever changes something is told whose lease is another one now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use router_common::session::lease::Lease;

use crate::board::{GatewayId, Place};

/// The leases of a service's gateways.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Requests that may be in flight on the instance, over all gateways.
    whole: u32,
    entries: u32,
    /// A lock and no channel: taken when a gateway is found, says who it is, or is gone, and for an instant.
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Of the last division: one for all leases, so that none ever goes back, whichever link and lease it is told by.
    generation: u64,
    ways: BTreeMap<Place, Way>,
}

/// One way to a gateway.
#[derive(Debug)]
struct Way {
    /// Who has answered there last. Kept while nobody does: a lost way's share still is its gateway's.
    gateway: Option<GatewayId>,
    /// That of the gateway: the same for all ways there.
    lease: Arc<Lease>,
}

/// Those whose gateways are to be told of their leases.
pub(crate) type Changed = Vec<Place>;

impl Shares {
    /// Of a bound over so many entries.
    pub(crate) fn new(whole: u32, entries: usize) -> Arc<Self> {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX).max(1);
        Arc::new(Self { whole, entries, book: Mutex::default() })
    }

    /// There is one more way to a gateway, which nobody has answered on.
    pub(crate) fn add(&self, place: Place) -> Changed {
        let mut book = self.book();
        let is_found = !place.is_dialled();
        book.ways.entry(place).or_insert_with(|| {
            // What it begins with is said in HELLO. One that was found may be one that was there before, and remembers.
            Way { gateway: None, lease: Lease::new(if is_found { 0 } else { self.of_entry(place.entry).max(1) }) }
        });
        self.divide(&mut book)
    }

    /// A way is gone for good.
    pub(crate) fn remove(&self, place: Place) -> Changed {
        let mut book = self.book();
        book.ways.remove(&place);
        self.divide(&mut book)
    }

    /// What the next link on this way is bound by.
    pub(crate) fn lease(&self, place: Place) -> Arc<Lease> {
        let book = self.book();
        // A way that is gone has no next link.
        book.ways.get(&place).map_or_else(|| Lease::new(0), |way| Arc::clone(&way.lease))
    }

    /// Somebody has answered on a way: what all links to that gateway are bound by, and whose leases are other ones now.
    pub(crate) fn welcomed(&self, place: Place, gateway: Option<&GatewayId>) -> (Arc<Lease>, Changed) {
        let mut book = self.book();
        let Some(way) = book.ways.get(&place) else { return (Lease::new(0), Changed::new()) };
        let own = Arc::clone(&way.lease);
        if gateway.is_some() && way.gateway.as_ref() == gateway {
            return (own, Changed::new());
        }
        let mut others = book.ways.iter().filter(|(other, _)| **other != place).map(|(_, way)| way);
        let lease = match others.clone().find(|other| gateway.is_some() && other.gateway.as_ref() == gateway) {
            Some(other) => Arc::clone(&other.lease),
            // The gateway that answered here before still has its lease by another way.
            None if others.any(|other| Arc::ptr_eq(&other.lease, &own)) => Lease::new(0),
            None => own,
        };
        book.ways.insert(place, Way { gateway: gateway.cloned(), lease: Arc::clone(&lease) });
        (lease, self.divide(&mut book))
    }

    /// An entry's share: the first ones have what is left over.
    fn of_entry(&self, entry: u8) -> u32 {
        self.whole / self.entries + u32::from(u32::from(entry) < self.whole % self.entries)
    }

    /// Gives each gateway the shares of all ways that lead to it.
    fn divide(&self, book: &mut Book) -> Changed {
        let mut shares: Vec<(Place, u32)> = Vec::with_capacity(book.ways.len());
        for place in book.ways.keys() {
            let of_entry = || book.ways.keys().filter(|other| other.entry == place.entry);
            let count = u32::try_from(of_entry().count()).unwrap_or(u32::MAX).max(1);
            let before = u32::try_from(of_entry().take_while(|other| *other != place).count()).unwrap_or(u32::MAX);
            let whole = self.of_entry(place.entry);
            shares.push((*place, whole / count + u32::from(before < whole % count)));
        }
        let next = book.generation + 1;
        let mut changed = Changed::new();
        for (place, way) in &book.ways {
            let is_same =
                |other: &Place| book.ways.get(other).is_some_and(|other| Arc::ptr_eq(&other.lease, &way.lease));
            let limit: u32 = shares.iter().filter(|(other, _)| is_same(other)).map(|(_, share)| share).sum();
            let limit = limit.max(1);
            if way.lease.limit() != limit {
                way.lease.update(next, limit);
            }
            if way.lease.generation() == next {
                changed.push(*place);
            }
        }
        if !changed.is_empty() {
            book.generation = next;
        }
        changed
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use router_common::identity::Incarnation;

    use super::*;

    fn dialled(entry: u8) -> Place {
        Place::dialled(entry)
    }

    fn found(entry: u8, number: u64) -> Place {
        Place { entry, number }
    }

    fn gateway(name: &str) -> Option<GatewayId> {
        Some(GatewayId(name.parse().unwrap(), Incarnation([7; 16])))
    }

    fn shares(whole: u32, entries: u8) -> Arc<Shares> {
        let shares = Shares::new(whole, usize::from(entries));
        for entry in 0..entries {
            shares.add(dialled(entry));
        }
        shares
    }

    #[track_caller]
    fn check(shares: &Shares, places: &[Place], limits: &[u32]) {
        let found: Vec<u32> = places.iter().map(|place| shares.lease(*place).limit()).collect();
        assert_eq!(found, limits);
    }

    #[test]
    fn entries_divide_the_bound_and_nobody_is_told_what_hello_says() {
        let shares = Shares::new(11, 2);
        assert_eq!([shares.add(dialled(0)), shares.add(dialled(1))], [[], []]);
        check(&shares, &[dialled(0), dialled(1)], &[6, 5]);
        assert_eq!(shares.welcomed(dialled(0), gateway("a").as_ref()).1, []);
        assert_eq!(shares.welcomed(dialled(1), gateway("b").as_ref()).1, []);
        assert_eq!(shares.lease(dialled(1)).generation(), 0);
    }

    #[test]
    fn two_ways_to_one_gateway_have_one_lease_of_both_shares() {
        let (shares, [tcp, broker]) = (shares(11, 2), [dialled(0), dialled(1)]);
        let (first, _) = shares.welcomed(tcp, gateway("a").as_ref());
        let (second, changed) = shares.welcomed(broker, gateway("a").as_ref());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(changed, [tcp, broker]);
        assert_eq!((first.limit(), first.generation()), (11, 1));
        // A further link, or one that comes again.
        assert_eq!(shares.welcomed(broker, gateway("a").as_ref()).1, []);
        // The second address is given to another gateway.
        let (third, changed) = shares.welcomed(broker, gateway("b").as_ref());
        assert!(!Arc::ptr_eq(&first, &third));
        assert_eq!(changed, [tcp, broker]);
        assert_eq!([first.limit(), third.limit()], [6, 5]);
        assert_eq!(third.generation(), 2);
    }

    #[test]
    fn a_gateway_that_comes_back_by_another_name_keeps_what_its_place_had() {
        let shares = shares(8, 1);
        let (before, _) = shares.welcomed(dialled(0), gateway("a").as_ref());
        let (after, changed) = shares.welcomed(dialled(0), gateway("b").as_ref());
        assert!(Arc::ptr_eq(&before, &after) && changed.is_empty());
    }

    #[test]
    fn gateways_that_are_found_divide_their_entrys_share_and_add_up_to_it() {
        let shares = Shares::new(1000, 2);
        shares.add(dialled(0));
        let [a, b, c] = [found(1, 1), found(1, 2), found(1, 3)];
        assert_eq!(shares.add(a), [a]);
        check(&shares, &[dialled(0), a], &[500, 500]);
        assert_eq!(shares.add(b), [a, b]);
        assert_eq!(shares.add(c), [a, b, c]);
        check(&shares, &[dialled(0), a, b, c], &[500, 167, 167, 166]);
        // One of them is also dialled.
        shares.welcomed(dialled(0), gateway("x").as_ref());
        let (lease, changed) = shares.welcomed(b, gateway("x").as_ref());
        assert_eq!((lease.limit(), changed), (667, vec![dialled(0), b]));
        assert_eq!(shares.remove(a), [dialled(0), b, c]);
        check(&shares, &[dialled(0), b, c], &[750, 750, 250]);
        // Found again, it is told by a higher generation than it may remember.
        let again = found(1, 4);
        shares.add(again);
        assert!(shares.lease(again).generation() > 3);
        check(&shares, &[dialled(0), b, c, again], &[667, 667, 167, 166]);
    }

    #[test]
    fn gateways_that_do_not_say_which_they_are_share_nothing() {
        let shares = shares(8, 2);
        let [(one, _), (two, changed)] = [0, 1].map(|entry| shares.welcomed(dialled(entry), None));
        assert!(!Arc::ptr_eq(&one, &two) && changed.is_empty());
    }

    #[test]
    fn a_bound_that_is_too_small_to_be_divided_is_one_slot_for_each_gateway() {
        let shares = shares(1, 3);
        check(&shares, &[dialled(0), dialled(1), dialled(2)], &[1, 1, 1]);
        for entry in 0..3 {
            shares.welcomed(dialled(entry), gateway("a").as_ref());
        }
        assert_eq!(shares.lease(dialled(0)).limit(), 1, "and no more for a gateway with several ways");
    }
}
