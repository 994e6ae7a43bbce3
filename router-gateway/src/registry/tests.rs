//! The registry as services and requests see it: joins, conflicts, supersession, versions, losses.

mod carriers;
mod circuits;
mod vitals;
mod ways;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;

use http::Method;
use proptest::prelude::{Just, ProptestConfig, Strategy as _, prop, prop_assert_eq, proptest};
use router_common::frame::{CloseCode, HealthStatus, Hello, ReceiveLimits, RefusedEndpoint};
use router_common::identity::{Identity, Incarnation, Instance, Version};
use router_common::limits;
use router_common::path::RequestPath;
use router_common::problem::ProblemCode;
use router_common::session::{Closed, ClosedBy, Joining};
use router_config::router::ServiceConfig;
use router_link::Refused;

use super::*;
use crate::routing::decision::{Rejection, RequestFacts, decide};
use crate::routing::fixture::descriptor;
use crate::routing::instance::Needs;
use crate::routing::outlier::OutlierPolicy;
use crate::routing::strategy::Strategy;

/// A link that only remembers what it was told.
#[derive(Clone, Default)]
struct Fake {
    said: Arc<Mutex<Vec<String>>>,
    busy: Arc<AtomicBool>,
    /// It carries small messages only.
    small: bool,
}

impl Fake {
    fn say(&self, what: String) {
        self.said.lock().unwrap().push(what);
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap())
    }
}

impl LinkHandle for Fake {
    fn drain(&self) {
        self.say("drain".into());
    }

    fn close(&self, code: CloseCode, _: &str) {
        self.say(format!("close {code}"));
    }

    fn endpoints_result(&self, revision: u64, refused: Vec<RefusedEndpoint>) {
        let refused: Vec<String> = refused.iter().map(|one| format!("{}: {}", one.id, one.reason)).collect();
        self.say(format!("result {revision} [{}]", refused.join("; ")));
    }

    fn is_idle(&self) -> bool {
        !self.busy.load(Ordering::Relaxed)
    }

    fn is_streaming(&self) -> bool {
        !self.small
    }

    fn peer(&self) -> String {
        "fake".into()
    }

    fn transport(&self) -> &'static str {
        "fake"
    }
}

fn settings() -> RegistrySettings {
    RegistrySettings {
        region: "here".parse().unwrap(),
        neighbor_regions: vec!["near".parse().unwrap()],
        strategy: Strategy::LowestPing,
        promotion: Promotion::default(),
        outlier: NonZeroU32::new(5).map(|consecutive_failures| OutlierPolicy {
            consecutive_failures,
            base: Duration::from_secs(30),
            max_percent: 10,
        }),
        policy: Policy::default(),
        workers: 1,
    }
}

/// `service@version/id`, in the region `here` unless the id says `id@region`.
fn instance(text: &str) -> Instance {
    let (service, rest) = text.split_once('@').unwrap();
    let (version, id) = rest.split_once('/').unwrap();
    let (id, region) = id.split_once('@').unwrap_or((id, "here"));
    Instance {
        service: service.parse().unwrap(),
        version: version.parse().unwrap(),
        region: region.parse().unwrap(),
        id: id.parse().unwrap(),
    }
}

fn joining(text: &str, incarnation: u8, link: u16, identity: Identity) -> Joining {
    let hello = Hello {
        versions: vec![1],
        extensions: Vec::new(),
        instance: instance(text),
        incarnation: Incarnation([incarnation; 16]),
        link,
        links: 2,
        preference: 0,
        key_id: None,
        token: None,
        nonce: [0; 32],
        limits: ReceiveLimits::default(),
        lease: 8,
    };
    Joining { hello, identity }
}

struct World {
    registry: Registry<Fake>,
    now: Instant,
    /// For the strategies that draw.
    random: u64,
}

/// One joined link.
struct Link {
    id: LinkId,
    fake: Fake,
}

impl World {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: RegistrySettings) -> Self {
        Self { registry: Registry::new(settings), now: Instant::now(), random: 0 }
    }

    fn try_join(&self, joining: &Joining) -> Result<(Link, Joined), Refused> {
        let fake = Fake::default();
        let joined = self.registry.join(joining, &fake, 0, self.now)?;
        Ok((Link { id: joined.link, fake }, joined))
    }

    fn join(&self, text: &str, incarnation: u8) -> Link {
        self.try_join(&joining(text, incarnation, 0, Identity::Anonymous)).unwrap().0
    }

    fn register(&self, link: &Link, revision: u64, endpoints: &[&str]) -> Vec<String> {
        let numbered = endpoints.iter().zip(1..).map(|(text, id)| descriptor(id, text));
        let endpoints = numbered.collect();
        self.registry.event(link.id, ConnectionEvent::Endpoints { revision, endpoints }, self.now);
        link.fake.said()
    }

    fn event(&self, link: &Link, event: ConnectionEvent) {
        self.registry.event(link.id, event, self.now);
    }

    fn ready(&self, link: &Link) {
        self.event(link, ConnectionEvent::RoundTrip(Duration::from_millis(1)));
        self.event(link, ConnectionEvent::Heartbeat { status: HealthStatus::Healthy, in_flight: 0, load: 0 });
        self.event(link, ConnectionEvent::Routable);
    }

    /// A whole instance, ready to serve.
    fn serve(&self, text: &str, endpoints: &[&str]) -> Link {
        let link = self.join(text, 1);
        assert_eq!(self.register(&link, 1, endpoints), ["result 1 []"]);
        self.ready(&link);
        link
    }

    fn close(&self, link: &Link, by: ClosedBy, code: CloseCode) {
        self.event(link, ConnectionEvent::Closed(Closed { by, code, text: String::new() }));
    }

    fn lose(&self, link: &Link) {
        self.close(link, ClosedBy::Link, CloseCode::Normal);
    }

    fn ask(&self, request: &str, version: Option<&str>) -> Result<String, ProblemCode> {
        let (method, raw) = request.split_once(' ').unwrap();
        let path = RequestPath::parse(raw).unwrap();
        let facts = RequestFacts {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            path: &path,
            version_header: version,
            claims: None,
            worker: 0,
            excluded: &[],
            excluded_links: &[],
            needs: Needs::Nothing,
            random: self.random,
            now: self.now,
        };
        match decide(&self.registry.table(), &facts) {
            Ok(decision) => Ok(decision.instance.instance().id.to_string()),
            Err(Rejection::Problem(problem)) => Err(problem.code),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_instance_serves_from_its_first_acknowledged_heartbeat_until_it_leaves() {
    let world = World::new();
    let link = world.join("orders@1.0.0/a", 1);
    assert_eq!(world.ask("GET /orders/1", None), Err(ProblemCode::RouteNotFound));
    assert_eq!(world.register(&link, 1, &["GET /orders/{id}"]), ["result 1 []"]);
    assert_eq!(world.ask("GET /orders/1", None), Err(ProblemCode::NoInstance));
    world.ready(&link);
    assert_eq!(world.ask("GET /orders/1", None), Ok("a".into()));
    world.close(&link, ClosedBy::Peer, CloseCode::Normal);
    assert_eq!(world.ask("GET /orders/1", None), Err(ProblemCode::RouteNotFound));
    assert!(world.registry.is_empty());
}

#[test]
fn a_lost_instance_is_an_outage_for_a_while_and_a_drained_one_is_not() {
    let mut world = World::new();
    let lost = world.serve("orders@1.0.0/a", &["GET /orders"]);
    world.lose(&lost);
    assert_eq!(world.ask("GET /orders", None), Err(ProblemCode::NoInstance));
    let again = world.serve("orders@1.0.0/b", &["GET /orders"]);
    world.event(&again, ConnectionEvent::PeerDraining);
    assert_eq!(world.ask("GET /orders", None), Err(ProblemCode::NoInstance), "it drains");
    world.lose(&again);
    assert_eq!(world.ask("GET /orders", None), Err(ProblemCode::RouteNotFound), "it had said so");
    let lost = world.serve("orders@1.0.0/c", &["GET /orders"]);
    world.lose(&lost);
    world.now += Duration::from_secs(5 * 60);
    world.registry.sweep(world.now);
    assert_eq!(world.ask("GET /orders", None), Err(ProblemCode::RouteNotFound));
    assert_eq!(world.registry.books().catalogue.counts(), (0, 0));
    assert_eq!(world.registry.counts().lost, 2);
}

#[test]
fn a_live_service_keeps_what_it_owns_and_the_next_in_line_is_told_when_it_leaves() {
    let world = World::new();
    let owner = world.serve("orders@1.0.0/a", &["GET /shared/{id}", "GET /mine"]);
    let other = world.join("rival@1.0.0/b", 1);
    assert_eq!(
        world.register(&other, 7, &["GET /theirs", "GET /shared/{name}"]),
        ["result 7 [2: GET /shared/{} belongs to the service `orders`, which is live]"]
    );
    world.ready(&other);
    assert_eq!(world.ask("GET /shared/1", None), Ok("a".into()));
    assert_eq!(world.ask("GET /theirs", None), Ok("b".into()));
    assert_eq!(world.registry.routes().len(), 3);
    let refused = &world.registry.instances(world.now)[1].refused;
    assert_eq!(refused[0].endpoint, "GET /shared/{name}");
    world.lose(&owner);
    assert_eq!(other.fake.said(), ["result 7 []"]);
    assert_eq!(world.ask("GET /shared/1", None), Ok("b".into()));
    assert_eq!(world.ask("GET /mine", None), Err(ProblemCode::NoInstance));
    let late = world.join("orders@1.0.0/a", 2);
    assert_eq!(world.register(&late, 1, &["GET /shared/{id}"]).len(), 1);
    assert_eq!(world.ask("GET /shared/1", None), Ok("b".into()), "now it is the other one's");
}

#[test]
fn an_update_is_applied_whole_and_frees_what_it_leaves_out() {
    let world = World::new();
    let link = world.serve("orders@1.0.0/a", &["GET /one", "GET /two"]);
    let rival = world.join("rival@1.0.0/b", 1);
    world.register(&rival, 1, &["GET /two"]);
    world.ready(&rival);
    let descriptors = vec![descriptor(1, "GET /one"), descriptor(3, "GET /three")];
    world.event(&link, ConnectionEvent::Endpoints { revision: 2, endpoints: descriptors });
    assert_eq!(link.fake.said(), ["result 2 []"]);
    assert_eq!(rival.fake.said(), ["result 1 []"]);
    assert_eq!(world.ask("GET /two", None), Ok("b".into()));
    assert_eq!(world.ask("GET /three", None), Ok("a".into()));
    assert_eq!(world.register(&link, 2, &["GET /ignored"]), ["result 2 []"], "the same revision: the same answer");
    assert_eq!(world.register(&link, 1, &["GET /ignored"]), [""; 0], "an older one has been overtaken");
    let reused = vec![descriptor(3, "GET /four")];
    world.event(&link, ConnectionEvent::Endpoints { revision: 3, endpoints: reused });
    let said = link.fake.said();
    assert!(said[0].contains("gave the endpoint id 3 to another method and path before"), "{said:?}");
}

#[test]
fn endpoints_that_stand_twice_or_outside_the_policy_are_refused_one_by_one() {
    let config = ServiceConfig { path_prefixes: Some(vec!["/orders".into()]), ..ServiceConfig::default() };
    let services = BTreeMap::from([("orders".parse().unwrap(), config)]);
    let world = World::with(RegistrySettings { policy: Policy::from_config(&services), ..settings() });
    let link = world.join("orders@1.0.0/a", 1);
    let said = world.register(&link, 1, &["GET /orders/{id}", "GET /orders/{number}", "GET /admin"]);
    assert!(said[0].contains("2: GET /orders/{} stands twice"), "{said:?}");
    assert!(said[0].contains("3: the gateway's policy"), "{said:?}");
    world.ready(&link);
    assert_eq!(world.ask("GET /orders/1", None), Ok("a".into()));
    assert_eq!(world.ask("GET /admin", None), Err(ProblemCode::RouteNotFound));
}

#[test]
fn a_name_that_an_identity_may_not_register_is_refused() {
    let config = ServiceConfig { identities: Some(vec!["key:team-a".into()]), ..ServiceConfig::default() };
    let services = BTreeMap::from([("orders".parse().unwrap(), config)]);
    let world = World::with(RegistrySettings { policy: Policy::from_config(&services), ..settings() });
    let key = |id: &str| Identity::Key(id.parse().unwrap());
    let refused = world.try_join(&joining("orders@1.0.0/a", 1, 0, key("team-b"))).err().unwrap();
    assert_eq!(refused.code, CloseCode::Forbidden);
    assert!(world.try_join(&joining("orders@1.0.0/a", 1, 0, key("team-a"))).is_ok());
    assert_eq!(world.registry.counts().refused, 1);
}

#[test]
fn links_of_one_incarnation_are_one_instance() {
    let world = World::new();
    let first = world.serve("orders@1.0.0/a", &["GET /x"]);
    let (second, joined) = world.try_join(&joining("orders@1.0.0/a", 1, 1, Identity::Anonymous)).unwrap();
    assert_eq!((joined.accepted.revision, joined.accepted.lease.limit()), (1, 8));
    assert_eq!(world.registry.len(), (1, 2));
    assert_eq!(world.registry.connections(world.now).len(), 2);
    world.lose(&first);
    assert_eq!(world.ask("GET /x", None), Ok("a".into()));
    world.event(&second, ConnectionEvent::Silence(Silence::Degraded));
    assert_eq!(world.registry.instances(world.now)[0].health, Health::Degraded);
    world.event(&second, ConnectionEvent::Silence(Silence::Heard));
    let (again, _) = world.try_join(&joining("orders@1.0.0/a", 1, 1, Identity::Anonymous)).unwrap();
    assert_eq!(second.fake.said(), ["close normal"], "the same link, made anew");
    world.lose(&second);
    assert_eq!(world.registry.len(), (1, 1));
    world.lose(&again);
    assert_eq!(world.registry.len(), (0, 0));
}

#[test]
fn a_newer_process_supersedes_the_older_one_which_drains_and_does_not_come_back() {
    let world = World::new();
    let old = world.serve("orders@1.0.0/a", &["GET /x"]);
    old.fake.busy.store(true, Ordering::Relaxed);
    let new = world.join("orders@1.0.0/a", 2);
    assert_eq!(old.fake.said(), ["drain"]);
    assert_eq!(world.registry.len(), (1, 1));
    assert_eq!(world.ask("GET /x", None), Err(ProblemCode::NoInstance), "an outage, not an absence");
    world.register(&new, 1, &["GET /x"]);
    world.ready(&new);
    assert_eq!(world.ask("GET /x", None), Ok("a".into()));
    world.event(&old, ConnectionEvent::Drained);
    assert_eq!(old.fake.said(), [""; 0], "our own streams still run on it");
    let refused = world.try_join(&joining("orders@1.0.0/a", 1, 0, Identity::Anonymous)).err().unwrap();
    assert_eq!(refused.code, CloseCode::Superseded);
    assert_eq!(new.fake.said(), [""; 0], "the newer process goes on, whoever comes again");
    old.fake.busy.store(false, Ordering::Relaxed);
    world.registry.sweep(world.now);
    assert_eq!(old.fake.said(), ["close superseded"]);
    world.close(&old, ClosedBy::Local, CloseCode::Superseded);
    assert_eq!(world.ask("GET /x", None), Ok("a".into()));
}

#[test]
fn a_superseded_link_that_never_gets_idle_is_cut_in_the_end() {
    let mut world = World::new();
    let old = world.serve("orders@1.0.0/a", &["GET /x"]);
    old.fake.busy.store(true, Ordering::Relaxed);
    world.join("orders@1.0.0/a", 2);
    world.now += LEAVING_GRACE;
    world.registry.sweep(world.now);
    assert_eq!(old.fake.said(), ["drain", "close superseded"]);
}

#[test]
fn another_identity_never_takes_an_instance_over() {
    let world = World::new();
    world.serve("orders@1.0.0/a", &["GET /x"]);
    for incarnation in [1, 2] {
        let identity = Identity::Key("k".parse().unwrap());
        let refused = world.try_join(&joining("orders@1.0.0/a", incarnation, 1, identity)).err().unwrap();
        assert_eq!(refused.code, CloseCode::IdentityInUse);
    }
    assert_eq!(world.ask("GET /x", None), Ok("a".into()));
}

#[test]
fn links_are_placed_apart_and_a_lost_one_comes_back_to_its_place() {
    let world = World::with(RegistrySettings { workers: 2, ..settings() });
    let join = |text: &str, number| world.try_join(&joining(text, 1, number, Identity::Anonymous)).unwrap();
    // All come in at worker 0.
    let (_first, joined) = join("orders@1.0.0/a", 0);
    assert_eq!((joined.worker, joined.accepted.links), (0, 2));
    let (second, joined) = join("orders@1.0.0/a", 1);
    assert_eq!(joined.worker, 1);
    assert_eq!(join("orders@1.0.0/b", 0).1.worker, 0, "either has one");
    world.close(&second, ClosedBy::Link, CloseCode::Shutdown);
    assert_eq!(world.registry.links_of_workers(), [2, 0]);
    assert_eq!(join("users@1.0.0/c", 0).1.worker, 1, "it has fewer");
    assert_eq!(join("users@1.0.0/d", 0).1.worker, 1, "it still has fewer");
    assert_eq!(join("users@1.0.0/e", 0).1.worker, 0, "either has as many, so it stays");
    assert_eq!(join("orders@1.0.0/a", 1).1.worker, 1, "where the instance has none");
    // Before anybody noticed that it was lost.
    assert_eq!(join("orders@1.0.0/a", 0).1.worker, 0);
    assert_eq!(world.registry.links_of_workers(), [3, 3]);
}

#[test]
fn an_instance_has_only_so_many_links() {
    let world = World::new();
    for number in 0..limits::LINKS {
        assert!(world.try_join(&joining("orders@1.0.0/a", 1, number, Identity::Anonymous)).is_ok());
    }
    let refused = world.try_join(&joining("orders@1.0.0/a", 1, limits::LINKS, Identity::Anonymous)).err().unwrap();
    assert_eq!(refused.code, CloseCode::TooManyLinks);
}

#[test]
fn a_new_highest_version_becomes_the_default_after_its_promotion_and_at_once_in_an_outage() {
    let mut world = World::new();
    let old = world.serve("orders@1.0.0/old", &["GET /x"]);
    let new = world.serve("orders@2.0.0/new", &["GET /x"]);
    world.serve("orders@3.0.0-rc.1/rc", &["GET /x"]);
    assert_eq!(world.ask("GET /x", None), Ok("old".into()));
    assert_eq!(world.ask("GET /x", Some("2.0.0")), Ok("new".into()));
    world.now += Duration::from_secs(30);
    assert_eq!(world.ask("GET /x", None), Ok("new".into()));
    world.close(&new, ClosedBy::Peer, CloseCode::Normal);
    assert_eq!(world.ask("GET /x", None), Ok("old".into()));
    assert_eq!(world.ask("GET /x", Some("2.0.0")), Err(ProblemCode::VersionNotFound));
    let new = world.serve("orders@2.0.0/new", &["GET /x"]);
    assert_eq!(world.ask("GET /x", None), Ok("old".into()), "promotion begins anew");
    world.lose(&old);
    assert_eq!(world.ask("GET /x", None), Ok("new".into()), "nothing else is there");
    world.event(&new, ConnectionEvent::PeerDraining);
    assert_eq!(world.ask("GET /x", None), Err(ProblemCode::NoInstance));
}

#[test]
fn a_promotion_waits_for_as_many_instances_as_it_is_told() {
    let promotion = Promotion { instances: 2, after: Duration::from_secs(10) };
    let mut world = World::with(RegistrySettings { promotion, ..settings() });
    let olds = ["orders@1.0.0/a", "orders@1.0.0/b"].map(|text| world.serve(text, &["GET /x"]));
    let one = world.serve("orders@2.0.0/c", &["GET /x"]);
    world.now += Duration::from_secs(60);
    assert_ne!(world.ask("GET /x", None), Ok("c".into()), "one is not enough");
    world.serve("orders@2.0.0/d", &["GET /x"]);
    world.now += Duration::from_secs(9);
    world.lose(&olds[0]);
    assert_eq!(world.ask("GET /x", None), Ok("b".into()), "the default may shrink");
    world.now += Duration::from_secs(1);
    assert_eq!(world.ask("GET /x", None), Ok("c".into()));
    world.lose(&one);
    assert_eq!(world.ask("GET /x", None), Ok("d".into()), "so may the new one");
}

#[test]
fn regions_are_tiers_in_the_configured_order() {
    let world = World::new();
    let far = world.serve("orders@1.0.0/a@far", &["GET /x"]);
    assert_eq!(world.ask("GET /x", None), Ok("a".into()));
    world.serve("orders@1.0.0/b@near", &["GET /x"]);
    assert_eq!(world.ask("GET /x", None), Ok("b".into()));
    let own = world.serve("orders@1.0.0/c@here", &["GET /x"]);
    assert_eq!(world.ask("GET /x", None), Ok("c".into()));
    world.event(&own, ConnectionEvent::Silence(Silence::Degraded));
    assert_eq!(world.ask("GET /x", None), Ok("b".into()));
    world.lose(&far);
}

#[test]
fn whoever_waits_hears_of_every_publication() {
    let world = World::new();
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    world.registry.on_published(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    world.serve("orders@1.0.0/a", &["GET /x"]);
    let published = world.registry.counts().published;
    assert!(published > 0 && heard.load(Ordering::Relaxed) == published);
    assert_eq!(world.registry.table().shape().len(), 1);
}

#[test]
fn changes_that_come_together_share_a_publication_and_nobody_is_told_before_it() {
    let world = World::new();
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    world.registry.leave_publications_to(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let publications = || world.registry.counts().published;
    let links = ["a", "b", "c"].map(|id| world.join(&format!("orders@1.0.0/{id}"), 1));
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody has offered anything");
    for link in &links {
        assert_eq!(world.register(link, 1, &["GET /x"]), [""; 0]);
        world.ready(link);
    }
    assert!(asked.load(Ordering::Relaxed) > 0 && publications() == 0);
    assert_eq!(world.ask("GET /x", None), Err(ProblemCode::RouteNotFound));
    world.registry.publish(world.now);
    assert!(links.iter().all(|link| link.fake.said() == ["result 1 []"]));
    assert_eq!((publications(), world.ask("GET /x", None)), (1, Ok("a".into())));
    // Who has left is not asked any more, whichever table there is.
    world.lose(&links[0]);
    world.event(&links[1], ConnectionEvent::PeerDraining);
    assert_eq!((publications(), world.ask("GET /x", None)), (1, Ok("c".into())));
    world.registry.publish(world.now);
    world.registry.publish(world.now);
    assert_eq!(publications(), 2, "the second time there was nothing to publish");
}

#[test]
fn who_finds_nobody_looks_at_what_is_not_yet_published() {
    let mut world = World::new();
    world.serve("orders@1.0.0/old", &["GET /x"]);
    let new = world.serve("orders@2.0.0/new", &["GET /x"]);
    world.now += Duration::from_secs(60);
    world.registry.leave_publications_to(|| {});
    assert_eq!(world.ask("GET /x", None), Ok("new".into()));
    world.close(&new, ClosedBy::Peer, CloseCode::Normal);
    assert_eq!(world.ask("GET /x", None), Err(ProblemCode::NoInstance));
    let table = world.registry.snapshot();
    assert!(world.registry.is_outdated(&table, world.now));
    assert_eq!(world.ask("GET /x", None), Ok("old".into()));
    assert!(!world.registry.is_outdated(&world.registry.snapshot(), world.now));
}

#[test]
fn a_further_instance_of_a_version_is_published_once() {
    let world = World::new();
    world.serve("orders@1.0.0/a", &["GET /x"]);
    let (before, heard) = (world.registry.counts().published, Arc::new(AtomicU64::new(0)));
    let count = heard.clone();
    world.registry.on_published(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    world.serve("orders@1.0.0/b", &["GET /x"]);
    assert_eq!(world.registry.counts().published, before + 1);
    assert_eq!(heard.load(Ordering::Relaxed), 2, "whoever waits hears of an instance that needed no publication too");
}

#[test]
fn equal_instances_share_one_set_and_all_is_empty_again_in_the_end() {
    let mut world = World::new();
    let texts: Vec<String> = (0..20).map(|n| format!("orders@1.0.0/i{n:02}")).collect();
    let links: Vec<Link> = texts.iter().map(|text| world.serve(text, &["GET /x", "POST /x"])).collect();
    assert_eq!(world.registry.books().catalogue.versions(&"orders".parse().unwrap())[0].1.len(), 1);
    let routes = world.registry.routes();
    assert_eq!((routes.len(), routes[0].instances), (2, 20));
    for link in &links {
        world.lose(link);
    }
    let snapshot = world.registry.snapshot();
    assert!(snapshot.shape().is_empty() && snapshot.services().is_empty());
    world.now += Duration::from_secs(300);
    world.registry.sweep(world.now);
    let books = world.registry.books();
    assert_eq!(books.catalogue.counts(), (0, 0));
    assert!(books.members.is_empty() && books.by_instance.is_empty() && books.by_service.is_empty());
    assert!(books.links.len() == 0 && books.leaving.is_empty());
    assert_eq!(Arc::strong_count(&snapshot), 1, "nobody else holds a table that was replaced");
}

#[test]
fn versions_differ_in_their_endpoints_and_build_metadata_does_not_make_one() {
    let world = World::new();
    world.serve("orders@1.0.0+one/a", &["GET /x"]);
    world.serve("orders@1.0.0+two/b", &["GET /x"]);
    world.serve("orders@0.9.0/c", &["GET /old", "GET /x"]);
    let live: Vec<String> = world.registry.table().services()[0].live_versions().map(Version::to_string).collect();
    assert_eq!(live.len(), 2);
    assert_eq!(world.ask("GET /old", None), Err(ProblemCode::VersionNotFound));
    assert_eq!(world.ask("GET /old", Some("0.9.0")), Ok("c".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// The same instances, whatever the order in which they connect, register and become ready, are chosen alike.
    #[test]
    fn the_order_of_connecting_means_nothing(
        order in Just((0..9_usize).collect::<Vec<_>>()).prop_shuffle(),
        milliseconds in prop::collection::vec(1..30_u64, 9),
        busy in prop::collection::vec(0..3_u8, 9),
        strategy in prop::sample::select(vec![
            Strategy::LowestPing, Strategy::LeastLoaded, Strategy::RoundRobin, Strategy::Random
        ]),
        random in proptest::prelude::any::<u64>(),
    ) {
        let texts = [
            "orders@1.0.0/a", "orders@1.0.0/b", "orders@1.0.0/c@near", "orders@1.0.0/d@far", "orders@1.0.0/e",
            "orders@0.9.0/f", "other@1.0.0/g", "orders@1.0.0/h", "other@1.0.0/i@near",
        ];
        let build = |order: &[usize]| {
            let mut world = World { random, ..World::with(RegistrySettings { strategy, ..settings() }) };
            let mut permits = Vec::new();
            for &place in order {
                let (link, joined) =
                    world.try_join(&joining(texts[place], 1, 0, Identity::Anonymous)).unwrap();
                let own: &[&str] = if texts[place].starts_with("orders") {
                    &["GET /orders/{id}", "POST /orders"]
                } else {
                    &["GET /other/{*rest}"]
                };
                world.register(&link, 1, own);
                world.ready(&link);
                world.event(&link, ConnectionEvent::RoundTrip(Duration::from_millis(milliseconds[place])));
                permits.extend((0..busy[place]).filter_map(|_| joined.accepted.lease.try_acquire()));
            }
            // Past every promotion, which does depend on time.
            world.now += Duration::from_secs(60);
            (world, permits)
        };
        let first: Vec<usize> = (0..9).collect();
        let ((one, _one), (two, _two)) = (build(&first), build(&order));
        for request in ["GET /orders/1", "POST /orders", "GET /other/a/b", "GET /orders/1", "HEAD /orders/2"] {
            for version in [None, Some("0.9.0"), Some("1.0.0")] {
                prop_assert_eq!(one.ask(request, version), two.ask(request, version), "{} {:?}", request, version);
            }
        }
        prop_assert_eq!(one.registry.routes(), two.registry.routes());
    }
}

#[test]
fn a_node_that_leaves_takes_no_links_and_asks_for_others_in_their_place() {
    let world = World::new();
    let old = world.serve("orders@1.0.0/a", &["GET /orders"]);
    old.fake.said();
    assert_eq!(world.registry.send_away(), [instance("orders@1.0.0/a")]);
    assert_eq!(old.fake.said(), ["drain"]);
    let again = joining("orders@1.0.0/a", 1, 0, Identity::Anonymous);
    assert_eq!(world.try_join(&again).err().unwrap().code, CloseCode::Shutdown);
    assert_eq!(world.ask("GET /orders", None), Ok("a".into()), "requests go over the old link as before");
    // It stays after all. What it has asked for comes.
    world.registry.take_back();
    old.fake.busy.store(true, Ordering::Relaxed);
    let (new, _) = world.try_join(&again).unwrap();
    world.ready(&new);
    assert_eq!(world.ask("GET /orders", None), Ok("a".into()));
    world.registry.sweep(world.now);
    assert!(old.fake.said().is_empty(), "what is in flight on the old link goes on");
    old.fake.busy.store(false, Ordering::Relaxed);
    world.registry.sweep(world.now);
    assert_eq!(old.fake.said(), [format!("close {}", CloseCode::Normal)]);
    assert!(new.fake.said().is_empty());
    // A further one is taken for what it is: the old one was lost.
    world.try_join(&again).unwrap();
    assert_eq!(new.fake.said(), [format!("close {}", CloseCode::Normal)]);
}

#[test]
fn what_was_settled_elsewhere_is_the_default_at_once_and_nothing_above_it() {
    for order in [["1.0.0", "2.0.0", "3.0.0"], ["3.0.0", "2.0.0", "1.0.0"]] {
        let mut world = World::new();
        world.registry.inherit_defaults([("orders".parse().unwrap(), "2.0.0".parse().unwrap())].into());
        for version in order {
            world.serve(&format!("orders@{version}/v{}", &version[..1]), &["GET /orders"]);
        }
        assert_eq!(world.ask("GET /orders", None), Ok("v2".into()), "{order:?}");
        assert_eq!(world.registry.settled_defaults(world.now).values().next().unwrap().to_string(), "2.0.0");
        world.now += Promotion::default().after;
        assert_eq!(world.ask("GET /orders", None), Ok("v3".into()), "{order:?}");
        assert_eq!(world.registry.settled_defaults(world.now).values().next().unwrap().to_string(), "3.0.0");
    }
}
