//! Failure: what it means that an exchange failed, whether the request may be sent again, and what to say otherwise (SPEC 5).
//!
//! What nobody has seen may go again as it is; what somebody may have seen only where its endpoint says so. Where it goes
//! then is not decided here.

use router_common::frame::Reason;
use router_common::problem::{Problem, ProblemCode};
use router_link::{Body, CallError};

use super::Inner;
use super::problems::{deadline_exceeded, no_capacity, too_large, unfit};
use super::tries::Tries;
use crate::edge::{Upload, UploadFailure};
use crate::telemetry::Shed;

/// How often a request that was provably not seen is sent again.
const UNSEEN_RETRIES: usize = 3;
/// The largest body that is kept for sending it again, in bytes.
const RETRY_BODY: usize = 64 * 1024;
impl Inner {
    /// What it means that a request, or its answer, did not fit the link that was chosen: another one may carry it, if there
    /// is any on which bodies stream. A request that fitted has been seen, and goes again only if it may.
    #[cold]
    fn unfit(
        &self,
        error: &CallError,
        upload: Option<&Upload>,
        idempotent: bool,
        tries: &mut Tries,
    ) -> (bool, Problem) {
        if let Some(failure) = upload.and_then(Upload::failure) {
            return (false, self.upload_problem(Some(failure)));
        }
        let code = match error {
            CallError::TooLarge => ProblemCode::PayloadTooLarge,
            CallError::Streams => ProblemCode::NotImplemented,
            _ => ProblemCode::ResponseTooLarge,
        };
        let first = tries.unfit.replace(code).is_none();
        let again = first
            && (code != ProblemCode::ResponseTooLarge || {
                idempotent
                    && !std::mem::replace(&mut tries.retried, true)
                    && self.budget.withdraw(self.environment.now())
            });
        (again, unfit(code))
    }

    /// What a failed exchange means: whether the request may be sent again, and what to say otherwise.
    pub(super) fn failure(
        &self,
        error: &CallError,
        upload: Option<&Upload>,
        idempotent: bool,
        body: &Body,
        tries: &mut Tries,
    ) -> (bool, Problem) {
        use ProblemCode as Code;
        let (unseen, code) = match error {
            CallError::Unseen { .. } | CallError::Cancelled { reason: Reason::Refused, .. } => (true, Code::NoCapacity),
            CallError::Lost { .. } => (false, Code::ConnectionLost),
            CallError::Expired | CallError::Cancelled { reason: Reason::DeadlineExceeded, .. } => {
                return (false, deadline_exceeded());
            }
            CallError::Cancelled { reason: Reason::PayloadLimit, .. } => return (false, too_large()),
            CallError::Body(_) => {
                return (false, self.upload_problem(upload.and_then(Upload::failure)));
            }
            CallError::Head(_) | CallError::HeadTooLarge => return (false, Problem::new(Code::HeadersTooLarge)),
            CallError::TooLarge | CallError::Streams | CallError::ResponseTooLarge => {
                return self.unfit(error, upload, idempotent, tries);
            }
            CallError::Cancelled { reason, text, .. } => {
                tracing::debug!(%reason, text, "a service cancelled a request");
                (false, Code::ServiceFailed)
            }
            _ => (false, Code::ServiceFailed),
        };
        if let Some(failure) = upload.and_then(Upload::failure) {
            return (false, self.upload_problem(Some(failure)));
        }
        let problem = match code {
            Code::NoCapacity => no_capacity(),
            _ => Problem::new(code),
        };
        let again = if unseen {
            tries.unseen += 1;
            tries.unseen <= UNSEEN_RETRIES
        } else {
            idempotent && !tries.retried && {
                tries.retried = true;
                self.budget.withdraw(self.environment.now())
            }
        };
        // What nobody saw may go again as it is; what somebody may have seen only if it is cheap to keep.
        let fits = || unseen || body.whole().is_some_and(|body| body.len() <= RETRY_BODY);
        (again && error.leaves_whole() && fits(), problem)
    }

    /// What a body that was not read to its end means to its sender.
    fn upload_problem(&self, failure: Option<UploadFailure>) -> Problem {
        match failure.unwrap_or(UploadFailure::Malformed) {
            UploadFailure::TooLarge => too_large(),
            UploadFailure::ConnectionBytes => self.shed(Shed::ConnectionBytes),
            UploadFailure::NodeBytes => self.shed(Shed::InflightBytes),
            UploadFailure::Stalled => {
                Problem::new(ProblemCode::RequestTimeout).detail("The request body did not get on.")
            }
            UploadFailure::Malformed => {
                Problem::new(ProblemCode::BadRequest).detail("The request body is not well-formed.")
            }
        }
    }
}
