//! The retry budget: at most a fifth of the requests, and ten a second, are sent again (SPEC 5).
//!
//! It bounds what retries add to an outage. Requests that were provably not seen do not draw on it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What each request adds, in thousandths of a retry.
const PER_REQUEST: u64 = 200;
/// What each second adds.
const PER_SECOND: u64 = 10_000;
/// One retry.
const RETRY: u64 = 1000;
/// The most that is saved up: ten seconds of quiet.
const MOST: u64 = 10 * PER_SECOND;

/// One worker's budget.
#[derive(Debug)]
pub(crate) struct RetryBudget(Mutex<Account>);

#[derive(Debug)]
struct Account {
    balance: u64,
    /// Deposits since `since`, by the clock.
    since: Instant,
}

impl RetryBudget {
    pub(crate) const fn new(now: Instant) -> Self {
        Self(Mutex::new(Account { balance: PER_SECOND, since: now }))
    }

    /// A request was answered for the first time.
    pub(crate) fn deposit(&self) {
        let mut account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        account.balance = account.balance.saturating_add(PER_REQUEST).min(MOST);
    }

    /// Whether one more may be sent again.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let mut account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = u64::try_from(now.saturating_duration_since(account.since).as_millis()).unwrap_or(u64::MAX);
        account.since = now;
        account.balance = account.balance.saturating_add(elapsed.saturating_mul(PER_SECOND / 1000)).min(MOST);
        match account.balance.checked_sub(RETRY) {
            Some(rest) => {
                account.balance = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        let spend = |now| (0..1000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(spend(now), 10);
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(spend(now), 10);
        assert_eq!(spend(now + Duration::from_secs(2)), 20);
        assert_eq!(spend(now + Duration::from_secs(3600)), 100);
    }
}
