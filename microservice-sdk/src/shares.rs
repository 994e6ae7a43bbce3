//! Shares: how the bound of an instance is divided over its gateways, whatever leads to each (SPEC 4, lease).
//!
//! Each entry of the configuration that leads anywhere now has an equal share of the bound; where it leads to several
//! gateways, they divide it. Two entries that turn out to lead to one gateway put their shares together, because an instance
//! has one lease there. An entry whose gateways cannot be reached lends its share to the others, and gets it back when
//! one can: at once what lies idle of it, the rest as what is in flight elsewhere ends. So what is in flight never exceeds
//! the bound, but that each gateway has one slot at least. While nobody can be reached, all count as if they could.
//!
//! Nothing here is said to anybody: whoever changes something is told whose lease is another one now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use router_common::session::lease::Lease;
use tokio::sync::Notify;

use crate::board::{GatewayId, Place};

/// The leases of a service's gateways.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Requests that may be in flight on the instance, over all gateways.
    whole: u32,
    /// There may be more than one gateway. Where there is only one, nothing is ever divided.
    divides: bool,
    excess: Arc<Excess>,
    /// A lock and no channel: taken when a gateway is found, says who it is, or is gone, and for an instant.
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Of the last division: one for all leases, so that none ever goes back, whichever link and lease it is told by.
    generation: u64,
    ways: BTreeMap<Place, Way>,
    /// Leases of gateways that are gone, as long as something of theirs is in flight: so no more of them than the bound.
    past: Vec<Arc<Lease>>,
}

/// One way to a gateway.
#[derive(Debug)]
struct Way {
    /// Who has answered there last. Kept while nobody does: a lost way's share still is its gateway's, as long as another
    /// one leads there.
    gateway: Option<GatewayId>,
    /// That of the gateway: the same for all ways there.
    lease: Arc<Lease>,
    /// Links that were welcomed and have not ended.
    links: usize,
    /// It was dialled in vain since somebody has answered last.
    in_vain: bool,
}

/// A gateway's lease, and what it is to be.
struct Due<'b> {
    lease: &'b Arc<Lease>,
    share: u32,
}

/// Whether somebody has more in flight than its share, so that another one has less than it is due.
#[derive(Debug, Default)]
struct Excess {
    is_any: AtomicBool,
    /// Less of it.
    freed: Notify,
}

/// Those whose gateways are to be told of their leases.
pub(crate) type Changed = Vec<Place>;

impl Shares {
    /// Of a bound over so many entries, of which these lead to one gateway each, and the others to what is found there.
    pub(crate) fn new(whole: u32, entries: usize, dialled: impl IntoIterator<Item = u8>) -> Arc<Self> {
        let mut ways: BTreeMap<_, _> = dialled.into_iter().map(|entry| (Place::dialled(entry), Way::new())).collect();
        let divides = (entries, ways.len()) != (1, 1);
        let excess = Arc::default();
        // What they begin with is said in HELLO.
        let shares = divided(whole, &ways.keys().copied().collect::<Vec<_>>());
        for (place, way) in &mut ways {
            way.lease = Lease::new(shares.get(place).map_or(0, |share| (*share).max(1)));
        }
        let book = Mutex::new(Book { ways, ..Book::default() });
        let shares = Self { whole, divides, excess, book };
        shares.book().ways.values().for_each(|way| shares.listen(&way.lease));
        Arc::new(shares)
    }

    /// There is one more way to a gateway, which nobody has answered on.
    pub(crate) fn add(&self, place: Place) -> Changed {
        let mut book = self.book();
        // Its gateway may be one that was there before, and remembers: so its lease comes by a new generation.
        book.ways.entry(place).or_insert_with(|| {
            let way = Way::new();
            self.listen(&way.lease);
            way
        });
        self.divide(&mut book)
    }

    /// A way is gone for good.
    pub(crate) fn remove(&self, place: Place) -> Changed {
        let mut book = self.book();
        let removed = book.ways.remove(&place);
        book.past.extend(removed.map(|way| way.lease));
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
        let mut lease = Arc::clone(&own);
        if gateway.is_none() || way.gateway.as_ref() != gateway {
            let mut others = book.ways.iter().filter(|(other, _)| **other != place).map(|(_, way)| way);
            if let Some(other) = others.clone().find(|other| gateway.is_some() && other.gateway.as_ref() == gateway) {
                lease = Arc::clone(&other.lease);
                book.past.push(own);
            } else if others.any(|other| Arc::ptr_eq(&other.lease, &own)) {
                // The gateway that answered here before still has its lease by another way.
                lease = Lease::new(0);
                self.listen(&lease);
            }
        }
        if let Some(way) = book.ways.get_mut(&place) {
            way.gateway = gateway.cloned();
            way.lease = Arc::clone(&lease);
            way.links += 1;
            way.in_vain = false;
        }
        (lease, self.divide(&mut book))
    }

    /// A link that was welcomed has ended.
    pub(crate) fn lost(&self, place: Place) -> Changed {
        let mut book = self.book();
        if let Some(way) = book.ways.get_mut(&place) {
            way.links = way.links.saturating_sub(1);
        }
        self.divide(&mut book)
    }

    /// A way was dialled, and nobody has answered.
    pub(crate) fn dialled_in_vain(&self, place: Place) -> Changed {
        let mut book = self.book();
        if let Some(way) = book.ways.get_mut(&place) {
            way.in_vain = true;
        }
        self.divide(&mut book)
    }

    /// Waits until less is in flight at somebody who has more than its share. Then there is something to [settle](Self::settle).
    pub(crate) async fn freed(&self) {
        self.excess.freed.notified().await;
    }

    /// Gives those who are due more what has been freed.
    pub(crate) fn settle(&self) -> Changed {
        self.divide(&mut self.book())
    }

    /// Gives each gateway the shares of all ways that lead to it.
    fn divide(&self, book: &mut Book) -> Changed {
        if !self.divides {
            return Changed::new();
        }
        let next = book.generation + 1;
        book.leave_past();
        let all = book.due(self.whole);
        for Due { lease, share } in &all {
            if *share < lease.limit() {
                lease.update(next, *share);
            }
        }
        // Before it is counted, so that whoever frees a slot either is seen here or sees that it matters.
        self.excess.is_any.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let over = all.iter().map(|due| due.lease.in_flight().saturating_sub(due.share));
        let mut excess: u32 = over.chain(book.past.iter().map(|lease| lease.in_flight())).sum();
        self.excess.is_any.store(excess > 0, Ordering::SeqCst);
        for Due { lease, share } in &all {
            // Nothing, for those whose limit was reduced.
            let lent = excess.min(share.saturating_sub(lease.limit()));
            excess -= lent;
            let limit = (share - lent).max(1);
            if lease.limit() < limit && *share > 0 {
                lease.update(next, limit);
            }
        }
        let is_new = |(_, way): &(&Place, &Way)| way.lease.generation() == next;
        let changed: Changed = book.ways.iter().filter(is_new).map(|(place, _)| *place).collect();
        if !changed.is_empty() {
            book.generation = next;
        }
        changed
    }

    /// Wants to know of the slots of a lease that are freed.
    fn listen(&self, lease: &Lease) {
        if self.divides {
            let excess = Arc::clone(&self.excess);
            // With each request that ends: a look at a flag, but for the time in which something is owed.
            lease.on_freed(move || {
                if excess.is_any.load(Ordering::SeqCst) {
                    excess.freed.notify_one();
                }
            });
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// What each lease is to be.
    fn due(&self, whole: u32) -> Vec<Due<'_>> {
        let away = |way: &Way| self.ways.values().filter(|other| other.has(&way.lease)).all(Way::is_away);
        let reached = self.ways.iter().filter(|(_, way)| !away(way)).map(|(place, _)| *place);
        let mut counted: Vec<Place> = reached.collect();
        if counted.is_empty() {
            counted = self.ways.keys().copied().collect();
        }
        let shares = divided(whole, &counted);
        let mut all: Vec<Due<'_>> = Vec::new();
        for (place, way) in &self.ways {
            let share = shares.get(place).copied().unwrap_or_default();
            match all.iter_mut().find(|due| way.has(due.lease)) {
                Some(due) => due.share += share,
                None => all.push(Due { lease: &way.lease, share }),
            }
        }
        for (place, way) in &self.ways {
            let is_counted = shares.contains_key(place);
            if let Some(due) = all.iter_mut().find(|due| is_counted && due.share == 0 && way.has(due.lease)) {
                due.share = 1;
            }
        }
        all
    }

    /// Forgets leases by which nothing is in flight, and those that somebody has again.
    fn leave_past(&mut self) {
        let Self { ways, past, .. } = self;
        past.retain(|lease| lease.in_flight() > 0 && !ways.values().any(|way| way.has(lease)));
    }
}

impl Way {
    fn new() -> Self {
        Self { gateway: None, lease: Lease::new(0), links: 0, in_vain: false }
    }

    fn has(&self, lease: &Arc<Lease>) -> bool {
        Arc::ptr_eq(&self.lease, lease)
    }

    /// Nobody can be reached by it, as far as is known.
    const fn is_away(&self) -> bool {
        self.links == 0 && self.in_vain
    }
}

/// A bound over places, which are in order: evenly over their entries, and then over those of each.
fn divided(whole: u32, places: &[Place]) -> BTreeMap<Place, u32> {
    let entries: Vec<&[Place]> = places.chunk_by(|one, other| one.entry == other.entry).collect();
    let mut shares = BTreeMap::new();
    for (index, places) in entries.iter().enumerate() {
        let of_entry = part(whole, index, entries.len());
        shares.extend(places.iter().enumerate().map(|(index, place)| (*place, part(of_entry, index, places.len()))));
    }
    shares
}

/// One of `count` equal parts: the first ones have what is left over.
fn part(whole: u32, index: usize, count: usize) -> u32 {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let is_first = u32::try_from(index).is_ok_and(|index| index < whole % count);
    whole / count + u32::from(is_first)
}

#[cfg(test)]
mod tests;
