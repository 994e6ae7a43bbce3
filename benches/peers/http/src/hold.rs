//! A client that holds connections: opens them with one request each, then waits to be told what is next.
//!
//! It prints `idle` when all are open and have had their answer. A line on its standard input sends a slow request
//! on each and prints `in flight`; another one reads all the answers and prints `done`. It ends with its input.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::mark;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value = "2000")]
    connections: usize,
    /// How long the slow requests take, in milliseconds.
    #[arg(long, default_value = "10000")]
    slow: u64,
}

/// Longest wait for an answer, beyond what a slow one takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut connections = Vec::with_capacity(options.connections);
    for number in 1..=options.connections {
        connections.push(open(options).with_context(|| format!("connection {number}"))?);
    }
    mark("idle");
    if !told()? {
        return Ok(());
    }
    for connection in &mut connections {
        ask(connection, &format!("/sleep/{}", options.slow))?;
    }
    mark("in flight");
    if !told()? {
        return Ok(());
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        answer(connection).with_context(|| format!("the slow answer on connection {}", number + 1))?;
    }
    mark("done");
    told()?;
    Ok(())
}

/// Whether a line came; `false` when nobody is there to write one.
fn told() -> Result<bool> {
    let mut line = String::new();
    Ok(std::io::stdin().lock().read_line(&mut line)? > 0)
}

fn open(options: &Options) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(options.to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE + Duration::from_millis(options.slow)))?;
    ask(&mut stream, "/hello")?;
    answer(&mut stream)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, path: &str) -> Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    Ok(stream.write_all(request.as_bytes())?)
}

/// Reads one whole answer, which has a content-length.
fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "closed after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(piece.get(..count).unwrap_or_default());
        if complete(&read)? {
            return Ok(());
        }
    }
}

fn complete(read: &[u8]) -> Result<bool> {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    ensure!(head.starts_with("HTTP/1.1 200 "), "{}", head.lines().next().unwrap_or_default());
    let field = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = field.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let Some((_, length)) = length.next() else { bail!("no content-length in {head:?}") };
    Ok(body.len() >= length.trim().parse::<usize>()?)
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert!(complete(whole).unwrap());
        for cut in 0..whole.len() {
            assert!(!complete(&whole[..cut]).unwrap(), "{cut}");
        }
        assert!(complete(b"HTTP/1.1 503 no\r\n\r\n").is_err());
    }
}
