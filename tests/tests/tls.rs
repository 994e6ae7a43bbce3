//! Services over TLS, from their configuration to their answers: who may register what, and certificates that change while
//! requests go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use integration_tests::client::Client;
use integration_tests::services::one;
use integration_tests::{eventually, within};
use microservice_sdk::{Microservice, Running, StartError};
use router_common::frame::CloseCode;
use router_config::Sources;
use router_gateway::Gateway;
use router_gateway::settings::{Settings, listen, listen_with};
use router_gateway::sockets::{Purpose, Sockets};
use tempfile::TempDir;
use transport_tls::development::{DevelopmentCa, DevelopmentCertificate};

const SECRET: &str = "a secret that both ends know, 32 bytes or more";
const TOKEN: &str = "a-token-that-its-bearer-shows-32-bytes-or-more";

/// Files of one test, and the CA that has signed them.
struct Files {
    folder: TempDir,
    authority: DevelopmentCa,
}

impl Files {
    fn new() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), DevelopmentCa::new().unwrap());
        let files = Self { folder, authority };
        files.write("ca.pem", files.authority.certificate());
        files.put("gateway", &files.authority.gateway(&["127.0.0.1"]).unwrap());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn put(&self, name: &str, certificate: &DevelopmentCertificate) {
        self.write(&format!("{name}.pem"), &certificate.certificate);
        self.write(&format!("{name}.key"), &certificate.key);
    }

    /// The section `transports.tls`, with whatever else stands in it.
    fn settings(&self, more: &str, rest: &str) -> Settings {
        let file = |name: &str| self.path(name).display().to_string();
        let yaml = format!(
            "transports:\n  tls:\n    listen: 127.0.0.1:0\n    certificate: {}\n    key: {}\n    client_ca: {}\n{more}\n{rest}",
            file("gateway.pem"),
            file("gateway.key"),
            file("ca.pem")
        );
        let fixed = ["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "shutdown.idle_linger=0s"];
        let sources = Sources::router().text("router.yaml", &yaml).overrides(fixed.map(str::to_owned));
        router_config::load(sources).unwrap_or_else(|error| panic!("{error}"))
    }

    fn certified(&self, service: Microservice, gateway: &Gateway, uri: &str) -> Microservice {
        self.put("service", &self.authority.service(uri).unwrap());
        self.dialling(service, gateway).certificate(self.path("service.pem"), self.path("service.key"))
    }

    fn dialling(&self, service: Microservice, gateway: &Gateway) -> Microservice {
        service.gateway(gateway.service_listeners()[0].clone()).ca(self.path("ca.pem"))
    }
}

async fn gateway(settings: &Settings) -> Gateway {
    let listeners = listen(settings).unwrap();
    let builder = listeners.into_iter().fold(Gateway::builder(settings), |builder, one| builder.services(one));
    builder.start().await.unwrap()
}

async fn joined(service: Microservice) -> Result<Running, StartError> {
    let mut running = service.start()?;
    within("the service is ready", running.ready()).await?;
    Ok(running)
}

fn client(gateway: &Gateway) -> Client {
    Client::http1(gateway.http_addr().unwrap())
}

#[tokio::test]
async fn certificates_tokens_and_secrets_register_what_they_may_and_nothing_else() {
    let files = Files::new();
    let more = format!(
        "    client_certificate: optional\n    tokens: {{ team-t: {TOKEN} }}\n    shared_secret: {{ team-s: \"{SECRET}\" }}"
    );
    let rest = "services:\n  by-certificate: { identities: [\"spiffe://acme/orders\"], path_prefixes: [/by-certificate] }\n  \
                by-token: { identities: [\"token:team-t\"] }\n  by-secret: { identities: [\"key:team-s\"] }\n";
    let gateway = gateway(&files.settings(&more, rest)).await;
    let named = |name: &str| one(name, "1.0.0", &format!("/{name}"), "it is me");
    let yaml = |service: Microservice| {
        let config = format!(
            "gateways: [{{ url: \"{}\", ca: {}, shared_secret: \"{SECRET}\", key_id: team-s }}]",
            gateway.service_listeners()[0],
            files.path("ca.pem").display()
        );
        let sources = Sources::microservice().text("microservice.yaml", &config);
        service.config(router_config::load(sources).unwrap_or_else(|error| panic!("{error}")))
    };
    let by = |way: &str, name: &str| match way {
        "certificate" => files.certified(named(name), &gateway, "spiffe://acme/orders"),
        "token" => files.dialling(named(name), &gateway).token(TOKEN),
        _ => yaml(named(name)),
    };
    for way in ["certificate", "token", "secret"] {
        for name in ["by-certificate", "by-token", "by-secret"] {
            let joined = joined(by(way, name)).await;
            let answer = client(&gateway).get(&format!("/{name}")).await;
            if name == format!("by-{way}") {
                let running = joined.unwrap_or_else(|error| panic!("{way}: {error}"));
                assert_eq!(answer.body, "it is me");
                running.shutdown().await.unwrap();
            } else {
                let Err(StartError::NotLetIn { code, text, .. }) = joined else { panic!("{way} as {name}") };
                assert_eq!(code, CloseCode::Forbidden, "{text}");
                assert_ne!(answer.status, StatusCode::OK);
            }
        }
    }
    // A path beyond its prefixes is refused by name.
    let beyond = one("by-certificate", "1.0.0", "/elsewhere", "");
    let refused = joined(files.certified(beyond, &gateway, "spiffe://acme/orders")).await.unwrap_err();
    assert!(
        matches!(&refused, StartError::Refused { refusals, .. } if refusals[0].contains("/elsewhere")),
        "{refused}"
    );
    // Wrong ones, and none.
    let cases: [(Microservice, &str); 3] = [
        (files.dialling(named("x"), &gateway).token("another-token"), "the token is none of those"),
        (
            files.dialling(named("x"), &gateway).shared_secret(SECRET),
            "the proof fits no shared secret with key id `default`",
        ),
        (files.dialling(named("x"), &gateway), "this gateway asks for a shared secret"),
    ];
    for (service, told) in cases {
        let Err(StartError::NotLetIn { code, text, .. }) = joined(service).await else { panic!("{told}") };
        assert_eq!(code, CloseCode::Unauthenticated);
        assert!(text.contains(told), "{text}");
    }
}

#[tokio::test]
async fn what_a_service_is_told_wrongly_is_said_before_it_dials() {
    let files = Files::new();
    files.put("service", &files.authority.service("spiffe://acme/orders").unwrap());
    let url = "tls://127.0.0.1:5101";
    let service = || one("orders", "1.0.0", "/orders", "").gateway(url);
    let missing = files.path("missing.pem");
    let cases: [(Microservice, String); 6] = [
        (service(), "name the CA".into()),
        (service().ca(&missing), format!("{}: cannot be read", missing.display())),
        (
            service().ca(files.path("ca.pem")).certificate(files.path("service.pem"), files.path("gateway.key")),
            "is not that of".into(),
        ),
        (service().ca(files.path("ca.pem")).token("a b"), "a token is made of visible ASCII".into()),
        (service().ca(files.path("ca.pem")).token(TOKEN).shared_secret(SECRET), "one of them is enough".into()),
        (one("orders", "1.0.0", "/o", "").gateway("tcp://127.0.0.1:5100").token(TOKEN), "over TLS alone".into()),
    ];
    for (service, told) in cases {
        let error = service.start().expect_err("a mistake").to_string();
        assert!(error.contains(&told), "{error}");
    }
    let error = one("orders", "1.0.0", "/o", "").gateway("tcp://127.0.0.1:5100").ca("ca.pem").start().err().unwrap();
    assert!(error.to_string().contains("`ca` is about TLS, and over `tcp://` there is none"), "{error}");
}

/// Asks without a pause, and keeps what did not succeed.
async fn under_load(client: Client, stop: Arc<AtomicBool>) -> (u64, Vec<StatusCode>) {
    let (mut sent, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("/orders").await;
        sent += 1;
        if answer.status != StatusCode::OK {
            failed.push(answer.status);
        }
    }
    (sent, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_exchanged_under_load_and_no_request_notices() {
    let files = Files::new();
    let gateway = gateway(&files.settings("    client_certificate: required", "")).await;
    let orders = || one("orders", "1.0.0", "/orders", "it is me");
    let first = joined(files.certified(orders(), &gateway, "spiffe://acme/first").links(2)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(under_load(client(&gateway), Arc::clone(&stop)));

    // A key that is not the certificate's: refused, and the last good ones go on being shown.
    files.write("gateway.key", &files.authority.gateway(&["127.0.0.1"]).unwrap().key);
    gateway.renew_certificates().await;
    let second = joined(files.certified(orders(), &gateway, "spiffe://acme/second")).await.unwrap();

    // Another CA altogether: who dials now has to know it, and who is connected stays.
    let authority = DevelopmentCa::new().unwrap();
    files.put("gateway", &authority.gateway(&["127.0.0.1"]).unwrap());
    files.write("ca.pem", authority.certificate());
    gateway.renew_certificates().await;
    let files = Files { authority, ..files };
    let third = joined(files.certified(orders(), &gateway, "spiffe://acme/third")).await.unwrap();
    let metrics = Client::http1(gateway.admin_addr().unwrap()).get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in ["stella_tls_reloads_total{outcome=\"renewed\"} 1", "stella_tls_reloads_total{outcome=\"refused\"} 1"] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let instances = Client::http1(gateway.admin_addr().unwrap()).get("/instances").await.json();
    assert_eq!(instances.as_array().map(Vec::len), Some(3), "{instances}");

    stop.store(true, Ordering::Relaxed);
    let (sent, failed) = within("the load ends", load).await.unwrap();
    println!("certificates exchanged under load: {sent} requests, failed: {failed:?}");
    assert!(sent > 0 && failed.is_empty(), "{sent} {failed:?}");
    for running in [first, second, third] {
        running.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_service_that_is_not_believed_dials_on_and_comes_in_when_it_is() {
    let files = Files::new();
    let gateway = gateway(&files.settings("    client_certificate: required\n    reload_interval: 10ms", "")).await;
    let elsewhere = DevelopmentCa::new().unwrap();
    files.put("service", &elsewhere.service("spiffe://acme/orders").unwrap());
    let service = files.dialling(one("orders", "1.0.0", "/orders", "it is me"), &gateway);
    let mut running = service.certificate(files.path("service.pem"), files.path("service.key")).start().unwrap();
    let client = client(&gateway);
    let admin = Client::http1(gateway.admin_addr().unwrap());
    eventually("the gateway has refused it", async || {
        let metrics = admin.get("/metrics").await;
        !String::from_utf8_lossy(&metrics.body).contains("stella_tls_handshakes_total{outcome=\"failed\"} 0")
    })
    .await;
    let both = format!("{}{}", files.authority.certificate(), elsewhere.certificate());
    // The service believes the gateway by the same file; that it grows changes nothing for it.
    files.write("ca.pem", &both);
    within("the service is ready", running.ready()).await.unwrap();
    eventually("it answers", async || client.get("/orders").await.body == "it is me").await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_listening_socket_of_an_earlier_process_is_listened_with() {
    let files = Files::new();
    let settings = files.settings("    client_certificate: required", "");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut sockets = Sockets::default();
    sockets.add(Purpose::Tls, socket, None);
    let listeners = listen_with(&settings, &mut sockets).unwrap();
    assert!(sockets.is_empty());
    assert_eq!(listeners[0].listener.local(), format!("tls://{address}"));
    let kept = listeners[0].socket.as_ref().unwrap();
    assert_eq!(kept.iter().next().and_then(|(purpose, ..)| purpose), Some(Purpose::Tls));
    assert_eq!(Purpose::named("tls"), Some(Purpose::Tls));

    // One that others can reach is not, where nobody has to say who it is.
    let open = files.settings("    client_certificate: optional", "");
    let mut sockets = Sockets::default();
    sockets.add(Purpose::Tls, std::net::TcpListener::bind("0.0.0.0:0").unwrap(), None);
    let error = listen_with(&open, &mut sockets).unwrap_err().to_string();
    assert!(error.contains("without authentication"), "{error}");
}

#[test]
fn a_listener_that_others_can_reach_asks_who_comes() {
    let load = |more: &str| {
        let yaml = format!(
            "transports: {{ tls: {{ listen: \"0.0.0.0:5101\", certificate: a.pem, key: a.key, client_ca: ca.pem, {more} }} }}"
        );
        router_config::load::<Settings>(Sources::router().text("router.yaml", &yaml))
            .map(drop)
            .map_err(|e| e.to_string())
    };
    for guarded in [
        "client_certificate: required",
        "client_certificate: optional, tokens: { a: env:T }",
        "client_certificate: optional, shared_secret: env:S",
        "client_certificate: optional, insecure: true",
    ] {
        assert_eq!(load(guarded), Ok(()), "{guarded}");
    }
    let error = load("client_certificate: optional").unwrap_err();
    assert!(error.contains("client_certificate: required") && error.contains("insecure: true"), "{error}");
    for (bad, told) in [
        ("client_certificate: none", "a CA is named, and no certificate is asked for"),
        ("client_certificate: required, identities: [{ name: orders }]", "which is no URI"),
        ("client_certificate: required, handshake_timeout: 11s", "at most 10s"),
        ("client_certificate: required, max_handshakes: 0", "max_handshakes"),
        ("client_certificate: required, minimum_version: tls1.1", "tls1.2"),
        ("client_certificate: always", "required"),
    ] {
        let error = load(bad).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn wrong_certificates_are_found_without_listening() {
    let files = Files::new();
    let settings = files.settings("    client_certificate: required", "");
    let check = || router_gateway::settings::check_secrets(&settings.transports);
    assert!(check().is_ok());
    files.write("gateway.key", &files.authority.gateway(&["127.0.0.1"]).unwrap().key);
    let error = check().unwrap_err();
    assert!(error.is_of_the_configuration() && error.to_string().starts_with("transports.tls: "), "{error}");
    std::fs::remove_file(files.path("gateway.key")).unwrap();
    let error = check().unwrap_err();
    assert!(!error.is_of_the_configuration() && error.to_string().contains("gateway.key: cannot be read"), "{error}");
}
