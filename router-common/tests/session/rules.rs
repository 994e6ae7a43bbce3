//! Rules of SPEC 4 that an ordinary exchange never touches: tunnels that are refused, ends that cross, peers that grant
//! too much or send too little at a time.

use super::*;
use router_common::frame::{Close, Drain, DrainPhase};
use router_common::session::{Output, TakenBack};

fn tunnel(pair: &mut Pair) -> StreamKey {
    let head = RequestHead::encode(&RequestParts {
        endpoint: EndpointId::new(1),
        deadline: None,
        hops: 0,
        method: "GET",
        scheme: Scheme::Http,
        authority: "test",
        target: "/",
        parameters: &[],
        client: None,
        headers: &HeaderMap::new(),
        claims: &[],
        tunnel_protocol: Some("websocket"),
    });
    let permit = pair.lease.try_acquire();
    let opening = Opening { head: head.unwrap(), body: Bytes::new(), end: false, tunnel: true, permit };
    pair.gateway.open(opening).unwrap()
}

fn trailers() -> Trailers {
    let headers: HeaderMap = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))].into_iter().collect();
    Trailers::encode(&headers).unwrap()
}

/// Bytes for a stream that the gateway opened, as it would send them.
fn bytes_for(id: u64, bytes: Vec<u8>) -> Frame {
    let payload = DataPayload::Bytes { bytes: bytes.into(), end: false };
    Frame::RequestData(Data { stream: StreamId::new(id).unwrap(), payload })
}

#[test]
fn a_tunnel_is_opaque_both_ways_and_has_no_trailers() {
    let mut pair = Pair::established(Setup::default());
    let call = tunnel(&mut pair);
    let handler = arrived(&mut pair);
    pair.service.respond(handler, answer(200), Bytes::new(), false, true).unwrap();
    pair.gateway.send_data(call, "up".into()).unwrap();
    pair.settle();
    pair.service.send_data(handler, "down".into()).unwrap();
    pair.service.finish(handler, Some(trailers())).unwrap();
    pair.settle();
    assert_eq!(pair.service.read(handler), Read::Data("up".into()));
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    assert_eq!(pair.gateway.read(call), Read::Data("down".into()));
    assert_eq!(pair.gateway.read(call), Read::End);
}

#[test]
fn a_tunnel_that_is_not_accepted_is_an_ordinary_exchange() {
    let mut pair = Pair::established(Setup::default());
    let call = tunnel(&mut pair);
    let handler = arrived(&mut pair);
    pair.service.respond(handler, answer(403), "no".into(), false, false).unwrap();
    pair.service.finish(handler, Some(trailers())).unwrap();
    pair.service.release(handler);
    pair.settle();
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    assert_eq!(pair.gateway.read(call), Read::Data("no".into()));
    assert!(matches!(pair.gateway.read(call), Read::Trailers(_)));
}

#[test]
fn only_a_200_makes_a_tunnel_and_only_where_one_was_asked_for() {
    for asked in [true, false] {
        let mut pair = Pair::established(Setup::default());
        let call = if asked { tunnel(&mut pair) } else { open(&mut pair, "", false) };
        let handler = arrived(&mut pair);
        let status = if asked { 404 } else { 200 };
        pair.service.respond(handler, answer(status), Bytes::new(), true, true).unwrap();
        let sent = frames(&mut pair, End::Service);
        assert!(matches!(&sent[..], [Frame::Response(response)] if !response.tunnel), "{sent:?}");
        let Frame::Response(mut response) = sent[0].clone() else { unreachable!() };
        response.tunnel = true;
        let now = pair.now;
        assert!(pair.gateway.handle_frame(Frame::Response(response), now).is_err());
        assert!(matches!(pair.gateway.read_head(call), ReadHead::Failed(StreamFailure::Lost)));
    }
}

#[test]
fn a_tunnel_names_its_protocol() {
    let mut pair = Pair::established(Setup::default());
    let stream = StreamId::new(2).unwrap();
    let request = Request { stream, head: head("GET", &[]), body: Bytes::new(), end: false, tunnel: true };
    let now = pair.now;
    pair.service.handle_frame(Frame::Request(request), now).unwrap();
    let sent = frames(&mut pair, End::Service);
    assert!(matches!(&sent[..], [Frame::Cancel(_, cancel)] if cancel.reason == Reason::ProtocolError), "{sent:?}");
}

#[test]
fn a_refusal_is_not_lost_to_the_close_behind_it() {
    let mut pair = Pair::established(Setup { lease: 1, ..Setup::default() });
    let seen = open(&mut pair, "", true);
    let opening = || Opening { head: head("GET", &[]), body: Bytes::new(), end: true, tunnel: false, permit: None };
    let refused = pair.gateway.open(opening()).unwrap();
    pair.poll(End::Gateway);
    for _ in 0..2 {
        pair.deliver(End::Service).unwrap().unwrap();
    }
    pair.service.close(CloseCode::Shutdown, String::new());
    let sent = frames(&mut pair, End::Service);
    let [Frame::Cancel(..), Frame::Close(close)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(close.last, StreamId::new(2).unwrap(), "the last that was accepted");
    while pair.deliver(End::Gateway).is_some() {}
    assert_eq!(pair.gateway.read_head(refused), ReadHead::Failed(StreamFailure::Unseen));
    assert_eq!(pair.gateway.read_head(seen), ReadHead::Failed(StreamFailure::Lost));
}

#[test]
fn what_was_answered_was_seen_whatever_close_and_drain_say() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", true);
    let handler = arrived(&mut pair);
    pair.service.respond(handler, answer(200), "begin".into(), false, false).unwrap();
    pair.settle();
    let now = pair.now;
    let last = StreamId::CONNECTION;
    pair.gateway.handle_frame(Frame::Drain(Drain { phase: DrainPhase::Final, last }), now).unwrap();
    let close = Close { code: CloseCode::Normal, last, text: String::new() };
    pair.gateway.handle_frame(Frame::Close(Box::new(close)), now).unwrap();
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    assert_eq!(pair.gateway.read(call), Read::Data("begin".into()));
    assert_eq!(pair.gateway.read(call), Read::Failed(StreamFailure::Lost));
}

#[test]
fn what_never_left_can_be_taken_back_once() {
    let mut pair = Pair::established(Setup::default());
    let (sent, held) = (open(&mut pair, "sent", false), open(&mut pair, "held", false));
    pair.gateway.send_data(held, " back".into()).unwrap();
    pair.gateway.finish(held, Some(trailers())).unwrap();
    assert_eq!(pair.gateway.take_back(held), None, "it may yet leave");
    assert!(matches!(pair.gateway.poll(), Output::Transmit(Frame::Request(_))));
    pair.gateway.close(CloseCode::Normal, String::new());
    assert_eq!(pair.gateway.take_back(sent), None, "its head has left");
    assert_eq!(pair.gateway.read_head(held), ReadHead::Failed(StreamFailure::Unseen));
    let pieces = vec!["held".into(), " back".into()];
    assert_eq!(pair.gateway.take_back(held), Some(TakenBack { pieces, trailers: Some(trailers()) }));
    assert_eq!(pair.gateway.take_back(held), None);
}

#[test]
fn a_window_frame_grants_something() {
    let mut setup = Setup::default();
    setup.service.limits.connection_window = 1;
    let mut pair = Pair::established(setup);
    open(&mut pair, "", true);
    pair.poll(End::Gateway);
    pair.deliver(End::Service).unwrap().unwrap();
    assert_eq!(frames(&mut pair, End::Service), []);
}

#[test]
fn a_peer_that_grants_much_and_takes_nothing_does_not_fill_this_side() {
    let mut setup = Setup::default();
    setup.service.limits.stream_window = i32::MAX as u32;
    let mut pair = Pair::established(setup);
    let call = open(&mut pair, "", false);
    assert_eq!(pair.gateway.send_capacity(call), Ok(limits::SEND_QUEUE_BYTES));
    for _ in 1..limits::SEND_QUEUES_BYTES / limits::SEND_QUEUE_SHARE_BYTES + 10 {
        open(&mut pair, "", false);
    }
    assert_eq!(pair.gateway.send_capacity(call), Ok(limits::SEND_QUEUE_SHARE_BYTES), "many streams share");
}

#[test]
fn many_small_pieces_wait_as_few_and_are_told_of_once() {
    let mut pair = Pair::established(Setup::default());
    open(&mut pair, "", false);
    let handler = arrived(&mut pair);
    let now = pair.now;
    for at in 0..1000 {
        pair.service.handle_frame(bytes_for(2, vec![at as u8]), now).unwrap();
    }
    let (events, _) = pair.poll(End::Service);
    assert_eq!(events.len(), 1, "{events:?}");
    let (mut pieces, mut all) = (0, Vec::new());
    while let Read::Data(bytes) = pair.service.read(handler) {
        pieces += 1;
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all, (0..1000).map(|at| at as u8).collect::<Vec<_>>());
    assert!(pieces <= 2, "{pieces} pieces");
}

#[test]
fn overrun_of_a_stream_that_nobody_reads_any_more_is_overrun_all_the_same() {
    let mut setup = Setup::default();
    setup.service.limits.stream_window = 10;
    setup.gateway.limits.stream_window = 1;
    let mut pair = Pair::established(setup);
    open(&mut pair, "", false);
    let handler = arrived(&mut pair);
    pair.service.respond(handler, answer(200), "long".into(), true, false).unwrap();
    pair.service.release(handler);
    pair.settle();
    let now = pair.now;
    assert_eq!(pair.service.handle_frame(bytes_for(2, vec![0; 10]), now), Ok(()));
    let error = pair.service.handle_frame(bytes_for(2, vec![0; 1]), now).unwrap_err();
    assert_eq!(error.code, CloseCode::FlowControl);
}

#[test]
fn a_handler_hears_why_it_was_cancelled() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", false);
    let handler = arrived(&mut pair);
    pair.gateway.cancel(call, Reason::DeadlineExceeded, "after 1 s");
    pair.settle();
    let failure = StreamFailure::Cancelled { reason: Reason::DeadlineExceeded, text: "after 1 s".into() };
    assert_eq!(pair.service.read(handler), Read::Failed(failure));
}

#[test]
fn an_end_of_the_link_in_good_order_is_a_reason_and_a_break_is_none() {
    for (code, reason) in [
        (Some(CloseCode::Shutdown), Some(Reason::Shutdown)),
        (Some(CloseCode::Superseded), Some(Reason::Superseded)),
        (Some(CloseCode::HeartbeatTimeout), None),
        (None, None),
    ] {
        let mut pair = Pair::established(Setup::default());
        open(&mut pair, "whole", true);
        let handler = arrived(&mut pair);
        assert_eq!(pair.service.cancel_reason(handler), None);
        match code {
            Some(code) => pair.gateway.close(code, "that is all".into()),
            None => pair.service.handle_link_closed(),
        }
        pair.settle();
        assert_eq!(pair.service.cancel_reason(handler), reason, "{code:?}");
        assert_eq!(pair.service.read(handler), Read::Data("whole".into()), "what has arrived can be read");
    }
}

#[test]
fn a_responder_whose_clock_is_first_has_the_same_reason_and_owes_its_end() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", false);
    let handler = arrived(&mut pair);
    pair.service.expire(handler);
    assert_eq!(pair.service.cancel_reason(handler), Some(Reason::DeadlineExceeded));
    assert!(pair.service.send_capacity(handler).is_err());
    pair.settle();
    assert_eq!(pair.lease.in_flight(), 1, "the handler has not ended");
    pair.service.release(handler);
    pair.settle();
    assert_eq!((pair.lease.in_flight(), pair.service_lease.in_flight()), (0, 0));
    let failure = pair.gateway.read_head(call);
    assert!(matches!(failure, ReadHead::Failed(StreamFailure::Cancelled { reason: Reason::DeadlineExceeded, .. })));
}

#[test]
fn what_outlives_its_link_is_within_the_lease_until_it_ends() {
    let mut pair = Pair::established(Setup { lease: 1, ..Setup::default() });
    open(&mut pair, "", true);
    let handler = arrived(&mut pair);
    pair.service.handle_link_closed();
    assert_eq!(pair.service_lease.in_flight(), 1, "another link may not bring a second one");
    pair.service.release(handler);
    assert_eq!(pair.service_lease.in_flight(), 0);
}

#[test]
fn a_link_that_ends_is_not_drained() {
    let mut pair = Pair::established(Setup::default());
    open(&mut pair, "", true);
    arrived(&mut pair);
    pair.service.drain(pair.now);
    pair.settle();
    pair.cut();
    let (events, _) = pair.poll(End::Service);
    assert!(!events.iter().any(|event| matches!(event, Event::Drained)), "{events:?}");
}

#[test]
fn a_drain_that_is_asked_for_in_the_handshake_begins_after_it() {
    let mut pair = Pair::new(Setup::default());
    pair.gateway.drain(pair.now);
    let events = pair.settle();
    assert!(events.iter().any(|(end, event)| *end == End::Service && matches!(event, Event::PeerDraining)));
    assert!(events.iter().any(|(end, event)| *end == End::Gateway && matches!(event, Event::Drained)));
}

#[test]
fn a_final_drain_is_told_even_if_it_is_the_first_word() {
    let mut pair = Pair::established(Setup::default());
    let now = pair.now;
    let drain = Drain { phase: DrainPhase::Final, last: StreamId::CONNECTION };
    pair.gateway.handle_frame(Frame::Drain(drain), now).unwrap();
    let (events, _) = pair.poll(End::Gateway);
    assert!(events.iter().any(|event| matches!(event, Event::PeerDraining)), "{events:?}");
}

#[test]
fn before_welcome_not_even_ignorable_frames_are_legal() {
    let mut pair = Pair::new(Setup::default());
    let now = pair.now;
    assert!(pair.gateway.handle_frame(Frame::Ignorable { kind: 0x77, length: 3 }, now).is_err());
}

#[test]
fn who_is_read_slowly_is_not_the_longest_stalled() {
    let mut setup = Setup::default();
    setup.service.budget = router_common::session::Budget::new(90_000);
    let mut pair = Pair::established(setup);
    let first = open(&mut pair, "", false);
    let slow = arrived(&mut pair);
    pair.gateway.send_data(first, vec![1; 20_000].into()).unwrap();
    pair.gateway.send_data(first, vec![1; 20_000].into()).unwrap();
    pair.settle();
    pair.advance(Duration::from_secs(1));
    let second = open(&mut pair, "", false);
    let stalled = arrived(&mut pair);
    pair.gateway.send_data(second, vec![1; 20_000].into()).unwrap();
    pair.settle();
    pair.advance(Duration::from_secs(1));
    assert!(matches!(pair.service.read(slow), Read::Data(_)));
    pair.gateway.send_data(second, vec![1; 40_000].into()).unwrap();
    pair.settle();
    assert!(matches!(pair.service.read(slow), Read::Data(_)));
    let failure = pair.service.read(stalled);
    assert!(matches!(failure, Read::Failed(StreamFailure::Cancelled { reason: Reason::Stalled, .. })), "{failure:?}");
    pair.service.release(stalled);
    let sent = frames(&mut pair, End::Service);
    assert!(sent.iter().any(|f| matches!(f, Frame::Cancel(_, cancel) if cancel.reason == Reason::Stalled)), "{sent:?}");
}

#[test]
fn a_hog_on_one_link_does_not_cost_the_streams_of_another() {
    let budget = router_common::session::Budget::new(100_000);
    let setup = || {
        let mut setup = Setup::default();
        setup.service.budget = budget.clone();
        setup
    };
    let (mut hogs, mut others) = (Pair::established(setup()), Pair::established(setup()));
    let hog = open(&mut hogs, "", false);
    let hogged = arrived(&mut hogs);
    hogs.gateway.send_data(hog, vec![1; 60_000].into()).unwrap();
    hogs.settle();
    for pair in [&mut hogs, &mut others] {
        pair.advance(limits::STALLED_AFTER);
    }
    let call = open(&mut others, "", false);
    let read = arrived(&mut others);
    others.gateway.send_data(call, vec![1; 30_000].into()).unwrap();
    others.settle();
    // Whatever arrives on the hog's link next.
    hogs.gateway.set_health(HealthStatus::Degraded, 0, hogs.now);
    hogs.advance(Duration::ZERO);
    hogs.settle();
    let failure = hogs.service.read(hogged);
    assert!(matches!(failure, Read::Failed(StreamFailure::Cancelled { reason: Reason::Stalled, .. })), "{failure:?}");
    others.gateway.send_data(call, vec![1; 30_000].into()).unwrap();
    others.settle();
    let mut length = 0;
    while let Read::Data(bytes) = others.service.read(read) {
        length += bytes.len();
    }
    assert_eq!(length, 60_000);
}

#[test]
fn whoever_waits_on_a_stream_hears_that_this_side_cancelled_it() {
    let mut pair = Pair::established(Setup::default());
    let call = open(&mut pair, "", false);
    arrived(&mut pair);
    pair.gateway.cancel(call, Reason::PayloadLimit, "");
    let (events, _) = pair.poll(End::Gateway);
    assert!(matches!(&events[..], [Event::Stream(key)] if *key == call), "{events:?}");
}

#[test]
fn lease_updates_coalesce() {
    let mut pair = Pair::established(Setup::default());
    for generation in 1..100 {
        pair.service_lease.update(generation, generation as u32);
        pair.service.announce_lease();
    }
    let sent = frames(&mut pair, End::Service);
    assert!(matches!(&sent[..], [Frame::Lease(lease)] if lease.limit == 99), "{sent:?}");
}
