//! The load: as many tasks as requests are to be in flight, each of which asks again when it has its answer.
//!
//! It knows nothing of what carries a request.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) in_flight: u32,
    pub(crate) seconds: f64,
    /// Bytes of a request, and of its reply.
    pub(crate) body: usize,
}

impl Load {
    /// Calls until the time is over; `call` gives back how many bytes came.
    pub(crate) async fn drive<C, F>(self, call: C) -> Result<()>
    where
        C: Fn(Bytes) -> F + Clone + 'static,
        F: Future<Output = Result<usize>>,
    {
        let answered = Rc::new(Cell::new(0_u64));
        let payload = Bytes::from(vec![b'x'; self.body]);
        let mut callers = JoinSet::new();
        for _ in 0..self.in_flight {
            let (call, answered, payload) = (call.clone(), Rc::clone(&answered), payload.clone());
            callers.spawn_local(async move {
                loop {
                    let length = call(payload.clone()).await?;
                    ensure!(length == payload.len(), "{length} bytes came back");
                    answered.set(answered.get() + 1);
                }
            });
        }
        within(WARM_UP, &mut callers).await?;
        println!("begin");
        let (started, before) = (Instant::now(), answered.get());
        within(Duration::from_secs_f64(self.seconds), &mut callers).await?;
        let (seconds, requests) = (started.elapsed().as_secs_f64(), answered.get() - before);
        println!("end {}", json!({ "requests": requests, "seconds": seconds }));
        Ok(())
    }
}

/// Lets the callers work for a while; the first one that fails ends it all.
async fn within(time: Duration, callers: &mut JoinSet<Result<()>>) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        Some(failed) = callers.join_next() => failed?,
    }
}
