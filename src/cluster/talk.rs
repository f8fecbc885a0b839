//! What processes say to each other: requests and their answers, statements at the start, beats, who was lost, and a goodbye.
//!
//! Beats are sent all the time, with the tick that the process has come to. A process counts as lost when its connection ends,
//! when nothing is heard of it for too long, when its tick stands still for as long while this one's goes on (then it cannot do
//! its work, though it has a thread that says it is there), or when a connection on which rows are exchanged with it breaks.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Select, Sender, bounded, unbounded};
use rustix::net::sockopt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Kind, MESSAGE_BYTES_MAX, READ_BYTES, encode, read};
use super::hello::ProgramId;
use super::mesh::Mesh;
use super::pace::{Pace, SharedPace, Standing};
use super::{ClusterError, ClusterOptions, Membership};
use crate::layers::{Crew, Links, is_broken_exchange};

/// How often a process says that it is there, at the least.
const BEAT: Duration = Duration::from_millis(50);
/// How long a process that stops tries to get its last messages out.
const FLUSH: Duration = Duration::from_millis(500);
/// No moment.
const NEVER: u64 = u64::MAX;
/// Messages that wait to be sent to one process; whoever has more waits.
const OUTGOING_MAX: usize = 1024;
/// How long it may take until a loss is noticed, once connections are broken; no longer than half the peer timeout.
const LOSS_PATIENCE: Duration = Duration::from_secs(5);
/// How many times the peer timeout rows may be on their way. Where packets are lost, TCP repeats one after longer and longer pauses:
/// whether the network is gone is judged by beats, and only a connection that nothing passes while those do ends after this.
const ROWS_PATIENCE: u32 = 2;
/// Longest pause between probes of a connection that Linux takes.
const PROBES_SECONDS_MAX: u64 = 32_767;

/// Carries out what other processes ask.
pub trait Handler: Send + Sync {
    /// Answers a request of process `from`, in JSON as it was asked.
    fn answer(&self, from: usize, request: &[u8], body: &[u8]) -> Vec<u8>;
}

/// An answer, in JSON.
pub type Answer = Vec<u8>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The process is gone.
    #[error(transparent)]
    Lost(#[from] ClusterError),
    /// It did not answer in time.
    #[error("{process} did not answer within {} ms", .waited.as_millis())]
    Late {
        /// Number and address.
        process: String,
        /// How long it had.
        waited: Duration,
    },
    /// It could not answer.
    #[error("{process} cannot answer: {why}")]
    Failed {
        /// Number and address.
        process: String,
        /// What it said.
        why: String,
    },
    /// This process stops, and waits for nobody.
    #[error("the process stops")]
    Stopping,
}

/// This process's part of a cluster. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    mesh: Arc<Mesh>,
    peers: Vec<Option<Peer>>,
    started: Instant,
    connect_timeout: Duration,
    peer_timeout: Duration,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Sender<Answered>>>,
    handler: OnceLock<Arc<dyn Handler>>,
    pace: SharedPace,
    state: Mutex<State>,
    changed: Condvar,
    leaving: AtomicBool,
    /// Nobody waits for anything any more.
    stopping: AtomicBool,
}

/// What became of a request, or why there is no answer.
type Answered = Result<Answer, String>;

/// How a process was lost, for the others.
#[derive(Serialize, Deserialize)]
struct Loss {
    why: String,
    stopped: bool,
}

#[derive(Default)]
struct State {
    lost: Option<ClusterError>,
    broken: Option<Broken>,
}

/// A connection on which rows are exchanged broke.
#[derive(Clone)]
struct Broken {
    /// To which process.
    process: usize,
    why: String,
    since: Instant,
}

struct Peer {
    outgoing: Sender<Vec<u8>>,
    /// Messages that were not written yet.
    unsent: AtomicUsize,
    /// Nothing can be written any more.
    unreachable: AtomicBool,
    statements: Receiver<Vec<u8>>,
    stream: TcpStream,
    /// Milliseconds after the start when something was last heard; none as long as it is [`NEVER`].
    heard: AtomicU64,
    pace: SharedPace,
    /// It has nothing left to do, and may go.
    done: AtomicBool,
    /// It knows that this process has nothing left to do, or is gone and does not care.
    knows_done: AtomicBool,
}

impl Cluster {
    /// Meets all other processes. Whatever they ask waits until [`Cluster::handle`] is called.
    pub fn join(options: &ClusterOptions, program: ProgramId) -> Result<Self, ClusterError> {
        let (mesh, mut streams) = Mesh::meet(options, program)?;
        let processes = mesh.membership.processes();
        let (mut peers, mut threads) = (Vec::new(), Vec::new());
        for process in 0..processes {
            let Some(stream) = streams.remove(&process) else {
                peers.push(None);
                continue;
            };
            let clone = || stream.try_clone().map_err(|error| ClusterError::Hosts(format!("a connection cannot be used: {error}")));
            let (outgoing, queue) = bounded(OUTGOING_MAX);
            let (said, statements) = unbounded();
            threads.push((process, clone()?, clone()?, queue, said));
            peers.push(Some(Peer {
                outgoing,
                statements,
                stream,
                heard: AtomicU64::new(NEVER),
                pace: SharedPace::default(),
                done: AtomicBool::new(false),
                knows_done: AtomicBool::new(false),
                unsent: AtomicUsize::new(0),
                unreachable: AtomicBool::new(false),
            }));
        }
        let inner = Arc::new(Inner {
            mesh,
            peers,
            started: Instant::now(),
            connect_timeout: options.connect_timeout,
            peer_timeout: options.peer_timeout,
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            handler: OnceLock::new(),
            pace: SharedPace::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        for (process, reading, writing, queue, said) in threads {
            let (reader, writer) = (Arc::clone(&inner), Arc::clone(&inner));
            spawn(&format!("cluster-hear-{process}"), move || reader.hear(process, reading, &said))?;
            spawn(&format!("cluster-say-{process}"), move || writer.say(process, writing, &queue))?;
        }
        let watched = Arc::clone(&inner);
        spawn("cluster-watch", move || watched.watch())?;
        Ok(Self { inner })
    }

    /// Who takes part.
    pub fn membership(&self) -> &Membership {
        &self.inner.mesh.membership
    }

    /// The workers of all its processes, who exchange rows on its connections.
    pub fn crew(&self) -> Crew {
        let Membership { process, workers, .. } = *self.membership();
        Crew::new(workers, process, self.membership().processes(), Arc::new(self.clone()))
    }

    /// Number and address of a process.
    pub fn name(&self, process: usize) -> String {
        self.membership().name(process)
    }

    /// Answers from now on what other processes ask.
    pub fn handle(&self, handler: Arc<dyn Handler>) {
        let _ = self.inner.handler.set(handler);
        // Taken so that whoever looks and then waits is not missed.
        drop(self.inner.lock());
        self.inner.changed.notify_all();
    }

    /// Tells a process something that it waits for with [`Cluster::hear`].
    pub fn tell(&self, process: usize, statement: &impl Serialize) {
        self.inner.send(process, Kind::Statement, 0, &json(statement), &[]);
    }

    /// Tells all others.
    pub fn tell_all(&self, statement: &impl Serialize) {
        self.others().for_each(|process| self.tell(process, statement));
    }

    /// Waits for the next statement of a process.
    pub fn hear<T: DeserializeOwned>(&self, process: usize) -> Result<T, ClusterError> {
        let Some(peer) = &self.inner.peers[process] else {
            return Err(ClusterError::Hosts("a process does not talk to itself".to_owned()));
        };
        loop {
            match peer.statements.recv_timeout(BEAT) {
                Ok(said) => return serde_json::from_slice(&said).map_err(|error| ClusterError::Mismatch(error.to_string())),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                // Its end is about to be known.
                Err(RecvTimeoutError::Disconnected) => {
                    self.check()?;
                    std::thread::sleep(BEAT);
                }
            }
        }
    }

    /// All processes but this one.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.membership().process;
        (0..self.membership().processes()).filter(move |process| *process != own)
    }

    /// Asks a process, and waits for the answer, at most for `patience`.
    pub fn ask(&self, process: usize, request: &impl Serialize, body: &[u8], patience: Duration) -> Result<Answer, AskError> {
        let asked = self.begin(process, request, body);
        self.finish(process, asked, patience)
    }

    /// Asks a process; [`Cluster::finish`] waits for the answer.
    pub fn begin(&self, process: usize, request: &impl Serialize, body: &[u8]) -> Asked {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = bounded(1);
        self.inner.waiting().insert(number, answered);
        self.inner.send(process, Kind::Request, number, &json(request), body);
        Asked { number, answer, inner: Arc::clone(&self.inner) }
    }

    /// Waits for the answer to what was asked.
    pub fn finish(&self, process: usize, asked: Asked, patience: Duration) -> Result<Answer, AskError> {
        let deadline = Instant::now().checked_add(patience);
        loop {
            let left = deadline.map_or(BEAT, |deadline| deadline.saturating_duration_since(Instant::now()).min(BEAT));
            match asked.answer.recv_timeout(left) {
                Ok(answered) => return answered.map_err(|why| AskError::Failed { process: self.name(process), why }),
                Err(_) => {
                    if self.inner.stopping.load(Ordering::Acquire) {
                        return Err(AskError::Stopping);
                    }
                    self.check()?;
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return Err(AskError::Late { process: self.name(process), waited: patience });
                    }
                }
            }
        }
    }

    /// The process that was lost, if one was.
    pub fn lost(&self) -> Option<ClusterError> {
        self.inner.lock().lost.clone()
    }

    fn check(&self) -> Result<(), ClusterError> {
        self.lost().map_or(Ok(()), Err)
    }

    /// Waits until a process is lost, at most for `patience`.
    pub fn wait_for_loss(&self, patience: Duration) -> Option<ClusterError> {
        self.wait_for_loss_unless(patience, &AtomicBool::new(false))
    }

    fn wait_for_loss_unless(&self, patience: Duration, given_up: &AtomicBool) -> Option<ClusterError> {
        let deadline = Instant::now().checked_add(patience);
        let mut state = self.inner.lock();
        while state.lost.is_none() && !given_up.load(Ordering::Acquire) {
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.inner.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.lost.clone()
    }

    /// The loss behind a failure to exchange rows, if it is one: it takes a moment until it is known which process is gone, or that
    /// none is and a connection broke by itself. Nothing if this process stops meanwhile.
    pub fn broken_by(&self, failure: &str) -> Option<ClusterError> {
        let patience = self.inner.loss_patience() * 2;
        is_broken_exchange(failure).then(|| self.wait_for_loss_unless(patience, &self.inner.stopping)).flatten()
    }

    /// How long ago something was heard of a process.
    pub fn silence(&self, process: usize) -> Duration {
        self.inner.peers[process].as_ref().map_or(Duration::ZERO, |peer| self.inner.silence(peer))
    }

    /// The greatest tick that another process has come to, as far as is known here.
    pub fn tick(&self) -> u64 {
        self.inner.peers.iter().flatten().map(|peer| peer.pace.get().tick).max().unwrap_or(0)
    }

    /// Tells the others, before long, how far this process has come, and how long it pauses until its next tick: a process counts
    /// as lost when it has stood still for that and the peer timeout.
    pub fn set_tick(&self, tick: u64, pause: Duration) {
        self.inner.pace.set(Pace { tick, pause });
    }

    /// Waits until a process has nothing left to do.
    pub fn wait_until_done(&self, process: usize) -> Result<(), ClusterError> {
        self.wait_until(process, |peer| peer.done.load(Ordering::Acquire))
    }

    fn wait_until(&self, process: usize, holds: impl Fn(&Peer) -> bool) -> Result<(), ClusterError> {
        let Some(peer) = &self.inner.peers[process] else { return Ok(()) };
        let mut state = self.inner.lock();
        while !holds(peer) {
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            state = self.inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Ends work that has an end: says that this process has nothing left to do, and waits for the others to say so.
    pub fn part(&self) -> Result<(), ClusterError> {
        self.others().for_each(|process| self.inner.send(process, Kind::Done, 0, &[], &[]));
        self.others().try_for_each(|process| self.wait_until_done(process))?;
        // Whoever does not know it yet would take the end of this process for a loss.
        self.others().try_for_each(|process| self.wait_until(process, |peer| peer.knows_done.load(Ordering::Acquire)))?;
        self.inner.leaving.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until what was said is on its way, also to a process that was given up: it may be there, and hear why.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        let waits = |peer: &Peer| peer.unsent.load(Ordering::Acquire) > 0 && !peer.unreachable.load(Ordering::Acquire);
        while Instant::now() < deadline && self.inner.peers.iter().flatten().any(waits) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for no answer from here on: this process is about to leave.
    pub fn stop_waiting(&self) {
        self.inner.note(&self.inner.stopping);
    }

    /// Says goodbye: the others stop, too, and name the reason. From here on no loss is noticed.
    pub fn leave(&self, reason: &str) {
        self.inner.leaving.store(true, Ordering::Release);
        self.inner.tell_all(Kind::Goodbye, 0, &json(&reason));
        self.inner.mesh.close("the process stops");
        self.flush();
    }

    /// Ends the cluster because its processes must not go on together.
    pub fn abandon(&self, reason: &str) {
        // Said before this process is known to be lost, and ends.
        self.inner.tell_all(Kind::Goodbye, 0, &json(&reason));
        self.inner.lose(self.membership().process, reason.to_owned());
    }

    /// Ends all connections.
    pub fn hang_up(&self) {
        self.inner.leaving.store(true, Ordering::Release);
        self.inner.mesh.close("the process stops");
        self.inner.peers.iter().flatten().for_each(|peer| drop(peer.stream.shutdown(Shutdown::Both)));
    }
}

impl Links for Cluster {
    fn connect(&self, graph: &str, number: u64, stop: &AtomicBool) -> Result<Vec<Option<TcpStream>>, String> {
        let streams = self.inner.mesh.connect(graph, number, stop)?;
        streams.iter().flatten().try_for_each(|stream| {
            let patience = self.inner.peer_timeout.saturating_mul(ROWS_PATIENCE);
            end_when_unheard(stream, patience).map_err(|error| format!("a connection for {graph} cannot be used: {error}"))
        })?;
        Ok(streams)
    }

    fn broke(&self, graph: &str, process: usize, why: &str) {
        let why = format!("the connection for rows of the {graph} graph broke: {why}");
        self.inner.lock().broken.get_or_insert(Broken { process, why, since: Instant::now() });
    }

    fn ended(&self) -> Option<String> {
        let broken = self.inner.lock().broken.clone();
        self.inner.mesh.over().or_else(|| broken.map(|Broken { process, why, .. }| format!("{}: {why}", self.name(process))))
    }
}

/// Has the system end a connection on which nothing is heard for so long: neither that data has arrived nor, when there is none, that
/// the other side is there.
fn end_when_unheard(stream: &TcpStream, patience: Duration) -> std::io::Result<()> {
    let probes = Duration::from_secs((patience.as_secs() / 3).clamp(1, PROBES_SECONDS_MAX));
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, probes)?;
    sockopt::set_tcp_keepintvl(stream, probes)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, i32::try_from(patience.as_millis()).unwrap_or(i32::MAX) as u32)?;
    Ok(())
}

/// Something that was asked. Its answer is waited for until this is dropped.
pub struct Asked {
    number: u64,
    answer: Receiver<Answered>,
    inner: Arc<Inner>,
}

impl Asked {
    /// Whether it is answered, or comes to be within `patience`.
    pub fn is_answered_within(&self, patience: Duration) -> bool {
        let mut answered = Select::new();
        answered.recv(&self.answer);
        answered.ready_timeout(patience).is_ok()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.inner.waiting().remove(&self.number);
    }
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages between processes can be written as JSON")
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ClusterError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| ClusterError::Hosts(format!("cannot start a thread: {error}")))
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Sender<Answered>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message; waits while too many wait already. What is too long to be sent is not answered, and said so.
    fn send(&self, process: usize, kind: Kind, number: u64, head: &[u8], body: &[u8]) {
        let Some(peer) = &self.peers[process] else { return };
        let too_long = || json(&format!("more than {MESSAGE_BYTES_MAX} bytes: ask for less at a time"));
        let message = match (encode(kind, number, head, body), kind) {
            (None, Kind::Answer) => encode(Kind::NoAnswer, number, &too_long(), &[]),
            (None, Kind::Request) => return self.answered(number, Err("the request is too long".to_owned())),
            (message, _) => message,
        };
        let Some(message) = message else { return };
        peer.unsent.fetch_add(1, Ordering::AcqRel);
        // A process that is gone is noticed elsewhere.
        let _ = peer.outgoing.send(message);
    }

    /// Sends a short message if there is room, and waits for nobody.
    fn try_send(&self, process: usize, kind: Kind, number: u64, head: &[u8]) {
        let (Some(peer), Some(message)) = (&self.peers[process], encode(kind, number, head, &[])) else { return };
        peer.unsent.fetch_add(1, Ordering::AcqRel);
        if peer.outgoing.try_send(message).is_err() {
            peer.unsent.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn tell_all(&self, kind: Kind, number: u64, head: &[u8]) {
        (0..self.peers.len()).for_each(|process| self.try_send(process, kind, number, head));
    }

    fn answered(&self, number: u64, answered: Answered) {
        if let Some(waiting) = self.waiting().remove(&number) {
            let _ = waiting.send(answered);
        }
    }

    fn silence(&self, peer: &Peer) -> Duration {
        match peer.heard.load(Ordering::Acquire) {
            NEVER => Duration::ZERO,
            heard => self.started.elapsed().saturating_sub(Duration::from_millis(heard)),
        }
    }

    /// How long it is waited for the loss that may be behind a broken connection. Whoever exchanges rows stands still meanwhile: less
    /// than the others accept.
    fn loss_patience(&self) -> Duration {
        LOSS_PATIENCE.min(self.peer_timeout / 2)
    }

    fn is_done(&self, process: usize) -> bool {
        self.peers[process].as_ref().is_some_and(|peer| peer.done.load(Ordering::Acquire))
    }

    /// Sets what somebody may wait for.
    fn note(&self, what: &AtomicBool) {
        what.store(true, Ordering::Release);
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lose(&self, process: usize, why: String) {
        self.end(process, why, false);
    }

    fn end(&self, process: usize, why: String, stopped: bool) {
        if let Some(peer) = self.peers[process].as_ref().filter(|_| self.is_done(process)) {
            // It went when all were done, this process, too.
            return self.note(&peer.knows_done);
        }
        if self.leaving.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        if state.lost.is_none() {
            if process != self.mesh.membership.process {
                // Before they see this process go: all name the same one.
                self.tell_all(Kind::Loss, process as u64, &json(&Loss { why: why.clone(), stopped }));
            }
            let address = self.mesh.membership.addresses[process].clone();
            let why = why.clone();
            state.lost =
                Some(if stopped { ClusterError::Stopped { process, address, why } } else { ClusterError::Lost { process, address, why } });
        }
        drop(state);
        self.changed.notify_all();
        self.mesh.close(&format!("lost {}: {why}", self.mesh.membership.name(process)));
    }

    /// Body of the thread that notices who does nothing any more.
    fn watch(&self) {
        let mut standing: Vec<Standing> = self.peers.iter().map(|_| Standing::new(Instant::now())).collect();
        while self.lock().lost.is_none() && !self.leaving.load(Ordering::Acquire) {
            for (process, peer) in self.peers.iter().enumerate() {
                let Some(peer) = peer else { continue };
                let silence = self.silence(peer);
                if silence > self.peer_timeout {
                    self.lose(process, format!("nothing was heard of it for {:.1} s", silence.as_secs_f64()));
                }
                // It talks to nobody before it has met all.
                if peer.heard.load(Ordering::Acquire) == NEVER && self.started.elapsed() > self.connect_timeout + self.peer_timeout {
                    self.lose(process, "it never said a word".to_owned());
                }
                let pace = peer.pace.get();
                if let Some(stands) = standing[process].look(Instant::now(), pace, self.pace.get(), self.peer_timeout) {
                    let stands = stands.as_secs_f64();
                    self.lose(process, format!("it stands at tick {} for {stands:.1} s, and all answers with it", pace.tick));
                }
            }
            let broken = self.lock().broken.clone().filter(|broken| broken.since.elapsed() > self.loss_patience());
            if let Some(Broken { process, why, .. }) = broken.filter(|broken| !self.is_done(broken.process)) {
                self.lose(process, why);
            }
            std::thread::sleep(BEAT);
        }
    }

    /// Body of the thread that writes to a process.
    fn say(&self, process: usize, mut stream: TcpStream, queue: &Receiver<Vec<u8>>) {
        let Some(peer) = &self.peers[process] else { return };
        let mut last_beat = Instant::now();
        loop {
            let message = queue.recv_timeout(BEAT.saturating_sub(last_beat.elapsed()));
            let written = match message {
                Ok(message) => {
                    let written = stream.write_all(&message);
                    peer.unsent.fetch_sub(1, Ordering::AcqRel);
                    written
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let written = written.and_then(|()| {
                if last_beat.elapsed() < BEAT {
                    return Ok(());
                }
                last_beat = Instant::now();
                let Pace { tick, pause } = self.pace.get();
                stream.write_all(&encode(Kind::Beat, tick, &json(&pause), &[]).expect("it is short"))
            });
            if written.is_err() {
                peer.unreachable.store(true, Ordering::Release);
                // What it said last names the reason: whoever hears it comes to the end after that.
                return drop(stream.shutdown(Shutdown::Both));
            }
        }
    }

    /// Body of the thread that reads from a process.
    fn hear(self: Arc<Self>, process: usize, stream: TcpStream, said: &Sender<Vec<u8>>) {
        let mut reader = BufReader::with_capacity(READ_BYTES, stream);
        let why = loop {
            match self.hear_one(process, &mut reader, said) {
                Ok(None) => {}
                Ok(Some(goodbye)) => return self.end(process, goodbye, true),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break "it closed the connection".to_owned(),
                Err(error) => break format!("the connection broke: {error}"),
            }
        };
        self.lose(process, why);
    }

    /// Takes one message; the reason if it is a goodbye.
    fn hear_one(
        self: &Arc<Self>,
        process: usize,
        reader: &mut BufReader<TcpStream>,
        said: &Sender<Vec<u8>>,
    ) -> std::io::Result<Option<String>> {
        let peer = self.peers[process].as_ref().expect("it is heard");
        let heard = || peer.heard.store(self.started.elapsed().as_millis() as u64, Ordering::Release);
        let Frame { kind, number, head, body } = read(reader, &heard)?;
        match kind {
            Kind::Beat => peer.pace.set(Pace { tick: number, pause: serde_json::from_slice(&head).unwrap_or_default() }),
            Kind::Request => self.carry_out(process, number, head, body),
            Kind::Answer => self.answered(number, Ok(head)),
            Kind::NoAnswer => self.answered(number, Err(text(&head))),
            Kind::Statement => drop(said.send(head)),
            Kind::Done => {
                self.note(&peer.done);
                self.try_send(process, Kind::DoneHeard, 0, &[]);
            }
            Kind::DoneHeard => self.note(&peer.knows_done),
            Kind::Loss => self.hear_of(process, number as usize, serde_json::from_slice(&head)?),
            Kind::Goodbye => return Ok(Some(text(&head))),
        }
        Ok(None)
    }

    /// Another process has lost one, and is about to end.
    fn hear_of(&self, process: usize, lost: usize, Loss { why, stopped }: Loss) {
        let who = self.mesh.membership.name(process);
        if lost == self.mesh.membership.process {
            self.lose(process, format!("it gave {} up: {why}", self.mesh.membership.name(lost)));
        } else if lost < self.peers.len() {
            // The reason of one that stopped is in its own words.
            let why = if stopped { why } else { format!("{why}, as {who} noticed") };
            self.end(lost, why, stopped);
        }
    }

    fn carry_out(self: &Arc<Self>, process: usize, number: u64, request: Vec<u8>, body: Vec<u8>) {
        // Each takes a thread. There are as many as the other process's clients may have requests open.
        let inner = Arc::clone(self);
        let carried_out = spawn("cluster-request", move || {
            let mut state = inner.lock();
            while inner.handler.get().is_none() && state.lost.is_none() {
                state = inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            if let Some(handler) = inner.handler.get() {
                let answer = handler.answer(process, &request, &body);
                inner.send(process, Kind::Answer, number, &answer, &[]);
            }
        });
        if let Err(error) = carried_out {
            self.try_send(process, Kind::NoAnswer, number, &json(&error.to_string()));
        }
    }
}

/// What a head says that is a text.
fn text(head: &[u8]) -> String {
    serde_json::from_slice(head).unwrap_or_else(|_| "it did not say why".to_owned())
}
