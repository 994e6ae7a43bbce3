//! An instance that reaches this gateway in several ways at a time: one instance, and the way that it prefers.

use super::*;

const PREFERRED: u8 = 0;
const OTHER: u8 = 1;

fn on_way(preference: u8, link: u16, incarnation: u8) -> Joining {
    as_identity(preference, link, incarnation, Identity::Anonymous)
}

fn as_identity(preference: u8, link: u16, incarnation: u8, identity: Identity) -> Joining {
    let mut joining = joining("orders@1.0.0/a", incarnation, link, identity);
    joining.hello.preference = preference;
    joining
}

impl World {
    /// A link on a way, whose first heartbeat is acknowledged.
    fn way(&self, preference: u8, link: u16) -> Link {
        let link = self.try_join(&on_way(preference, link, 1)).unwrap().0;
        self.ready(&link);
        link
    }

    /// The link that a request goes over.
    fn picks(&self) -> LinkId {
        let path = RequestPath::parse("/orders/1").unwrap();
        let facts = RequestFacts {
            method: &Method::GET,
            path: &path,
            version_header: None,
            claims: None,
            worker: 0,
            excluded: &[],
            excluded_links: &[],
            needs: Needs::Nothing,
            random: 0,
            now: self.now,
        };
        decide(&self.registry.table(), &facts).unwrap().link.id()
    }
}

/// A world with one instance that came by the other way first, and offers what is asked for.
fn served() -> (World, Link) {
    let world = World::new();
    let other = world.way(OTHER, 0);
    assert_eq!(world.register(&other, 1, &["GET /orders/{id}"]), ["result 1 []"]);
    (world, other)
}

#[test]
fn links_of_two_ways_with_one_number_are_two_links_of_one_instance() {
    let (world, other) = served();
    let preferred = world.way(PREFERRED, 0);
    assert_eq!(world.registry.len(), (1, 2));
    assert_eq!((other.fake.said(), preferred.fake.said()), (vec![], vec![]));
    let instances = world.registry.instances(world.now);
    let ways: Vec<_> = instances[0].ways.iter().map(|way| (way.preference, way.links, way.draining)).collect();
    assert_eq!((instances.len(), instances[0].links, instances[0].lease), (1, 2, 8));
    assert_eq!(ways, [(0, 1, 0), (1, 1, 0)]);
    let connections = world.registry.connections(world.now);
    let berths: Vec<_> = connections.iter().map(|link| (link.transport, link.preference, link.link)).collect();
    assert_eq!(berths, [("fake", 0, 0), ("fake", 1, 0)]);
    // One that comes again takes its own place, and no other's.
    let again = world.way(OTHER, 0);
    assert_eq!(other.fake.said(), ["close normal"]);
    assert_eq!(preferred.fake.said(), [""; 0]);
    assert_eq!(world.registry.len(), (1, 2));
    assert_eq!(world.picks(), preferred.id);
    world.lose(&preferred);
    assert_eq!(world.picks(), again.id);
}

#[test]
fn requests_go_over_the_preferred_way_as_long_as_it_works_and_again_when_it_does() {
    let (world, other) = served();
    assert_eq!(world.picks(), other.id);
    let (preferred, _) = world.try_join(&on_way(PREFERRED, 0, 1)).unwrap();
    assert_eq!(world.picks(), other.id, "nothing was heard on it yet");
    world.ready(&preferred);
    assert_eq!(world.picks(), preferred.id);
    world.event(&preferred, ConnectionEvent::Silence(Silence::Degraded));
    assert_eq!(world.picks(), other.id);
    assert!(!world.registry.instances(world.now)[0].silent, "it is heard by the other way");
    world.event(&preferred, ConnectionEvent::Silence(Silence::Heard));
    assert_eq!(world.picks(), preferred.id);
    world.event(&preferred, ConnectionEvent::PeerDraining);
    assert_eq!(world.picks(), other.id);
    assert_eq!(world.registry.instances(world.now)[0].ways[0].draining, 1);
    // It drained because another one takes its place.
    let again = world.way(PREFERRED, 0);
    assert_eq!(world.picks(), again.id);
}

#[test]
fn the_loss_of_a_way_is_no_loss_of_the_instance() {
    let (world, other) = served();
    let preferred = world.way(PREFERRED, 0);
    world.lose(&preferred);
    assert_eq!(world.ask("GET /orders/1", None), Ok("a".into()));
    assert_eq!((world.registry.len(), world.registry.counts().lost), ((1, 1), 0));
    world.lose(&other);
    assert_eq!(world.ask("GET /orders/1", None), Err(ProblemCode::NoInstance));
    assert_eq!(world.registry.counts().lost, 1);
}

#[test]
fn what_it_measures_is_the_round_trip_of_the_way_that_serves() {
    let (world, other) = served();
    let preferred = world.way(PREFERRED, 0);
    world.event(&other, ConnectionEvent::RoundTrip(Duration::from_millis(40)));
    world.event(&preferred, ConnectionEvent::RoundTrip(Duration::from_millis(2)));
    let measured = || world.registry.instances(world.now)[0].round_trip_ms;
    assert_eq!(measured(), Some(2.0));
    world.lose(&preferred);
    world.event(&other, ConnectionEvent::RoundTrip(Duration::from_millis(40)));
    assert_eq!(measured(), Some(40.0));
}

#[test]
fn links_of_one_way_lie_apart_whatever_the_other_way_has() {
    let world = World::with(RegistrySettings { workers: 2, ..settings() });
    let worker = |preference, link| world.try_join(&on_way(preference, link, 1)).unwrap().1.worker;
    let first = worker(PREFERRED, 0);
    let [one, two] = [worker(OTHER, 0), worker(OTHER, 1)];
    assert_ne!(one, two);
    assert_ne!(worker(PREFERRED, 1), first);
}

#[test]
fn each_way_may_prove_another_identity_of_the_same_process() {
    let key = |id: &str| Identity::Key(id.parse().unwrap());
    let world = World::new();
    let first = world.try_join(&as_identity(PREFERRED, 0, 1, key("a"))).unwrap().0;
    world.try_join(&as_identity(OTHER, 0, 1, Identity::InProcess)).unwrap();
    let identities: Vec<String> = world.registry.connections(world.now).into_iter().map(|link| link.identity).collect();
    assert_eq!(identities, [key("a").to_string(), Identity::InProcess.to_string()]);
    assert_eq!(world.registry.instances(world.now)[0].identity, key("a").to_string());
    // On one way there is one.
    let refused = world.try_join(&as_identity(OTHER, 1, 1, key("a"))).err().unwrap();
    assert_eq!(refused.code, CloseCode::IdentityInUse);
    // A stranger has another incarnation.
    let refused = world.try_join(&as_identity(OTHER, 1, 2, key("b"))).err().unwrap();
    assert_eq!(refused.code, CloseCode::IdentityInUse);
    // The next process may come by either way first.
    world.try_join(&as_identity(OTHER, 0, 2, Identity::InProcess)).unwrap();
    assert_eq!((first.fake.said(), world.registry.len()), (vec!["drain".to_owned()], (1, 1)));
}
