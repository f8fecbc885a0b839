//! Messages between processes that have met.
//!
//! ```text
//! byte  0  1  kind        9  8  bytes of the head, little-endian
//!       1  8  number     17  8  bytes of the body, little-endian
//!                        25     head (JSON), body (raw)
//! ```
//!
//! What a head says is not looked at here, nor on the thread that reads a connection: that one must not be held up, and what
//! cannot be understood is no reason to end a cluster.

use std::io::Read;

pub(super) const HEADER_BYTES: usize = 25;
/// Largest message. 4 GiB.
pub(super) const MESSAGE_BYTES_MAX: u64 = 1 << 32;
/// Bytes after which it is noted that a process sends.
pub(super) const READ_BYTES: usize = 1 << 18;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The process is there; the number is its tick, and the head says how long it pauses until the next.
    Beat,
    /// The answer to it has the same number.
    Request,
    Answer,
    /// There is no answer to the request of this number; the head says why.
    NoAnswer,
    /// For whoever waits for it at the start.
    Statement,
    /// The process stops; the head says why.
    Goodbye,
    /// The process has nothing left to do.
    Done,
    /// That was understood.
    DoneHeard,
    /// The number is a process that was lost.
    Loss,
}

impl Kind {
    const ALL: [Self; 9] =
        [Self::Beat, Self::Request, Self::Answer, Self::NoAnswer, Self::Statement, Self::Goodbye, Self::Done, Self::DoneHeard, Self::Loss];
}

/// A message.
pub(super) struct Frame {
    pub kind: Kind,
    pub number: u64,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// Writes a message down; none that is too long.
pub(super) fn encode(kind: Kind, number: u64, head: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let bytes = head.len().checked_add(body.len())?;
    if bytes as u64 > MESSAGE_BYTES_MAX {
        return None;
    }
    let mut message = Vec::with_capacity(HEADER_BYTES + bytes);
    message.push(kind as u8);
    message.extend(number.to_le_bytes());
    message.extend((head.len() as u64).to_le_bytes());
    message.extend((body.len() as u64).to_le_bytes());
    message.extend(head);
    message.extend(body);
    Some(message)
}

/// Reads a message. `heard` is called with each part that came.
pub(super) fn read(reader: &mut impl Read, heard: &impl Fn()) -> std::io::Result<Frame> {
    let mut header = [0; HEADER_BYTES];
    reader.read_exact(&mut header)?;
    heard();
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let (number, head, body) = (word(1), word(9), word(17));
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let kind = *Kind::ALL.get(usize::from(header[0])).ok_or_else(|| invalid("a message of an unknown kind"))?;
    if head.saturating_add(body) > MESSAGE_BYTES_MAX {
        return Err(invalid("a message that is too long"));
    }
    let part = |reader: &mut _, bytes: u64| {
        let mut part = vec![0; bytes as usize];
        for chunk in part.chunks_mut(READ_BYTES) {
            Read::read_exact(reader, chunk)?;
            heard();
        }
        Ok::<_, std::io::Error>(part)
    };
    Ok(Frame { kind, number, head: part(reader, head)?, body: part(reader, body)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_and_kinds_have_their_numbers() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            let bytes = encode(kind, 1 << 40, b"{\"a\":1}", &[7; 600_000]).expect("it is short");
            let frame = read(&mut &bytes[..], &|| ()).expect("it is whole");
            assert_eq!((frame.kind, frame.number, &frame.head[..], frame.body.len()), (kind, 1 << 40, &b"{\"a\":1}"[..], 600_000));
            for cut in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 3, bytes.len() - 1] {
                assert!(read(&mut &bytes[..cut], &|| ()).is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof));
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused_before_room_is_made_for_it() {
        let mut unknown = encode(Kind::Beat, 0, b"", b"").expect("it is short");
        unknown[0] = 200;
        let mut long = encode(Kind::Request, 0, b"", b"").expect("it is short");
        long[9..25].fill(0xFF);
        for bytes in [unknown, long] {
            assert!(read(&mut &bytes[..], &|| ()).is_err_and(|error| error.kind() == std::io::ErrorKind::InvalidData));
        }
    }
}
