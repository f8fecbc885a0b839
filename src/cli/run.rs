//! `lambdaflow run`: a server until it is told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::http::THREADS_MAX;
use crate::log::{Event, LogOptions};
use crate::runtime::{Program, Server, ServerOptions};

use super::Failure;
use super::arguments::Run;
use super::cluster::explain;
use super::runnable::open;

/// How often a server looks whether it can go on.
const HEALTH_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run<E: Event>(program: &Program<E>, arguments: &Run) -> Result<u8, Failure> {
    if !arguments.listen.ip().is_loopback() && !arguments.processes.insecure {
        return Err(Failure::usage(format!(
            "{} can be reached from other machines, and there is no authentication\n  hint: listen on 127.0.0.1, or say --insecure",
            arguments.listen
        )));
    }
    let listen = listen_address(arguments)?;
    // Taken first, so that a second server on the port does no work in vain.
    let listener = std::net::TcpListener::bind(listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Failure::new(format!("{listen} is in use by another process\n  hint: --listen 127.0.0.1:0 takes a free port"), 6)
        }
        _ => Failure::usage(format!("cannot listen on {listen}: {error}")),
    })?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;

    let options = ServerOptions {
        workers: arguments.processes.workers,
        tick: arguments.tick.max(Duration::from_millis(1)),
        batch_interval: (!arguments.batch_interval.is_zero()).then_some(arguments.batch_interval),
        history: arguments.history,
        batch_events: arguments.batch_events,
        keep_generations: arguments.keep_generations,
        exchange: arguments.processes.exchange,
    };
    let stopping = Arc::new(AtomicBool::new(false));
    let log_options = LogOptions { durability: arguments.durability.into(), ..LogOptions::default() };
    let id = || Server::program_id(program, &log_options, &options);
    let cluster = arguments.processes.join(id, &stopping)?;
    let server = match &cluster {
        Some(cluster) => {
            let started = Server::start_in(cluster, program.clone(), &arguments.log, log_options, options);
            explain(cluster, &stopping, started)?
        }
        None => Server::start(program.clone(), open::<E>(&arguments.log, arguments.durability)?, options)?,
    };

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(THREADS_MAX).enable_all().build()?;
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
        while stopping.swap(true, Ordering::AcqRel) {
            // The process is about to end, because another one is lost; that says more.
            tokio::time::sleep(HEALTH_PAUSE).await;
        }
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
        Some((message, code)) => {
            if let Some(cluster) = &cluster {
                cluster.leave(&message);
                // Its threads wait for workers that wait for the other processes. The process ends instead.
                std::mem::forget(server);
            }
            Err(Failure::new(message, code))
        }
        None => {
            server.close()?;
            Ok(0)
        }
    }
}

/// The address of this process: the next port for each process before it on the same machine.
fn listen_address(arguments: &Run) -> Result<SocketAddr, Failure> {
    let mut listen = arguments.listen;
    let place = arguments.processes.membership()?.place_on_host();
    if listen.port() != 0 {
        let port = listen.port().checked_add(place).ok_or_else(|| Failure::usage("there is no such port\n  hint: choose a smaller one"))?;
        listen.set_port(port);
    }
    Ok(listen)
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
