//! Everyone is leased out: who waits, for how long, and who is next (SPEC 5).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{assert_problem, read_response, status};
use crate::memory::Clients;
use crate::stub::{Handler, Plan, gateway_in_memory, handler};
use http::{Request, Response};
use router_gateway::Gateway;
use router_link::Body;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};

/// A service that notes who came, and answers one for each permit.
#[derive(Clone)]
struct Counter {
    came: Arc<Mutex<Vec<String>>>,
    go: Arc<Semaphore>,
}

impl Counter {
    fn new() -> Self {
        Self { came: Arc::default(), go: Arc::new(Semaphore::new(0)) }
    }

    fn handler(&self) -> Handler {
        let this = self.clone();
        handler(move |request: Request<Body>| {
            this.came.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
            let go = Arc::clone(&this.go);
            async move {
                go.acquire().await.ok()?.forget();
                Some(Response::new(Body::from("served")))
            }
        })
    }

    fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }

    /// Waits until so many have come.
    async fn have_come(&self, count: usize) {
        while self.came().len() < count {
            yield_now().await;
        }
    }

    fn serve_one(&self) {
        self.go.add_permits(1);
    }
}

fn ask(clients: &Clients, path: &str, headers: &str) -> JoinHandle<String> {
    let (clients, path, headers) = (clients.clone(), path.to_owned(), headers.to_owned());
    tokio::spawn(async move { clients.get(&path, &headers).await })
}

async fn so_many_wait(gateway: &Gateway, count: usize) {
    while gateway.waiting() != count {
        yield_now().await;
    }
}

fn one_at_a_time(name: &'static str, path: &str) -> Plan {
    Plan { name, lease: 1, ..Plan::new(&[("GET", path)]) }
}

#[tokio::test]
async fn first_come_first_served_and_who_comes_again_is_last() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let counter = Counter::new();
    let _stub = one_at_a_time("s", "/one").join(&gateway, counter.handler()).await;
    let mut asked = vec![ask(&clients, "/one?0", "")];
    counter.have_come(1).await;
    for number in 1..4 {
        asked.push(ask(&clients, &format!("/one?{number}"), ""));
        so_many_wait(&gateway, number).await;
    }
    for number in 4..12 {
        counter.serve_one();
        assert_eq!(status(&asked.remove(0).await.unwrap()), "200");
        // In the very moment in which a slot is free.
        asked.push(ask(&clients, &format!("/one?{number}"), ""));
        counter.have_come(number - 2).await;
        so_many_wait(&gateway, 3).await;
    }
    for last in asked {
        counter.serve_one();
        assert_eq!(status(&last.await.unwrap()), "200");
    }
    assert_eq!(counter.came(), (0..12).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn a_slot_that_is_free_belongs_to_who_waits_and_not_to_who_comes_now() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let counter = Counter::new();
    counter.go.add_permits(2);
    let _stub = one_at_a_time("s", "/one").join(&gateway, counter.handler()).await;
    let lease = {
        let table = gateway.registry().snapshot();
        Arc::clone(table.services()[0].versions[0].candidates[0].instance.lease())
    };
    let slot = lease.try_acquire().unwrap();
    let waits = ask(&clients, "/one?waits", "");
    so_many_wait(&gateway, 1).await;
    let mut newcomer = clients.connect().await;
    newcomer.write_all(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_response(&mut newcomer).await;
    // Both are ready to run now, the newcomer first.
    newcomer.write_all(b"GET /one?comes HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    drop(slot);
    let (head, _) = read_response(&mut newcomer).await;
    assert_eq!((status(&head), status(&waits.await.unwrap())), ("200", "200"));
    assert_eq!(counter.came(), ["waits", "comes"]);
}

#[tokio::test]
async fn who_waits_for_one_service_is_in_nobodys_way_who_wants_another() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let (busy, other) = (Counter::new(), Counter::new());
    let _busy = Plan { id: "x", ..one_at_a_time("busy", "/busy") }.join(&gateway, busy.handler()).await;
    let _other = Plan { id: "y", ..one_at_a_time("other", "/other") }.join(&gateway, other.handler()).await;
    let served = ask(&clients, "/busy", "");
    busy.have_come(1).await;
    let waits = ask(&clients, "/busy", "");
    so_many_wait(&gateway, 1).await;
    let first = ask(&clients, "/other", "");
    other.have_come(1).await;
    let second = ask(&clients, "/other", "");
    so_many_wait(&gateway, 2).await;
    for asked in [first, second] {
        other.serve_one();
        assert_eq!(status(&asked.await.unwrap()), "200");
    }
    assert_eq!(gateway.waiting(), 1);
    for asked in [served, waits] {
        busy.serve_one();
        assert_eq!(status(&asked.await.unwrap()), "200");
    }
}

#[tokio::test]
async fn tenants_take_turns() {
    let change = |config: &mut router_config::RouterConfig<()>| {
        config.routing.tenant_header = Some("x-tenant".parse().unwrap());
    };
    let (gateway, clients) = gateway_in_memory(change).await;
    let counter = Counter::new();
    let _stub = one_at_a_time("s", "/one").join(&gateway, counter.handler()).await;
    let mut asked = vec![ask(&clients, "/one?first", "")];
    counter.have_come(1).await;
    let line = [("busy-1", "busy"), ("busy-2", "busy"), ("busy-3", "busy"), ("rare-1", "rare")];
    for (place, (name, tenant)) in line.iter().enumerate() {
        asked.push(ask(&clients, &format!("/one?{name}"), &format!("X-Tenant: {tenant}\r\n")));
        so_many_wait(&gateway, place + 1).await;
    }
    for come in 1..=line.len() {
        counter.serve_one();
        counter.have_come(come + 1).await;
    }
    counter.serve_one();
    for one in asked {
        assert_eq!(status(&one.await.unwrap()), "200");
    }
    assert_eq!(counter.came(), ["first", "busy-1", "rare-1", "busy-2", "busy-3"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_was_asked_for_or_than_the_endpoint_has() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let counter = Counter::new();
    let mut plan = one_at_a_time("s", "/one");
    plan.endpoints[0].timeout = Some(Duration::from_secs(3));
    let _stub = plan.join(&gateway, counter.handler()).await;
    let endless = "X-Request-Timeout-Ms: 100000\r\n";
    // The endpoint's own time ends what is asked for more generously, on both roads.
    let served = ask(&clients, "/one", endless);
    counter.have_come(1).await;
    let begun = tokio::time::Instant::now();
    let waits = ask(&clients, "/one", endless);
    let hasty = ask(&clients, "/one", "X-Request-Timeout-Ms: 500\r\n");
    let answer = hasty.await.unwrap();
    assert_problem(&answer, "503", "no_capacity");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(begun.elapsed().as_millis(), 500);
    assert_problem(&served.await.unwrap(), "504", "deadline_exceeded");
    assert_problem(&waits.await.unwrap(), "503", "no_capacity");
    assert_eq!(begun.elapsed().as_millis(), 3000);
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn who_leaves_the_line_leaves_no_gap() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let counter = Counter::new();
    let _stub = one_at_a_time("s", "/one").join(&gateway, counter.handler()).await;
    let served = ask(&clients, "/one?served", "");
    counter.have_come(1).await;
    let mut leaves = clients.connect().await;
    leaves.write_all(b"GET /one?leaves HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    so_many_wait(&gateway, 1).await;
    let stays = ask(&clients, "/one?stays", "");
    so_many_wait(&gateway, 2).await;
    drop(leaves);
    so_many_wait(&gateway, 1).await;
    for asked in [served, stays] {
        counter.serve_one();
        assert_eq!(status(&asked.await.unwrap()), "200");
    }
    assert_eq!(counter.came(), ["served", "stays"]);
}

#[tokio::test]
async fn another_instance_that_joins_serves_who_waits() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let counter = Counter::new();
    let _one = one_at_a_time("s", "/one").join(&gateway, counter.handler()).await;
    let served = ask(&clients, "/one", "");
    counter.have_come(1).await;
    let waits = ask(&clients, "/one", "");
    so_many_wait(&gateway, 1).await;
    let _two = Plan { id: "b", ..one_at_a_time("s", "/one") }.join(&gateway, counter.handler()).await;
    counter.have_come(2).await;
    assert_eq!(gateway.waiting(), 0);
    counter.go.add_permits(2);
    assert_eq!(status(&waits.await.unwrap()), "200");
    assert_eq!(status(&served.await.unwrap()), "200");
}

#[tokio::test]
async fn who_finds_the_line_full_is_sent_away_at_once() {
    let change = |config: &mut router_config::RouterConfig<()>| config.limits.max_waiting = 1.try_into().unwrap();
    let (gateway, clients) = gateway_in_memory(change).await;
    let counter = Counter::new();
    let _stub = one_at_a_time("s", "/one").join(&gateway, counter.handler()).await;
    let served = ask(&clients, "/one", "");
    counter.have_come(1).await;
    let waits = ask(&clients, "/one", "");
    so_many_wait(&gateway, 1).await;
    let answer = clients.get("/one", "").await;
    assert_problem(&answer, "503", "no_capacity");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    for asked in [served, waits] {
        counter.serve_one();
        assert_eq!(status(&asked.await.unwrap()), "200");
    }
}
