//! Why a request goes where it goes: told by the admin page, on the command line, and with the response (SPEC 5, 13).

use std::net::SocketAddr;

use crate::common::{assert_problem, exchange, status};
use crate::stub::{Plan, Stub, gateway, handler};
use http::Response;
use router_config::RouterConfig;
use router_config::router::{AdminAccess, Strategy};
use router_gateway::Gateway;
use router_link::Body;
use tokio::net::TcpListener;
use tokio::process::Command;

fn guarded(config: &mut RouterConfig<()>) {
    config.routing.strategy = Strategy::RoundRobin;
    config.admin.access = AdminAccess::Token(router_config::SecretRef::literal("letmein"));
}

/// Two instances that say who they are.
async fn instances(gateway: &Gateway) -> [Stub; 2] {
    let plan = |id| {
        let mut plan = Plan { id, ..Plan::new(&[("GET", "/things/{id}"), ("GET", "/guarded")]) };
        let claim = router_common::endpoint::ClaimRequirement { kind: "scope".into(), any_of: Vec::new() };
        plan.endpoints[1].requiring_claims = vec![claim];
        plan
    };
    let says = |id: &'static str| {
        handler(move |_| async move {
            let mut response = Response::new(Body::from(id));
            response.headers_mut().insert("x-stella-explain", "pretended".parse().unwrap());
            Some(response)
        })
    };
    [plan("a").join(gateway, says("a")).await, plan("b").join(gateway, says("b")).await]
}

async fn get(address: SocketAddr, target: &str, headers: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    exchange(address, request.as_bytes()).await
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn the_page_tells_what_the_next_request_does_and_no_turn_moves() {
    let gateway = gateway(|config| config.routing.strategy = Strategy::RoundRobin).await;
    let _stubs = instances(&gateway).await;
    let (http, admin) = (gateway.http_addr().unwrap(), gateway.admin_addr().unwrap());
    for _ in 0..4 {
        let mut told = Vec::new();
        for _ in 0..3 {
            let answer = get(admin, "/explain?method=GET&path=/things/1", "").await;
            assert_eq!((status(&answer), field(&answer, "content-type")), ("200", Some("application/json")));
            told.push(json(body(&answer)));
        }
        assert!(told.windows(2).all(|pair| pair[0]["chosen"] == pair[1]["chosen"]));
        assert_eq!(told[0]["version"], serde_json::json!({ "version": "1.0.0", "because": "highest_promoted" }));
        assert_eq!(told[0]["endpoint"]["path"], "/things/{id}");
        assert_eq!(told[0]["steps"].as_array().unwrap().len(), 5);
        let served = get(http, "/things/1", "").await;
        assert_eq!(told[0]["chosen"]["instance"], body(&served));
    }
}

#[tokio::test]
async fn the_page_tells_what_a_request_would_get_instead() {
    let gateway = gateway(guarded).await;
    let _stubs = instances(&gateway).await;
    let admin = gateway.admin_addr().unwrap();
    let page = |query: &'static str| async move {
        get(admin, &format!("/explain?{query}"), "Authorization: Bearer letmein\r\n").await
    };
    for (query, status, code) in [
        ("method=GET&path=/nothing", 404, "route_not_found"),
        ("method=PUT&path=/things/1", 405, "method_not_allowed"),
        ("method=GET&path=/things/1&version=2.0.0", 404, "version_not_found"),
        ("method=GET&path=/things/1&version=two", 400, "invalid_version"),
        ("method=GET&path=/things//1", 400, "invalid_path"),
        ("method=GET&path=/guarded", 401, "unauthenticated"),
    ] {
        let refused = &json(body(&page(query).await))["refused"];
        assert_eq!((&refused["status"], &refused["code"]), (&status.into(), &code.into()), "{query}");
    }
    assert_problem(&page("method=GET").await, "400", "bad_request");
    assert_problem(&get(admin, "/explain?method=GET&path=/x", "").await, "401", "unauthenticated");
    assert_problem(&get(admin, "/explain", "Authorization: Bearer no\r\n").await, "403", "forbidden");
}

#[tokio::test]
async fn whoever_has_the_token_is_told_with_the_response() {
    let gateway = gateway(guarded).await;
    let _stubs = instances(&gateway).await;
    let http = gateway.http_addr().unwrap();
    let token = "X-Stella-Explain: letmein\r\n";
    for _ in 0..4 {
        let answer = get(http, "/things/1", token).await;
        let told = json(field(&answer, "x-stella-explain").unwrap());
        assert_eq!((&told["chosen"], &told["decisions"]), (&body(&answer).into(), &1.into()));
        assert_eq!(told["steps"][0]["left"], 2);
    }
    let answer = get(http, "/things/1", &format!("{token}X-Service-Version: 7.0.0\r\n")).await;
    assert_eq!(status(&answer), "404");
    assert_eq!(json(field(&answer, "x-stella-explain").unwrap())["refused"]["code"], "version_not_found");
}

#[tokio::test]
async fn nobody_else_is_told_anything() {
    let open = gateway(|_| {}).await;
    let guarded = gateway(guarded).await;
    let _stubs = (instances(&open).await, instances(&guarded).await);
    let asks = |gateway: &Gateway, headers: &'static str| {
        let address = gateway.http_addr().unwrap();
        async move {
            let answer = get(address, "/things/1", headers).await;
            assert_eq!(status(&answer), "200");
            // What a service pretends is stripped too.
            assert!(!answer.contains("x-stella-"), "{answer}");
        }
    };
    asks(&guarded, "").await;
    asks(&guarded, "X-Stella-Explain: letmei\r\n").await;
    asks(&guarded, "X-Stella-Explain:\r\n").await;
    asks(&guarded, "Authorization: Bearer letmein\r\n").await;
    asks(&open, "X-Stella-Explain: letmein\r\n").await;
    asks(&open, "X-Stella-Explain:\r\n").await;
}

/// Runs the program; its exit code, and what it wrote to the standard output and error.
async fn program(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_router-gateway"));
    let output = command.arg("explain").args(arguments).env("EXPLAIN_TOKEN", "letmein").output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_line_prints_it_and_exits_by_what_would_happen() {
    let gateway = gateway(guarded).await;
    let _stubs = instances(&gateway).await;
    let admin = format!("http://{}", gateway.admin_addr().unwrap());
    let ask = |more: &'static [&'static str]| {
        let admin = admin.clone();
        async move { program(&[&["--admin", &admin, "--token", "env:EXPLAIN_TOKEN"], more].concat()).await }
    };
    let (code, output, error) = ask(&["GET", "/things/a b"]).await;
    assert_eq!(code, 2);
    assert!(error.contains("`path` is `/things/a b`, which is no request target."), "{error}");
    assert_eq!(output, "");
    let (code, output, error) = ask(&["GET", "/things/1", "--version", "1.0.0"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    for line in ["GET /things/1\n", "  version    1.0.0, which the request names\n", "\n-> a in local, over link "] {
        assert!(output.contains(line), "{line} in\n{output}");
    }
    let (code, output, _) = ask(&["--json", "GET", "/things/1"]).await;
    assert_eq!((code, &json(&output)["chosen"]["instance"]), (0, &"a".into()));
    let (code, output, _) = ask(&["GET", "/guarded"]).await;
    assert_eq!(code, 1);
    assert!(output.ends_with("-> 401 unauthenticated: Valid credentials are required\n"), "{output}");
}

#[tokio::test]
async fn the_command_line_says_what_keeps_it_from_asking() {
    let gateway = gateway(guarded).await;
    let admin = format!("http://{}", gateway.admin_addr().unwrap());
    let not_admin = format!("http://{}", gateway.http_addr().unwrap());
    // Bound, so that nobody else is, and let go: nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    for (arguments, code, told) in [
        (&["--admin", &nobody][..], 3, "nobody listens at"),
        (&["--admin", &admin], 3, "asks for the admin token: give it by --token (401)"),
        (&["--admin", &admin, "--token", "no"], 3, "does not take this token (403)"),
        (&["--admin", &not_admin], 3, "has no /explain"),
        (&["--admin", "https://localhost"], 2, "the admin listener speaks http"),
        (&["--admin", "/x"], 2, "names no host"),
        (&["--token", "env:NO_SUCH_VARIABLE_HERE"], 2, "NO_SUCH_VARIABLE_HERE"),
    ] {
        let (exit, output, error) = program(&[arguments, &["GET", "/x"]].concat()).await;
        assert!(error.contains(told), "{told} in {error}");
        assert_eq!((exit, output.as_str()), (code, ""), "{error}");
    }
    assert_eq!(program(&["GET"]).await.0, 2);
}
