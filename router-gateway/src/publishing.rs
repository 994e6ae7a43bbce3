//! When tables are published: as soon as something has changed, but never most of the time.
//!
//! A publication costs something for every instance of the services that changed, so a thousand registrations are not to
//! make a thousand of them. After each one the publisher rests for some times as long as that took, and what changes
//! meanwhile shares the next. It runs beside the workers, so that requests wait for none of it. What a table is made
//! from is the registry's business.

use std::sync::Arc;
use std::time::Duration;

use router_link::Environment;
use tokio::sync::Notify;

use crate::registry::{LinkHandle, Registry};

/// How many times as long as a publication took is rested after it: it has at most a tenth of a core.
const REST: u32 = 9;
/// At most; what waits for a publication is never kept longer than this and the publication itself.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// Publishes what changes in a registry from now on; for ever.
pub(crate) fn publisher<H: LinkHandle>(
    registry: Arc<Registry<H>>,
    environment: Arc<dyn Environment>,
) -> impl Future<Output = ()> + Send {
    let stale = Arc::new(Notify::new());
    let hook = Arc::clone(&stale);
    registry.leave_publications_to(move || hook.notify_one());
    async move {
        loop {
            stale.notified().await;
            let began = environment.now();
            registry.publish(began);
            let took = environment.now().saturating_duration_since(began);
            tokio::time::sleep(took.saturating_mul(REST).min(LONGEST_REST)).await;
        }
    }
}
