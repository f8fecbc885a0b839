//! Runs the program, asks the server, makes input; ends what it started.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions, to_combined_line};
use lambdaflow_dataflows::web_analytics::{Request, reference};
use serde_json::{Value, json};

/// Longest that anything here may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Views whose rows the plain reference computes: all but the sketch, which has bounds and not one right answer.
pub const EXACT_VIEWS: [&str; 8] = ["bounce_rate", "errors", "hits", "referrers", "sessions", "status", "top_paths", "visitors"];

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub arguments: Vec<String>,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Asserts its exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of {:?}\nstdout: {}\nstderr: {}", self.arguments, self.out, self.err);
        self
    }

    /// Asserts that stderr has all these parts.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "{:?} does not say {part:?} but:\n{}", self.arguments, self.err);
        }
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("stdout of {:?} is no JSON, {error}: {}", self.arguments, self.out))
    }
}

/// A child that is killed when it is dropped. Only ever this one, by its id.
pub struct Running {
    arguments: Vec<String>,
    child: Child,
    out: JoinHandle<String>,
    err: Arc<Mutex<String>>,
    err_reader: JoinHandle<()>,
}

/// The program with these arguments.
pub fn program<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambdaflow"));
    // A server of someone else's environment is none of ours.
    command.args(arguments).env_remove("LAMBDAFLOW_TO").env_remove("LAMBDAFLOW_LOG");
    command
}

/// Starts a command, with `input` on its stdin.
pub fn start(mut command: Command, input: impl Into<Vec<u8>>) -> Guard {
    let input = input.into();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Whoever does not read all of its input is judged by its exit code.
    std::thread::spawn(move || stdin.write_all(&input).unwrap_or_default());
    let mut stdout = child.stdout.take().expect("a pipe");
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).expect("stdout can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let err = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&err);
    let err_reader = std::thread::spawn(move || {
        for line in stderr.split(b'\n') {
            let line = line.expect("stderr can be read");
            let mut seen = seen.lock().expect("not poisoned");
            seen.push_str(&String::from_utf8_lossy(&line));
            seen.push('\n');
        }
    });
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    Guard(Some(Running { arguments, child, out, err, err_reader }))
}

/// Owns a [`Running`].
pub struct Guard(Option<Running>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(running) = &mut self.0 {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Guard {
    fn running(&mut self) -> &mut Running {
        self.0.as_mut().expect("runs until it is waited for")
    }

    pub fn id(&self) -> u32 {
        self.0.as_ref().expect("runs until it is waited for").child.id()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.0.as_ref().expect("runs until it is waited for").err.lock().expect("not poisoned").clone()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running().child.try_wait().expect("a child of ours")
    }

    /// Ends it without asking, at once.
    pub fn kill(mut self) {
        let running = self.running();
        running.child.kill().expect("a child of ours");
        running.child.wait().expect("a child of ours");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let status = eventually("the command ends", || self.ended());
        let Running { arguments, out, err, err_reader, .. } = self.0.take().expect("runs until it is waited for");
        err_reader.join().expect("stderr was read");
        let err = err.lock().expect("not poisoned").clone();
        Ended { arguments, code: status.code().unwrap_or(-1), out: out.join().expect("stdout was read"), err }
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn lambdaflow<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    start(program(arguments), "").wait()
}

/// [`lambdaflow`] with something on stdin.
#[track_caller]
pub fn lambdaflow_with_input<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, input: impl Into<Vec<u8>>) -> Ended {
    start(program(arguments), input).wait()
}

/// Looks until there is something to see.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// A directory for one test, with names in it.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// The path of something in it.
    pub fn at(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path in UTF-8").to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).expect("the file can be written");
        self.at(name)
    }
}

/// An answer of a server: status and body.
#[derive(Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Reply {
    /// Asserts the status and returns the body.
    #[track_caller]
    pub fn ok(self) -> Value {
        self.is(200)
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Asserts an error with a status, whose text has this part, in the form all errors have.
    #[track_caller]
    pub fn fails(self, status: u16, part: &str) {
        let body = self.is(status);
        let fields: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["error", "hint"], "{body}");
        assert!(body["hint"].is_string() || body["hint"].is_null(), "{body}");
        assert!(body["error"].as_str().is_some_and(|error| error.contains(part)), "no {part:?} in {body}");
    }
}

/// Speaks HTTP with one server.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    pub url: String,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Self { agent: config.build().into(), url: url.to_owned() }
    }

    fn reply(mut response: ureq::http::Response<ureq::Body>) -> Result<Reply, ureq::Error> {
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec()?;
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok(Reply { status, body })
    }

    /// Fails where the server cannot be reached, or goes away while answering.
    pub fn try_post(&self, path: &str, kind: &str, body: impl AsRef<[u8]>) -> Result<Reply, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("content-type", kind);
        request.send(body.as_ref()).and_then(Self::reply)
    }

    pub fn try_get(&self, path: &str, pairs: &[(&str, &str)]) -> Result<Reply, ureq::Error> {
        self.agent.get(format!("{}{path}", self.url)).query_pairs(pairs.iter().copied()).call().and_then(Self::reply)
    }

    #[track_caller]
    pub fn post(&self, path: &str, kind: &str, body: impl AsRef<[u8]>) -> Reply {
        self.try_post(path, kind, body).expect("the server answers")
    }

    #[track_caller]
    pub fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Reply {
        self.try_get(path, pairs).expect("the server answers")
    }

    /// Appends events as JSON and returns their token.
    #[track_caller]
    pub fn append(&self, events: &[Request]) -> u64 {
        self.post("/v1/events", JSON_LINES, ndjson(events)).ok()["token"].as_u64().expect("a token")
    }

    /// The rows of every exact view, each read when `token` is in.
    #[track_caller]
    pub fn answers(&self, token: u64) -> String {
        let token = token.to_string();
        let rows = |view| {
            let answer = self.get(&format!("/v1/views/{view}/scan"), &[("at_least", &token)]).ok();
            answer["rows"].as_array().expect("rows").clone()
        };
        let mut views = BTreeMap::from(EXACT_VIEWS.map(|view| (view, rows(view))));
        views.insert("errors", reference::odd_requests(&views["errors"]));
        reference::render(&views)
    }
}

/// What a server answers to these bytes, to the end of the connection.
#[track_caller]
pub fn raw(server: &Client, request: &str) -> String {
    read_all(send_raw(server, request))
}

/// Sends bytes by a connection of its own.
#[track_caller]
fn send_raw(server: &Client, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").expect("an address")).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream
}

fn read_all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer
}

/// Requests that were sent, each by a connection of its own.
pub struct Sent(Vec<JoinHandle<String>>);

/// Sends a request many times over.
#[track_caller]
pub fn send_many(server: &Client, request: &str, times: usize) -> Sent {
    let connections: Vec<TcpStream> = (0..times).map(|_| send_raw(server, request)).collect();
    Sent(connections.into_iter().map(|stream| std::thread::spawn(move || read_all(stream))).collect())
}

impl Sent {
    /// How many were answered by now.
    pub fn answered(&self) -> usize {
        self.0.iter().filter(|answer| answer.is_finished()).count()
    }

    /// How many were answered with each status, when all are.
    #[track_caller]
    pub fn statuses(self) -> BTreeMap<String, usize> {
        let mut statuses = BTreeMap::new();
        for answer in self.0 {
            let answer = answer.join().expect("an answer is read");
            *statuses.entry(answer.split(' ').nth(1).unwrap_or_default().to_owned()).or_default() += 1;
        }
        statuses
    }
}

pub const JSON_LINES: &str = "application/x-ndjson";
pub const PLAIN_LINES: &str = "text/plain";

/// `lambdaflow run`, answering.
pub struct Serving {
    pub process: Guard,
    pub client: Client,
}

impl std::ops::Deref for Serving {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Serving {
    /// Starts on a free port, with more arguments, and waits until it says that it serves.
    #[track_caller]
    pub fn start(log: impl AsRef<Path>, more: &[&str]) -> Self {
        let log = log.as_ref().to_str().expect("a path in UTF-8");
        let arguments = ["run", "web_analytics", "--listen", "127.0.0.1:0", "--log", log];
        Self::from(start(program(arguments.iter().chain(more)), ""))
    }

    /// Waits until a server says that it serves.
    #[track_caller]
    pub fn from(mut process: Guard) -> Self {
        let url = eventually("the server serves", || {
            let stderr = process.stderr();
            assert!(process.ended().is_none(), "the server ended: {stderr}");
            stderr.lines().find_map(|line| line.strip_prefix("serving on ").map(str::to_owned))
        });
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Self { process, client: Client::new(&url) }
    }

    /// Asks it to end and asserts that it does so cleanly. Returns how long it took.
    #[track_caller]
    pub fn stop(self) -> Duration {
        let started = Instant::now();
        signal("TERM", self.process.id());
        self.process.wait().exits(0);
        started.elapsed()
    }
}

/// Sends a signal to a process of ours.
pub fn signal(name: &str, id: u32) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().expect("`kill` runs");
    assert!(sent.success(), "kill -s {name} {id}");
}

/// An event that only this number makes: its own path, a host and an hour shared with others.
pub fn event(n: u64) -> Request {
    let line = json!({
        "at": 1_700_000_000 + n * 7, "host": format!("10.0.0.{}", n % 9), "path": format!("/e/{n}"),
        "status": if n.is_multiple_of(5) { 404 } else { 200 }, "bytes": 100 + n, "referrer": format!("http://r/{}", n % 4),
    });
    serde_json::from_value(line).expect("an event")
}

pub fn ndjson(events: &[Request]) -> String {
    events.iter().map(|event| serde_json::to_string(event).expect("an event") + "\n").collect()
}

/// Lines of an access log, always the same.
pub fn lines(n: usize) -> String {
    let options = GeneratorOptions { paths: 50, visitors: 40, referrers: 8, events_per_second: 2, ..GeneratorOptions::default() };
    Generator::new(1, options).take(n).map(|request| to_combined_line(&request) + "\n").collect()
}

/// What the plain reference answers, rendered.
pub fn expected(events: &[Request]) -> String {
    reference::render(&reference::answers(events))
}

/// Compares rendered answers, and shows the first row that differs.
#[track_caller]
pub fn assert_same_answers(want: &str, got: &str, context: &str) {
    if let Some((want, got)) = want.lines().zip(got.lines()).find(|(want, got)| want != got) {
        panic!("{context}:\n want {want}\n got  {got}");
    }
    assert_eq!(want.len(), got.len(), "{context}: rows are missing or too many");
}

/// The events that `log cat` prints.
#[track_caller]
pub fn cat(log: &str) -> Vec<Request> {
    let printed = lambdaflow(["log", "cat", "--dataflow", "web_analytics", log]).exits(0).out;
    printed
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("a line of JSON");
            serde_json::from_value(line["event"].take()).expect("an event")
        })
        .collect()
}

/// Events in a log, as `log info` counts them.
#[track_caller]
pub fn events_in(log: &str) -> u64 {
    let info = lambdaflow(["log", "info", log, "--format", "json"]).exits(0).json();
    info["partitions"].as_array().expect("partitions").iter().map(|partition| partition["events"].as_u64().expect("a number")).sum()
}

/// Says that a test cannot run here; where the environment demands all tools, that is a failure.
pub fn skip(name: &str, reason: &str) {
    println!("SKIPPED {name}: {reason}");
    assert!(std::env::var("LAMBDAFLOW_REQUIRE_FAULT_TOOLS").as_deref() != Ok("1"), "{name} must run here: {reason}");
}
