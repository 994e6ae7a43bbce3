//! Channel: messages and descriptors between two processes over a Unix socket.
//!
//! A message is its length in four bytes, big-endian, and then JSON; a descriptor comes with a single byte of its own.
//! Whose turn it is to say what is not known here.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use router_common::identity::Instance;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::HandoverError;
use crate::sockets::Purpose;

/// Length of a message, in bytes: room for as many instances as a gateway has.
const MESSAGE: usize = 8 * 1024 * 1024;
/// The byte that a descriptor comes with.
const WITH_DESCRIPTOR: u8 = b'+';

/// What is said. Fields may be added: unknown ones are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Message {
    /// New to old, first.
    TakeOver { version: u32, pid: u32, release: String },
    /// Old to new; as many descriptors follow.
    Offer { version: u32, pid: u32, node: String, sockets: Vec<Listening> },
    /// Old to new, in place of an offer, or when it goes on after all.
    Refused { reason: String },
    /// New to old: services are let in here. The old process need not be patient for longer than `wait_ms`.
    ServicesMayCome { wait_ms: u64 },
    /// Old to new: services are asked to come. Who is to be waited for, and the default version of each service.
    ServicesAreSent { instances: Vec<Name>, links: usize, defaults: BTreeMap<String, String> },
    /// New to old: clients are let in here.
    Serving,
}

/// A listening socket that comes as a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listening {
    pub(super) purpose: Purpose,
    /// The configured address that it was had for.
    pub(super) configured: Option<SocketAddr>,
}

/// An instance's identity, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    service: String,
    version: String,
    region: String,
    id: String,
}

impl From<&Instance> for Name {
    fn from(instance: &Instance) -> Self {
        Self {
            service: instance.service.to_string(),
            version: instance.version.to_string(),
            region: instance.region.to_string(),
            id: instance.id.to_string(),
        }
    }
}

impl Name {
    /// `None` if it is not well-formed here: then nobody of this name can be waited for.
    pub(super) fn parse(&self) -> Option<Instance> {
        let Self { service, version, region, id } = self;
        let (service, version) = (service.parse().ok()?, version.parse().ok()?);
        Some(Instance { service, version, region: region.parse().ok()?, id: id.parse().ok()? })
    }
}

/// One end.
pub(super) struct Channel(UnixStream);

impl Channel {
    /// # Errors
    /// [`HandoverError::Stranger`]: the other end is another user's process.
    pub(super) fn new(stream: UnixStream) -> Result<Self, HandoverError> {
        let (own, other) = (rustix::process::geteuid().as_raw(), stream.peer_cred()?.uid());
        if own == other { Ok(Self(stream)) } else { Err(HandoverError::Stranger(other)) }
    }

    pub(super) async fn send(&mut self, message: &Message, within: Duration) -> Result<(), HandoverError> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let sending = async {
            self.0.write_all(&length.to_be_bytes()).await?;
            self.0.write_all(&text).await
        };
        Ok(timeout(within, sending).await.map_err(|_| HandoverError::Silent(within))??)
    }

    pub(super) async fn receive(&mut self, within: Duration) -> Result<Message, HandoverError> {
        timeout(within, self.receive_sometime()).await.map_err(|_| HandoverError::Silent(within))?
    }

    /// Waits for a message for as long as it takes. What was read is lost if this is dropped in the middle of one.
    pub(super) async fn receive_sometime(&mut self) -> Result<Message, HandoverError> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MESSAGE {
            return Err(HandoverError::Unexpected);
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).await?;
        serde_json::from_slice(&text).map_err(|_| HandoverError::Unexpected)
    }

    pub(super) async fn send_descriptor(&self, it: BorrowedFd<'_>, within: Duration) -> Result<(), HandoverError> {
        let sending = self.0.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            let descriptors = [it];
            if !beside.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let sent = sendmsg(self.0.as_fd(), &[IoSlice::new(&[WITH_DESCRIPTOR])], &mut beside, SendFlags::NOSIGNAL)?;
            if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        });
        Ok(timeout(within, sending).await.map_err(|_| HandoverError::Silent(within))??)
    }

    pub(super) async fn receive_descriptor(&self, within: Duration) -> Result<OwnedFd, HandoverError> {
        let receiving = self.0.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let received = recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut beside, CLOSED_ON_EXEC)?;
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let descriptors = beside.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            let mut descriptors = descriptors.flatten();
            match (byte, descriptors.next()) {
                ([WITH_DESCRIPTOR], Some(descriptor)) => Ok(descriptor),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        });
        Ok(timeout(within, receiving).await.map_err(|_| HandoverError::Silent(within))??)
    }
}

/// A program that is started later does not inherit what was received.
#[cfg(not(target_vendor = "apple"))]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::empty();

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn messages_and_descriptors_arrive_in_their_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        let sockets: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let listening = Listening { purpose: Purpose::Http, configured: Some("127.0.0.1:0".parse().unwrap()) };
        let offer = Message::Offer { version: 1, pid: 2, node: "a".into(), sockets: vec![listening; 3] };
        one.send(&offer, SOON).await.unwrap();
        for socket in &sockets {
            one.send_descriptor(socket.as_fd(), SOON).await.unwrap();
        }
        one.send(&Message::Serving, SOON).await.unwrap();
        drop(one);
        assert_eq!(other.receive(SOON).await.unwrap(), offer);
        for socket in &sockets {
            let same = TcpListener::from(other.receive_descriptor(SOON).await.unwrap());
            assert_eq!(same.local_addr().unwrap(), socket.local_addr().unwrap());
        }
        assert_eq!(other.receive(SOON).await.unwrap(), Message::Serving);
        assert!(matches!(other.receive(SOON).await, Err(HandoverError::Connection(_))), "it has gone");
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_before_it_is_held() {
        for bytes in [&[0xff; 8][..], b"\0\0\0\x02{}", b"\0\0\0\x03\xff\xff\xff"] {
            let (mut one, other) = UnixStream::pair().unwrap();
            let mut other = Channel::new(other).unwrap();
            one.write_all(bytes).await.unwrap();
            assert!(matches!(other.receive(SOON).await, Err(HandoverError::Unexpected)), "{bytes:?}");
        }
    }
}
