//! A storm of requests that are given up at random points: in their head, in their body, while a handler works, in the
//! middle of an answer. Nothing may be left of them, and what follows must run as if they had never been.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::ask::{Ask, Came, Crowd};
use crate::books::{Books, Open};
use crate::say;
use crate::stand::{Programs, ServiceOptions, Stand, eventually};
use crate::ways::Ways;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Requests that are given up.
    #[arg(long, value_name = "N", default_value = "100000")]
    requests: u64,
    /// So many at a time.
    #[arg(long, value_name = "N", default_value = "128")]
    at_once: u64,
    /// Requests that may be in flight in the service.
    #[arg(long, value_name = "N", default_value = "1024")]
    lease: u32,
    /// Says which random points these are.
    #[arg(long, default_value = "1")]
    seed: u64,
}

/// The load before and after.
const LOAD: Duration = Duration::from_secs(10);
const CLIENTS: u64 = 64;
/// Time for everything to be given back.
const PATIENCE: Duration = Duration::from_secs(15);
/// The load afterwards runs at this share of the one before, at least: more than the noise of a shared machine, and less
/// than what a leak of slots or of memory would leave.
const SHARE: f64 = 0.8;
/// Requests of one HTTP/2 connection, after which it is replaced.
const OF_A_CONNECTION: u64 = 200;
/// Longest time until a request is given up.
const LONGEST: Duration = Duration::from_millis(30);

pub(crate) async fn run(programs: &Programs, options: &Options) -> Result<()> {
    let stand = Stand::new(programs, &Ways::tcp()?, "")?;
    let gateway = stand.gateway().await?;
    let service = stand.service(ServiceOptions { lease: options.lease, ..ServiceOptions::default() }).await?;
    let books = stand.books();

    say(format_args!("{CLIENTS} clients before the storm"));
    let before = load(stand.http).await?;
    let (memory, descriptors) = (gateway.memory()?, gateway.descriptors()?);
    let service_memory = service.memory()?;

    let began = Instant::now();
    let mut storm = JoinSet::new();
    for number in 0..options.at_once {
        let share = options.requests / options.at_once + u64::from(number < options.requests % options.at_once);
        let random = fastrand::Rng::with_seed(options.seed.wrapping_mul(1_000_003).wrapping_add(number));
        storm.spawn(give_up_again_and_again(stand.http, share, random));
    }
    let (mut most, mut count) = (Open::default(), Given::default());
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut told = Instant::now();
    while !storm.is_empty() {
        tokio::select! {
            Some(one) = storm.join_next() => count.add(one?),
            _ = ticks.tick() => {
                let open = books.open().await?;
                most.leased = most.leased.max(open.leased);
                most.requests = most.requests.max(open.requests);
                if told.elapsed() > Duration::from_secs(5) {
                    told = Instant::now();
                    say(format_args!("{:.0} s into the storm: {open}", began.elapsed().as_secs_f64()));
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let quiet = eventually(PATIENCE, async || nothing_is_open(books).await).await;
    let left = books.open().await?;
    let closed = eventually(PATIENCE, async || gateway.descriptors().is_ok_and(|now| now <= descriptors)).await;

    say(format_args!("{CLIENTS} clients after the storm"));
    let after = load(stand.http).await?;
    let share = after.per_second() / before.per_second();
    let mebibytes = |now: u64, then: u64| (now as f64 - then as f64) / f64::from(1 << 20);
    println!(
        "given up              {} requests in {seconds:.0} s ({:.0}/s)",
        count.all(),
        count.all() as f64 / seconds
    );
    println!("                      {count}");
    println!(
        "at most               {} requests in flight, {} slots of {} taken",
        most.requests, most.leased, options.lease
    );
    println!("left afterwards       {left}");
    println!(
        "all given back        {}",
        quiet.map_or("NO".to_owned(), |took| format!("within {} ms", took.as_millis()))
    );
    println!("descriptors           {} before, {} after", descriptors, gateway.descriptors()?);
    println!(
        "memory                gateway {:+.1} MiB, service {:+.1} MiB",
        mebibytes(gateway.memory()?, memory),
        mebibytes(service.memory()?, service_memory)
    );
    println!("load before           {:.0}/s, {}", before.per_second(), before.tally);
    println!("load after            {:.0}/s, {} ({:.0} % of before)", after.per_second(), after.tally, share * 100.0);

    ensure!(quiet.is_some(), "something was not given back: {left}; logs are in {}", stand.keep().display());
    ensure!(closed.is_some(), "descriptors were not given back");
    ensure!(most.leased <= u64::from(options.lease), "more slots were taken than there are");
    let failed = before.tally.failed() + after.tally.failed();
    ensure!(failed == 0, "{failed} requests of the load failed");
    ensure!(share >= SHARE, "the load runs at {:.0} % of what it did before the storm", share * 100.0);
    service.stop().await?;
    gateway.stop().await
}

async fn nothing_is_open(books: Books) -> bool {
    books.open().await.is_ok_and(|open| open == Open::default())
}

async fn load(to: SocketAddr) -> Result<Came> {
    let crowd = Crowd::start(to, CLIENTS, |number, turn| match (number + turn) % 2 {
        0 => Ask::Hello,
        _ => Ask::Echo(1000),
    });
    sleep(LOAD).await;
    crowd.stop().await
}

/// How many were given up, by where.
#[derive(Debug, Clone, Copy, Default)]
struct Given {
    in_the_request: u64,
    before_the_answer: u64,
    in_the_answer: u64,
    of_http2: u64,
}

impl Given {
    const fn add(&mut self, other: Self) {
        self.in_the_request += other.in_the_request;
        self.before_the_answer += other.before_the_answer;
        self.in_the_answer += other.in_the_answer;
        self.of_http2 += other.of_http2;
    }

    const fn all(&self) -> u64 {
        self.in_the_request + self.before_the_answer + self.in_the_answer + self.of_http2
    }
}

impl std::fmt::Display for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { in_the_request, before_the_answer, in_the_answer, of_http2 } = self;
        write!(
            f,
            "HTTP/1.1: {in_the_request} in the request, {before_the_answer} before the answer, {in_the_answer} in the \
             answer; HTTP/2: {of_http2} at any point"
        )
    }
}

async fn give_up_again_and_again(to: SocketAddr, count: u64, mut random: fastrand::Rng) -> Given {
    let (mut given, mut http2) = (Given::default(), Http2::default());
    for _ in 0..count {
        // A server that ends a connection early has done what was asked of it all the same.
        match random.u8(..4) {
            0 => {
                let _ = in_the_request(to, &mut random).await;
                given.in_the_request += 1;
            }
            1 => {
                let _ = before_the_answer(to, &mut random).await;
                given.before_the_answer += 1;
            }
            2 => {
                let _ = in_the_answer(to, &mut random).await;
                given.in_the_answer += 1;
            }
            _ => {
                let _ = http2.give_up(to, &mut random).await;
                given.of_http2 += 1;
            }
        }
    }
    given
}

/// Gives up one request over HTTP/1.1, at a random point.
pub(crate) async fn give_up(to: SocketAddr, random: &mut fastrand::Rng) -> Result<()> {
    match random.u8(..3) {
        0 => in_the_request(to, random).await,
        1 => before_the_answer(to, random).await,
        _ => in_the_answer(to, random).await,
    }
}

async fn connect(to: SocketAddr, random: &mut fastrand::Rng) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    if random.bool() {
        // It ends with a reset instead of an end.
        stream.set_zero_linger()?;
    }
    Ok(stream)
}

fn soon(random: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(random.u64(..LONGEST.as_micros() as u64))
}

async fn in_the_request(to: SocketAddr, random: &mut fastrand::Rng) -> Result<()> {
    const LENGTH: usize = 256 * 1024;
    let mut stream = connect(to, random).await?;
    let mut request =
        format!("POST /echo HTTP/1.1\r\nhost: endurance\r\ncontent-length: {LENGTH}\r\n\r\n").into_bytes();
    request.resize(request.len() + LENGTH, b'x');
    let cut = random.usize(1..request.len());
    let part = request.get(..cut).context("a cut within")?;
    // The answer is an echo: who does not read it is not read either.
    let _ = timeout(soon(random), stream.write_all(part)).await;
    Ok(())
}

async fn before_the_answer(to: SocketAddr, random: &mut fastrand::Rng) -> Result<()> {
    let mut stream = connect(to, random).await?;
    let request = format!("GET /sleep/{} HTTP/1.1\r\nhost: endurance\r\n\r\n", random.u64(..60));
    stream.write_all(request.as_bytes()).await?;
    sleep(soon(random)).await;
    Ok(())
}

async fn in_the_answer(to: SocketAddr, random: &mut fastrand::Rng) -> Result<()> {
    const LENGTH: usize = 1 << 20;
    let mut stream = connect(to, random).await?;
    stream.write_all(format!("GET /bytes/{LENGTH} HTTP/1.1\r\nhost: endurance\r\n\r\n").as_bytes()).await?;
    let mut left = random.usize(..LENGTH);
    let mut piece = vec![0; 64 * 1024];
    while left > 0 {
        let most = left.min(piece.len());
        let Some(part) = piece.get_mut(..most) else { break };
        match timeout(PATIENCE, stream.read(part)).await?? {
            0 => break,
            count => left -= count,
        }
    }
    Ok(())
}

/// One HTTP/2 connection, on which requests are given up one after the other.
#[derive(Default)]
struct Http2 {
    sender: Option<SendRequest<Empty<Bytes>>>,
    connections: JoinSet<()>,
    asked: u64,
}

impl Http2 {
    async fn give_up(&mut self, to: SocketAddr, random: &mut fastrand::Rng) -> Result<()> {
        if self.asked >= OF_A_CONNECTION || self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.connections.abort_all();
            while self.connections.join_next().await.is_some() {}
            let stream = TcpStream::connect(to).await?;
            let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            self.connections.spawn(async {
                let _ = connection.await;
            });
            (self.sender, self.asked) = (Some(sender), 0);
        }
        self.asked += 1;
        let sender = self.sender.as_mut().context("a connection")?;
        let path = match random.u8(..2) {
            0 => format!("/sleep/{}", random.u64(..60)),
            _ => "/bytes/1048576".to_owned(),
        };
        let request = Request::get(format!("http://endurance{path}")).body(Empty::new())?;
        let answered = async {
            let mut body = sender.send_request(request).await?.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
            anyhow::Ok(())
        };
        // Dropped, it resets its stream.
        let _ = timeout(soon(random), answered).await;
        Ok(())
    }
}
