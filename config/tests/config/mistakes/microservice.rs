//! Mistakes in microservice.yaml.

use super::check;
use crate::settings::microservice;

#[test]
fn a_gateway_url_without_a_scheme_is_told_which() {
    check(
        microservice("gateways:\n  - { url: 127.0.0.1:5100 }\n"),
        r#"
error: `gateways[0].url` is not valid
 --> microservice.yaml:2:12
  |
2 |   - { url: 127.0.0.1:5100 }
  |            ^^^^^^^^^^^^^^ found `127.0.0.1:5100`
  |
  = allowed: the URL of a gateway, such as `tcp://127.0.0.1:5100`
  = help: the scheme, which names the transport, is missing: write `tcp://127.0.0.1:5100`
"#,
    );
}

#[test]
fn a_gateway_url_without_a_port_is_told_which() {
    check(
        microservice("gateways: [{ url: 'tcp://gateway.internal' }]\n"),
        r#"
error: `gateways[0].url` is not valid
 --> microservice.yaml:1:19
  |
1 | gateways: [{ url: 'tcp://gateway.internal' }]
  |                   ^^^^^^^^^^^^^^^^^^^^^^^^ found `tcp://gateway.internal`
  |
  = allowed: the URL of a gateway, such as `tcp://127.0.0.1:5100`
  = help: the port is missing; gateways usually listen on 5100
"#,
    );
}

#[test]
fn a_password_in_a_gateway_url_is_masked() {
    check(
        microservice("gateways: [{ url: 'amqp://guest:hunter2@broker/%2f', linsk: 2 }]\n"),
        r#"
error: unknown key `gateways[0].linsk`
 --> microservice.yaml:1:54
  |
1 | gateways: [{ url: 'amqp://guest:*******@broker/%2f', linsk: 2 }]
  |                                                      ^^^^^ not a key of `gateways[0]`
  |
  = allowed: ca, certificate, datagram, key, key_id, links, on_refused, server_name, shared_secret, token, url
  = help: did you mean `links`?
"#,
    );
}

#[test]
fn links_and_lease_have_bounds() {
    check(
        microservice("lease: 0\ngateways: [{ url: 'tcp://127.0.0.1:5100', links: 65, key_id: team-a }]\n"),
        r#"
error: `lease` is not valid
 --> microservice.yaml:1:8
  |
1 | lease: 0
  |        ^ found `0`
  |
  = allowed: 1 to 1000000

error: `gateways[0].links` is not valid
 --> microservice.yaml:2:50
  |
2 | gateways: [{ url: 'tcp://127.0.0.1:5100', links: 65, key_id: team-a }]
  |                                                  ^^ found `65`
  |
  = allowed: 1 to 64

error: `gateways[0].key_id` is not valid
 --> microservice.yaml:2:62
  |
2 | gateways: [{ url: 'tcp://127.0.0.1:5100', links: 65, key_id: team-a }]
  |                                                              ^^^^^^ found a key id without a secret
  |
  = help: add `shared_secret: env:NAME`, or remove `key_id`
"#,
    );
}

#[test]
fn a_gateway_that_stands_twice_is_told_about_links() {
    check(
        microservice("gateways:\n  - url: tcp://127.0.0.1:5100\n  - url: tcp://127.0.0.1:5100\n"),
        r#"
error: `gateways[1].url` is not valid
 --> microservice.yaml:3:10
  |
3 |   - url: tcp://127.0.0.1:5100
  |          ^^^^^^^^^^^^^^^^^^^^ `tcp://127.0.0.1:5100` stands here twice
  |
  = help: for several parallel connections to one gateway, write `links: 2`
"#,
    );
}

#[test]
fn a_claim_with_a_bad_key_is_shown() {
    check(
        microservice(
            "endpoints:\n  - { method: GET, path: /orders, requiring_claims: [{ type: scope, anyof: [a] }] }\n",
        ),
        r#"
error: unknown key `endpoints[0].requiring_claims[0].anyof`
 --> microservice.yaml:2:69
  |
2 |   - { method: GET, path: /orders, requiring_claims: [{ type: scope, anyof: [a] }] }
  |                                                                     ^^^^^ not a key of `endpoints[0].requiring_claims[0]`
  |
  = allowed: any_of, type
  = help: did you mean `any_of`?
"#,
    );
}

#[test]
fn a_method_in_small_letters_is_told_the_right_one() {
    check(
        microservice("endpoints: [{ method: get, path: /orders }]\n"),
        r#"
error: `endpoints[0].method` is not valid
 --> microservice.yaml:1:23
  |
1 | endpoints: [{ method: get, path: /orders }]
  |                       ^^^ found `get`
  |
  = allowed: an HTTP method in capitals, such as `GET` or `POST`
  = help: methods are case-sensitive: write `GET`
"#,
    );
}

#[test]
fn a_number_that_is_too_large_is_told_its_bounds() {
    check(
        microservice("gateways: [{ url: 'tcp://127.0.0.1:5100', links: 70000 }]\n"),
        r#"
error: `gateways[0].links` is not valid
 --> microservice.yaml:1:50
  |
1 | gateways: [{ url: 'tcp://127.0.0.1:5100', links: 70000 }]
  |                                                  ^^^^^ found `70000`
  |
  = allowed: a whole number, 0 to 65535
"#,
    );
}

#[test]
fn what_is_said_of_tls_where_there_is_none_is_refused() {
    check(
        microservice("gateways: [{ url: 'tcp://127.0.0.1:5100', ca: ca.pem, token: env:T }]\n"),
        r#"
error: `gateways[0].ca` is not valid
 --> microservice.yaml:1:47
  |
1 | gateways: [{ url: 'tcp://127.0.0.1:5100', ca: ca.pem, token: env:T }]
  |                                               ^^^^^^ there is no TLS over `tcp://`
  |
  = help: dial `tls://`, or remove `ca`

error: `gateways[0].token` is not valid
 --> microservice.yaml:1:62
  |
1 | gateways: [{ url: 'tcp://127.0.0.1:5100', ca: ca.pem, token: env:T }]
  |                                                              ^^^^^ a token is shown over TLS alone, and not over `tcp://`
  |
  = help: dial `tls://`, or use `shared_secret`
"#,
    );
}

#[test]
fn a_certificate_goes_with_its_key_and_a_token_goes_alone() {
    check(
        microservice(
            "gateways: [{ url: 'tls://127.0.0.1:5101', certificate: a.pem, token: env:T, shared_secret: env:S }]\n",
        ),
        r#"
error: `gateways[0].token` is not valid
 --> microservice.yaml:1:70
  |
1 | gateways: [{ url: 'tls://127.0.0.1:5101', certificate: a.pem, token: env:T, shared_secret: env:S }]
  |                                                                      ^^^^^ found a token and a secret
  |
  = help: one of them is enough: remove the other

error: `gateways[0].certificate` is not valid
 --> microservice.yaml:1:56
  |
1 | gateways: [{ url: 'tls://127.0.0.1:5101', certificate: a.pem, token: env:T, shared_secret: env:S }]
  |                                                        ^^^^^ found a certificate without its key
  |
  = help: add `key`
"#,
    );
}
