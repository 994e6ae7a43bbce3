//! Links that reorder and lose, one rule of docs/PROTOCOL.md section 16 a test.

use super::*;
use router_common::frame::{Close, Drain, DrainPhase, Response};
use router_common::session::{Carrier, RegisterError};

fn datagrams() -> Pair {
    let common = || Common { carrier: Carrier::Datagrams { max_frame: 1132 }, ..Common::default() };
    Pair::established(Setup { gateway: common(), service: common(), ..Setup::default() })
}

/// The frames on their way to `end` arrive, the last one first.
fn deliver_backwards(pair: &mut Pair, end: End) {
    pair.wire(end).make_contiguous().reverse();
    while let Some(result) = pair.deliver(end) {
        result.unwrap();
    }
}

fn lose(pair: &mut Pair, end: End) -> usize {
    pair.poll(end.other());
    std::mem::take(pair.wire(end)).len()
}

fn requests(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Request(..))).count()
}

fn respond(pair: &mut Pair, at: StreamKey, body: &'static str) {
    pair.service.respond(at, answer(200), body.into(), true, false).unwrap();
    pair.service.release(at);
}

#[test]
fn a_cancel_that_overtakes_its_request_is_its_terminal() {
    let mut pair = datagrams();
    let call = open(&mut pair, "never mind", true);
    pair.poll(End::Gateway);
    pair.gateway.cancel(call, Reason::ClientDisconnected, "");
    pair.gateway.release(call);
    assert_eq!(frames(&mut pair, End::Gateway).len(), 2);
    deliver_backwards(&mut pair, End::Service);
    let (events, _) = pair.poll(End::Service);
    assert_eq!((requests(&events), pair.wire(End::Gateway).len()), (0, 1), "no handler, and one terminal");
    pair.settle();
    assert_eq!((pair.lease.in_flight(), pair.gateway.remembered(), pair.service.remembered()), (0, 0, 0));
}

#[test]
fn a_terminal_that_is_lost_costs_the_slot_until_the_grace_after_the_deadline_is_over() {
    for (deadline, after) in [(Some(Duration::from_secs(5)), 15), (None, 40)] {
        for loses_request in [true, false] {
            let mut pair = datagrams();
            let head = RequestHead::encode(&RequestParts {
                endpoint: EndpointId::new(1),
                deadline,
                hops: 0,
                method: "GET",
                scheme: Scheme::Http,
                authority: "test",
                target: "/",
                parameters: &[],
                client: None,
                headers: &HeaderMap::new(),
                claims: &[],
                tunnel_protocol: None,
            });
            let permit = pair.lease.try_acquire();
            let opening = Opening { head: head.unwrap(), body: Bytes::new(), end: true, tunnel: false, permit };
            let call = pair.gateway.open(opening).unwrap();
            if loses_request {
                lose(&mut pair, End::Service);
            } else {
                let request = arrived(&mut pair);
                respond(&mut pair, request, "lost");
                lose(&mut pair, End::Gateway);
            }
            for _ in 1..after {
                pair.advance(Duration::from_secs(1));
                pair.settle();
                assert_eq!((pair.lease.in_flight(), pair.gateway.read_head(call)), (1, ReadHead::Pending));
            }
            pair.advance(Duration::from_secs(1));
            assert_eq!(pair.gateway.read_head(call), ReadHead::Failed(StreamFailure::Lost));
            assert_eq!(pair.lease.in_flight(), 0);
        }
    }
}

#[test]
fn answers_that_close_has_overtaken_count() {
    let mut pair = datagrams();
    let calls = [open(&mut pair, "1", true), open(&mut pair, "2", true)];
    let first = arrived_all(&mut pair);
    let unseen = open(&mut pair, "never seen", true);
    pair.poll(End::Gateway);
    for request in first {
        respond(&mut pair, request, "done");
    }
    pair.poll(End::Service);
    pair.service.close(CloseCode::Normal, String::new());
    pair.poll(End::Service);
    assert!(matches!(pair.wire(End::Gateway).back(), Some(Frame::Close(_))));
    let close = pair.wire(End::Gateway).pop_back().unwrap();
    pair.gateway.handle_frame(close, pair.now).unwrap();
    assert!(pair.gateway.is_over() && pair.poll(End::Gateway).1.is_none());
    assert_eq!(pair.gateway.read_head(unseen), ReadHead::Failed(StreamFailure::Unseen), "at once");
    let refused = pair.gateway.open(Opening {
        head: head("GET", &[]),
        body: Bytes::new(),
        end: true,
        tunnel: false,
        permit: None,
    });
    assert_eq!(refused, Err(OpenError::Closed));
    deliver_backwards(&mut pair, End::Gateway);
    for call in calls {
        assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(_)));
    }
    assert_eq!(pair.poll(End::Gateway).1.map(|closed| closed.by), Some(ClosedBy::Peer));
    assert_eq!(pair.lease.in_flight(), 0);
}

/// Settles, and gives all streams that arrived at the service.
fn arrived_all(pair: &mut Pair) -> Vec<StreamKey> {
    let events = pair.settle().into_iter();
    events.filter_map(|(_, event)| if let Event::Request(key, _) = event { Some(key) } else { None }).collect()
}

#[test]
fn answers_that_do_not_come_within_a_second_of_close_are_lost() {
    let mut pair = datagrams();
    let call = open(&mut pair, "1", true);
    arrived(&mut pair);
    pair.service.close(CloseCode::Shutdown, String::new());
    pair.poll(End::Service);
    while pair.deliver(End::Gateway).is_some() {}
    pair.advance(limits::CLOSE_TIMEOUT - Duration::from_millis(1));
    assert_eq!((pair.gateway.read_head(call), pair.poll(End::Gateway).1), (ReadHead::Pending, None));
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.gateway.read_head(call), ReadHead::Failed(StreamFailure::Lost));
    assert!(pair.poll(End::Gateway).1.is_some());
}

#[test]
fn a_drain_waits_for_the_requests_that_it_covers_but_not_for_ever() {
    for comes in [true, false] {
        let mut pair = datagrams();
        open(&mut pair, "late", true);
        pair.poll(End::Gateway);
        let late = pair.wire(End::Service).pop_back().unwrap();
        pair.service.drain(pair.now);
        let drained = |events: &[(End, Event)]| events.iter().any(|(_, event)| matches!(event, Event::Drained));
        assert!(!drained(&pair.settle()), "the agreement names a request that is on its way");
        if comes {
            pair.wire(End::Service).push_back(late);
            let request = arrived(&mut pair);
            respond(&mut pair, request, "done");
            assert!(drained(&pair.settle()));
        } else {
            pair.advance(limits::LOSS_GRACE);
            assert!(drained(&pair.settle()));
            pair.wire(End::Service).push_back(late);
            assert_eq!(requests(&pair.settle().into_iter().map(|(_, event)| event).collect::<Vec<_>>()), 0);
            assert_eq!(pair.lease.in_flight(), 0, "it was refused");
        }
    }
}

#[test]
fn requests_above_a_final_drain_are_unseen_and_those_below_it_are_still_taken() {
    let mut pair = datagrams();
    let (below, above) = (open(&mut pair, "2", true), open(&mut pair, "4", true));
    pair.poll(End::Gateway);
    let last = StreamId::new(2).unwrap();
    pair.gateway.handle_frame(Frame::Drain(Drain { phase: DrainPhase::Final, last }), pair.now).unwrap();
    assert_eq!(pair.gateway.read_head(above), ReadHead::Failed(StreamFailure::Unseen));
    assert_eq!(pair.gateway.read_head(below), ReadHead::Pending);
}

#[test]
fn the_end_of_a_one_way_answer_may_overtake_its_head() {
    let mut pair = datagrams();
    let call = open(&mut pair, "note", true);
    let request = arrived(&mut pair);
    pair.service.respond(request, answer(202), Bytes::new(), false, false).unwrap();
    pair.poll(End::Service);
    pair.service.finish(request, None).unwrap();
    pair.service.release(request);
    assert_eq!(frames(&mut pair, End::Service).len(), 2);
    deliver_backwards(&mut pair, End::Gateway);
    assert!(matches!(pair.gateway.read_head(call), ReadHead::Ready(head) if head.status() == 202));
    assert_eq!((pair.gateway.read(call), pair.lease.in_flight()), (Read::End, 0));
}

#[test]
fn what_is_no_whole_message_closes_the_link() {
    let stream = StreamId::new(2).unwrap();
    let request = |end, tunnel| {
        let (head, body) = (head("GET", &[]), Bytes::new());
        (End::Service, Frame::Request(Request { stream, head, body, end, tunnel }))
    };
    let data = || Data { stream, payload: DataPayload::Bytes { bytes: Bytes::from_static(b"x"), end: true } };
    let response = Response { stream, head: answer(200), body: Bytes::from_static(b"x"), end: false, tunnel: false };
    for (end, frame) in [
        request(false, false),
        request(true, true),
        (End::Service, Frame::RequestData(data())),
        (End::Service, Frame::Window(StreamId::CONNECTION, Window { bytes: 1 })),
        (End::Gateway, Frame::ResponseData(data())),
        (End::Gateway, Frame::Response(response)),
    ] {
        let mut pair = datagrams();
        open(&mut pair, "a stream that is there", true);
        arrived(&mut pair);
        let name = frame.name();
        let now = pair.now;
        let error = pair.end(end).handle_frame(frame, now).expect_err(name);
        assert_eq!(error.code, CloseCode::ProtocolError, "{name}: {error}");
    }
}

#[test]
fn a_request_that_comes_twice_runs_once() {
    let mut pair = datagrams();
    open(&mut pair, "once", true);
    pair.poll(End::Gateway);
    let again = pair.wire(End::Service)[0].clone();
    let request = arrived(&mut pair);
    pair.wire(End::Service).push_back(again.clone());
    assert!(arrived_all(&mut pair).is_empty());
    respond(&mut pair, request, "done");
    pair.settle();
    pair.wire(End::Service).push_back(again);
    assert!(arrived_all(&mut pair).is_empty());
    assert_eq!((pair.lease.in_flight(), pair.service.remembered()), (0, 0));
}

#[test]
fn a_set_is_offered_again_until_it_is_answered() {
    let mut pair = datagrams();
    let endpoint = EndpointDescriptor::new(EndpointId::new(1).unwrap(), Method::GET, "/a".parse().unwrap());
    pair.service.register(1, vec![endpoint]).unwrap();
    assert_eq!(lose(&mut pair, End::Gateway), 1);
    let offered = |pair: &mut Pair| {
        pair.settle().into_iter().any(|(_, event)| matches!(event, Event::Endpoints { revision: 1, .. }))
    };
    assert!(!offered(&mut pair));
    pair.advance(limits::OFFER_AGAIN);
    assert!(offered(&mut pair));
    pair.gateway.endpoints_result(1, Vec::new());
    pair.poll(End::Gateway);
    // The answer is lost as well.
    pair.wire(End::Service).retain(|frame| !matches!(frame, Frame::EndpointsResult(_)));
    pair.advance(limits::OFFER_AGAIN);
    assert!(offered(&mut pair));
    pair.gateway.endpoints_result(1, Vec::new());
    pair.settle();
    pair.advance(limits::OFFER_AGAIN);
    assert!(!offered(&mut pair));
}

#[test]
fn of_two_results_the_newer_counts_whichever_comes_first() {
    let mut pair = datagrams();
    let endpoint = EndpointDescriptor::new(EndpointId::new(1).unwrap(), Method::GET, "/a".parse().unwrap());
    pair.service.register(1, vec![endpoint]).unwrap();
    pair.settle();
    let refusal = RefusedEndpoint { id: EndpointId::new(1).unwrap(), reason: "taken".to_owned() };
    for refused in [vec![refusal], Vec::new()] {
        pair.gateway.endpoints_result(1, refused);
        pair.poll(End::Gateway);
    }
    deliver_backwards(&mut pair, End::Service);
    let (events, _) = pair.poll(End::Service);
    let results: Vec<_> = events.iter().filter(|event| matches!(event, Event::EndpointsResult { .. })).collect();
    assert!(matches!(results[..], [Event::EndpointsResult { refused, .. }] if refused.is_empty()), "{results:?}");
}

#[test]
fn an_endpoint_that_fits_no_frame_is_named() {
    let mut pair = datagrams();
    let mut endpoint = EndpointDescriptor::new(EndpointId::new(7).unwrap(), Method::GET, "/long".parse().unwrap());
    endpoint.summary = Some("x".repeat(2_000));
    match pair.service.register(1, vec![endpoint]) {
        Err(RegisterError::EndpointTooLarge { id, path, .. }) => assert_eq!((id.as_u32(), path.as_str()), (7, "/long")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_old_heartbeat_says_nothing_new() {
    let mut pair = datagrams();
    let heartbeat = |sequence, status| Frame::Heartbeat(Heartbeat { sequence, status, in_flight: 0, load: 0 });
    pair.gateway.handle_frame(heartbeat(9, HealthStatus::Healthy), pair.now).unwrap();
    pair.gateway.handle_frame(heartbeat(8, HealthStatus::Unhealthy), pair.now).unwrap();
    let (events, _) = pair.poll(End::Gateway);
    let statuses: Vec<_> = events.iter().filter(|event| matches!(event, Event::Heartbeat { .. })).collect();
    assert!(matches!(statuses[..], [Event::Heartbeat { status: HealthStatus::Healthy, .. }]), "{statuses:?}");
    assert!(matches!(pair.wire(End::Service).back(), Some(Frame::HeartbeatAck(ack)) if ack.sequence == 9));
}

#[test]
fn frame_limits_below_those_of_ordered_links_are_legal_here_and_nowhere_else() {
    let small = Common { carrier: Carrier::Datagrams { max_frame: 1132 }, ..Common::default() };
    let mut pair = Pair::new(Setup { service: small, ..Setup::default() });
    pair.poll(End::Service);
    assert!(pair.deliver(End::Gateway).unwrap().is_err());
    assert!(matches!(frames(&mut pair, End::Gateway)[..], [Frame::Close(ref close)] if *close == Box::new(Close {
        code: CloseCode::ProtocolError,
        last: StreamId::CONNECTION,
        text: close.text.clone(),
    })));
}
