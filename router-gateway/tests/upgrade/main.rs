//! Gateways that end, and others that take their place: whole processes, under clients who notice everything.

mod carriers;
mod clients;
mod process;

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use microservice_sdk::{Microservice, Path, Running, State, endpoint, endpoints};
use tokio::sync::Semaphore;

use self::clients::{Clients, Connection};
use self::process::{Gateway, Proxy, Scene};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that is certain to come.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

#[endpoint(GET, "/quick/{name}")]
async fn quick(Path(name): Path<String>) -> String {
    name
}

#[endpoint(GET, "/let-go")]
async fn let_go(State(go): State<Arc<Semaphore>>) -> &'static str {
    // Nobody closes it.
    let _permit = go.acquire().await;
    "let go"
}

async fn join(gateway: &Gateway, id: &str, go: &Arc<Semaphore>) -> Running {
    join_at(&gateway.tcp(), gateway, id, go).await
}

async fn join_at(url: &str, gateway: &Gateway, id: &str, go: &Arc<Semaphore>) -> Running {
    ready(service(id, go).gateway(url), gateway).await
}

fn service(id: &str, go: &Arc<Semaphore>) -> Microservice<Arc<Semaphore>> {
    let service = Microservice::new("quick", "1.0.0").instance_id(id).state(Arc::clone(go));
    service.endpoints(endpoints![quick, let_go])
}

async fn ready(service: Microservice<Arc<Semaphore>>, gateway: &Gateway) -> Running {
    let mut running = service.start().unwrap();
    within("the service is ready", running.ready()).await.unwrap();
    // A further link may have told it so a moment before the first table that has its endpoints.
    within("its endpoints are there", async {
        while Connection::open(gateway.http()).await.ask("/quick/there").await.unwrap().status != 200 {}
    })
    .await;
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_under_load_loses_nothing_and_can_be_done_again() {
    let scene = Scene::new("node: { workers: 2 }");
    let mut old = Gateway::serve(&scene, &[]);
    let http = old.http();
    let go = Arc::new(Semaphore::new(0));
    let _services = (join(&old, "a", &go).await, join(&old, "b", &go).await);
    let mut slow = Connection::open(http).await;
    slow.send("/let-go").await;
    let mut idle = Connection::open(http).await;
    idle.ask("/quick/idle").await.unwrap();

    let clients = Clients::start(http, 8, 4);
    clients.have_asked(1000).await;
    // With fewer workers than sockets, and then with more than sockets were ever bound.
    for workers in ["1", "3"] {
        let arguments = ["--take-over", "--set", &format!("node.workers={workers}")];
        let new = Gateway::serve(&scene, &arguments);
        assert_eq!(new.http(), http);
        clients.have_asked(1000).await;
        if let Some(asked) = Some(&mut idle).filter(|_| workers == "1") {
            let answer = asked.ask("/quick/once-more").await.unwrap();
            assert!(answer.is_last && answer.body == "once-more", "{answer:?}");
            // What is in flight in the old process ends there.
            go.add_permits(1);
            let answer = slow.answer().await.unwrap();
            assert!(answer.body == "let go" && answer.is_last, "{answer:?}");
        }
        assert!(old.ended().await.success());
        clients.have_asked(1000).await;
        old = new;
    }
    clients.stop().await;
    old.terminate();
    assert!(old.ended().await.success());
    assert!(!scene.socket().exists(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_dies_on_its_way_changes_nothing() {
    let scene = Scene::new("node: { workers: 2 }\nupgrade: { wait: 60s }");
    let old = Gateway::serve(&scene, &[]);
    let go = Arc::new(Semaphore::new(0));
    let _free = join(&old, "free", &go).await;
    // One that cannot come over: its way to the gateway is closed to new links.
    let proxy = Proxy::start(&old.tcp()).await;
    let _bound = join_at(&proxy.url, &old, "bound", &go).await;
    proxy.close();
    let clients = Clients::start(old.http(), 8, 4);
    clients.have_asked(500).await;

    let mut new = Gateway::start(&scene, &["--take-over"]);
    new.says("waiting for the old process's services").await;
    clients.have_asked(500).await;
    new.kill();
    new.ended().await;
    old.says("did not serve; services may come back").await;
    clients.have_asked(500).await;

    // The next one is not disturbed by what has been.
    proxy.open();
    let new = Gateway::serve(&scene, &["--take-over"]);
    let mut old = old;
    assert!(old.ended().await.success());
    clients.have_asked(500).await;
    clients.stop().await;
    drop(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_ask_for_the_place_does_not_get_it() {
    let scene = Scene::new("");
    let old = Gateway::serve(&scene, &[]);
    let mut second = Gateway::start(&scene, &[]);
    second.says("start with `--take-over`").await;
    assert_eq!(second.ended().await.code(), Some(1));
    // One that cannot start leaves the old one as it is.
    let mut broken = Gateway::start(&scene, &["--take-over", "--set", "admin.listen=192.0.2.1:1"]);
    assert_eq!(broken.ended().await.code(), Some(1));
    old.says("serving on").await;
    let go = Arc::new(Semaphore::new(0));
    let _service = join(&old, "a", &go).await;
    assert_eq!(Connection::open(old.http()).await.ask("/quick/x").await.unwrap().body, "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_sigterm_an_idle_client_is_answered_once_more() {
    let scene = Scene::new("shutdown: { idle_linger: 20s }");
    let mut gateway = Gateway::serve(&scene, &[]);
    let go = Arc::new(Semaphore::new(0));
    let _service = join(&gateway, "a", &go).await;
    let mut idle = Connection::open(gateway.http()).await;
    let answer = idle.ask("/quick/before").await.unwrap();
    assert!(!answer.is_last, "{answer:?}");
    gateway.terminate();
    gateway.says("stopping").await;
    // It says so before it begins.
    loop {
        let answer = idle.ask("/quick/after").await.unwrap();
        assert_eq!(answer.body, "after", "{answer:?}");
        if answer.is_last {
            break;
        }
    }
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_ask_for_the_drain() {
    let scene = Scene::new("");
    let mut gateway = Gateway::serve(&scene, &[]);
    let mut admin = Connection::open(gateway.admin()).await;
    assert_eq!(admin.ask("/drain").await.unwrap().status, 405);
    admin.send_as("POST", "/drain").await;
    assert_eq!(admin.answer().await.unwrap().status, 202);
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_a_service_manager_outlive_the_gateway() {
    let scene = Scene::new("node: { workers: 2 }");
    let manager = UnixDatagram::bind(scene.file("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, tcp) = (listen(), listen());
    let (http_address, tcp_address) = (http.local_addr().unwrap(), tcp.local_addr().unwrap());
    let go = Arc::new(Semaphore::new(0));
    let mut gateway = Gateway::activated(&scene, &http, &tcp);
    assert_eq!((gateway.http(), gateway.tcp()), (http_address, format!("tcp://{tcp_address}")));
    let _service = join(&gateway, "a", &go).await;
    assert_eq!(Connection::open(http_address).await.ask("/quick/x").await.unwrap().body, "x");
    let mut said = [0; 256];
    let length = manager.recv(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..length]).into_owned();
    assert_eq!(said, format!("MAINPID={}\nREADY=1", gateway.pid()));

    gateway.terminate();
    assert!(gateway.ended().await.success());
    let mut said = [0; 256];
    let length = manager.recv(&mut said).unwrap();
    assert_eq!(&said[..length], b"STOPPING=1");
    // Whoever comes while there is no gateway waits for the next one.
    let mut early = Connection::open(http_address).await;
    early.send("/quick/early").await;
    let again = Gateway::activated(&scene, &http, &tcp);
    assert_eq!(again.http(), http_address);
    // It may be before the service, which dials anew.
    let answer = early.answer().await.unwrap();
    assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
}
