//! A link comes: who may join, as whom, in whose place, and on which worker (SPEC 2, 4, 8).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use router_common::frame::CloseCode;
use router_common::limits;
use router_common::session::{Accepted, Joining};
use router_link::Refused;

use super::books::{Books, Say};
use super::member::{Leaving, Linked};
use super::{LEAVING_GRACE, LinkHandle, Registry, SUPERSEDED};
use crate::routing::instance::{InstanceState, LinkId, LinkState};

/// Live instances of one gateway: a bound on memory, ten times what PERFORMANCE asks a node to bear.
pub const INSTANCES: usize = 10_000;
const MADE_ANEW: (CloseCode, &str) = (CloseCode::Normal, "the link was made anew");

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

impl<H: LinkHandle> Registry<H> {
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
}
