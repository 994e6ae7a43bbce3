//! Placement: which instance each live link belongs to, and which worker drives it.
//!
//! A worker is chosen when a link says whose it is, so that an instance's links lie on different workers in whatever
//! order links come, go, and come again. Nothing here knows what a worker is, nor moves anything.

use rustc_hash::FxHashMap;

use crate::routing::instance::{InstanceKey, LinkId};

/// The live links, and how many each worker has.
#[derive(Debug)]
pub(super) struct Placement {
    links: FxHashMap<LinkId, (InstanceKey, usize)>,
    per_worker: Vec<usize>,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Self {
        Self { links: FxHashMap::default(), per_worker: vec![0; workers.max(1)] }
    }

    /// The worker for a further link of an instance that has links on `taken`: one that has the fewest of these, then the
    /// fewest at all, then `here`, where the link is now.
    pub(super) fn choose(&self, taken: impl IntoIterator<Item = usize>, here: usize) -> usize {
        let mut own = vec![0_usize; self.per_worker.len()];
        for worker in taken {
            if let Some(count) = own.get_mut(worker) {
                *count += 1;
            }
        }
        let counts = own.into_iter().zip(&self.per_worker).enumerate();
        counts.min_by_key(|&(worker, (own, all))| (own, *all, worker != here)).map_or(here, |(worker, _)| worker)
    }

    pub(super) fn insert(&mut self, link: LinkId, of: InstanceKey, worker: usize) {
        self.links.insert(link, (of, worker));
        if let Some(count) = self.per_worker.get_mut(worker) {
            *count += 1;
        }
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<InstanceKey> {
        let (of, worker) = self.links.remove(&link)?;
        if let Some(count) = self.per_worker.get_mut(worker) {
            *count = count.saturating_sub(1);
        }
        Some(of)
    }

    /// The instance that a live link belongs to.
    pub(super) fn instance_of(&self, link: LinkId) -> Option<InstanceKey> {
        self.links.get(&link).map(|(of, _)| *of)
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Live links of each worker.
    pub(super) fn per_worker(&self) -> &[usize] {
        &self.per_worker
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop, prop_assert, proptest};

    use super::*;

    #[test]
    fn the_own_links_decide_first_then_all_links_then_where_it_is() {
        let mut placement = Placement::new(3);
        assert_eq!(placement.choose([], 2), 2, "nobody has any");
        assert_eq!(placement.choose([2], 2), 0, "any of the others");
        placement.insert(LinkId(1), InstanceKey(1), 0);
        assert_eq!(placement.choose([2], 0), 1, "the one with the fewest");
        assert_eq!(placement.choose([1, 2], 1), 0, "the own ones count more than all others");
        assert_eq!(placement.choose([0, 1, 2], 0), 1);
        assert_eq!(placement.remove(LinkId(1)), Some(InstanceKey(1)));
        assert_eq!(placement.remove(LinkId(1)), None);
        assert_eq!((placement.len(), placement.per_worker()), (0, &[0, 0, 0][..]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Instances with as many links as there are workers have one on each, after any of them was lost and made anew,
        /// wherever the kernel's luck let it come in.
        #[test]
        fn links_of_an_instance_lie_apart_whatever_is_lost_and_comes_again(
            workers in 1..5_usize,
            turns in prop::collection::vec((0..4_u64, 0..4_usize, 0..5_usize), 0..200),
        ) {
            let mut placement = Placement::new(workers);
            // By instance, then by the link's number.
            let mut live = vec![vec![None; workers]; 4];
            let mut next = 0;
            for (instance, number, here) in turns {
                let (number, here) = (number % workers, here % workers);
                let own = &mut live[usize::try_from(instance).unwrap()];
                if let Some((old, _)) = own[number].take() {
                    placement.remove(old);
                }
                let worker = placement.choose(own.iter().flatten().map(|(_, worker)| *worker), here);
                prop_assert!(own.iter().flatten().all(|(_, other)| *other != worker), "{own:?} and {worker}");
                next += 1;
                placement.insert(LinkId(next), InstanceKey(instance), worker);
                own[number] = Some((LinkId(next), worker));
            }
        }
    }
}
