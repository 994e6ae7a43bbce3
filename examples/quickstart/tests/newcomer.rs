//! What a newcomer does first, with the real programs: start, ask, let another version join and leave, stop.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A program that runs until it is told to stop; killed if a test ends before that.
struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(path: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(path).args(arguments).stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::sync_channel(1000);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// All it prints, up to a line that begins so.
    fn prints_until(&self, beginning: &str) -> String {
        let mut all = String::new();
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no `{beginning}` after:\n{all}"));
            all.push_str(&line);
            all.push('\n');
            if line.starts_with(beginning) {
                return all;
            }
        }
    }

    /// Sends a signal by name and waits for the end.
    fn stop(mut self, signal: &str) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().expect("kill").success());
        // What it still prints; its end closes the pipe.
        let end = Instant::now() + PATIENCE;
        while self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        self.child.wait().expect("the program ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first word that begins so, up to a quote or white space.
fn word<'a>(text: &'a str, beginning: &str) -> &'a str {
    let from = &text[text.find(beginning).unwrap_or_else(|| panic!("no `{beginning}` in:\n{text}"))..];
    from.split(|c: char| c.is_whitespace() || c == '\'' || c == '"').next().unwrap_or_default()
}

/// One request on a connection of its own: the whole response as text.
fn ask(authority: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(authority).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
    write!(stream, "{line} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{rest}\r\n").expect("a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

#[test]
fn start_ask_join_leave_stop() {
    let quickstart = Program::start(env!("CARGO_BIN_EXE_quickstart"), &["--http", "0", "--tcp", "0", "--admin", "0"]);
    let text = quickstart.prints_until("Ctrl-C stops");
    let http = word(&text, "http://").trim_start_matches("http://").trim_end_matches("/greetings/Ada").to_owned();

    let answer = ask(&http, "GET /greetings/Ada");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(r#"{"greeting":"Hello, Ada!","version":"1.0.0"}"#), "{answer}");

    let answer = ask(&http, "GET /greetings/Ada?language=tlh");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains(r#""code":"unknown_language""#), "{answer}");

    let body = r#"{"name": "Ada"}"#;
    let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = ask(&http, &format!("POST /guests\n{fields}"));
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.ends_with(r#"{"name":"Ada","guest":1}"#), "{answer}");

    let answer = ask(&http, "GET /greetings/Ada/countdown");
    assert!(answer.contains("3 ..") && answer.contains("Hello, Ada!"), "{answer}");

    let gateway = word(&text, "tcp://");
    let greeter = Program::start(env!("CARGO_BIN_EXE_greeter"), &["--gateway", gateway]);
    greeter.prints_until("Ctrl-C leaves");
    let second = "GET /greetings/Ada\nx-service-version: 2.0.0\r\n";
    let answer = ask(&http, second);
    assert!(answer.ends_with(r#"{"greeting":"A very good day to you, dear Ada!","version":"2.0.0"}"#), "{answer}");
    let answer = ask(&http, "GET /greetings/Ada");
    assert!(answer.contains(r#""version":"1.0.0""#), "who names no version gets the configured one: {answer}");

    let admin =
        text.lines().find_map(|line| line.split_once("curl '")?.1.strip_suffix("/routes'")).expect("an address");
    let routes = ask(admin.trim_start_matches("http://"), "GET /routes");
    assert!(routes.contains("/greetings/{name}") && routes.contains("2.0.0"), "{routes}");

    assert!(greeter.stop("INT").success());
    let answer = ask(&http, second);
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains(r#""code":"version_not_found""#), "{answer}");

    assert!(quickstart.stop("TERM").success());
}
