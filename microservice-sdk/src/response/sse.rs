//! Server-sent events: a stream of events as `text/event-stream`, each sent at once (HTML standard, 9.2; SPEC 12).
//!
//! What an event says is escaped here, so that no text can become another field. Where a client left off is the header
//! `Last-Event-ID`, like any other.

use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, header};
use http_body::Frame;
use pin_project_lite::pin_project;
use router_link::{Body, BodyError};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep};

use super::{IntoResponse, with_type};
use crate::message::Response;

/// Silence after which a comment is sent, unless told otherwise: shorter than anybody's patience on the way.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A comment without text, which clients ignore.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// A response of server-sent events. An error cuts the response short, visibly to the client, which then connects anew.
///
/// The endpoint is `streaming(response)`. After 15 s of silence a comment is sent, so that nobody on the way loses
/// patience; see [`Sse::keep_alive`].
///
/// ```
/// use std::convert::Infallible;
/// use futures_util::stream;
/// use microservice_sdk::response::{Event, Sse};
/// use microservice_sdk::{IntoResponse, endpoint};
///
/// #[endpoint(GET, "/events", streaming(response))]
/// async fn events() -> impl IntoResponse {
///     let events = (1..=3).map(|id| Ok::<_, Infallible>(Event::new().id(id.to_string()).data("tick")));
///     Sse::new(stream::iter(events))
/// }
/// ```
#[derive(Debug)]
pub struct Sse<T> {
    events: T,
    keep_alive: Option<Duration>,
}

impl<T> Sse<T> {
    /// Events as the stream gives them.
    pub const fn new(events: T) -> Self {
        Self { events, keep_alive: Some(KEEP_ALIVE) }
    }

    /// Sends a comment after so much silence. Default 15 s; it should be less than the gateway's
    /// `limits.stream_idle_timeout`.
    #[must_use]
    pub fn keep_alive(mut self, after: Duration) -> Self {
        self.keep_alive = Some(after);
        self
    }

    /// Sends nothing but events.
    #[must_use]
    pub fn without_keep_alive(mut self) -> Self {
        self.keep_alive = None;
        self
    }
}

impl<T, E> IntoResponse for Sse<T>
where
    T: Stream<Item = Result<Event, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    fn into_response(self) -> Response {
        let keep_alive = self.keep_alive.map(|after| KeepAlive { after, alarm: Box::pin(sleep(after)) });
        let body = Body::stream(Events { events: self.events, keep_alive });
        let mut response = with_type(body, const { HeaderValue::from_static("text/event-stream") });
        response.headers_mut().insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
        response
    }
}

/// One event. What is set twice stands twice: of `data` that makes further lines, of all else the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event(String);

impl Event {
    /// An event that says nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Its kind; `message` unless set. Line breaks in it become spaces.
    #[must_use]
    pub fn event(self, kind: impl AsRef<str>) -> Self {
        self.line("event", kind.as_ref())
    }

    /// What it says, in as many lines as it has.
    #[must_use]
    pub fn data(mut self, text: impl AsRef<str>) -> Self {
        for line in lines(text.as_ref()) {
            self = self.field("data", line);
        }
        self
    }

    /// What it says, as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json(self, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.data(serde_json::to_string(value)?))
    }

    /// What a client gives as `Last-Event-ID` when it connects anew. Line breaks and NUL in it become spaces.
    #[must_use]
    pub fn id(self, id: impl AsRef<str>) -> Self {
        self.line("id", &id.as_ref().replace('\0', " "))
    }

    /// How long a client waits before it connects anew, in whole milliseconds.
    #[must_use]
    pub fn retry(self, after: Duration) -> Self {
        self.field("retry", after.as_millis())
    }

    /// What clients ignore, in as many lines as it has.
    #[must_use]
    pub fn comment(mut self, text: impl AsRef<str>) -> Self {
        for line in lines(text.as_ref()) {
            self = self.field("", line);
        }
        self
    }

    fn line(self, name: &str, text: &str) -> Self {
        self.field(name, text.replace(['\n', '\r'], " "))
    }

    /// The space after the colon belongs to neither, whatever the text begins with.
    fn field(mut self, name: &str, text: impl fmt::Display) -> Self {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name}: {text}");
        self
    }

    /// As it is sent: an empty line ends it.
    fn into_bytes(mut self) -> Bytes {
        self.0.push('\n');
        self.0.into()
    }
}

/// Lines end with CR LF, LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

pin_project! {
    struct Events<T> {
        #[pin]
        events: T,
        keep_alive: Option<KeepAlive>,
    }
}

struct KeepAlive {
    after: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl KeepAlive {
    fn begin(&mut self) {
        self.alarm.as_mut().reset(Instant::now() + self.after);
    }
}

impl<T, E> http_body::Body for Events<T>
where
    T: Stream<Item = Result<Event, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        let bytes = match this.events.poll_next(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(BodyError::from_source(error)))),
            Poll::Ready(Some(Ok(event))) => event.into_bytes(),
            Poll::Pending => {
                let Some(keep_alive) = this.keep_alive.as_mut() else { return Poll::Pending };
                ready!(keep_alive.alarm.as_mut().poll(cx));
                COMMENT
            }
        };
        if let Some(keep_alive) = this.keep_alive {
            keep_alive.begin();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    fn text(event: Event) -> String {
        String::from_utf8(event.into_bytes().into()).unwrap()
    }

    #[test]
    fn an_event_is_its_fields_and_an_empty_line() {
        let event = Event::new().event("order").id("17").retry(Duration::from_millis(2500)).data("new");
        assert_eq!(text(event), "event: order\nid: 17\nretry: 2500\ndata: new\n\n");
        assert_eq!(text(Event::new().json(&serde_json::json!({"a": 1})).unwrap()), "data: {\"a\":1}\n\n");
    }

    #[test]
    fn no_text_becomes_another_field() {
        let event = Event::new().data("one\ntwo\r\nthree\rdata: four\n");
        assert_eq!(text(event), "data: one\ndata: two\ndata: three\ndata: data: four\ndata: \n\n");
        assert_eq!(text(Event::new().event("a\nid: 1").id("2\r\n\0x")), "event: a id: 1\nid: 2   x\n\n");
        assert_eq!(text(Event::new().comment("a\n\nb")), ": a\n: \n: b\n\n");
        assert_eq!(text(Event::new().data(" spaced")), "data:  spaced\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_comments() {
        let sse = Sse::new(stream::pending::<Result<Event, std::convert::Infallible>>());
        let response = sse.into_response();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let (mut body, began) = (response.into_body(), Instant::now());
        for _ in 0..2 {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), ":\n\n");
        }
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}
