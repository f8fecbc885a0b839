//! How rows go from worker to worker: as they are inside a process, as bytes between processes.
//!
//! Rows stay a plain `Vec` until timely asks for bytes. What is received in columns stays bytes, part of the buffer that it
//! was read into, until the operator behind the exchange takes it; then rows are made of it and the bytes are let go. They are
//! never kept: each part keeps a buffer of at least 1 MiB alive.
//!
//! The body of a message begins with a word that says how it was written, so that a receiver needs no configuration. Whoever
//! can connect has passed the handshake between processes: a message that cannot be read is our own bug, or a network that
//! damages bytes behind TCP's back, and panics.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::rc::Rc;
use std::str::FromStr;

use columnar::bytes::indexed;
use columnar::bytes::stash::Stash;
use columnar::{Borrow, Clear, Columnar, Index, Len, Push as _};
use timely::bytes::arc::Bytes;
use timely::communication::{Pull, Push};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{LogPuller, LogPusher, ParallelizationContract};
use timely::dataflow::channels::pushers::Exchange;
use timely::dataflow::channels::pushers::exchange::DrainContainerDistributor;
use timely::dataflow::channels::{ContainerBytes, Message};
use timely::logging::TimelyLogger;
use timely::progress::Timestamp;
use timely::worker::Worker;
use timely::{Accountable, ExchangeData};

use crate::storage::columns;

#[cfg(feature = "abomonation")]
mod plain;

/// How rows are written when they leave the process. A receiver reads each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// In columns, which are read where they were received.
    #[default]
    Columnar,
    /// Row by row, as timely writes a `Vec`.
    Bincode,
    /// As they are in memory, if they hold no pointers; other rows in columns. **Unsound** (RUSTSEC-2021-0120, without a patch):
    /// bytes between fields are read without ever having been written, and what is received is taken to be rows without any
    /// check. All processes must run the same executable, and nobody else must reach their connections. Only with the cargo
    /// feature `abomonation`. Never a format of anything stored.
    Abomonation,
}

impl Codec {
    /// All of them, whether this build has them or not.
    pub const ALL: [Self; 3] = [Self::Columnar, Self::Bincode, Self::Abomonation];

    /// The timely setting by which a worker's graphs learn it; columns without one.
    pub(crate) const SETTING: &str = "lambdaflow/exchange";

    /// The codec, or why this build does not have it.
    pub fn available(self) -> Result<Self, String> {
        match self {
            Self::Abomonation if cfg!(not(feature = "abomonation")) => Err(
                "this build cannot exchange rows by abomonation\n  hint: build it with `--features abomonation`, for trusted clusters only"
                    .into(),
            ),
            codec => Ok(codec),
        }
    }

    /// What rows of type `D` are written by, under this codec.
    #[cfg_attr(
        not(feature = "abomonation"),
        expect(clippy::extra_unused_type_parameters, reason = "without the codec, all rows are alike")
    )]
    pub(crate) fn of<D>(self) -> Self {
        match self {
            #[cfg(feature = "abomonation")]
            Self::Abomonation if plain::fits::<D>() => Self::Abomonation,
            Self::Abomonation => Self::Columnar,
            codec => codec,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Columnar => 1,
            Self::Bincode => 2,
            Self::Abomonation => 3,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Columnar => "columnar",
            Self::Bincode => "bincode",
            Self::Abomonation => "abomonation",
        })
    }
}

impl FromStr for Codec {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let codec = Self::ALL.into_iter().find(|codec| codec.to_string() == name);
        codec.ok_or_else(|| format!("`{name}` is no codec: it is columnar, bincode or abomonation"))?.available()
    }
}

/// A row that can leave the process.
pub(crate) trait Row: Columnar<Container: Send> + ExchangeData + Clone {}
impl<D: Columnar<Container: Send> + ExchangeData + Clone> Row for D {}

/// Rows between two workers.
pub(crate) enum Parcel<D: Row> {
    /// As they are.
    Rows {
        rows: Vec<D>,
        /// By which they are written if they leave the process.
        codec: Codec,
        /// The rows in columns, from when their size is asked for until they are written.
        columns: RefCell<Option<Box<D::Container>>>,
    },
    /// As they came from another process.
    Columns(Stash<D::Container, Bytes>),
}

/// Begins every body; the fourth byte of the word is the codec's number, the upper half the number of rows.
const MAGIC: [u8; 3] = *b"LFX";
const WORD: usize = 8;

fn head(codec: Codec, rows: usize) -> [u8; WORD] {
    let rows = u32::try_from(rows).expect("a message has fewer than 2^32 rows");
    let mut word = [0; WORD];
    word[..3].copy_from_slice(&MAGIC);
    word[3] = codec.number();
    word[4..].copy_from_slice(&rows.to_le_bytes());
    word
}

fn read_head(bytes: &[u8]) -> Result<(Codec, usize), String> {
    let Some(word) = bytes.first_chunk::<WORD>() else {
        return Err(format!("it has {} bytes, fewer than its first word", bytes.len()));
    };
    if word[..3] != MAGIC {
        return Err(format!("it begins with {word:02x?}, which is no message of rows"));
    }
    let codec = Codec::ALL.into_iter().find(|codec| codec.number() == word[3]);
    let codec = codec.ok_or_else(|| format!("it is written by codec number {}, which this build does not know", word[3]))?;
    Ok((codec.available()?, u32::from_le_bytes([word[4], word[5], word[6], word[7]]) as usize))
}

impl<D: Row> Parcel<D> {
    /// Rows to be written by a codec if they leave the process. `spare` is memory to write columns into.
    fn of(rows: Vec<D>, codec: Codec, spare: Option<Box<D::Container>>) -> Self {
        Self::Rows { rows, codec: codec.of::<D>(), columns: RefCell::new(spare) }
    }

    fn read(mut bytes: Bytes) -> Result<Self, String> {
        let (codec, rows) = read_head(&bytes)?;
        bytes.extract_to(WORD);
        let (parcel, found) = match codec {
            Codec::Columnar => {
                let columns = columns::in_place::<D::Container, _>(bytes)?;
                let found = columns.borrow().len();
                (Self::Columns(columns), found)
            }
            Codec::Bincode => {
                let rows: Vec<D> = ContainerBytes::from_bytes(bytes);
                let found = rows.len();
                (Self::of(rows, codec, None), found)
            }
            #[cfg(feature = "abomonation")]
            Codec::Abomonation if plain::fits::<D>() => {
                let rows: Vec<D> = plain::read(&bytes, rows)?;
                let found = rows.len();
                (Self::of(rows, codec, None), found)
            }
            Codec::Abomonation => return Err("rows of this type are never written by abomonation".to_owned()),
        };
        if found != rows { Err(format!("it has {found} rows, {rows} were announced")) } else { Ok(parcel) }
    }

    /// The rows, each of its own.
    fn into_rows(self) -> Vec<D> {
        match self {
            Self::Rows { rows, .. } => rows,
            Self::Columns(columns) => {
                let columns = columns.borrow();
                (0..columns.len()).map(|row| D::into_owned(columns.get(row))).collect()
            }
        }
    }
}

impl<D: Row> Accountable for Parcel<D> {
    fn record_count(&self) -> i64 {
        match self {
            Self::Rows { rows, .. } => rows.len() as i64,
            Self::Columns(columns) => columns.borrow().len() as i64,
        }
    }
}

/// What is needed to begin a new word after so many bytes.
#[cfg(feature = "abomonation")]
fn padding(bytes: usize) -> usize {
    bytes.wrapping_neg() % WORD
}

impl<D: Row> ContainerBytes for Parcel<D> {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::read(bytes).unwrap_or_else(|reason| panic!("a message of another worker cannot be read: {reason}"))
    }

    fn length_in_bytes(&self) -> usize {
        WORD + match self {
            Self::Rows { rows, codec: Codec::Columnar, columns } => {
                let mut columns = columns.borrow_mut();
                let columns = columns.get_or_insert_default();
                columns.clear();
                rows.iter().for_each(|row| columns.push(row));
                indexed::length_in_bytes(&Borrow::borrow(&**columns))
            }
            Self::Rows { rows, codec: Codec::Bincode, .. } => rows.length_in_bytes(),
            #[cfg(feature = "abomonation")]
            Self::Rows { rows, codec: Codec::Abomonation, .. } => {
                let bytes = plain::size(rows);
                bytes + padding(bytes)
            }
            #[cfg(not(feature = "abomonation"))]
            Self::Rows { codec: Codec::Abomonation, .. } => unreachable!("`Parcel::of` chooses what there is"),
            Self::Columns(columns) => columns.length_in_bytes(),
        }
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        const ROOM: &str = "there is room for as many bytes as were asked for";
        match self {
            Self::Rows { rows, codec, columns } => {
                writer.write_all(&head(*codec, rows.len())).expect(ROOM);
                match codec {
                    Codec::Columnar => {
                        let columns = columns.borrow();
                        let columns = columns.as_ref().expect("timely asks how long a message is before it writes it");
                        indexed::write(writer, &Borrow::borrow(&**columns)).expect(ROOM);
                    }
                    Codec::Bincode => rows.into_bytes(writer),
                    #[cfg(feature = "abomonation")]
                    Codec::Abomonation => {
                        plain::write(rows, writer).expect(ROOM);
                        writer.write_all(&[0; WORD][..padding(plain::size(rows))]).expect(ROOM);
                    }
                    #[cfg(not(feature = "abomonation"))]
                    Codec::Abomonation => unreachable!("`Parcel::of` chooses what there is"),
                }
            }
            Self::Columns(columns) => {
                let columns = columns.borrow();
                writer.write_all(&head(Codec::Columnar, columns.len())).expect(ROOM);
                indexed::write(writer, &columns).expect(ROOM);
            }
        }
    }
}

/// Moves each row to the worker that a number of it says, modulo the number of workers; by the codec of the worker's settings.
pub(crate) struct Route<F>(pub F);

/// The channel to one worker.
type ToOne<T, D> = Pack<D, LogPusher<Box<dyn Push<Message<T, Parcel<D>>>>>>;

impl<T: Timestamp, D: Row, F: FnMut(&D) -> u64 + 'static> ParallelizationContract<T, Vec<D>> for Route<F> {
    type Pusher = Exchange<T, ToOne<T, D>, DrainContainerDistributor<CapacityContainerBuilder<Vec<D>>, F>>;
    type Puller = Unpack<T, D, LogPuller<Box<dyn Pull<Message<T, Parcel<D>>>>>>;

    fn connect(self, worker: &Worker, channel: usize, address: Rc<[usize]>, logging: Option<TimelyLogger>) -> (Self::Pusher, Self::Puller) {
        let codec = worker.config().get::<Codec>(Codec::SETTING).copied().unwrap_or_default();
        let (pushers, puller) = worker.allocate::<Message<T, Parcel<D>>>(channel, address);
        let own = worker.index();
        let pushers = pushers.into_iter().enumerate().map(|(to, pusher)| Pack {
            pusher: LogPusher::new(pusher, own, to, channel, logging.clone()),
            codec,
            spare: None,
        });
        let puller = Unpack { puller: LogPuller::new(puller, own, channel, logging.clone()), current: None };
        (Exchange::new(pushers.collect(), DrainContainerDistributor::new(self.0, worker.peers())), puller)
    }
}

/// 1 MiB: there is such memory for each channel and worker that rows go to, and one large message is not the measure of the next.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Memory of columns, if it is worth keeping.
fn kept<C: columnar::ContainerBytes>(columns: Option<Box<C>>) -> Option<Box<C>> {
    columns.filter(|columns| indexed::length_in_bytes(&Borrow::borrow(&**columns)) <= SPARE_BYTES_MAX)
}

/// Sends rows as parcels.
pub(crate) struct Pack<D: Row, P> {
    pusher: P,
    codec: Codec,
    /// Memory of the columns of the last message that was written.
    spare: Option<Box<D::Container>>,
}

impl<T, D: Row, P: Push<Message<T, Parcel<D>>>> Push<Message<T, Vec<D>>> for Pack<D, P> {
    fn push(&mut self, message: &mut Option<Message<T, Vec<D>>>) {
        let mut packed = message.take().map(|Message { stamp, data, from, seq }| {
            let data = Parcel::of(data, self.codec, self.spare.take());
            Message { stamp, data, from, seq }
        });
        self.pusher.push(&mut packed);
        // What was written is left here: its memory serves again.
        if let Some(Message { stamp, data: Parcel::Rows { rows, columns, .. }, from, seq }) = packed {
            self.spare = kept(columns.into_inner());
            *message = Some(Message { stamp, data: rows, from, seq });
        }
    }
}

/// Makes rows of parcels when they are taken.
pub(crate) struct Unpack<T, D, P> {
    puller: P,
    current: Option<Message<T, Vec<D>>>,
}

impl<T, D: Row, P: Pull<Message<T, Parcel<D>>>> Pull<Message<T, Vec<D>>> for Unpack<T, D, P> {
    fn pull(&mut self) -> &mut Option<Message<T, Vec<D>>> {
        let parcel = self.puller.pull().take();
        self.current = parcel.map(|Message { stamp, data, from, seq }| Message { stamp, data: data.into_rows(), from, seq });
        &mut self.current
    }
}

/// Writes rows as a message's body, for measurements.
pub(crate) struct Packer<D: Row> {
    codec: Codec,
    spare: Option<Box<D::Container>>,
}

impl<D: Row> Packer<D> {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { codec, spare: None }
    }

    /// Appends the body; gives the rows back.
    pub(crate) fn write(&mut self, rows: Vec<D>, body: &mut Vec<u8>) -> Vec<D> {
        let parcel = Parcel::of(rows, self.codec, self.spare.take());
        body.reserve(parcel.length_in_bytes());
        parcel.into_bytes(body);
        match parcel {
            Parcel::Rows { rows, columns, .. } => {
                self.spare = columns.into_inner();
                rows
            }
            Parcel::Columns(_) => unreachable!("it was made of rows"),
        }
    }
}

/// The rows of a message's body, for measurements.
pub(crate) fn unpack<D: Row>(body: Bytes) -> Vec<D> {
    Parcel::from_bytes(body).into_rows()
}

#[cfg(test)]
mod tests {
    use timely::bytes::arc::BytesMut;

    use super::*;
    use crate::operators::{Count, Fold, HyperLogLog, Max, Monoid, Quantiles, Sum};
    use crate::runs::{Change, Data};

    type Update<K, V, R> = ((K, V), u64, R);

    fn written<D: Row>(rows: Vec<D>, codec: Codec) -> Vec<u8> {
        let parcel = Parcel::of(rows, codec, None);
        let length = parcel.length_in_bytes();
        let mut bytes = Vec::new();
        parcel.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), length, "{codec}");
        assert!(length.is_multiple_of(WORD), "{codec}: messages behind it begin with a word");
        bytes
    }

    fn read<D: Row>(bytes: Vec<u8>) -> Result<Parcel<D>, String> {
        Parcel::read(BytesMut::from(bytes).freeze())
    }

    fn codecs() -> impl Iterator<Item = Codec> {
        Codec::ALL.into_iter().filter(|codec| codec.available().is_ok())
    }

    /// Written and read by each codec, and written again as it was received.
    fn survives<K: Data, V: Data, R: Change>(rows: Vec<Update<K, V, R>>) {
        for codec in codecs() {
            let parcel: Parcel<Update<K, V, R>> = read(written(rows.clone(), codec)).expect("it was just written");
            assert_eq!(parcel.record_count(), rows.len() as i64, "{codec}");
            let length = parcel.length_in_bytes();
            let mut again = Vec::new();
            parcel.into_bytes(&mut again);
            assert_eq!(again.len(), length);
            assert!(parcel.into_rows() == rows, "{codec}");
            assert!(read::<Update<K, V, R>>(again).expect("it was just written").into_rows() == rows, "{codec}, twice");
        }
    }

    fn sums<M: Monoid>(of: impl Fn(u64) -> M) -> Vec<Update<String, (), Fold<M>>> {
        (0..50).map(|i| ((format!("/{i}"), ()), i, (i as isize, of(i)))).collect()
    }

    #[test]
    fn rows_survive_each_codec() {
        survives::<String, (), isize>(Vec::new());
        survives((0..300u64).map(|i| ((i, i as i64 - 150), i / 7, 1 - 2 * (i % 2) as isize)).collect());
        survives((0..300u64).map(|i| ((i as u8, i % 3 == 0), i, i as isize)).collect());
        survives(vec![((String::new(), "é\0".to_owned()), u64::MAX, isize::MIN)]);
        survives((0..99u64).map(|i| ((("a".repeat(i as usize), Some(i)), (i as i8, vec![(); i as usize % 3])), i, 1isize)).collect());
        survives((0..99u64).map(|i| ((vec![format!("{i}"), "x".into()], Some(Ok::<u64, String>(i))), i, -1isize)).collect());
        survives((0..20u64).map(|i| (((), ()), i, 1isize)).collect());
        survives(sums(|i| (Count(i as isize), Sum::of(i))));
        survives(sums(|i| HyperLogLog::of(&i)));
        survives(sums(|i| (Max::of(format!("{i}")), Quantiles::of(i as i64))));
    }

    #[test]
    fn as_many_rows_as_ever_come_at_once_survive() {
        survives((0..200_000u64).map(|i| ((format!("/page/{}", i * 7919), i), i, 1isize)).collect());
    }

    #[test]
    fn memory_of_a_large_message_is_not_kept() {
        let columns = |rows: usize| {
            let mut columns = Box::<<u64 as Columnar>::Container>::default();
            (0..rows as u64).for_each(|row| columns.push(row));
            Some(columns)
        };
        assert!(kept(columns(SPARE_BYTES_MAX / 16)).is_some());
        assert!(kept(columns(SPARE_BYTES_MAX / 4)).is_none());
    }

    #[test]
    fn columns_are_read_where_they_were_received() {
        let rows: Vec<Update<String, u64, isize>> = (0..10).map(|i| ((format!("{i}"), i), i, 1)).collect();
        // Behind what timely writes before the body, whole words.
        let parcel: Parcel<Update<String, u64, isize>> = read(written(rows, Codec::Columnar)).expect("it was just written");
        assert!(matches!(parcel, Parcel::Columns(Stash::Bytes(_))));
    }

    #[test]
    fn rows_with_pointers_are_written_in_columns_where_abomonation_is_asked_for() {
        let with = written(vec![((String::from("a"), ()), 0, 1isize)], Codec::Abomonation);
        assert_eq!(with[3], Codec::Columnar.number());
        let without = written(vec![((1u64, ()), 0, 1isize)], Codec::Abomonation);
        let expected = if cfg!(feature = "abomonation") { Codec::Abomonation } else { Codec::Columnar };
        assert_eq!(without[3], expected.number());
    }

    #[test]
    fn a_codec_that_was_not_built_is_refused_by_name() {
        assert_eq!("columnar".parse(), Ok(Codec::Columnar));
        assert!("protobuf".parse::<Codec>().unwrap_err().contains("no codec"));
        match "abomonation".parse::<Codec>() {
            Ok(codec) => assert!(cfg!(feature = "abomonation") && codec == Codec::Abomonation),
            Err(reason) => assert!(reason.contains("--features abomonation"), "{reason}"),
        }
    }

    /// Any bytes: an error or a panic that says so, or rows; never a row that was not checked to be within its bytes.
    #[test]
    fn messages_that_are_cut_or_changed_are_told_from_whole_ones() {
        let rows: Vec<Update<String, u64, isize>> = (0..20).map(|i| ((format!("/{i}"), i), i, 1)).collect();
        let whole = written(rows.clone(), Codec::Columnar);
        let refused = |bytes: &[u8]| read::<Update<String, u64, isize>>(bytes.to_vec()).err().unwrap_or_default();
        assert!(refused(&[]).contains("fewer than its first word"));
        assert!(refused(&whole[..7]).contains("fewer than its first word"));
        assert!(refused(&[&[0; 8], &whole[8..]].concat()).contains("no message of rows"));
        assert!(refused(&[b"LFX\x09", &whole[4..]].concat()).contains("codec number 9"));
        assert!(refused(&[b"LFX\x01\xFF", &whole[5..]].concat()).contains("were announced"));
        for end in 8..whole.len() {
            assert!(!refused(&whole[..end]).is_empty(), "{end} of {} bytes are no message", whole.len());
        }
        for at in 8..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xFF;
            let attempt = std::panic::catch_unwind(|| read::<Update<String, u64, isize>>(changed).map(|parcel| parcel.into_rows().len()));
            if let Ok(Ok(found)) = attempt {
                assert_eq!(found, rows.len());
            }
        }
    }

    #[test]
    #[should_panic(expected = "a message of another worker cannot be read: it begins with")]
    fn a_message_of_something_else_stops_the_worker_with_the_reason() {
        let _: Parcel<Update<u64, (), isize>> = ContainerBytes::from_bytes(BytesMut::from(vec![7u8; 64]).freeze());
    }
}
