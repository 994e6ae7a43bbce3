//! HTTP/1.1 at the edge, spoken byte by byte: each malformed message has its precise answer.

use std::convert::Infallible;
use std::time::Duration;

use crate::common::{exchange, read_response, start, start_in_memory, status};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use router_gateway::edge::EdgeSettings;
use router_link::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers with the request as it arrived: method, target, headers, and how long the body was.
async fn mirror(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let headers: Vec<(String, String)> =
        parts.headers.iter().map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into())).collect();
    let (length, failed) = match body.collect().await {
        Ok(body) => (body.to_bytes().len(), None),
        Err(error) => (0, Some(error.to_string())),
    };
    let text = serde_json::json!({
        "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers,
        "length": length, "failed": failed,
    });
    let mut response = Response::new(Body::from(text.to_string()));
    response.headers_mut().insert("connection", "x-internal".parse().unwrap());
    response.headers_mut().insert("x-internal", "1".parse().unwrap());
    response.headers_mut().insert("x-stella-secret", "1".parse().unwrap());
    Ok(response)
}

/// Answers at once and reads nothing.
async fn refuse(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::builder().status(413).body(Body::from("no")).unwrap())
}

fn settings() -> EdgeSettings {
    EdgeSettings { max_header_bytes: 8192, max_headers: 20, max_uri_bytes: 1000, ..EdgeSettings::default() }
}

#[tokio::test]
async fn malformed_messages_are_answered_by_what_is_wrong_and_closed() {
    let edge = start(settings(), tower::service_fn(mirror));
    let long = |length: usize| "a".repeat(length);
    let many: String = (0..40).map(|i| format!("x-{i}: 1\r\n")).collect();
    let table: Vec<(String, &str, &str)> = vec![
        ("GET / HTTP/1.1\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Folded: 1\r\n 2\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n".into(), "400", "bad_request"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", "bad_request"),
        ("nonsense\r\n\r\n".into(), "400", "bad_request"),
        ("\x16\x03\x01\x02\x00\r\n\r\n".into(), "400", "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into(), "400", "bad_request"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), "400", "bad_request"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", "bad_request"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", "bad_request"),
        ("GET http://me@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400", "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".into(), "400", "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".into(), "400", "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx".into(), "400", "bad_request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            "400",
            "bad_request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n".into(),
            "400",
            "bad_request",
        ),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), "400", "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(), "400", "bad_request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(),
            "501",
            "not_implemented",
        ),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".into(), "501", "not_implemented"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(2000)), "414", "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431", "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(9000)), "431", "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", long(100_000)), "431", "headers_too_large"),
    ];
    for (request, expected, code) in table {
        let shown: String = request.chars().take(120).collect();
        let answer = exchange(edge.address, request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{shown:?} -> {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/problem+json"), "{shown:?} -> {answer}");
        assert!(head.contains("x-request-id: "), "{shown:?} -> {answer}");
        let body: serde_json::Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{shown:?}: {error}: {answer}"));
        assert_eq!(body["code"], code, "{shown:?}");
        assert_eq!(body["status"].to_string(), expected, "{shown:?}");
    }
}

#[tokio::test]
async fn correct_messages_pass_and_keep_the_connection() {
    let edge = start(settings(), tower::service_fn(mirror));
    let mut client = TcpStream::connect(edge.address).await.unwrap();
    let requests = [
        "GET /a?b=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-Stella-Claims: root\r\nTE: trailers\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET http://other.example/d HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let mut seen = Vec::new();
    for request in requests {
        client.write_all(request.as_bytes()).await.unwrap();
        let (head, body) = read_response(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{request} -> {head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nvia: 1.1 gw-1\r\n") && head.contains("\r\ndate: "), "{head}");
        assert!(!head.contains("x-internal") && !head.contains("x-stella"), "{head}");
        seen.push(serde_json::from_slice::<serde_json::Value>(&body).unwrap());
    }
    let field = |request: usize, name: &str| {
        let headers = seen[request]["headers"].as_array().unwrap();
        headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned())
    };
    assert_eq!(seen[0]["target"], "/a?b=1");
    for gone in ["connection", "x-hop", "x-stella-claims", "te"] {
        assert_eq!(field(0, gone), None, "{gone}");
    }
    assert_eq!(field(0, "via").as_deref(), Some("1.1 gw-1"));
    assert_eq!(field(0, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert!(field(0, "x-request-id").is_some());
    assert_eq!(seen[1]["length"], 3);
    assert_eq!(seen[2]["length"], 3);
    assert_eq!(field(2, "transfer-encoding"), None);
    assert_eq!(seen[3]["target"], "/d");
    assert_eq!(field(3, "host").as_deref(), Some("other.example"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = start(settings(), tower::service_fn(mirror));
    let answer = exchange(
        edge.address,
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    let order: Vec<usize> = ["\"/1\"", "\"/2\"", "\"/3\""].iter().map(|target| answer.find(target).unwrap()).collect();
    assert!(order.is_sorted(), "{answer}");
}

#[tokio::test]
async fn http_1_0_clients_get_no_chunks_and_a_closed_connection() {
    async fn stream(_: Request<Body>) -> Result<Response<Body>, Infallible> {
        let chunks = ["one ", "two"].map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(chunk))));
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(chunks));
        Ok(Response::new(Body::stream(body)))
    }
    let edge = start(settings(), tower::service_fn(stream));
    let answer = exchange(edge.address, b"GET / HTTP/1.0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "one two");
}

#[tokio::test]
async fn options_asterisk_and_the_last_hop_are_answered_by_the_router() {
    let edge = start(settings(), tower::service_fn(mirror));
    let table = [
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "204"),
        ("OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n", "204"),
        ("TRACE /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n", "405"),
        ("OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nConnection: close\r\n\r\n", "200"),
    ];
    for (request, expected) in table {
        let answer = exchange(edge.address, request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{request} -> {answer}");
        if expected != "200" {
            assert!(answer.to_ascii_lowercase().contains("\r\nallow: "), "{answer}");
        }
    }
}

#[tokio::test]
async fn expectations_are_met_or_refused() {
    let edge = start(settings(), tower::service_fn(mirror));
    let answer =
        exchange(edge.address, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "417", "{answer}");

    let mut client = TcpStream::connect(edge.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await.unwrap();
    let (interim, _) = read_response(&mut client).await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").await.unwrap();
    let (head, _) = read_response(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn a_body_that_is_refused_before_it_is_read_is_not_asked_for() {
    let edge = start(settings(), tower::service_fn(refuse));
    let answer =
        exchange(edge.address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            .await;
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_small_unread_body_is_discarded_and_the_connection_lives_on() {
    let edge = start(settings(), tower::service_fn(refuse));
    let mut client = TcpStream::connect(edge.address).await.unwrap();
    for _ in 0..3 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n").await.unwrap();
        client.write_all(&[b'x'; 10_000]).await.unwrap();
        let (head, _) = read_response(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 413") && !head.contains("connection: close"), "{head}");
        client.write_all(&[b'x'; 20_000]).await.unwrap();
    }
}

#[tokio::test]
async fn a_large_unread_body_closes_the_connection_after_the_answer() {
    let edge = start(settings(), tower::service_fn(refuse));
    let mut client = TcpStream::connect(edge.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await.unwrap();
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    let (head, body) = read_response(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 413") && head.contains("connection: close\r\n"), "{head}");
    assert_eq!(body, b"no");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test]
async fn broken_chunks_are_seen_by_the_service_as_an_abort() {
    let edge = start(settings(), tower::service_fn(mirror));
    let answer = exchange(
        edge.address,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
    )
    .await;
    assert!(answer.contains("\"failed\":\"cancelled"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_timed_out_and_an_idle_connection_is_closed() {
    let settings = EdgeSettings { header_timeout: Duration::from_secs(10), ..settings() };
    let (_edge, clients) = start_in_memory(settings, tower::service_fn(mirror));
    let answer = clients.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(status(&answer), "408", "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");

    // After a whole request, silence is no mistake: the connection just ends.
    let answer = clients.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(status(&answer), "200", "{answer}");

    // Nothing was said at all.
    assert_eq!(clients.exchange(b"").await, "");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_at_once_and_lets_the_others_finish() {
    async fn slow(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(Response::new(Body::from(body)))
    }
    let edge = start(settings(), tower::service_fn(slow));
    let mut idle = TcpStream::connect(edge.address).await.unwrap();
    idle.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    read_response(&mut idle).await;
    let mut busy = TcpStream::connect(edge.address).await.unwrap();
    busy.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx").await.unwrap();
    // The edge has seen the request when it holds its first byte.
    while edge.node_bytes.held() == 0 {
        tokio::task::yield_now().await;
    }
    edge.stop();
    busy.write_all(b"y").await.unwrap();
    let (head, body) = read_response(&mut busy).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(body, b"xy");
    edge.linger_over.request();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "the idle connection is closed");
    edge.tasks.close();
    edge.tasks.wait().await;
    assert_eq!(edge.node_bytes.held(), 0);
}
