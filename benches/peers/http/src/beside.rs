//! A client that stands beside others: one large body that moves, or that stands still, until it is told to stop.
//!
//! It prints `begin` once the body moves or has come to a stop, and `end` with a line of JSON when a line, or the end,
//! comes on its standard input.

use std::io::{BufRead as _, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::timeout;

use crate::mark;
use crate::stream::{Connection, Exchange, Way};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    to: SocketAddr,
    #[command(flatten)]
    exchange: Exchange,
    /// Stop in the middle: a download is not read, an upload not gone on with, an echo neither read nor written.
    #[arg(long)]
    stall: bool,
}

/// Longest wait for a body that moves, or for a byte of one that is to stand still.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing can be written for so long: it stands still.
const STILL: Duration = Duration::from_millis(300);

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let bytes = if options.stall { stand_still(options)? } else { keep_moving(options)? };
    // What moves tells its own time; for the other one it is of no use.
    let (bytes, seconds) = bytes.unwrap_or((0, started.elapsed().as_secs_f64()));
    mark(&format!("end {}", json!({ "bytes": bytes, "seconds": seconds })));
    Ok(())
}

type Moved = Option<(u64, f64)>;

fn keep_moving(options: &Options) -> Result<Moved> {
    let over = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = Connection::to(options.to);
        timeout(PATIENCE, connection.exchange(&options.exchange)).await??;
        mark("begin");
        let told = Arc::clone(&over);
        // It ends with the process: there is no way to take it back from its reading.
        std::thread::spawn(move || {
            wait_to_be_told();
            told.store(true, Ordering::Relaxed);
        });
        let (started, mut bytes) = (Instant::now(), 0);
        while !over.load(Ordering::Relaxed) {
            timeout(PATIENCE, connection.exchange(&options.exchange)).await??;
            bytes += options.exchange.bytes;
        }
        Ok(Some((bytes, started.elapsed().as_secs_f64())))
    })
}

fn stand_still(options: &Options) -> Result<Moved> {
    let Exchange { way, bytes, version, .. } = &options.exchange;
    let mut stream = TcpStream::connect(options.to)?;
    stream.set_nodelay(true)?;
    let version = version.as_ref().map_or_else(String::new, |version| format!("x-service-version: {version}\r\n"));
    let (line, length) = match way {
        Way::Down => (format!("GET /bytes/{bytes}"), String::new()),
        Way::Up => ("POST /sink".to_owned(), format!("content-length: {bytes}\r\n")),
        Way::Both => ("POST /echo".to_owned(), format!("content-length: {bytes}\r\n")),
    };
    stream.write_all(format!("{line} HTTP/1.1\r\nhost: bench\r\n{version}{length}\r\n").as_bytes())?;
    match way {
        Way::Down => {}
        Way::Up => write(&mut stream, bytes / 2)?,
        Way::Both => {
            // Until no more is taken, because nobody reads what comes back; or until all of it stands in buffers on the way.
            stream.set_write_timeout(Some(STILL))?;
            match write(&mut stream, *bytes) {
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
    }
    is_under_way(&stream, *way)?;
    mark("begin");
    wait_to_be_told();
    is_under_way(&stream, *way)?;
    Ok(None)
}

fn write(stream: &mut TcpStream, mut left: u64) -> std::io::Result<()> {
    let piece = [b'x'; 64 * 1024];
    while left > 0 {
        let length = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        stream.write_all(&piece[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Looks at the answer without taking it: an upload has none yet, the others a good one.
fn is_under_way(stream: &TcpStream, way: Way) -> Result<()> {
    let mut head = [0; 15];
    if way == Way::Up {
        stream.set_nonblocking(true)?;
        let looked = stream.peek(&mut head);
        ensure!(
            looked.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
            "answered before its end: {looked:?} {}",
            String::from_utf8_lossy(&head)
        );
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = stream.peek(&mut head)?;
    ensure!(head[..length].starts_with(b"HTTP/1.1 200"), "answered {:?}", String::from_utf8_lossy(&head[..length]));
    Ok(())
}

fn wait_to_be_told() {
    // No line, an end and an error all say the same.
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}
