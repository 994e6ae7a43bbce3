//! What the registry is told once: the node's place, and how it chooses, promotes and admits.

use std::num::NonZeroU32;

use router_common::identity::Region;
use router_common::limits;
use router_config::RouterConfig;

use super::policy::Policy;
use super::publish::Promotion;
use crate::routing::outlier::OutlierPolicy;
use crate::routing::strategy::Strategy;

/// What the registry is told once.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The node's own region.
    pub region: Region,
    /// The next best regions, the nearest first.
    pub neighbor_regions: Vec<Region>,
    pub strategy: Strategy,
    pub promotion: Promotion,
    /// `None`: nobody is ejected.
    pub outlier: Option<OutlierPolicy>,
    pub policy: Policy,
    /// Threads that drive links.
    pub workers: usize,
}

impl RegistrySettings {
    /// From `router.yaml`, for so many workers.
    #[must_use]
    pub fn from_config<T>(config: &RouterConfig<T>, workers: usize) -> Self {
        use router_config::router::Strategy as Configured;
        let strategy = match config.routing.strategy {
            Configured::LowestPing => Strategy::LowestPing,
            Configured::LeastLoaded => Strategy::LeastLoaded,
            Configured::RoundRobin => Strategy::RoundRobin,
            Configured::Random => Strategy::Random,
        };
        let (promote, outlier) = (&config.routing.promote, &config.routing.outlier);
        Self {
            region: config.node.region.clone(),
            neighbor_regions: config.node.neighbor_regions.clone(),
            strategy,
            promotion: Promotion { instances: promote.instances.get(), after: promote.after.as_duration() },
            outlier: NonZeroU32::new(outlier.consecutive_failures).map(|consecutive_failures| OutlierPolicy {
                consecutive_failures,
                base: outlier.base.as_duration(),
                max_percent: outlier.max_percent,
            }),
            policy: Policy::from_config(&config.services),
            workers,
        }
    }

    /// How many links of one instance the gateway can make use of: one for each worker.
    pub(super) fn links(&self) -> u16 {
        u16::try_from(self.workers).unwrap_or(limits::LINKS).clamp(1, limits::LINKS)
    }

    /// 0: the own region; then the neighbours in their order; then all others.
    pub(super) fn tier(&self, region: &Region) -> u16 {
        if *region == self.region {
            return 0;
        }
        let neighbor = self.neighbor_regions.iter().position(|neighbor| neighbor == region);
        let place = neighbor.unwrap_or(self.neighbor_regions.len());
        u16::try_from(place).map_or(u16::MAX, |place| place.saturating_add(1))
    }
}
