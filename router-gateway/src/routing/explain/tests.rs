//! What an explanation tells, beside what the decision does.

use std::collections::BTreeMap;
use std::time::Duration;

use router_common::path::RequestPath;

use super::super::decision::decide;
use super::super::fixture::{Settings, Spec, spec, table};
use super::super::instance::Needs;
use super::brief::BRIEF_BYTES;
use super::*;

fn facts<'a>(path: &'a RequestPath<'a>, version_header: Option<&'a str>) -> RequestFacts<'a> {
    RequestFacts {
        method: &Method::GET,
        path,
        version_header,
        claims: None,
        worker: 0,
        excluded: &[],
        excluded_links: &[],
        needs: Needs::Nothing,
        random: 0,
        now: Instant::now(),
    }
}

fn explained(table: &RouteTable<()>, path: &str, version: Option<&str>) -> Explanation {
    explain(table, &facts(&RequestPath::parse(path).unwrap(), version))
}

/// One of each kind.
fn many() -> RouteTable<()> {
    let get = &["GET /x/{id}"];
    let table = table(
        &[
            spec("s", "1.0.0", "a", get),
            spec("s", "1.0.0", "b", get),
            Spec { round_trip: Duration::from_millis(80), ..spec("s", "1.0.0", "c-slow", get) },
            Spec { health: Health::Degraded, ..spec("s", "1.0.0", "d-degraded", get) },
            Spec { tier: 3, ..spec("s", "1.0.0", "e-far", get) },
            Spec { lease: 0, ..spec("s", "1.0.0", "f-full", get) },
            Spec { health: Health::Unhealthy, ..spec("s", "1.0.0", "g-ill", get) },
            spec("s", "1.0.0", "h-ejected", get),
            Spec { routable: false, ..spec("s", "1.0.0", "i-new", get) },
            spec("s", "1.0.0", "j-busy", get),
        ],
        &Settings::default(),
    );
    for candidate in table.services()[0].versions[0].candidates.iter() {
        candidate.instance.set_ejected(candidate.instance.instance().id.as_str() == "h-ejected");
    }
    table
}

#[test]
fn each_step_tells_who_is_left_and_why_the_others_fell() {
    let table = many();
    let candidates = &table.services()[0].versions[0].candidates;
    let busy = candidates.iter().find(|candidate| candidate.instance.instance().id.as_str() == "j-busy").unwrap();
    let _permit = busy.instance.lease().try_acquire().unwrap();
    let explanation = explained(&table, "/x/1", None);
    let steps: Vec<_> = explanation
        .steps
        .iter()
        .map(|taken| {
            let fallen = taken.fallen.iter().map(|fallen| (fallen.instance.as_str(), fallen.detail.as_str()));
            (taken.step, taken.survivors.len(), fallen.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        steps,
        [
            (
                Step::Available,
                8,
                vec![
                    ("f-full", "leased out: 0 of 0 in flight"),
                    ("i-new", "its first heartbeat is not yet acknowledged")
                ]
            ),
            (Step::Circuit, 7, vec![("h-ejected", "ejected for failing too often, and another one is fit")]),
            (
                Step::Health,
                5,
                vec![("g-ill", "unhealthy, by its own word"), ("d-degraded", "degraded, and others are healthy")]
            ),
            (Step::Region, 4, vec![("e-far", "region here (tier 3), farther than here (tier 0)")]),
            (Step::RoundTrip, 3, vec![("c-slow", "round trip 80.000 ms, out of the tolerance of the best, 1.000 ms")]),
            (Step::InFlight, 2, vec![("j-busy", "1 in flight, more than 0")]),
            (Step::HeartbeatsMissed, 2, vec![]),
            (Step::Turn, 1, vec![("b", "equal, but not its turn")]),
        ]
    );
    assert_eq!(explanation.chosen.as_ref().unwrap().instance, "a");
    assert_eq!(explanation.endpoint.as_ref().unwrap().path, "/x/{id}");
    assert_eq!((explanation.instances.len(), explanation.refused.as_ref()), (10, None));
}

#[test]
fn explaining_changes_nothing_and_tells_what_the_next_decision_does() {
    let table = many();
    let path = RequestPath::parse("/x/1").unwrap();
    for expected in ["a", "b", "j-busy", "a", "b"] {
        for _ in 0..3 {
            let told = explain(&table, &facts(&path, None)).chosen.unwrap();
            assert_eq!((told.instance.as_str(), told.worker), (expected, 0));
        }
        let decided = decide(&table, &facts(&path, None)).unwrap();
        assert_eq!(decided.instance.instance().id.as_str(), expected);
    }
}

#[test]
fn why_a_version_was_selected_is_told_and_which_one_is_next() {
    let now = Instant::now();
    let specs = [
        spec("s", "1.0.0", "a", &["GET /x"]),
        spec("s", "2.0.0", "b", &["GET /x"]),
        spec("s", "3.0.0-rc.1", "c", &["GET /x"]),
    ];
    let default_from = BTreeMap::from([("1.0.0", now), ("2.0.0", now + Duration::from_secs(1_000_000))]);
    let promoting = table(&specs, &Settings { default_from, ..Settings::default() });
    let configured = table(&specs, &Settings { configured_default: Some("2.0.0"), ..Settings::default() });
    let plain = table(&specs, &Settings::default());
    for (table, header, version, because) in [
        (&promoting, None, "1.0.0", VersionBy::HighestPromoted),
        (&promoting, Some("3.0.0-rc.1"), "3.0.0-rc.1", VersionBy::Header),
        (&configured, None, "2.0.0", VersionBy::ConfiguredDefault),
        (&plain, None, "2.0.0", VersionBy::HighestInService),
    ] {
        let selected = explained(table, "/x", header).version.unwrap();
        assert_eq!((selected.version.as_str(), selected.because), (version, because));
    }
    let explanation = explained(&promoting, "/x", None);
    assert_eq!(explanation.versions.len(), 3);
    assert_eq!(explanation.versions[0].promotion, Promotion::Promoted);
    assert!(matches!(explanation.versions[1].promotion, Promotion::PromotedInSeconds(seconds) if seconds > 999_000.0));
    assert_eq!(explanation.versions[2].promotion, Promotion::Prerelease);
    let text = explanation.to_string();
    assert!(text.contains("1.0.0, the highest release that is promoted\n"), "{text}");
    assert!(text.contains("2.0.0 is live too (1 instances; promoted in 1000"), "{text}");
}

#[test]
fn a_refusal_is_what_the_request_would_get() {
    let mut guarded = spec("g", "1.0.0", "a", &["GET /guarded"]);
    guarded.claims = vec![ClaimRequirement { kind: "scope".into(), any_of: vec!["read".into()] }];
    let full = Spec { lease: 0, ..spec("s", "1.0.0", "b", &["GET /full"]) };
    let table = table(&[guarded, full], &Settings::default());
    let refused = |path, version| {
        let explanation = explained(&table, path, version);
        assert!(explanation.chosen.is_none());
        let refused = explanation.refused.unwrap();
        (refused.status, refused.code.unwrap(), explanation.service.is_some())
    };
    assert_eq!(refused("/nothing", None), (404, "route_not_found".into(), false));
    assert_eq!(refused("/full", Some("9.0.0")), (404, "version_not_found".into(), true));
    assert_eq!(refused("/full", Some("nine")), (400, "invalid_version".into(), true));
    assert_eq!(refused("/full", None), (503, "no_capacity".into(), true));
    assert_eq!(refused("/guarded", None), (401, "unauthenticated".into(), true));
    let claims = explained(&table, "/guarded", None).claims.unwrap();
    assert!(!claims.allowed && claims.required[0].kind == "scope");
    let error = RequestPath::parse("/a//b").unwrap_err();
    let bad = Explanation::of_bad_path(&table, (&Method::GET, "/a//b", None), error);
    assert_eq!(bad.refused.unwrap().code.unwrap(), "invalid_path");
}

#[test]
fn equal_ids_in_two_regions_are_told_apart() {
    let specs: Vec<Spec> = (0..2).map(|tier| Spec { tier, ..spec("s", "1.0.0", "same", &["GET /x"]) }).collect();
    let explanation = explained(&table(&specs, &Settings::default()), "/x", None);
    assert_eq!(explanation.chosen.unwrap().instance, "same@here");
}

#[test]
fn an_explanation_can_be_read_back_and_written_for_people() {
    let explanation = explained(&many(), "/x/1", None);
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation);
    let text = explanation.to_string();
    for line in [
        "GET /x/1\n",
        "  service    s\n",
        "  endpoint   GET /x/{id}\n",
        "  claims     none are required\n",
        "  strategy   lowest_ping\n",
        "    available          a, b, c-slow, d-degraded, g-ill, h-ejected, j-busy, e-far\n",
        "                         without f-full: leased out: 0 of 0 in flight\n",
        "-> a in here, over link 0 of worker 0\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn a_brief_explanation_is_one_line_of_a_bounded_length() {
    let read = |explanation: &Explanation| {
        let line = explanation.brief(2);
        assert!(line.len() <= BRIEF_BYTES, "{} bytes", line.len());
        serde_json::from_str::<serde_json::Value>(line.to_str().unwrap()).unwrap()
    };
    let brief = read(&explained(&many(), "/x/1", None));
    assert_eq!((&brief["chosen"], &brief["decisions"]), (&"a".into(), &2.into()));
    assert_eq!(
        brief["steps"][0],
        serde_json::json!({
            "step": "available", "left": 8, "fallen": [["f-full", "leased_out"], ["i-new", "not_yet_routable"]]
        })
    );
    assert!(brief.get("truncated").is_none());
    let specs: Vec<Spec> = (0..500)
        .map(|n| Spec { health: Health::Degraded, ..spec("s", "1.0.0", &format!("instance-{n:04}"), &["GET /x"]) })
        .chain([spec("s", "1.0.0", "well", &["GET /x"])])
        .collect();
    let brief = read(&explained(&table(&specs, &Settings::default()), "/x", None));
    assert_eq!((&brief["chosen"], &brief["truncated"]), (&"well".into(), &true.into()));
    let mut long = explained(&many(), "/x/1", None);
    long.endpoint.as_mut().unwrap().path = "é".repeat(3000);
    assert_eq!(read(&long)["chosen"], "a");
    long.strategy = "x".repeat(5000);
    assert_eq!(read(&long), serde_json::json!({ "truncated": true }));
}
