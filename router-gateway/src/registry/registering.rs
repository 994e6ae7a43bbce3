//! An instance offers its endpoints, whole, and is told what became of them (SPEC 2, 4).

use std::time::Instant;

use router_common::endpoint::EndpointDescriptor;
use router_common::identity::Instance;

use super::books::{Books, Say};
use super::{LinkHandle, Registry};
use crate::routing::instance::LinkId;

impl<H: LinkHandle> Registry<H> {
    pub(super) fn register(&self, link: LinkId, revision: u64, endpoints: Vec<EndpointDescriptor>, now: Instant) {
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
}
