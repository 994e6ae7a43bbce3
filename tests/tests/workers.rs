//! A gateway with several workers: an instance's links lie on all of them, and so do the clients' connections.

use std::time::Instant;

use http::StatusCode;
use integration_tests::carriers::{self, Transport};
use integration_tests::services::{one, orders};
use integration_tests::stage::Stage;
use integration_tests::{eventually, on_every_transport, within};
use router_common::frame::CloseCode;
use router_link::Handle;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

on_every_transport! {
    a_service_opens_a_link_for_each_worker,
    links_lie_on_different_workers_however_often_they_are_lost,
    nothing_is_lost_while_links_find_their_workers,
}

/// The workers of an instance's links, in order.
fn workers_of(stage: &Stage, instance: &str) -> Vec<usize> {
    let links = stage.gateway.registry().connections(Instant::now());
    let mut workers: Vec<usize> =
        links.iter().filter(|link| link.instance == instance).map(|link| link.worker).collect();
    workers.sort_unstable();
    workers
}

/// An instance's links that requests can take, by the order of their coming.
fn links_of(stage: &Stage, instance: &str) -> Vec<(u64, Handle)> {
    let table = stage.gateway.registry().snapshot();
    let versions = table.services().iter().flat_map(|service| &service.versions);
    let candidates = versions.flat_map(|version| &*version.candidates);
    let own = candidates.filter(|candidate| candidate.instance.instance().id.as_str() == instance);
    let mut links: Vec<_> = own.flat_map(|own| &*own.links).map(|link| (link.id().0, link.handle().clone())).collect();
    links.sort_unstable_by_key(|(id, _)| *id);
    links
}

async fn a_service_opens_a_link_for_each_worker(transport: Transport) {
    let stage = Stage::with_workers(transport, 3).await;
    let running = stage.join(orders("1.0.0").instance_id("a")).await;
    eventually("there is a link on each worker", async || workers_of(&stage, "a") == [0, 1, 2]).await;
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
    let page = stage.admin().get("/workers").await.json();
    let links: Vec<_> = page.as_array().unwrap().iter().map(|worker| worker["links"].as_u64()).collect();
    assert_eq!(links, [Some(1); 3]);
    running.shutdown().await.unwrap();
}

async fn links_lie_on_different_workers_however_often_they_are_lost(transport: Transport) {
    let stage = Stage::with_workers(transport, 2).await;
    let _running = stage.connect(orders("1.0.0")).links(2).instance_id("a").start().unwrap();
    let mut others = Vec::new();
    let mut newest = 0;
    for round in 0..6 {
        eventually("both workers have a link of the instance", async || {
            links_of(&stage, "a").last().is_some_and(|(id, _)| *id > newest) && workers_of(&stage, "a") == [0, 1]
        })
        .await;
        eventually("it serves", async || stage.client().get("/orders/7").await.status == StatusCode::OK).await;
        let links = links_of(&stage, "a");
        newest = links[1].0;
        links[round % 2].1.close(CloseCode::Shutdown, "a test says so");
        // Another one may come in where the lost one was.
        let name = format!("other-{round}");
        let other = one(&name, "1.0.0", &format!("/{name}"), "here").instance_id(&name);
        let mut other = stage.connect(other).links(1).start().unwrap();
        within("the other one is ready", other.ready()).await.unwrap();
        others.push(other);
    }
    // What comes back goes where its instance needs it, and others make up for that as well as they can.
    let uneven = |links: &[usize]| links[0].abs_diff(links[1]);
    eventually("all links are there, and spread", async || {
        let links = stage.gateway.registry().links_of_workers();
        links.iter().sum::<usize>() == 8 && uneven(&links) <= 2
    })
    .await;
}

/// Instances come and go while clients ask: none of their requests meets a link that is between two workers.
async fn nothing_is_lost_while_links_find_their_workers(transport: Transport) {
    let stage = Stage::with_workers(transport, 2).await;
    let _stays = stage.join(orders("1.0.0")).await;
    let client = stage.client();
    let asking = async {
        for number in 1..=400 {
            let answer = client.get("/orders/7").await;
            assert_eq!(answer.status, StatusCode::OK, "request {number}: {:?}", answer.body);
        }
    };
    let coming = async {
        for _ in 0..20 {
            let running = stage.join(orders("1.0.0")).await;
            running.shutdown().await.unwrap();
        }
    };
    tokio::join!(asking, coming);
}

/// Opens connections to a gateway, and has a request answered on each.
async fn open(stage: &Stage, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect(stage.http()).await.unwrap();
        client.write_all(b"GET /orders/7 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        within("an answer", client.read_exact(&mut head)).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        clients.push(client);
    }
    clients
}

/// What `/metrics` says of the workers' connections.
async fn connections(stage: &Stage) -> Vec<usize> {
    let metrics = String::from_utf8(stage.admin().get("/metrics").await.body.to_vec()).unwrap();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("stella_worker_connections{worker=\""));
    let mut counts: Vec<(usize, usize)> = lines
        .map(|line| line.split_once("\"} ").unwrap())
        .map(|(worker, count)| (worker.parse().unwrap(), count.parse().unwrap()))
        .collect();
    counts.sort_unstable();
    counts.into_iter().map(|(_, count)| count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_connections_are_spread_evenly_over_workers() {
    let stage = Stage::with_workers(carriers::TCP, 4).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let mut clients = open(&stage, 64).await;
    let spread = connections(&stage).await;
    assert_eq!((spread.len(), spread.iter().sum::<usize>()), (4, 64), "{spread:?}");
    let uneven = |spread: &[usize]| spread.iter().max().unwrap() - spread.iter().min().unwrap();
    assert!(uneven(&spread) <= 1, "{spread:?}");

    // Whoever has few gets the next ones.
    clients.truncate(40);
    eventually("the others have left", async || connections(&stage).await.iter().sum::<usize>() == 40).await;
    clients.extend(open(&stage, 40).await);
    let spread = connections(&stage).await;
    assert!(uneven(&spread) <= 1, "{spread:?}");
    drop(clients);
    eventually("nobody is left", async || connections(&stage).await == [0; 4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_at_once_are_spread_too() {
    let stage = Stage::with_workers(carriers::TCP, 4).await;
    let _orders = stage.join(orders("1.0.0")).await;
    let opened = futures_util::future::join_all((0..64).map(|_| open(&stage, 1))).await;
    let spread = connections(&stage).await;
    assert_eq!(spread.iter().sum::<usize>(), 64, "{spread:?}");
    // Workers decide at the same time, by counts that the others change meanwhile.
    assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 4, "{spread:?}");
    drop(opened);
}
