//! Circuits: who is ejected because it keeps failing, and until when (SPEC 5).
//!
//! The registry's part: it knows who else is there. When and for how long is `routing::outlier`'s word, what it means to a
//! request the decision's, and what a failure is the dispatch's.

use std::time::Instant;

use super::member::Member;
use super::views::{CircuitState, CircuitView};
use super::{LinkHandle, Registry};
use crate::routing::instance::InstanceState;

impl<H: LinkHandle> Registry<H> {
    /// A request failed on an instance; says whether it is ejected for that, now. Takes no lock but for every so manieth
    /// failure in a row.
    #[cold]
    pub fn failed(&self, state: &InstanceState, now: Instant) -> bool {
        let failures = state.failed();
        let Some(policy) = self.settings.outlier.filter(|policy| policy.is_due(failures)) else { return false };
        let mut books = self.books();
        let instance = state.instance();
        let (mut peers, mut ejected, mut others_fit) = (0_usize, 0_usize, false);
        for member in books.members_of(&instance.service) {
            if member.state.instance().version != instance.version || member.set.is_none() {
                continue;
            }
            let fitness = member.state.fitness();
            peers += 1;
            ejected += usize::from(fitness.is_ejected());
            others_fit |= member.state.key() != state.key() && fitness.is_fit() && !fitness.is_ejected();
        }
        let Some(member) = books.members.get_mut(&state.key()) else { return false };
        if member.circuit.open_for(now).is_some() || !policy.allows(peers, ejected, others_fit) {
            return false;
        }
        let until = member.circuit.open(&policy, now);
        let ejections = member.circuit.row(&policy, now);
        member.state.set_ejected(true);
        books.ejected.push(state.key());
        drop(books);
        let seconds = until.saturating_duration_since(now).as_secs();
        tracing::warn!(%instance, failures, ejections, seconds, "instance ejected: it keeps failing");
        true
    }

    /// Lets those back whose time is over.
    pub(super) fn end_ejections(&self, now: Instant) {
        let mut books = self.books();
        if books.ejected.is_empty() {
            return;
        }
        let mut back = Vec::new();
        let ejected = std::mem::take(&mut books.ejected);
        for key in ejected {
            // Who has left is not ejected any more.
            let Some(member) = books.members.get_mut(&key) else { continue };
            if member.circuit.close_if_due(now) {
                member.state.set_ejected(false);
                back.push(member.state.clone());
            } else {
                books.ejected.push(key);
            }
        }
        drop(books);
        for state in &back {
            tracing::info!(instance = %state.instance(), "instance is back from its ejection");
        }
        if !back.is_empty() {
            // Who waits for a slot may have one there.
            self.tell_waiting();
        }
    }

    /// What lists show of it.
    pub(super) fn circuit(&self, member: &Member<H>, now: Instant) -> CircuitView {
        let open_for = member.circuit.open_for(now);
        CircuitView {
            state: if open_for.is_some() { CircuitState::Open } else { CircuitState::Closed },
            consecutive_failures: member.state.failures(),
            ejections: self.settings.outlier.map_or(0, |policy| member.circuit.row(&policy, now)),
            ejected_for_seconds: open_for.map(|left| left.as_secs_f64()),
        }
    }
}
