//! NATS core: a subscriber that answers and a client that asks, each with a connection of its own to one broker.

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;

use crate::load::Load;

const SUBJECT: &str = "bench.echo";

pub(crate) async fn run(load: Load, broker: &str) -> Result<()> {
    let far = async_nats::connect(broker).await.with_context(|| format!("no NATS server at {broker}"))?;
    let mut requests = far.subscribe(SUBJECT).await?;
    // The subscription is known to the broker when this comes back.
    far.flush().await?;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply else { continue };
            if far.publish(reply, request.payload).await.is_err() {
                return;
            }
        }
    });
    let client = async_nats::connect(broker).await?;
    load.drive(move |payload| {
        let client = client.clone();
        async move { Ok(client.request(SUBJECT, payload).await?.payload.len()) }
    })
    .await
}
