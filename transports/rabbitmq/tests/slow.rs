//! One link that nobody reads, beside another one through the same queue.

use std::collections::VecDeque;
use std::future::poll_fn;

use bytes::Bytes;
use router_common::frame::{Data, DataPayload, Frame, HeartbeatAck, StreamId};
use router_common::session::Secrets;
use router_link::{BoxLink, Connector, LinkError, Listener};
use transport_rabbitmq::{Broker, RabbitConnector, RabbitListener, RabbitListenerOptions};

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
    let url = test_broker::shared_url().expect("a broker");
    let mut broker = Broker::new([url.as_str()]).expect("an address");
    broker.set_exchange(&format!("slow-{}", std::process::id())).expect("a name");
    let mut listener = RabbitListener::start(broker.clone(), RabbitListenerOptions::new("gateway", Secrets::none()));
    let listener: &mut dyn Listener = &mut listener;
    let connector = RabbitConnector::new(broker, None).to_one();
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    let (mut stuck, mut unread) = (service.expect("connected"), gateway.expect("accepted"));
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
