//! A gateway and a service over a network that loses, doubles, delays and reorders datagrams, 30 % of each.
//!
//! `STELLA_UDP_CALLS=5000 cargo test -p integration-tests --test udp` makes more calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use integration_tests::carriers::UDP_IN_BAD_WEATHER;
use integration_tests::client::Client;
use integration_tests::stage::{SECRET, Stage};
use integration_tests::within;
use microservice_sdk::{Microservice, Path};
use router_config::Sources;
use router_gateway::Gateway;
use router_gateway::settings::{self, Settings};
use tokio::task::JoinSet;

/// Calls, unless the environment says otherwise.
const CALLS: usize = 600;
const AT_ONCE: usize = 16;
/// Within which 99.9 % of the calls succeed.
const SOON: Duration = Duration::from_secs(5);

fn calls() -> usize {
    std::env::var("STELLA_UDP_CALLS").map_or(CALLS, |text| text.parse().expect("STELLA_UDP_CALLS is a number"))
}

#[derive(Debug, Clone, Copy)]
struct Outcome {
    status: StatusCode,
    /// The answer is this call's, and whole.
    is_right: bool,
    took: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_bad_weather_have_one_right_outcome_and_nearly_all_succeed() {
    let stage = Stage::new(UDP_IN_BAD_WEATHER).await;
    let runs: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
    let counted = Arc::clone(&runs);
    let service = Microservice::new("datagrams", "1.0.0").raw(
        Method::POST,
        "/numbers/{number}",
        move |Path(number): Path<usize>, body: Bytes| {
            *counted.lock().unwrap().entry(number).or_default() += 1;
            async move { [number.to_string().as_bytes(), &body].concat() }
        },
    );
    let running = stage.join(service).await;
    let client = stage.client();
    let calls = calls();
    let (mut waiting, mut outcomes) = (JoinSet::new(), Vec::new());
    for number in 0..calls {
        if waiting.len() == AT_ONCE {
            outcomes.push(waiting.join_next().await.unwrap().unwrap());
        }
        let client = client.clone();
        waiting.spawn(async move {
            let body = vec![b'x'; number * 7 % 500];
            let right = [number.to_string().as_bytes(), &body].concat();
            let began = Instant::now();
            let answer = client.post(&format!("/numbers/{number}"), body).await;
            let is_right = answer.status != StatusCode::OK || answer.body == right;
            Outcome { status: answer.status, is_right, took: began.elapsed() }
        });
    }
    outcomes.extend(waiting.join_all().await);
    assert_eq!(outcomes.len(), calls);
    assert!(outcomes.iter().all(|outcome| outcome.is_right), "an answer of another call, or a part of one");
    let soon = outcomes.iter().filter(|outcome| outcome.status == StatusCode::OK && outcome.took <= SOON).count();
    let mut took: Vec<_> = outcomes.iter().map(|outcome| outcome.took).collect();
    took.sort_unstable();
    let quantile = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    println!(
        "{soon} of {calls} soon; half within {:?}, 99 % within {:?}, all within {:?}",
        quantile(500),
        quantile(990),
        quantile(1000)
    );
    assert!(soon * 1000 >= calls * 999, "{soon} of {calls}");
    assert!(runs.lock().unwrap().values().all(|runs| *runs == 1), "a handler ran twice");
    running.shutdown().await.unwrap();
    let metrics = stage.admin().get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    let counted = |reason: &str| {
        let line = format!("stella_udp_datagrams_dropped_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|text| text.strip_prefix(&line)).map(|count| count.parse::<u64>().unwrap())
    };
    assert!(counted("replayed") > Some(0), "{metrics}");
    assert_eq!(counted("forged"), Some(0));
}

/// What both are told in their configuration files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_and_a_gateway_meet_by_their_settings() {
    let yaml =
        format!("transports:\n  udp:\n    listen: 127.0.0.1:0\n    shared_secret: '{SECRET}'\n    datagram: 4KiB\n");
    let overrides = ["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"].map(str::to_owned);
    let sources = Sources::router().text("router.yaml", &yaml).overrides(overrides);
    let settings: Settings = router_config::load(sources).unwrap_or_else(|error| panic!("{error}"));
    let mut builder = Gateway::builder(&settings);
    for listener in settings::listen(&settings).unwrap() {
        builder = builder.services(listener);
    }
    let gateway = builder.start().await.unwrap();
    let url = gateway.service_listeners().first().unwrap().clone();
    assert!(url.starts_with("udp://127.0.0.1:"), "{url}");
    let service = Microservice::new("lengths", "1.0.0")
        .gateway(url)
        .shared_secret(SECRET)
        .datagram(4096)
        .raw(Method::POST, "/length", |body: Bytes| async move { body.len().to_string() })
        .raw(Method::GET, "/bytes/{count}", |Path(count): Path<usize>| async move { vec![b'x'; count] });
    let mut running = service.start().unwrap();
    within("the service is ready", running.ready()).await.unwrap();
    let client = Client::http1(gateway.http_addr().unwrap());
    assert_eq!(client.post("/length", vec![b'x'; 3000]).await.body, "3000");
    assert_eq!(client.get("/bytes/3000").await.body.len(), 3000);
    assert_eq!(client.post("/length", vec![b'x'; 5000]).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(client.get("/bytes/5000").await.status, StatusCode::BAD_GATEWAY);
    running.shutdown().await.unwrap();
}

#[test]
fn a_gateway_does_not_listen_without_a_secret_by_mistake() {
    let load = |yaml: &str| {
        let sources = Sources::router().text("router.yaml", yaml);
        router_config::load::<Settings>(sources).map(drop).map_err(|error| error.to_string())
    };
    let open = load("transports:\n  udp: {}\n").unwrap_err();
    assert!(open.contains("transports.udp.shared_secret") && open.contains("insecure: true"), "{open}");
    let reachable = load("transports:\n  udp:\n    listen: 0.0.0.0:5102\n    insecure: true\n").unwrap_err();
    assert!(reachable.contains("transports.udp.listen") && reachable.contains("loopback only"), "{reachable}");
    let small = load("transports:\n  udp:\n    insecure: true\n    datagram: 100\n").unwrap_err();
    assert!(small.contains("transports.udp.datagram") && small.contains("1200 to 65507 bytes"), "{small}");
    assert_eq!(load("transports:\n  udp:\n    insecure: true\n"), Ok(()));
}
