//! How whoever directs a run speaks with the processes in it: orders go in, and the last report is there to be read.
//!
//! Both sides are on one thread; the director is outside of every simulated runtime.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The mailbox of one simulated process. It outlives the process.
pub(crate) struct Post<O, R> {
    orders: Mutex<VecDeque<O>>,
    arrived: Notify,
    report: Mutex<Option<R>>,
}

impl<O, R> Post<O, R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { orders: Mutex::default(), arrived: Notify::new(), report: Mutex::new(None) })
    }

    pub(crate) fn order(&self, order: O) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.arrived.notify_one();
    }

    /// Waits for the next order.
    pub(crate) async fn next(&self) -> O {
        loop {
            let order = self.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match order {
                Some(order) => return order,
                None => self.arrived.notified().await,
            }
        }
    }

    pub(crate) fn report(&self, report: R) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    pub(crate) fn take_report(&self) -> Option<R> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Forgets everything: the process is another one.
    pub(crate) fn clear(&self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.take_report();
    }
}
