//! The two load generators: how they are called, and what their output says.
//!
//! `wrk` asks as fast as it is answered; `h2load` asks at a fixed rate, so that a slow answer does not delay the next
//! question. An error of any kind makes the measurement void, and is an error here.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::launch::{Cores, RunFolder};
use super::tools::{self, Tool};

/// What one run of `wrk` measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Wrk {
    pub(super) requests: u64,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Runs `wrk` with one thread.
pub(super) fn wrk(folder: &RunFolder, cores: Cores, at: SocketAddr, connections: u32, seconds: u32) -> Result<Wrk> {
    let args = [
        "-t1".to_owned(),
        format!("-c{connections}"),
        format!("-d{seconds}s"),
        "--latency".to_owned(),
        format!("http://{at}/hello"),
    ];
    let said = run(folder, cores, tools::WRK, &args)?;
    parse_wrk(&said).with_context(|| format!("wrk said:\n{said}"))
}

fn run(folder: &RunFolder, cores: Cores, tool: Tool, args: &[String]) -> Result<String> {
    let path = tool.path().with_context(|| format!("{} is gone", tool.program))?;
    let output = folder.command(cores, "KILL", &path).args(args).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{} {} failed:\n{said}", tool.program, args.join(" "));
    Ok(said)
}

fn parse_wrk(said: &str) -> Result<Wrk> {
    if let Some(errors) = said.lines().map(str::trim).find(|line| line.starts_with("Socket errors:")) {
        bail!("{errors}");
    }
    if let Some(errors) = said.lines().map(str::trim).find(|line| line.starts_with("Non-2xx or 3xx responses:")) {
        bail!("{errors}");
    }
    let parsed = || {
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())?;
        let per_second = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())?;
        let percentile = |name| said.lines().find_map(|line| microseconds(line.trim().strip_prefix(name)?.trim()));
        Some(Wrk { requests, per_second, p50_us: percentile("50%")?, p99_us: percentile("99%")? })
    };
    let wrk = parsed().context("this is not what wrk 4 prints")?;
    ensure!(wrk.requests > 0, "no request was answered");
    Ok(wrk)
}

/// Reads `231.00us`, `1.01ms`, `2.50s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// What is asked at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Rate {
    /// Requests a second, over all connections.
    pub(super) per_second: u64,
    pub(super) connections: u64,
    /// After the warm-up.
    pub(super) seconds: u32,
}

/// Seconds of it that are not counted.
const STEADY_WARM_UP: u32 = 1;

/// What one run at a fixed rate measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Steady {
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Runs `h2load` over HTTP/1.1 at a fixed rate, with one thread.
pub(super) fn steady(folder: &RunFolder, cores: Cores, at: SocketAddr, rate: Rate) -> Result<Steady> {
    let log = folder.path().join("h2load.requests");
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let Rate { per_second, connections, seconds } = rate;
    let rate_each = per_second as f64 / connections as f64;
    let total = seconds + STEADY_WARM_UP;
    let args = [
        "--h1".to_owned(),
        "--threads=1".to_owned(),
        format!("--clients={connections}"),
        format!("--rps={rate_each}"),
        // By number and not by duration, because a duration would cut off requests, and count them as failed.
        format!("--requests={}", per_second * u64::from(total)),
        format!("--log-file={}", log.display()),
        format!("http://{at}/hello"),
    ];
    let said = run(folder, cores, tools::H2LOAD, &args)?;
    outcome_of_h2load(&said).with_context(|| format!("h2load said:\n{said}"))?;
    steady_of(&read(&log)?)
}

/// A number of requests, as fast as they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Asked {
    pub(super) path: &'static str,
    pub(super) connections: u32,
    /// As in `name: value`.
    pub(super) headers: &'static [&'static str],
    /// Bytes of the request's body; with one, it is a POST.
    pub(super) body: usize,
}

/// Runs `h2load` over HTTP/1.1 until so many requests are answered.
pub(super) fn ask(folder: &RunFolder, cores: Cores, at: SocketAddr, asked: Asked, requests: u32) -> Result<()> {
    let Asked { path, connections, headers, body } = asked;
    let mut args = vec![
        "--h1".to_owned(),
        "--threads=1".to_owned(),
        format!("--clients={connections}"),
        format!("--requests={requests}"),
    ];
    args.extend(headers.iter().map(|header| format!("--header={header}")));
    if body > 0 {
        let file = folder.write("h2load.body", &"x".repeat(body))?;
        args.push(format!("--data={}", file.display()));
    }
    args.push(format!("http://{at}{path}"));
    let said = run(folder, cores, tools::H2LOAD, &args)?;
    outcome_of_h2load(&said).with_context(|| format!("h2load said:\n{said}"))
}

fn read(log: &Path) -> Result<Vec<(u64, i64, f64)>> {
    let text = fs::read_to_string(log).with_context(|| format!("h2load wrote no {}", log.display()))?;
    text.lines().map(|line| request(line).with_context(|| format!("not a line of h2load's log: {line}"))).collect()
}

/// `start in microseconds`, `status`, `microseconds it took`.
fn request(line: &str) -> Option<(u64, i64, f64)> {
    let mut fields = line.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn outcome_of_h2load(said: &str) -> Result<()> {
    let line = said.lines().find(|line| line.starts_with("requests: ")).context("this is not what h2load prints")?;
    let none = |what: &str| line.contains(&format!(" 0 {what}"));
    ensure!(none("failed") && none("errored") && none("timeout"), "{line}");
    let codes = said.lines().find(|line| line.starts_with("status codes: ")).context("h2load told no status")?;
    ensure!(codes.contains(" 0 3xx, 0 4xx, 0 5xx"), "{codes}");
    Ok(())
}

fn steady_of(requests: &[(u64, i64, f64)]) -> Result<Steady> {
    let first = requests.iter().map(|(start, ..)| *start).min().context("h2load logged no request")?;
    let begin = first + u64::from(STEADY_WARM_UP) * 1_000_000;
    let counted: Vec<_> = requests.iter().filter(|(start, ..)| *start >= begin).collect();
    let last = counted.iter().map(|(start, ..)| *start).max().context("the run was shorter than its warm-up")?;
    let mut times: Vec<f64> = counted.iter().map(|(.., time)| *time).collect();
    times.sort_by(f64::total_cmp);
    let quantile = |of_hundred: usize| times.get((times.len() - 1) * of_hundred / 100).copied().unwrap_or(f64::NAN);
    let seconds = (last.saturating_sub(begin)).max(1) as f64 / 1e6;
    Ok(Steady { per_second: times.len() as f64 / seconds, p50_us: quantile(50), p99_us: quantile(99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "\
Running 2s test @ http://127.0.0.1:8080/hello
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.03ms  273.69us   7.01ms   92.33%
    Req/Sec    61.93k     2.11k   64.51k    80.00%
  Latency Distribution
     50%  998.00us
     75%    1.10ms
     90%    1.21ms
     99%    2.11ms
  123456 requests in 2.00s, 17.42MB read
Requests/sec:  61728.25
Transfer/sec:      8.71MB
";

    #[test]
    fn wrks_output_is_read() {
        let expected = Wrk { requests: 123_456, per_second: 61_728.25, p50_us: 998.0, p99_us: 2110.0 };
        assert_eq!(parse_wrk(WRK).expect("wrk's format"), expected);
    }

    #[test]
    fn wrks_errors_make_it_void() {
        let errors = "  Socket errors: connect 0, read 3, write 0, timeout 0\n";
        let failed = parse_wrk(&format!("{WRK}{errors}")).expect_err("an error");
        assert_eq!(failed.to_string(), errors.trim());
        let refused = "  Non-2xx or 3xx responses: 17\n";
        let failed = parse_wrk(&format!("{WRK}{refused}")).expect_err("an error");
        assert_eq!(failed.to_string(), refused.trim());
        assert!(parse_wrk("unable to connect").is_err());
        assert!(parse_wrk(&WRK.replace("123456", "0")).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(["231.00us", "1.01ms", "2.50s"].map(microseconds), [Some(231.0), Some(1010.0), Some(2_500_000.0)]);
        assert_eq!(microseconds("soon"), None);
    }

    const H2LOAD: &str = "\
finished in 2.00s, 8000.00 req/s, 1.08MB/s
requests: 16000 total, 16000 started, 16000 done, 16000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 16000 2xx, 0 3xx, 0 4xx, 0 5xx
";

    #[test]
    fn h2loads_errors_make_it_void() {
        assert!(outcome_of_h2load(H2LOAD).is_ok());
        assert!(outcome_of_h2load(&H2LOAD.replace(" 0 errored", " 10 errored")).is_err());
        assert!(outcome_of_h2load(&H2LOAD.replace(" 0 5xx", " 20 5xx")).is_err());
        assert!(outcome_of_h2load("").is_err());
    }

    #[test]
    fn the_warm_up_is_left_out() {
        let slow_start = (0..1000).map(|index| (index * 1000, 200, 9000.0));
        let rest =
            (0..1000).map(|index| (1_000_000 + index * 1000, 200, f64::from(u32::try_from(index).expect("small"))));
        let requests: Vec<_> = slow_start.chain(rest).collect();
        let steady = steady_of(&requests).expect("requests");
        assert_eq!((steady.p50_us, steady.p99_us), (499.0, 989.0));
        assert!((steady.per_second - 1001.0).abs() < 0.1, "{steady:?}");
        assert_eq!(request("1700000000000000\t200\t350"), Some((1_700_000_000_000_000, 200, 350.0)));
        assert_eq!(request("1700000000000000\t200"), None);
        assert!(steady_of(&[]).is_err());
    }
}
