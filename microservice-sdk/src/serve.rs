//! Requests of one link onto handlers, and their answers back: the SDK's side of a link (SPEC 4, 6, 11).
//!
//! A handler is first polled in place, so that one that need not wait costs no task and its answer leaves with
//! whatever else is ready; how much of that a link bears is `pace`'s to say. It is dropped when nobody waits for its answer
//! any more, unless its endpoint is `detached` or `blocking`.
//! Nothing here knows how a link is made or made again.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::StatusCode;
use http_body::Frame;
use router_common::endpoint::EndpointId;
use router_common::frame::Reason;
use router_link::{
    Application, Body, BodyError, ConnectionEvent, Handle, Inbound, Respond, RespondError, Responder, Unwanted,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bytes::Bytes;
use crate::dispatch::{Running, Table, panic_text};
use crate::link_state::LinkState;
use crate::message::{Request, Response};
use crate::pace::{Spent, Turn};

/// What all links of a service share.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) table: Arc<Table>,
    /// The handlers that had to wait for something.
    pub(crate) handlers: TaskTracker,
    /// Ends what outlives its link, when the grace of a shutdown is over.
    pub(crate) cut: CancellationToken,
}

impl Server {
    fn serve(&self, spent: &mut Spent, mut inbound: Inbound, responder: Responder) {
        let Some(endpoint) = inbound.endpoint().and_then(|id| self.table.by_id(id)) else {
            // An id this process never gave: no handler has seen the request.
            return responder.reject(Reason::Refused);
        };
        let (id, outlives, one_way) = (endpoint.descriptor.id, endpoint.outlives, endpoint.descriptor.one_way);
        let deadline = inbound.deadline();
        let Some(running) = self.table.accept(endpoint, &mut inbound, &responder) else {
            return responder.reject(Reason::ProtocolError);
        };
        let stage = if one_way { Stage::one_way(running, responder) } else { Stage::Handling { running, responder } };
        let mut serving = Serving { stage, outlives, deadline };
        if endpoint.pace.is_trusted() && spent.has_time(inbound.arrived()) {
            let ended = serving.poll_stage(&mut Context::from_waker(Waker::noop()), Attempt::InPlace(&inbound));
            spent.polled(&endpoint.pace, self.table.surroundings.environment.now());
            if ended.is_ready() {
                return;
            }
        }
        serving.settle(&inbound);
        drop(inbound);
        let paced = Paced { serving, table: Arc::clone(&self.table), endpoint: id, turn: None };
        if outlives {
            self.handlers.spawn(self.cut.clone().run_until_cancelled_owned(paced));
        } else {
            self.handlers.spawn(paced);
        }
    }
}

/// The application of one link.
#[derive(Debug)]
pub(crate) struct ServiceApplication {
    pub(crate) server: Server,
    pub(crate) state: Arc<LinkState>,
    pub(crate) spent: Spent,
}

impl ServiceApplication {
    pub(crate) fn new(server: Server, state: Arc<LinkState>) -> Self {
        let now = server.table.surroundings.environment.now();
        Self { server, state, spent: Spent::new(now) }
    }
}

impl Application for ServiceApplication {
    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        self.state.event(event, handle, &self.server.table);
    }

    fn arrived(&mut self, inbound: Inbound, responder: Responder) {
        self.server.serve(&mut self.spent, inbound, responder);
    }

    /// What has been made HTTP has come this way already.
    fn request(&mut self, _: Request, responder: Responder) {
        responder.reject(Reason::Refused);
    }
}

/// Whether this poll is the first one, in the driver, where nobody is woken: it is repeated in a task.
#[derive(Debug, Clone, Copy)]
enum Attempt<'a> {
    InPlace(&'a Inbound),
    InTask,
}

impl<'a> Attempt<'a> {
    const fn inbound(self) -> Option<&'a Inbound> {
        match self {
            Self::InPlace(inbound) => Some(inbound),
            Self::InTask => None,
        }
    }
}

/// One request being served: its handler, then its answer's body.
///
/// ```text
/// Handling ──answer──> Responding ──body handed over, or stream over──> done
///    └──cancelled or deadline passed (not if it outlives its request)──> done
/// OneWay: the answer (202) is on its way while the handler works; done when both are
/// ```
struct Serving {
    stage: Stage,
    /// The handler goes on when nobody waits for its answer any more.
    outlives: bool,
    deadline: Option<Instant>,
}

enum Stage {
    Handling {
        running: Running,
        responder: Responder,
    },
    /// Boxed, because most answers are handed over at once and never get here.
    Responding {
        respond: Box<Respond>,
    },
    OneWay {
        running: Option<Running>,
        accepted: Option<Box<Respond>>,
        ended: Option<oneshot::Sender<()>>,
    },
    Done,
}

impl Stage {
    /// Admission is answered at once; the stream, and with it the slot of the lease, ends with the handler (SPEC 4).
    fn one_way(running: Running, responder: Responder) -> Self {
        let (ended, until) = oneshot::channel();
        let mut response = Response::new(Body::stream(Until(until)));
        *response.status_mut() = StatusCode::ACCEPTED;
        let accepted = Some(Box::new(responder.respond(response).head_first()));
        Self::OneWay { running: Some(running), accepted, ended: Some(ended) }
    }
}

impl Serving {
    /// The handler waits for something: it becomes a task, which is to hold no more than it needs.
    fn settle(&mut self, inbound: &Inbound) {
        if let Stage::Handling { running, .. } | Stage::OneWay { running: Some(running), .. } = &mut self.stage {
            running.settle(inbound);
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>, attempt: Attempt<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Handling { running, .. } => {
                    if let Poll::Ready(response) = running.poll_on(attempt.inbound(), cx) {
                        return self.respond(response, cx);
                    }
                    return if attempt.inbound().is_some() { Poll::Pending } else { self.poll_wanted(cx) };
                }
                Stage::Responding { respond } => {
                    let Poll::Ready(()) = poll_respond(respond, cx) else { return Poll::Pending };
                    self.stage = Stage::Done;
                }
                Stage::OneWay { running, accepted, ended } => {
                    if running.as_mut().is_some_and(|running| Pin::new(running).poll(cx).is_ready()) {
                        *running = None;
                    }
                    if running.is_none()
                        && let Some(ended) = ended.take()
                    {
                        // Nobody listens if the client has left.
                        let _ = ended.send(());
                    }
                    if accepted.as_mut().is_some_and(|accepted| poll_respond(accepted, cx).is_ready()) {
                        *accepted = None;
                    }
                    if running.is_some() || accepted.is_some() {
                        return Poll::Pending;
                    }
                    self.stage = Stage::Done;
                }
                Stage::Done => return Poll::Ready(()),
            }
        }
    }

    fn respond(&mut self, response: Response, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Handling { responder, .. } = std::mem::replace(&mut self.stage, Stage::Done) {
            let mut respond = responder.respond(response);
            if poll_respond(&mut respond, cx).is_pending() {
                self.stage = Stage::Responding { respond: Box::new(respond) };
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Gives a handler up when nobody wants its answer any more.
    fn poll_wanted(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Stage::Handling { responder, .. } = &self.stage else { return Poll::Pending };
        if self.outlives {
            return Poll::Pending;
        }
        let Poll::Ready(unwanted) = responder.poll_unwanted(self.deadline, cx) else { return Poll::Pending };
        self.give_up(unwanted);
        Poll::Ready(())
    }

    /// Drops the handler, and then what holds its slot of the lease.
    fn give_up(&mut self, unwanted: Unwanted) {
        if let Stage::Handling { running, responder } = std::mem::replace(&mut self.stage, Stage::Done) {
            drop(running);
            match unwanted {
                Unwanted::Late => responder.reject(Reason::DeadlineExceeded),
                Unwanted::Cancelled => drop(responder),
            }
        }
    }
}

/// A request that is being served in a task of its own, where a slow handler waits for its turn.
#[derive(Debug)]
struct Paced {
    serving: Serving,
    table: Arc<Table>,
    endpoint: EndpointId,
    /// In a box, because hardly any task ever has one.
    turn: Option<Box<Turn>>,
}

impl Future for Paced {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let surroundings = &this.table.surroundings;
        // It was found there before.
        let Some(endpoint) = this.table.by_id(this.endpoint) else { return Poll::Ready(()) };
        let _permit = if this.turn.is_some() || !endpoint.pace.is_trusted() {
            let turn = this.turn.get_or_insert_with(|| Box::new(surroundings.gate.turn()));
            let Poll::Ready(permit) = Pin::new(&mut **turn).poll(cx) else {
                return this.serving.poll_wanted(cx);
            };
            this.turn = None;
            permit
        } else {
            None
        };
        let before = surroundings.environment.now();
        let poll = this.serving.poll_stage(cx, Attempt::InTask);
        endpoint.pace.note(surroundings.environment.now().saturating_duration_since(before));
        poll
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Handling { .. } => "handling",
            Stage::Responding { .. } => "responding",
            Stage::OneWay { .. } => "one way",
            Stage::Done => "done",
        };
        f.debug_struct("Serving").field("stage", &stage).finish_non_exhaustive()
    }
}

/// Hands over an answer. A body that panics is a body that failed: the stream is cancelled, as its head has gone.
fn poll_respond(respond: &mut Respond, cx: &mut Context<'_>) -> Poll<()> {
    match catch_unwind(AssertUnwindSafe(|| Pin::new(respond).poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(()))) => Poll::Ready(()),
        Ok(Poll::Ready(Err(error))) => {
            match error {
                // Clients leave all the time.
                RespondError::Closed => tracing::debug!(%error, "an answer did not get through"),
                _ => tracing::warn!(%error, "an answer could not be sent"),
            }
            Poll::Ready(())
        }
        Err(panic) => {
            tracing::error!(panic = panic_text(&*panic), "the body of a response panicked");
            Poll::Ready(())
        }
    }
}

/// An empty body that ends when somebody says so, or is gone.
struct Until(oneshot::Receiver<()>);

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll(cx).map(|_| None)
    }
}
