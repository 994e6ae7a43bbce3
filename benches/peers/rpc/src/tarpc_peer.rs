//! tarpc over TCP with bincode, as its documentation shows it.

use std::net::SocketAddr;

use anyhow::Result;
use futures_util::StreamExt as _;
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport, server};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::load::Load;

#[tarpc::service]
trait Echo {
    async fn echo(payload: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server;

impl Echo for Server {
    async fn echo(self, _: context::Context, payload: ByteBuf) -> ByteBuf {
        payload
    }
}

pub(crate) async fn answer(load: Load, listener: std::net::TcpListener) -> Result<()> {
    let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
    let transport = serde_transport::new(framed(stream)?, Bincode::default());
    let channel = BaseChannel::new(server::Config { pending_response_buffer: room(load) }, transport);
    let answered = channel.execute(Server.serve()).for_each(|answer| async {
        tokio::spawn(answer);
    });
    answered.await;
    Ok(())
}

pub(crate) async fn ask(load: Load, to: SocketAddr) -> Result<()> {
    let transport = serde_transport::new(framed(TcpStream::connect(to).await?)?, Bincode::default());
    let mut config = client::Config::default();
    config.max_in_flight_requests = room(load);
    config.pending_request_buffer = room(load);
    let client = EchoClient::new(config, transport).spawn();
    load.drive(move |payload| {
        let client = client.clone();
        async move { Ok(client.echo(context::current(), ByteBuf::from(payload.to_vec())).await?.len()) }
    })
    .await
}

/// More than is ever in flight.
const fn room(load: Load) -> usize {
    load.in_flight as usize * 2
}

fn framed(stream: TcpStream) -> Result<Framed<TcpStream, LengthDelimitedCodec>> {
    stream.set_nodelay(true)?;
    Ok(Framed::new(stream, LengthDelimitedCodec::new()))
}
