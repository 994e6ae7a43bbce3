//! What clients are told of a request that found no answer. Who finds that is not known here.

use std::time::Duration;

use router_common::problem::{Problem, ProblemCode};

/// What clients are told to wait when the node or the line is full.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The service is only reached by links that carry small messages.
pub(super) fn unfit(code: ProblemCode) -> Problem {
    let problem = Problem::new(code);
    match code {
        ProblemCode::PayloadTooLarge => {
            problem.detail("The request does not fit into one message of the service's transport.")
        }
        ProblemCode::NotImplemented => problem.detail("The service's transport carries neither upgrades nor trailers."),
        _ => problem.detail("The response does not fit into one message of the service's transport."),
    }
}

pub(super) fn deadline_exceeded() -> Problem {
    Problem::new(ProblemCode::DeadlineExceeded)
}

pub(super) fn no_capacity() -> Problem {
    Problem::new(ProblemCode::NoCapacity).retry_after(RETRY_AFTER)
}

pub(super) fn too_large() -> Problem {
    Problem::new(ProblemCode::PayloadTooLarge)
}
