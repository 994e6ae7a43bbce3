//! NATS core: a subscriber that answers and a client that asks, each with a connection of its own to one broker.

use anyhow::{Context as _, Result};
use async_nats::Client;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use crate::load::Load;

const SUBJECT: &str = "bench.echo";

pub(crate) async fn answer(broker: &str, ready: oneshot::Sender<()>) -> Result<()> {
    let client = connect(broker).await?;
    let mut requests = client.subscribe(SUBJECT).await?;
    // The subscription is known to the broker when this comes back.
    client.flush().await?;
    // Whoever waits for it may have failed, and says so itself.
    let _ = ready.send(());
    while let Some(request) = requests.next().await {
        if let Some(reply) = request.reply {
            client.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}

pub(crate) async fn ask(load: Load, broker: &str, ready: oneshot::Receiver<()>) -> Result<()> {
    let client = connect(broker).await?;
    ready.await.context("the far end is gone")?;
    load.drive(move |payload| {
        let client = client.clone();
        async move { Ok(client.request(SUBJECT, payload).await?.payload.len()) }
    })
    .await
}

async fn connect(broker: &str) -> Result<Client> {
    async_nats::connect(broker).await.with_context(|| format!("no NATS server at {broker}"))
}
