//! Bare UDP: datagrams that are sent back. Each caller has a socket of its own; nothing is protected, acknowledged or sent
//! again.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::cell::RefCell;

use anyhow::Result;
use tokio::net::UdpSocket;

use crate::load::Load;

/// The largest datagram there is.
const DATAGRAM: usize = 65_507;

pub(crate) async fn answer(socket: std::net::UdpSocket) -> Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).await?;
        let sent = datagram.get(..length).unwrap_or_default();
        socket.send_to(sent, from).await?;
    }
}

pub(crate) async fn ask(load: Load, server: SocketAddr) -> Result<()> {
    // One that is free at a time, and as many as are in flight.
    let free = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..load.in_flight {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(server).await?;
        free.borrow_mut().push((socket, vec![0; DATAGRAM]));
    }
    load.drive(move |payload| {
        let free = Rc::clone(&free);
        async move {
            let (socket, mut datagram) = free.borrow_mut().pop().expect("as many sockets as callers");
            socket.send(&payload).await?;
            let length = socket.recv(&mut datagram).await?;
            free.borrow_mut().push((socket, datagram));
            Ok(length)
        }
    })
    .await
}
