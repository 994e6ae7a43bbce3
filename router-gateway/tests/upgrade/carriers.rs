//! Upgrades under load, while services are joined over something else than TCP.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::clients::{Clients, Connection};
use crate::process::{Gateway, Scene};
use crate::{ready, service};

/// Two processes take the place of the first, one after the other, under clients whose requests only these services answer.
async fn is_upgraded_without_loss(scene: &Scene, scheme: &str, ca: Option<&Path>) {
    let mut old = Gateway::serve(scene, &[]);
    let (http, url) = (old.http(), old.joined_at(scheme).await);
    let go = Arc::new(Semaphore::new(0));
    let join = async |id| {
        let service = service(id, &go).gateway(&url);
        ready(if let Some(ca) = ca { service.ca(ca) } else { service }, &old).await
    };
    let _services = (join("a").await, join("b").await);
    let mut slow = Connection::open(http).await;
    slow.send("/let-go").await;

    let clients = Clients::start(http, 8, 4);
    clients.have_asked(1000).await;
    for _ in 0..2 {
        let new = Gateway::serve(scene, &["--take-over"]);
        assert_eq!((new.http(), new.joined_at(scheme).await), (http, url.clone()));
        clients.have_asked(1000).await;
        if go.available_permits() == 0 {
            // What is in flight in the old process ends there, though the new one has services.
            go.add_permits(1);
            let answer = slow.answer().await.unwrap();
            assert!(answer.body == "let go" && answer.is_last, "{answer:?}");
        }
        assert!(old.ended().await.success());
        clients.have_asked(1000).await;
        old = new;
    }
    clients.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_loses_nothing_of_services_over_tls() {
    let scene = Scene::new("");
    let folder = scene.certificates();
    let (certificate, key) = (folder.join("gateway.pem"), folder.join("gateway.key"));
    let tls = format!("{{ listen: '127.0.0.1:0', certificate: {certificate:?}, key: {key:?} }}");
    scene.configure(&format!("node: {{ workers: 2 }}\ntransports: {{ tls: {tls} }}"));
    is_upgraded_without_loss(&scene, "tls", Some(&folder.join("ca.pem"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_loses_nothing_of_services_over_udp() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let udp = format!("{{ listen: '{free}', insecure: true }}");
    let scene = Scene::new(&format!("node: {{ workers: 2 }}\ntransports: {{ udp: {udp} }}"));
    is_upgraded_without_loss(&scene, "udp", None).await;
}
