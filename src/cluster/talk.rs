//! What processes say to each other: requests and their answers, statements at the start, beats, who was lost, and a goodbye.
//!
//! ```text
//! byte  0  1  kind        9  4  bytes of the head, little-endian
//!       1  8  number     13  8  bytes of the body, little-endian
//!                        21     head (JSON), body (raw)
//! ```
//!
//! A request and its answer have the same number. A beat's number is a tick. Beats are sent all the time: whoever hears
//! nothing for too long counts the process as lost, and whoever hears of no bytes for as long as it slept itself, too.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hello::ProgramId;
use super::mesh::Mesh;
use super::{ClusterError, ClusterOptions, Membership};
use crate::layers::{Crew, Links};

/// How often a process says that it is there, at the least.
const BEAT: Duration = Duration::from_millis(50);
/// How long a process that stops tries to get its last messages out.
const FLUSH: Duration = Duration::from_millis(500);
/// Messages that wait to be sent to one process; whoever has more waits.
const OUTGOING_MAX: usize = 1024;
/// Largest message. 4 GiB.
const MESSAGE_BYTES_MAX: u64 = 1 << 32;
/// Bytes after which it is noted that a process sends.
const READ_BYTES: usize = 1 << 18;
const HEADER_BYTES: usize = 21;

const BEAT_KIND: u8 = 0;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;
const STATEMENT: u8 = 3;
const GOODBYE: u8 = 4;
const DONE: u8 = 5;
const DONE_HEARD: u8 = 6;
const LOSS: u8 = 7;

/// Carries out what other processes ask.
pub trait Handler: Send + Sync {
    /// Answers a request of process `from`.
    fn answer(&self, from: usize, request: Value, body: Vec<u8>) -> Value;
}

/// An answer.
pub type Answer = Value;

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
    peer_timeout: Duration,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, (usize, Sender<Value>)>>,
    handler: OnceLock<Arc<dyn Handler>>,
    tick: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    leaving: AtomicBool,
}

/// How a process was lost, for the others.
#[derive(Serialize, Deserialize)]
struct Loss {
    why: String,
    stopped: bool,
}

#[derive(Default)]
struct State {
    lost: Option<ClusterError>,
    handles: bool,
}

struct Peer {
    outgoing: Sender<Vec<u8>>,
    /// Messages that were not written yet.
    unsent: AtomicUsize,
    statements: Receiver<Value>,
    stream: TcpStream,
    /// Milliseconds after the start when something was last heard.
    heard: AtomicU64,
    tick: AtomicU64,
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
                heard: AtomicU64::new(0),
                tick: AtomicU64::new(0),
                done: AtomicBool::new(false),
                knows_done: AtomicBool::new(false),
                unsent: AtomicUsize::new(0),
            }));
        }
        let inner = Arc::new(Inner {
            mesh,
            peers,
            started: Instant::now(),
            peer_timeout: options.peer_timeout,
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            handler: OnceLock::new(),
            tick: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
            leaving: AtomicBool::new(false),
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
        self.inner.lock().handles = true;
        self.inner.changed.notify_all();
    }

    /// Tells a process something that it waits for with [`Cluster::hear`].
    pub fn tell(&self, process: usize, statement: &impl Serialize) {
        self.inner.send(process, STATEMENT, 0, &value(statement), &[]);
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
                Ok(said) => return serde_json::from_value(said).map_err(|error| ClusterError::Mismatch(error.to_string())),
                Err(RecvTimeoutError::Timeout) => self.check()?,
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
        self.inner.waiting().insert(number, (process, answered));
        self.inner.send(process, REQUEST, number, &value(request), body);
        Asked { number, answer }
    }

    /// Waits for the answer to what was asked.
    pub fn finish(&self, process: usize, asked: Asked, patience: Duration) -> Result<Answer, AskError> {
        let deadline = Instant::now().checked_add(patience);
        let answered = loop {
            let left = deadline.map_or(BEAT, |deadline| deadline.saturating_duration_since(Instant::now()).min(BEAT));
            match asked.answer.recv_timeout(left) {
                Ok(answer) => break Ok(answer),
                Err(_) => {
                    if let Err(lost) = self.check() {
                        break Err(lost.into());
                    }
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        break Err(AskError::Late { process: self.name(process), waited: patience });
                    }
                }
            }
        };
        self.inner.waiting().remove(&asked.number);
        answered
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
        let deadline = Instant::now().checked_add(patience);
        let mut state = self.inner.lock();
        while state.lost.is_none() {
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.inner.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.lost.clone()
    }

    /// How long ago something was heard of a process.
    pub fn silence(&self, process: usize) -> Duration {
        self.inner.peers[process].as_ref().map_or(Duration::ZERO, |peer| self.inner.silence(peer))
    }

    /// The greatest tick that another process has come to, as far as is known here.
    pub fn tick(&self) -> u64 {
        self.inner.peers.iter().flatten().map(|peer| peer.tick.load(Ordering::Acquire)).max().unwrap_or(0)
    }

    /// Tells the others, before long, how far this process has come.
    pub fn set_tick(&self, tick: u64) {
        self.inner.tick.store(tick, Ordering::Release);
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
        self.others().for_each(|process| self.inner.send(process, DONE, 0, &Value::Null, &[]));
        self.others().try_for_each(|process| self.wait_until_done(process))?;
        // Whoever does not know it yet would take the end of this process for a loss.
        self.others().try_for_each(|process| self.wait_until(process, |peer| peer.knows_done.load(Ordering::Acquire)))?;
        self.inner.leaving.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until what was said is on its way, as long as somebody may still be listening.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        let gone = match self.lost() {
            Some(ClusterError::Lost { process, .. } | ClusterError::Stopped { process, .. }) => Some(process),
            _ => None,
        };
        let listening =
            || self.inner.peers.iter().enumerate().filter(|(process, _)| Some(*process) != gone).filter_map(|(_, peer)| peer.as_ref());
        while Instant::now() < deadline && listening().any(|peer| peer.unsent.load(Ordering::Acquire) > 0) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Says goodbye: the others stop, too, and name the reason. From here on no loss is noticed.
    pub fn leave(&self, reason: &str) {
        self.inner.leaving.store(true, Ordering::Release);
        self.others().for_each(|process| self.inner.send(process, GOODBYE, 0, &value(&reason), &[]));
        self.inner.mesh.close("the process stops");
        self.flush();
    }

    /// Ends the cluster because its processes must not go on together.
    pub fn abandon(&self, reason: &str) {
        let own = self.membership().process;
        self.inner.lose(own, reason.to_owned());
        self.leave(reason);
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
        self.inner.mesh.connect(graph, number, stop)
    }
}

/// Something that was asked and not answered yet.
pub struct Asked {
    number: u64,
    answer: Receiver<Value>,
}

fn value(message: &impl Serialize) -> Value {
    serde_json::to_value(message).expect("messages between processes can be written as JSON")
}

fn message(kind: u8, number: u64, head: &Value, body: &[u8]) -> Vec<u8> {
    let head = head.to_string();
    let mut message = Vec::with_capacity(HEADER_BYTES + head.len() + body.len());
    message.push(kind);
    message.extend(number.to_le_bytes());
    message.extend((head.len() as u32).to_le_bytes());
    message.extend((body.len() as u64).to_le_bytes());
    message.extend(head.as_bytes());
    message.extend(body);
    message
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ClusterError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| ClusterError::Hosts(format!("cannot start a thread: {error}")))
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, (usize, Sender<Value>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, process: usize, kind: u8, number: u64, head: &Value, body: &[u8]) {
        let Some(peer) = &self.peers[process] else { return };
        peer.unsent.fetch_add(1, Ordering::AcqRel);
        // A process that is gone is noticed elsewhere.
        let _ = peer.outgoing.send(message(kind, number, head, body));
    }

    /// Tells the others who was lost, before they see this process go: all name the same one. Waits for nobody.
    fn pass_on(&self, lost: usize, loss: &Loss) {
        for peer in self.peers.iter().flatten() {
            peer.unsent.fetch_add(1, Ordering::AcqRel);
            if peer.outgoing.try_send(message(LOSS, lost as u64, &value(loss), &[])).is_err() {
                peer.unsent.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn silence(&self, peer: &Peer) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(peer.heard.load(Ordering::Acquire)))
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
        if let Some(peer) = self.peers[process].as_ref().filter(|peer| peer.done.load(Ordering::Acquire)) {
            // It went when all were done, this process, too.
            return self.note(&peer.knows_done);
        }
        if self.leaving.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        if state.lost.is_none() {
            if process != self.mesh.membership.process {
                self.pass_on(process, &Loss { why: why.clone(), stopped });
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

    /// Body of the thread that notices silence.
    fn watch(&self) {
        while self.lock().lost.is_none() && !self.leaving.load(Ordering::Acquire) {
            for (process, peer) in self.peers.iter().enumerate() {
                let Some(peer) = peer else { continue };
                let silence = self.silence(peer);
                if silence > self.peer_timeout {
                    self.lose(process, format!("nothing was heard of it for {:.1} s", silence.as_secs_f64()));
                }
            }
            std::thread::sleep(BEAT);
        }
    }

    /// Body of the thread that writes to a process.
    fn say(&self, process: usize, mut stream: TcpStream, queue: &Receiver<Vec<u8>>) {
        let mut last_beat = Instant::now();
        loop {
            let message = queue.recv_timeout(BEAT.saturating_sub(last_beat.elapsed()));
            let written = match message {
                Ok(message) => {
                    let written = stream.write_all(&message);
                    if let Some(peer) = &self.peers[process] {
                        peer.unsent.fetch_sub(1, Ordering::AcqRel);
                    }
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
                let mut beat = [0; HEADER_BYTES];
                beat[0] = BEAT_KIND;
                beat[1..9].copy_from_slice(&self.tick.load(Ordering::Acquire).to_le_bytes());
                stream.write_all(&beat)
            });
            if let Err(error) = written {
                // What it said last may still be on its way: it names the reason.
                std::thread::sleep(BEAT);
                return self.lose(process, format!("the connection broke: {error}"));
            }
        }
    }

    /// Body of the thread that reads from a process.
    fn hear(self: Arc<Self>, process: usize, stream: TcpStream, said: &Sender<Value>) {
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
        said: &Sender<Value>,
    ) -> std::io::Result<Option<String>> {
        let mut header = [0; HEADER_BYTES];
        self.read(process, reader, &mut header)?;
        let [kind, rest @ ..] = header;
        let number = u64::from_le_bytes(rest[..8].try_into().expect("8 bytes"));
        let head_bytes = u64::from(u32::from_le_bytes(rest[8..12].try_into().expect("4 bytes")));
        let body_bytes = u64::from_le_bytes(rest[12..].try_into().expect("8 bytes"));
        if head_bytes.saturating_add(body_bytes) > MESSAGE_BYTES_MAX {
            return Err(std::io::Error::other("a message is too long"));
        }
        let (mut head, mut body) = (vec![0; head_bytes as usize], vec![0; body_bytes as usize]);
        self.read(process, reader, &mut head)?;
        self.read(process, reader, &mut body)?;
        let peer = self.peers[process].as_ref().expect("it is heard");
        if kind == BEAT_KIND {
            peer.tick.fetch_max(number, Ordering::AcqRel);
            return Ok(None);
        }
        let head: Value = serde_json::from_slice(&head)?;
        match kind {
            REQUEST => self.carry_out(process, number, head, body),
            ANSWER => {
                if let Some((_, waiting)) = self.waiting().remove(&number) {
                    let _ = waiting.send(head);
                }
            }
            STATEMENT => drop(said.send(head)),
            DONE => {
                self.note(&peer.done);
                self.send(process, DONE_HEARD, 0, &Value::Null, &[]);
            }
            DONE_HEARD => self.note(&peer.knows_done),
            LOSS => self.hear_of(process, number as usize, serde_json::from_value(head)?),
            GOODBYE => return Ok(Some(head.as_str().unwrap_or("it stopped").to_owned())),
            kind => return Err(std::io::Error::other(format!("a message of unknown kind {kind}"))),
        }
        Ok(None)
    }

    /// Another process has lost one, and is about to end.
    fn hear_of(&self, process: usize, lost: usize, Loss { why, stopped }: Loss) {
        let who = self.mesh.membership.name(process);
        if lost == self.mesh.membership.process {
            self.lose(process, format!("it gave this process up: {why}"));
        } else if lost < self.peers.len() {
            // The reason of one that stopped is in its own words.
            let why = if stopped { why } else { format!("{why}, as {who} noticed") };
            self.end(lost, why, stopped);
        }
    }

    /// Reads in parts, and notes with each that the process is there.
    fn read(&self, process: usize, reader: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<()> {
        for part in bytes.chunks_mut(READ_BYTES) {
            reader.read_exact(part)?;
            if let Some(peer) = &self.peers[process] {
                peer.heard.store(self.started.elapsed().as_millis() as u64, Ordering::Release);
            }
        }
        Ok(())
    }

    fn carry_out(self: &Arc<Self>, process: usize, number: u64, request: Value, body: Vec<u8>) {
        // Each takes a thread. There are as many as the other process's clients may have requests open.
        let inner = Arc::clone(self);
        let carried_out = spawn("cluster-request", move || {
            let mut state = inner.lock();
            while !state.handles && state.lost.is_none() {
                state = inner.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            if let Some(handler) = inner.handler.get() {
                let answer = handler.answer(process, request, body);
                inner.send(process, ANSWER, number, &answer, &[]);
            }
        });
        if carried_out.is_err() {
            self.lose(process, "this process could not start a thread for what it asked".to_owned());
        }
    }
}
