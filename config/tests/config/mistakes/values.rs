//! Values and keys of router.yaml that are wrong, with what their author is told.

use super::check;
use crate::settings::router;

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    check(
        router("node:\n  id: gw-1\ntransports:\n  tcp: { lisen: 127.0.0.1:5100 }\n"),
        r#"
error: unknown key `transports.tcp.lisen`
 --> router.yaml:4:10
  |
4 |   tcp: { lisen: 127.0.0.1:5100 }
  |          ^^^^^ not a key of `transports.tcp`
  |
  = allowed: insecure, listen, shared_secret
  = help: did you mean `listen`?
"#,
    );
}

#[test]
fn an_unknown_section_names_all_sections() {
    check(
        router("nodes: { id: gw-1 }\n"),
        r#"
error: unknown key `nodes`
 --> router.yaml:1:1
  |
1 | nodes: { id: gw-1 }
  | ^^^^^ not a section of the configuration
  |
  = allowed: admin, health, http, limits, log, node, routing, services, shutdown, transports, upgrade
  = help: did you mean `node`?
"#,
    );
}

#[test]
fn a_key_of_a_feature_that_is_not_there_is_unknown() {
    check(
        router("http: { tls: { certificate: gw.pem } }\n"),
        r#"
error: unknown key `http.tls`
 --> router.yaml:1:9
  |
1 | http: { tls: { certificate: gw.pem } }
  |         ^^^ not a key of `http`
  |
  = allowed: body_idle_timeout, header_timeout, keep_alive_timeout, listen, max_header_bytes, max_headers, trusted_proxies
"#,
    );
}

#[test]
fn a_duration_without_a_unit_is_told_how_to_write_one() {
    check(
        router("health:\n  heartbeat: 10\n"),
        r#"
error: `health.heartbeat` is not valid
 --> router.yaml:2:14
  |
2 |   heartbeat: 10
  |              ^^ found `10`
  |
  = allowed: a duration with units, such as `250ms`, `30s`, `5m` or `1h30m`
  = help: a bare number has no unit: write `10s` or `10ms`
"#,
    );
}

#[test]
fn a_size_with_half_a_unit_is_told_both_readings() {
    check(
        router("limits: { max_request_bytes_per_call: 16M }\n"),
        r#"
error: `limits.max_request_bytes_per_call` is not valid
 --> router.yaml:1:39
  |
1 | limits: { max_request_bytes_per_call: 16M }
  |                                       ^^^ found `16M`
  |
  = allowed: a size in bytes, such as `64KiB`, `16MiB`, `1GiB`, `10MB` or `1000`
  = help: write `16MiB` (powers of 1024) or `16MB` (of 1000)
"#,
    );
}

#[test]
fn a_word_in_place_of_a_number_is_shown() {
    check(
        router("node: { workers: two }\n"),
        r#"
error: `node.workers` is not valid
 --> router.yaml:1:18
  |
1 | node: { workers: two }
  |                  ^^^ found `two`
  |
  = allowed: a whole number
"#,
    );
}

#[test]
fn zero_workers_are_refused() {
    check(
        router("node: { workers: 0 }\n"),
        r#"
error: `node.workers` is not valid
 --> router.yaml:1:18
  |
1 | node: { workers: 0 }
  |                  ^ found `0`
  |
  = allowed: a whole number, at least 1
"#,
    );
}

#[test]
fn a_scalar_in_place_of_a_list_is_told_how_to_write_one() {
    check(
        router("node:\n  neighbor_regions: eu-central\n"),
        r#"
error: `node.neighbor_regions` is not valid
 --> router.yaml:2:21
  |
2 |   neighbor_regions: eu-central
  |                     ^^^^^^^^^^ found `eu-central`
  |
  = allowed: a list, such as `[a, b]`
  = help: for a list of one, write `[eu-central]`
"#,
    );
}

#[test]
fn a_list_in_place_of_a_section_is_told_its_keys() {
    check(
        router("node: [gw-1]\n"),
        r#"
error: `node` is not valid
 --> router.yaml:1:1
  |
1 | node: [gw-1]
  | ^^^^ found a list
  |
  = allowed: a map with keys among: id, region, neighbor_regions, environment, workers
"#,
    );
}

#[test]
fn a_key_without_a_value_is_shown() {
    check(
        router("http:\n  listen:\n"),
        r#"
error: `http.listen` is not valid
 --> router.yaml:2:3
  |
2 |   listen:
  |   ^^^^^^ found nothing
  |
  = allowed: an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`
"#,
    );
}

#[test]
fn an_address_without_a_port_is_told_how_to_write_one() {
    check(
        router("http: { listen: 0.0.0.0 }\n"),
        r#"
error: `http.listen` is not valid
 --> router.yaml:1:17
  |
1 | http: { listen: 0.0.0.0 }
  |                 ^^^^^^^ found `0.0.0.0`
  |
  = allowed: an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`
  = help: the port is missing: write `0.0.0.0:8080`
"#,
    );
}

#[test]
fn a_strategy_that_does_not_exist_names_the_nearest() {
    check(
        router("routing: { strategy: lowest-ping }\n"),
        r#"
error: `routing.strategy` is not valid
 --> router.yaml:1:22
  |
1 | routing: { strategy: lowest-ping }
  |                      ^^^^^^^^^^^ found `lowest-ping`
  |
  = allowed: lowest_ping, least_loaded, round_robin, random
  = help: did you mean `lowest_ping`?
"#,
    );
}

#[test]
fn a_bad_version_is_shown_with_the_reason() {
    check(
        router("services:\n  orders: { default_version: 1.10 }\n"),
        r#"
error: `services.orders.default_version` is not valid
 --> router.yaml:2:30
  |
2 |   orders: { default_version: 1.10 }
  |                              ^^^^ `1.10` is not a semantic version: unexpected end of input while parsing minor version number
"#,
    );
}

#[test]
fn a_bad_service_name_is_shown_at_the_key() {
    check(
        router("services:\n  Orders: {}\n"),
        r#"
error: `services.Orders` is not valid
 --> router.yaml:2:3
  |
2 |   Orders: {}
  |   ^^^^^^ `Orders` is not a service name: use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit
"#,
    );
}

#[test]
fn a_bad_path_template_is_shown() {
    check(
        router("services:\n  orders:\n    endpoints:\n      - { method: GET, path: 'orders/{id}' }\n"),
        r#"
error: `services.orders.endpoints[0].path` is not valid
 --> router.yaml:4:30
  |
4 |       - { method: GET, path: 'orders/{id}' }
  |                              ^^^^^^^^^^^^^ path template `orders/{id}`: a path template begins with `/`
"#,
    );
}

#[test]
fn a_missing_key_is_shown_at_its_section() {
    check(
        router("transports:\n  tcp: { insecure: true }\n"),
        r#"
error: `transports.tcp.listen` is missing
 --> router.yaml:2:3
  |
2 |   tcp: { insecure: true }
  |   ^^^ found no key `listen` here
"#,
    );
}

#[test]
fn thresholds_in_the_wrong_order_are_shown_at_the_one_that_was_written() {
    check(
        router("health:\n  degraded_after: 40s\n"),
        r#"
error: `health.degraded_after` is not valid
 --> router.yaml:2:19
  |
2 |   degraded_after: 40s
  |                   ^^^ dead_after is 30s, but degraded_after is 40s
  |
  = allowed: heartbeat < degraded_after < dead_after
"#,
    );
}

#[test]
fn every_rule_that_is_broken_is_reported() {
    check(
        router("health: { heartbeat: 20s, dead_after: 5s }\nlimits: { default_timeout: 10m }\n"),
        r#"
error: `limits.default_timeout` is not valid
 --> router.yaml:2:28
  |
2 | limits: { default_timeout: 10m }
  |                            ^^^ default_timeout is 10m, but max_timeout is 5m
  |
  = allowed: default_timeout <= max_timeout

error: `health.heartbeat` is not valid
 --> router.yaml:1:22
  |
1 | health: { heartbeat: 20s, dead_after: 5s }
  |                      ^^^ degraded_after is 15s, but heartbeat is 20s
  |
  = allowed: heartbeat < degraded_after < dead_after
  = help: an instance that is silent between two heartbeats is not yet degraded

error: `health.dead_after` is not valid
 --> router.yaml:1:39
  |
1 | health: { heartbeat: 20s, dead_after: 5s }
  |                                       ^^ dead_after is 5s, but degraded_after is 15s
  |
  = allowed: heartbeat < degraded_after < dead_after
"#,
    );
}

#[test]
fn an_open_listener_without_authentication_is_refused() {
    check(
        router("transports:\n  tcp: { listen: 0.0.0.0:5100 }\n"),
        r#"
error: `transports.tcp.listen` is not valid
 --> router.yaml:2:18
  |
2 |   tcp: { listen: 0.0.0.0:5100 }
  |                  ^^^^^^^^^^^^ `0.0.0.0:5100` can be reached from other machines, and whoever connects could register any service
  |
  = help: add `shared_secret: env:NAME`, or listen on 127.0.0.1
  = help: if the network itself keeps strangers out, say so with `insecure: true`
"#,
    );
}

#[test]
fn an_identity_without_its_kind_is_told_how_to_write_it() {
    check(
        router("services:\n  orders:\n    identities: [team-a]\n    path_prefixes: [orders]\n"),
        r#"
error: `services.orders.identities[0]` is not valid
 --> router.yaml:3:18
  |
3 |     identities: [team-a]
  |                  ^^^^^^ found `team-a`
  |
  = allowed: an identity with its kind, such as `key:team-a` or `spiffe://acme/orders`
  = help: for the shared secret with this key id, write `key:team-a`

error: `services.orders.path_prefixes[0]` is not valid
 --> router.yaml:4:21
  |
4 |     path_prefixes: [orders]
  |                     ^^^^^^ found `orders`
  |
  = allowed: a path that begins with `/`, such as `/orders`
"#,
    );
}

#[test]
fn an_endpoint_that_stands_twice_is_refused() {
    check(
        router(
            "services:\n  orders:\n    endpoints:\n      - { method: GET, path: '/orders/{id}' }\n      - { method: GET, path: '/orders/{key}', timeout: 0s }\n",
        ),
        r#"
error: `services.orders.endpoints[1].path` is not valid
 --> router.yaml:5:30
  |
5 |       - { method: GET, path: '/orders/{key}', timeout: 0s }
  |                              ^^^^^^^^^^^^^^^ `GET /orders/{key}` stands here twice

error: `services.orders.endpoints[1].timeout` is not valid
 --> router.yaml:5:56
  |
5 |       - { method: GET, path: '/orders/{key}', timeout: 0s }
  |                                                        ^^ found `0s`
  |
  = allowed: more than zero
"#,
    );
}

#[test]
fn a_literal_secret_is_masked_in_the_excerpt() {
    check(
        router("transports:\n  tcp: { shared_secret: { team-a: [hunter2, env:OLD] }, lisen: 127.0.0.1:5100 }\n"),
        r#"
error: unknown key `transports.tcp.lisen`
 --> router.yaml:2:57
  |
2 |   tcp: { shared_secret: { team-a: [*******, env:OLD] }, lisen: 127.0.0.1:5100 }
  |                                                         ^^^^^ not a key of `transports.tcp`
  |
  = allowed: insecure, listen, shared_secret
  = help: did you mean `listen`?
"#,
    );
}

#[test]
fn a_secret_of_the_wrong_shape_is_told_the_right_one() {
    check(
        router("transports:\n  tcp: { listen: 127.0.0.1:5100, shared_secret: [env:NEW, env:OLD] }\n"),
        r#"
error: `transports.tcp.shared_secret` is not valid
 --> router.yaml:2:34
  |
2 |   tcp: { listen: 127.0.0.1:5100, shared_secret: [env:NEW, env:OLD] }
  |                                  ^^^^^^^^^^^^^ found a list
  |
  = allowed: a secret as `env:NAME` or `file:/path`, or a map of key ids to one or several of them, the newest first
"#,
    );
}

#[test]
fn a_token_in_the_wrong_shape_is_told_the_right_one() {
    check(
        router("admin: { access: { tokn: env:ADMIN_TOKEN } }\n"),
        r#"
error: unknown key `admin.access.tokn`
 --> router.yaml:1:20
  |
1 | admin: { access: { tokn: env:ADMIN_TOKEN } }
  |                    ^^^^ not a key of `admin.access`
  |
  = allowed: token
  = help: did you mean `token`?
"#,
    );
}

#[test]
fn an_ejection_that_could_never_be_is_told_how_to_have_none() {
    check(
        router("routing:\n  outlier: { consecutive_failures: 3, max_percent: 0 }\n"),
        r#"
error: `routing.outlier.max_percent` is not valid
 --> router.yaml:2:52
  |
2 |   outlier: { consecutive_failures: 3, max_percent: 0 }
  |                                                    ^ found `0`
  |
  = allowed: 1 to 100
  = help: to eject nobody, write `consecutive_failures: 0`
"#,
    );
    assert_eq!(router("routing: { outlier: { consecutive_failures: 0 } }").unwrap().routing.outlier.max_percent, 10);
}
