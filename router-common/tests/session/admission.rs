//! By what a service is let in: a certificate that its carrier verified, a token, a shared secret; and which of them counts.

use std::time::Instant;

use bytes::Bytes;
use router_common::frame::{CloseCode, Frame, Hello};
use router_common::identity::Identity;
use router_common::session::{Common, Event, GatewaySide, Output, Secret, Secrets, Session};
use router_common::testing::hello;
use router_common::token::{Token, Tokens};
use router_common::wire::Wire;

const TLS: &[u8] = &[0x7e; 32];

/// What a gateway makes of a HELLO: who it is taken for, `CHALLENGE`, or the text of its refusal.
fn taken_for(carrier: Option<&str>, secrets: Secrets, binding: &[u8], hello: Hello) -> String {
    let now = Instant::now();
    let side = GatewaySide {
        common: Common { channel_binding: Bytes::copy_from_slice(binding), ..Common::default() },
        node: "gw-1".parse().unwrap(),
        secrets,
        nonce: [2; 32],
        identity: carrier.map_or(Identity::Anonymous, |name| Identity::Certificate(name.into())),
    };
    let mut session = Session::gateway(side, now);
    if let Err(error) = session.handle_frame(Frame::Hello(Box::new(Wire::new(hello))), now) {
        assert_eq!(error.code, CloseCode::Unauthenticated);
        return error.text.clone();
    }
    match session.poll() {
        Output::Transmit(Frame::Challenge(_)) => "CHALLENGE".to_owned(),
        Output::Event(Event::Joining(joining)) => joining.identity.to_string(),
        other => panic!("{other:?}"),
    }
}

fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

fn tokens() -> Tokens {
    [("team-a".parse().unwrap(), token("new")), ("team-a".parse().unwrap(), token("old"))].into_iter().collect()
}

fn secret() -> Secrets {
    Secrets::sole(Secret::new([7; 32]).unwrap())
}

fn showing(text: &str) -> Hello {
    Hello { token: Some(token(text)), ..hello() }
}

fn naming() -> Hello {
    Hello { key_id: Some("default".parse().unwrap()), ..hello() }
}

#[test]
fn a_certificate_or_a_token_is_enough_and_a_secret_that_is_named_is_proved() {
    let both = || secret().with_tokens(tokens());
    let only = || Secrets::none().with_tokens(tokens());
    let orders = Some("spiffe://acme/orders");
    let cases: [(Option<&str>, Secrets, Hello, &str); 12] = [
        (None, Secrets::none(), hello(), "anonymous"),
        (orders, Secrets::none(), hello(), "spiffe://acme/orders"),
        (orders, secret(), hello(), "spiffe://acme/orders"),
        (orders, only(), hello(), "spiffe://acme/orders"),
        (orders, secret(), naming(), "CHALLENGE"),
        (None, secret(), hello(), "CHALLENGE"),
        (None, both(), hello(), "CHALLENGE"),
        (None, both(), showing("old"), "token:team-a"),
        (None, only(), showing("new"), "token:team-a"),
        (orders, only(), showing("new"), "token:team-a"),
        (None, both(), Hello { token: Some(token("new")), ..naming() }, "CHALLENGE"),
        (None, only(), Hello { token: Some(token("new")), ..naming() }, "token:team-a"),
    ];
    for (number, (carrier, secrets, hello, expected)) in cases.into_iter().enumerate() {
        assert_eq!(taken_for(carrier, secrets, TLS, hello), expected, "case {number}");
    }
}

#[test]
fn a_token_that_is_wrong_or_where_none_is_taken_is_refused_whatever_else_is_shown() {
    let only = || Secrets::none().with_tokens(tokens());
    for carrier in [None, Some("spiffe://acme/orders")] {
        let wrong = taken_for(carrier, only(), TLS, showing("wrong"));
        assert_eq!(wrong, "the token is none of those that this gateway takes");
        let surplus = taken_for(carrier, secret(), TLS, showing("new"));
        assert_eq!(surplus, "this gateway takes no tokens");
        let open = taken_for(carrier, only(), &[], showing("new"));
        assert!(open.starts_with("a token is taken over TLS alone"), "{open}");
    }
    let neither = taken_for(None, only(), TLS, hello());
    assert_eq!(neither, "this gateway wants a token or a certificate, and the service shows neither");
}
