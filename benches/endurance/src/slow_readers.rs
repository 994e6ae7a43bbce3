//! Slow readers beside fast clients: what the fast ones notice, and what the gateway holds for each slow one.
//!
//! Each slow client reads a large response at a few KiB a second through a socket with a small receive buffer, so that
//! what it has not read waits in the gateway and behind it, and not in its own kernel.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ask::{Ask, Came, Crowd, is_pattern};
use crate::books::Open;
use crate::say;
use crate::stand::{Process, Programs, ServiceOptions, Stand, eventually};
use crate::ways::Ways;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Clients that read slowly.
    #[arg(long, value_name = "N", default_value = "1000")]
    readers: usize,
    /// For how long, in seconds.
    #[arg(long, value_name = "S", default_value = "60")]
    seconds: u64,
    /// KiB that each of them reads a second.
    #[arg(long, value_name = "KIB", default_value = "10")]
    pace: usize,
    /// MiB of each response.
    #[arg(long, value_name = "MIB", default_value = "10")]
    size: usize,
    /// Fast clients beside them.
    #[arg(long, value_name = "N", default_value = "64")]
    fast: u64,
    /// Requests that may be in flight in the service.
    #[arg(long, value_name = "N", default_value = "2048")]
    lease: u32,
}

/// Pieces that a slow client reads a second.
const TURNS: usize = 5;
/// Octets that its kernel takes ahead of it, about.
const RECEIVE_BUFFER: usize = 8 * 1024;
/// Without slow readers, before and after them.
const ALONE: Duration = Duration::from_secs(10);
/// The fast clients' p99 may grow so far.
const ALLOWED: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(programs: &Programs, options: &Options) -> Result<()> {
    let stand = Stand::new(programs, &Ways::tcp()?, "")?;
    let gateway = stand.gateway().await?;
    let service = stand.service(ServiceOptions { lease: options.lease, ..ServiceOptions::default() }).await?;

    say(format_args!("{} fast clients alone", options.fast));
    let before = fast(&stand, options.fast, ALONE).await?;
    let (gateway_before, service_before) = (gateway.memory()?, service.memory()?);

    say(format_args!("{} clients begin to read {} MiB at {} KiB/s", options.readers, options.size, options.pace));
    let stop = CancellationToken::new();
    let mut readers = JoinSet::new();
    for _ in 0..options.readers {
        readers.spawn(read_slowly(stand.http, options.size << 20, options.pace << 10, stop.clone()));
    }
    let books = stand.books();
    let all = options.readers as u64;
    let begun = eventually(PATIENCE, async || books.open().await.is_ok_and(|open| open.requests >= all)).await;
    ensure!(begun.is_some(), "not all slow responses have begun within {PATIENCE:?}: {}", books.open().await?);

    let crowd = Crowd::start(stand.http, options.fast, |_, _| Ask::Hello);
    let peak = peak_memory(&gateway, &service, Duration::from_secs(options.seconds)).await?;
    let beside = crowd.stop().await?;
    stop.cancel();
    let mut read = 0;
    while let Some(one) = readers.join_next().await {
        read += one?.context("a slow reader")?;
    }
    let quiet = eventually(PATIENCE, async || books.open().await.is_ok_and(|open| open == Open::default())).await;
    say(format_args!("{} fast clients alone again", options.fast));
    let after = fast(&stand, options.fast, ALONE).await?;

    let each = |peak: u64, before: u64| peak.saturating_sub(before) as f64 / 1024.0 / options.readers as f64;
    let alone = f64::midpoint(before.tally.percentile(99.0), after.tally.percentile(99.0));
    let ratio = beside.tally.percentile(99.0) / alone;
    println!("fast clients before   {}", told(&before));
    println!("fast clients beside   {}", told(&beside));
    println!("fast clients after    {}", told(&after));
    println!("p99 beside / alone    {ratio:.2} (at most {ALLOWED})");
    println!("slow clients          {} KiB/s each", read / 1024 / options.readers as u64 / options.seconds.max(1));
    println!("gateway's memory      {:.1} KiB for each slow stream", each(peak.0, gateway_before));
    println!("service's memory      {:.1} KiB for each slow stream", each(peak.1, service_before));
    println!(
        "all given back        {}",
        quiet.map_or("NO".to_owned(), |took| format!("within {} ms", took.as_millis()))
    );

    let failed = before.tally.failed() + beside.tally.failed() + after.tally.failed();
    ensure!(failed == 0, "{failed} fast requests failed; logs are in {}", stand.keep().display());
    ensure!(quiet.is_some(), "not all was given back: {}", books.open().await?);
    ensure!(ratio <= ALLOWED, "slow readers make fast clients wait: p99 {ratio:.2} x");
    service.stop().await?;
    gateway.stop().await
}

fn told(came: &Came) -> String {
    format!("{:.0}/s, {}", came.per_second(), came.tally)
}

async fn fast(stand: &Stand, clients: u64, time: Duration) -> Result<Came> {
    let crowd = Crowd::start(stand.http, clients, |_, _| Ask::Hello);
    sleep(time).await;
    crowd.stop().await
}

/// The most that either process holds while a time passes, in bytes.
async fn peak_memory(gateway: &Process, service: &Process, time: Duration) -> Result<(u64, u64)> {
    let (mut looks, began, mut peak) = (interval(Duration::from_millis(500)), Instant::now(), (0, 0));
    while began.elapsed() < time {
        looks.tick().await;
        peak = (peak.0.max(gateway.memory()?), peak.1.max(service.memory()?));
    }
    Ok(peak)
}

/// Reads a response of `size` octets, so many a second, until it is told to stop. How many octets came.
pub(crate) async fn read_slowly(to: SocketAddr, size: usize, pace: usize, stop: CancellationToken) -> Result<u64> {
    let mut stream = narrow(to).await?;
    let request = format!("GET /bytes/{size} HTTP/1.1\r\nhost: endurance\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        timeout(PATIENCE, stream.read_exact(&mut octet)).await.context("the head did not come")??;
        head.extend_from_slice(&octet);
    }
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    let mut piece = vec![0; (pace / TURNS).max(1)];
    let mut turns = interval(Duration::from_secs(1) / TURNS as u32);
    let mut read = 0;
    while read < size {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = turns.tick() => {}
        }
        let wanted = piece.len().min(size - read);
        let Some(part) = piece.get_mut(..wanted) else { break };
        timeout(PATIENCE, stream.read_exact(part)).await.context("nothing came for too long")??;
        ensure!(is_pattern(part, read), "wrong octets at {read}");
        read += wanted;
    }
    Ok(read as u64)
}

/// A connection whose kernel takes little ahead of its reader.
async fn narrow(to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    Ok(tokio::net::TcpSocket::from_std_stream(socket.into()).connect(to).await?)
}
