//! Bare lapin: a queue that is consumed and answered, and a queue for the answers, each side with one connection and one
//! channel to one broker. Messages are transient and not acknowledged, and nothing is protected.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use tokio::sync::oneshot;

use crate::load::Load;

/// Longest wait for the far end's queue.
const PATIENCE: Duration = Duration::from_secs(10);

fn queue() -> String {
    format!("bench-lapin-{}", std::process::id())
}

async fn connect(broker: &str) -> Result<(Connection, Channel)> {
    let connection = Connection::connect(broker, ConnectionProperties::default()).await.context("no broker")?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    Ok(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
}

pub(crate) async fn answer(broker: &str) -> Result<()> {
    let (_connection, channel) = connect(broker).await?;
    let mut requests = consume(&channel, &queue()).await?;
    while let Some(request) = requests.next().await {
        let request = request?;
        let Some(to) = request.properties.reply_to().clone() else { continue };
        let id = request.properties.correlation_id().clone().unwrap_or_default();
        let properties = BasicProperties::default().with_correlation_id(id);
        channel.basic_publish("".into(), to, BasicPublishOptions::default(), &request.data, properties).await?;
    }
    Ok(())
}

pub(crate) async fn ask(load: Load, broker: &str) -> Result<()> {
    let (_connection, channel) = connect(broker).await?;
    let replies_to = format!("{}-replies", queue());
    let mut replies = consume(&channel, &replies_to).await?;
    let until = Instant::now() + PATIENCE;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    loop {
        // A passive declaration of a queue that is not there closes the channel.
        let (_probing, probe) = connect(broker).await?;
        match probe.queue_declare(queue().as_str().into(), passive, FieldTable::default()).await {
            Ok(_) => break,
            Err(error) if Instant::now() > until => return Err(error).context("the far end is not there"),
            // The queue is another connection's, which is all that was to be known.
            Err(error) if error.to_string().contains("LOCKED") => break,
            // A broker does not tell when a queue comes.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let waiting: Rc<RefCell<HashMap<String, oneshot::Sender<usize>>>> = Rc::default();
    let to_wake = Rc::clone(&waiting);
    let reading = tokio::task::spawn_local(async move {
        while let Some(Ok(reply)) = replies.next().await {
            let id = reply.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default();
            if let Some(caller) = to_wake.borrow_mut().remove(&id) {
                let _ = caller.send(reply.data.len());
            }
        }
    });
    let next = Rc::new(Cell::new(0_u64));
    let driven = load
        .drive(move |payload| {
            let (channel, waiting, replies_to) = (channel.clone(), Rc::clone(&waiting), replies_to.clone());
            let id = next.replace(next.get() + 1).to_string();
            async move {
                let (caller, reply) = oneshot::channel();
                waiting.borrow_mut().insert(id.clone(), caller);
                let properties =
                    BasicProperties::default().with_reply_to(replies_to.into()).with_correlation_id(id.into());
                let options = BasicPublishOptions::default();
                channel.basic_publish("".into(), queue().into(), options, &payload, properties).await?;
                Ok(reply.await?)
            }
        })
        .await;
    reading.abort();
    driven
}
