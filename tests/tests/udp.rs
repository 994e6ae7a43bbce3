//! A gateway and a service over a network that loses, doubles, delays and reorders datagrams, 30 % of each.
//!
//! `STELLA_UDP_CALLS=5000 cargo test -p integration-tests --test udp` makes more calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use integration_tests::carriers::UDP_IN_BAD_WEATHER;
use integration_tests::stage::Stage;
use microservice_sdk::{Body, Microservice, Path};
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
            let answer = client.ask(Request::post(format!("/numbers/{number}")).body(Body::from(body)).unwrap()).await;
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
}
