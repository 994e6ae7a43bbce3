//! Between the HTTP library and the stack: a request on its way in, and its answer on the way back.
//!
//! How the connection goes on is not known here, but that an answer is its last, or opens a tunnel.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use pin_project_lite::pin_project;
use router_link::Body;

use super::Answering;
use crate::edge::body::{RequestBody, ResponseBody, Upload};
use crate::edge::client::{ClientConnection, OpenGuard};
use crate::edge::opened::OpenTunnel;
use crate::edge::worker::Edge;
use crate::edge::{Arrival, connect};
use crate::http_semantics;

/// The HTTP library's service: turns its requests into the house's and hands them to the stack.
pub(super) struct Requests<S> {
    /// Called one at a time, by the connection's task alone; a copy a request would count references up and down.
    pub(super) stack: RefCell<S>,
    pub(super) connection: Arc<ClientConnection>,
    pub(super) edge: Arc<Edge>,
}

impl<S: Answering> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = &self.connection;
        let two_lengths = connection.begin();
        let open = OpenGuard::new(Arc::clone(connection));
        let (mut parts, incoming) = request.into_parts();
        let connect = if parts.method == Method::CONNECT { parts.extensions.remove::<OnUpgrade>() } else { None };
        let connect = connect.map(|upgrade| Box::new(Connect { upgrade, edge: Arc::clone(&self.edge) }));
        let waits_for_continue = http_semantics::expects_continue(parts.version, &parts.headers);
        let (body, upload) = if incoming.is_end_stream() {
            (Body::empty(), None)
        } else {
            let upload = Arc::new(Upload::new(incoming.size_hint().exact()));
            let open = OpenGuard::new(Arc::clone(connection));
            (
                Body::stream(RequestBody::new(incoming, &parts, Arc::clone(&upload), open, &self.edge.context)),
                Some(upload),
            )
        };
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(Arrival {
            two_lengths,
            client: connection.peer(),
            connection: Arc::clone(connection),
            upload,
            sender: None,
            waits_for_continue,
            explain: false,
            tunnel: None,
        });
        let head_only = *request.method() == Method::HEAD;
        // The stack's services are always ready: their bounds answer 503, they do not make the connection wait.
        Answer { answer: self.stack.borrow_mut().call(request), head_only, open: Some(open), connect }
    }
}

/// What a CONNECT needs, if it opens a tunnel.
struct Connect {
    upgrade: OnUpgrade,
    edge: Arc<Edge>,
}

/// The response is about to be given to the HTTP library: if it opens a tunnel, that is prepared.
#[cold]
fn prepare(response: &mut Response<Body>, open: &mut Option<OpenGuard>, connect: Option<Box<Connect>>) {
    let Some(opened) = OpenTunnel::take(response) else { return };
    match connect {
        None => {
            if let Some(open) = open {
                open.connection().leave_tunnel(opened);
            }
        }
        Some(connect) => {
            let Some(open) = open.take() else { return };
            let Connect { upgrade, edge } = *connect;
            let tasks = edge.tasks.clone();
            tasks.spawn(connect::run(upgrade, connect::expect(), opened, open, edge));
        }
    }
}

pin_project! {
    /// A request's answer on its way.
    pub(in crate::edge) struct Answer<F> {
        #[pin]
        answer: F,
        head_only: bool,
        open: Option<OpenGuard>,
        connect: Option<Box<Connect>>,
    }
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.answer.poll(cx));
        let mut open = this.open.take();
        if *this.head_only {
            // RFC 9110 9.3.2. HTTP/2's library would send it, a problem document say, and the client break the stream off.
            *response.body_mut() = Body::empty();
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !switches && open.as_ref().is_some_and(|open| open.connection().answers_last()) {
            // RFC 9112 9.6: a client that is not told would send its next request here.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if switches || this.connect.is_some() {
            prepare(&mut response, &mut open, this.connect.take());
        }
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, open))))
    }
}
