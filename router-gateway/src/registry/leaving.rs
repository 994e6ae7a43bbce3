//! A node that leaves: its services are sent away, and what it has settled is given to whoever comes after it.
//!
//! Who that is, and whether it is there yet, is not known here.

use std::collections::BTreeMap;
use std::time::Instant;

use router_common::identity::{Instance, ServiceName, Version};

use super::member::Member;
use super::{LinkHandle, Registry};

impl<H: LinkHandle> Registry<H> {
    /// This node is about to leave: no link joins any more, and every service is asked to replace its links, which serve
    /// on until their end. Returns the instances in service. [`Registry::take_back`] is its end.
    pub fn send_away(&self) -> Vec<Instance> {
        let (handles, instances) = {
            let mut books = self.books();
            books.is_leaving = true;
            books.members.values_mut().for_each(Member::release);
            let in_service = books.members.values().filter(|member| member.is_in_service());
            let instances = in_service.map(|member| member.state.instance().clone()).collect();
            (books.handles(), instances)
        };
        handles.iter().for_each(LinkHandle::drain);
        instances
    }

    /// Lets links join again. One that replaces a link which was asked to be replaced lets that one finish.
    pub fn take_back(&self) {
        self.books().is_leaving = false;
    }

    /// Whether requests can go to this instance.
    #[must_use]
    pub fn is_in_service(&self, instance: &Instance) -> bool {
        let books = self.books();
        let member = books.by_instance.get(instance).and_then(|key| books.members.get(key));
        member.is_some_and(Member::is_in_service)
    }

    /// The version of each service that is the default for having been the highest for long enough (SPEC 2).
    #[must_use]
    pub fn settled_defaults(&self, now: Instant) -> BTreeMap<ServiceName, Version> {
        self.books().publisher.settled(now)
    }

    /// Takes over what was settled elsewhere: these versions become the default at once when they come, and higher ones
    /// as late as a new highest one does.
    pub fn inherit_defaults(&self, defaults: BTreeMap<ServiceName, Version>) {
        self.books().publisher.inherit(defaults);
    }
}
