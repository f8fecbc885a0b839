//! Which appends of which producer are in the log, so that an append that is repeated is stored once.
//!
//! A producer numbers its appends from 0 on. All of them go into one partition, chosen by the producer's name, so the order of
//! its numbers is the order of their offsets, and one writer judges them. Of each producer the last [`PRODUCER_WINDOW`] numbers
//! are remembered, with the first answer and a digest of the events:
//!
//! ```text
//! number is the next one              stored
//! number is remembered, same events   answered again, as it was the first time
//! number is remembered, other events  refused: two producers have one name, or the input changed
//! number is older                     refused: nobody can tell any more
//! number is ahead                     refused, with the one that is expected
//! ```
//!
//! A frame of an active segment says which of its events came from whom; a sealed segment has the table as it stood at its end,
//! so opening a log reads one table and the active frames. Both are laid out alike, in 8-byte words:
//!
//! ```text
//! per producer: bytes of its name, the name padded to words, how many entries;
//! per entry:    sequence, digest, tick, first offset, events (low 48 bits) with the number of the event type (high 16)
//! ```
//!
//! The table never forgets: a producer beyond [`PRODUCERS_MAX`] is refused.
use super::position::{Offset, Partition, Tick};
use columnar::bytemuck;
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Longest name of a producer, in bytes.
pub const PRODUCER_NAME_BYTES_MAX: usize = 64;
/// Producers that a partition remembers. A further one is refused.
pub const PRODUCERS_MAX: usize = 1024;
/// Appends of a producer that are remembered. Repeating an older one is refused.
pub const PRODUCER_WINDOW: usize = 128;

/// Why an append of a producer was refused. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ProducerError {
    /// The name is empty, too long, or has control characters.
    #[error("{name:?} is no name of a producer\n  hint: 1 to {PRODUCER_NAME_BYTES_MAX} bytes without control characters")]
    Name {
        /// What was given.
        name: String,
    },
    /// Numbers of a producer follow each other from 0.
    #[error("append {sequence} of producer `{producer}` was refused: {expected} comes next\n  hint: an append before it is missing")]
    Ahead {
        /// The producer.
        producer: String,
        /// The number it gave.
        sequence: u64,
        /// The number that comes next.
        expected: u64,
    },
    /// The number was used for other events.
    #[error(
        "append {sequence} of producer `{producer}` is in the log with other events\n  hint: two producers share this name, or the input changed; {expected} comes next"
    )]
    Differs {
        /// The producer.
        producer: String,
        /// The number it gave.
        sequence: u64,
        /// The number that comes next.
        expected: u64,
    },
    /// The append was stored, so long ago that its answer is forgotten.
    #[error(
        "append {sequence} of producer `{producer}` is too old to be repeated: only {oldest} and later ones are remembered\n  hint: it is in the log; {expected} comes next"
    )]
    TooOld {
        /// The producer.
        producer: String,
        /// The number it gave.
        sequence: u64,
        /// The oldest number that is remembered.
        oldest: u64,
        /// The number that comes next.
        expected: u64,
    },
    /// The partition knows as many producers as it can.
    #[error(
        "producer `{producer}` was refused: partition {partition} remembers {PRODUCERS_MAX} producers and forgets none\n  hint: reuse names"
    )]
    TooMany {
        /// The producer.
        producer: String,
        /// The partition of its name.
        partition: Partition,
    },
}

/// An append as its producer numbered it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub producer: Arc<str>,
    pub sequence: u64,
    /// Of the events, see [`digest`].
    pub digest: u64,
}

/// An append that is in the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub sequence: u64,
    pub digest: u64,
    pub tick: Tick,
    pub first_offset: Offset,
    pub events: u64,
    /// The number of the type the digest was computed of.
    pub event_type: u16,
}

/// What becomes of a claim.
pub(crate) enum Verdict {
    /// It is the next one.
    Fresh,
    /// It is remembered, as this.
    Repeat(Entry),
}

/// The appends of producers, by name; the numbers of each follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers(BTreeMap<Arc<str>, VecDeque<Entry>>);

/// Words of an entry.
const ENTRY_WORDS: usize = 5;
const EVENTS_BITS: u32 = 48;
/// Stands for all types that a log no longer has: beyond any number that a type can have.
const TYPE_GONE: u16 = u16::MAX;

/// Whether this can be a producer's name.
pub(crate) fn check_name(name: &str) -> Result<(), ProducerError> {
    let fits = (1..=PRODUCER_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(ProducerError::Name { name: name.chars().take(PRODUCER_NAME_BYTES_MAX).collect() }) }
}

/// The partition of all of a producer's appends, in a log that had so many when it was created.
pub(crate) fn partition_of(producer: &str, partitions: u32) -> Partition {
    Partition((super::event::fnv1a(producer.as_bytes()) % u64::from(partitions.max(1))) as u32)
}

/// 64 bits that tell the events of appends apart: multiply and mix, word by word (after MurmurHash's finalizer).
pub(crate) fn digest(words: &[u64]) -> u64 {
    words.iter().fold(words.len() as u64, |hash, word| {
        let mixed = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    })
}

impl Producers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Judges an append of `events` events of type `event_type`.
    pub fn judge(&self, claim: &Claim, events: u64, event_type: u16, partition: Partition) -> Result<Verdict, ProducerError> {
        let (producer, sequence) = (claim.producer.to_string(), claim.sequence);
        let Some(entries) = self.0.get(&claim.producer) else {
            return match sequence {
                0 if self.0.len() >= PRODUCERS_MAX => Err(ProducerError::TooMany { producer, partition }),
                0 => Ok(Verdict::Fresh),
                _ => Err(ProducerError::Ahead { producer, sequence, expected: 0 }),
            };
        };
        let oldest = entries.front().map_or(0, |entry| entry.sequence);
        let expected = oldest.saturating_add(entries.len() as u64);
        if sequence >= expected {
            return if sequence == expected { Ok(Verdict::Fresh) } else { Err(ProducerError::Ahead { producer, sequence, expected }) };
        }
        let Some(entry) = self.entry(&claim.producer, sequence) else {
            return Err(ProducerError::TooOld { producer, sequence, oldest, expected });
        };
        // Digests of two types cannot be compared: what was sent before an upgrade and is repeated after it is told by its size.
        let same = entry.events == events && (entry.event_type != event_type || entry.digest == claim.digest);
        if same { Ok(Verdict::Repeat(entry)) } else { Err(ProducerError::Differs { producer, sequence, expected }) }
    }

    /// Remembers an append that was judged fresh, forgetting the oldest beyond the window.
    pub fn remember(&mut self, producer: &Arc<str>, entry: Entry) {
        let entries = match self.0.entry(Arc::clone(producer)) {
            Place::Occupied(place) => place.into_mut(),
            Place::Vacant(place) => place.insert(VecDeque::new()),
        };
        if entries.back().is_some_and(|last| last.sequence.checked_add(1) != Some(entry.sequence)) {
            // A table that was salvaged in part: only what follows the newest gap can be judged.
            entries.clear();
        }
        entries.push_back(entry);
        while entries.len() > PRODUCER_WINDOW {
            entries.pop_front();
        }
    }

    /// The same for a log in which the type with number `own` is number 0 and the only one.
    pub fn renumbered(mut self, own: u16) -> Self {
        for entry in self.0.values_mut().flatten() {
            entry.event_type = if entry.event_type == own { 0 } else { TYPE_GONE };
        }
        self
    }

    /// Remembers what comes after this, and of it what is not known yet.
    pub fn extend(&mut self, later: &Producers) {
        for (producer, entries) in &later.0 {
            let newest = self.0.get(producer).and_then(|entries| entries.back()).map(|entry| entry.sequence);
            let anew = entries.iter().filter(|entry| newest.is_none_or(|newest| entry.sequence > newest));
            anew.for_each(|entry| self.remember(producer, *entry));
        }
    }

    /// What is remembered of an append.
    pub fn entry(&self, producer: &str, sequence: u64) -> Option<Entry> {
        let entries = self.0.get(producer)?;
        let place = sequence.checked_sub(entries.front()?.sequence)?;
        entries.get(usize::try_from(place).ok()?).copied()
    }

    /// Gives an append that was just remembered the tick of its group; returns what is remembered of it now.
    pub fn stamp(&mut self, producer: &str, sequence: u64, tick: Tick) -> Option<Entry> {
        let entries = self.0.get_mut(producer)?;
        let place = sequence.checked_sub(entries.front()?.sequence)?;
        let entry = entries.get_mut(usize::try_from(place).ok()?)?;
        entry.tick = tick;
        Some(*entry)
    }

    /// Appends the words of the table.
    pub fn encode(&self, words: &mut Vec<u64>) {
        for (producer, entries) in &self.0 {
            words.push(producer.len() as u64);
            for part in producer.as_bytes().chunks(8) {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                words.push(u64::from_ne_bytes(word));
            }
            words.push(entries.len() as u64);
            for entry in entries {
                let events = entry.events | u64::from(entry.event_type) << EVENTS_BITS;
                words.extend([entry.sequence, entry.digest, entry.tick.0, entry.first_offset.0, events]);
            }
        }
    }

    /// Reads a table, after its checksum was found to hold.
    pub fn decode(mut words: &[u64]) -> Result<Producers, String> {
        let mut producers = Producers::default();
        let mut take = |count: u64| -> Result<&[u64], String> {
            let count = usize::try_from(count).ok().filter(|count| *count <= words.len());
            let (taken, rest) = words.split_at(count.ok_or("a table of producers that is cut short")?);
            words = rest;
            Ok(taken)
        };
        let mut head = take(1);
        while let Ok([bytes]) = head {
            let bytes = *bytes as usize;
            let padded: Vec<u8> = bytemuck::cast_slice(take(bytes.div_ceil(8) as u64)?).to_vec();
            let name = std::str::from_utf8(&padded[..bytes]).map_err(|error| format!("a producer's name: {error}"))?;
            check_name(name).map_err(|error| error.to_string())?;
            let count = take(1)?[0];
            let entries = take(count.saturating_mul(ENTRY_WORDS as u64))?;
            let entries: VecDeque<Entry> = entries
                .chunks_exact(ENTRY_WORDS)
                .map(|entry| Entry {
                    sequence: entry[0],
                    digest: entry[1],
                    tick: Tick(entry[2]),
                    first_offset: Offset(entry[3]),
                    events: entry[4] & ((1 << EVENTS_BITS) - 1),
                    event_type: (entry[4] >> EVENTS_BITS) as u16,
                })
                .collect();
            let follow =
                entries.iter().zip(entries.iter().skip(1)).all(|(entry, next)| entry.sequence.checked_add(1) == Some(next.sequence));
            if entries.is_empty() || !follow {
                return Err(format!("numbers of producer `{name}` that do not follow each other"));
            }
            producers.0.insert(Arc::from(name), entries);
            head = take(1);
        }
        Ok(producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64) -> Entry {
        Entry { sequence, digest: sequence * 7, tick: Tick(sequence), first_offset: Offset(10 * sequence), events: 10, event_type: 2 }
    }

    fn claim(producer: &str, sequence: u64) -> Claim {
        Claim { producer: Arc::from(producer), sequence, digest: sequence * 7 }
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_a_cut_one_is_refused() {
        let mut producers = Producers::default();
        for (name, count) in [("a", 1), ("exactly8", 3), ("a longer name: Ä", PRODUCER_WINDOW as u64 + 5)] {
            (0..count).for_each(|sequence| producers.remember(&Arc::from(name), entry(sequence)));
        }
        let mut words = Vec::new();
        producers.encode(&mut words);
        assert_eq!(Producers::decode(&words), Ok(producers.clone()));
        let whole: Vec<usize> = (0..=words.len()).filter(|len| Producers::decode(&words[..*len]).is_ok()).collect();
        assert_eq!(whole.len(), 4, "nothing, and the ends of three producers: {whole:?}");
    }

    #[test]
    fn each_number_is_judged_by_its_place_in_the_window() {
        let mut producers = Producers::default();
        let count = PRODUCER_WINDOW as u64 + 3;
        (0..count).for_each(|sequence| producers.remember(&Arc::from("p"), entry(sequence)));
        let judge = |sequence, events, event_type| producers.judge(&claim("p", sequence), events, event_type, Partition(0));
        assert!(matches!(judge(count, 1, 2), Ok(Verdict::Fresh)));
        assert!(matches!(judge(count + 1, 1, 2), Err(ProducerError::Ahead { expected, .. }) if expected == count));
        assert!(matches!(judge(2, 10, 2), Err(ProducerError::TooOld { oldest: 3, .. })));
        for sequence in 3..count {
            assert!(matches!(judge(sequence, 10, 2), Ok(Verdict::Repeat(_))));
            assert!(matches!(judge(sequence, 9, 2), Err(ProducerError::Differs { .. })));
        }
        let other = Claim { digest: 1, ..claim("p", 5) };
        assert!(matches!(producers.judge(&other, 10, 2, Partition(0)), Err(ProducerError::Differs { .. })));
        assert!(matches!(producers.judge(&other, 10, 3, Partition(0)), Ok(Verdict::Repeat(_))), "of another type");
    }

    #[test]
    fn one_producer_too_many_is_refused_and_the_others_go_on() {
        let mut producers = Producers::default();
        (0..PRODUCERS_MAX).for_each(|number| producers.remember(&Arc::from(format!("p{number}")), entry(0)));
        assert!(matches!(producers.judge(&claim("one more", 0), 1, 0, Partition(0)), Err(ProducerError::TooMany { .. })));
        assert!(matches!(producers.judge(&claim("p7", 1), 1, 0, Partition(0)), Ok(Verdict::Fresh)));
    }

    #[test]
    fn names_have_limits() {
        let longest = "x".repeat(PRODUCER_NAME_BYTES_MAX);
        assert!(check_name(&longest).is_ok() && check_name("Ä b").is_ok());
        for wrong in ["", "a\nb", &format!("{longest}x")] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
