//! Links that nobody reads, beside another one through the same queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use router_common::frame::{Data, DataPayload, Frame, HeartbeatAck, StreamId};
use router_common::session::{Budget, Secrets};
use router_link::{BoxLink, Connector, LinkError, Listener};
use transport_rabbitmq::{Broker, RabbitConnector, RabbitListener, RabbitListenerOptions};

fn meeting_place(name: &str) -> Broker {
    let url = test_broker::shared_url().expect("a broker");
    let mut broker = Broker::new([url.as_str()]).expect("an address");
    broker.set_exchange(&format!("{name}-{}", std::process::id())).expect("a name");
    broker
}

async fn send(link: &mut BoxLink, mut batch: VecDeque<Frame>) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_send(cx, &mut batch)).await
}

async fn receive(link: &mut BoxLink) -> Result<Vec<Frame>, LinkError> {
    let mut frames = Vec::new();
    poll_fn(|cx| link.poll_recv(cx, &mut frames)).await?;
    Ok(frames)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_nobody_reads_ends_and_the_others_do_not_notice() {
    let broker = meeting_place("slow");
    let mut listener = RabbitListener::start(broker.clone(), RabbitListenerOptions::new("gateway", Secrets::none()));
    let listener: &mut dyn Listener = &mut listener;
    let connector = RabbitConnector::new(broker, None);
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    let (mut stuck, mut unread) = (service.expect("connected"), gateway.expect("accepted"));
    unread.count_in(&Budget::new(usize::MAX));
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    let (mut lively, mut read) = (service.expect("connected"), gateway.expect("accepted"));

    let stream = StreamId::new(1).expect("in range");
    let piece = Bytes::from(vec![7; 60_000]);
    let data = || Frame::RequestData(Data { stream, payload: DataPayload::Bytes { bytes: piece.clone(), end: false } });
    for number in 0..20_u64 {
        // More than 20 MB in all, in between which the other link goes on.
        send(&mut stuck, (0..18).map(|_| data()).collect()).await.expect("sent");
        let beat = Frame::HeartbeatAck(HeartbeatAck { sequence: number });
        send(&mut lively, VecDeque::from([beat.clone()])).await.expect("sent");
        assert_eq!(receive(&mut read).await.expect("received"), [beat]);
    }
    let ended = receive(&mut unread).await.expect_err("nobody has read it");
    assert!(ended.to_string().contains("RabbitMQ"), "{ended}");
    drop(unread);
    let told = async {
        loop {
            if let Err(error) = receive(&mut stuck).await {
                return error;
            }
        }
    };
    assert!(matches!(told.await, LinkError::Closed), "its other end is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_links_that_nobody_reads_hold_no_more_together_than_their_node_may() {
    const LIMIT: usize = 4 * 1024 * 1024;
    /// What the broker may have sent before it is asked for no more: `prefetch` messages, most of them with two pieces.
    const ON_THEIR_WAY: usize = 16 * 128 * 1024;
    let broker = meeting_place("stuck");
    let mut options = RabbitListenerOptions::new("gateway", Secrets::none());
    options.prefetch = 16;
    let mut listener = RabbitListener::start(broker.clone(), options);
    let listener: &mut dyn Listener = &mut listener;
    let connector = RabbitConnector::new(broker, None);
    let budget = Budget::new(LIMIT);
    let mut pair = async || {
        let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
        let (service, mut gateway) = (service.expect("connected"), gateway.expect("accepted"));
        gateway.count_in(&budget);
        (service, gateway)
    };
    let (mut lively, mut read) = pair().await;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        stuck.push(pair().await);
    }
    let stream = StreamId::new(1).expect("in range");
    let piece = Bytes::from(vec![7; 60_000]);
    let data = || Frame::RequestData(Data { stream, payload: DataPayload::Bytes { bytes: piece.clone(), end: false } });
    // 8 MB in all, none of which is read.
    for (service, _) in &mut stuck {
        send(service, (0..17).map(|_| data()).collect()).await.expect("sent");
    }
    let relieved = async {
        for sequence in 0.. {
            let beat = Frame::HeartbeatAck(HeartbeatAck { sequence });
            send(&mut lively, VecDeque::from([beat.clone()])).await.expect("sent");
            assert_eq!(receive(&mut read).await.expect("received"), [beat]);
            assert!(budget.used() <= LIMIT + ON_THEIR_WAY, "{} bytes", budget.used());
            // All that was sent before has arrived, or its link has ended.
            if sequence > 20 && !budget.is_high() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), relieved).await.expect("links end until there is room");
    let mut ended = 0;
    for (_, gateway) in &mut stuck {
        if let Err(error) = receive(gateway).await {
            ended += 1;
            assert!(error.to_string().contains("RabbitMQ"), "{error}");
        }
    }
    assert!((1..8).contains(&ended), "{ended}: some have ended, and no more than had to");
    drop(stuck);
    assert_eq!(budget.used(), 0, "nothing is counted that is not there");
}
