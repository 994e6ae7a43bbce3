//! Choice: which instance a request goes to, over which link, and its wait for one (SPEC 5).
//!
//! Who is best is the routing decision's word. Here it is asked anew until it holds: its slot is taken, nobody in line is
//! passed over, and where a request has been in vain it does not go again.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request};
use router_common::path::RequestPath;
use router_common::problem::{Problem, ProblemCode};
use router_common::session::lease::Permit;
use router_link::{Body, Handle, Parameters};

use super::Inner;
use super::problems::{no_capacity, unfit};
use super::tries::{Excluded, Tries};
use super::waiting::{Full, Wanted};
use crate::routing::explain::explain;
use crate::routing::instance::LinkState;
use crate::routing::{Rejection, RequestFacts, RouteEndpoint, Servers, decide};
use crate::telemetry::Shed;

/// How often a decision is made again because what it rested on changed meanwhile: somebody else took the slot, or a
/// newer table has come.
const LOST_RACES: usize = 4;
/// Where a request goes, free of the snapshot it was found in.
pub(super) struct Chosen {
    pub(super) link: Arc<LinkState<Handle>>,
    pub(super) endpoint: Arc<RouteEndpoint>,
    pub(super) parameters: Parameters,
    pub(super) permit: Permit,
    pub(super) head_from_get: bool,
}

impl Inner {
    /// Decides, and waits in line while every instance is leased out (SPEC 5).
    ///
    /// # Errors
    /// [`Rejection::LeasedOut`] only when there is nothing left to wait for.
    pub(super) async fn find(
        &self,
        // Not changed; but a shared reference to a body could not be held across an await.
        request: &mut Request<Body>,
        method: &Method,
        began: Instant,
        tries: &mut Tries,
    ) -> Result<Chosen, Rejection> {
        loop {
            let (endpoint, servers) = match self.choose_untried(request, method, tries) {
                Ok(chosen) => {
                    tries.place = None;
                    return Ok(chosen);
                }
                Err(Rejection::LeasedOut(endpoint, servers)) => (endpoint, servers),
                Err(Rejection::Problem(problem))
                    if problem.code == ProblemCode::NoInstance && tries.unfit.is_some() =>
                {
                    return Err(tries.unfit.map_or(problem, unfit).into());
                }
                Err(Rejection::Problem(problem)) if tries.are_any() && problem.code == ProblemCode::NoInstance => {
                    // Others were tried and did not see it: it is not that there is nobody.
                    return Err(no_capacity().into());
                }
                Err(rejection) => return Err(rejection),
            };
            let wanted = Wanted::new(&endpoint, servers);
            let place = match tries.place.take_if(|place| *place.wanted() == wanted) {
                Some(place) => tries.place.insert(place),
                // The first one, or routes have changed: what is waited for now is something else.
                None => {
                    tries.place = None;
                    let tenant = self.settings.tenant_header.as_ref().and_then(|name| request.headers().get(name));
                    let place = match self.line.join(wanted, tenant.cloned()) {
                        Ok(place) => place,
                        Err(Full::Lane) => {
                            self.metrics.node().shed(Shed::Waiting);
                            return Err(Rejection::LeasedOut(endpoint, servers));
                        }
                        Err(Full::Line) => return Err(self.shed(Shed::WaitingInNode).into()),
                    };
                    tries.has_waited = true;
                    let place = tries.place.insert(place);
                    if place.begins() {
                        continue;
                    }
                    place
                }
            };
            let until = self.deadline(&endpoint, began, tries.deadline);
            if tokio::time::timeout_at(until.into(), place.woken()).await.is_err() {
                return Err(Rejection::LeasedOut(endpoint, servers));
            }
        }
    }

    /// Where a request goes that may have been somewhere in vain: to an instance that it has not been to; if there is none,
    /// to one that it has, over another link.
    fn choose_untried(&self, request: &Request<Body>, method: &Method, tries: &Tries) -> Result<Chosen, Rejection> {
        let nobody = |rejection: &Rejection| match rejection {
            Rejection::Problem(problem) => problem.code == ProblemCode::NoInstance,
            _ => false,
        };
        let is_out = |rejection: &Rejection| matches!(rejection, Rejection::LeasedOut(..)) || nobody(rejection);
        match (self.choose(request, method, tries, tries.anew()), tries.over_other_links()) {
            (Err(first), Some(others)) if is_out(&first) => match self.choose(request, method, tries, others) {
                // There is somebody to wait for.
                Err(second) if nobody(&second) => Err(first),
                second => second,
            },
            (first, _) => first,
        }
    }

    /// One decision, with its slot taken. No await: the snapshot is let go at the end.
    fn choose(
        &self,
        request: &Request<Body>,
        method: &Method,
        tries: &Tries,
        excluded: Excluded<'_>,
    ) -> Result<Chosen, Rejection> {
        let path = RequestPath::parse(request.uri().path()).map_err(Problem::from)?;
        let mut versions = request.headers().get_all(&self.settings.version_header).iter();
        let version = versions.next();
        if versions.next().is_some() {
            let detail = "The request names a version more than once.";
            return Err(Problem::new(ProblemCode::InvalidVersion).detail(detail).into());
        }
        let facts = RequestFacts {
            method,
            path: &path,
            version_header: version.map(|version| version.to_str().unwrap_or_default()),
            claims: None,
            worker: self.worker,
            excluded: excluded.instances,
            excluded_links: excluded.links,
            needs: tries.needs(),
            random: self.random.random(),
            now: self.environment.now(),
        };
        let mut raced = 0;
        loop {
            raced += 1;
            let table = self.registry.table();
            if tries.explain {
                tries.note_decision(&explain(&table, &facts));
            }
            let decision = match decide(&table, &facts) {
                // The instances of this table have left, or others have come that it does not know.
                Err(Rejection::Problem(problem))
                    if raced < LOST_RACES
                        && is_for_want_of_somebody(problem.code)
                        && self.registry.is_outdated(&table, facts.now) =>
                {
                    continue;
                }
                decision => decision?,
            };
            let is_others = self.is_others(decision.endpoint, decision.servers, tries);
            let permit = if is_others { None } else { decision.instance.lease().try_acquire() };
            if let Some(permit) = permit {
                return Ok(Chosen {
                    link: Arc::clone(decision.link),
                    endpoint: Arc::clone(decision.endpoint),
                    parameters: Parameters::new(decision.parameters.as_slice()),
                    permit,
                    head_from_get: decision.head_from_get,
                });
            }
            if is_others || raced >= LOST_RACES {
                return Err(Rejection::LeasedOut(Arc::clone(decision.endpoint), decision.servers));
            }
        }
    }

    /// Whether a slot that is free belongs to somebody who waits for it, and not to who comes now. Who is sent again
    /// has had its turn.
    fn is_others(&self, endpoint: &RouteEndpoint, servers: Servers, tries: &Tries) -> bool {
        if self.line.len() == 0 || tries.are_any() {
            return false;
        }
        let wanted = Wanted::new(endpoint, servers);
        if tries.place.as_ref().is_some_and(|place| *place.wanted() == wanted) || !self.line.is_awaited(&wanted) {
            return false;
        }
        // It is being told already; but should a change ever come that tells nobody, this does.
        self.line.freed(&endpoint.service, &endpoint.version);
        true
    }
}

/// Whether a newer table may say otherwise.
const fn is_for_want_of_somebody(code: ProblemCode) -> bool {
    use ProblemCode as Code;
    matches!(code, Code::NoInstance | Code::RouteNotFound | Code::VersionNotFound | Code::MethodNotAllowed)
}
