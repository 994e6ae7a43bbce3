//! NATS core: a subscriber that answers and a client that asks, each with a connection of its own to one broker.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_nats::Client;
use futures_util::StreamExt as _;

use crate::load::Load;

const SUBJECT: &str = "bench.echo";

/// Longest wait for the broker to know the subscription.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn answer(broker: &str) -> Result<()> {
    let client = connect(broker).await?;
    let mut requests = client.subscribe(SUBJECT).await?;
    while let Some(request) = requests.next().await {
        if let Some(reply) = request.reply {
            client.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}

pub(crate) async fn ask(load: Load, broker: &str) -> Result<()> {
    let client = connect(broker).await?;
    let until = Instant::now() + PATIENCE;
    while let Err(error) = client.request(SUBJECT, "is anybody there?".into()).await {
        if Instant::now() > until {
            return Err(error).context("the far end is not there");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    load.drive(move |payload| {
        let client = client.clone();
        async move { Ok(client.request(SUBJECT, payload).await?.payload.len()) }
    })
    .await
}

async fn connect(broker: &str) -> Result<Client> {
    async_nats::connect(broker).await.with_context(|| format!("no NATS server at {broker}"))
}
