//! RouteTable: the immutable snapshot that requests are decided on, method x path x version (SPEC 2, 5).
//!
//! A table has two halves. The [`Shape`] says which endpoints there are; it is built anew only when an endpoint set
//! comes or goes. The *live* half says which instances have them; it changes with every join, drain and loss, and
//! costs a few microseconds, however many endpoints there are. Nothing here chooses an instance.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use http::Method;
use router_common::endpoint::{ClaimRequirement, EndpointDescriptor};
use router_common::identity::{ServiceName, Version};
use router_common::path::{Parameters, RequestPath};
use rustc_hash::FxHashMap;

use super::changes::Changes;
use super::instance::Candidate;
use super::key::EndpointKey;
use super::nearest::{self, Nearest, Remembered};
use super::strategy::{Choice, Strategy};
use super::tombstones::Tombstones;
use super::trace::VersionBy;
use super::trie::Trie;

/// An endpoint as requests see it: the service's descriptor with the gateway's overrides applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEndpoint {
    pub service: ServiceName,
    pub version: Version,
    pub descriptor: EndpointDescriptor,
}

/// The endpoints of some instances of one version, as they registered them. Instances with equal sets share one.
#[derive(Debug)]
pub struct EndpointSet {
    pub endpoints: Vec<(EndpointKey, Arc<RouteEndpoint>)>,
}

/// The endpoint sets of one service, for [`Shape::build`]. Versions ascend.
#[derive(Debug, Clone)]
pub struct ServiceSets {
    pub name: ServiceName,
    pub versions: Vec<(Version, Vec<Arc<EndpointSet>>)>,
}

/// Which endpoints there are.
#[derive(Debug, Default)]
pub struct Shape {
    methods: FxHashMap<Method, Trie<LeafIndex>>,
    leaves: Vec<Leaf>,
    services: Vec<ServiceName>,
}

/// A leaf's place plus one, so that an absent one takes no room of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeafIndex(NonZeroU32);

impl LeafIndex {
    fn new(place: usize) -> Self {
        // Far fewer endpoints are registered than would fill 32 bits.
        let number = u32::try_from(place).ok().and_then(|place| place.checked_add(1)).and_then(NonZeroU32::new);
        Self(number.unwrap_or(NonZeroU32::MAX))
    }

    const fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// One endpoint, in all its versions.
#[derive(Debug)]
struct Leaf {
    service: usize,
    /// By the version's place in its service.
    versions: Vec<Option<RouteVersion>>,
}

/// One endpoint in one version.
#[derive(Debug)]
pub struct RouteVersion {
    /// By endpoint set; instances of one version may differ while an update is on its way through them.
    pub(super) endpoints: Vec<Option<Arc<RouteEndpoint>>>,
    /// What a caller must hold, whichever instance serves it: all that any of the sets asks for.
    pub(super) requiring_claims: Vec<ClaimRequirement>,
    /// Where the turn among equally good instances stands.
    pub(super) turn: AtomicU32,
}

impl Shape {
    /// Builds from the sets of all services, in any fixed order; `owns` says which of the endpoints are really the
    /// service's. Takes less than 1 us an endpoint.
    #[must_use]
    pub fn build(services: &[ServiceSets], owns: impl Fn(&ServiceName, &EndpointKey) -> bool) -> Self {
        let mut shape = Self::default();
        for (place, service) in services.iter().enumerate() {
            shape.services.push(service.name.clone());
            for (version, (_, sets)) in service.versions.iter().enumerate() {
                for (set, endpoints) in sets.iter().enumerate() {
                    for (key, endpoint) in &endpoints.endpoints {
                        if owns(&service.name, key) {
                            shape.add(key, endpoint, Position { service: place, version, set, sets: sets.len() });
                        }
                    }
                }
            }
        }
        shape
    }

    fn add(&mut self, key: &EndpointKey, endpoint: &Arc<RouteEndpoint>, at: Position) {
        let trie = self.methods.entry(key.method().clone()).or_default();
        let fresh = LeafIndex::new(self.leaves.len());
        let leaf = *trie.place(&endpoint.descriptor.path).get_or_insert(fresh);
        if leaf == fresh {
            self.leaves.push(Leaf { service: at.service, versions: Vec::new() });
        }
        let Some(leaf) = self.leaves.get_mut(leaf.place()) else { return };
        if leaf.versions.len() <= at.version {
            leaf.versions.resize_with(at.version + 1, || None);
        }
        let Some(version) = leaf.versions.get_mut(at.version) else { return };
        let version = version.get_or_insert_with(|| RouteVersion {
            endpoints: vec![None; at.sets],
            requiring_claims: Vec::new(),
            turn: AtomicU32::new(0),
        });
        for requirement in &endpoint.descriptor.requiring_claims {
            if !version.requiring_claims.contains(requirement) {
                version.requiring_claims.push(requirement.clone());
            }
        }
        if let Some(place) = version.endpoints.get_mut(at.set) {
            *place = Some(endpoint.clone());
        }
    }

    /// Distinct endpoints (method and canonical template).
    #[must_use]
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The services, in the order of the table's live half.
    #[must_use]
    pub fn services(&self) -> &[ServiceName] {
        &self.services
    }

    #[inline]
    fn find(&self, method: &Method, path: &RequestPath<'_>, accept: impl Fn(LeafIndex) -> bool) -> Option<Found> {
        let find = |method| self.methods.get(method).and_then(|trie| trie.find(path, |leaf| accept(*leaf)));
        if let Some((&leaf, parameters)) = find(method) {
            return Some(Found { leaf, parameters, head_from_get: false });
        }
        if *method != Method::HEAD {
            return None;
        }
        let (&leaf, parameters) = find(&Method::GET)?;
        Some(Found { leaf, parameters, head_from_get: true })
    }

    fn leaf(&self, index: LeafIndex) -> Option<&Leaf> {
        self.leaves.get(index.place())
    }
}

struct Position {
    service: usize,
    version: usize,
    set: usize,
    sets: usize,
}

struct Found {
    leaf: LeafIndex,
    parameters: Parameters,
    head_from_get: bool,
}

/// Which instances of a service there are.
#[derive(Debug)]
pub struct ServiceLive<H> {
    pub name: ServiceName,
    /// `default_version` of the configuration.
    pub configured_default: Option<Version>,
    /// Ascending, and in the places the shape was built with.
    pub versions: Vec<VersionLive<H>>,
}

/// Which instances of a version there are.
#[derive(Debug)]
pub struct VersionLive<H> {
    pub version: Version,
    /// In canonical order: by tier, then by instance id, then by region.
    pub candidates: Arc<[Candidate<H>]>,
    /// Whether at least one instance may be routed to, drains and health aside.
    pub in_service: bool,
    /// When it may serve those who name no version (SPEC 2); `None` for pre-releases and while too few instances live.
    pub default_from: Option<Instant>,
    /// Where each tier of the candidates begins and ends.
    tiers: Box<[Range<u32>]>,
    changes: Option<Arc<Changes>>,
    nearest: Remembered,
}

impl<H> VersionLive<H> {
    /// `candidates` stand in canonical order.
    #[must_use]
    pub fn new(
        version: Version,
        candidates: Arc<[Candidate<H>]>,
        in_service: bool,
        default_from: Option<Instant>,
    ) -> Self {
        let (tiers, changes) = (nearest::tiers(&candidates), nearest::changes(&candidates));
        Self { version, candidates, in_service, default_from, tiers, changes, nearest: Remembered::default() }
    }

    /// What the strategy chooses, if that can be told without looking at everybody.
    #[inline]
    pub(super) fn choose_near(
        &self,
        strategy: Strategy,
        turn: u32,
        serves: impl Fn(&Candidate<H>) -> bool,
    ) -> Option<Choice> {
        let nearest = Nearest::of(&self.candidates, self.changes.as_deref()?, &self.nearest)?;
        nearest.choose(strategy, &self.candidates, &self.tiers, turn, serves)
    }
}

impl<H> ServiceLive<H> {
    /// The place of a version that is live.
    pub(super) fn find_version(&self, version: &Version) -> Option<usize> {
        let place = self.versions.binary_search_by(|live| live.version.cmp(version)).ok()?;
        self.versions.get(place).filter(|live| live.is_live()).map(|_| place)
    }

    /// The place of the version for those who name none: the highest promoted release, or else the highest release
    /// that is in service, or else the highest release.
    pub(super) fn default_version(&self, now: Instant) -> Option<(usize, VersionBy)> {
        let releases =
            || self.versions.iter().enumerate().rev().filter(|(_, v)| v.is_live() && !v.version.is_prerelease());
        releases()
            .find(|(_, live)| live.default_from.is_some_and(|from| from <= now))
            .map(|(place, _)| (place, VersionBy::HighestPromoted))
            .or_else(|| Some((releases().find(|(_, live)| live.in_service)?.0, VersionBy::HighestInService)))
            .or_else(|| Some((releases().next()?.0, VersionBy::HighestLive)))
    }

    /// The versions that are live, ascending.
    pub fn live_versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(|live| live.is_live()).map(|live| &live.version)
    }
}

impl<H> VersionLive<H> {
    fn is_live(&self) -> bool {
        !self.candidates.is_empty()
    }
}

/// What requests are decided on. `H` is what sends requests over a link.
pub struct RouteTable<H> {
    shape: Arc<Shape>,
    services: Vec<Arc<ServiceLive<H>>>,
    tombstones: Arc<Tombstones>,
    strategy: Strategy,
}

/// An endpoint that a path leads to, before a version is selected.
#[derive(Debug)]
pub struct Matched<'t, H> {
    pub service: &'t ServiceLive<H>,
    leaf: LeafIndex,
    service_place: usize,
    parameters: Parameters,
    head_from_get: bool,
}

/// An endpoint in the selected version.
#[derive(Debug)]
pub struct Selected<'t, H> {
    pub version: &'t VersionLive<H>,
    pub route: &'t RouteVersion,
    pub parameters: Parameters,
    /// The request is HEAD, and the endpoint is the GET one.
    pub head_from_get: bool,
}

/// Why a request leads to no endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoMatch {
    NotFound,
    /// An encoded slash stands in the way; without it there might be a match, and guessing is refused (SPEC 2).
    EncodedSlash,
    /// The path exists; `allow` are its methods, as in the `Allow` field.
    MethodNotAllowed {
        allow: String,
    },
    /// OPTIONS for a path that exists, and that no service answers itself.
    Options {
        allow: String,
    },
}

impl<H> RouteTable<H> {
    /// Joins the two halves; `services` stand in the order of [`Shape::services`].
    #[must_use]
    pub fn new(
        shape: Arc<Shape>,
        services: Vec<Arc<ServiceLive<H>>>,
        tombstones: Arc<Tombstones>,
        strategy: Strategy,
    ) -> Self {
        Self { shape, services, tombstones, strategy }
    }

    /// A table with nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Arc::default(), Vec::new(), Arc::default(), Strategy::default())
    }

    /// The endpoint of a method and path, and so its service. HEAD falls back to GET.
    ///
    /// # Errors
    ///
    /// [`NoMatch`] says what to answer instead.
    #[inline]
    pub fn matched(&self, method: &Method, path: &RequestPath<'_>) -> Result<Matched<'_, H>, NoMatch> {
        let Some(found) = self.shape.find(method, path, |_| true) else { return Err(self.no_match(method, path)) };
        let place = self.shape.leaf(found.leaf).map(|leaf| leaf.service);
        let Some((service_place, service)) = place.and_then(|place| Some((place, self.services.get(place)?))) else {
            return Err(NoMatch::NotFound);
        };
        let Found { leaf, parameters, head_from_get } = found;
        Ok(Matched { service, leaf, service_place, parameters, head_from_get })
    }

    /// Matches again, in the selected version's endpoints (SPEC 2): `None` if this version has none for the path.
    #[inline]
    pub(super) fn select<'t>(
        &'t self,
        matched: &mut Matched<'t, H>,
        version: usize,
        method: &Method,
        path: &RequestPath<'_>,
    ) -> Option<Selected<'t, H>> {
        let live = matched.service.versions.get(version)?;
        // The best of all endpoints is the best of the version's if the version has it at all.
        if let Some(route) = self.shape.leaf(matched.leaf)?.version(version) {
            let parameters = std::mem::take(&mut matched.parameters);
            return Some(Selected { version: live, route, parameters, head_from_get: matched.head_from_get });
        }
        let of_version = |leaf: &Leaf| leaf.service == matched.service_place && leaf.version(version).is_some();
        let found = self.shape.find(method, path, |leaf| self.shape.leaf(leaf).is_some_and(of_version))?;
        let route = self.shape.leaf(found.leaf)?.version(version)?;
        Some(Selected { version: live, route, parameters: found.parameters, head_from_get: found.head_from_get })
    }

    #[cold]
    fn no_match(&self, method: &Method, path: &RequestPath<'_>) -> NoMatch {
        let mut methods: Vec<&str> = self
            .shape
            .methods
            .iter()
            .filter(|(_, trie)| trie.find(path, |_| true).is_some())
            .map(|(method, _)| method.as_str())
            .collect();
        if methods.is_empty() {
            return if path.has_encoded_slash() { NoMatch::EncodedSlash } else { NoMatch::NotFound };
        }
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.dedup();
        let allow = methods.join(", ");
        if *method == Method::OPTIONS { NoMatch::Options { allow } } else { NoMatch::MethodNotAllowed { allow } }
    }

    #[must_use]
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    #[must_use]
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The services and their instances.
    #[must_use]
    pub fn services(&self) -> &[Arc<ServiceLive<H>>] {
        &self.services
    }
}

impl Leaf {
    fn version(&self, place: usize) -> Option<&RouteVersion> {
        self.versions.get(place)?.as_ref()
    }
}

impl<H> fmt::Debug for RouteTable<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable")
            .field("endpoints", &self.shape.len())
            .field("services", &self.services.len())
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}
