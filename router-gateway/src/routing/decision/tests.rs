//! The decision's steps, one scenario a test.

mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use proptest::prelude::*;
use router_common::endpoint::{Claim, ClaimRequirement};
use router_common::path::RequestPath;
use router_common::problem::{Problem, ProblemCode};

use super::super::fixture::{Settings, Spec, spec, table};
use super::super::instance::{Health, InstanceKey, LinkId};
use super::super::key::EndpointKey;
use super::super::strategy::Strategy as Choosing;
use super::super::table::RouteTable;
use super::super::tombstones::{Graveyard, TOMBSTONE_LIFE, Tombstone};
use super::*;

/// A request in a line: `METHOD /path`, and a version or not.
struct Ask<'a> {
    table: &'a RouteTable<()>,
    now: Instant,
    claims: Option<&'a [Claim]>,
    excluded: &'a [InstanceKey],
    excluded_links: &'a [LinkId],
}

impl<'a> Ask<'a> {
    fn new(table: &'a RouteTable<()>) -> Self {
        Self { table, now: Instant::now(), claims: None, excluded: &[], excluded_links: &[] }
    }

    /// The chosen instance's id, the endpoint's template, and the raw parameters.
    fn details(&self, request: &str, version: Option<&str>) -> Result<(String, String, Vec<String>, bool), Rejection> {
        let (method, raw) = request.split_once(' ').unwrap();
        let path = RequestPath::parse(raw).unwrap();
        let facts = RequestFacts {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            path: &path,
            version_header: version,
            claims: self.claims,
            worker: 0,
            excluded: self.excluded,
            excluded_links: self.excluded_links,
            needs: Needs::Nothing,
            random: 0,
            now: self.now,
        };
        let decision = decide(self.table, &facts)?;
        let parameters = decision.parameters.values(raw).map(str::to_owned).collect();
        let template = decision.endpoint.descriptor.path.to_string();
        Ok((decision.instance.instance().id.to_string(), template, parameters, decision.head_from_get))
    }

    fn id(&self, request: &str, version: Option<&str>) -> Result<String, Rejection> {
        self.details(request, version).map(|(id, ..)| id)
    }

    fn problem(&self, request: &str, version: Option<&str>) -> Problem {
        match self.details(request, version) {
            Err(Rejection::Problem(problem)) => problem,
            Err(Rejection::LeasedOut(..)) => Problem::new(ProblemCode::NoCapacity),
            other => panic!("{request} gave {other:?}"),
        }
    }

    fn code(&self, request: &str, version: Option<&str>) -> ProblemCode {
        self.problem(request, version).code
    }
}

fn plain(specs: &[Spec]) -> RouteTable<()> {
    table(specs, &Settings::default())
}

#[test]
fn a_path_leads_to_its_service_with_parameters_in_the_raw_path() {
    let table = plain(&[spec("orders", "1.0.0", "a", &["GET /orders/{id}", "GET /orders/{id}/files/{*rest}"])]);
    let ask = Ask::new(&table);
    let (id, template, parameters, _) = ask.details("GET /orders/a%20b/files/%78/y", None).unwrap();
    assert_eq!((id.as_str(), template.as_str()), ("a", "/orders/{id}/files/{*rest}"));
    assert_eq!(parameters, ["a%20b", "%78/y"]);
    assert_eq!(ask.code("GET /nothing", None), ProblemCode::RouteNotFound);
    assert_eq!(ask.code("GET /orders/1/", None), ProblemCode::RouteNotFound);
    assert_eq!(ask.code("GET /orders/1/files/a%2Fb", None), ProblemCode::InvalidPath);
    assert_eq!(ask.details("GET /orders/a%2Fb", None).unwrap().2, ["a%2Fb"]);
}

#[test]
fn head_falls_back_to_get_and_wrong_methods_are_told_the_right_ones() {
    let table = plain(&[spec("a", "1.0.0", "i", &["GET /x", "POST /x", "DELETE /y", "HEAD /z", "OPTIONS /o"])]);
    let ask = Ask::new(&table);
    assert!(ask.details("HEAD /x", None).unwrap().3);
    assert!(!ask.details("HEAD /z", None).unwrap().3);
    let problem = ask.problem("PUT /x", None);
    assert_eq!(problem.code, ProblemCode::MethodNotAllowed);
    assert_eq!(problem.allow.as_deref(), Some("GET, HEAD, OPTIONS, POST"));
    assert_eq!(ask.problem("HEAD /y", None).allow.as_deref(), Some("DELETE, OPTIONS"));
    assert_eq!(ask.problem("GET /z", None).allow.as_deref(), Some("HEAD, OPTIONS"));
    let options = ask.details("OPTIONS /x", None).unwrap_err();
    assert_eq!(options, Rejection::Options { allow: "GET, HEAD, OPTIONS, POST".into() });
    assert!(ask.details("OPTIONS /o", None).is_ok());
    assert_eq!(ask.code("OPTIONS /nothing", None), ProblemCode::RouteNotFound);
}

#[test]
fn versions_are_strict_and_chosen_by_header_configuration_or_height() {
    let get = &["GET /x"];
    let versions = [
        spec("s", "1.0.0", "one", get),
        spec("s", "1.10.0", "ten", get),
        spec("s", "1.9.0", "nine", get),
        spec("s", "2.0.0-rc.1", "rc", get),
    ];
    let table_one = plain(&versions);
    let ask = Ask::new(&table_one);
    for (header, expected) in [
        (None, "ten"),
        (Some("1.0.0"), "one"),
        (Some("1.0.0+build"), "one"),
        (Some("1.9.0"), "nine"),
        (Some("2.0.0-rc.1"), "rc"),
    ] {
        assert_eq!(ask.id("GET /x", header).unwrap(), expected, "{header:?}");
    }
    for malformed in ["", "1", "1.2", "v1.0.0", "latest", "1.0.0 "] {
        assert_eq!(ask.code("GET /x", Some(malformed)), ProblemCode::InvalidVersion, "{malformed:?}");
    }
    let problem = ask.problem("GET /x", Some("1.0.1"));
    assert_eq!(problem.code, ProblemCode::VersionNotFound);
    assert_eq!(
        problem.versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1"]
    );
    let configured = |version| {
        let settings = Settings { configured_default: Some(version), ..Settings::default() };
        table(&versions, &settings)
    };
    assert_eq!(Ask::new(&configured("1.9.0")).id("GET /x", None).unwrap(), "nine");
    assert_eq!(Ask::new(&configured("1.9.0")).id("GET /x", Some("1.0.0")).unwrap(), "one");
    let problem = Ask::new(&configured("3.0.0")).problem("GET /x", None);
    assert!(problem.code == ProblemCode::NoInstance && problem.retry_after.is_some());
}

#[test]
fn prereleases_serve_only_by_name() {
    let table = plain(&[spec("s", "1.0.0-beta", "b", &["GET /x"])]);
    assert_eq!(Ask::new(&table).code("GET /x", None), ProblemCode::VersionNotFound);
    assert_eq!(Ask::new(&table).id("GET /x", Some("1.0.0-beta")).unwrap(), "b");
}

#[test]
fn a_new_highest_version_is_the_default_only_after_its_promotion() {
    let now = Instant::now();
    let specs = [spec("s", "1.0.0", "old", &["GET /x"]), spec("s", "2.0.0", "new", &["GET /x"])];
    let default_from = BTreeMap::from([("1.0.0", now), ("2.0.0", now + Duration::from_secs(30))]);
    let table = table(&specs, &Settings { default_from, ..Settings::default() });
    let mut ask = Ask::new(&table);
    ask.now = now + Duration::from_secs(29);
    assert_eq!(ask.id("GET /x", None).unwrap(), "old");
    assert_eq!(ask.id("GET /x", Some("2.0.0")).unwrap(), "new");
    ask.now = now + Duration::from_secs(30);
    assert_eq!(ask.id("GET /x", None).unwrap(), "new");
}

#[test]
fn the_path_is_matched_again_in_the_selected_version() {
    let table = plain(&[
        spec("s", "1.0.0", "one", &["GET /a/{x}", "GET /old"]),
        spec("s", "2.0.0", "two", &["GET /a/{x}", "GET /a/b", "HEAD /a/{y}"]),
        spec("t", "1.0.0", "other", &["GET /{*all}"]),
    ]);
    let ask = Ask::new(&table);
    let template = |request, version| ask.details(request, version).unwrap().1;
    assert_eq!(template("GET /a/b", Some("2.0.0")), "/a/b");
    assert_eq!(ask.details("GET /a/b", Some("1.0.0")).unwrap().1, "/a/{x}");
    assert_eq!(ask.details("GET /a/b", Some("1.0.0")).unwrap().2, ["b"]);
    assert!(ask.details("HEAD /a/b", Some("1.0.0")).unwrap().3, "its HEAD is only in the other version");
    let problem = ask.problem("GET /old", None);
    assert_eq!(problem.code, ProblemCode::VersionNotFound, "never another service, never another version");
    assert_eq!(problem.versions.len(), 2);
}

#[test]
fn claims_are_required_and_nobody_has_any_without_authentication() {
    let mut guarded = spec("s", "1.0.0", "a", &["GET /x"]);
    guarded.claims = vec![
        ClaimRequirement { kind: "scope".into(), any_of: vec!["read".into(), "admin".into()] },
        ClaimRequirement { kind: "tenant".into(), any_of: Vec::new() },
    ];
    let table = plain(&[guarded]);
    let mut ask = Ask::new(&table);
    assert_eq!(ask.code("GET /x", None), ProblemCode::Unauthenticated);
    let claim = |kind: &str, value: &str| Claim { kind: kind.into(), value: value.into() };
    let poor = [claim("scope", "read")];
    ask.claims = Some(&poor);
    let problem = ask.problem("GET /x", None);
    assert_eq!(problem.code, ProblemCode::Forbidden);
    assert_eq!(problem.detail.as_deref(), Some("missing claim: tenant"));
    let wrong = [claim("scope", "write"), claim("tenant", "t")];
    ask.claims = Some(&wrong);
    assert_eq!(ask.problem("GET /x", None).detail.as_deref(), Some("missing claim: scope"));
    let rich = [claim("scope", "write"), claim("scope", "admin"), claim("tenant", "t")];
    ask.claims = Some(&rich);
    assert!(ask.id("GET /x", None).is_ok());
}

#[test]
fn health_goes_before_region_and_region_before_round_trip() {
    let get = &["GET /x"];
    let with = |id: &str, tier, health, milliseconds| {
        let round_trip = Duration::from_millis(milliseconds);
        Spec { tier, health, round_trip, ..spec("s", "1.0.0", id, get) }
    };
    let choose = |specs: &[Spec]| Ask::new(&plain(specs)).id("GET /x", None).unwrap();
    let degraded_here = || with("here", 0, Health::Degraded, 1);
    assert_eq!(choose(&[degraded_here(), with("far", 2, Health::Healthy, 90)]), "far");
    assert_eq!(choose(&[degraded_here(), with("far", 2, Health::Degraded, 1)]), "here");
    assert_eq!(choose(&[with("second", 2, Health::Healthy, 1), with("first", 1, Health::Healthy, 90)]), "first");
    assert_eq!(choose(&[with("slow", 0, Health::Healthy, 50), with("quick", 0, Health::Healthy, 9)]), "quick");
    let none = plain(&[with("a", 0, Health::Unhealthy, 1), with("b", 0, Health::Unknown, 1)]);
    assert_eq!(Ask::new(&none).code("GET /x", None), ProblemCode::NoInstance);
}

#[test]
fn draining_unready_tried_and_leased_out_instances_are_passed_over() {
    let get = &["GET /x"];
    let table = plain(&[
        Spec { routable: false, ..spec("s", "1.0.0", "a-unready", get) },
        spec("s", "1.0.0", "b-draining", get),
        Spec { lease: 1, ..spec("s", "1.0.0", "c-small", get) },
        Spec { tier: 1, ..spec("s", "1.0.0", "d-far", get) },
    ]);
    let candidates = &table.services()[0].versions[0].candidates;
    candidates[1].instance.set_draining(true);
    let mut ask = Ask::new(&table);
    assert_eq!(ask.id("GET /x", None).unwrap(), "c-small");
    let permit = candidates[2].instance.lease().try_acquire();
    assert_eq!(ask.id("GET /x", None).unwrap(), "d-far");
    let tried = [candidates[3].instance.key()];
    ask.excluded = &tried;
    assert_eq!(ask.code("GET /x", None), ProblemCode::NoCapacity);
    drop(permit);
    assert_eq!(ask.id("GET /x", None).unwrap(), "c-small");
    let all = [candidates[2].instance.key(), candidates[3].instance.key()];
    ask.excluded = &all;
    assert_eq!(ask.code("GET /x", None), ProblemCode::NoInstance);
}

#[test]
fn an_ejected_instance_serves_only_while_nobody_else_is_fit() {
    let get = &["GET /x"];
    let table = plain(&[
        spec("s", "1.0.0", "a", &["GET /x", "GET /only"]),
        Spec { lease: 1, tier: 1, health: Health::Degraded, ..spec("s", "1.0.0", "b", get) },
        spec("s", "1.0.0", "c", get),
    ]);
    let candidates = &table.services()[0].versions[0].candidates;
    let of = |id: &str| {
        let found = candidates.iter().find(|candidate| candidate.instance.instance().id.as_str() == id);
        found.unwrap().instance.clone()
    };
    let mut ask = Ask::new(&table);
    of("a").set_ejected(true);
    assert!((0..4).all(|_| ask.id("GET /x", None).unwrap() == "c"));
    assert_eq!(ask.id("GET /only", None).unwrap(), "a", "nobody else has this endpoint");
    of("c").set_draining(true);
    assert_eq!(ask.id("GET /x", None).unwrap(), "b", "degraded and far away, but not ejected");
    let permit = of("b").lease().try_acquire();
    assert_eq!(ask.code("GET /x", None), ProblemCode::NoCapacity, "leased out is fit all the same");
    drop(permit);
    let tried = [of("b").key()];
    ask.excluded = &tried;
    assert_eq!(ask.code("GET /x", None), ProblemCode::NoInstance, "so is one that was tried");
    ask.excluded = &[];
    of("b").set_ejected(true);
    assert_eq!(ask.id("GET /x", None).unwrap(), "a", "all are ejected: as if nobody were");
    of("b").set_ejected(false);
    of("b").set_status(Health::Unhealthy, 0);
    assert_eq!(ask.id("GET /x", None).unwrap(), "a", "the last one");
    of("a").set_ejected(false);
    of("c").set_draining(false);
    assert_eq!(ask.id("GET /x", None).unwrap(), "c");
    assert_eq!(ask.id("GET /x", None).unwrap(), "a");
}

#[test]
fn an_instance_serves_again_over_a_link_that_was_not_tried() {
    let table = plain(&[Spec { links: 2, ..spec("s", "1.0.0", "a", &["GET /x"]) }]);
    let links: Vec<LinkId> = table.services()[0].versions[0].candidates[0].links.iter().map(|link| link.id()).collect();
    let path = RequestPath::parse("/x").unwrap();
    let over = |excluded_links: &[LinkId]| {
        let facts = RequestFacts { excluded_links, ..facts(&path, 0) };
        decide(&table, &facts).map(|decision| decision.link.id())
    };
    assert_eq!(over(&[]), Ok(links[0]), "of the own worker");
    assert_eq!(over(&links[..1]), Ok(links[1]));
    assert!(matches!(over(&links), Err(Rejection::Problem(problem)) if problem.code == ProblemCode::NoInstance));
}

#[test]
fn equal_instances_take_turns_and_the_fewest_in_flight_goes_first() {
    let specs: Vec<Spec> = ["a", "b", "c"].map(|id| spec("s", "1.0.0", id, &["GET /x"])).into();
    let table = plain(&specs);
    let ask = Ask::new(&table);
    let ids: Vec<String> = (0..6).map(|_| ask.id("GET /x", None).unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c", "a", "b", "c"]);
    let candidates = &table.services()[0].versions[0].candidates;
    let _permits = [0, 2].map(|place: usize| candidates[place].instance.lease().try_acquire().unwrap());
    assert_eq!(ask.id("GET /x", None).unwrap(), "b");
    assert_eq!(ask.id("GET /x", None).unwrap(), "b");
}

#[test]
fn instances_of_one_version_without_the_endpoint_are_passed_over() {
    let table = plain(&[
        spec("s", "1.0.0", "a", &["GET /x"]),
        spec("s", "1.0.0", "b", &["GET /x", "GET /new"]),
        spec("s", "1.0.0", "c", &["GET /x"]),
    ]);
    let ask = Ask::new(&table);
    assert!((0..4).all(|_| ask.id("GET /new", None).unwrap() == "b"));
}

#[test]
fn more_candidates_than_fit_inline_are_weighed_alike() {
    let specs: Vec<Spec> = (0..100).map(|n| spec("s", "1.0.0", &format!("i{n:03}"), &["GET /x"])).collect();
    let table = plain(&specs);
    let ask = Ask::new(&table);
    let ids: Vec<String> = (0..101).map(|_| ask.id("GET /x", None).unwrap()).collect();
    assert_eq!((ids[0].as_str(), ids[99].as_str(), ids[100].as_str()), ("i000", "i099", "i000"));
}

#[test]
fn an_outage_is_told_from_what_never_was() {
    let now = Instant::now();
    let mut graveyard = Graveyard::default();
    for (text, version) in [("GET /gone", "1.0.0"), ("GET /x", "0.9.0"), ("DELETE /x", "1.0.0")] {
        let descriptor = super::super::fixture::descriptor(1, text);
        let key = EndpointKey::new(descriptor.method.clone(), &descriptor.path);
        let until = now + TOMBSTONE_LIFE;
        let stone = Tombstone { service: "s".parse().unwrap(), version: version.parse().unwrap(), until };
        graveyard.lost(&key, &descriptor.path, stone);
    }
    let settings = Settings { tombstones: graveyard.snapshot(), ..Settings::default() };
    let table = table(&[spec("s", "1.0.0", "a", &["GET /x"])], &settings);
    let mut ask = Ask::new(&table);
    ask.now = now;
    let problem = ask.problem("GET /gone", None);
    assert!(problem.code == ProblemCode::NoInstance && problem.retry_after.is_some());
    assert_eq!(ask.code("GET /gone", Some("2.0.0")), ProblemCode::RouteNotFound);
    assert_eq!(ask.code("GET /x", Some("0.9.0")), ProblemCode::NoInstance);
    assert_eq!(ask.code("GET /x", Some("0.8.0")), ProblemCode::VersionNotFound);
    assert_eq!(ask.code("DELETE /x", None), ProblemCode::NoInstance);
    assert_eq!(ask.id("GET /x", None).unwrap(), "a", "another version serves");
    ask.now = now + TOMBSTONE_LIFE;
    assert_eq!(ask.code("GET /gone", None), ProblemCode::RouteNotFound);
    assert_eq!(ask.code("GET /x", Some("0.9.0")), ProblemCode::VersionNotFound);
}

/// Keeps all that it hears.
#[derive(Default)]
struct Listener {
    fell: Vec<(Step, usize, Why)>,
    survived: Vec<(Step, usize)>,
}

impl Trace for Listener {
    const LISTENS: bool = true;

    fn fell(&mut self, step: Step, place: usize, why: Why) {
        self.fell.push((step, place, why));
    }
    fn survived(&mut self, step: Step, count: usize) {
        self.survived.push((step, count));
    }
}

fn facts<'a>(path: &'a RequestPath<'a>, random: u64) -> RequestFacts<'a> {
    RequestFacts {
        method: &Method::GET,
        path,
        version_header: None,
        claims: None,
        worker: 0,
        excluded: &[],
        excluded_links: &[],
        needs: Needs::Nothing,
        random,
        now: Instant::now(),
    }
}

#[test]
fn a_trace_hears_why_each_instance_fell_and_changes_nothing() {
    let get = &["GET /x"];
    let specs = [
        spec("s", "1.0.0", "a", get),
        spec("s", "1.0.0", "b", get),
        Spec { round_trip: Duration::from_millis(80), ..spec("s", "1.0.0", "c", get) },
        Spec { health: Health::Degraded, ..spec("s", "1.0.0", "d", get) },
        Spec { tier: 3, ..spec("s", "1.0.0", "e", get) },
    ];
    let table = plain(&specs);
    let path = RequestPath::parse("/x").unwrap();
    for _ in 0..2 {
        let mut listener = Listener::default();
        let outcome = decide_traced(&table, &facts(&path, 0), &mut listener).unwrap();
        assert_eq!(outcome.candidate.instance.instance().id.as_str(), "a");
        assert_eq!(
            listener.fell,
            [
                (Step::Health, 3, Why::Degraded),
                (Step::Region, 4, Why::Farther),
                (Step::RoundTrip, 2, Why::Slower),
                (Step::Turn, 1, Why::NotItsTurn),
            ]
        );
        assert_eq!(listener.survived.first(), Some(&(Step::Available, 5)));
        assert_eq!(listener.survived.last(), Some(&(Step::Turn, 1)));
    }
}

fn any_strategy() -> impl Strategy<Value = Choosing> {
    prop_oneof![
        3 => Just(Choosing::LowestPing), 1 => Just(Choosing::LeastLoaded), 1 => Just(Choosing::RoundRobin),
        1 => Just(Choosing::Random)
    ]
}

fn any_spec() -> impl Strategy<Value = Spec> {
    (0..3_u16, 0..3_u8, 1..40_u64, 0..3_u32, prop::bool::weighted(0.9)).prop_map(
        |(tier, health, ms, lease, routable)| {
            let health = [Health::Healthy, Health::Degraded, Health::Unhealthy][usize::from(health)];
            let round_trip = Duration::from_millis(ms);
            Spec { tier, health, round_trip, lease, routable, ..spec("s", "1.0.0", "", &["GET /x"]) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_traced_decision_is_the_untraced_one_and_the_order_of_instances_is_nothing_to_it(
        mut specs in prop::collection::vec(any_spec(), 1..12),
        random in any::<u64>(),
        strategy in any_strategy(),
        ejected in any::<u16>(),
        seed in any::<u64>(),
    ) {
        for (number, spec) in specs.iter_mut().enumerate() {
            spec.id = format!("i{number}");
        }
        let path = RequestPath::parse("/x").unwrap();
        let facts = facts(&path, random);
        let settings = || Settings { strategy, ..Settings::default() };
        let table = |specs: &[Spec]| {
            let table = table(specs, &settings());
            for candidate in table.services()[0].versions[0].candidates.iter() {
                let number: u32 = candidate.instance.instance().id.as_str()[1..].parse().unwrap();
                candidate.instance.set_ejected(ejected >> number & 1 == 1);
            }
            table
        };
        // Several requests, so that turns matter too.
        let chosen = |table: &RouteTable<()>| {
            let choose = |_| decide(table, &facts).map(|decision| decision.instance.instance().id.clone());
            (0..4).map(choose).collect::<Vec<_>>()
        };
        let first_table = table(&specs);
        let traced = decide_traced(&first_table, &facts, &mut Listener::default())
            .map(|outcome| outcome.candidate.instance.instance().id.clone());
        let untraced = chosen(&first_table);
        prop_assert_eq!(&traced, &untraced[0]);
        specs.sort_by_key(|spec| spec.id.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
        }));
        prop_assert_eq!(&chosen(&table(&specs)), &untraced);
        specs.reverse();
        prop_assert_eq!(&chosen(&table(&specs)), &untraced);
    }
}

#[test]
fn a_link_of_the_asking_worker_is_used() {
    let table = plain(&[spec("s", "1.0.0", "a", &["GET /x"])]);
    let path = RequestPath::parse("/x").unwrap();
    let decision = decide(&table, &facts(&path, 0)).unwrap();
    assert!(Arc::ptr_eq(decision.link, &table.services()[0].versions[0].candidates[0].links[0]));
    // Only just: the instance itself was fit when it was looked at. The link refuses, and nothing is lost.
    decision.link.set_draining();
    assert!(decide(&table, &facts(&path, 0)).is_ok());
    decision.instance.set_draining(true);
    assert!(decide(&table, &facts(&path, 0)).is_err());
}
