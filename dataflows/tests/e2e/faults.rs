//! Faults of the program's surroundings: outputs that cannot be written, clocks, limits, signals.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lambdaflow_dataflows::web_analytics::Request;

use super::harness::*;

/// Open files that the starved server may have.
const FILES_MAX: u64 = 96;
/// By how much the clock is set back.
const BACK: &str = "-1h";

/// A command behind another, as `sh` starts it.
fn behind(script: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    wrapped.env_remove("LAMBDAFLOW_TO").env_remove("LAMBDAFLOW_LOG");
    wrapped
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_none() {
    if !Path::new("/dev/full").exists() {
        return skip("output_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_none", "no /dev/full");
    }
    let dir = Dir::new();
    let log = dir.at("log");
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], lines(3_000)).exits(0);
    let commands: [&[&str]; 4] = [
        &["log", "cat", "--dataflow", "web_analytics", &log],
        &["log", "info", &log],
        &["generate", "web_analytics", "--events", "3000"],
        &["list"],
    ];
    for arguments in commands {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let output = program(arguments).stdout(full).stderr(Stdio::piped()).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {stderr}");
        assert!(stderr.contains("No space left") || stderr.contains("no space"), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = program(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_file_size_limit_is_an_error_and_what_was_acknowledged_stays() {
    let dir = Dir::new();
    let log = dir.at("log");
    let first = lines(100);
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], first).exits(0);
    let input = dir.file("input", lines(20_000));
    let limited = behind("ulimit -f 200", &program(["ingest", "web_analytics", "--log", &log, &input]));
    start(limited, "").wait().exits(5).says(&["File too large", &log]);
    lambdaflow(["log", "verify", &log]).exits(0);
    assert!(events_in(&log) >= 100);
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], lines(10)).exits(0);
}

#[test]
fn a_second_signal_ends_a_server_that_still_answers_and_the_log_is_whole() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let dir = Dir::new();
        let log = dir.at("log");
        let server = Serving::start(&log, &[]);
        let events: Vec<Request> = (0..50).map(event).collect();
        server.append(&events);
        // Half a request: the server waits for the rest of it until it is told a second time.
        let mut half = TcpStream::connect(server.url.trim_start_matches("http://")).expect("it listens");
        half.write_all(b"POST /v1/events HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n{").expect("a connection");
        signal(first, server.process.id());
        eventually("it no longer listens", || TcpStream::connect(server.url.trim_start_matches("http://")).is_err().then_some(()));
        signal(second, server.process.id());
        server.process.wait().exits(0);
        assert!(lambdaflow(["log", "info", &log]).exits(0).out.contains(", closed\n"));
        assert_eq!(cat(&log), events);
    }
}

/// The library that sets a process's clock, where Debian or others put it.
fn faketime() -> Option<PathBuf> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    places.iter().map(|place| Path::new(place).join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

#[test]
fn a_clock_set_back_an_hour_takes_no_tick_and_no_answer_back() {
    const NAME: &str = "a_clock_set_back_an_hour_takes_no_tick_and_no_answer_back";
    let Some(library) = faketime() else {
        return skip(NAME, "libfaketime is not installed");
    };
    let dir = Dir::new();
    let log = dir.at("log");
    let frontier = |server: &Serving| server.get("/v1/views/hits/scan", &[("limit", "1")]).ok()["frontier"].as_u64().expect("a tick");
    let server = Serving::start(&log, &[]);
    let token = server.append(&[event(0)]);
    server.get("/v1/views/hits/scan", &[("at_least", &token.to_string())]).ok();
    let before = frontier(&server);
    server.stop();

    let mut command = program(["run", "web_analytics", "--listen", "127.0.0.1:0", "--log", &log]);
    command.env("LD_PRELOAD", &library).env("FAKETIME", BACK).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let server = Serving::from(start(command, ""));
    let now = frontier(&server);
    assert!(now >= before, "the frontier was {before}, and after the clock was set back {now}");
    // Well under an hour later than before: ticks go on from where they were, at the pace of `--tick`, not at the clock's.
    let after = server.append(&[event(1)]);
    assert!(after >= before && after < before + 600_000, "token {after} after frontier {before}");
    let hits = server.get("/v1/views/hits/scan", &[("at_least", &after.to_string())]).ok();
    assert_eq!(hits["rows"].as_array().expect("rows").len(), 2, "{hits}");
    assert!(frontier(&server) > after);
    server.stop();

    // And with the true clock again.
    let server = Serving::start(&log, &[]);
    assert!(server.append(&[event(2)]) > after);
    server.stop();
    assert_eq!(cat(&log), [event(0), event(1), event(2)]);
}

#[test]
fn idle_connections_take_no_file_from_the_log_and_newcomers_wait() {
    let dir = Dir::new();
    let log = dir.at("log");
    let server = Serving::from(start(
        behind(&format!("ulimit -n {FILES_MAX}"), &program(["run", "web_analytics", "--listen", "127.0.0.1:0", "--log", &log])),
        "",
    ));
    server.append(&[event(0)]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let idle: Vec<TcpStream> = (0..FILES_MAX).map(|_| TcpStream::connect(&address).expect("the kernel takes connections")).collect();
    // Whoever is connected goes on, and the log goes on writing its mark, for which it opens a file, every few seconds.
    let marked = || std::fs::metadata(dir.path("log/mark")).and_then(|mark| mark.modified()).expect("a log has a mark");
    let (mut n, first) = (1, marked());
    while marked() == first {
        server.append(&[event(n)]);
        n += 1;
    }
    assert!(server.get("/v1/status", &[]).status == 200);
    // A newcomer is answered once others have left.
    let mut newcomer = TcpStream::connect(&address).expect("the kernel takes connections");
    newcomer.write_all(b"GET /v1/views HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").expect("a connection");
    newcomer.set_nonblocking(true).expect("a connection");
    let early = newcomer.read(&mut [0; 16]);
    assert!(early.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "more connections than there may be");
    newcomer.set_nonblocking(false).expect("a connection");
    drop(idle);
    newcomer.set_read_timeout(Some(PATIENCE)).expect("a connection");
    let mut answer = String::new();
    newcomer.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop();
    assert_eq!(events_in(&log), n);
}
