//! What is sent again, where to, and who is passed over for failing (SPEC 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{assert_problem, read_response, status};
use crate::memory::Clients;
use crate::stub::{Answers, Handler, Plan, gateway_in_memory, handler};
use http::{Request, Response, StatusCode};
use router_common::frame::{CloseCode, Reason};
use router_common::session::lease::Lease;
use router_config::RouterConfig;
use router_config::router::Strategy;
use router_gateway::Gateway;
use router_gateway::registry::views::{CircuitState, CircuitView};
use router_link::{Body, Environment as _, Responder, SystemEnvironment};
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;

/// By turn, so that all are asked, however their round trips differ.
fn by_turn(config: &mut RouterConfig<()>) {
    config.routing.strategy = Strategy::RoundRobin;
}

fn nobody_is_ejected(config: &mut RouterConfig<()>) {
    by_turn(config);
    config.routing.outlier.consecutive_failures = 0;
}

/// An instance with `/again`, which is idempotent, and `/once`, which is not.
fn plan(id: &'static str) -> Plan {
    let mut plan = Plan { id, ..Plan::new(&[("GET", "/again"), ("GET", "/once")]) };
    plan.endpoints[0].idempotent = true;
    plan
}

fn says(text: &'static str) -> Handler {
    handler(move |_| async move { Some(Response::new(Body::from(text))) })
}

fn fails() -> Handler {
    handler(|_| async { None })
}

/// Answers with one status, and counts.
fn answers(status: StatusCode, asked: &Arc<AtomicUsize>) -> Handler {
    let asked = Arc::clone(asked);
    handler(move |_: Request<Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            Some(response)
        }
    })
}

fn lease_of(gateway: &Gateway, id: &str) -> Arc<Lease> {
    let table = gateway.registry().snapshot();
    let mut candidates = table.services().iter().flat_map(|service| &service.versions[0].candidates[..]);
    let of_id = candidates.find(|candidate| candidate.instance.instance().id.as_str() == id);
    Arc::clone(of_id.unwrap().instance.lease())
}

fn circuit_of(gateway: &Gateway, id: &str) -> CircuitView {
    let views = gateway.registry().instances(SystemEnvironment.now());
    views.into_iter().find(|view| view.id == id).unwrap().circuit
}

async fn statuses(clients: &Clients, path: &str, count: usize) -> Vec<String> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(status(&clients.get(path, "").await).to_owned());
    }
    statuses
}

#[tokio::test]
async fn a_retry_waits_in_line_while_all_others_are_leased_out() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let _failing = plan("a").join(&gateway, fails()).await;
    let _working = Plan { lease: 1, ..plan("b") }.join(&gateway, says("b")).await;
    let slot = lease_of(&gateway, "b").try_acquire().unwrap();
    let asking = clients.clone();
    let asked = tokio::spawn(async move { asking.get("/again", "").await });
    while gateway.waiting() == 0 {
        yield_now().await;
    }
    drop(slot);
    let answer = asked.await.unwrap();
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_no_longer_than_its_deadline() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let _failing = plan("a").join(&gateway, fails()).await;
    let _working = Plan { lease: 1, ..plan("b") }.join(&gateway, says("b")).await;
    let _slot = lease_of(&gateway, "b").try_acquire().unwrap();
    let begun = tokio::time::Instant::now();
    let answer = clients.get("/again", "X-Request-Timeout-Ms: 700\r\n").await;
    assert_problem(&answer, "503", "no_capacity");
    assert_eq!(begun.elapsed().as_millis(), 700);
    assert_eq!(gateway.waiting(), 0);
}

#[tokio::test]
async fn where_nobody_else_is_a_retry_is_answered_at_once() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let _failing = plan("a").join(&gateway, fails()).await;
    assert_problem(&clients.get("/again", "").await, "503", "no_capacity");
    assert_problem(&clients.get("/once", "").await, "502", "service_failed");
}

#[tokio::test]
async fn what_a_dead_link_did_not_see_goes_over_the_instances_other_link() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let _links = [
        plan("a").join(&gateway, says("over 0")).await,
        Plan { link: 1, ..plan("a") }.join(&gateway, says("over 1")).await,
    ];
    let mut client = clients.connect().await;
    let request = b"GET /once HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    let (_, body) = read_response(&mut client).await;
    // The links take turns: the next is the other one, which ends before anybody knows of it.
    let next = if body == b"over 0" { 1 } else { 0 };
    client.write_all(request).await.unwrap();
    gateway.registry().handles()[next].close(CloseCode::Normal, "");
    let (head, again) = read_response(&mut client).await;
    assert_eq!((status(&head), again), ("200", body));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_saw_is_sent_again_three_times_and_outside_the_budget() {
    let (gateway, clients) = gateway_in_memory(by_turn).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let refuses: Answers = Arc::new(move |_, responder: Responder| {
        counts.fetch_add(1, Ordering::Relaxed);
        responder.reject(Reason::Refused);
    });
    let mut stubs = Vec::new();
    for id in ["a", "b", "c", "d", "e"] {
        stubs.push(plan(id).join_as(&gateway, Arc::clone(&refuses)).await);
    }
    for round in 1..=20 {
        assert_problem(&clients.get("/once", "").await, "503", "no_capacity");
        assert_eq!(asked.load(Ordering::Relaxed), round * 4, "once, and three times again, each elsewhere");
    }
    let failures = ["a", "b", "c", "d", "e"].map(|id| circuit_of(&gateway, id).consecutive_failures);
    assert_eq!(failures, [0; 5], "a refusal is no failure");
    stubs.truncate(3);
    while gateway.registry().len() != (3, 3) {
        yield_now().await;
    }
    stubs.push(plan("e").join(&gateway, says("e")).await);
    assert_eq!(statuses(&clients, "/once", 20).await, ["200"; 20], "the fourth is asked at last");
}

#[tokio::test]
async fn what_was_lost_is_sent_again_only_if_it_is_idempotent() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    for (path, expected) in [("/again", "200"), ("/once", "502")] {
        // Whoever gets it first never answers and goes.
        let came = Arc::new(tokio::sync::Notify::new());
        let comes = Arc::clone(&came);
        let goes = handler(move |_| {
            comes.notify_one();
            std::future::pending()
        });
        let lost = plan("a").join(&gateway, goes).await;
        let other = plan("b").join(&gateway, says("b")).await;
        let slots: Vec<_> = std::iter::from_fn(|| lease_of(&gateway, "b").try_acquire()).collect();
        let asking = clients.clone();
        let asked = tokio::spawn(async move { asking.get(path, "").await });
        came.notified().await;
        drop((slots, lost));
        let answer = asked.await.unwrap();
        assert_eq!(status(&answer), expected, "{answer}");
        drop(other);
        while !gateway.registry().is_empty() {
            yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_their_budget() {
    let (gateway, clients) = gateway_in_memory(nobody_is_ejected).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = || {
        let asked = Arc::clone(&asked);
        handler(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            async { None }
        })
    };
    let _instances = [plan("a").join(&gateway, counts()).await, plan("b").join(&gateway, counts()).await];
    for _ in 0..30 {
        assert_problem(&clients.get("/again", "").await, "502", "service_failed");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 30 + 10, "ten are there in the beginning, and nothing was served");
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..30 {
        assert_problem(&clients.get("/again", "").await, "502", "service_failed");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2 * (30 + 10), "ten more in a second");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_keeps_failing_is_passed_over_for_a_while() {
    let (gateway, clients) = gateway_in_memory(by_turn).await;
    let (bad, good) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let _bad = plan("bad").join(&gateway, answers(StatusCode::INTERNAL_SERVER_ERROR, &bad)).await;
    let _good = plan("good").join(&gateway, answers(StatusCode::NOT_FOUND, &good)).await;
    let asked = || (bad.load(Ordering::Relaxed), good.load(Ordering::Relaxed));
    statuses(&clients, "/once", 8).await;
    assert_eq!(asked(), (4, 4));
    assert_eq!(circuit_of(&gateway, "bad").consecutive_failures, 4);
    statuses(&clients, "/once", 2).await;
    let circuit = circuit_of(&gateway, "bad");
    assert_eq!((circuit.state, circuit.ejections), (CircuitState::Open, 1));
    assert_eq!(statuses(&clients, "/once", 6).await, ["404"; 6], "what the client is told is its own affair");
    assert_eq!((asked(), circuit_of(&gateway, "good").consecutive_failures), ((5, 11), 0));
    while circuit_of(&gateway, "bad").state == CircuitState::Open {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    statuses(&clients, "/once", 2).await;
    assert_eq!(asked(), (6, 12));
}

#[tokio::test(start_paused = true)]
async fn the_last_instance_serves_however_often_it_fails() {
    let (gateway, clients) = gateway_in_memory(by_turn).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let _bad = plan("bad").join(&gateway, answers(StatusCode::SERVICE_UNAVAILABLE, &asked)).await;
    statuses(&clients, "/once", 12).await;
    assert_eq!(asked.load(Ordering::Relaxed), 12);
    let circuit = circuit_of(&gateway, "bad");
    assert_eq!((circuit.state, circuit.consecutive_failures), (CircuitState::Closed, 12));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_too_little_time_ejects_nobody() {
    let (gateway, clients) = gateway_in_memory(by_turn).await;
    let never = || handler(|_| std::future::pending());
    let mut slow = plan("slow");
    slow.endpoints[1].timeout = Some(Duration::from_secs(2));
    let _slow = slow.join(&gateway, never()).await;
    for _ in 0..10 {
        assert_problem(&clients.get("/once", "X-Request-Timeout-Ms: 5\r\n").await, "504", "deadline_exceeded");
    }
    assert_eq!(circuit_of(&gateway, "slow").consecutive_failures, 0);
    for failures in 1..4 {
        // The endpoint's own time, all of it.
        assert_problem(&clients.get("/once", "").await, "504", "deadline_exceeded");
        assert_eq!(circuit_of(&gateway, "slow").consecutive_failures, failures);
    }
}
