//! A network for tests (feature `testing`): it stands between services and a gateway, and loses, doubles and delays
//! datagrams as a seed has it. It also remembers them, and sends again what it is given.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use router_common::testing::Random;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::packet::DATAGRAM_BYTES_MAX;

/// Datagrams that are remembered; older ones are forgotten.
const REMEMBERED: usize = 4096;
/// Datagrams of one service that wait for the forwarder.
const WAITING: usize = 1024;
/// Datagrams under way for one service; more are lost.
const UNDER_WAY: usize = 8192;

/// How bad the network is, in percent of datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// They never arrive.
    pub lost: usize,
    /// They arrive twice.
    pub doubled: usize,
    /// They arrive later, behind others.
    pub late: usize,
    /// How much later at most. Default: none.
    pub lateness: Duration,
}

impl Weather {
    /// The weather of the requirements: 30 % of each, up to 30 ms late.
    pub const BAD: Self = Self { lost: 30, doubled: 30, late: 30, lateness: Duration::from_millis(30) };
}

/// Which way a datagram went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a service.
    ToGateway,
    /// To a service.
    ToService,
}

/// Forwards datagrams between services, which dial [`address`](Self::address), and one gateway.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    seen: Mutex<VecDeque<(Way, Vec<u8>)>>,
    /// Towards the gateway, each as one of the services.
    upstreams: Mutex<Vec<Arc<UdpSocket>>>,
    weather: Mutex<Weather>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Forwarder {
    /// Forwards to `gateway`. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn start(gateway: SocketAddr, weather: Weather, seed: u64) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let state = Arc::new(State { weather: Mutex::new(weather), ..State::default() });
        let task = tokio::spawn(forward(front, gateway, seed, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// Where services find the gateway.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather.
    pub fn turn(&self, weather: Weather) {
        *locked(&self.state.weather) = weather;
    }

    /// The datagrams that came to it so far, in that order.
    #[must_use]
    pub fn seen(&self) -> Vec<(Way, Vec<u8>)> {
        locked(&self.state.seen).iter().cloned().collect()
    }

    /// Sends to the gateway from the address that the first service has there.
    ///
    /// # Errors
    /// No service has sent anything yet, or the operating system's.
    pub async fn inject(&self, datagram: &[u8]) -> io::Result<()> {
        let upstream = locked(&self.state.upstreams).first().cloned();
        upstream.ok_or(io::ErrorKind::NotConnected)?.send(datagram).await.map(drop)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(front: Arc<UdpSocket>, gateway: SocketAddr, seed: u64, state: Arc<State>) {
    let mut services: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
        let datagram = buffer.get(..length).unwrap_or_default().to_vec();
        let number = services.len() as u64;
        let service = match services.entry(from) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let Ok(upstream) = connected(gateway).await else { continue };
                let upstream = Arc::new(upstream);
                locked(&state.upstreams).push(Arc::clone(&upstream));
                let (sender, receiver) = mpsc::channel(WAITING);
                let path = Path { front: Arc::clone(&front), upstream, service: from, state: Arc::clone(&state) };
                tasks.spawn(path.run(receiver, Random::new(seed.wrapping_add(number))));
                entry.insert(sender)
            }
        };
        // A full queue loses datagrams, as queues do.
        let _ = service.try_send(datagram);
    }
}

async fn connected(gateway: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(gateway).await?;
    Ok(socket)
}

/// Between one service and the gateway.
struct Path {
    front: Arc<UdpSocket>,
    upstream: Arc<UdpSocket>,
    service: SocketAddr,
    state: Arc<State>,
}

impl Path {
    async fn run(self, mut from_service: mpsc::Receiver<Vec<u8>>, mut random: Random) {
        let mut under_way: BTreeMap<(Instant, u64), (Way, Vec<u8>)> = BTreeMap::new();
        let mut order = 0;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let next = under_way.first_key_value().map(|((at, _), _)| *at);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (way, datagram) = tokio::select! {
                biased;
                () = due => {
                    if let Some((_, (way, datagram))) = under_way.pop_first() {
                        self.deliver(way, &datagram).await;
                    }
                    continue;
                }
                Some(datagram) = from_service.recv() => (Way::ToGateway, datagram),
                Ok(length) = self.upstream.recv(&mut buffer) => {
                    (Way::ToService, buffer.get(..length).unwrap_or_default().to_vec())
                }
                else => continue,
            };
            self.remember(way, &datagram);
            let weather = *locked(&self.state.weather);
            if random.chance(weather.lost) {
                continue;
            }
            for _ in 0..1 + usize::from(random.chance(weather.doubled)) {
                let lateness = usize::try_from(weather.lateness.as_micros()).unwrap_or(usize::MAX);
                let late = if random.chance(weather.late) { random.below(lateness.max(1)) } else { 0 };
                order += 1;
                if under_way.len() < UNDER_WAY {
                    let at = Instant::now() + Duration::from_micros(late as u64);
                    under_way.insert((at, order), (way, datagram.clone()));
                }
            }
        }
    }

    async fn deliver(&self, way: Way, datagram: &[u8]) {
        // Who is not there any more gets nothing.
        let _ = match way {
            Way::ToGateway => self.upstream.send(datagram).await,
            Way::ToService => self.front.send_to(datagram, self.service).await,
        };
    }

    fn remember(&self, way: Way, datagram: &[u8]) {
        let mut seen = locked(&self.state.seen);
        if seen.len() >= REMEMBERED {
            seen.pop_front();
        }
        seen.push_back((way, datagram.to_vec()));
    }
}
