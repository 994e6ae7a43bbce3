//! tarpc over TCP with bincode, as its documentation shows it.

use std::net::Ipv4Addr;

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

pub(crate) async fn run(load: Load) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    let room = load.in_flight as usize * 2;

    let transport = serde_transport::new(framed(far)?, Bincode::default());
    let channel = BaseChannel::new(server::Config { pending_response_buffer: room }, transport);
    tokio::spawn(channel.execute(Server.serve()).for_each(|answer| async {
        tokio::spawn(answer);
    }));

    let transport = serde_transport::new(framed(near)?, Bincode::default());
    let mut config = client::Config::default();
    config.max_in_flight_requests = room;
    config.pending_request_buffer = room;
    let client = EchoClient::new(config, transport).spawn();
    load.drive(move |payload| {
        let client = client.clone();
        async move { Ok(client.echo(context::current(), ByteBuf::from(payload.to_vec())).await?.len()) }
    })
    .await
}

fn framed(stream: TcpStream) -> Result<Framed<TcpStream, LengthDelimitedCodec>> {
    stream.set_nodelay(true)?;
    Ok(Framed::new(stream, LengthDelimitedCodec::new()))
}
