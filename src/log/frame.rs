//! The header that every block of events wears on disk, in active and in sealed segments alike.
//!
//! ```text
//! byte  0  4  magic "LFBK"                     48  8  first tick
//!       4  2  format version                   56  8  last tick
//!       6  2  number of the event type         64  8  offset after the block's last
//!       8 16  log id                           72  8  bytes of producers at the end of the body
//!      24  4  partition                        80  8  body length, a multiple of 8
//!      28  4  events                           88  4  CRC32C of the body
//!      32  8  first offset of the segment      92  4  CRC32C of bytes 0..92
//!      40  8  first offset of the block        96     body
//! ```
//!
//! A block covers all offsets from its first to its end. It may hold fewer events than that: the others were redacted, or lost
//! and salvaged around. Version 1 had zeros at 6, 64 and 72: one event type, no offset without its event, no producers.
//!
//! Integers are little-endian; the body is in the byte order that `log.json` states. What can go wrong, and what meets it:
//! a torn write leaves a header or body whose checksum fails; a frame of another log, partition, segment or place, left by a
//! recycled or misdirected block, fails the comparison with where it stands; zeros fail the magic; a wild length is compared
//! with the bytes there are before anything is allocated. Headers are 96 bytes and bodies multiples of 8, so that every body
//! in a mapped file starts on an 8-byte boundary.
use super::position::{Offset, Partition, Tick};
use std::fmt;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 96;
/// The version of block, segment, meta and mark formats. Readers refuse newer ones.
pub(crate) const FORMAT: u32 = 2;
const MAGIC: &[u8; 4] = b"LFBK";

/// 128 random bits that tell the blocks of one log from those of all others.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct LogId(pub [u8; 16]);

impl LogId {
    /// A new id from the system's random source.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // `RandomState` is seeded by the system; ids must be unlike each other, not secret.
        let half = || RandomState::new().build_hasher().finish().to_le_bytes();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&half());
        id[8..].copy_from_slice(&half());
        LogId(id)
    }

    /// The id from its 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = (text.len() == 32 && text.is_ascii()).then_some(text)?;
        let mut id = [0; 16];
        for (place, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(LogId(id))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The segment a frame belongs to. Part of what the checksum covers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    pub log: LogId,
    pub partition: Partition,
    /// First offset of the segment: its name.
    pub first: Offset,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub segment: SegmentId,
    /// The number in `log.json` of the type that the events are of.
    pub event_type: u16,
    pub first_offset: Offset,
    /// The offset after the block's last, which may have no event.
    pub end: Offset,
    pub events: u32,
    pub first_tick: Tick,
    pub last_tick: Tick,
    /// How much of the body, at its end, says which producers the events came from.
    pub producer_bytes: u64,
    pub body_bytes: u64,
    pub body_crc: u32,
}

/// What is wrong with some bytes, and where, counted from the start of what was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub at: u64,
    pub what: String,
    /// The format version, when the bytes are whole and newer than this program.
    pub newer: Option<u64>,
}

impl Flaw {
    pub fn new(at: u64, what: impl Into<String>) -> Self {
        Flaw { at, what: what.into(), newer: None }
    }

    /// The same flaw in bytes that start at `base`.
    pub fn moved(self, base: u64) -> Self {
        Flaw { at: self.at + base, ..self }
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub(crate) fn log_id_at(bytes: &[u8], at: usize) -> LogId {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    LogId(id)
}

/// Checks the parts that headers and footers share: magic at 0, version at 4, CRC32C of what precedes it at 92.
/// Returns the version.
pub(crate) fn check_envelope(bytes: &[u8], magic: &[u8; 4]) -> Result<u32, Flaw> {
    if bytes.len() < HEADER_BYTES {
        return Err(Flaw::new(0, format!("{} bytes, expected {HEADER_BYTES}", bytes.len())));
    }
    if &bytes[..4] != magic {
        let (found, expected) = (u32_at(bytes, 0), u32::from_le_bytes(*magic));
        return Err(Flaw::new(0, format!("magic {found:08x}, expected {expected:08x}")));
    }
    let (found, expected) = (u32_at(bytes, 92), crc32c::crc32c(&bytes[..92]));
    if found != expected {
        return Err(Flaw::new(0, format!("header checksum {found:08x}, expected {expected:08x}")));
    }
    let version = u32::from(u16_at(bytes, 4));
    if version > FORMAT {
        let what = format!("format version {version}, this is version {FORMAT}");
        return Err(Flaw { at: 4, what, newer: Some(version.into()) });
    }
    Ok(version)
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..6].copy_from_slice(&(FORMAT as u16).to_le_bytes());
        bytes[6..8].copy_from_slice(&self.event_type.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.segment.log.0);
        bytes[24..28].copy_from_slice(&self.segment.partition.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.events.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment.first.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_offset.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first_tick.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.last_tick.0.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.end.0.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.producer_bytes.to_le_bytes());
        bytes[80..88].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[88..92].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Header, Flaw> {
        let version = check_envelope(bytes, MAGIC)?;
        let mut header = Header {
            segment: SegmentId { log: log_id_at(bytes, 8), partition: Partition(u32_at(bytes, 24)), first: Offset(u64_at(bytes, 32)) },
            event_type: u16_at(bytes, 6),
            first_offset: Offset(u64_at(bytes, 40)),
            end: Offset(u64_at(bytes, 64)),
            events: u32_at(bytes, 28),
            first_tick: Tick(u64_at(bytes, 48)),
            last_tick: Tick(u64_at(bytes, 56)),
            producer_bytes: u64_at(bytes, 72),
            body_bytes: u64_at(bytes, 80),
            body_crc: u32_at(bytes, 88),
        };
        if version == 1 {
            let end = header.first_offset.plus(header.events.into());
            header = Header { event_type: 0, end, producer_bytes: 0, ..header };
        }
        let bytes_fit =
            header.body_bytes.is_multiple_of(8) && header.producer_bytes.is_multiple_of(8) && header.producer_bytes <= header.body_bytes;
        let offsets_fit = header.end > header.first_offset && header.end.0 - header.first_offset.0 >= header.events.into();
        if !bytes_fit || !offsets_fit || header.last_tick < header.first_tick {
            let Header { events, first_offset, end, body_bytes, producer_bytes, first_tick, last_tick, .. } = header;
            let what = format!(
                "{events} events at offsets {first_offset}..{end}, {body_bytes} bytes with {producer_bytes} of producers, ticks {first_tick}..={last_tick}"
            );
            return Err(Flaw::new(28, what));
        }
        Ok(header)
    }

    /// Bytes of header and body.
    pub fn frame_bytes(&self) -> u64 {
        self.body_bytes.saturating_add(HEADER_BYTES as u64)
    }
}

/// Where the next frame must stand.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Place {
    pub segment: SegmentId,
    pub next: Offset,
    /// Ticks must not go below this.
    pub tick: Tick,
}

/// Reads the frame at the start of `bytes`, with all checks short of looking into the body's columns.
pub(crate) fn read_frame(bytes: &[u8], place: Place) -> Result<Header, Flaw> {
    let header = Header::decode(bytes)?;
    if header.segment != place.segment || header.first_offset != place.next {
        let what = format!(
            "a block of log {} partition {} segment {} offset {}, expected log {} partition {} segment {} offset {}",
            header.segment.log,
            header.segment.partition,
            header.segment.first,
            header.first_offset,
            place.segment.log,
            place.segment.partition,
            place.segment.first,
            place.next,
        );
        return Err(Flaw::new(8, what));
    }
    if header.first_tick < place.tick {
        return Err(Flaw::new(48, format!("tick {} after tick {}", header.first_tick, place.tick)));
    }
    let available = bytes.len() as u64 - HEADER_BYTES as u64;
    if header.body_bytes > available {
        return Err(Flaw::new(80, format!("a body of {} bytes, of which {available} are there", header.body_bytes)));
    }
    let body = &bytes[HEADER_BYTES..HEADER_BYTES + header.body_bytes as usize];
    let found = crc32c::crc32c(body);
    if found != header.body_crc {
        return Err(Flaw::new(HEADER_BYTES as u64, format!("checksum {found:08x}, expected {:08x}", header.body_crc)));
    }
    Ok(header)
}

/// The frames from the front of an active segment, and what ended them.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Position in the file and header of each whole frame.
    pub frames: Vec<(usize, Header)>,
    /// Offset after the last whole frame.
    pub end: Offset,
    /// The first bad frame, its position being `valid_bytes`.
    pub flaw: Option<Flaw>,
    /// Bytes of whole frames at the front.
    pub valid_bytes: usize,
    /// A whole frame of this segment, not before `end`, stands after the bad one.
    pub later_frame: bool,
}

/// Reads an active segment from the front until a frame is bad.
pub(crate) fn scan(bytes: &[u8], segment: SegmentId, tick: Tick) -> Scan {
    let mut place = Place { segment, next: segment.first, tick };
    let mut scan = Scan { frames: Vec::new(), end: segment.first, flaw: None, valid_bytes: 0, later_frame: false };
    while scan.valid_bytes < bytes.len() {
        match read_frame(&bytes[scan.valid_bytes..], place) {
            Ok(header) => {
                place = Place { next: header.end, tick: header.last_tick, ..place };
                let position = scan.valid_bytes;
                scan.valid_bytes += header.frame_bytes() as usize;
                scan.end = header.end;
                scan.frames.push((position, header));
            }
            Err(flaw) => {
                scan.flaw = Some(flaw.moved(scan.valid_bytes as u64));
                scan.later_frame = has_later_frame(&bytes[scan.valid_bytes..], place);
                break;
            }
        }
    }
    scan
}

fn has_later_frame(bytes: &[u8], place: Place) -> bool {
    // Frames stand at multiples of 8 from the front, and only whole ones precede these bytes.
    (8..bytes.len().saturating_sub(HEADER_BYTES)).step_by(8).any(|at| {
        Header::decode(&bytes[at..]).is_ok_and(|header| {
            header.first_offset >= place.next
                && read_frame(&bytes[at..], Place { next: header.first_offset, tick: Tick::ZERO, ..place }).is_ok()
        })
    })
}
