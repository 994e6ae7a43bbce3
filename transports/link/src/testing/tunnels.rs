//! Scenarios of tunnels: opaque bytes both ways.

use http::{Request, Response, StatusCode};
use router_common::frame::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::body::{pattern, read};
use super::harness::{Ends, Pair, PairSettings, handler};
use crate::body::Body;
use crate::body_error::BodyError;
use crate::call::Call;
use crate::context::RequestContext;
use crate::tunnel::{Accept, Tunnel};

/// A service that accepts every tunnel that is asked for, and does this on it.
fn accepting<F, Fut>(work: F) -> PairSettings
where
    F: Fn(Tunnel) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BodyError>> + Send + 'static,
{
    let service = handler(move |request: Request<Body>| {
        let work = work.clone();
        async move {
            let context = request.extensions().get::<RequestContext>().expect("a context");
            assert_eq!(context.tunnel.as_deref(), Some("any/1"));
            assert_eq!(context.deadline, None);
            let mut response = Response::new(Body::empty());
            Accept::new(request.into_body(), work).put_into(&mut response);
            response
        }
    });
    PairSettings { service, ..PairSettings::default() }
}

/// Sends back what comes, piece by piece.
async fn echo(mut tunnel: Tunnel) -> Result<(), BodyError> {
    let mut piece = vec![0; 10_000];
    loop {
        let length = tunnel.read(&mut piece).await.map_err(BodyError::from_source)?;
        if length == 0 {
            return Ok(());
        }
        tunnel.write_all(&piece[..length]).await.map_err(BodyError::from_source)?;
    }
}

async fn ask(pair: &Pair) -> Response<Body> {
    let call = Call { permit: Some(pair.permit()), tunnel: Some("any/1".into()), ..Call::default() };
    let request = Request::get("/tunnel").body(Body::empty()).expect("a request");
    pair.gateway.handle.call(request, call).await.expect("a response")
}

async fn open(pair: &Pair) -> Tunnel {
    let mut response = ask(pair).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.body().whole().expect("no body").is_empty());
    Tunnel::of(&mut response).expect("a tunnel")
}

pub async fn a_tunnel_carries_every_piece_at_once(ends: Ends) {
    let pair = Pair::start(ends, accepting(echo)).await;
    let mut tunnel = open(&pair).await;
    for piece in ["a", "question", "and another"] {
        tunnel.write_all(piece.as_bytes()).await.expect("written");
        let mut back = vec![0; piece.len()];
        tunnel.read_exact(&mut back).await.expect("read");
        assert_eq!(back, piece.as_bytes());
    }
    assert_eq!(pair.lease.in_flight(), 1, "it holds its slot");
    // A half-close: the other side answers what it still has, and ends.
    tunnel.write_all(b"the last").await.expect("written");
    tunnel.shutdown().await.expect("ended");
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).await.expect("an end");
    assert_eq!(rest, b"the last");
    pair.quiet().await;
}

pub async fn a_tunnel_carries_more_than_its_windows(ends: Ends) {
    let pair = Pair::start(ends, accepting(echo)).await;
    let sent = pattern(7, 3 * 1024 * 1024);
    let (mut reading, mut writing) = tokio::io::split(open(&pair).await);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        writing.write_all(&copy).await.expect("written");
        writing.shutdown().await.expect("ended");
        writing
    });
    let mut back = Vec::new();
    reading.read_to_end(&mut back).await.expect("an end");
    assert!(back == sent);
    drop((writer.await.expect("no panic"), reading));
    pair.quiet().await;
}

pub async fn a_tunnel_that_is_refused_is_an_ordinary_exchange(ends: Ends) {
    let service = handler(|request: Request<Body>| async move {
        // Its body ends when the opener has seen that there is no tunnel.
        Response::new(request.into_body())
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let mut response = ask(&pair).await;
    assert!(Tunnel::of(&mut response).is_none());
    assert!(read(response.into_body()).await.expect("a body").0.is_empty());
    pair.quiet().await;
}

pub async fn an_acceptance_that_nobody_asked_for_is_an_ordinary_answer(ends: Ends) {
    let service = handler(|request: Request<Body>| async move {
        let mut response = Response::new("ordinary".into());
        if request.uri().path() == "/teapot" {
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
        }
        Accept::new(request.into_body(), |_| async { panic!("there is no tunnel") }).put_into(&mut response);
        response
    });
    let pair = Pair::start(ends, PairSettings { service, ..PairSettings::default() }).await;
    let response = pair.call(Request::get("/").body(Body::empty()).expect("a request")).await.expect("a response");
    assert_eq!(read(response.into_body()).await.expect("a body").0, "ordinary");
    let call = Call { permit: Some(pair.permit()), tunnel: Some("any/1".into()), ..Call::default() };
    let request = Request::get("/teapot").body(Body::empty()).expect("a request");
    let mut response = pair.gateway.handle.call(request, call).await.expect("a response");
    assert!(Tunnel::of(&mut response).is_none());
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(read(response.into_body()).await.expect("a body").0, "ordinary");
    pair.quiet().await;
}

/// Says so when it is gone.
struct Gone(mpsc::Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

pub async fn work_on_a_tunnel_ends_when_its_opener_leaves(ends: Ends) {
    let (gone, mut is_gone) = mpsc::channel(1);
    let settings = accepting(move |tunnel| {
        let gone = Gone(gone.clone());
        async move {
            let _kept = (tunnel, gone);
            std::future::pending().await
        }
    });
    let pair = Pair::start(ends, settings).await;
    let tunnel = open(&pair).await;
    drop(tunnel);
    is_gone.recv().await.expect("the work was dropped");
    pair.quiet().await;
}

pub async fn a_tunnel_that_is_cut_does_not_end_in_good_order(ends: Ends) {
    let settings = accepting(|mut tunnel| async move {
        tunnel.write_all(b"half of").await.expect("written");
        let _ = tunnel.read_u8().await;
        Err(BodyError::Cancelled { reason: Reason::HandlerFailed, text: String::new() })
    });
    let pair = Pair::start(ends, settings).await;
    let mut tunnel = open(&pair).await;
    let mut begun = [0; 7];
    tunnel.read_exact(&mut begun).await.expect("the beginning");
    tunnel.write_all(b"!").await.expect("written");
    let error = tunnel.read_u8().await.expect_err("it was cut");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    drop(tunnel);
    pair.quiet().await;
}
