//! The session's promises, one scenario a test, with both ends in hand and time standing still.

mod admission;
mod datagrams;
mod rules;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{
    Cancel, CloseCode, Data, DataPayload, Frame, HealthStatus, Heartbeat, Reason, RefusedEndpoint, Request, StreamId,
    Window,
};
use router_common::head::{RequestHead, RequestParts, ResponseHead, Scheme, Trailers};
use router_common::limits;
use router_common::session::{
    Closed, ClosedBy, Common, Event, OpenError, Opening, Read, ReadHead, Secret, Secrets, Silence, StreamFailure,
    StreamKey,
};
use router_common::testing::{End, Pair, Setup};

fn head(method: &str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let headers: HeaderMap = headers.iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect();
    RequestHead::encode(&RequestParts {
        endpoint: EndpointId::new(1),
        deadline: None,
        hops: 0,
        method,
        scheme: Scheme::Http,
        authority: "test",
        target: "/",
        parameters: &[],
        client: None,
        headers: &headers,
        claims: &[],
        tunnel_protocol: None,
    })
    .unwrap()
}

fn answer(status: u16) -> ResponseHead {
    ResponseHead::encode(status, &HeaderMap::new()).unwrap()
}

fn open(pair: &mut Pair, body: &'static str, end: bool) -> StreamKey {
    let permit = pair.lease.try_acquire();
    assert!(permit.is_some(), "the lease has room");
    let opening = Opening { head: head("POST", &[]), body: body.into(), end, tunnel: false, permit };
    pair.gateway.open(opening).unwrap()
}

/// Settles, and gives the stream that arrived at the service.
fn arrived(pair: &mut Pair) -> StreamKey {
    let request = pair.settle().into_iter().find_map(|(end, event)| match event {
        Event::Request(key, _) if end == End::Service => Some(key),
        _ => None,
    });
    request.expect("a request arrives")
}

/// Polls one end and gives the CLOSE or end of link it reports.
fn closed(pair: &mut Pair, end: End) -> Closed {
    pair.settle();
    pair.poll(end).1.expect("the session is closed")
}

fn frames(pair: &mut Pair, end: End) -> Vec<Frame> {
    pair.poll(end);
    pair.wire(end.other()).iter().cloned().collect()
}

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32]).unwrap()
}

#[test]
fn a_small_exchange_is_one_frame_each_way() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "ping", true);
    let sent = frames(&mut pair, End::Gateway);
    let [Frame::Request(request)] = &sent[..] else { panic!("one frame, not {sent:?}") };
    assert!(request.end && request.body == "ping" && request.stream == StreamId::new(2).unwrap());
    let key = arrived(&mut pair);
    assert_eq!(pair.service.read(key), Read::Data("ping".into()));
    assert_eq!(pair.service.read(key), Read::End);
    pair.service.respond(key, answer(200), "pong".into(), true, false).unwrap();
    pair.service.release(key);
    let sent = frames(&mut pair, End::Service);
    assert!(matches!(&sent[..], [Frame::Response(response)] if response.end && response.body == "pong"), "{sent:?}");
    pair.settle();
    assert_eq!(pair.lease.in_flight(), 0);
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(head) if head.status() == 200));
    assert_eq!(pair.gateway.read(call), Read::Data("pong".into()));
    assert_eq!(pair.gateway.read(call), Read::End);
    pair.gateway.release(call);
    assert_eq!((pair.gateway.remembered(), pair.service.remembered()), (0, 0));
}

#[test]
fn both_sides_prove_the_shared_secret() {
    let setup =
        Setup { gateway_secrets: Secrets::sole(secret(7)), service_secret: Some(secret(7)), ..Setup::default() };
    let _ = Pair::established(setup);
}

#[test]
fn an_old_secret_is_good_while_it_is_being_replaced() {
    let key = router_common::identity::KeyId::sole();
    let setup = Setup {
        gateway_secrets: [(key.clone(), secret(8)), (key, secret(7))].into_iter().collect(),
        service_secret: Some(secret(7)),
        ..Setup::default()
    };
    let _ = Pair::established(setup);
}

#[test]
fn a_stranger_is_told_that_its_proof_fits_no_secret() {
    let mut pair = Pair::new(Setup {
        gateway_secrets: Secrets::sole(secret(7)),
        service_secret: Some(secret(8)),
        ..Setup::default()
    });
    while pair.deliver(End::Gateway).is_none_or(|result| result.is_ok()) {
        pair.poll(End::Service);
        pair.poll(End::Gateway);
        let _ = pair.deliver(End::Service);
        pair.poll(End::Service);
    }
    let (_, closed) = pair.poll(End::Gateway);
    let closed = closed.expect("closed");
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::Unauthenticated));
    assert_eq!(closed.text, "the proof fits no shared secret with key id `default` of this gateway");
}

#[test]
fn a_service_without_a_secret_says_so_when_it_is_asked() {
    let mut pair = Pair::new(Setup { gateway_secrets: Secrets::sole(secret(7)), ..Setup::default() });
    pair.poll(End::Service);
    pair.deliver(End::Gateway).unwrap().unwrap();
    pair.poll(End::Gateway);
    let error = pair.deliver(End::Service).unwrap().unwrap_err();
    assert_eq!(error.code, CloseCode::Unauthenticated);
    assert_eq!(error.text, "this gateway asks for a shared secret, and none is configured here");
}

#[test]
fn a_service_with_a_secret_does_not_talk_to_a_gateway_that_proves_nothing() {
    let mut pair = Pair::new(Setup { service_secret: Some(secret(7)), ..Setup::default() });
    pair.poll(End::Service);
    pair.deliver(End::Gateway).unwrap().unwrap();
    pair.poll(End::Gateway);
    let error = pair.deliver(End::Service).unwrap().unwrap_err();
    assert_eq!(error.code, CloseCode::Unauthenticated);
    assert_eq!(error.text, "the gateway did not prove that it holds the shared secret: it has another one, or none");
}

#[test]
fn only_the_handshake_is_legal_before_welcome() {
    let mut pair = Pair::new(Setup::default());
    let heartbeat = Heartbeat { sequence: 1, status: HealthStatus::Healthy, in_flight: 0, load: 0 };
    let now = pair.now;
    let error = pair.gateway.handle_frame(Frame::Heartbeat(heartbeat), now).unwrap_err();
    assert_eq!(error.to_string(), "protocol_error: HEARTBEAT is not legal now in the handshake");
}

#[test]
fn a_handshake_that_takes_too_long_is_closed() {
    let mut pair = Pair::new(Setup::default());
    pair.advance(limits::HANDSHAKE_TIMEOUT);
    assert_eq!(pair.poll(End::Gateway).1.unwrap().code, CloseCode::HandshakeTimeout);
}

#[test]
fn an_endpoint_set_arrives_whole_and_is_answered() {
    let mut pair = Pair::established(Setup::default());
    let set: Vec<_> = (1..=3000)
        .map(|id| {
            let path = format!("/orders/{id}/{{name}}").parse().unwrap();
            EndpointDescriptor::new(EndpointId::new(id).unwrap(), Method::GET, path)
        })
        .collect();
    pair.service.register(1, set.clone()).unwrap();
    let events = pair.settle();
    let arrived = events.into_iter().find_map(|(_, event)| match event {
        Event::Endpoints { revision: 1, endpoints } => Some(endpoints),
        _ => None,
    });
    assert_eq!(arrived, Some(set));
    let refused = vec![RefusedEndpoint { id: EndpointId::new(7).unwrap(), reason: "taken".into() }];
    pair.gateway.endpoints_result(1, refused.clone());
    let events = pair.settle();
    let is_result =
        |event: &Event| matches!(event, Event::EndpointsResult { revision: 1, refused: r } if *r == refused);
    assert!(events.iter().any(|(end, event)| *end == End::Service && is_result(event)));
}

#[test]
fn an_instance_is_routable_before_it_knows_it_is() {
    let mut pair = Pair::new(Setup::default());
    let events = pair.settle();
    let routable = events.iter().filter(|(_, event)| matches!(event, Event::Routable)).map(|(end, _)| *end);
    assert_eq!(routable.collect::<Vec<_>>(), [End::Gateway, End::Service]);
}

#[test]
fn a_cancel_before_transmission_leaves_no_trace() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "ping", true);
    pair.gateway.release(call);
    assert_eq!(frames(&mut pair, End::Gateway), []);
    assert_eq!(pair.lease.in_flight(), 0);
    let _next = open(&mut pair, "", true);
    let sent = frames(&mut pair, End::Gateway);
    assert_eq!(sent[0].stream(), StreamId::new(2).unwrap(), "no id was used up");
}

#[test]
fn a_cancelled_request_holds_its_lease_until_the_handler_has_ended() {
    let mut pair = Pair::established(Setup { lease: 1, ..Setup::default() });
    let call = open(&mut pair, "ping", false);
    let handler = arrived(&mut pair);
    pair.gateway.release(call);
    pair.settle();
    assert_eq!(pair.lease.in_flight(), 1, "cancelling buys no capacity");
    let failure = StreamFailure::Cancelled { reason: Reason::ClientDisconnected, text: String::new() };
    assert_eq!(pair.service.read(handler), Read::Failed(failure));
    assert!(pair.service.respond(handler, answer(200), Bytes::new(), true, false).is_err());
    pair.service.release(handler);
    pair.settle();
    assert_eq!((pair.lease.in_flight(), pair.service_lease.in_flight()), (0, 0));
    assert_eq!((pair.gateway.remembered(), pair.service.remembered()), (0, 0));
}

#[test]
fn a_cancel_takes_its_streams_queued_frames_with_it() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", false);
    arrived(&mut pair);
    pair.gateway.send_data(call, vec![0; 50_000].into()).unwrap();
    pair.gateway.cancel(call, Reason::DeadlineExceeded, "late");
    let sent = frames(&mut pair, End::Gateway);
    assert!(matches!(&sent[..], [Frame::Cancel(_, cancel)] if cancel.reason == Reason::DeadlineExceeded), "{sent:?}");
}

#[test]
fn cancel_is_legal_in_every_state_and_idempotent() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "ping", true);
    let handler = arrived(&mut pair);
    pair.gateway.cancel(call, Reason::ClientDisconnected, "");
    pair.gateway.cancel(call, Reason::ClientDisconnected, "");
    assert_eq!(frames(&mut pair, End::Gateway).len(), 1);
    pair.settle();
    pair.service.release(handler);
    pair.settle();
    let now = pair.now;
    let late =
        Frame::Cancel(StreamId::new(2).unwrap(), Box::new(Cancel { reason: Reason::Shutdown, text: String::new() }));
    assert_eq!(pair.service.handle_frame(late.clone(), now), Ok(()), "for a closed stream");
    assert_eq!(pair.gateway.handle_frame(late, now), Ok(()), "for a closed stream");
    let never =
        Frame::Cancel(StreamId::new(4).unwrap(), Box::new(Cancel { reason: Reason::Shutdown, text: String::new() }));
    assert!(pair.service.handle_frame(never, now).is_err(), "for a stream that was never opened");
}

#[test]
fn a_handler_that_ends_without_an_answer_is_a_failure() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "ping", true);
    let handler = arrived(&mut pair);
    pair.service.release(handler);
    pair.settle();
    let failure = StreamFailure::Cancelled { reason: Reason::HandlerFailed, text: String::new() };
    assert_eq!(pair.gateway.read_head(call), ReadHead::Failed(failure));
    assert_eq!(pair.lease.in_flight(), 0);
}

#[test]
fn a_body_cut_short_is_never_complete() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", true);
    let handler = arrived(&mut pair);
    pair.service.respond(handler, answer(200), "begin".into(), false, false).unwrap();
    pair.settle();
    pair.service.cancel(handler, Reason::HandlerFailed, "");
    pair.service.release(handler);
    pair.settle();
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    assert_eq!(pair.gateway.read(call), Read::Data("begin".into()));
    assert!(matches!(pair.gateway.read(call), Read::Failed(StreamFailure::Cancelled { .. })));
}

#[test]
fn a_head_whose_body_failed_before_it_began_is_no_answer() {
    for looks_first in [false, true] {
        let mut pair = Pair::established(Setup::default());
        let call = open(&mut pair, "", true);
        let handler = arrived(&mut pair);
        pair.service.respond(handler, answer(200), Bytes::new(), false, false).unwrap();
        pair.settle();
        if looks_first {
            assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
        }
        pair.gateway.close(CloseCode::Normal, String::new());
        if looks_first {
            assert_eq!(pair.gateway.read(call), Read::Failed(StreamFailure::Lost));
        } else {
            assert_eq!(pair.gateway.read_head(call), ReadHead::Failed(StreamFailure::Lost));
        }
    }
}

#[test]
fn a_body_of_another_length_than_its_head_says_is_an_abort() {
    for (sent, announced) in [("four", "5"), ("four", "3")] {
        let mut pair = Pair::established(Setup::default());
        let call = open(&mut pair, "", true);
        let handler = arrived(&mut pair);
        let headers: HeaderMap =
            [(http::header::CONTENT_LENGTH, HeaderValue::from_static(announced))].into_iter().collect();
        let head = ResponseHead::encode(200, &headers).unwrap();
        pair.service.respond(handler, head, sent.into(), true, false).unwrap();
        pair.service.release(handler);
        pair.settle();
        assert_eq!(pair.gateway.read_head(call), ReadHead::Failed(StreamFailure::Length), "{sent} of {announced}");
        assert_eq!(pair.lease.in_flight(), 0);
    }
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let mut pair = Pair::established(Setup::default());
    let permit = pair.lease.try_acquire();
    let opening = Opening { head: head("HEAD", &[]), body: Bytes::new(), end: true, tunnel: false, permit };
    let call = pair.gateway.open(opening).unwrap();
    let handler = arrived(&mut pair);
    let headers: HeaderMap = [(http::header::CONTENT_LENGTH, HeaderValue::from_static("13"))].into_iter().collect();
    pair.service.respond(handler, ResponseHead::encode(200, &headers).unwrap(), Bytes::new(), true, false).unwrap();
    pair.service.release(handler);
    pair.settle();
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    assert_eq!(pair.gateway.read(call), Read::End);
}

#[test]
fn trailers_end_a_body() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", true);
    let handler = arrived(&mut pair);
    let headers: HeaderMap = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))].into_iter().collect();
    pair.service.respond(handler, answer(200), Bytes::new(), false, false).unwrap();
    pair.service.finish(handler, Some(Trailers::encode(&headers).unwrap())).unwrap();
    pair.service.release(handler);
    pair.settle();
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    assert!(matches!(pair.gateway.read(call), Read::Trailers(_)));
    assert_eq!(pair.gateway.read(call), Read::End);
}

#[test]
fn an_early_answer_ends_the_request_too() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "begin", false);
    let handler = arrived(&mut pair);
    pair.service.respond(handler, answer(413), Bytes::new(), true, false).unwrap();
    pair.service.release(handler);
    pair.settle();
    assert!(pair.gateway.send_capacity(call).is_err(), "the rest of the body is dropped");
    assert_eq!(pair.lease.in_flight(), 0);
    pair.gateway.release(call);
    assert_eq!((pair.gateway.remembered(), pair.service.remembered()), (0, 0));
}

#[test]
fn a_stalled_stream_holds_its_window_and_no_other_stream() {
    let mut pair = Pair::established(Setup::default());
    let stalled = open(&mut pair, "", false);
    let handler = arrived(&mut pair);
    let window = limits::STREAM_WINDOW as usize;
    pair.gateway.send_data(stalled, vec![1; 2 * window].into()).unwrap();
    pair.settle();
    let quick = open(&mut pair, "quick", true);
    let other = arrived(&mut pair);
    assert_eq!(pair.service.read(other), Read::Data("quick".into()));
    let mut held = 0;
    while let Read::Data(bytes) = pair.service.read(handler) {
        held += bytes.len();
    }
    assert_eq!(held, window);
    for key in [stalled, quick] {
        pair.gateway.release(key);
    }
}

#[test]
fn bulk_and_small_requests_take_turns() {
    let mut pair = Pair::established(Setup::default());
    let bulk = open(&mut pair, "", false);
    arrived(&mut pair);
    pair.gateway.send_data(bulk, vec![1; 60_000].into()).unwrap();
    for _ in 0..3 {
        open(&mut pair, "small", true);
    }
    let order: Vec<_> = frames(&mut pair, End::Gateway)
        .iter()
        .map(|frame| match frame {
            Frame::Request(_) => "small".to_owned(),
            Frame::RequestData(Data { payload: DataPayload::Bytes { bytes, .. }, .. }) => bytes.len().to_string(),
            other => other.name().to_owned(),
        })
        .collect();
    assert_eq!(order, ["16384", "small", "16384", "small", "16384", "small", "10848"]);
}

#[test]
fn control_never_waits_behind_data() {
    let mut pair = Pair::established(Setup::default());
    let bulk = open(&mut pair, "", false);
    arrived(&mut pair);
    pair.gateway.send_data(bulk, vec![1; 60_000].into()).unwrap();
    pair.gateway.drain(pair.now);
    assert!(matches!(frames(&mut pair, End::Gateway)[0], Frame::Drain(_)));
}

#[test]
fn requests_beyond_the_lease_are_refused_and_may_go_elsewhere() {
    let mut pair = Pair::established(Setup { lease: 2, ..Setup::default() });
    let _held = [open(&mut pair, "", true), open(&mut pair, "", true)];
    pair.settle();
    let opening = Opening { head: head("GET", &[]), body: Bytes::new(), end: true, tunnel: false, permit: None };
    let excess = pair.gateway.open(opening).unwrap();
    let events = pair.settle();
    assert!(!events.iter().any(|(_, event)| matches!(event, Event::Request(..))), "no handler sees it");
    assert_eq!(pair.gateway.read_head(excess), ReadHead::Failed(StreamFailure::Unseen));
}

#[test]
fn a_new_lease_reaches_the_gateway() {
    let mut pair = Pair::established(Setup { lease: 2, ..Setup::default() });
    assert_eq!(pair.lease.limit(), 2);
    pair.service_lease.update(1, 9);
    pair.service.announce_lease();
    pair.settle();
    assert_eq!(pair.lease.limit(), 9);
}

#[test]
fn more_bytes_than_credit_close_the_link() {
    let common = || Common::default();
    let mut setup = Setup { gateway: common(), service: common(), ..Setup::default() };
    setup.service.limits.stream_window = 10;
    let mut pair = Pair::established(setup);
    let now = pair.now;
    let request = Request {
        stream: StreamId::new(2).unwrap(),
        head: head("POST", &[]),
        body: vec![0; 11].into(),
        end: false,
        tunnel: false,
    };
    let error = pair.service.handle_frame(Frame::Request(request), now).unwrap_err();
    assert_eq!(error.code, CloseCode::FlowControl);
    assert_eq!(pair.service.remembered(), 0);
}

#[test]
fn credit_beyond_its_bound_closes_the_link() {
    let mut pair = Pair::established(Setup::default());
    let now = pair.now;
    let error = pair.service.handle_frame(Frame::Window(StreamId::CONNECTION, Window { bytes: u32::MAX }), now);
    assert_eq!(error.unwrap_err().code, CloseCode::FlowControl);
}

#[test]
fn ids_only_increase_and_belong_to_one_side() {
    for (id, text) in [(3, "this side's to open"), (2, "ids only increase")] {
        let mut pair = Pair::established(Setup::default());
        open(&mut pair, "", true);
        arrived(&mut pair);
        let now = pair.now;
        let request = Request {
            stream: StreamId::new(id).unwrap(),
            head: head("GET", &[]),
            body: Bytes::new(),
            end: true,
            tunnel: false,
        };
        let error = pair.service.handle_frame(Frame::Request(request), now).unwrap_err();
        assert!(error.text.contains(text), "{error}");
    }
}

#[test]
fn a_drain_lets_what_was_opened_end_and_nothing_new_begin() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "ping", true);
    let handler = arrived(&mut pair);
    pair.service.drain(pair.now);
    let events = pair.settle();
    assert!(events.iter().any(|(end, event)| *end == End::Gateway && matches!(event, Event::PeerDraining)));
    assert!(!events.iter().any(|(_, event)| matches!(event, Event::Drained)), "a request is in flight");
    let opening = Opening { head: head("GET", &[]), body: Bytes::new(), end: true, tunnel: false, permit: None };
    assert_eq!(pair.gateway.open(opening).unwrap_err(), OpenError::Draining);
    pair.service.respond(handler, answer(200), Bytes::new(), true, false).unwrap();
    pair.service.release(handler);
    let events = pair.settle();
    assert!(events.iter().any(|(end, event)| *end == End::Service && matches!(event, Event::Drained)));
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    pair.service.close(CloseCode::Normal, String::new());
    assert_eq!(closed(&mut pair, End::Gateway).by, ClosedBy::Peer);
}

#[test]
fn a_drain_that_is_not_acknowledged_tells_what_was_seen() {
    let mut pair = Pair::established(Setup::default());
    open(&mut pair, "", true);
    let handler = arrived(&mut pair);
    let late = open(&mut pair, "", true);
    pair.poll(End::Gateway);
    pair.service.drain(pair.now);
    pair.poll(End::Service);
    // The acknowledgement does not come; what the gateway sent meanwhile has not arrived either.
    let overdue = pair.now + limits::DRAIN_ACK_TIMEOUT;
    pair.now = overdue;
    pair.service.handle_timeout(overdue);
    let events = pair.settle();
    assert_eq!(pair.gateway.read_head(late), ReadHead::Failed(StreamFailure::Unseen));
    assert!(!events.iter().any(|(end, event)| *end == End::Service && matches!(event, Event::Request(..))));
    pair.service.release(handler);
    pair.settle();
    assert_eq!(pair.lease.in_flight(), 0);
}

#[test]
fn close_tells_unseen_from_lost() {
    let mut pair = Pair::established(Setup::default());
    let seen = open(&mut pair, "", true);
    arrived(&mut pair);
    let unseen = open(&mut pair, "", true);
    pair.poll(End::Gateway);
    pair.service.close(CloseCode::Shutdown, "bye".into());
    pair.poll(End::Service);
    while pair.deliver(End::Gateway).is_some() {}
    assert_eq!(pair.gateway.read_head(seen), ReadHead::Failed(StreamFailure::Lost));
    assert_eq!(pair.gateway.read_head(unseen), ReadHead::Failed(StreamFailure::Unseen));
    assert_eq!(pair.lease.in_flight(), 0);
    let closed = closed(&mut pair, End::Gateway);
    assert_eq!((closed.by, closed.code, &closed.text[..]), (ClosedBy::Peer, CloseCode::Shutdown, "bye"));
}

#[test]
fn a_broken_link_loses_what_was_sent_and_only_that() {
    let mut pair = Pair::established(Setup::default());
    let sent = open(&mut pair, "", true);
    pair.poll(End::Gateway);
    let queued = open(&mut pair, "", true);
    pair.cut();
    assert_eq!(pair.gateway.read_head(sent), ReadHead::Failed(StreamFailure::Lost));
    assert_eq!(pair.gateway.read_head(queued), ReadHead::Failed(StreamFailure::Unseen));
    assert_eq!(pair.lease.in_flight(), 0);
}

#[test]
fn silence_degrades_and_then_kills() {
    let mut pair = Pair::established(Setup::default());
    pair.now += Duration::from_secs(15);
    pair.gateway.handle_timeout(pair.now);
    let (events, _) = pair.poll(End::Gateway);
    assert!(events.iter().any(|event| matches!(event, Event::Silence(Silence::Degraded))), "{events:?}");
    pair.now += Duration::from_secs(15);
    pair.gateway.handle_timeout(pair.now);
    assert_eq!(pair.poll(End::Gateway).1.unwrap().code, CloseCode::HeartbeatTimeout);
}

#[test]
fn heartbeats_keep_two_idle_peers_alive() {
    let mut pair = Pair::established(Setup::default());
    for _ in 0..100 {
        pair.advance(Duration::from_secs(5));
        pair.settle();
    }
    assert!(pair.gateway.is_established() && pair.service.is_established());
}

#[test]
fn a_peer_that_causes_control_frames_and_takes_none_is_closed() {
    let mut pair = Pair::established(Setup { lease: 1, ..Setup::default() });
    let now = pair.now;
    let mut id = 2;
    while pair.service.wants_read() {
        let request = Request {
            stream: StreamId::new(id).unwrap(),
            head: head("GET", &[]),
            body: Bytes::new(),
            end: true,
            tunnel: false,
        };
        pair.service.handle_frame(Frame::Request(request), now).unwrap();
        id += 2;
        assert!(id < 10_000, "refusals pile up without bound");
    }
    pair.service.handle_timeout(now + limits::OVERLOAD_TIMEOUT);
    assert_eq!(frames(&mut pair, End::Service).len(), 1, "CLOSE, and nothing else");
}

#[test]
fn ignorable_frames_are_skipped() {
    let mut pair = Pair::established(Setup::default());
    let now = pair.now;
    assert_eq!(pair.gateway.handle_frame(Frame::Ignorable { kind: 0x77, length: 3 }, now), Ok(()));
}

#[test]
fn a_full_node_gives_up_the_stream_that_has_waited_longest() {
    let mut setup = Setup::default();
    setup.service.budget = router_common::session::Budget::new(50_000);
    let budget = setup.service.budget.clone();
    let mut pair = Pair::established(setup);
    let first = open(&mut pair, "", false);
    let old = arrived(&mut pair);
    pair.gateway.send_data(first, vec![1; 30_000].into()).unwrap();
    pair.settle();
    pair.now += Duration::from_secs(1);
    let second = open(&mut pair, "", false);
    let young = arrived(&mut pair);
    pair.gateway.send_data(second, vec![1; 30_000].into()).unwrap();
    pair.settle();
    assert!(matches!(pair.service.read(old), Read::Failed(StreamFailure::Cancelled { reason: Reason::Stalled, .. })));
    assert!(matches!(pair.service.read(young), Read::Data(_)));
    drop(pair);
    assert_eq!((budget.used(), budget.grown()), (0, 0));
}
