//! The whole gateway: HTTP in front, a service over the in-memory transport behind.

use std::sync::Arc;

use crate::common::{assert_problem, exchange, read_response, status};
use crate::stub::{Handler, Plan, gateway, gateway_in_memory, gateway_on, handler};
use http::{Request, Response};
use http_body_util::BodyExt;
use router_config::router::Strategy;
use router_gateway::Gateway;
use router_link::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

fn echo() -> Handler {
    handler(|request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        let mut response = Response::new(body);
        response.headers_mut().insert("x-target", parts.uri.to_string().parse().unwrap());
        Some(response)
    })
}

async fn get(gateway: &Gateway, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
    exchange(gateway.http_addr().unwrap(), request.as_bytes()).await
}

#[tokio::test]
async fn a_request_reaches_a_service_and_its_answer_comes_back() {
    let gateway = gateway(|_| {}).await;
    let _stub = Plan::new(&[("POST", "/echo/{what}")]).join(&gateway, echo()).await;
    let mut client = TcpStream::connect(gateway.http_addr().unwrap()).await.unwrap();
    for length in [0, 1, 10_000, 1_000_000] {
        let body = vec![b'x'; length];
        let head = format!("POST /echo/a%20b?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = client.split();
        let sent = body.clone();
        let (answer, _) = tokio::join!(
            async {
                let mut answer = Vec::new();
                let mut buffer = vec![0; 65536];
                loop {
                    let read = reading.read(&mut buffer).await.unwrap();
                    answer.extend_from_slice(&buffer[..read]);
                    if answer.ends_with(b"\r\n0\r\n\r\n")
                        || (length < 20_000 && answer.len() > length + 50 && answer.ends_with(&sent))
                    {
                        return answer;
                    }
                    assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
                }
            },
            async { writing.write_all(&body).await.unwrap() }
        );
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &text[..300.min(text.len())]);
        assert!(text.contains("x-target: /echo/a%20b?q=1\r\n"));
        assert_eq!(
            answer.iter().filter(|byte| **byte == b'x').count()
                - text[..text.find("\r\n\r\n").unwrap()].matches('x').count(),
            length
        );
    }
    assert_eq!(gateway.inflight_bytes(), 0);
}

#[tokio::test]
async fn what_cannot_be_routed_is_answered_by_what_is_wrong() {
    let gateway = gateway(|_| {}).await;
    let _stub = Plan::new(&[("GET", "/things/{id}")]).join(&gateway, echo()).await;
    assert_problem(&get(&gateway, "/nowhere", "").await, "404", "route_not_found");
    assert_problem(&get(&gateway, "/things/1", "X-Service-Version: 2.0.0\r\n").await, "404", "version_not_found");
    assert!(get(&gateway, "/things/1", "X-Service-Version: 2.0.0\r\n").await.contains("\"versions\":[\"1.0.0\"]"));
    assert_problem(&get(&gateway, "/things/1", "X-Service-Version: latest\r\n").await, "400", "invalid_version");
    assert_problem(&get(&gateway, "/things/%zz", "").await, "400", "invalid_path");
    assert_problem(&get(&gateway, "/things/../x", "").await, "400", "invalid_path");
    assert_problem(&get(&gateway, "/things/1", "X-Request-Timeout-Ms: soon\r\n").await, "400", "bad_request");
    assert_eq!(status(&get(&gateway, "/things/1", "X-Service-Version: 1.0.0\r\n").await), "200");
    let address = gateway.http_addr().unwrap();
    let answer = exchange(address, b"PUT /things/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_problem(&answer, "405", "method_not_allowed");
    assert!(answer.contains("\r\nallow: GET, HEAD"), "{answer}");
    let answer = exchange(address, b"OPTIONS /things/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "204", "{answer}");
}

#[tokio::test]
async fn head_is_answered_by_get_without_its_body() {
    let gateway = gateway(|_| {}).await;
    let hello = handler(|_| async {
        let mut response = Response::new(Body::from("hello"));
        response.headers_mut().insert("content-length", "5".parse().unwrap());
        Some(response)
    });
    let _stub = Plan::new(&[("GET", "/hello")]).join(&gateway, hello).await;
    let address = gateway.http_addr().unwrap();
    let answer = exchange(address, b"HEAD /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_meets_the_deadline_and_is_cancelled() {
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let cancelled = Arc::new(Notify::new());
    let told = Arc::clone(&cancelled);
    let slow = handler(move |_| {
        struct Told(Arc<Notify>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let told = Told(Arc::clone(&told));
        async move {
            let _told = told;
            std::future::pending().await
        }
    });
    let _stub = Plan::new(&[("GET", "/slow")]).join(&gateway, slow).await;
    let begun = tokio::time::Instant::now();
    let answer = clients.get("/slow", "X-Request-Timeout-Ms: 200\r\n").await;
    assert_eq!(begun.elapsed().as_millis(), 200);
    assert_problem(&answer, "504", "deadline_exceeded");
    cancelled.notified().await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let gateway = gateway(|_| {}).await;
    let (begun, cancelled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, ends) = (Arc::clone(&begun), Arc::clone(&cancelled));
    let slow = handler(move |request: Request<Body>| {
        let cancellation = request.extensions().get::<router_link::RequestContext>().unwrap().cancellation().clone();
        begins.notify_one();
        let ends = Arc::clone(&ends);
        tokio::spawn(async move {
            cancellation.cancelled().await;
            ends.notify_one();
        });
        std::future::pending()
    });
    let _stub = Plan::new(&[("GET", "/slow")]).join(&gateway, slow).await;
    let mut client = TcpStream::connect(gateway.http_addr().unwrap()).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begun.notified().await;
    drop(client);
    cancelled.notified().await;
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_before_and_while_they_are_read() {
    let gateway = gateway(|config| config.limits.max_request_bytes_per_call = "64KiB".parse().unwrap()).await;
    let reads = handler(|request: Request<Body>| async move {
        let read = request.into_body().collect().await.ok()?;
        Some(Response::new(Body::from(read.to_bytes())))
    });
    let _stub = Plan::new(&[("POST", "/in")]).join(&gateway, reads).await;
    let address = gateway.http_addr().unwrap();
    let answer = exchange(address, b"POST /in HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n").await;
    assert_problem(&answer, "413", "payload_too_large");
    let mut chunked = b"POST /in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(format!("{:x}\r\n{}\r\n", 5000, "x".repeat(5000)).as_bytes());
    }
    let answer = exchange(address, &chunked).await;
    assert_problem(&answer, "413", "payload_too_large");
    assert_eq!(gateway.inflight_bytes(), 0);
}

#[tokio::test]
async fn a_failing_handler_and_a_lost_link_have_their_codes() {
    let gateway = Arc::new(gateway(|_| {}).await);
    let fails = handler(|_| async { None });
    let failing = Plan::new(&[("GET", "/fails")]).join(&gateway, fails).await;
    assert_problem(&get(&gateway, "/fails", "").await, "502", "service_failed");
    drop(failing);

    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let hangs = handler(move |_| {
        begins.notify_one();
        std::future::pending()
    });
    let plan = Plan { name: "other", id: "b", ..Plan::new(&[("GET", "/hangs")]) };
    let stub = plan.join(&gateway, hangs).await;
    let asking = Arc::clone(&gateway);
    let client = tokio::spawn(async move { get(&asking, "/hangs", "").await });
    begun.notified().await;
    drop(stub);
    assert_problem(&client.await.unwrap(), "502", "connection_lost");
    // The instance was lost, not withdrawn: an outage, not an absence (SPEC 5).
    assert_problem(&get(&gateway, "/hangs", "").await, "503", "no_instance");
}

#[tokio::test]
async fn a_response_cut_short_is_not_presented_as_complete() {
    let gateway = gateway(|_| {}).await;
    let go = Arc::new(Notify::new());
    let goes = Arc::clone(&go);
    let cut = handler(move |_| {
        let goes = Arc::clone(&goes);
        let half = futures_util::stream::once(async { Ok(http_body::Frame::data("half".into())) });
        let broken = futures_util::stream::once(async move {
            goes.notified().await;
            Err::<http_body::Frame<bytes::Bytes>, _>("broken")
        });
        let body = Body::stream(http_body_util::StreamBody::new(futures_util::StreamExt::chain(half, broken)));
        async { Some(Response::new(body)) }
    });
    let _stub = Plan::new(&[("GET", "/cut")]).join(&gateway, cut).await;
    let mut client = TcpStream::connect(gateway.http_addr().unwrap()).await.unwrap();
    client.write_all(b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"4\r\nhalf\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
    go.notify_one();
    let mut rest = Vec::new();
    // Closed or reset, but never ended.
    let _ = client.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn an_answer_that_breaks_behind_its_head_is_a_status() {
    let gateway = gateway(|_| {}).await;
    let broken = handler(|_| async {
        let broken = futures_util::stream::once(async { Err::<http_body::Frame<bytes::Bytes>, _>("broken") });
        Some(Response::new(Body::stream(http_body_util::StreamBody::new(broken))))
    });
    let _stub = Plan::new(&[("GET", "/broken")]).join(&gateway, broken).await;
    assert_problem(&get(&gateway, "/broken", "").await, "502", "service_failed");
}

#[tokio::test]
async fn the_admin_pages_tell_what_is_there() {
    let gateway = gateway(|_| {}).await;
    let _stub = Plan::new(&[("GET", "/things/{id}")]).join(&gateway, echo()).await;
    assert_eq!(status(&get(&gateway, "/things/1", "").await), "200");
    let admin = gateway.admin_addr().unwrap();
    let page = |path: &'static str| async move {
        exchange(admin, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await
    };
    for (path, expected) in [
        ("/livez", "live"),
        ("/readyz", "ready"),
        ("/routes", "\"/things/{id}\""),
        ("/instances", "\"stub\""),
        ("/connections", "in-memory"),
        ("/metrics", "stella_requests_total{service=\"stub\",route=\"/things/{id}\",method=\"GET\",status=\"200\"} 1"),
        ("/metrics", "stella_links 1"),
    ] {
        let answer = page(path).await;
        assert_eq!(status(&answer), "200", "{path}: {answer}");
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    assert_problem(&page("/nothing").await, "404", "route_not_found");
}

#[tokio::test]
async fn a_shutdown_lets_what_is_in_flight_finish() {
    let gateway = gateway(|_| {}).await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
    let waits = handler(move |_| {
        let (begins, goes) = (Arc::clone(&begins), Arc::clone(&goes));
        async move {
            begins.notify_one();
            goes.notified().await;
            Some(Response::new(Body::from("finished")))
        }
    });
    let _stub = Plan::new(&[("GET", "/wait")]).join(&gateway, waits).await;
    let mut client = TcpStream::connect(gateway.http_addr().unwrap()).await.unwrap();
    client.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    begun.notified().await;
    let stopping = tokio::spawn(gateway.shutdown());
    go.notify_one();
    let (_, body) = read_response(&mut client).await;
    assert_eq!(body, b"finished");
    stopping.await.unwrap();
}

#[tokio::test]
async fn several_workers_share_the_port_and_the_links() {
    let workers = router_gateway::workers::Workers::start(2).unwrap();
    let gateway = gateway_on(workers.handles(), |_| {}).await;
    let one = Plan::new(&[("GET", "/who")]);
    let two = Plan { id: "b", ..Plan::new(&[("GET", "/who")]) };
    let answer = |name: &'static str| handler(move |_| async move { Some(Response::new(Body::from(name))) });
    let _one = one.join(&gateway, answer("one")).await;
    let _two = two.join(&gateway, answer("two")).await;
    for _ in 0..20 {
        assert_eq!(status(&get(&gateway, "/who", "").await), "200");
    }
    gateway.shutdown().await;
    workers.stop();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_get_on_is_timed_out() {
    let (gateway, clients) = gateway_in_memory(|config| config.http.body_idle_timeout = "5s".parse().unwrap()).await;
    let reads = handler(|request: Request<Body>| async move {
        request.into_body().collect().await.ok()?;
        Some(Response::new(Body::empty()))
    });
    let _stub = Plan::new(&[("POST", "/in")]).join(&gateway, reads).await;
    let request = b"POST /in HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    let answer = clients.exchange(request).await;
    assert_problem(&answer, "408", "request_timeout");
    assert_eq!(gateway.inflight_bytes(), 0);
}

#[tokio::test]
async fn what_is_idempotent_is_sent_again_and_what_is_not_is_not() {
    // By turn, so that both are asked, however their round trips differ.
    let gateway = gateway(|config| config.routing.strategy = Strategy::RoundRobin).await;
    let plan = |id| {
        let mut plan = Plan { id, ..Plan::new(&[("GET", "/again"), ("GET", "/once")]) };
        plan.endpoints[0].idempotent = true;
        plan
    };
    let fails = handler(|_| async { None });
    let works = handler(|_| async { Some(Response::new(Body::from("done"))) });
    let _failing = plan("a").join(&gateway, fails).await;
    let _working = plan("b").join(&gateway, works).await;
    let mut once = Vec::new();
    for _ in 0..6 {
        assert_eq!(status(&get(&gateway, "/again", "").await), "200");
        once.push(status(&get(&gateway, "/once", "").await).to_owned());
    }
    assert!(once.contains(&"502".to_owned()), "{once:?}");
}

#[tokio::test]
async fn a_service_asks_another_through_the_gateway_but_not_in_a_circle() {
    let gateway = gateway(|_| {}).await;
    let stub = Plan::new(&[("GET", "/inner/{x}")]).join(&gateway, echo()).await;
    let ask = |path: &str, hops| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        stub.handle.call(request, router_link::Call { hops, ..router_link::Call::default() })
    };
    let response = ask("/inner/1", 0).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-target"], "/inner/1");
    let response = ask("/outer", 0).await.unwrap();
    assert_eq!(response.status(), 404);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("\"code\":\"route_not_found\""));
    assert_eq!(ask("/inner/1", 16).await.unwrap().status(), 508);
}

#[tokio::test]
async fn the_admin_token_is_asked_for() {
    use router_config::router::AdminAccess;
    let gateway =
        gateway(|config| config.admin.access = AdminAccess::Token(router_config::SecretRef::literal("letmein"))).await;
    let admin = gateway.admin_addr().unwrap();
    let page = |authorization: &'static str| async move {
        let request = format!("GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{authorization}\r\n");
        exchange(admin, request.as_bytes()).await
    };
    let answer = page("").await;
    assert_problem(&answer, "401", "unauthenticated");
    assert!(answer.contains("\r\nwww-authenticate: Bearer"), "{answer}");
    assert_problem(&page("Authorization: Bearer wrong\r\n").await, "403", "forbidden");
    assert_eq!(status(&page("Authorization: Bearer letmein\r\n").await), "200");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let gateway = gateway(|_| {}).await;
    let mirror = handler(|request: Request<Body>| async move {
        let collected = request.into_body().collect().await.ok()?;
        let sum = collected.trailers()?.get("x-sum")?.clone();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", sum);
        let frames = [
            Ok::<_, std::convert::Infallible>(http_body::Frame::data(collected.to_bytes())),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let mut response = Response::new(Body::stream(body));
        response.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        Some(response)
    });
    let _stub = Plan::new(&[("POST", "/sum")]).join(&gateway, mirror).await;
    let request = b"POST /sum HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nConnection: close, TE\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n";
    let answer = exchange(gateway.http_addr().unwrap(), request).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.contains("abc\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
}
