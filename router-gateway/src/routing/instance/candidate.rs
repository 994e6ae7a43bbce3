//! An instance as one snapshot sees it, and the link of it that a request goes over (SPEC 5).

use std::fmt;
use std::sync::Arc;

use super::{InstanceState, LinkId, LinkState, Needs};

/// An instance as one snapshot sees it.
pub struct Candidate<H> {
    pub instance: Arc<InstanceState>,
    /// 0: the own region; then the neighbours in their configured order; then all others.
    pub tier: u16,
    /// Which of its version's endpoint sets it has.
    pub set: usize,
    pub links: Arc<[Arc<LinkState<H>>]>,
}

impl<H> Candidate<H> {
    /// The link to use: if possible one that does not drain, works, was heard of lately, is on the way that the service
    /// prefers, and is of the own worker, in this order; among equals by turn; never one that was `tried` already where there are others. `None` if there are none.
    /// All drain only if they have begun to since the instance was looked at: then they refuse the request, and it goes
    /// elsewhere unseen.
    #[must_use]
    pub fn link(&self, worker: usize, tried: &[LinkId], needs: Needs) -> Option<ChosenLink<'_, H>> {
        if let [only] = &*self.links {
            return Some(ChosenLink { link: only, next_turn: None });
        }
        let rank = |link: &LinkState<H>| link.rank(worker);
        let serves = |link: &LinkState<H>| (tried.is_empty() || !tried.contains(&link.id())) && link.may_carry(needs);
        let links = || self.links.iter().enumerate().filter(|(_, link)| serves(link));
        let best = links().map(|(_, link)| rank(link)).min()?;
        let mut equals = links().filter(|(_, link)| rank(link) == best);
        let (first, second) = (equals.next()?, equals.next());
        let Some(second) = second else { return Some(ChosenLink { link: first.1, next_turn: None }) };
        let turn = self.instance.link_turn() as usize;
        let (place, link) =
            [first, second].into_iter().chain(equals).find(|(place, _)| *place >= turn).unwrap_or(first);
        Some(ChosenLink { link, next_turn: u32::try_from(place + 1).ok() })
    }
}

/// A link, and where the turn stands once it has been used; `None`: it was no matter of turn.
pub struct ChosenLink<'c, H> {
    pub link: &'c Arc<LinkState<H>>,
    pub(in crate::routing) next_turn: Option<u32>,
}

impl<H> fmt::Debug for ChosenLink<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChosenLink").field(&self.link.id()).finish()
    }
}

impl<H> Clone for Candidate<H> {
    fn clone(&self) -> Self {
        Self { instance: self.instance.clone(), tier: self.tier, set: self.set, links: self.links.clone() }
    }
}

impl<H> fmt::Debug for Candidate<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("instance", &self.instance)
            .field("tier", &self.tier)
            .field("set", &self.set)
            .field("links", &self.links)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::instance;
    use super::*;

    #[test]
    fn a_link_of_the_own_worker_is_preferred_and_equals_take_turns() {
        let state = Arc::new(instance());
        let link = |id, worker| Arc::new(LinkState::new(LinkId(id), state.clone(), (), worker));
        let candidate =
            Candidate { instance: state.clone(), tier: 0, set: 0, links: [link(0, 0), link(1, 1), link(2, 1)].into() };
        let picked = |worker| candidate.link(worker, &[], Needs::Nothing).map(|chosen| chosen.link.id().0);
        assert_eq!(picked(0), Some(0));
        assert_eq!(picked(1), Some(1));
        candidate.instance.set_link_turn(candidate.link(1, &[], Needs::Nothing).unwrap().next_turn.unwrap());
        assert_eq!(picked(1), Some(2));
        candidate.instance.set_link_turn(candidate.link(1, &[], Needs::Nothing).unwrap().next_turn.unwrap());
        assert_eq!(picked(1), Some(1));
        let tried = [LinkId(1)];
        assert_eq!(
            candidate.link(1, &tried, Needs::Nothing).map(|chosen| chosen.link.id().0),
            Some(2),
            "whosever turn it is"
        );
        candidate.links[2].set_silent(true);
        assert_eq!(picked(1), Some(1));
        candidate.links[1].set_draining();
        assert_eq!(picked(1), Some(0));
        candidate.links[0].set_draining();
        assert_eq!(picked(1), Some(2));
        candidate.links[2].set_draining();
        assert_eq!(picked(1), Some(1), "one that has only just begun to drain refuses, unseen");
    }

    #[test]
    fn a_link_of_the_preferred_way_is_used_as_long_as_it_works_and_again_when_it_does() {
        let state = Arc::new(instance());
        let link = |id, worker, preference| {
            let link = LinkState::new(LinkId(id), state.clone(), (), worker).preferred(preference);
            link.set_routable();
            Arc::new(link)
        };
        let links = [link(0, 0, 1), link(1, 1, 1), link(2, 1, 0)];
        let candidate = |links: &[Arc<LinkState<()>>]| Candidate {
            instance: state.clone(),
            tier: 0,
            set: 0,
            links: links.iter().cloned().collect(),
        };
        let picked = |links: &[Arc<LinkState<()>>], worker| {
            candidate(links).link(worker, &[], Needs::Nothing).map(|chosen| chosen.link.id().0)
        };
        assert_eq!(picked(&links, 0), Some(2), "whichever worker asks");
        links[2].set_silent(true);
        assert_eq!([picked(&links, 0), picked(&links, 1)], [Some(0), Some(1)]);
        links[2].set_silent(false);
        assert_eq!(picked(&links, 0), Some(2));
        links[2].set_draining();
        assert_eq!(picked(&links, 0), Some(0));
        let new = Arc::new(LinkState::new(LinkId(3), state.clone(), (), 0));
        let links = [links[0].clone(), new.clone()];
        assert_eq!(picked(&links, 0), Some(0), "the better one has not shown that it works");
        new.set_routable();
        assert_eq!(picked(&links, 0), Some(3));
    }
}
