//! What the log tells operators of an instance's health.

use super::*;

/// What is logged while `act` runs, on this thread.
fn logged(act: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
    tracing::subscriber::with_default(subscriber.with_writer(move || writer.clone()).finish(), act);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn operators_are_told_of_each_change_of_health_once() {
    let world = World::new();
    let link = world.serve("orders@1.0.0/a", &["GET /orders"]);
    let heartbeat = |status| world.event(&link, ConnectionEvent::Heartbeat { status, in_flight: 0, load: 0 });
    let lines = logged(|| {
        heartbeat(HealthStatus::Healthy);
        for _ in 0..2 {
            world.event(&link, ConnectionEvent::Silence(Silence::Degraded));
        }
        assert!(world.registry.instances(world.now)[0].silent);
        world.event(&link, ConnectionEvent::Silence(Silence::Heard));
        for status in [HealthStatus::Unhealthy, HealthStatus::Degraded, HealthStatus::Healthy] {
            heartbeat(status);
            heartbeat(status);
        }
        world.close(&link, ClosedBy::Local, CloseCode::HeartbeatTimeout);
    });
    let told: Vec<&str> = lines.iter().map(|line| line.split(" instance=").next().unwrap()).collect();
    assert_eq!(
        told,
        [
            "WARN instance degraded: nothing is heard of it",
            "INFO instance healthy again",
            "WARN instance gets no requests: it says so itself",
            "WARN instance degraded: it says so itself",
            "INFO instance healthy again",
            "WARN instance lost",
        ]
    );
    assert!(lines[5].contains("heartbeat_timeout"), "{}", lines[5]);
}
