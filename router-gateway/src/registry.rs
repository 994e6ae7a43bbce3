//! The registry: live instances, what they registered, and the route table that follows from them (SPEC 1, 2, 5, 8).
//!
//! Every change is made in the books under one lock, and published as a new immutable [`RouteTable`]; requests read tables
//! and never take the lock. What concerns one instance alone, requests read from the instance, at once; so a table that is
//! about to be replaced leads nobody to who has left. Changes that come together can share a publication
//! ([`Registry::leave_publications_to`]); whatever a service is told of its registration waits for it. Routing state is the union of the live links and nothing else. The registry
//! reads no clock, sends no request, and does not know transports; a link is whatever implements [`LinkHandle`].
//!
//! What comes over a link comes by [`Registry::event`]. `joining` is a link's coming, `registering` its endpoints, `parting` its
//! end; `books` what all of it is written into, with `catalogue` and `ownership` for endpoints, `member` for an instance,
//! `placement` for links on workers; `publish` when a table is due, and what is in it; `circuits` who is ejected, `leaving`
//! that this very node leaves, `views` and `vitals` what people are told.

mod books;
mod catalogue;
mod circuits;
mod counts;
mod handle;
mod joining;
mod leaving;
mod member;
mod ownership;
mod parting;
mod placement;
pub mod policy;
mod publish;
mod registering;
mod settings;
pub mod views;
mod vitals;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use router_common::identity::ServiceName;
use router_common::session::Silence;
use router_link::{ConnectionEvent, Handle};

use self::books::{Books, Say, members_of};
use self::counts::Counters;
pub use self::counts::Counts;
pub use self::handle::LinkHandle;
pub use self::joining::{INSTANCES, Joined};
use self::member::Member;
pub use self::policy::Policy;
pub use self::publish::Promotion;
use self::publish::{Draft, Publisher};
pub use self::settings::RegistrySettings;
use crate::routing::instance::{Health, LinkId, LinkState};
use crate::routing::table::{RouteTable, Shape};

/// What may wait to be said until a table is published; with more, that is not left to anybody else.
const SAYS: usize = 1_024;
/// How long a link that belongs to no instance any more may finish what is in flight on it.
pub const LEAVING_GRACE: Duration = Duration::from_secs(30);

/// The live instances of one gateway. `H` is a link's handle.
pub struct Registry<H = Handle> {
    settings: RegistrySettings,
    books: Mutex<Books<H>>,
    table: ArcSwap<RouteTable<H>>,
    /// The last table's shape. Locked while a table is made, so that tables are stored in the order they were drafted.
    publishing: Mutex<Arc<Shape>>,
    /// Whether something has changed that the table does not show yet. Written under the books' lock.
    is_behind: AtomicBool,
    counters: Counters,
    on_published: OnceLock<Box<dyn Fn() + Send + Sync>>,
    on_stale: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl<H: LinkHandle> Registry<H> {
    #[must_use]
    pub fn new(settings: RegistrySettings) -> Self {
        let books = Books::new(Publisher::new(settings.strategy, settings.promotion), settings.workers);
        let table = ArcSwap::from_pointee(RouteTable::empty());
        let (counters, on_published, on_stale) = (Counters::default(), OnceLock::new(), OnceLock::new());
        let (publishing, is_behind) = (Mutex::default(), AtomicBool::new(false));
        Self { settings, books: Mutex::new(books), table, publishing, is_behind, counters, on_published, on_stale }
    }

    /// The present table. Take it once a request; it stays as it is however long it is held.
    pub fn table(&self) -> arc_swap::Guard<Arc<RouteTable<H>>> {
        self.table.load()
    }

    /// The same, to be held across an await.
    #[must_use]
    pub fn snapshot(&self) -> Arc<RouteTable<H>> {
        self.table.load_full()
    }

    /// Runs `hook` after every publication, so that requests that wait can look again. Only the first hook is kept.
    pub fn on_published(&self, hook: impl Fn() + Send + Sync + 'static) {
        // There is one waiting line, and so one hook.
        let _ = self.on_published.set(Box::new(hook));
    }

    /// From now on whoever is told by `hook` publishes, by [`Registry::publish`], and soon: until then, services wait for
    /// their answers. Only the first hook is kept.
    pub fn leave_publications_to(&self, hook: impl Fn() + Send + Sync + 'static) {
        // There is one publisher.
        let _ = self.on_stale.set(Box::new(hook));
    }

    /// For a request that found nobody in a table: publishes what has not been yet, and says whether there is another
    /// table now. Where everybody has left, the newest one knows what is to be said of that, or who serves instead.
    pub fn is_outdated(&self, table: &Arc<RouteTable<H>>, now: Instant) -> bool {
        self.catch_up(now);
        !Arc::ptr_eq(table, &self.table.load())
    }

    /// Publishes what has not been yet, whoever it is left to.
    pub(crate) fn catch_up(&self, now: Instant) {
        if self.is_behind.load(Ordering::Acquire) {
            self.publish(now);
        }
    }

    /// Publishes a new table if anything that it depends on has changed, and says what has waited for it.
    pub fn publish(&self, now: Instant) {
        let mut shape = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let (draft, says) = {
            let mut books = self.books();
            (self.draft(&mut books, now), std::mem::take(&mut books.says))
        };
        let is_new = draft.is_some();
        if let Some(draft) = draft {
            self.table.store(Arc::new(draft.into_table(&mut shape)));
            self.counters.published.fetch_add(1, Ordering::Relaxed);
            let books = self.books();
            self.is_behind.store(books.publisher.is_stale(), Ordering::Release);
        }
        drop(shape);
        say(says);
        if is_new {
            self.tell_waiting();
        }
    }

    /// What a link's driver reports. Answers endpoint sets itself; forgets the link when it has closed.
    pub fn event(&self, link: LinkId, event: ConnectionEvent, now: Instant) {
        match event {
            ConnectionEvent::Endpoints { revision, endpoints } => self.register(link, revision, endpoints, now),
            ConnectionEvent::Closed(closed) => self.leave(link, &closed, now),
            ConnectionEvent::PeerDraining => self.change(link, now, |member, state| {
                state.set_draining();
                member.refresh();
            }),
            ConnectionEvent::Routable => self.change(link, now, |member, state| {
                state.set_routable();
                member.state.set_routable();
            }),
            ConnectionEvent::Drained => self.end_if_idle(link, now),
            ConnectionEvent::Heartbeat { status, load, .. } => self.note_vitals(link, |member, _| {
                member.state.set_status(Health::from(status), load);
            }),
            ConnectionEvent::RoundTrip(average) => self.note(link, |member, state| {
                state.set_round_trip(average);
                if let Some(mean) = member.mean_round_trip() {
                    member.state.set_round_trip(mean);
                }
            }),
            ConnectionEvent::HeartbeatMissed => self.note(link, |member, _| member.state.miss_heartbeat()),
            ConnectionEvent::Silence(silence) => self.note_vitals(link, |member, state| {
                state.set_silent(silence == Silence::Degraded);
                member.refresh();
            }),
            // The lease is shared with the session, and counts by itself; the rest is said to services only.
            _ => {}
        }
    }

    /// To be called about once a second: ends ejections whose time is over and links that were left over, and forgets old
    /// outages.
    pub fn sweep(&self, now: Instant) {
        self.end_ejections(now);
        let leaving = self.books_then(now, |books, _| {
            if books.catalogue.expire(now) {
                books.publisher.changed_otherwise();
            }
            let leaving = books.leaving.iter();
            leaving.map(|(link, leaving)| (*link, leaving.handle.clone(), leaving.until)).collect::<Vec<_>>()
        });
        for (link, handle, until) in leaving {
            if until <= now || handle.is_idle() {
                self.end(link, now);
            }
        }
    }

    /// The handles of all links, those on their way out included.
    #[must_use]
    pub fn handles(&self) -> Vec<H> {
        self.books().handles()
    }

    /// How many instances and links are live.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        let books = self.books();
        (books.members.len(), books.links.len())
    }

    /// Live links of each worker.
    #[must_use]
    pub fn links_of_workers(&self) -> Vec<usize> {
        self.books().links.per_worker().to_vec()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// How often something happened since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Notes something that requests read from the instance itself.
    fn note(&self, link: LinkId, note: impl FnOnce(&Member<H>, &LinkState<H>)) {
        let books = self.books();
        let member = books.links.instance_of(link).and_then(|key| books.members.get(&key));
        if let Some(member) = member
            && let Some(state) = member.find_link(link)
        {
            note(member, state);
        }
    }

    /// The same for what may change an instance's health, of which operators are told.
    fn note_vitals(&self, link: LinkId, note: impl FnOnce(&Member<H>, &LinkState<H>)) {
        self.note(link, |member, state| {
            let before = member.state.fitness();
            note(member, state);
            vitals::tell(member.state.instance(), before, member.state.fitness());
        });
    }

    /// The same, where others may depend on it: who names no version, and who waits for an instance.
    fn change(&self, link: LinkId, now: Instant, change: impl FnOnce(&Member<H>, &LinkState<H>)) {
        let is_stale = self.books_then(now, |books, _| {
            let Some(key) = books.links.instance_of(link) else { return true };
            let member = books.members.get(&key);
            if let Some((member, state)) = member.and_then(|member| Some((member, member.find_link(link)?))) {
                change(member, state);
                books.recount(key);
            }
            books.publisher.is_stale()
        });
        if !is_stale {
            // No publication tells them.
            self.tell_waiting();
        }
    }

    fn draft(&self, books: &mut Books<H>, now: Instant) -> Option<Draft<H>> {
        let Books { members, by_service, publisher, catalogue, .. } = books;
        let members_of = |name: &ServiceName| members_of(members, by_service, name);
        let configured = |name: &ServiceName| self.settings.policy.default_version(name).cloned();
        publisher.draft(catalogue, members_of, configured, now)
    }

    fn tell_waiting(&self) {
        if let Some(hook) = self.on_published.get() {
            hook();
        }
    }

    fn books(&self) -> MutexGuard<'_, Books<H>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the books. What is to be said on links is said after the lock, and after the publication if
    /// there is to be one.
    fn books_then<T>(&self, now: Instant, act: impl FnOnce(&mut Books<H>, &mut Vec<Say<H>>) -> T) -> T {
        let mut says = Vec::new();
        let mut books = self.books();
        let outcome = act(&mut books, &mut says);
        if !books.publisher.is_stale() {
            drop(books);
            say(says);
            return outcome;
        }
        self.is_behind.store(true, Ordering::Release);
        books.says.append(&mut says);
        let is_full = books.says.len() > SAYS;
        drop(books);
        match self.on_stale.get() {
            Some(hook) if !is_full => hook(),
            _ => self.publish(now),
        }
        outcome
    }
}

fn say<H: LinkHandle>(says: Vec<Say<H>>) {
    for say in says {
        match say {
            Say::Drain(handle) => handle.drain(),
            Say::Close(handle, code, text) => handle.close(code, text),
            Say::Result(handle, revision, refused) => handle.endpoints_result(revision, refused),
        }
    }
}

const SUPERSEDED: &str = "a newer process has taken this instance's place";

impl<H: LinkHandle> fmt::Debug for Registry<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let books = self.books();
        let (endpoints, tombstones) = books.catalogue.counts();
        f.debug_struct("Registry")
            .field("instances", &books.members.len())
            .field("links", &books.links.len())
            .field("leaving", &books.leaving.len())
            .field("endpoints", &endpoints)
            .field("tombstones", &tombstones)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
