//! `lambdaflow run`: a server until it is told to stop.

use std::io::Write;
use std::time::Duration;

use crate::log::Event;
use crate::runtime::{Program, Server, ServerOptions};

use super::Failure;
use super::arguments::Run;
use super::runnable::open;

/// How often a server looks whether it can go on.
const HEALTH_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run<E: Event>(program: &Program<E>, arguments: &Run) -> Result<u8, Failure> {
    if !arguments.listen.ip().is_loopback() && !arguments.insecure {
        return Err(Failure::usage(format!(
            "{} can be reached from other machines, and there is no authentication\n  hint: listen on 127.0.0.1, or say --insecure",
            arguments.listen
        )));
    }
    // Taken first, so that a second server on the port does no work in vain.
    let listener = std::net::TcpListener::bind(arguments.listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Failure::new(format!("{} is in use by another process\n  hint: --listen 127.0.0.1:0 takes a free port", arguments.listen), 6)
        }
        _ => Failure::usage(format!("cannot listen on {}: {error}", arguments.listen)),
    })?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;

    let log = open::<E>(&arguments.log, arguments.durability)?;
    let options = ServerOptions {
        workers: arguments.workers,
        tick: arguments.tick.max(Duration::from_millis(1)),
        batch_interval: (!arguments.batch_interval.is_zero()).then_some(arguments.batch_interval),
        history: arguments.history,
        batch_events: arguments.batch_events,
        keep_generations: arguments.keep_generations,
    };
    let server = Server::start(program.clone(), log, options)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let fatal = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(crate::http::serve(listener, server.service(), async {
            let _ = stopped.await;
        }));
        writeln!(std::io::stderr(), "{}\nserving on http://{address}", server.started())?;
        let fatal = tokio::select! {
            () = told_to_stop() => None,
            fatal = cannot_go_on(&server) => Some(fatal),
        };
        let _ = stop.send(());
        // Requests that wait for a tick may take long; a second signal does not wait for them.
        tokio::select! {
            _ = serving => {},
            () = told_to_stop() => {},
            () = tokio::time::sleep(Duration::from_secs(2)) => {},
        }
        Ok::<_, std::io::Error>(fatal)
    })?;
    runtime.shutdown_timeout(Duration::from_millis(500));
    match fatal {
        Some((message, code)) => Err(Failure::new(message, code)),
        None => {
            server.close()?;
            Ok(0)
        }
    }
}

async fn cannot_go_on<E: Event>(server: &Server<E>) -> (String, u8) {
    loop {
        if let Some(fatal) = server.fatal() {
            return fatal;
        }
        tokio::time::sleep(HEALTH_PAUSE).await;
    }
}

/// Ctrl-C, or a polite request to end.
async fn told_to_stop() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {},
        () = terminate => {},
    }
}
