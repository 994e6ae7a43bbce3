//! A link ends: what becomes of its instance, and of links that belong to none any more (SPEC 1, 5).

use std::sync::atomic::Ordering;
use std::time::Instant;

use router_common::frame::CloseCode;
use router_common::session::{Closed, ClosedBy};

use super::books::Say;
use super::{LinkHandle, Registry};
use crate::routing::instance::LinkId;

impl<H: LinkHandle> Registry<H> {
    pub(super) fn leave(&self, link: LinkId, closed: &Closed, now: Instant) {
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
    pub(super) fn end_if_idle(&self, link: LinkId, now: Instant) {
        let handle = self.books().leaving.get(&link).map(|leaving| leaving.handle.clone());
        if handle.is_some_and(|handle| handle.is_idle()) {
            self.end(link, now);
        }
    }

    pub(super) fn end(&self, link: LinkId, now: Instant) {
        self.books_then(now, |books, says| {
            if let Some(leaving) = books.leaving.remove(&link) {
                let (code, text) = leaving.farewell;
                says.push(Say::Close(leaving.handle, code, text));
            }
        });
    }
}
