//! Tries: how far a request has come, and where it has been in vain (SPEC 5).
//!
//! It knows who was tried, not who is there.

use std::cell::Cell;
use std::time::Instant;

use http::HeaderValue;
use router_common::problem::ProblemCode;
use router_link::CallError;

use super::waiting::Place;
use crate::routing::InstanceKey;
use crate::routing::explain::Explanation;
use crate::routing::instance::{LinkId, Needs};

/// How far a request has come. Small for most: they are sent once, and nobody asks why.
#[derive(Default)]
pub(super) struct Tries {
    past: Option<Box<Past>>,
    /// How often it was provably not seen.
    pub(super) unseen: usize,
    /// Whether it was sent again for being idempotent.
    pub(super) retried: bool,
    /// Why a link did not carry it, for the client if no other one does.
    pub(super) unfit: Option<ProblemCode>,
    pub(super) place: Option<Place>,
    /// Whether it has stood in line.
    pub(super) has_waited: bool,
    /// What the client, or the service that asks, still gives it.
    pub(super) deadline: Option<Instant>,
    /// Whether the client is to be told why.
    pub(super) explain: bool,
    /// How many decisions were made of it, and the last one in one line.
    explained: Cell<Option<Box<(u32, HeaderValue)>>>,
}

/// Where a request has been in vain.
#[derive(Default)]
struct Past {
    /// All instances that it was sent to.
    instances: Vec<InstanceKey>,
    /// Those among them that failed or refused it themselves, and are not to get it again.
    failed: Vec<InstanceKey>,
    /// Links that failed it. The instance behind one may have others.
    links: Vec<LinkId>,
}

/// Where a request is not to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excluded<'t> {
    pub(super) instances: &'t [InstanceKey],
    pub(super) links: &'t [LinkId],
}

impl Tries {
    /// What is being decided of it.
    #[cold]
    pub(super) fn note_decision(&self, explanation: &Explanation) {
        let decisions = self.explained.take().map_or(1, |last| last.0.saturating_add(1));
        self.explained.set(Some(Box::new((decisions, explanation.brief(decisions)))));
    }

    /// What was decided last, if the client is to be told.
    pub(super) fn explained(self) -> Option<HeaderValue> {
        self.explained.into_inner().map(|last| last.1)
    }

    /// What it turned out to need of a link.
    pub(super) const fn needs(&self) -> Needs {
        if self.unfit.is_some() { Needs::Streaming } else { Needs::Nothing }
    }

    /// Whether it was sent before.
    pub(super) const fn are_any(&self) -> bool {
        self.past.is_some()
    }

    /// It was sent in vain. A link that is lost or drains says nothing of the instance's others.
    pub(super) fn note(&mut self, instance: InstanceKey, link: LinkId, error: &CallError) {
        let past = self.past.get_or_insert_default();
        past.instances.push(instance);
        match error {
            CallError::Unseen { .. } | CallError::Lost { .. } => past.links.push(link),
            _ => past.failed.push(instance),
        }
    }

    /// Somewhere else altogether.
    pub(super) fn anew(&self) -> Excluded<'_> {
        Excluded { instances: self.past.as_ref().map_or(&[], |past| &past.instances), links: &[] }
    }

    /// If there is nobody else: to an instance that has had it, over a link that has not. `None` if no link has failed.
    pub(super) fn over_other_links(&self) -> Option<Excluded<'_>> {
        let past = self.past.as_ref().filter(|past| !past.links.is_empty())?;
        Some(Excluded { instances: &past.failed, links: &past.links })
    }
}
