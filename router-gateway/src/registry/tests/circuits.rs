//! Who keeps failing is ejected for a while.

use super::*;
use crate::registry::views::CircuitState;
use crate::routing::instance::InstanceState;

/// What lists say of an instance's circuit: state, failures in a row, ejections in a row.
fn circuit(world: &World, id: &str) -> (CircuitState, u32, u32) {
    let views = world.registry.instances(world.now);
    let circuit = &views.iter().find(|view| view.id == id).unwrap().circuit;
    assert_eq!(circuit.ejected_for_seconds.is_some(), circuit.state == CircuitState::Open);
    (circuit.state, circuit.consecutive_failures, circuit.ejections)
}

#[test]
fn whoever_keeps_failing_is_ejected_for_a_while_but_never_the_last_one() {
    let mut world = World::new();
    let links = ["a", "b", "c"].map(|id| world.serve(&format!("orders@1.0.0/{id}"), &["GET /x"]));
    world.serve("orders@2.0.0-rc/d", &["GET /x"]);
    let state = |id: &str| {
        let table = world.registry.snapshot();
        let of_version = &table.services()[0].versions[0].candidates;
        let of_id = of_version.iter().find(|candidate| candidate.instance.instance().id.as_str() == id);
        of_id.unwrap().instance.clone()
    };
    let [a, b, c] = ["a", "b", "c"].map(state);
    let fail = |world: &World, state: &InstanceState, times: usize| {
        (0..times).filter(|_| world.registry.failed(state, world.now)).count()
    };
    assert_eq!(fail(&world, &a, 4), 0);
    a.succeeded();
    assert_eq!(fail(&world, &a, 4), 0, "not in a row");
    assert_eq!(fail(&world, &a, 1), 1);
    assert_eq!(circuit(&world, "a"), (CircuitState::Open, 5, 1));
    assert_eq!(fail(&world, &a, 20), 0, "only once");
    assert_eq!(fail(&world, &b, 20), 0, "one of three at once");
    assert!((0..6).all(|_| world.ask("GET /x", Some("1.0.0")).unwrap() != "a"));
    world.now += Duration::from_secs(29);
    world.registry.sweep(world.now);
    assert_eq!(circuit(&world, "a").0, CircuitState::Open);
    world.now += Duration::from_secs(1);
    world.registry.sweep(world.now);
    assert_eq!(circuit(&world, "a"), (CircuitState::Closed, 0, 1));
    assert!((0..3).any(|_| world.ask("GET /x", Some("1.0.0")).unwrap() == "a"));
    assert_eq!(fail(&world, &a, 5), 1);
    assert_eq!(circuit(&world, "a").2, 2, "the second in a row, and twice as long");
    world.now += Duration::from_secs(59);
    world.registry.sweep(world.now);
    assert_eq!(circuit(&world, "a").0, CircuitState::Open);
    // Of two that are left, one leaves and one is ejected: it serves, as there is nobody else.
    world.lose(&links[1]);
    world.lose(&links[2]);
    assert_eq!(world.ask("GET /x", Some("1.0.0")).unwrap(), "a");
    world.now += Duration::from_secs(1);
    world.registry.sweep(world.now);
    assert_eq!(fail(&world, &a, 20), 0, "the last one");
    assert_eq!(fail(&world, &c, 20), 0, "has left");
    assert_eq!(world.registry.books().ejected, []);
}

#[test]
fn who_is_ejected_and_leaves_is_forgotten() {
    let mut world = World::new();
    let links = ["a", "b"].map(|id| world.serve(&format!("orders@1.0.0/{id}"), &["GET /x"]));
    let state = world.registry.snapshot().services()[0].versions[0].candidates[0].instance.clone();
    assert_eq!((0..5).filter(|_| world.registry.failed(&state, world.now)).count(), 1);
    world.lose(&links[0]);
    world.now += Duration::from_secs(1);
    world.registry.sweep(world.now);
    assert_eq!(world.registry.books().ejected, []);
    world.serve("orders@1.0.0/a", &["GET /x"]);
    assert_eq!(circuit(&world, "a"), (CircuitState::Closed, 0, 0));
}
