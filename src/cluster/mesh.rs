//! Connections: one process listens, the one with the greater number dials, and both know for what.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use crate::log::frame::LogId;

use super::frame::{Frame, Kind, encode, read};
use super::hello::{Channel, HANDSHAKE_TIMEOUT, Hello, ProgramId, Reply, difference, is_taken, receive, send, take};
use super::hosts::Membership;
use super::{ClusterError, ClusterOptions};

/// Handshakes that go on at a time; further strangers are turned away without one.
const HANDSHAKES_MAX: usize = 64;
/// Pause between two attempts to dial.
const REDIAL: Duration = Duration::from_millis(50);
/// The same after a process answered that it does not want this one now.
const REFUSED_REDIAL: Duration = Duration::from_millis(500);
/// How long to wait for a connection of a graph, if nobody is lost and nobody gives up.
const GRAPH_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How long a process that gives up waits for others to have heard why.
const DISMISSAL: Duration = Duration::from_millis(500);
/// Pause between probes of a connection on which nothing is said yet, and how many may stay without an answer.
const PROBE_PAUSE: Duration = Duration::from_secs(2);
const PROBES: u32 = 3;
/// How often someone who waits looks whether there is still something to wait for.
const POLL: Duration = Duration::from_millis(20);

/// This process among the others.
pub(super) struct Mesh {
    pub membership: Membership,
    hello: Hello,
    state: Mutex<State>,
    changed: Condvar,
    handshakes: AtomicUsize,
    listens_on: SocketAddr,
    /// The thread that accepts; with it goes the listener.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    met: BTreeMap<usize, Met>,
    /// By process, why it was not met, or is not there any more.
    heard: BTreeMap<usize, String>,
    graphs: BTreeMap<(String, u64, usize), TcpStream>,
    /// A process that is started differently tried to join.
    mismatch: Option<String>,
    /// Why no connection will be made any more.
    over: Option<String>,
    /// All were met, once and for all.
    started: bool,
}

/// A process that came.
struct Met {
    /// Which life of it.
    life: String,
    /// The connection to talk on, until all have come.
    talk: Option<TcpStream>,
}

impl Mesh {
    /// Listens, and meets all other processes. Returns with the connections to talk on.
    pub fn meet(options: &ClusterOptions, program: ProgramId) -> Result<(Arc<Self>, BTreeMap<usize, TcpStream>), ClusterError> {
        let membership = options.membership.clone();
        let (listener, listens_on) = listen(&membership)?;
        let hello = Hello {
            token: options.token.clone(),
            process: membership.process,
            workers: membership.workers,
            addresses: membership.addresses.clone(),
            program,
            life: LogId::random().to_string(),
            channel: Channel::Talk,
        };
        let mesh = Arc::new(Self {
            membership,
            hello,
            state: Mutex::default(),
            changed: Condvar::new(),
            handshakes: AtomicUsize::new(0),
            listens_on,
            accepting: Mutex::default(),
        });
        let accepting = Arc::clone(&mesh);
        let spawned = std::thread::Builder::new().name("cluster-accept".to_owned()).spawn(move || accepting.accept(listener));
        let spawned = spawned.map_err(|error| ClusterError::Hosts(format!("cannot start a thread: {error}")))?;
        *mesh.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(spawned);
        let talk = mesh.meet_all(options.connect_timeout).inspect_err(|error| mesh.give_up(error))?;
        Ok((mesh, talk))
    }

    /// Ends a start that failed. Those who have met this process already, and may have met all others, hear why.
    fn give_up(&self, error: &ClusterError) {
        let error = error.to_string();
        // The rest are hints for whoever started this process.
        let reason = error.lines().next().unwrap_or_default();
        self.close(reason);
        let met = std::mem::take(&mut self.lock().met);
        dismiss(met.into_values().filter_map(|met| met.talk).collect(), reason);
    }

    /// Keeps the connection to talk on. The latest life of a process counts, until all have come: an earlier one may be gone
    /// without a trace, with its machine.
    fn met(&self, process: usize, life: String, stream: TcpStream) {
        let mut state = self.lock();
        if let Some(over) = state.over.clone() {
            drop(state);
            return dismiss(vec![stream], &over);
        }
        if !state.started {
            probe(&stream, true);
            state.met.insert(process, Met { life, talk: Some(stream) });
        }
    }

    /// Forgets whoever came and is gone again: it may come back, as another life of it.
    fn forget_the_gone(self: &Arc<Self>, state: &mut State, deadline: Instant) -> Result<(), ClusterError> {
        let gone = state.met.extract_if(.., |_, met| met.talk.as_ref().is_some_and(has_ended));
        let gone: Vec<(usize, Option<TcpStream>)> = gone.map(|(process, met)| (process, met.talk)).collect();
        for (process, stream) in gone {
            let why = stream.and_then(last_words).map_or("it came, and is gone".to_owned(), |why| format!("it gave up: {why}"));
            tracing::warn!("{}: {why}", self.membership.name(process));
            state.heard.insert(process, why);
            if process < self.membership.process {
                self.look_for(process, deadline)?;
            }
        }
        Ok(())
    }

    /// Dials a process until it is met.
    fn look_for(self: &Arc<Self>, process: usize, deadline: Instant) -> Result<(), ClusterError> {
        let mesh = Arc::clone(self);
        let dial = move || {
            let dialled = mesh.dial(process, &Channel::Talk, deadline, &|| mesh.lock().over.is_some());
            match dialled {
                Ok((stream, life)) => mesh.met(process, life, stream),
                Err(Dialled::Refused(reason)) => drop(mesh.lock().mismatch.get_or_insert(reason)),
                Err(Dialled::Failed(reason)) => drop(mesh.lock().heard.insert(process, reason)),
            }
            mesh.changed.notify_all();
        };
        let spawned = std::thread::Builder::new().name("cluster-dial".to_owned()).spawn(dial);
        spawned.map(drop).map_err(|error| ClusterError::Hosts(format!("cannot start a thread: {error}")))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps why a process was not met; whether that is new.
    fn hear(&self, process: usize, why: String) -> bool {
        let mut state = self.lock();
        let known = state.heard.get(&process) == Some(&why);
        state.heard.insert(process, why);
        !known
    }

    fn meet_all(self: &Arc<Self>, patience: Duration) -> Result<BTreeMap<usize, TcpStream>, ClusterError> {
        let deadline = Instant::now() + patience;
        for process in 0..self.membership.process {
            self.look_for(process, deadline)?;
        }
        let mut state = self.lock();
        loop {
            if let Some(reason) = &state.mismatch {
                return Err(ClusterError::Mismatch(reason.clone()));
            }
            self.forget_the_gone(&mut state, deadline)?;
            let others = (0..self.membership.processes()).filter(|process| *process != self.membership.process);
            let missing: Vec<usize> = others.filter(|process| !state.met.contains_key(process)).collect();
            if missing.is_empty() {
                state.started = true;
                let met = state.met.iter_mut().filter_map(|(process, met)| Some((*process, met.talk.take()?)));
                // From now on there are beats.
                return Ok(met.inspect(|(_, stream)| probe(stream, false)).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let name = |process: &usize| match state.heard.get(process) {
                    Some(reason) => format!("{}: {reason}", self.membership.name(*process)),
                    None => self.membership.name(*process),
                };
                let missing = missing.iter().map(name).collect::<Vec<_>>().join(", ");
                return Err(ClusterError::Absent { missing, waited: patience });
            }
            state = self.changed.wait_timeout(state, left.min(REDIAL)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Why no connection is made any more, once that is so.
    pub fn over(&self) -> Option<String> {
        self.lock().over.clone()
    }

    /// Makes no connection from now on, and lets nobody wait for one.
    pub fn close(&self, why: &str) {
        let open = {
            let mut state = self.lock();
            let open = state.over.is_none();
            state.over.get_or_insert(why.to_owned());
            open
        };
        self.changed.notify_all();
        if open {
            // Wakes whoever accepts.
            let mut address = self.listens_on;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
            }
            let woken = TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT).is_ok();
            let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(accepting) = accepting.filter(|_| woken) {
                let _ = accepting.join();
            }
        }
    }

    fn accept(self: Arc<Self>, listener: TcpListener) {
        for stream in listener.incoming() {
            if self.lock().over.is_some() {
                return;
            }
            let Ok(stream) = stream else {
                // Out of files, most likely: there may be some again.
                std::thread::sleep(REDIAL);
                continue;
            };
            if self.handshakes.fetch_add(1, Ordering::AcqRel) >= HANDSHAKES_MAX {
                self.handshakes.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let mesh = Arc::clone(&self);
            let spawned = std::thread::Builder::new().name("cluster-hello".to_owned()).spawn(move || {
                mesh.greet(stream);
                mesh.handshakes.fetch_sub(1, Ordering::AcqRel);
            });
            if spawned.is_err() {
                self.handshakes.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Answers a stranger.
    fn greet(&self, mut stream: TcpStream) {
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let from = stream.peer_addr().map_or_else(|_| "somebody".to_owned(), |address| address.to_string());
        let hello: Hello = match receive(&mut stream, deadline) {
            Ok(hello) => hello,
            Err(error) => {
                tracing::warn!(from, %error, "a stray connection to the cluster's address was closed");
                return;
            }
        };
        // Told before the connection is given away: whoever takes it may write to it at once.
        let reply = self.judge(&hello);
        if let Reply::Refused { reason, .. } = &reply {
            // Whoever may come later asks again and again: that is said once.
            let number = hello.process;
            if number >= self.membership.processes() || self.hear(number, format!("who calls itself so was refused: {reason}")) {
                tracing::warn!(from, reason, "a connection to the cluster's address was refused");
            }
        }
        let welcome = matches!(reply, Reply::Welcome { .. });
        let answered = send(&mut stream, &reply, deadline);
        let ready = welcome && answered.is_ok() && is_taken(&mut stream, deadline).is_ok() && stream.set_nodelay(true).is_ok();
        match hello.channel {
            _ if !welcome => {}
            // What another life of the process left behind is not taken for this one.
            Channel::Talk if ready && !has_ended(&stream) => self.met(hello.process, hello.life, stream),
            Channel::Graph { name, number, .. } if ready => drop(self.lock().graphs.insert((name, number, hello.process), stream)),
            Channel::Talk | Channel::Graph { .. } => {}
        }
        self.changed.notify_all();
    }

    fn judge(&self, hello: &Hello) -> Reply {
        let refused = |reason: String, later: bool| Reply::Refused { reason, later };
        let mut state = self.lock();
        if hello.token != self.hello.token {
            return refused("another cluster listens here: the tokens differ".to_owned(), true);
        }
        if let Some(over) = &state.over {
            return refused(over.clone(), true);
        }
        if let Some(difference) = difference(&self.hello, hello) {
            // Those who run already are not disturbed by a newcomer.
            if !state.started {
                state.mismatch.get_or_insert(difference.clone());
            }
            return refused(difference, false);
        }
        if hello.process <= self.membership.process || hello.process >= self.membership.processes() {
            return refused(format!("process {} has no business with process {}", hello.process, self.membership.process), false);
        }
        match (&hello.channel, state.met.get(&hello.process)) {
            (Channel::Talk, _) if state.started => {
                refused(format!("there is a process {} already, and a cluster starts again as a whole", hello.process), true)
            }
            (Channel::Talk, _) => Reply::Welcome { life: self.hello.life.clone() },
            (Channel::Graph { to, .. }, Some(met)) if met.life == hello.life && *to == self.hello.life => {
                Reply::Welcome { life: self.hello.life.clone() }
            }
            // It has met this process, which has yet to note that.
            (Channel::Graph { to, .. }, None) if *to == self.hello.life => refused("it was not met yet".to_owned(), true),
            (Channel::Graph { .. }, _) => refused("it belongs to an earlier run of the cluster".to_owned(), false),
        }
    }

    /// Connects to a process with a smaller number; returns which life of it answered.
    fn dial(
        &self,
        process: usize,
        channel: &Channel,
        deadline: Instant,
        given_up: &dyn Fn() -> bool,
    ) -> Result<(TcpStream, String), Dialled> {
        loop {
            let (reason, pause) = match self.try_dial(process, channel, deadline) {
                Ok((stream, Reply::Welcome { life })) => {
                    stream.set_nodelay(true).map_err(|error| Dialled::Failed(error.to_string()))?;
                    return Ok((stream, life));
                }
                Ok((_, Reply::Refused { reason, later: false })) => return Err(Dialled::Refused(reason)),
                Ok((_, Reply::Refused { reason, later: true })) => {
                    let reason = format!("it refuses this process: {reason}");
                    if self.hear(process, reason.clone()) {
                        tracing::warn!("{}: {reason}", self.membership.name(process));
                    }
                    (reason, REFUSED_REDIAL)
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => ("nobody listens there".to_owned(), REDIAL),
                Err(error) => (error.to_string(), REDIAL),
            };
            if Instant::now() + pause >= deadline || given_up() {
                return Err(Dialled::Failed(reason));
            }
            self.hear(process, reason);
            std::thread::sleep(pause);
        }
    }

    fn try_dial(&self, process: usize, channel: &Channel, deadline: Instant) -> std::io::Result<(TcpStream, Reply)> {
        let deadline = deadline.min(Instant::now() + HANDSHAKE_TIMEOUT);
        let mut refused = std::io::Error::other("the name has no address");
        let mut connected = None;
        for address in self.membership.addresses[process].to_socket_addrs()? {
            let left = deadline.saturating_duration_since(Instant::now()).max(REDIAL);
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => refused = error,
            }
        }
        let Some(mut stream) = connected else { return Err(refused) };
        send(&mut stream, &Hello { channel: channel.clone(), ..self.hello.clone() }, deadline)?;
        let reply = receive(&mut stream, deadline)?;
        if let Reply::Welcome { .. } = reply {
            take(&mut stream, deadline)?;
        }
        Ok((stream, reply))
    }

    /// A connection to each other process for the workers of a graph: see [`crate::layers::Links`]. A process may have a lot to do
    /// before it asks for its end; if it is gone, that is noticed elsewhere.
    pub fn connect(&self, name: &str, number: u64, stop: &AtomicBool) -> Result<Vec<Option<TcpStream>>, String> {
        let deadline = Instant::now() + GRAPH_PATIENCE;
        // What is left of graphs that were given up.
        self.lock().graphs.retain(|(other, old, _), _| other != name || *old >= number);
        let mut streams: Vec<Option<TcpStream>> = Vec::new();
        let given_up = || stop.load(Ordering::Acquire) || self.lock().over.is_some();
        for process in 0..self.membership.process {
            let to = self.lock().met.get(&process).map(|met| met.life.clone()).unwrap_or_default();
            let channel = Channel::Graph { name: name.to_owned(), number, to };
            match self.dial(process, &channel, deadline, &given_up) {
                Ok((stream, _)) => streams.push(Some(stream)),
                Err(Dialled::Refused(reason) | Dialled::Failed(reason)) => {
                    return Err(format!("no connection to {} for {name} {number}: {reason}", self.membership.name(process)));
                }
            }
        }
        streams.push(None);
        let mut state = self.lock();
        for process in self.membership.process + 1..self.membership.processes() {
            loop {
                if let Some(stream) = state.graphs.remove(&(name.to_owned(), number, process)) {
                    streams.push(Some(stream));
                    break;
                }
                if let Some(over) = &state.over {
                    return Err(over.clone());
                }
                if stop.load(Ordering::Acquire) || Instant::now() >= deadline {
                    return Err(format!("{} did not connect for {name} {number}", self.membership.name(process)));
                }
                state = self.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        Ok(streams)
    }
}

/// Says why to processes that count on this one, and waits a moment until they have gone: what was said is lost when a
/// connection ends that has something unread.
fn dismiss(mut streams: Vec<TcpStream>, why: &str) {
    let why = serde_json::to_vec(why).expect("texts can be written as JSON");
    let goodbye = encode(Kind::Goodbye, 0, &why, &[]).expect("it is short");
    let deadline = Instant::now() + DISMISSAL;
    let left = || deadline.saturating_duration_since(Instant::now()).max(POLL);
    streams.retain_mut(|stream| {
        let said = stream.set_write_timeout(Some(left())).and_then(|()| stream.write_all(&goodbye));
        said.and_then(|()| stream.shutdown(Shutdown::Write)).is_ok()
    });
    for mut stream in streams {
        while Instant::now() < deadline
            && stream.set_read_timeout(Some(left())).and_then(|()| stream.read(&mut [0; 4096])).is_ok_and(|bytes| bytes > 0)
        {}
    }
}

/// Has the system find out whether the other side of a connection is still there, though nothing is said on it: a machine that lost
/// power does not end its connections. Where that cannot be had, nobody is worse off than before.
fn probe(stream: &TcpStream, probed: bool) {
    let _ = sockopt::set_tcp_keepidle(stream, PROBE_PAUSE)
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, PROBE_PAUSE))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, PROBES))
        .and_then(|()| sockopt::set_socket_keepalive(stream, probed));
}

/// Whether the other side has ended a connection. What it said before may still be there to be read.
fn has_ended(stream: &TcpStream) -> bool {
    #[cfg(target_os = "linux")]
    const ENDED: PollFlags = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    const ENDED: PollFlags = PollFlags::HUP;
    let mut polled = [PollFd::new(stream, ENDED)];
    poll(&mut polled, Some(&Timespec::default())).is_ok() && !polled[0].revents().is_empty()
}

/// Why a process ended a connection, if it said so.
fn last_words(mut stream: TcpStream) -> Option<String> {
    loop {
        let Frame { kind, head, .. } = read(&mut stream, &|| ()).ok()?;
        if kind == Kind::Goodbye {
            return serde_json::from_slice(&head).ok();
        }
    }
}

/// Why a process was not reached.
enum Dialled {
    /// It answered, and does not want this process.
    Refused(String),
    /// It did not answer.
    Failed(String),
}

/// Listens on the first address of this process's name that this machine has. One that is taken is not passed over: the others
/// would find whoever took it.
fn listen(membership: &Membership) -> Result<(TcpListener, SocketAddr), ClusterError> {
    let (address, process) = (membership.own_address().to_owned(), membership.process);
    let bind = |one: &SocketAddr| TcpListener::bind(one).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let listened = address.to_socket_addrs().and_then(|all| {
        let mut unknown = std::io::Error::other("the name has no address");
        for one in all {
            match bind(&one) {
                Ok((listens_on, listener)) => return Ok((listener, listens_on)),
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => unknown = error,
                Err(error) => return Err(error),
            }
        }
        Err(unknown)
    });
    listened.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => ClusterError::InUse { address, process },
        _ => ClusterError::Listen { address, process, reason: error.to_string() },
    })
}
