//! Clients that ask without a pause and forgive nothing: a connection that ends without having said so is a failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::within;

/// One connection of HTTP/1.1.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The connection's last.
    pub(crate) is_last: bool,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("somebody listens")
    }

    async fn try_open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
        Ok(Self { stream, read: Vec::new() })
    }

    pub(crate) async fn send(&mut self, path: &str) {
        self.send_as("GET", path).await;
    }

    pub(crate) async fn send_as(&mut self, method: &str, path: &str) {
        self.try_send(method, path).await.expect("it takes a request");
    }

    async fn try_send(&mut self, method: &str, path: &str) -> Result<(), String> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.map_err(|error| format!("sending: {error}"))
    }

    pub(crate) async fn ask(&mut self, path: &str) -> Result<Answer, String> {
        self.try_send("GET", path).await?;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Result<Answer, String> {
        within("an answer", self.read_answer()).await
    }

    async fn read_answer(&mut self) -> Result<Answer, String> {
        let head = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                let head = std::mem::replace(&mut self.read, rest);
                break String::from_utf8_lossy(&head).to_ascii_lowercase();
            }
            self.read_more().await?;
        };
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
        let length: usize = field("content-length").and_then(|length| length.parse().ok()).ok_or("no length")?;
        while self.read.len() < length {
            self.read_more().await?;
        }
        let rest = self.read.split_off(length);
        let body = String::from_utf8_lossy(&std::mem::replace(&mut self.read, rest)).into_owned();
        Ok(Answer { status, body, is_last: field("connection").is_some_and(|value| value == "close") })
    }

    async fn read_more(&mut self) -> Result<(), String> {
        let read = self.stream.read_buf(&mut self.read).await.map_err(|error| format!("reading: {error}"))?;
        if read == 0 {
            return Err(format!("closed without a word after {} bytes", self.read.len()));
        }
        Ok(())
    }
}

/// Clients in a closed loop.
pub(crate) struct Clients {
    tasks: JoinSet<Vec<String>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicU64,
    progress: Notify,
    stop: AtomicBool,
}

impl Clients {
    /// So many that keep their connections, and so many that make one for each request.
    pub(crate) fn start(address: SocketAddr, keeping: usize, fresh: usize) -> Self {
        let (mut tasks, shared) = (JoinSet::new(), Arc::new(Shared::default()));
        for number in 0..keeping + fresh {
            tasks.spawn(client(address, number, number < keeping, Arc::clone(&shared)));
        }
        Self { tasks, shared }
    }

    /// Waits until so many more requests have been answered.
    pub(crate) async fn have_asked(&self, more: u64) {
        let goal = self.shared.asked.load(Ordering::Relaxed) + more;
        within("requests are answered", async {
            while self.shared.asked.load(Ordering::Relaxed) < goal {
                self.shared.progress.notified().await;
            }
        })
        .await;
    }

    /// Ends all; none may have had a failure.
    pub(crate) async fn stop(self) {
        let (asked, failures) = self.end().await;
        assert!(failures.is_empty(), "{} of {asked} requests failed: {failures:#?}", failures.len());
    }

    /// Ends all; says how many requests there were, and what became of those that failed.
    pub(crate) async fn end(mut self) -> (u64, Vec<String>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(of_client) = within("a client ends", self.tasks.join_next()).await {
            failures.extend(of_client.expect("no client panics"));
        }
        (self.shared.asked.load(Ordering::Relaxed), failures)
    }
}

async fn client(address: SocketAddr, number: usize, keeps: bool, shared: Arc<Shared>) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = None;
    for count in 0_u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let word = format!("{number}-{count}");
        let asked = async {
            let mut at = match connection.take() {
                Some(connection) => connection,
                None => Connection::try_open(address).await?,
            };
            let answer = at.ask(&format!("/quick/{word}")).await?;
            Ok::<_, String>((answer, at))
        };
        match asked.await {
            Ok((answer, at)) if answer.status == 200 && answer.body == word => {
                connection = Some(at).filter(|_| keeps && !answer.is_last);
            }
            Ok((answer, _)) => failures.push(format!("{word}: {answer:?}")),
            Err(error) => failures.push(format!("{word}: {error}")),
        }
        shared.asked.fetch_add(1, Ordering::Relaxed);
        shared.progress.notify_waiters();
        shared.progress.notify_one();
    }
    failures
}
