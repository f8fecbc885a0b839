//! Fuzzing that runs on stable, in every `cargo test`: each target with its corpus, and then with inputs made from it.
//!
//! `LAMBDAFLOW_FUZZ_SECONDS=600 cargo test --release --test fuzz` goes on for longer; `scripts/fuzz.sh` lets libFuzzer follow
//! the branches. An input that once failed belongs into `corpus/TARGET/`, where it is tried for ever.
mod edits;
mod targets;

use lambdaflow::storage::Rng;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// How long each target is tried, unless `LAMBDAFLOW_FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 4;
/// Longest that one input may take: a thousand times what most do, in a debug build on a busy machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest input that is made.
const INPUT_BYTES_MAX: usize = 4096;
/// Bytes of data that the process may have. Inputs are a few KiB, so whoever asks for more believed a length in them.
const DATA_BYTES_MAX: u64 = 512 << 20;

/// Inputs with names.
type Corpus = Vec<(PathBuf, Vec<u8>)>;

fn corpus(target: &str) -> Corpus {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut corpus: Corpus = entries
        .map(|entry| {
            let path = entry.expect("a corpus can be listed").path();
            let bytes = std::fs::read(&path).expect("a corpus can be read");
            (path, bytes)
        })
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "no corpus in {}", dir.display());
    corpus
}

thread_local! {
    /// What the last panic of this thread said. The log catches panics of the library that it reads columns with.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One input; what fails is shown so that it can be kept.
fn run(target: Target, name: &str, bytes: &[u8]) {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    let took = started.elapsed();
    let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if let Err(panic) = outcome {
        println!("{}", SAID.take());
        println!("{name} fails; keep its input: echo {} | xxd -r -p > tests/fuzz/corpus/{name}/FILE", hex());
        resume_unwind(panic);
    }
    assert!(took < INPUT_TIME_MAX, "{name} took {took:?} for {}", hex());
}

/// A new input: one of the corpus changed in a few places, two of them crossed, or nothing but chance.
fn make(corpus: &Corpus, rng: &mut Rng) -> Vec<u8> {
    let any = |rng: &mut Rng| corpus[rng.below(corpus.len() as u64) as usize].1.clone();
    let mut bytes = match rng.below(8) {
        0 => Vec::new(),
        1 => {
            let (mut front, back) = (any(rng), any(rng));
            front.truncate(rng.below(front.len() as u64 + 1) as usize);
            front.extend_from_slice(&back[rng.below(back.len() as u64 + 1) as usize..]);
            front
        }
        _ => any(rng),
    };
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = rng.number() as u8,
            _ => {
                let more: Vec<u8> = (0..rng.below(24)).map(|_| rng.number() as u8).collect();
                bytes.splice(at..at, more);
            }
        }
    }
    if bytes.is_empty() {
        bytes = (0..1 + rng.below(40)).map(|_| rng.number() as u8).collect();
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// Makes a wild allocation end the process, and not the machine's patience.
fn limit_memory() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Data);
    if limits.current.is_none_or(|current| current > DATA_BYTES_MAX) {
        let limits = Rlimit { current: Some(DATA_BYTES_MAX), ..limits };
        setrlimit(Resource::Data, limits).expect("a limit can be lowered");
    }
}

fn fuzz(name: &str) {
    let (_, target) = *TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let seed = Rng::seed_from_env().unwrap_or_else(|| RandomState::new().build_hasher().finish());
    // Not captured: a process that asks for too much memory ends without showing what tests printed.
    writeln!(std::io::stderr(), "fuzzing {name}: LAMBDAFLOW_SEED={seed}").expect("stderr");
    limit_memory();
    std::panic::set_hook(Box::new(|panic| SAID.set(format!("{panic}\n{}", Backtrace::capture()))));
    let corpus = corpus(name);
    corpus.iter().for_each(|(path, bytes)| {
        println!("{}", path.display());
        run(target, name, bytes);
    });
    let seconds = std::env::var("LAMBDAFLOW_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    let (started, mut rng, mut inputs) = (Instant::now(), Rng::new(seed), 0u64);
    while started.elapsed() < Duration::from_secs(seconds) {
        run(target, name, &make(&corpus, &mut rng));
        inputs += 1;
    }
    println!("{name}: {} kept inputs and {inputs} new ones", corpus.len());
}

#[test]
fn no_bytes_in_a_segment_make_the_log_panic_or_hand_out_what_nobody_wrote() {
    fuzz("segments");
}

#[test]
fn no_bytes_in_the_small_files_make_the_log_panic() {
    fuzz("documents");
}

#[test]
fn no_lines_make_a_parser_panic_and_what_is_read_survives_being_written() {
    fuzz("lines");
}
