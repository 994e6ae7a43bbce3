//! Mistakes in the environment and on the command line.

use router_config::{MicroserviceConfig, Sources, load};

use super::check;
use crate::settings::router_with;

#[test]
fn a_bad_value_of_a_variable_names_the_variable() {
    check(
        router_with("node: { workers: 4 }\n", &[("ROUTER__NODE__WORKERS", "two")], &[]),
        r#"
error: `node.workers` is not valid
 --> environment variable ROUTER__NODE__WORKERS
  |
  | ROUTER__NODE__WORKERS=two
  |                       ^^^ found `two`
  |
  = allowed: a whole number
"#,
    );
}

#[test]
fn a_bad_key_of_a_variable_is_underlined_in_its_name() {
    check(
        router_with("", &[("ROUTER__NOED__REGION", "eu-west")], &[]),
        r#"
error: unknown key `noed`
 --> environment variable ROUTER__NOED__REGION
  |
  | ROUTER__NOED__REGION=eu-west
  |         ^^^^ not a section of the configuration
  |
  = allowed: admin, health, http, limits, log, node, routing, services, shutdown, transports, upgrade
  = help: did you mean `node`?
"#,
    );
}

#[test]
fn an_inner_bad_key_of_a_variable_is_underlined_in_its_name() {
    check(
        router_with("node: { id: gw-1 }\n", &[("ROUTER__NODE__REGOIN", "eu-west")], &[]),
        r#"
error: unknown key `node.regoin`
 --> environment variable ROUTER__NODE__REGOIN
  |
  | ROUTER__NODE__REGOIN=eu-west
  |               ^^^^^^ not a key of `node`
  |
  = allowed: environment, id, neighbor_regions, region, workers
  = help: did you mean `region`?
"#,
    );
}

#[test]
fn a_secret_in_a_variable_is_masked() {
    check(
        router_with("", &[("ROUTER__TRANSPORTS__TCP__SHARED_SECRET", "hunter2")], &[]),
        r#"
error: `transports.tcp.listen` is missing
 --> environment variable ROUTER__TRANSPORTS__TCP__SHARED_SECRET
  |
  | ROUTER__TRANSPORTS__TCP__SHARED_SECRET=***
  |                     ^^^ found no key `listen` here
"#,
    );
}

#[test]
fn a_rule_broken_by_a_variable_names_the_variable() {
    check(
        router_with("health: { degraded_after: 15s }\n", &[("ROUTER__HEALTH__DEGRADED_AFTER", "5s")], &[]),
        r#"
error: `health.degraded_after` is not valid
 --> environment variable ROUTER__HEALTH__DEGRADED_AFTER
  |
  | ROUTER__HEALTH__DEGRADED_AFTER=5s
  |                                ^^ degraded_after is 5s, but heartbeat is 10s
  |
  = allowed: heartbeat < degraded_after < dead_after
  = help: an instance that is silent between two heartbeats is not yet degraded
"#,
    );
}

#[test]
fn a_bad_override_of_the_command_line_is_shown() {
    check(
        router_with("", &[], &["health.heartbeat=soon"]),
        r#"
error: `health.heartbeat` is not valid
 --> command line, override of health.heartbeat
  |
  | health.heartbeat=soon
  |                  ^^^^ found `soon`
  |
  = allowed: a duration with units, such as `250ms`, `30s`, `5m` or `1h30m`
"#,
    );
}

#[test]
fn a_bad_key_of_an_override_is_underlined() {
    check(
        router_with("", &[], &["health.heartbeats=5s"]),
        r#"
error: unknown key `health.heartbeats`
 --> command line, override of health.heartbeats
  |
  | health.heartbeats=5s
  |        ^^^^^^^^^^ not a key of `health`
  |
  = allowed: dead_after, degraded_after, heartbeat
  = help: did you mean `heartbeat`?
"#,
    );
}

#[test]
fn an_override_without_a_value_is_told_how_to_write_one() {
    check(
        router_with("", &[], &["health.heartbeat"]),
        r#"
error: an override of the command line is not valid
 --> command line, override of health.heartbeat
  = found no `=`
  = allowed: `key.path=value`, such as `node.region=eu-west`
"#,
    );
}

#[test]
fn an_override_of_one_item_of_a_list_is_refused() {
    check(
        router_with("", &[], &["node.neighbor_regions[0]=eu"]),
        r#"
error: an override of the command line is not valid
 --> command line, override of node.neighbor_regions[0]
  = found an index: a list is replaced as a whole
  = allowed: `key.path=value`, such as `node.region=eu-west`
"#,
    );
}

#[test]
fn one_item_of_a_list_in_a_variable_is_refused() {
    check(
        load::<MicroserviceConfig>(
            Sources::microservice()
                .text("microservice.yaml", "gateways: [{ url: 'tcp://127.0.0.1:5100' }]\n")
                .environment([("MICROSERVICE__GATEWAYS__0__URL", "tcp://127.0.0.1:5101")]),
        ),
        r#"
error: `gateways` is not valid
 --> environment variable MICROSERVICE__GATEWAYS__0__URL
  |
  | MICROSERVICE__GATEWAYS__0__URL=tcp://127.0.0.1:5101
  |                                ^^^^^^^^^^^^^^^^^^^^ found a map
  |
  = allowed: a list, such as `[a, b]`
  = help: a list is given as a whole: its items cannot be set one by one
"#,
    );
}
