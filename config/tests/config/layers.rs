//! Files that are right, and values from several layers.

use std::time::Duration;

use router_config::router::{AdminAccess, LogFormat, Strategy};
use router_config::{
    ByteSize, MicroserviceConfig, Sources, load, load_traced, schema_for_microservice, schema_for_router,
};

use crate::settings::{Router, Transports, microservice, router, router_with, sources};

const ROUTER: &str = r#"
node:    { id: gw-1, region: eu-west, neighbor_regions: [eu-central], environment: prod, workers: 2 }   # workers: default one per core
http:    { listen: 127.0.0.1:8080 }
admin:   { listen: 127.0.0.1:9901 }            # access: open | off | { token: env:ADMIN_TOKEN }
transports:
  in_memory: {}
  tcp:      { listen: 127.0.0.1:5100, shared_secret: env:ROUTER_SECRET }   # or { team-a: [env:NEW, env:OLD] }
routing: { strategy: lowest_ping, version_header: x-service-version }
limits:  { default_timeout: 30s, max_timeout: 5m, max_request_bytes_per_call: 16MiB, max_request_bytes_per_connection: 64MiB, max_aggregate_inflight_bytes: 1GiB }
health:  { heartbeat: 10s, degraded_after: 15s, dead_after: 30s }
services:
  orders:
    default_version: 1.2.0
    identities: ["spiffe://acme/orders", "key:team-a"]
    path_prefixes: [/orders]
    endpoints: [{ method: GET, path: "/orders/{id}", timeout: 1s }]
"#;

const MICROSERVICE: &str = r#"
service:  { name: orders, version: 1.2.0, region: eu-west }
gateways:
  - { url: "tcp://127.0.0.1:5100", shared_secret: env:ROUTER_SECRET, links: 2 }
  - { url: "amqp://guest:guest@127.0.0.1:5672/%2f", shared_secret: env:ROUTER_SECRET }
endpoints:
  - { method: GET, path: "/orders/{id}", timeout: 2s, requiring_claims: [{ type: scope, any_of: ["orders:read"] }] }
"#;

#[test]
fn an_empty_router_file_is_valid_and_everything_has_its_default() {
    for empty in ["", "\n", "# nothing\n", "---\n", "node:\nhttp: {}\n"] {
        let config = router(empty).unwrap();
        assert_eq!((config.node.id.as_str(), config.node.region.as_str()), ("gateway", "local"), "{empty:?}");
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.http.header_timeout.to_string(), "10s");
        assert_eq!(config.http.max_header_bytes, ByteSize::kib(32));
        assert_eq!(config.http.max_headers.get(), 100);
        assert_eq!(config.http.keep_alive_timeout.as_duration(), Duration::from_secs(75));
        assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9901");
        assert_eq!(config.admin.access, AdminAccess::Open);
        assert_eq!(config.routing.strategy, Strategy::LowestPing);
        assert_eq!(config.routing.version_header.to_string(), "x-service-version");
        assert_eq!(config.routing.promote.after.to_string(), "30s");
        let outlier = &config.routing.outlier;
        assert_eq!((outlier.consecutive_failures, outlier.max_percent), (5, 10));
        assert_eq!(outlier.base.to_string(), "30s");
        assert_eq!(config.limits.max_timeout.to_string(), "5m");
        assert_eq!(config.limits.stream_idle_timeout.to_string(), "1m");
        assert_eq!(config.limits.max_buffered_bytes.to_string(), "256MiB");
        assert_eq!(config.log.format, LogFormat::Text);
        assert_eq!(config.shutdown.grace.to_string(), "30s");
        assert_eq!(config.shutdown.idle_linger.to_string(), "5s");
        assert!(config.upgrade.socket.is_none());
        assert_eq!(config.upgrade.wait.to_string(), "15s");
        assert!(config.transports.tcp.is_none() && config.services.is_empty());
    }
}

#[test]
fn the_documented_router_file_is_read_as_it_stands() {
    let config = router(ROUTER).unwrap();
    assert_eq!(config.node.workers.map(std::num::NonZero::get), Some(2));
    assert!(config.transports.in_memory.is_some());
    let tcp = config.transports.tcp.unwrap();
    assert_eq!((tcp.listen.addr().port(), tcp.insecure), (5100, false));
    let orders = &config.services[&"orders".parse().unwrap()];
    assert_eq!(orders.default_version.as_ref().unwrap().to_string(), "1.2.0");
    assert_eq!(orders.path_prefixes.as_deref(), Some(&["/orders".to_owned()][..]));
    assert_eq!(orders.endpoints[0].timeout.unwrap().to_string(), "1s");
}

#[test]
fn the_documented_microservice_file_is_read_as_it_stands() {
    let config = microservice(MICROSERVICE).unwrap();
    assert_eq!(config.service.name.unwrap().as_str(), "orders");
    assert_eq!((config.gateways[0].links, config.gateways[1].links), (Some(2), None));
    assert_eq!(config.gateways[1].url.scheme(), "amqp");
    assert_eq!(config.endpoints[0].requiring_claims.as_ref().unwrap()[0].any_of, ["orders:read"]);
    assert_eq!(config.lease, 1024);
    assert_eq!(microservice("").unwrap().gateways.len(), 0);
}

#[test]
fn the_command_line_beats_the_environment_which_beats_the_file() {
    let yaml = "node: { id: file, region: file, environment: file }";
    let environment = [("ROUTER__NODE__REGION", "variable"), ("ROUTER__NODE__ENVIRONMENT", "variable")];
    let node = router_with(yaml, &environment, &["node.environment=first", "node.environment=argument"]).unwrap().node;
    assert_eq!(
        (node.id.as_str(), node.region.as_str(), node.environment.as_deref()),
        ("file", "variable", Some("argument"))
    );
}

#[test]
fn a_scalar_is_what_its_field_wants_in_every_layer() {
    let node = router("node: { id: 042, environment: true, region: 1e3, workers: '4' }").unwrap().node;
    assert_eq!((node.id.as_str(), node.environment.as_deref(), node.region.as_str()), ("042", Some("true"), "1e3"));
    assert_eq!(node.workers.map(std::num::NonZero::get), Some(4));
    let node = router_with("", &[("ROUTER__NODE__ID", "042"), ("ROUTER__NODE__WORKERS", "4")], &["node.region=1e3"]);
    let node = node.unwrap().node;
    assert_eq!((node.id.as_str(), node.region.as_str()), ("042", "1e3"));
    assert_eq!(node.workers.map(std::num::NonZero::get), Some(4));
    assert_eq!(
        router("limits: { max_buffered_bytes: 268435456 }").unwrap().limits.max_buffered_bytes.to_string(),
        "256MiB"
    );
}

#[test]
fn lists_and_maps_in_the_environment_are_written_in_brackets() {
    let environment = [
        ("ROUTER__NODE__NEIGHBOR_REGIONS", "[eu-central, us-east]"),
        ("ROUTER__TRANSPORTS__TCP", "{ listen: 127.0.0.1:0, shared_secret: { team-a: [env:NEW, env:OLD] } }"),
    ];
    let config = router_with("node: { neighbor_regions: [a, b, c] }", &environment, &[]).unwrap();
    assert_eq!(config.node.neighbor_regions.len(), 2);
    assert_eq!(config.transports.tcp.unwrap().shared_secret.unwrap().iter().count(), 1);
}

#[test]
fn a_hyphen_in_a_key_is_an_underscore_in_a_variable() {
    let yaml = "services: { my-orders: { default_version: 1.0.0 } }";
    let config = router_with(yaml, &[("ROUTER__SERVICES__MY_ORDERS__DEFAULT_VERSION", "2.0.0")], &[]).unwrap();
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.services[&"my-orders".parse().unwrap()].default_version.as_ref().unwrap().to_string(), "2.0.0");
}

#[test]
fn variables_of_others_are_passed_over() {
    let environment = [("ROUTER_PORT_5100_TCP", "x"), ("MICROSERVICE__LEASE", "x"), ("router__node__id", "X")];
    assert_eq!(router_with("", &environment, &[]).unwrap().node.id.as_str(), "gateway");
    let config: MicroserviceConfig =
        load(Sources::microservice().environment([("MICROSERVICE__LEASE", "7"), ("ROUTER__NODE__ID", "x")])).unwrap();
    assert_eq!(config.lease, 7);
}

#[test]
fn null_leaves_a_setting_unset_and_a_bare_key_is_an_empty_section() {
    let config = router("node: { workers: null, environment: ~ }\ntransports:\n  in_memory:\n").unwrap();
    assert!(config.node.workers.is_none() && config.node.environment.is_none());
    assert!(config.transports.in_memory.is_some());
    assert!(router("transports: { in_memory: null }").unwrap().transports.in_memory.is_none());
}

#[test]
fn anchors_and_merge_keys_work() {
    let yaml = "
services:
  a: &defaults { default_version: 1.0.0, path_prefixes: [/a] }
  b: { <<: *defaults, path_prefixes: [/b] }
";
    let config = router(yaml).unwrap();
    let b = &config.services[&"b".parse().unwrap()];
    assert_eq!(b.default_version.as_ref().unwrap().to_string(), "1.0.0");
    assert_eq!(b.path_prefixes.as_deref(), Some(&["/b".to_owned()][..]));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let config = router("\u{feff}node:\r\n  id: gw-1\r\n  environment: prod\r\n").unwrap();
    assert_eq!((config.node.id.as_str(), config.node.environment.as_deref()), ("gw-1", Some("prod")));
}

#[test]
fn what_is_printed_can_be_read_again_and_holds_no_secret() {
    let yaml =
        format!("{ROUTER}\nlog: {{ format: json, level: debug }}\n").replace("env:ROUTER_SECRET", "hunter2hunter2");
    let printed = serde_json::to_string(&router(&yaml).unwrap()).unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
    let again: Router = load(Sources::router().text("printed", printed.as_str())).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), printed);
}

#[test]
fn a_failure_after_loading_is_said_with_its_place() {
    let yaml = "transports:\n  tcp: { listen: 127.0.0.1:5100, shared_secret: env:NOT_SET_ANYWHERE }\n";
    let loaded = load_traced::<Router>(sources(yaml, &[], &[])).unwrap();
    let secrets = loaded.value.transports.tcp.as_ref().unwrap().shared_secret.as_ref().unwrap();
    let problem = secrets.resolve_in(|_| Some("hunter2".into())).unwrap_err().to_string();
    let error = loaded.refuse("transports.tcp.shared_secret", problem).to_string();
    let expected = "\
error: `transports.tcp.shared_secret` is not valid
 --> router.yaml:2:49
  |
2 |   tcp: { listen: 127.0.0.1:5100, shared_secret: env:NOT_SET_ANYWHERE }
  |                                                 ^^^^^^^^^^^^^^^^^^^^ the secret from the environment variable \
NOT_SET_ANYWHERE is 7 bytes long, and a shared secret has at least 32; make one with `openssl rand -hex 32`";
    assert_eq!(error, expected);
    let elsewhere = loaded.refuse("http.listen", "the address is in use").to_string();
    assert_eq!(elsewhere, "error: `http.listen` is not valid\n --> router.yaml\n  = the address is in use");
}

#[test]
fn every_documented_key_stands_in_the_schemas() {
    let router = schema_for_router::<Transports>();
    let keys =
        |name: &str| router["$defs"][name]["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("NodeConfig"), ["environment", "id", "neighbor_regions", "region", "workers"]);
    assert_eq!(keys("Tcp"), ["insecure", "listen", "shared_secret"]);
    assert_eq!(router["properties"]["transports"]["$ref"], "#/$defs/Transports");
    let microservice = schema_for_microservice();
    assert_eq!(microservice["$defs"]["ClaimRequirement"]["properties"]["type"]["type"], "string");
}
