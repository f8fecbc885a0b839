//! The handshake: what each side of a new connection says of itself, and what must be alike.
//!
//! ```text
//! byte  0  4  magic "LFCL"
//!       4  2  protocol version, little-endian
//!       6  4  bytes of the message, little-endian
//!      10     JSON: `Hello` from the one that dials, `Reply` from the one that was dialled
//! ```
//!
//! Then the one that dials sends one byte more, [`TAKEN`]: a connection that it has given up is not taken for one that it uses.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 4] = *b"LFCL";
const PROTOCOL: u16 = 1;
const HEADER_BYTES: usize = 10;
/// Ends a handshake.
const TAKEN: u8 = 6;
/// Longest message of a handshake: nobody allocates more for a stranger.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long a handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the processes of a cluster run. All of it must be alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramId {
    /// The dataflow's name.
    pub dataflow: String,
    /// Its version, or the build of the executable.
    pub version: String,
    /// Its fingerprint: what it keeps and publishes.
    pub fingerprint: String,
    /// The type of its events.
    pub event: String,
    /// Options that change what processes expect of each other, by name.
    pub options: Vec<(String, String)>,
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Channel {
    /// Requests, answers and beats.
    Talk,
    /// Rows of a graph.
    Graph {
        name: String,
        number: u64,
        /// Which life of the dialled process is meant.
        to: String,
    },
}

/// What a process says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub token: String,
    pub process: usize,
    pub workers: usize,
    pub addresses: Vec<String>,
    pub program: ProgramId,
    /// Random; another after each start.
    pub life: String,
    pub channel: Channel,
}

/// The answer to a [`Hello`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Welcome {
        life: String,
    },
    Refused {
        reason: String,
        /// What is in the way may go away.
        later: bool,
    },
}

/// How two processes were started differently, if they were: the other one against this one.
pub(super) fn difference(own: &Hello, other: &Hello) -> Option<String> {
    let who = format!("process {}", other.process);
    let here = format!("process {}", own.process);
    let differs = |what: &str, theirs: &dyn std::fmt::Display, ours: &dyn std::fmt::Display| {
        Some(format!("{who} has {what} {theirs}, {here} has {ours}"))
    };
    if own.addresses.len() != other.addresses.len() {
        return differs("-n", &other.addresses.len(), &own.addresses.len());
    }
    if own.workers != other.workers {
        return differs("-w", &other.workers, &own.workers);
    }
    if let Some(at) = (0..own.addresses.len()).find(|at| own.addresses[*at] != other.addresses[*at]) {
        let what = format!("address {at} of its hostfile:");
        return differs(&what, &other.addresses[at], &own.addresses[at]);
    }
    let (ours, theirs) = (&own.program, &other.program);
    let fields = [
        ("the dataflow", &ours.dataflow, &theirs.dataflow),
        ("events of type", &ours.event, &theirs.event),
        ("the program's", &ours.version, &theirs.version),
        ("the dataflow's fingerprint", &ours.fingerprint, &theirs.fingerprint),
    ];
    if let Some((what, ours, theirs)) = fields.into_iter().find(|(_, ours, theirs)| ours != theirs) {
        return differs(what, theirs, ours);
    }
    let option = ours.options.iter().zip(&theirs.options).find(|(ours, theirs)| ours != theirs);
    option.and_then(|((name, ours), (_, theirs))| differs(name, theirs, ours))
}

/// Sends a message, before the deadline.
pub(super) fn send(stream: &mut TcpStream, message: &impl Serialize, deadline: Instant) -> std::io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut bytes = [&MAGIC[..], &PROTOCOL.to_le_bytes(), &(body.len() as u32).to_le_bytes()].concat();
    bytes.extend(body);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&bytes)?;
    stream.set_write_timeout(None)
}

/// Says that the connection will be used.
pub(super) fn take(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<()> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&[TAKEN])?;
    stream.set_write_timeout(None)
}

/// Waits until the other side says so.
pub(super) fn is_taken(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<()> {
    let mut taken = [0];
    read_all(stream, &mut taken, deadline)?;
    stream.set_read_timeout(None)?;
    if taken == [TAKEN] { Ok(()) } else { Err(std::io::Error::new(ErrorKind::InvalidData, "it speaks another protocol")) }
}

/// Receives a message, before the deadline. Anything that is none of ours is [`ErrorKind::InvalidData`].
pub(super) fn receive<T: DeserializeOwned>(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<T> {
    let mut header = [0; HEADER_BYTES];
    read_all(stream, &mut header, deadline)?;
    let invalid = |what: String| std::io::Error::new(ErrorKind::InvalidData, what);
    if header[..4] != MAGIC {
        return Err(invalid("it speaks another protocol".to_owned()));
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != PROTOCOL {
        return Err(invalid(format!("it speaks version {version} of the cluster's protocol, this is version {PROTOCOL}")));
    }
    let length = u32::from_le_bytes([header[6], header[7], header[8], header[9]]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(invalid(format!("its message has {length} bytes")));
    }
    let mut body = vec![0; length];
    read_all(stream, &mut body, deadline)?;
    stream.set_read_timeout(None)?;
    serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))
}

fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// However slowly the bytes come, the deadline holds.
fn read_all(stream: &mut TcpStream, bytes: &mut [u8], deadline: Instant) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
