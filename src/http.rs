//! HTTP with JSON over a [`Service`].
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/events` | `{"token", "accepted", "rejected": [{"line", "error"}]}`; body NDJSON, or lines with `Content-Type: text/plain`; all or nothing unless `?on_error=skip`. With `?producer=NAME&sequence=N`, numbered from 0 by the producer, it is stored once however often it is repeated; 409 with `expected` and `oldest` if the number cannot be right |
//! | `GET /v1/views` | names and columns of the views |
//! | `GET /v1/views/NAME/get?key=JSON` | rows of each key given |
//! | `GET /v1/views/NAME/range?from=JSON&to=JSON&limit=` | rows with `from <= key < to` |
//! | `GET /v1/views/NAME/prefix?prefix=JSON` | rows whose key begins so |
//! | `GET /v1/views/NAME/top?n=` | rows with the greatest values |
//! | `GET /v1/views/NAME/scan` | all rows |
//! | `GET /v1/status` | layers, frontiers, last handover; in `share` what this process has of generation and log |
//! | `POST /v1/batch`, `POST /v1/rebuild` | runs a cycle, incremental or full; answers when it has been switched to |
//! | `POST /v1/audit` | recomputes and compares; 409 if the layers differ |
//!
//! Each read takes `as_of=`, `at_least=` and `timeout_ms=`, and answers `{"as_of", "base", "frontier", "rows"}`. An error is
//! `{"error", "hint"}` with a status of its own, the same whichever process is asked; nothing is ever answered approximately.
//!
//! Requests are carried out on threads for blocking work, so that a read that waits holds up no other, and of each kind that may
//! wait only so many do: a runtime that serves needs [`THREADS_MAX`] of them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query as Parameters, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::layers::Cycle;
use crate::log::{LogError, ProducerError, Tick};
use crate::runs::Query;
use crate::runtime::service::{ErrorKind, Format, Numbered, Service, ServiceError};
use crate::runtime::{APPENDS_PASSED_ON_MAX, CYCLES_WAITING_MAX, OnError, STATUS_WAITING_MAX};
use crate::serving::{READS_WAITING_MAX, Read, WAIT_DEFAULT};

/// Largest body of one append, 64 MiB. A larger one is answered with 413; send it in parts.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Connections that are open at a time, or half as many as the process may have open files if that is less. Others wait.
pub const CONNECTIONS_MAX: usize = 4096;
/// Threads that carry out requests. Beyond what may wait, some are left for appends and for reads that need nobody.
pub const THREADS_MAX: usize = 512;
const _: () = assert!(READS_WAITING_MAX + APPENDS_PASSED_ON_MAX + CYCLES_WAITING_MAX + STATUS_WAITING_MAX < THREADS_MAX);
/// Rows of `top` when `n` is not given.
const TOP_DEFAULT: usize = 10;

type Pairs = Vec<(String, String)>;
type Shared = Arc<dyn Service>;

/// The routes.
pub fn router(service: Arc<dyn Service>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/v1/events", post(append))
        .route("/v1/views", get(views))
        .route("/v1/views/{name}/{read}", get(read))
        .route("/v1/status", get(status))
        .route("/v1/batch", post(|service: State<Shared>| cycle(service, Cycle::Incremental)))
        .route("/v1/rebuild", post(|service: State<Shared>| cycle(service, Cycle::Full)))
        .route("/v1/audit", post(audit))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is nothing at this address\n  hint: GET /v1/views lists the views") })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            failure(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} takes no {method}\n  hint: appends and cycles are POST, reads are GET", uri.path()),
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service)
}

/// Serves until `stop` resolves; open requests are finished.
pub async fn serve(
    listener: tokio::net::TcpListener,
    service: Arc<dyn Service>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(Bounded::new(listener), router(service)).with_graceful_shutdown(stop).await
}

/// A listener that lets only so many connections be open at a time; others wait in the system's queue. Without it, idle
/// connections would take all files that the process may open, and the log would stop for want of one.
struct Bounded {
    listener: tokio::net::TcpListener,
    room: Arc<Semaphore>,
}

/// A connection, and the room it takes until it is dropped.
struct Connection {
    stream: TcpStream,
    _room: OwnedSemaphorePermit,
}

impl Bounded {
    fn new(listener: tokio::net::TcpListener) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let connections = files.map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min(files as usize / 2)).max(1);
        Bounded { listener, room: Arc::new(Semaphore::new(connections)) }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("nobody closes it");
        // Retries whatever goes wrong.
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        (Connection { stream, _room: room }, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn append(State(service): State<Shared>, pairs: Result<Parameters<Pairs>, QueryRejection>, request: Request) -> Response {
    let Parameters(pairs) = match pairs {
        Ok(pairs) => pairs,
        Err(rejection) => return failure(rejection.status(), rejection.body_text()),
    };
    let on_error = match pairs.iter().find(|(name, _)| name == "on_error").map(|(_, value)| value.as_str()) {
        None | Some("stop") => OnError::Stop,
        Some("skip") => OnError::Skip,
        Some(other) => return failure(StatusCode::BAD_REQUEST, format!("on_error is `stop` or `skip`, not `{other}`")),
    };
    let numbered = match parse_numbered(&pairs) {
        Ok(numbered) => numbered,
        Err(Refused(status, text)) => return failure(status, text),
    };
    let plain = text_of(request.headers(), header::CONTENT_TYPE).starts_with("text/plain");
    // Refused by its announcement, so that nobody sends 64 MiB in vain.
    let announced = text_of(request.headers(), header::CONTENT_LENGTH).parse::<u64>().unwrap_or_default();
    if announced > BODY_BYTES_MAX as u64 {
        return too_large();
    }
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => return too_large(),
        Err(rejection) => return failure(rejection.status(), rejection.body_text()),
    };
    let format = if plain { Format::Lines } else { Format::Json };
    let append = move || match &numbered {
        Some(numbered) => service.append_as(numbered, &body, format, on_error),
        None => service.append(&body, format, on_error),
    };
    blocking(move || match append() {
        Ok(appended) if appended.token.is_none() && !appended.rejected.is_empty() => {
            (StatusCode::BAD_REQUEST, axum::Json(appended)).into_response()
        }
        Err(error) => match &error {
            ServiceError::Log(LogError::Producer(refused)) => refuse(status_of(error.kind()), refused),
            error => failure(status_of(error.kind()), error),
        },
        answered => answer(answered),
    })
    .await
}

/// Producer and number of an append, if it has them.
fn parse_numbered(pairs: &Pairs) -> Result<Option<Numbered>, Refused> {
    let find = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let bad = |text: String| Err(Refused(StatusCode::BAD_REQUEST, text));
    match (find("producer"), find("sequence")) {
        (None, None) => Ok(None),
        (Some(producer), Some(sequence)) => match sequence.parse() {
            Ok(sequence) => Ok(Some(Numbered { producer: producer.to_owned(), sequence })),
            Err(_) => bad(format!("sequence is a number, not `{sequence}`")),
        },
        _ => bad("producer and sequence go together\n  hint: a producer numbers its appends from 0 on".to_owned()),
    }
}

/// What a program needs to go on after its number was refused.
fn refuse(status: StatusCode, error: &ProducerError) -> Response {
    let (expected, oldest) = match error {
        ProducerError::Ahead { expected, .. } | ProducerError::Differs { expected, .. } => (Some(*expected), None),
        ProducerError::TooOld { expected, oldest, .. } => (Some(*expected), Some(*oldest)),
        ProducerError::TooMany { .. } | ProducerError::Name { .. } => (None, None),
    };
    let text = error.to_string();
    let (error, hint) = parts(&text);
    (status, axum::Json(json!({ "error": error, "hint": hint, "expected": expected, "oldest": oldest }))).into_response()
}

/// A header's text; empty if there is none.
fn text_of(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn too_large() -> Response {
    let text = format!("the body has more than {BODY_BYTES_MAX} bytes\n  hint: send it in parts; nothing was taken");
    failure(StatusCode::PAYLOAD_TOO_LARGE, text)
}

async fn read(
    State(service): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    pairs: Result<Parameters<Pairs>, QueryRejection>,
) -> Response {
    let (Path((view, kind)), Parameters(pairs)) = match (path, pairs) {
        (Ok(path), Ok(pairs)) => (path, pairs),
        (Err(rejection), _) => return failure(rejection.status(), rejection.body_text()),
        (_, Err(rejection)) => return failure(rejection.status(), rejection.body_text()),
    };
    match parse_read(view, &kind, &pairs) {
        Ok(read) => blocking(move || answer(service.read(&read))).await,
        Err(Refused(status, text)) => failure(status, text),
    }
}

/// A request that is not understood.
struct Refused(StatusCode, String);

fn parse_read(view: String, kind: &str, pairs: &Pairs) -> Result<Read, Refused> {
    let bad = |text: String| Refused(StatusCode::BAD_REQUEST, text);
    let json_of = |name: &str, text: &str| -> Result<Value, Refused> {
        serde_json::from_str(text).map_err(|error| {
            bad(format!("{name} is not JSON: {error}\n  hint: a string is quoted, {name}=\"/index.html\" (percent-encoded: %22/index.html%22), a tuple is an array"))
        })
    };
    let own: &[&str] = match kind {
        "get" => &["key"],
        "range" => &["from", "to", "limit"],
        "prefix" => &["prefix", "limit"],
        "top" => &["n"],
        "scan" => &["limit"],
        _ => {
            return Err(Refused(
                StatusCode::NOT_FOUND,
                format!("`{kind}` is no way to read a view\n  hint: get, range, prefix, top, scan"),
            ));
        }
    };
    if let Some((name, _)) =
        pairs.iter().find(|(name, _)| !own.contains(&&**name) && !["as_of", "at_least", "timeout_ms"].contains(&&**name))
    {
        return Err(bad(format!("{kind} has no parameter `{name}`\n  hint: it takes {}, as_of, at_least, timeout_ms", own.join(", "))));
    }
    let find = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let number =
        |name: &str| find(name).map(|text| text.parse::<u64>().map_err(|_| bad(format!("{name} is a number, not `{text}`")))).transpose();
    let value = |name: &str| find(name).map(|text| json_of(name, text)).transpose();
    let limit = number("limit")?.map_or(usize::MAX, |limit| limit as usize);
    let query = match kind {
        "get" => {
            let keys: Vec<Value> =
                pairs.iter().filter(|(name, _)| name == "key").map(|(name, text)| json_of(name, text)).collect::<Result<_, _>>()?;
            if keys.is_empty() {
                return Err(bad("get needs at least one key=JSON".to_owned()));
            }
            Query::Get(keys)
        }
        "range" => Query::Range { from: value("from")?, to: value("to")?, limit },
        "prefix" => Query::Prefix { prefix: value("prefix")?.ok_or_else(|| bad("prefix needs prefix=JSON".to_owned()))?, limit },
        "top" => Query::Top(number("n")?.map_or(TOP_DEFAULT, |n| n as usize)),
        _ => Query::Scan { limit },
    };
    let as_of = number("as_of")?.map(Tick);
    let timeout = number("timeout_ms")?.map(Duration::from_millis);
    // Asking for a tick with a timeout is asking to wait for it; without one, a tick that is not complete is an error.
    let at_least = number("at_least")?.map(Tick).max(as_of.filter(|_| timeout.is_some()));
    Ok(Read { view, query, as_of, at_least, timeout: timeout.unwrap_or(WAIT_DEFAULT) })
}

async fn views(State(service): State<Shared>) -> Response {
    blocking(move || axum::Json(json!({ "views": service.views() })).into_response()).await
}

async fn status(State(service): State<Shared>) -> Response {
    blocking(move || axum::Json(service.status()).into_response()).await
}

async fn cycle(State(service): State<Shared>, cycle: Cycle) -> Response {
    blocking(move || answer(service.cycle(cycle))).await
}

async fn audit(State(service): State<Shared>) -> Response {
    blocking(move || match service.audit() {
        Ok(audits) => {
            let agree = audits.iter().all(|audit| audit.agrees());
            let status = if agree { StatusCode::OK } else { StatusCode::CONFLICT };
            (status, axum::Json(json!({ "agree": agree, "audits": audits }))).into_response()
        }
        Err(error) => answer::<()>(Err(error)),
    })
    .await
}

/// A page for people: what there is, and links to it.
async fn index(State(service): State<Shared>) -> Response {
    blocking(move || {
        let status = service.status();
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let rows: String = service
            .views()
            .iter()
            .map(|view| {
                let name = escape(&view.name);
                format!(
                    "<tr><td>{name}<td>{}<td>{}<td><a href=\"/v1/views/{name}/top?n=10\">top 10</a> <a href=\"/v1/views/{name}/scan?limit=100\">first 100</a>",
                    escape(&view.key.join(", ")),
                    escape(&view.value.join(", "))
                )
            })
            .collect();
        Html(format!(
            "<!doctype html><meta charset=\"utf-8\"><title>{name}</title>\
             <style>body{{font:16px/1.5 sans-serif;margin:2em;max-width:60em}}td,th{{padding:.2em 1em .2em 0;text-align:left}}</style>\
             <h1>{name}</h1><p>Everything before tick {frontier} is complete; ticks before {base} were computed by the batch layer \
             (generation {generation}). <a href=\"/v1/status\">Status</a></p>\
             <table><tr><th>view<th>key<th>value<th>{rows}</table>",
            name = escape(&status.dataflow),
            frontier = status.frontier.0,
            base = status.base.0,
            generation = status.generation,
        ))
        .into_response()
    })
    .await
}

async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| failure(StatusCode::INTERNAL_SERVER_ERROR, "the request panicked; the server goes on"))
}

fn answer<T: Serialize>(answered: Result<T, ServiceError>) -> Response {
    match answered {
        Ok(body) => axum::Json(body).into_response(),
        Err(error) => failure(status_of(error.kind()), error),
    }
}

fn failure(status: StatusCode, error: impl std::fmt::Display) -> Response {
    let text = error.to_string();
    let (error, hint) = parts(&text);
    (status, axum::Json(json!({ "error": error, "hint": hint }))).into_response()
}

/// What is wrong, and the hint.
fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once("\n  hint: ").map_or((text, None), |(error, hint)| (error, Some(hint)))
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NoSuchView => StatusCode::NOT_FOUND,
        ErrorKind::Format => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Gone => StatusCode::GONE,
        ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::OutOfSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
