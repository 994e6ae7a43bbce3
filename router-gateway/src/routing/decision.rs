//! The routing decision: one function of a snapshot and the facts of one request (SPEC 5).
//!
//! [`decide_traced`] changes nothing and reads no clock; whoever wants to know why an instance was chosen runs the same
//! function with a [`Trace`] that listens. [`decide`] is that function plus the turn that moves on. Neither takes a
//! lock, and neither allocates for up to [`INLINE_CANDIDATES`] instances of the selected version.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::Method;
use router_common::endpoint::{Claim, ClaimRequirement};
use router_common::identity::Version;
use router_common::path::{Parameters, PathError, RequestPath};
use router_common::problem::{Problem, ProblemCode};

use super::instance::{Candidate, ChosenLink, Fitness, Health, InstanceKey, InstanceState, LinkId, LinkState, Needs};
use super::strategy::Choice;
use super::survivors::{Seen, Survivors};
use super::table::{Matched, NoMatch, RouteEndpoint, RouteTable, Selected, VersionLive};
use super::trace::{Step, Trace, Untraced, VersionBy, Why};

/// Instances of one version that are weighed without an allocation.
pub const INLINE_CANDIDATES: usize = 16;
/// What clients are told to wait after an outage: about the time a service takes to come back.
pub const OUTAGE_RETRY_AFTER: Duration = Duration::from_secs(5);
/// What clients are told to wait while no instance is ready yet.
pub const NOT_READY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// All that a decision may depend on, besides the snapshot.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    pub path: &'a RequestPath<'a>,
    /// The value of the version header, if there is one; an unreadable one is to be given as an empty text.
    pub version_header: Option<&'a str>,
    /// What the caller proved to hold; `None`: the caller proved nothing. While no authentication is configured that is
    /// everyone, so that endpoints that require claims stay closed (SPEC 9).
    pub claims: Option<&'a [Claim]>,
    /// The worker that asks: links of its own are preferred.
    pub worker: usize,
    /// Instances this request has already tried in vain.
    pub excluded: &'a [InstanceKey],
    /// Links it has already tried in vain; an instance that has others may serve it over those.
    pub excluded_links: &'a [LinkId],
    /// What it turned out to need of a link; what its endpoint needs is known anyway.
    pub needs: Needs,
    /// For the strategies that draw.
    pub random: u64,
    pub now: Instant,
}

/// Where a request goes. Borrowed from the snapshot: clone what must outlive it.
#[derive(Debug)]
pub struct Decision<'t, H> {
    pub instance: &'t Arc<InstanceState>,
    pub link: &'t Arc<LinkState<H>>,
    /// The endpoint as that instance registered it, with the gateway's overrides.
    pub endpoint: &'t Arc<RouteEndpoint>,
    /// Where the path parameters stand in the raw path, in the template's order.
    pub parameters: Parameters,
    /// The client sent HEAD, and the endpoint is the GET one: the body is left out.
    pub head_from_get: bool,
    pub servers: Servers,
}

/// Which instances of the selected version an endpoint is served by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Servers {
    /// All of them: whoever needs one of its endpoints needs the same capacity.
    All,
    /// Those that have registered it, while an update is on its way through them.
    Some,
}

/// What to answer instead of sending the request anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// 204 with this `Allow`: OPTIONS for a path that exists, and that no service answers itself (SPEC 2).
    Options {
        allow: String,
    },
    /// Every instance that could serve it is leased out: wait for a slot, or say `no_capacity` (SPEC 5). The endpoint is
    /// as one of them registered it.
    LeasedOut(Arc<RouteEndpoint>, Servers),
    Problem(Problem),
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<NoMatch> for Rejection {
    fn from(no_match: NoMatch) -> Self {
        match no_match {
            NoMatch::NotFound => Problem::new(ProblemCode::RouteNotFound).into(),
            NoMatch::EncodedSlash => Problem::from(PathError::EncodedSlash).into(),
            NoMatch::MethodNotAllowed { allow } => Problem::new(ProblemCode::MethodNotAllowed).allow(allow).into(),
            NoMatch::Options { allow } => Self::Options { allow },
        }
    }
}

/// Decides one request, and moves the turns on.
///
/// # Errors
///
/// [`Rejection`]: what to answer instead.
pub fn decide<'t, H>(table: &'t RouteTable<H>, facts: &RequestFacts<'_>) -> Result<Decision<'t, H>, Rejection> {
    let outcome = decide_traced(table, facts, &mut Untraced)?;
    let turn = &outcome.selected.route.turn;
    if let Some(next) = outcome.next_turn
        && turn.load(Ordering::Relaxed) != next
    {
        // All threads share it: nothing is written where nothing changes.
        turn.store(next, Ordering::Relaxed);
    }
    if let Some(turn) = outcome.link.next_turn {
        outcome.candidate.instance.set_link_turn(turn);
    }
    Ok(Decision {
        instance: &outcome.candidate.instance,
        link: outcome.link.link,
        endpoint: outcome.endpoint,
        servers: outcome.selected.servers(),
        parameters: outcome.selected.parameters,
        head_from_get: outcome.selected.head_from_get,
    })
}

/// A decision that has not happened yet.
#[derive(Debug)]
pub struct Outcome<'t, H> {
    pub selected: Selected<'t, H>,
    pub candidate: &'t Candidate<H>,
    pub endpoint: &'t Arc<RouteEndpoint>,
    link: ChosenLink<'t, H>,
    next_turn: Option<u32>,
}

impl<'t, H> Outcome<'t, H> {
    /// The link to use.
    #[must_use]
    pub const fn link(&self) -> &'t Arc<LinkState<H>> {
        self.link.link
    }
}

/// The decision itself, without any effect.
///
/// # Errors
///
/// As [`decide`].
pub fn decide_traced<'t, H, T: Trace>(
    table: &'t RouteTable<H>,
    facts: &RequestFacts<'_>,
    trace: &mut T,
) -> Result<Outcome<'t, H>, Rejection> {
    // (1) match method and path
    let mut matched = match table.matched(facts.method, facts.path) {
        Ok(matched) => matched,
        Err(no_match) => return Err(unmatched(table, facts, no_match)),
    };
    trace.service(&matched.service.name);
    // (2) select the version, and match again in its endpoints
    let (version, by) = select_version(table, &matched, facts)?;
    if let Some(live) = matched.service.versions.get(version) {
        trace.version(&live.version, by);
    }
    let Some(selected) = table.select(&mut matched, version, facts.method, facts.path) else {
        let wanted = matched.service.versions.get(version).map(|live| &live.version);
        let detail = "this version of the service has no such endpoint";
        return Err(match wanted {
            Some(wanted) => unselected(table, facts, &matched, wanted, detail),
            None => version_not_found(&matched, detail),
        });
    };
    if T::LISTENS
        && let Some(endpoint) = selected.route.endpoints.iter().flatten().next()
    {
        let descriptor = &endpoint.descriptor;
        trace.endpoint(&descriptor.method, &descriptor.path, &selected.route.requiring_claims);
    }
    // (3) authorize
    authorize(&selected.route.requiring_claims, facts.claims)?;
    trace.authorized();
    // (4) to (8) choose an instance
    let turn = selected.route.turn.load(Ordering::Relaxed);
    if !T::LISTENS
        && let Some(choice) =
            selected.version.choose_near(table.strategy(), turn, |candidate| selected.serves(candidate, facts))
    {
        return outcome(selected, choice, facts);
    }
    let mut inline = [Seen::default(); INLINE_CANDIDATES];
    let mut large = Vec::new();
    let candidates = &selected.version.candidates;
    let buffer = match inline.get_mut(..candidates.len()) {
        Some(buffer) => buffer,
        None => {
            large.resize(candidates.len(), Seen::default());
            &mut large[..]
        }
    };
    let mut survivors = available(&selected, facts, buffer, trace)?;
    survivors.keep_nearest(trace);
    match table.strategy().choose(survivors, turn, facts.random, trace) {
        Some(choice) => outcome(selected, choice, facts),
        None => Err(no_instance().into()),
    }
}

fn outcome<'t, H>(
    selected: Selected<'t, H>,
    choice: Choice,
    facts: &RequestFacts<'_>,
) -> Result<Outcome<'t, H>, Rejection> {
    let found = selected.version.candidates.get(choice.place).and_then(|candidate| {
        let endpoint = selected.route.endpoints.get(candidate.set)?.as_ref()?;
        let needs = if endpoint.descriptor.is_streaming() { Needs::Streaming } else { facts.needs };
        Some((candidate, endpoint, candidate.link(facts.worker, facts.excluded_links, needs)?))
    });
    // Whoever is chosen has the endpoint, and an instance without links is in no table.
    let Some((candidate, endpoint, link)) = found else { return Err(no_instance().into()) };
    Ok(Outcome { selected, candidate, endpoint, link, next_turn: choice.next_turn })
}

/// Step 1 without a match: "does not exist", or "not so", unless an outage explains it.
#[cold]
fn unmatched<H>(table: &RouteTable<H>, facts: &RequestFacts<'_>, no_match: NoMatch) -> Rejection {
    if matches!(no_match, NoMatch::NotFound | NoMatch::MethodNotAllowed { .. }) {
        // A malformed version names none: no service was found that could have it.
        let version = facts.version_header.and_then(|text| text.parse().ok());
        if table.tombstones().explains(facts.method, facts.path, version.as_ref(), facts.now) {
            return no_instance().into();
        }
    }
    no_match.into()
}

/// Step 2 without an endpoint: "not in this version", unless an outage explains it.
#[cold]
fn unselected<H>(
    table: &RouteTable<H>,
    facts: &RequestFacts<'_>,
    matched: &Matched<'_, H>,
    version: &Version,
    detail: &'static str,
) -> Rejection {
    if table.tombstones().explains(facts.method, facts.path, Some(version), facts.now) {
        return no_instance().into();
    }
    version_not_found(matched, detail)
}

/// Step 2: the version that is asked for, or the service's default; its place in the service.
fn select_version<H>(
    table: &RouteTable<H>,
    matched: &Matched<'_, H>,
    facts: &RequestFacts<'_>,
) -> Result<(usize, VersionBy), Rejection> {
    let service = matched.service;
    if let Some(text) = facts.version_header {
        let version = parse_version(text)?;
        return service
            .find_version(&version)
            .map(|place| (place, VersionBy::Header))
            .ok_or_else(|| unselected(table, facts, matched, &version, "this version of the service is not live"));
    }
    if let Some(version) = &service.configured_default {
        // Never another version in its place (SPEC 5).
        let place = service.find_version(version).map(|place| (place, VersionBy::ConfiguredDefault));
        return place.ok_or_else(|| {
            let detail = "the service's default version is not live";
            Problem::new(ProblemCode::NoInstance).detail(detail).retry_after(OUTAGE_RETRY_AFTER).into()
        });
    }
    service.default_version(facts.now).ok_or_else(|| {
        version_not_found(matched, "only pre-release versions are live: name one with the version header")
    })
}

fn parse_version(text: &str) -> Result<Version, Problem> {
    text.parse().map_err(|error: router_common::identity::NameError| {
        Problem::new(ProblemCode::InvalidVersion).detail(error.to_string())
    })
}

/// Step 3: all requirements must hold (SPEC 9).
fn authorize(required: &[ClaimRequirement], held: Option<&[Claim]>) -> Result<(), Problem> {
    if required.is_empty() {
        return Ok(());
    }
    let Some(held) = held else { return Err(Problem::new(ProblemCode::Unauthenticated)) };
    let holds = |requirement: &&ClaimRequirement| {
        let of_kind = |claim: &&Claim| claim.kind == requirement.kind;
        let values = &requirement.any_of;
        held.iter().filter(of_kind).any(|claim| values.is_empty() || values.contains(&claim.value))
    };
    let missing: Vec<&str> = required
        .iter()
        .filter(|requirement| !holds(requirement))
        .map(|requirement| requirement.kind.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The kinds only: what the caller holds is nobody's business, what would do is told to those who may.
    Err(Problem::new(ProblemCode::Forbidden).detail(format!("missing claim: {}", missing.join(", "))))
}

/// Step 4, of step 5 what never serves, and who is ejected: reads each instance's figures, once.
fn available<'s, H, T: Trace>(
    selected: &Selected<'_, H>,
    facts: &RequestFacts<'_>,
    buffer: &'s mut [Seen],
    trace: &mut T,
) -> Result<Survivors<'s>, Rejection> {
    let VersionLive { candidates, .. } = selected.version;
    let mut survivors = Survivors::new(buffer);
    let mut healthy_tier = u16::MAX;
    // Whether somebody is fit who is not ejected; and who is fit but has no slot, of those and of the ejected ones.
    let (mut sound, mut leased_out) = (false, [None; 2]);
    for (place, candidate) in candidates.iter().enumerate() {
        // They stand by tier: behind a healthy one of a nearer tier, none can win.
        if !T::LISTENS && candidate.tier > healthy_tier {
            break;
        }
        let figures = candidate.instance.figures();
        trace.saw(place, &figures);
        let fitness = figures.fitness;
        let has_endpoint = selected.has_endpoint(candidate);
        if !fitness.is_fit() || !has_endpoint {
            let (step, why) = why_unfit(fitness, has_endpoint);
            trace.fell(step, place, why);
            continue;
        }
        sound |= !fitness.is_ejected();
        if facts.has_tried(candidate) {
            trace.fell(Step::Available, place, Why::Tried);
            continue;
        }
        if figures.in_flight >= figures.lease {
            leased_out[usize::from(fitness.is_ejected())] = Some(candidate.set);
            trace.fell(Step::Available, place, Why::LeasedOut);
            continue;
        }
        if fitness.health() == Health::Healthy && !fitness.is_ejected() {
            healthy_tier = healthy_tier.min(candidate.tier);
        }
        survivors.push(Seen::new(place as u32, candidate.tier, &figures));
    }
    trace.survived(Step::Available, survivors.len());
    survivors.keep_sound(sound, trace);
    if survivors.len() > 0 {
        return Ok(survivors);
    }
    // Whoever waits does so for one who could serve it.
    let [of_sound, of_ejected] = leased_out;
    let leased_out = if sound { of_sound } else { of_ejected };
    match leased_out.and_then(|set| selected.route.endpoints.get(set)?.as_ref()) {
        Some(endpoint) => Err(Rejection::LeasedOut(Arc::clone(endpoint), selected.servers())),
        None => Err(Problem::new(ProblemCode::NoInstance).retry_after(NOT_READY_RETRY_AFTER).into()),
    }
}

impl RequestFacts<'_> {
    /// Whether this request has tried the instance, or all links of it that may carry it.
    #[inline]
    fn has_tried<H>(&self, candidate: &Candidate<H>) -> bool {
        let nothing = self.excluded.is_empty() && self.excluded_links.is_empty();
        !(nothing && self.needs == Needs::Nothing) && self.has_tried_it(candidate)
    }

    #[cold]
    fn has_tried_it<H>(&self, candidate: &Candidate<H>) -> bool {
        self.excluded.contains(&candidate.instance.key())
            || candidate
                .links
                .iter()
                .all(|link| self.excluded_links.contains(&link.id()) || !link.may_carry(self.needs))
    }
}

impl<H> Selected<'_, H> {
    /// Step 4, health aside.
    #[inline]
    fn serves(&self, candidate: &Candidate<H>, facts: &RequestFacts<'_>) -> bool {
        candidate.instance.lease().is_available() && !facts.has_tried(candidate) && self.has_endpoint(candidate)
    }

    #[inline]
    fn has_endpoint(&self, candidate: &Candidate<H>) -> bool {
        // Where there is one set, all have the endpoint: it came from there.
        self.servers() == Servers::All || self.route.endpoints.get(candidate.set).is_some_and(Option::is_some)
    }

    fn servers(&self) -> Servers {
        if self.route.endpoints.len() == 1 { Servers::All } else { Servers::Some }
    }
}

#[cold]
fn why_unfit(fitness: Fitness, has_endpoint: bool) -> (Step, Why) {
    if !has_endpoint {
        return (Step::Available, Why::WithoutEndpoint);
    }
    if !fitness.is_routable() {
        return (Step::Available, Why::NotYetRoutable);
    }
    if fitness.is_draining() {
        return (Step::Available, Why::Draining);
    }
    match fitness.health() {
        Health::Unhealthy => (Step::Health, Why::Unhealthy),
        Health::Unknown => (Step::Health, Why::HealthUnknown),
        // Who is well and may be routed to is not asked about.
        Health::Healthy | Health::Degraded => (Step::Available, Why::NotYetRoutable),
    }
}

fn no_instance() -> Problem {
    Problem::new(ProblemCode::NoInstance).retry_after(OUTAGE_RETRY_AFTER)
}

fn version_not_found<H>(matched: &Matched<'_, H>, detail: &'static str) -> Rejection {
    let live = matched.service.live_versions().cloned().collect();
    Problem::new(ProblemCode::VersionNotFound).detail(detail).versions(live).into()
}

#[cfg(test)]
mod tests;
