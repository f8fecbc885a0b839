//! Cuts, flips and swaps the bytes of a log behind its back (rows L1, L4-L18, L20, L22, L24, L25).
//!
//! What must hold: a torn tail is set aside and the log goes on; anything else is reported at the right file and byte; a
//! wrong event is never handed out.
mod log_support;

use lambdaflow::log::SimClock;
use lambdaflow::log::{Damage, Log, LogError, LogOptions, Partition, Tick, verify};
use lambdaflow::storage::Disk;
use lambdaflow::storage::SimDisk;
use log_support::*;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

const HEADER_BYTES: usize = 96;

/// A log killed with six groups of two events in its only, active segment. Returns the disk, the segment and its bytes.
fn active_log() -> (SimDisk, PathBuf, Vec<u8>) {
    let disk = SimDisk::new();
    let clock = SimClock::at(100);
    let log = open(&disk, &clock, small()).unwrap();
    for group in 0..6 {
        clock.pass(1);
        log.append(notes(2 * group..2 * group + 2)).unwrap();
    }
    drop(log);
    let disk = disk.after_kill();
    let segment = partition_files(&disk, ".active").remove(0);
    let bytes = disk.files()[&segment].clone();
    (disk, segment, bytes)
}

/// A closed log of three sealed segments of about 1.5 KiB and four blocks each. Returns the disk, the segments and all events.
fn sealed_log() -> (SimDisk, Vec<PathBuf>, Vec<Placed>) {
    let disk = SimDisk::new();
    let clock = SimClock::at(100);
    for segment in 0..3 {
        let log = open(&disk, &clock, small_blocks()).unwrap();
        for group in 0..4 {
            clock.pass(1);
            let first = 20 * segment + 5 * group;
            log.append(notes(first..first + 5)).unwrap();
        }
        log.close().unwrap();
    }
    let log = open(&disk, &clock, small_blocks()).unwrap();
    let all = read_all(&log);
    log.close().unwrap();
    let segments = partition_files(&disk, ".seg");
    assert_eq!(segments.len(), 3);
    (disk, segments, all)
}

/// Segments of such a log are too large to be merged when it is opened.
fn small() -> LogOptions {
    LogOptions { segment_bytes_max: 2_000, ..inline() }
}

fn small_blocks() -> LogOptions {
    LogOptions { block_events_max: 5, ..small() }
}

fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(last) = ends.last().copied().filter(|last| *last < bytes.len()) {
        let body = u64::from_le_bytes(bytes[last + 80..last + 88].try_into().unwrap());
        ends.push(last + HEADER_BYTES + body as usize);
    }
    ends
}

/// Makes the header at `at` whole again after an edit.
fn recheck_header(bytes: &mut [u8], at: usize) {
    let crc = crc32c::crc32c(&bytes[at..at + 92]);
    bytes[at + 92..at + 96].copy_from_slice(&crc.to_le_bytes());
}

fn expect_damage(result: Result<Log<Note>, LogError>) -> Damage {
    match result {
        Err(LogError::Damaged(damage)) => damage,
        Err(other) => panic!("expected damage, got {other}"),
        Ok(_) => panic!("expected damage, the log opened"),
    }
}

/// Opens a log whose tail was torn: so many events are there, the rest is set aside, and appends go on.
fn expect_torn(disk: &SimDisk, events: u64, aside: &[u8]) {
    let log = open(disk, &SimClock::at(0), small()).unwrap();
    assert_eq!(numbers(&read_all(&log)), (0..events).collect::<Vec<_>>());
    assert_eq!(log.append(notes(events..events + 1)).unwrap().first_offset().0, events);
    drop(log);
    let copies: Vec<Vec<u8>> =
        disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains(".torn-")).map(|(_, bytes)| bytes).collect();
    assert_eq!(copies, if aside.is_empty() { vec![] } else { vec![aside.to_vec()] });
}

#[test]
fn an_active_segment_cut_at_any_byte_keeps_the_groups_before_the_cut() {
    let (image, segment, bytes) = active_log();
    let ends = frame_ends(&bytes);
    assert_eq!(ends.len(), 7);
    for cut in 0..=bytes.len() {
        let disk = image.after_kill();
        disk.plant(&segment, &bytes[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        expect_torn(&disk, 2 * whole as u64, &bytes[ends[whole]..cut]);
    }
}

#[test]
fn zeros_after_the_last_group_are_a_torn_tail() {
    let (disk, segment, bytes) = active_log();
    disk.plant(&segment, &[&bytes[..], &[0; 4096]].concat());
    expect_torn(&disk, 12, &[0; 4096]);
}

#[test]
fn an_old_group_after_the_last_one_is_a_torn_tail() {
    let (image, segment, bytes) = active_log();
    let (other, other_segment, other_bytes) = active_log();
    drop((other, other_segment));
    let ends = frame_ends(&bytes);
    for stale in [&bytes[ends[1]..ends[2]], &other_bytes[ends[5]..ends[6]]] {
        let disk = image.after_kill();
        disk.plant(&segment, &[&bytes[..], stale].concat());
        expect_torn(&disk, 12, stale);
    }
    // A group of another log in the place of the last one: right offset, wrong log.
    let disk = image.after_kill();
    let swapped = [&bytes[..ends[5]], &other_bytes[ends[5]..]].concat();
    disk.plant(&segment, &swapped);
    expect_torn(&disk, 10, &other_bytes[ends[5]..]);
}

#[test]
fn a_bad_group_before_a_whole_one_is_damage_and_nothing_is_changed() {
    let (disk, segment, mut bytes) = active_log();
    let ends = frame_ends(&bytes);
    bytes[ends[3] + HEADER_BYTES + 4] ^= 1;
    disk.plant(&segment, &bytes);
    let before = disk.files();
    let damage = expect_damage(open(&disk, &SimClock::at(0), small()));
    assert_eq!((damage.partition, damage.file, damage.byte), (Some(Partition(0)), segment, (ends[3] + HEADER_BYTES) as u64));
    assert!(damage.what.contains("a whole block follows"), "{}", damage.what);
    assert_eq!(disk.files(), before);
}

#[test]
fn a_wild_length_is_torn_at_the_tail_and_allocates_nothing() {
    let (image, segment, bytes) = active_log();
    let ends = frame_ends(&bytes);
    for length in [u64::MAX, u64::MAX - 7, 1 << 32, 1 << 60, 0, 1, 8] {
        for field in [80, 28] {
            let disk = image.after_kill();
            let mut wild = bytes.clone();
            let at = ends[5] + field;
            let width = if field == 80 { 8 } else { 4 };
            wild[at..at + width].copy_from_slice(&length.to_le_bytes()[..width]);
            if wild == bytes {
                continue;
            }
            recheck_header(&mut wild, ends[5]);
            disk.plant(&segment, &wild);
            match open(&disk, &SimClock::at(0), small()) {
                Ok(log) => assert_eq!(numbers(&read_all(&log)), (0..10).collect::<Vec<_>>()),
                // A count that does not fit the rows behind a right checksum: not torn, and not believed.
                Err(LogError::Damaged(damage)) => {
                    assert_eq!(damage.byte, (ends[5] + HEADER_BYTES) as u64)
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_sealed_segment_with_any_bit_flipped_is_reported_there_and_never_read_wrong() {
    let (image, segments, all) = sealed_log();
    let victim = &segments[1];
    let bytes = image.files()[victim].clone();
    assert!((1_000..4_000).contains(&bytes.len()), "{} bytes", bytes.len());
    let footer = bytes.len() - HEADER_BYTES;
    let data_bytes = u64::from_le_bytes(bytes[footer + 64..footer + 72].try_into().unwrap()) as usize;
    // Headers, bodies, index and footer are each checked as a whole; the byte is that of the part that failed.
    let blocks = frame_ends(&bytes[..data_bytes]);
    let mut parts: Vec<usize> = blocks.iter().flat_map(|start| [*start, start + HEADER_BYTES]).collect();
    parts.truncate(parts.len() - 1);
    parts.extend([footer, bytes.len()]);
    assert_eq!(parts.len(), 2 * 4 + 3);
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let disk = image.after_kill();
        disk.plant(victim, &flipped);
        let damage = match open(&disk, &SimClock::at(0), small()) {
            Ok(log) => {
                let whole = blocks.iter().skip(1).filter(|end| **end <= bit / 8).count();
                let (read, error) = read_until_error(&log, Tick::ZERO);
                assert_eq!(read, all[..20 + 5 * whole], "bit {bit}: the events before the damage, and no others");
                let (read, _) = read_until_error(&log, all[40].tick);
                assert_eq!(read, all[40..], "bit {bit}: the segment after it can be read");
                match error {
                    Some(LogError::Damaged(damage)) => damage,
                    other => panic!("bit {bit}: {other:?}"),
                }
            }
            refused => expect_damage(refused),
        };
        assert_eq!(&damage.file, victim, "bit {bit}");
        let part = parts.iter().rposition(|start| *start <= bit / 8).unwrap();
        let in_part = (parts[part]..parts[part + 1]).contains(&(damage.byte as usize));
        assert!(in_part, "bit {bit} of byte {}: reported at byte {}: {}", bit / 8, damage.byte, damage.what);
        let report = verify(&disk, dir()).unwrap();
        assert!(report.damage.iter().any(|found| &found.file == victim), "bit {bit}: verify finds it");
    }
}

#[test]
fn a_truncated_sealed_segment_is_damage_that_names_the_sizes() {
    let (image, segments, _) = sealed_log();
    let bytes = image.files()[&segments[2]].clone();
    for length in 0..bytes.len() {
        let disk = image.after_kill();
        disk.plant(&segments[2], &bytes[..length]);
        let damage = expect_damage(open(&disk, &SimClock::at(0), small()));
        assert_eq!(damage.file, segments[2]);
        assert!(damage.what.contains(&format!("{length} bytes")), "{}", damage.what);
    }
}

#[test]
fn bytes_after_a_footer_are_damage_whatever_they_are() {
    let (image, segments, _) = sealed_log();
    let bytes = image.files()[&segments[2]].clone();
    let (zeros, footer) = (vec![0; 4_096], bytes[bytes.len() - HEADER_BYTES..].to_vec());
    for more in [&zeros[..1], &zeros[..8], &zeros[..96], &zeros[..], &footer[..], &bytes[..]] {
        let disk = image.after_kill();
        disk.plant(&segments[2], &[&bytes[..], more].concat());
        let damage = expect_damage(open(&disk, &SimClock::at(0), small()));
        assert_eq!(damage.file, segments[2]);
        assert!(!verify(&disk, dir()).unwrap().is_whole(), "{} bytes more", more.len());
    }
}

#[test]
fn a_block_of_an_older_copy_of_the_same_segment_is_noticed_when_it_is_read() {
    // Both forks have one log id, as a log and its backup have.
    let (image, ..) = sealed_log();
    let forks = ['a', 'b'].map(|way| {
        let disk = image.after_kill();
        let log = open(&disk, &SimClock::at(9_000), small_blocks()).unwrap();
        for number in 0..4 {
            log.append(vec![Note { number: 60 + number, text: way.to_string() }; 5]).unwrap();
        }
        log.close().unwrap();
        open(&disk, &SimClock::at(9_000), small_blocks()).unwrap().close().unwrap();
        disk
    });
    let segment = partition_files(&forks[0], ".seg").remove(3);
    let [now, before] = [&forks[0], &forks[1]].map(|disk| disk.files()[&segment].clone());
    assert_eq!(now.len(), before.len());
    let footer = now.len() - HEADER_BYTES;
    let data_bytes = u64::from_le_bytes(now[footer + 64..footer + 72].try_into().unwrap()) as usize;
    let blocks = frame_ends(&now[..data_bytes]);
    assert_eq!(blocks.len(), 5);
    for block in blocks.windows(2) {
        let mut spliced = now.clone();
        spliced[block[0]..block[1]].copy_from_slice(&before[block[0]..block[1]]);
        assert_ne!(spliced, now);
        let disk = forks[0].after_kill();
        disk.plant(&segment, &spliced);
        assert!(!verify(&disk, dir()).unwrap().is_whole());
        let log = open(&disk, &SimClock::at(0), small()).unwrap();
        match read_until_error(&log, Tick::ZERO) {
            (read, Some(LogError::Damaged(damage))) => {
                assert_eq!((damage.file, damage.byte), (segment.clone(), block[0] as u64));
                assert!(read.iter().all(|placed| placed.note.text != "b"), "an event of the other copy was served");
            }
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_missing_swapped_or_copied_segment_is_damage() {
    let (image, segments, _) = sealed_log();
    let files = image.files();
    let damaged_after = |change: &dyn Fn(&SimDisk)| {
        let disk = image.after_kill();
        change(&disk);
        assert!(!verify(&disk, dir()).unwrap().is_whole());
        expect_damage(open(&disk, &SimClock::at(0), small())).what
    };
    let missing = |number: usize| damaged_after(&|disk| disk.uproot(&segments[number]));
    assert!(missing(0).contains("starts at offset 20, expected 0"), "{}", missing(0));
    assert!(missing(1).contains("starts at offset 40, expected 20"), "{}", missing(1));
    assert!(missing(2).contains("ends at offset 40"), "{}", missing(2));
    damaged_after(&|disk| {
        disk.plant(&segments[0], &files[&segments[1]]);
        disk.plant(&segments[1], &files[&segments[0]]);
    });
    damaged_after(&|disk| disk.plant(&partition_file("00000000000000000060.seg"), &files[&segments[2]]));
    let (other, other_segments, _) = sealed_log();
    let foreign = damaged_after(&|disk| disk.plant(&segments[1], &other.files()[&other_segments[1]]));
    assert!(foreign.contains("of log"), "{foreign}");
}

#[test]
fn an_empty_newest_segment_is_taken_over() {
    let (disk, ..) = sealed_log();
    disk.plant(&partition_file("00000000000000000060.active"), b"");
    let log = open(&disk, &SimClock::at(0), small()).unwrap();
    assert_eq!(log.append(notes(60..61)).unwrap().first_offset().0, 60);
    drop(log);
    let log = open(&disk.after_kill(), &SimClock::at(0), small()).unwrap();
    assert_eq!(numbers(&read_all(&log)), (0..61).collect::<Vec<_>>());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let refused = |disk: &SimDisk| {
        let before = disk.files();
        match open(disk, &SimClock::at(0), small()) {
            Err(error @ LogError::NewerFormat { found: 9, .. }) => assert_eq!(error.exit_code(), 2),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a newer format was opened"),
        }
        assert_eq!(disk.files(), before);
    };
    let (image, segments, _) = sealed_log();
    for name in ["log.json", "mark"] {
        let disk = image.after_kill();
        let text = String::from_utf8(disk.files()[&dir().join(name)].clone()).unwrap();
        disk.plant(&dir().join(name), text.replace("\"format\":2", "\"format\":9").as_bytes());
        refused(&disk);
    }
    let disk = image.after_kill();
    let mut bytes = disk.files()[&segments[0]].clone();
    let footer = bytes.len() - HEADER_BYTES;
    bytes[footer + 4] = 9;
    recheck_header(&mut bytes, footer);
    disk.plant(&segments[0], &bytes);
    refused(&disk);
    let (disk, segment, mut bytes) = active_log();
    let last = frame_ends(&bytes)[5];
    bytes[last + 4] = 9;
    recheck_header(&mut bytes, last);
    disk.plant(&segment, &bytes);
    refused(&disk);
}

#[test]
fn a_bad_tail_after_a_clean_stop_is_damage() {
    let disk = SimDisk::new();
    let log = open(&disk, &SimClock::at(5), small()).unwrap();
    log.append(notes(0..3)).unwrap();
    log.close().unwrap();
    let segment = partition_files(&disk, ".active").remove(0);
    let mut bytes = disk.files()[&segment].clone();
    *bytes.last_mut().unwrap() ^= 1;
    disk.plant(&segment, &bytes);
    let damage = expect_damage(open(&disk, &SimClock::at(5), small()));
    assert!(damage.what.contains("the log was closed"), "{}", damage.what);
}

#[test]
fn recovery_interrupted_at_every_step_ends_as_if_it_was_not() {
    let (image, segment, bytes) = active_log();
    let torn = &bytes[..bytes.len() - 5];
    for step in 1.. {
        let disk = image.after_kill();
        disk.plant(&segment, torn);
        disk.cut_power_at(step);
        drop(open(&disk, &SimClock::at(0), small()));
        let interrupted = disk.is_off();
        expect_torn(&disk.after_kill(), 10, &torn[frame_ends(&bytes)[5]..]);
        if !interrupted {
            return;
        }
    }
}

#[test]
fn strange_names_in_a_real_directory_are_left_alone() {
    use std::os::unix::ffi::OsStrExt;
    let place = tempfile::tempdir().unwrap();
    let log_dir = place.path().join("log");
    let disk: Arc<dyn Disk> = Arc::new(lambdaflow::storage::RealDisk);
    let open = || Log::<Note>::open(Arc::clone(&disk), SimClock::at(9), &log_dir, small()).unwrap();
    let log = open();
    log.append(notes(0..3)).unwrap();
    log.close().unwrap();
    let partition = log_dir.join("p0000");
    let strange =
        [&b"\xFF\xFE.seg"[..], b"00000000000000000000.seg.bak", b"0.seg", b".active", b"99999999999999999999999.seg", b"x.torn-1"];
    for name in strange {
        std::fs::write(partition.join(std::ffi::OsStr::from_bytes(name)), b"mine").unwrap();
    }
    std::fs::create_dir_all(partition.join("backup.seg").join("deeper")).unwrap();
    std::fs::create_dir_all(log_dir.join("notes")).unwrap();
    for _ in 0..2 {
        let log = open();
        assert_eq!(numbers(&read_all(&log)), [0, 1, 2]);
        log.close().unwrap();
        assert!(verify(&*disk, &log_dir).unwrap().is_whole());
    }
    for name in strange {
        assert_eq!(std::fs::read(partition.join(std::ffi::OsStr::from_bytes(name))).unwrap(), b"mine");
    }
    assert!(partition.join("backup.seg").join("deeper").is_dir() && log_dir.join("notes").is_dir());
}

#[test]
fn strange_files_are_left_alone_and_other_directories_are_refused() {
    let (disk, ..) = sealed_log();
    for name in ["notes.txt", "00000000000000000000.seg~", ".swp"] {
        disk.plant(&partition_file(name), b"mine");
    }
    let log = open(&disk, &SimClock::at(0), small()).unwrap();
    assert_eq!(log.events_total(), 60);
    drop(log);
    assert_eq!(disk.files()[&partition_file(".swp")], b"mine");

    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    disk.plant(&dir().join("thesis.tex"), b"mine");
    let before = disk.files();
    match open(&disk, &SimClock::at(0), small()) {
        Err(error @ LogError::NotALog { .. }) => {
            assert!(error.to_string().contains("thesis.tex") && error.exit_code() == 2)
        }
        _ => panic!("a directory of something else was taken for a log"),
    }
    assert_eq!(disk.files(), before);
    let nothing = Log::<Note>::open_existing(Arc::new(SimDisk::new()), SimClock::at(0), dir(), small());
    assert!(matches!(nothing, Err(LogError::NoLog { .. })));
}

proptest! {
    #![proptest_config(random_cases(256))]
    #[test]
    fn random_bytes_as_a_segment_are_refused_without_a_panic(soup in proptest::collection::vec(any::<u8>(), 0..2_000), sealed: bool) {
        let (image, segments, _) = sealed_log();
        let disk = image.after_kill();
        if sealed {
            disk.plant(&segments[2], &soup);
            expect_damage(open(&disk, &SimClock::at(0), small()));
        } else {
            disk.plant(&partition_file("00000000000000000060.active"), &soup);
            // The log was closed, so bytes that were not there then are damage and not a torn tail.
            prop_assert_eq!(open(&disk, &SimClock::at(0), small()).is_ok(), soup.is_empty());
        }
        verify(&disk, dir()).unwrap();
    }

    #[test]
    fn a_group_with_random_bytes_written_over_it_is_never_read_wrong(at in 0usize..2_000, garbage in proptest::collection::vec(any::<u8>(), 1..40)) {
        let (disk, segment, bytes) = active_log();
        let mut edited = bytes.clone();
        let at = at % bytes.len();
        let end = bytes.len().min(at + garbage.len());
        edited[at..end].copy_from_slice(&garbage[..end - at]);
        disk.plant(&segment, &edited);
        if let Ok(log) = open(&disk, &SimClock::at(0), LogOptions { segment_bytes_max: 1, ..small() }) {
            let read = numbers(&read_all(&log));
            prop_assert_eq!(&read, &(0..read.len() as u64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn wrong_bytes_behind_a_right_checksum_are_an_error_and_not_a_panic() {
    use columnar::Index;
    let (image, segment, bytes) = active_log();
    let ends = frame_ends(&bytes);
    let body = ends[5] + HEADER_BYTES..ends[6];
    let (mut refused, mut believed) = (0, 0);
    for word in body.clone().step_by(8) {
        for value in [0, 1, 9, 1 << 40, u64::MAX] {
            let mut edited = bytes.clone();
            edited[word..word + 8].copy_from_slice(&u64::to_le_bytes(value));
            let crc = crc32c::crc32c(&edited[body.clone()]);
            edited[ends[5] + 88..ends[5] + 92].copy_from_slice(&crc.to_le_bytes());
            recheck_header(&mut edited, ends[5]);
            let disk = image.after_kill();
            disk.plant(&segment, &edited);
            match open(&disk, &SimClock::at(0), small()) {
                Ok(log) => {
                    let mut cursor = log.cursor(Tick::ZERO);
                    while let Some(block) = cursor.next().unwrap() {
                        assert!(block.range().all(|row| block.columns().get(row).text.len() < 1_000));
                    }
                    believed += 1;
                }
                Err(LogError::Damaged(damage)) => {
                    assert_eq!(damage.byte, body.start as u64);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    // Numbers and letters cannot be told from others; lengths, bounds and ticks can.
    assert!(refused > 10 && believed > 10, "{refused} refused, {believed} believed");
}

#[test]
fn a_flipped_bit_in_the_small_files_is_refused_or_changes_nothing() {
    let (image, _, all) = sealed_log();
    for name in ["log.json", "mark"] {
        let path = dir().join(name);
        let bytes = image.files()[&path].clone();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let disk = image.after_kill();
            disk.plant(&path, &flipped);
            match open(&disk, &SimClock::at(0), small()) {
                Ok(log) => assert_eq!(read_all(&log), all, "bit {bit} of {name}"),
                Err(LogError::Damaged(damage)) => assert_eq!(damage.file, path),
                Err(LogError::NewerFormat { path: file, .. }) => assert_eq!(file, path),
                Err(other) => panic!("bit {bit} of {name}: {other}"),
            }
        }
    }
}
