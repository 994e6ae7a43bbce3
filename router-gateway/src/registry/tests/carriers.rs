//! Instances that are reached over links for small messages only (SPEC 7): what they stream is refused, until a link comes
//! that carries it.

use super::*;

const OFFERED: [&str; 2] = ["GET /orders/{id}", "GET /orders/{id}/events"];
/// In a set of these two, the second one streams.
const REFUSAL: &str = "2: GET /orders/{}/events streams, and the links of this instance carry small messages only";

fn small() -> Fake {
    Fake { small: true, ..Fake::default() }
}

impl World {
    fn join_over(&self, fake: Fake, link: u16) -> Link {
        let joined = self.registry.join(&joining("orders@1.0.0/a", 1, link, Identity::Anonymous), &fake, 0, self.now);
        let link = Link { id: joined.unwrap().link, fake };
        self.ready(&link);
        link
    }

    fn offer(&self, link: &Link, revision: u64) -> Vec<String> {
        let mut endpoints: Vec<_> = OFFERED.iter().zip(1..).map(|(text, id)| descriptor(id, text)).collect();
        endpoints[1].streaming_response = true;
        self.event(link, ConnectionEvent::Endpoints { revision, endpoints });
        link.fake.said()
    }

    fn events(&self) -> Result<String, ProblemCode> {
        self.ask("GET /orders/1/events", None)
    }
}

#[test]
fn what_streams_is_refused_by_name_where_only_small_messages_are_carried() {
    let world = World::new();
    let link = world.join_over(small(), 0);
    assert_eq!(world.offer(&link, 1), [format!("result 1 [{REFUSAL}]")]);
    assert_eq!(world.ask("GET /orders/1", None), Ok("a".to_owned()));
    assert_eq!(world.events(), Err(ProblemCode::RouteNotFound));
}

#[test]
fn the_set_counts_anew_when_a_link_comes_that_carries_it_and_when_the_last_one_goes() {
    let world = World::new();
    let little = world.join_over(small(), 0);
    world.offer(&little, 1);
    let large = world.join_over(Fake::default(), 1);
    assert_eq!(little.fake.said(), ["result 1 []"], "over a link that stands");
    assert_eq!((large.fake.said(), world.events()), (vec![], Ok("a".to_owned())));
    // One more of each makes no difference.
    let third = world.join_over(Fake::default(), 2);
    world.lose(&third);
    assert!(little.fake.said().is_empty() && world.events().is_ok());
    world.lose(&large);
    assert_eq!(little.fake.said(), [format!("result 1 [{REFUSAL}]")]);
    assert!(world.events().is_err() && world.ask("GET /orders/1", None).is_ok());
}

#[test]
fn a_set_that_was_overtaken_is_answered_where_answers_may_be_lost() {
    let world = World::new();
    let (little, large) = (world.join_over(small(), 0), world.join_over(Fake::default(), 1));
    assert_eq!(world.offer(&large, 2), ["result 2 []"]);
    assert_eq!(world.offer(&little, 1), ["result 2 []"]);
    let other = world.join_over(Fake::default(), 2);
    assert!(world.offer(&other, 1).is_empty());
}

#[test]
fn instances_of_one_version_share_no_set_that_only_one_of_them_carries() {
    let world = World::new();
    let little = world.join_over(small(), 0);
    world.offer(&little, 1);
    let other = world.join("orders@1.0.0/b", 2);
    assert_eq!(world.offer(&other, 1), ["result 1 []"]);
    world.ready(&other);
    assert_eq!(world.events(), Ok("b".to_owned()));
    world.lose(&other);
    assert_eq!(world.events(), Err(ProblemCode::NoInstance), "it was lost, not withdrawn");
}

#[test]
fn what_streams_goes_over_the_link_that_carries_it_though_another_is_preferred() {
    let world = World::new();
    let little = world.join_over(small(), 0);
    world.offer(&little, 1);
    let large = Fake::default();
    let mut hello = joining("orders@1.0.0/a", 1, 0, Identity::Anonymous);
    hello.hello.preference = 1;
    let large = world.registry.join(&hello, &large, 0, world.now).unwrap().link;
    world.event(&Link { id: large, fake: Fake::default() }, ConnectionEvent::Routable);
    let over = |path: &str, needs| {
        let path = RequestPath::parse(path).unwrap();
        let facts = RequestFacts {
            method: &Method::GET,
            path: &path,
            version_header: None,
            claims: None,
            worker: 0,
            excluded: &[],
            excluded_links: &[],
            needs,
            random: 0,
            now: world.now,
        };
        decide(&world.registry.table(), &facts).map(|decision| decision.link.id())
    };
    assert_eq!(over("/orders/1", Needs::Nothing).unwrap(), little.id);
    assert_eq!(over("/orders/1/events", Needs::Nothing).unwrap(), large);
    assert_eq!(over("/orders/1", Needs::Streaming).unwrap(), large);
    world.lose(&Link { id: large, fake: Fake::default() });
    assert!(
        matches!(over("/orders/1", Needs::Streaming), Err(Rejection::Problem(problem)) if problem.code == ProblemCode::NoInstance)
    );
}
