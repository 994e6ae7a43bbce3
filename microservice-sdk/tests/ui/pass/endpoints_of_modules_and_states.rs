use std::sync::Arc;

use microservice_sdk::{Endpoints, FromRef, FromRequestParts, Microservice, Problem, State, endpoint, endpoints};
use microservice_sdk::extract::Parts;

#[derive(Clone)]
struct Db(Arc<str>);

#[derive(Clone)]
struct App {
    db: Db,
}

impl FromRef<App> for Db {
    fn from_ref(app: &App) -> Self {
        app.db.clone()
    }
}

struct Session(Db);

impl<S: Send + Sync> FromRequestParts<S> for Session
where
    Db: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(Db::from_ref(state)))
    }
}

mod orders {
    use super::*;

    #[endpoint(GET, "/orders")]
    pub async fn list(session: Session) -> String {
        session.0.0.to_string()
    }

    pub fn endpoints() -> Endpoints<App> {
        endpoints![list]
    }
}

#[endpoint(GET, "/name")]
async fn name(State(db): State<Db>) -> String {
    db.0.to_string()
}

#[endpoint(GET, "/count")]
async fn count(State(count): State<u32>) -> String {
    count.to_string()
}

fn main() {
    let db = Db("orders".into());
    let _ = Microservice::new("orders", "1.0.0")
        .state(App { db: db.clone() })
        .endpoints(orders::endpoints())
        .endpoints(endpoints![name, orders::list])
        .state(db)
        .endpoints(endpoints![name, orders::list])
        .state(7_u32)
        .endpoints(endpoints![count]);
}
