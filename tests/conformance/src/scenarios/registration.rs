//! Who registers what: paths have owners, versions stand side by side, sets change while they serve (SPEC 2).

use http::{Method, StatusCode};
use microservice_sdk::{OnRefused, StartError};

use super::authentication::turned_away;
use crate::bare::Bare;
use crate::carrier::Transport;
use crate::eventually;
use crate::scenario::list;
use crate::services::{one, orders};
use crate::stage::Stage;

async fn a_service_appears_and_disappears_with_its_link(transport: Transport) {
    let stage = Stage::new(transport).await;
    let client = stage.client();
    assert_eq!(client.get("/here").await.problem(), "route_not_found");
    let running = stage.join(one("here", "1.0.0", "/here", "yes")).await;
    assert_eq!(client.get("/here").await.body, "yes");
    running.shutdown().await.unwrap();
    // Withdrawn, so it is as if it had never been, once the gateway has read that its link is closed.
    let gone = async || client.get("/here").await.problem() == "route_not_found";
    eventually("the route's end", gone).await;
    let _again = stage.join(one("here", "1.0.1", "/here", "again")).await;
    assert_eq!(client.get("/here").await.body, "again");
}

async fn a_path_belongs_to_the_service_that_had_it_first(transport: Transport) {
    let stage = Stage::new(transport).await;
    let first = stage.join(one("first", "1.0.0", "/paths/{a}", "first")).await;
    let client = stage.client();

    let second = one("second", "1.0.0", "/paths/{b}", "second");
    let refused = stage.try_join_strictly(second).await.unwrap_err();
    let StartError::Refused { refusals, .. } = &refused else { panic!("{refused}") };
    assert!(refusals.iter().any(|text| text.contains("/paths/{b}") && text.contains("first")), "{refused}");
    assert_eq!(client.get("/paths/7").await.body, "first", "the owner is undisturbed");

    // With `on_refused: warn` the rest works, and the path is taken when its owner leaves.
    let second = one("second", "1.0.0", "/paths/{b}", "second")
        .raw(Method::GET, "/own", || async { "own" })
        .on_refused(OnRefused::Warn);
    let _second = stage.join(second).await;
    assert_eq!((client.get("/own").await.body, client.get("/paths/7").await.body), ("own".into(), "first".into()));
    first.shutdown().await.unwrap();
    eventually("the path has changed hands", async || client.get("/paths/7").await.body == "second").await;
}

async fn both_versions_of_one_service_may_have_a_path(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _one = stage.join(one("twice", "1.0.0", "/twice", "one")).await;
    let _two = stage.join(one("twice", "2.0.0", "/twice", "two")).await;
    let answer = stage.client().get_with("/twice", "x-service-version", "2.0.0").await;
    assert_eq!(answer.body, "two");
}

async fn a_thousand_endpoints_are_registered_as_one_set(transport: Transport) {
    let stage = Stage::new(transport).await;
    let many = (0..1000).fold(one("many", "1.0.0", "/many", "many"), |service, number| {
        service.raw(Method::GET, format!("/many/{number}/{{rest}}"), move || async move { number.to_string() })
    });
    let _many = stage.join(many).await;
    for number in [0, 7, 500, 999] {
        assert_eq!(stage.client().get(&format!("/many/{number}/x")).await.body, number.to_string());
    }
}

async fn an_updated_set_takes_the_place_of_the_old_one_as_a_whole(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _owner = stage.join(one("owner", "1.0.0", "/owned", "owner")).await;
    let mut bare = Bare::join(&stage).await;
    let client = stage.client();
    let is = async |path: &str, status: StatusCode| {
        eventually("the new set is in force", async || client.get(path).await.status == status).await;
    };
    assert_eq!(bare.offer(1, &[(1, "/one"), (2, "/two"), (3, "/owned")]).await, [3]);
    is("/one", StatusCode::OK).await;
    assert_eq!((client.get("/two").await.body, client.get("/owned").await.body), ("/two".into(), "owner".into()));
    assert_eq!(bare.offer(2, &[(2, "/two"), (4, "/four")]).await, [0_u32; 0]);
    is("/one", StatusCode::NOT_FOUND).await;
    assert_eq!((client.get("/two").await.body, client.get("/four").await.body), ("/two".into(), "/four".into()));
    // An older set is overtaken; one that is empty is a set.
    assert_eq!(bare.offer(4, &[]).await, [0_u32; 0]);
    is("/two", StatusCode::NOT_FOUND).await;
    assert_eq!(client.get("/owned").await.body, "owner");
}

async fn a_policy_says_who_may_register_what(transport: Transport) {
    let policy = "services: { orders: { identities: [\"key:somebody-else\"] }, here: { path_prefixes: [/here] } }";
    let stage = Stage::with(transport, policy).await;
    let _here = stage.join(one("here", "1.0.0", "/here/and/now", "yes")).await;
    let elsewhere = stage.try_join_strictly(one("here", "1.0.0", "/elsewhere", "no")).await.unwrap_err();
    assert!(matches!(elsewhere, StartError::Refused { .. }) && elsewhere.to_string().contains("/here"), "{elsewhere}");
    // Whoever is in the same process is part of the gateway's own composition, and always may.
    if transport.name() == "in-memory" {
        let joined = stage.try_join(orders("1.0.0")).await;
        assert!(joined.is_ok(), "{joined:?}");
    } else {
        let orders = |connector| stage.connect_by(orders("1.0.0"), connector);
        if let Some(refused) = turned_away(transport, stage.connector(), orders).await {
            let is_forbidden = refused.to_string().contains("forbidden");
            assert!(matches!(refused, StartError::NotLetIn { .. }) && is_forbidden, "{refused}");
        }
        assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(stage.client().get("/here/and/now").await.status, StatusCode::OK);
}

async fn an_instance_with_several_links_is_one_instance(transport: Transport) {
    let stage = Stage::new(transport).await;
    let mut running = stage.connect(orders("1.0.0")).links(3).start().unwrap();
    crate::within("the service is ready", running.ready()).await.unwrap();
    let admin = stage.admin();
    // To one that is found, there is one: they would all run through what it was found by.
    let links = if transport.discovers() { 1 } else { 3 };
    eventually("its links have joined", async || {
        let instances = admin.get("/instances").await.json();
        instances.as_array().map(Vec::len) == Some(1) && instances[0]["links"] == links
    })
    .await;
    assert_eq!(stage.client().get("/orders/7").await.status, StatusCode::OK);
}

list! {
    a_service_appears_and_disappears_with_its_link => Nothing,
    a_path_belongs_to_the_service_that_had_it_first => Nothing,
    both_versions_of_one_service_may_have_a_path => Nothing,
    a_thousand_endpoints_are_registered_as_one_set => Nothing,
    an_updated_set_takes_the_place_of_the_old_one_as_a_whole => Nothing,
    a_policy_says_who_may_register_what => Nothing,
    an_instance_with_several_links_is_one_instance => Nothing,
}
