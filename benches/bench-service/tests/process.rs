//! The program itself: says when it is ready, is there as many times as it was asked to, and leaves in good order.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use router_config::Sources;
use router_gateway::Gateway;
use router_gateway::settings::{Settings, listen};
use transport_tls::development::DevelopmentCa;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret that both ends know, 32 bytes or more";
const TOKEN: &str = "a-token-that-its-bearer-shows-32-bytes-or-more";

async fn gateway() -> (Gateway, String) {
    let yaml = format!("transports: {{ tcp: {{ listen: \"127.0.0.1:0\", shared_secret: \"{SECRET}\" }} }}");
    let sources = Sources::router().text("router.yaml", yaml).overrides(["http.listen=127.0.0.1:0"]);
    let settings: Settings = router_config::load(sources).unwrap_or_else(|error| panic!("{error}"));
    let listeners = listen(&settings).unwrap();
    let builder = listeners.into_iter().fold(Gateway::builder(&settings).without_admin(), |b, l| b.services(l));
    let gateway = builder.start().await.unwrap();
    let url = gateway.service_listeners().iter().find(|url| url.starts_with("tcp://")).unwrap().clone();
    (gateway, url)
}

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_bench-service"));
    program.args(arguments).env("BENCH_SECRET", SECRET).env("RUST_LOG", "warn").stdout(Stdio::piped());
    program
}

/// Kills a program that a failing test leaves behind.
struct Leftover(Child);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something that another program does.
async fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.unwrap(),
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

#[tokio::test]
async fn instances_join_every_gateway_and_leave_on_sigterm() {
    let (first, second) = (gateway().await, gateway().await);
    let arguments = [
        "--gateway",
        &first.1,
        "--gateway",
        &second.1,
        "--secret",
        "env:BENCH_SECRET",
        "--links",
        "2",
        "--threads",
        "1",
        "--name",
        "measured",
        "--version",
        "1.2.3",
        "--region",
        "eu-west",
        "--instance-id",
        "m",
        "--instances",
        "2",
        "--endpoints",
        "3",
        "--lease",
        "100",
    ];
    let mut process = Leftover(program(&arguments).spawn().unwrap());
    let mut output = BufReader::new(process.0.stdout.take().unwrap());
    let line = within("the ready line", move || {
        let mut line = String::new();
        output.read_line(&mut line).map(|_| line)
    });
    assert_eq!(line.await.unwrap(), "ready: measured 1.2.3, instances: 2, gateways: 2\n");
    for (gateway, _) in [&first, &second] {
        let table = gateway.registry().snapshot();
        let [service] = table.services() else { panic!("{table:?}") };
        let [version] = &service.versions[..] else { panic!("{service:?}") };
        let ids: Vec<_> = version.candidates.iter().map(|c| c.instance.instance().id.to_string()).collect();
        assert_eq!((version.version.to_string().as_str(), &ids[..]), ("1.2.3", &["m-1".to_owned(), "m-2".into()][..]));
        assert_eq!(version.candidates[0].instance.instance().region.as_str(), "eu-west");
        assert_eq!(version.candidates[0].instance.lease().limit(), 50, "the bound, divided by the gateways");
        assert_eq!(table.shape().len(), 7 + 6 + 3);
    }
    let id = process.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    assert!(within("its end", move || process.0.wait().unwrap()).await.success());
    for (gateway, _) in [first, second] {
        // Its end is read by the gateway a little after it has come, and shares a publication with what else has changed.
        let gone = async {
            while !gateway.registry().snapshot().services().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("its instances are still listed");
    }
}

#[tokio::test]
async fn what_does_not_work_is_told_in_a_line() {
    let (_gateway, url) = gateway().await;
    let run = |arguments: &[&str]| {
        let mut program = program(arguments);
        program.stderr(Stdio::piped());
        within("its end", move || -> Output { program.output().unwrap() })
    };
    let refused = run(&["--gateway", &url]).await;
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("error: ") && text.contains("unauthenticated"), "{text}");
    let refused = run(&["--gateway", &url, "--secret", "env:NOT_SET_ANYWHERE"]).await;
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("NOT_SET_ANYWHERE is not set"), "{text}");
}

#[tokio::test]
async fn it_joins_over_tls_with_a_certificate_or_a_token() {
    let (files, authority) = (tempfile::tempdir().unwrap(), DevelopmentCa::new().unwrap());
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (own, service) =
        (authority.gateway(&["localhost"]).unwrap(), authority.service("spiffe://bench/service").unwrap());
    for (name, text) in [
        ("ca.pem", authority.certificate()),
        ("gateway.pem", &own.certificate),
        ("gateway.key", &own.key),
        ("service.pem", &service.certificate),
        ("service.key", &service.key),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let yaml = format!(
        "transports: {{ tls: {{ listen: \"127.0.0.1:0\", certificate: {}, key: {}, client_ca: {}, client_certificate: optional, \
         tokens: {{ team-a: {TOKEN} }} }} }}",
        path("gateway.pem"),
        path("gateway.key"),
        path("ca.pem")
    );
    let sources = Sources::router().text("router.yaml", yaml).overrides(["http.listen=127.0.0.1:0"]);
    let settings: Settings = router_config::load(sources).unwrap_or_else(|error| panic!("{error}"));
    let listeners = listen(&settings).unwrap();
    let builder = listeners.into_iter().fold(Gateway::builder(&settings).without_admin(), |b, l| b.services(l));
    let gateway = builder.start().await.unwrap();
    let url = gateway.service_listeners()[0].replace("127.0.0.1", "localhost");
    let (ca, certificate, key) = (path("ca.pem"), path("service.pem"), path("service.key"));
    let ways: [&[&str]; 2] = [&["--certificate", &certificate, "--key", &key], &["--token", "env:BENCH_TOKEN"]];
    for way in ways {
        let arguments = [&["--gateway", &url, "--ca", &ca, "--links", "2"], way].concat();
        let mut process = Leftover(program(&arguments).env("BENCH_TOKEN", TOKEN).spawn().unwrap());
        let mut output = BufReader::new(process.0.stdout.take().unwrap());
        let line = within("the ready line", move || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| line)
        });
        assert_eq!(line.await.unwrap(), "ready: bench 1.0.0, instances: 1, gateways: 1\n");
    }
    let mut program = program(&["--gateway", &url, "--ca", &path("missing.pem")]);
    program.stderr(Stdio::piped());
    let refused = within("its end", move || -> Output { program.output().unwrap() }).await;
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("missing.pem: cannot be read"), "{text}");
}
