//! Books: what the gateway's admin pages say, read by whoever checks that nothing was left over.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin pages of one gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Books(SocketAddr);

/// What must be nothing when all is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Open {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) waiting: u64,
    pub(crate) leased: u64,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, bytes, waiting, leased } = self;
        write!(
            f,
            "{requests} requests in flight, {bytes} request bytes held, {waiting} waiting, {leased} slots of leases taken"
        )
    }
}

impl Books {
    pub(crate) const fn at(admin: SocketAddr) -> Self {
        Self(admin)
    }

    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.page("/readyz").await, Ok((StatusCode::OK, _)))
    }

    /// What is open now.
    ///
    /// # Errors
    /// When the pages cannot be read.
    pub(crate) async fn open(&self) -> Result<Open> {
        let text = self.metrics().await?;
        let one = |name: &str| sum(&text, name).with_context(|| format!("the metrics have no {name}"));
        Ok(Open {
            requests: one("stella_requests_in_flight")?,
            bytes: one("stella_inflight_bytes")?,
            waiting: one("stella_requests_waiting")?,
            // None while nobody is connected.
            leased: sum(&text, "stella_lease_used").unwrap_or(0),
        })
    }

    /// A metric, added up over its labels, or that of one set of labels; 0 while there is none.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub(crate) async fn count(&self, name: &str) -> Result<u64> {
        Ok(sum(&self.metrics().await?, name).unwrap_or(0))
    }

    /// Instances that requests can be sent to.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub(crate) async fn instances(&self) -> Result<usize> {
        let is = |instance: &Value, what: &str| instance[what].as_bool().unwrap_or(false);
        let all = self.list("/instances").await?;
        Ok(all.iter().filter(|instance| is(instance, "routable") && !is(instance, "draining")).count())
    }

    /// The links that there are, each by its instance and by where it comes from, which is no other link's.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub(crate) async fn links(&self) -> Result<BTreeSet<String>> {
        let all = self.list("/connections").await?;
        Ok(all.iter().map(|link| format!("{} {} {}", link["instance"], link["link"], link["peer"])).collect())
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let (status, body) = self.page(path).await?;
        ensure!(status == StatusCode::OK, "{path} answers {status}");
        Ok(serde_json::from_slice(&body)?)
    }

    async fn metrics(&self) -> Result<String> {
        let (status, body) = self.page("/metrics").await?;
        ensure!(status == StatusCode::OK, "/metrics answers {status}");
        Ok(String::from_utf8(body.into())?)
    }

    async fn page(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let asked = async {
            let stream = TcpStream::connect(self.0).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let request = Request::get(path).header("host", self.0.to_string()).body(Empty::<Bytes>::new())?;
            let answered = async {
                let response = sender.send_request(request).await?;
                let status = response.status();
                anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
            };
            tokio::pin!(connection);
            tokio::pin!(answered);
            tokio::select! {
                biased;
                answer = &mut answered => answer,
                ended = &mut connection => {
                    ended?;
                    answered.await
                }
            }
        };
        timeout(PATIENCE, asked).await.with_context(|| format!("{path} was not there within {PATIENCE:?}"))?
    }
}

/// A metric, added up over its labels.
fn sum(text: &str, name: &str) -> Option<u64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with(' ') || rest.starts_with('{'));
    let numbers: Vec<u64> = values.filter_map(|rest| rest.rsplit(' ').next()?.parse().ok()).collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_metric_is_added_up_over_its_labels() {
        let text = "# HELP stella_lease_used x\nstella_lease_used{instance=\"a b\"} 3\nstella_lease_used{instance=\"c\"} 4\n\
                    stella_lease_used_other 9\nstella_links 2\n";
        assert_eq!(sum(text, "stella_lease_used"), Some(7));
        assert_eq!(sum(text, "stella_lease_used{instance=\"c\"}"), Some(4));
        assert_eq!(sum(text, "stella_links"), Some(2));
        assert_eq!(sum(text, "stella_none"), None);
    }
}
