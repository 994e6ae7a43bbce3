//! `router-gateway explain`: asks a running gateway's admin listener why a request goes where it goes (SPEC 5, 13).
//!
//! It knows the page and nothing of routing.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use router_config::SecretRef;
use router_gateway::routing::explain::Explanation;
use tokio::net::TcpStream;

/// What the program's users read of it.
pub(crate) const EXIT_CODES: &str = "Exit codes: 0 an instance would be chosen; 1 the request would be refused; \
2 a wrong command line; 3 the gateway could not be asked.";

/// For the whole conversation.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer: ten thousand instances in every step.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNASKED: u8 = 3;

/// Why a request goes where it goes.
#[derive(clap::Args)]
pub(crate) struct Explain {
    /// The gateway's admin listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: Uri,
    /// The admin token, as `env:NAME` or `file:/path`, or itself (which others on this machine can then see).
    #[arg(long, value_name = "SECRET")]
    token: Option<SecretRef>,
    /// Print the explanation as JSON.
    #[arg(long)]
    json: bool,
    /// The request's method, such as GET.
    method: String,
    /// The request's path, such as /orders/1.
    path: String,
    /// The version that the request asks for.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

/// What came back.
enum Answer {
    Explanation(Bytes),
    /// The question was wrong.
    Misasked(String),
}

pub(crate) fn run(command: &Explain) -> ExitCode {
    let token = match command.token.as_ref().map(SecretRef::resolve).transpose() {
        Ok(token) => token,
        Err(error) => return fail(USAGE, &format!("--token: {error}")),
    };
    let authorization = match token.map(|token| bearer(token.expose())).transpose() {
        Ok(authorization) => authorization,
        Err(error) => return fail(USAGE, &format!("--token: {error}")),
    };
    let host = match host(&command.admin) {
        Ok(host) => host,
        Err(error) => return fail(USAGE, &format!("--admin: {error}")),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(UNASKED, &error.to_string()),
    };
    let asked = runtime.block_on(async {
        let asking = ask(&host, command, authorization);
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(anyhow!("http://{host} did not answer within {} s", PATIENCE.as_secs())))
    });
    match asked {
        Ok(Answer::Explanation(json)) => show(&json, command.json),
        Ok(Answer::Misasked(detail)) => fail(USAGE, &detail),
        Err(error) => fail(UNASKED, &format!("{error:#}")),
    }
}

fn show(json: &Bytes, as_json: bool) -> ExitCode {
    let explanation: Explanation = match serde_json::from_slice(json) {
        Ok(explanation) => explanation,
        Err(error) => return fail(UNASKED, &format!("the answer is no explanation: {error}")),
    };
    if as_json {
        print!("{}", String::from_utf8_lossy(json));
    } else {
        print!("{explanation}");
    }
    if explanation.chosen.is_some() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(code)
}

fn bearer(token: &[u8]) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| "what stands there cannot be sent in a header field")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Host and port of the listener.
fn host(admin: &Uri) -> Result<String, String> {
    if admin.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(format!("`{admin}`: the admin listener speaks http"));
    }
    let authority = admin.authority().ok_or_else(|| format!("`{admin}` names no host: write http://HOST:PORT"))?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

fn page(command: &Explain) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let mut page = format!("/explain?method={}&path={}", encoded(&command.method), encoded(&command.path));
    if let Some(version) = &command.version {
        // Writing to a String cannot fail.
        let _ = write!(page, "&version={}", encoded(version));
    }
    page
}

async fn ask(host: &str, command: &Explain, authorization: Option<HeaderValue>) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(host).await.with_context(|| {
        format!("nobody listens at http://{host}; is the gateway up, and is this its `admin.listen`?")
    })?;
    let unspoken = || format!("http://{host} does not speak HTTP");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(unspoken)?;
    let mut request = Request::get(page(command)).header(HOST, host).body(Empty::<Bytes>::new())?;
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    let talk = async {
        let response = sender.send_request(request).await.with_context(unspoken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    let (status, body) = tokio::select! {
        answer = talk => answer?,
        // It ends only with the conversation, or by an error that the conversation does not live to tell.
        Err(error) = connection => return Err(error).with_context(unspoken),
    };
    match status {
        StatusCode::OK => Ok(Answer::Explanation(body)),
        StatusCode::BAD_REQUEST => Ok(Answer::Misasked(detail(&body))),
        StatusCode::UNAUTHORIZED => Err(anyhow!("http://{host} asks for the admin token: give it by --token (401)")),
        StatusCode::FORBIDDEN => Err(anyhow!("http://{host} does not take this token (403)")),
        StatusCode::NOT_FOUND => {
            Err(anyhow!("http://{host} has no /explain: its admin pages are off, or it is something else (404)"))
        }
        other => Err(anyhow!("http://{host} answered {other}: {}", detail(&body))),
    }
}

/// What a problem document says.
fn detail(body: &Bytes) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |name: &str| document.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    member("detail").or_else(|| member("title")).unwrap_or_else(|| "no reason is given".to_owned())
}
