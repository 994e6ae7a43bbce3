//! The registry: live instances, what they registered, and the route table that follows from them (SPEC 1, 2, 5, 8).
//!
//! Every change is made in the books under one lock, and published as a new immutable [`RouteTable`]; requests read tables
//! and never take the lock. What concerns one instance alone, requests read from the instance, at once; so a table that is
//! about to be replaced leads nobody to who has left. Changes that come together can share a publication
//! ([`Registry::leave_publications_to`]); whatever a service is told of its registration waits for it. Routing state is the union of the live links and nothing else. The registry
//! reads no clock, sends no request, and does not know transports; a link is whatever implements [`LinkHandle`].

mod books;
mod catalogue;
mod circuits;
mod leaving;
mod member;
mod ownership;
mod placement;
pub mod policy;
mod publish;
mod settings;
pub mod views;
mod vitals;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use router_common::endpoint::EndpointDescriptor;
use router_common::frame::{CloseCode, RefusedEndpoint};
use router_common::identity::{Instance, ServiceName};
use router_common::limits;
use router_common::session::{Accepted, Closed, ClosedBy, Joining, Silence};
use router_link::{ConnectionEvent, Handle, Refused};

use self::books::{Books, Say, members_of};
use self::member::{Leaving, Linked, Member};
pub use self::policy::Policy;
pub use self::publish::Promotion;
use self::publish::{Draft, Publisher};
pub use self::settings::RegistrySettings;
use crate::routing::instance::{Health, InstanceState, LinkId, LinkState};
use crate::routing::table::{RouteTable, Shape};

/// Live instances of one gateway: a bound on memory, ten times what PERFORMANCE asks a node to bear.
pub const INSTANCES: usize = 10_000;
/// What may wait to be said until a table is published; with more, that is not left to anybody else.
const SAYS: usize = 1_024;
/// How long a link that belongs to no instance any more may finish what is in flight on it.
pub const LEAVING_GRACE: Duration = Duration::from_secs(30);

/// What the registry needs of a link. What takes a lock of its own is called without
/// the registry's.
pub trait LinkHandle: Clone + Send + Sync + 'static {
    /// Asks the service to open nothing more on this link.
    fn drain(&self);
    /// Ends the link.
    fn close(&self, code: CloseCode, text: &str);
    /// Tells what became of a revision of the instance's endpoints.
    fn endpoints_result(&self, revision: u64, refused: Vec<RefusedEndpoint>);
    /// Whether nothing is in flight on it, in either direction.
    fn is_idle(&self) -> bool;
    /// Transport and address, for lists; takes no lock.
    fn peer(&self) -> String;
    /// The transport's name; takes no lock.
    fn transport(&self) -> &'static str;
    /// Whether it carries bodies of any length, or small messages only; takes no lock.
    fn is_streaming(&self) -> bool;
}

impl LinkHandle for Handle {
    fn drain(&self) {
        Self::drain(self);
    }

    fn close(&self, code: CloseCode, text: &str) {
        Self::close(self, code, text);
    }

    fn endpoints_result(&self, revision: u64, refused: Vec<RefusedEndpoint>) {
        Self::endpoints_result(self, revision, refused);
    }

    fn is_idle(&self) -> bool {
        self.streams() == (0, 0)
    }

    fn is_streaming(&self) -> bool {
        Self::is_streaming(self)
    }

    fn peer(&self) -> String {
        Self::peer(self).to_string()
    }

    fn transport(&self) -> &'static str {
        Self::peer(self).transport
    }
}

/// A link that has joined.
#[derive(Debug)]
pub struct Joined {
    /// Its name in all further calls.
    pub link: LinkId,
    /// Who is to drive it, and is taken to from now on.
    pub worker: usize,
    pub instance: Arc<InstanceState>,
    /// What the session is to answer.
    pub accepted: Accepted,
}

/// How often something happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Instances that joined.
    pub joined: u64,
    /// Joins refused, for whatever reason.
    pub refused: u64,
    /// Instances whose place a newer process took.
    pub superseded: u64,
    /// Instances that ended without a good-bye.
    pub lost: u64,
    /// Tables published.
    pub published: u64,
}

#[derive(Debug, Default)]
struct Counters {
    joined: AtomicU64,
    refused: AtomicU64,
    superseded: AtomicU64,
    lost: AtomicU64,
    published: AtomicU64,
}

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

    /// An authenticated service wants its link to join (SPEC 2, 4, 8). The same incarnation gets a further link;
    /// a newer one of the same identity supersedes the instance, whose links drain and then close.
    ///
    /// `here` is the worker that has it. [`Joined::worker`] may be another one: the worker that has the fewest links of the
    /// instance, then the fewest at all, so that an instance's links lie apart however often they are made anew.
    ///
    /// # Errors
    ///
    /// What the service is told before its link closes: `forbidden` by policy, `identity_in_use`, `superseded` if a
    /// newer process has taken its place, or `too_many_links`.
    pub fn join(&self, joining: &Joining, handle: &H, here: usize, now: Instant) -> Result<Joined, Refused> {
        let outcome = self.books_then(now, |books, says| self.admit(books, says, joining, handle, here, now));
        let instance = &joining.hello.instance;
        match &outcome {
            Ok(_) => tracing::info!(%instance, link = joining.hello.link, peer = handle.peer(), "link joined"),
            Err(refused) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%instance, identity = %joining.identity, peer = handle.peer(), %refused, "join refused");
            }
        }
        outcome
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
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            joined: read(&self.counters.joined),
            refused: read(&self.counters.refused),
            superseded: read(&self.counters.superseded),
            lost: read(&self.counters.lost),
            published: read(&self.counters.published),
        }
    }

    fn admit(
        &self,
        books: &mut Books<H>,
        says: &mut Vec<Say<H>>,
        joining: &Joining,
        handle: &H,
        here: usize,
        now: Instant,
    ) -> Result<Joined, Refused> {
        let (hello, identity) = (&joining.hello, &joining.identity);
        let instance = &hello.instance;
        if books.is_leaving {
            return Err(Refused::new(CloseCode::Shutdown, "the gateway is shutting down"));
        }
        if !self.settings.policy.may_register(identity, &instance.service) {
            let text = format!("`{identity}` may not register the service `{}`", instance.service);
            return Err(Refused::new(CloseCode::Forbidden, text));
        }
        let present = books.by_instance.get(instance).copied();
        let superseded = match present.and_then(|key| Some((key, books.members.get(&key)?))) {
            // The same process: by another way it may have proved itself otherwise.
            Some((_, member)) if member.may_be(identity, hello) => None,
            Some((_, member)) if member.incarnation == hello.incarnation || !member.has_been(identity) => {
                let text = format!("the instance `{}` is held by another identity", instance.id);
                return Err(Refused::new(CloseCode::IdentityInUse, text));
            }
            Some((_, member)) if member.incarnation > hello.incarnation => {
                return Err(Refused::new(CloseCode::Superseded, SUPERSEDED));
            }
            Some(_) => present,
            None if books.members.len() >= INSTANCES => {
                let text = format!("this gateway holds as many instances as it may ({INSTANCES})");
                return Err(Refused::new(CloseCode::TooManyLinks, text));
            }
            None => None,
        };
        if let Some(key) = superseded {
            self.counters.superseded.fetch_add(1, Ordering::Relaxed);
            // Its place is empty until the newer process is ready: an outage, not an absence.
            books.remove(key, Some(now), now, says);
        }
        let key = match books.by_instance.get(instance) {
            Some(&key) => key,
            None => {
                self.counters.joined.fetch_add(1, Ordering::Relaxed);
                books.add(joining, self.settings.tier(&instance.region), now)
            }
        };
        let link = LinkId(books.take_number());
        let Some(member) = books.members.get_mut(&key) else {
            return Err(Refused::new(CloseCode::ProtocolError, "the instance has just left"));
        };
        // A link that comes again was lost, though nobody has noticed yet, or it replaces one that was released.
        let berth = (hello.preference, hello.link);
        let replaced = member.take_links(|linked| linked.berth() == berth);
        if member.links().len() >= usize::from(limits::LINKS) {
            let text = format!("an instance may have at most {} links", limits::LINKS);
            return Err(Refused::new(CloseCode::TooManyLinks, text));
        }
        for linked in &replaced {
            books.links.remove(linked.state.id());
        }
        let serving = member.links().iter().filter(|linked| !linked.state.is_draining());
        // Those of one way serve together, and are to lie apart.
        let serving = serving.filter(|linked| linked.state.preference() == hello.preference);
        let worker = books.links.choose(serving.map(|linked| linked.state.worker()), here);
        let state = LinkState::new(link, member.state.clone(), handle.clone(), worker).preferred(hello.preference);
        let state = state.streaming(handle.is_streaming());
        member.add_link(Linked {
            state: Arc::new(state),
            number: hello.link,
            transport: handle.transport(),
            peer: handle.peer(),
            identity: identity.clone(),
            since: now,
            released: false,
        });
        let accepted =
            Accepted { lease: member.state.lease().clone(), revision: member.revision, links: self.settings.links() };
        let instance = member.state.clone();
        if member.set.is_some() {
            // Before it has offered anything, no table has it.
            books.publisher.changed(&instance.instance().service);
            books.carry_anew(key, link, says);
            books.recount(key);
        }
        for linked in replaced {
            let (code, text) = MADE_ANEW;
            let handle = linked.state.handle().clone();
            if linked.released {
                let leaving = Leaving { handle, until: now + LEAVING_GRACE, farewell: MADE_ANEW };
                books.leaving.insert(linked.state.id(), leaving);
            } else {
                says.push(Say::Close(handle, code, text));
            }
        }
        books.links.insert(link, key, worker);
        Ok(Joined { link, worker, instance, accepted })
    }

    fn register(&self, link: LinkId, revision: u64, endpoints: Vec<EndpointDescriptor>, now: Instant) {
        self.books_then(now, |books, says| {
            let Some(key) = books.links.instance_of(link) else { return };
            let Books { members, catalogue, .. } = books;
            let Some(member) = members.get_mut(&key) else { return };
            let Some(handle) = member.find_link(link).map(|link| link.handle().clone()) else { return };
            if revision > member.revision {
                let Instance { service, version, .. } = member.state.instance().clone();
                let before = member.set.take();
                let policy = &self.settings.policy;
                // First the new, then away with the old: what is in both never changes hands.
                let carries = member.carries();
                let set = catalogue.offer(&service, &version, endpoints, before.as_deref(), carries, policy);
                member.refused = catalogue.refused(&set);
                member.set = Some(set);
                member.revision = revision;
                for refused in &member.refused {
                    tracing::warn!(instance = %member.state.instance(), reason = refused.reason, "endpoint refused");
                }
                let gained = before.map(|before| catalogue.withdraw(&before, None)).unwrap_or_default();
                books.recount(key);
                books.offer_again(gained, says);
            } else if revision < member.revision {
                // Overtaken by a later one on another link. Where answers may be lost, it is offered until it is answered.
                if !handle.is_streaming() {
                    says.push(Say::Result(handle, member.revision, member.refused.clone()));
                }
                return;
            }
            if let Some(member) = books.members.get(&key) {
                // Told again or not: it is told once it is true.
                books.publisher.changed(&member.state.instance().service);
                says.push(Say::Result(handle, revision, member.refused.clone()));
            }
        });
    }

    fn leave(&self, link: LinkId, closed: &Closed, now: Instant) {
        self.books_then(now, |books, says| {
            books.leaving.remove(&link);
            let Some(key) = books.links.remove(link) else { return };
            let Some(member) = books.members.get_mut(&key) else { return };
            let was_draining = member.state.is_draining();
            member.take_links(|linked| linked.state.id() == link);
            if member.set.is_some() {
                books.publisher.changed(&member.state.instance().service);
            }
            if member.links().is_empty() {
                let said_goodbye = matches!(closed.code, CloseCode::Normal | CloseCode::Shutdown);
                let withdrawn = was_draining || (said_goodbye && closed.by != ClosedBy::Link);
                let instance = member.state.instance();
                if withdrawn {
                    tracing::info!(%instance, "instance left");
                } else {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%instance, code = %closed.code, text = closed.text, "instance lost");
                }
                books.remove(key, (!withdrawn).then_some(now), now, says);
            } else {
                books.carry_anew(key, link, says);
                books.recount(key);
            }
        });
    }

    /// A link of no instance may end once its own drain is done and nothing else is in flight on it.
    fn end_if_idle(&self, link: LinkId, now: Instant) {
        let handle = self.books().leaving.get(&link).map(|leaving| leaving.handle.clone());
        if handle.is_some_and(|handle| handle.is_idle()) {
            self.end(link, now);
        }
    }

    fn end(&self, link: LinkId, now: Instant) {
        self.books_then(now, |books, says| {
            if let Some(leaving) = books.leaving.remove(&link) {
                let (code, text) = leaving.farewell;
                says.push(Say::Close(leaving.handle, code, text));
            }
        });
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

const MADE_ANEW: (CloseCode, &str) = (CloseCode::Normal, "the link was made anew");
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
