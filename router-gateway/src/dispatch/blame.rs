//! Blame: whether a failed exchange speaks against the instance that had it (SPEC 5, outlier ejection).
//!
//! Only what is certainly the instance's own counts. What its client did, what it refused unseen, and what this gateway cut
//! says nothing of it, neither good nor bad.

use router_common::frame::Reason;
use router_link::CallError;

/// Whether it is the instance's fault. `had_its_time` says whether it had all of its endpoint's time, and the whole
/// request; it is asked only where the time has passed.
pub(super) fn is_of_the_instance(error: &CallError, had_its_time: impl FnOnce() -> bool) -> bool {
    match error {
        CallError::Lost { .. } | CallError::Response => true,
        CallError::Expired => had_its_time(),
        CallError::Cancelled { reason, .. } => match reason {
            Reason::HandlerFailed | Reason::ProtocolError | Reason::Stalled => true,
            Reason::DeadlineExceeded => had_its_time(),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancelled(reason: Reason) -> CallError {
        CallError::Cancelled { reason, text: String::new(), whole: true }
    }

    #[test]
    fn only_what_is_certainly_its_own_counts_against_an_instance() {
        for error in [
            CallError::Lost { whole: true },
            CallError::Response,
            cancelled(Reason::HandlerFailed),
            cancelled(Reason::ProtocolError),
            cancelled(Reason::Stalled),
        ] {
            assert!(is_of_the_instance(&error, || unreachable!()), "{error}");
        }
        for error in [
            CallError::Unseen { whole: true },
            CallError::HeadTooLarge,
            CallError::Closed,
            cancelled(Reason::Refused),
            cancelled(Reason::PayloadLimit),
            cancelled(Reason::ClientDisconnected),
            cancelled(Reason::Shutdown),
            cancelled(Reason::Superseded),
        ] {
            assert!(!is_of_the_instance(&error, || unreachable!()), "{error}");
        }
    }

    #[test]
    fn a_deadline_counts_only_if_the_instance_had_the_time() {
        for error in [CallError::Expired, cancelled(Reason::DeadlineExceeded)] {
            assert!(is_of_the_instance(&error, || true) && !is_of_the_instance(&error, || false), "{error}");
        }
    }
}
