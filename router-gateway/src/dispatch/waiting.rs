//! The waiting line: requests for which every instance is leased out (SPEC 5).
//!
//! It has a lane for each capacity that is waited for, so that nobody stands behind somebody who waits for another
//! service. Within a lane the tenants take turns, and each tenant's requests go first come, first served. Who is first
//! is told when something comes free, looks, and leaves with a slot or stays; whoever leaves from the front tells the
//! next. The line knows neither requests nor leases: only who came first for what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use router_common::identity::{ServiceName, Version};
use tokio::sync::Notify;

use crate::routing::key::EndpointKey;
use crate::routing::{RouteEndpoint, Servers};

/// How many full lanes the node has room for: one busy service does not take the places of all others.
const FULL_LANES: usize = 16;

/// What is waited for. Whoever waits for the same can use the same slots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    service: ServiceName,
    version: Version,
    /// Where not all instances of the version have the endpoint.
    endpoint: Option<EndpointKey>,
}

impl Wanted {
    pub(super) fn new(endpoint: &RouteEndpoint, servers: Servers) -> Self {
        let descriptor = &endpoint.descriptor;
        let key = || EndpointKey::new(descriptor.method.clone(), &descriptor.path);
        Self {
            service: endpoint.service.clone(),
            version: endpoint.version.clone(),
            endpoint: (servers == Servers::Some).then(key),
        }
    }

    fn is_of(&self, service: &ServiceName, version: &Version) -> bool {
        self.service == *service && self.version == *version
    }
}

/// The line of a node.
#[derive(Debug)]
pub(crate) struct WaitingLine {
    lane_limit: usize,
    node_limit: usize,
    /// How many wait in all lanes; read without the lock by every request, and by everybody who gives a slot back.
    waiting: AtomicUsize,
    lanes: Mutex<Lanes>,
}

#[derive(Debug, Default)]
struct Lanes {
    next: u64,
    waiting: usize,
    /// Those where somebody waits.
    lanes: BTreeMap<Wanted, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    places: BTreeMap<Order, Arc<Notify>>,
    /// Those who wait here: how many requests they have in line, and the round of the last one.
    tenants: BTreeMap<Tenant, (usize, u64)>,
}

/// Who is before whom: each tenant has one place in a round; in a round, first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    round: u64,
    number: u64,
}

/// For whom a request is made; `None` where nothing says so.
type Tenant = Option<HeaderValue>;

impl Lane {
    fn first(&self) -> Option<(Order, &Arc<Notify>)> {
        self.places.first_key_value().map(|(order, woken)| (*order, woken))
    }

    fn wake_first(&self) {
        if let Some((_, woken)) = self.first() {
            woken.notify_one();
        }
    }
}

impl WaitingLine {
    /// At most `lane_limit` wait in one lane, and 16 times as many in the node.
    #[must_use]
    pub(crate) fn new(lane_limit: usize) -> Self {
        let node_limit = lane_limit.saturating_mul(FULL_LANES);
        Self { lane_limit, node_limit, waiting: AtomicUsize::new(0), lanes: Mutex::default() }
    }

    /// How many wait now, in all lanes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A slot of an instance has come free: the first who waits for such a one may look. Cheap where nobody waits.
    pub(crate) fn freed(&self, service: &ServiceName, version: &Version) {
        // Sequentially consistent, as are the giving back of a slot before it and the joining: either this sees who
        // has joined, or that one, who looks once more after joining, sees the slot.
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let lanes = self.lanes();
        let from = Wanted { service: service.clone(), version: version.clone(), endpoint: None };
        let of_version = lanes.lanes.range(from..).take_while(|(wanted, _)| wanted.is_of(service, version));
        of_version.for_each(|(_, lane)| lane.wake_first());
    }

    /// Nobody knows what has changed: the first of every lane may look. Cheap where nobody waits.
    pub(crate) fn changed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.lanes().lanes.values().for_each(Lane::wake_first);
        }
    }

    /// Whether somebody waits for this; then whoever comes now joins the lane, even if there is a slot: it is another's.
    pub(super) fn is_awaited(&self, wanted: &Wanted) -> bool {
        self.lanes().lanes.contains_key(wanted)
    }

    /// A place in the lane.
    ///
    /// # Errors
    /// What is full.
    pub(super) fn join(self: &Arc<Self>, wanted: Wanted, tenant: Tenant) -> Result<Place, Full> {
        let mut guard = self.lanes();
        let lanes = &mut *guard;
        let in_lane = lanes.lanes.get(&wanted).map_or(0, |lane| lane.places.len());
        if in_lane >= self.lane_limit {
            return Err(Full::Lane);
        }
        if lanes.waiting >= self.node_limit {
            return Err(Full::Line);
        }
        let number = lanes.next;
        lanes.next += 1;
        let lane = lanes.lanes.entry(wanted.clone()).or_default();
        // A tenant who comes anew joins the present round: before the later ones of those who have many in line.
        let present = lane.first().map_or(0, |(order, _)| order.round);
        let round = match lane.tenants.get(&tenant) {
            Some((_, last)) => present.max(last.saturating_add(1)),
            None => present,
        };
        let in_line = lane.tenants.get(&tenant).map_or(0, |(in_line, _)| *in_line);
        lane.tenants.insert(tenant.clone(), (in_line + 1, round));
        let order = Order { round, number };
        let woken = Arc::new(Notify::new());
        lane.places.insert(order, Arc::clone(&woken));
        let begins = lane.first().is_some_and(|(first, _)| first == order);
        lanes.waiting += 1;
        self.waiting.store(lanes.waiting, Ordering::SeqCst);
        drop(guard);
        // Between the joining and the second look.
        fence(Ordering::SeqCst);
        Ok(Place { line: Arc::clone(self), wanted, tenant, order, woken, begins })
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many wait for the same as may.
    Lane,
    /// As many wait in the node as may, whatever for.
    Line,
}

/// One place in the line; left by dropping it.
#[derive(Debug)]
pub(super) struct Place {
    line: Arc<WaitingLine>,
    wanted: Wanted,
    tenant: Tenant,
    order: Order,
    woken: Arc<Notify>,
    begins: bool,
}

impl Place {
    pub(super) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether it was the first of its lane when it was taken. Then a slot may have come free just before, of which
    /// nobody was told: look once more.
    pub(super) const fn begins(&self) -> bool {
        self.begins
    }

    /// Waits for the word.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guard = self.line.lanes();
        let lanes = &mut *guard;
        let Some(lane) = lanes.lanes.get_mut(&self.wanted) else { return };
        let was_first = lane.first().is_some_and(|(first, _)| first == self.order);
        if lane.places.remove(&self.order).is_none() {
            return;
        }
        if let Some((in_line, _)) = lane.tenants.get_mut(&self.tenant) {
            *in_line -= 1;
            if *in_line == 0 {
                lane.tenants.remove(&self.tenant);
            }
        }
        if lane.places.is_empty() {
            lanes.lanes.remove(&self.wanted);
        } else if was_first {
            // Several slots may have come free, or a word in the last moment; one too many only makes somebody look.
            lane.wake_first();
        }
        lanes.waiting -= 1;
        self.line.waiting.store(lanes.waiting, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use router_common::endpoint::{EndpointDescriptor, EndpointId};

    use super::*;

    fn wanted(service: &str, path: &str, servers: Servers) -> Wanted {
        let descriptor = EndpointDescriptor::new(EndpointId::new(1).unwrap(), http::Method::GET, path.parse().unwrap());
        let (service, version) = (service.parse().unwrap(), Version::new(1, 0, 0));
        Wanted::new(&RouteEndpoint { service, version, descriptor }, servers)
    }

    fn line() -> Arc<WaitingLine> {
        Arc::new(WaitingLine::new(8))
    }

    fn freed(line: &WaitingLine, service: &str) {
        line.freed(&service.parse().unwrap(), &Version::new(1, 0, 0));
    }

    fn is_woken(place: &Place) -> bool {
        let mut woken = std::pin::pin!(place.woken());
        let waker = std::task::Waker::noop();
        woken.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn the_first_is_told_and_whoever_leaves_tells_the_next() {
        let line = line();
        let join = |path| line.join(wanted("a", path, Servers::All), None).unwrap();
        let (first, second, third) = (join("/x"), join("/y"), join("/x"));
        assert!(first.begins() && !second.begins() && !third.begins(), "whatever the endpoint");
        freed(&line, "a");
        assert!(is_woken(&first) && !is_woken(&second) && !is_woken(&third));
        drop(first);
        assert!(is_woken(&second) && !is_woken(&third));
        drop(third);
        assert!(!is_woken(&second), "who gives up behind another is no news to it");
        assert_eq!(line.len(), 1);
    }

    #[test]
    fn a_word_to_somebody_who_gives_up_is_not_lost() {
        let line = line();
        let join = || line.join(wanted("a", "/x", Servers::All), None).unwrap();
        let (first, second) = (join(), join());
        freed(&line, "a");
        drop(first);
        assert!(is_woken(&second));
    }

    #[test]
    fn nobody_stands_behind_who_waits_for_another_service() {
        let line = line();
        let (a, b) = (wanted("a", "/x", Servers::All), wanted("b", "/x", Servers::All));
        let first = line.join(a.clone(), None).unwrap();
        assert!(line.is_awaited(&a) && !line.is_awaited(&b));
        let other = line.join(b, None).unwrap();
        assert!(other.begins());
        freed(&line, "b");
        assert!(is_woken(&other) && !is_woken(&first));
        line.changed();
        assert!(is_woken(&other) && is_woken(&first));
    }

    #[test]
    fn endpoints_that_only_some_instances_have_wait_each_for_itself() {
        let line = line();
        let join = |path, servers| line.join(wanted("a", path, servers), None).unwrap();
        let (one, two, all) = (join("/x", Servers::Some), join("/y", Servers::Some), join("/z", Servers::All));
        assert!(one.begins() && two.begins() && all.begins());
        freed(&line, "a");
        assert!(is_woken(&one) && is_woken(&two) && is_woken(&all));
    }

    #[test]
    fn tenants_take_turns_and_each_keeps_its_own_order() {
        let line = line();
        let join = |tenant: &'static str| {
            let place = line.join(wanted("a", "/x", Servers::All), Some(HeaderValue::from_static(tenant)));
            (tenant, place.unwrap())
        };
        let mut places = vec![join("busy"), join("busy"), join("busy"), join("rare"), join("busy"), join("rare")];
        let mut served = Vec::new();
        freed(&line, "a");
        while let Some(next) = places.iter().position(|(_, place)| is_woken(place)) {
            let (tenant, place) = places.remove(next);
            served.push((tenant, place.order.number));
            drop(place);
        }
        assert_eq!(served, [("busy", 0), ("rare", 3), ("busy", 1), ("rare", 5), ("busy", 2), ("busy", 4)]);
        assert_eq!(line.len(), 0);
        assert!(line.lanes().lanes.is_empty());
    }

    #[test]
    fn lanes_and_line_have_an_end() {
        let line = Arc::new(WaitingLine::new(2));
        let join = |service: &str| line.join(wanted(service, "/x", Servers::All), None);
        let places = [join("a"), join("a")];
        assert!(places.iter().all(Result::is_ok) && join("a").err() == Some(Full::Lane));
        let others: Vec<_> = (0..30).map(|number| join(&format!("b{}", number / 2))).collect();
        assert!(others.iter().all(Result::is_ok) && join("c").err() == Some(Full::Line));
        drop(places);
        assert!(join("a").is_ok());
        drop(others);
        assert_eq!(line.len(), 0);
    }
}
