use microservice_sdk::{Json, Microservice, Path, State, endpoint, endpoints, version};

/// Said in the first line.
#[endpoint(
    POST, "/orders/{id}/items/{item}", timeout = "1500ms", idempotent, streaming(request), one_way, deprecated, detached,
    blocking, claims(scope = "orders:write", role = ["clerk", "admin"], tenant), max_request_bytes = "16MiB",
    summary = "Said here", tags = ["orders", "items"],
)]
pub async fn add_item(Path((_id, _item)): Path<(u64, String)>, State(()): State<()>, Json(()): Json<()>) {}

#[endpoint(GET, "/nowhere")]
#[cfg(any())]
async fn not_compiled(no: Such) -> Types {}

fn main() {
    let _ = Microservice::new("orders", version!()).endpoints(endpoints![add_item]);
    let _ = version!("1.2.3-rc.1");
}
