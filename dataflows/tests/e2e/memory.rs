//! Views several times larger than the memory that the program may have: they are built in steps, served from mapped files,
//! brought up to date and restarted on, and every answer is the right one.
//!
//! The limit is a control group's, which counts the page cache as well: whatever is mapped must be given back and read again.
//! Where none can be made, the limit is one on data (`ulimit -d`), which leaves mapped files out but counts all that is
//! reserved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use lambdaflow::storage::Rng;
use serde_json::Value;

use super::harness::*;

/// Letters of a word, and so nearly the bytes of its row.
const WORD_LETTERS: usize = 1_000;
const LINE_WORDS: u64 = 5;
/// Memory that the program may have, page cache included, in MiB.
const MEMORY_MIB: u64 = 100;
/// Data that it may reserve where only that can be limited, in MiB.
const DATA_MIB: u64 = 288;

/// Words in the log at first. Each is in three collections: 100,000 of them are 300 MB of generation.
fn words() -> u64 {
    let mib = std::env::var("LAMBDAFLOW_VIEW_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(300u64);
    (mib << 20) / 3 / WORD_LETTERS as u64
}

/// A word of a number: in the order of the numbers, and random behind it.
fn word(number: u64) -> String {
    let mut rng = Rng::new(number);
    let mut word = format!("{number:08}");
    while word.len() < WORD_LETTERS {
        word.extend(rng.number().to_le_bytes().map(|byte| char::from(b'a' + byte % 26)));
    }
    word.truncate(WORD_LETTERS);
    word
}

fn line(words: impl Iterator<Item = u64>) -> String {
    words.map(word).collect::<Vec<_>>().join(" ") + "\n"
}

/// How often each word occurs, and nothing else: what all answers follow from.
#[derive(Default)]
struct Reference(BTreeMap<u64, u64>);

impl Reference {
    fn rows(&self, numbers: impl Iterator<Item = u64>) -> Vec<(String, u64)> {
        numbers.filter_map(|number| Some((word(number), *self.0.get(&number)?))).collect()
    }

    fn top(&self) -> Vec<u64> {
        let mut counts: Vec<u64> = self.0.values().copied().collect();
        counts.sort_by(|a, b| b.cmp(a));
        counts.truncate(10);
        counts
    }
}

fn rows(answer: &Value) -> Vec<(String, u64)> {
    let one = |part: &Value| part.as_array().map_or(part.clone(), |parts| parts[0].clone());
    let row = |row: &Value| {
        let count = row["value"].as_object().and_then(|value| value.values().next()).cloned().unwrap_or_else(|| one(&row["value"]));
        (one(&row["key"]).as_str().expect("a word").to_owned(), count.as_u64().expect("a count"))
    };
    answer["rows"].as_array().expect("rows").iter().map(row).collect()
}

/// What limits the memory of one process.
enum Limit {
    Group(PathBuf),
    Data,
}

impl Limit {
    /// A control group of this process's, of version 1 or 2, if one can be made.
    fn new(name: &str) -> Self {
        for (parent, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Path::new(parent).join(format!("lambdaflow-test-{}-{name}", std::process::id()));
            if !Path::new(parent).join("cgroup.procs").exists() || std::fs::create_dir(&group).is_err() {
                continue;
            }
            let made = Limit::Group(group.clone());
            if std::fs::write(group.join(file), (MEMORY_MIB << 20).to_string()).is_ok() {
                return made;
            }
        }
        Limit::Data
    }

    fn start(&self, command: &Command) -> Guard {
        let script = match self {
            Limit::Group(group) => format!("echo $$ > {}/cgroup.procs", group.display()),
            Limit::Data => format!("ulimit -d {}", DATA_MIB << 10),
        };
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("{script} && exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
        limited.env_remove("LAMBDAFLOW_TO").env_remove("LAMBDAFLOW_LOG");
        start(limited, "")
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Limit::Group(group) = self {
            // It empties a moment after its last process has ended.
            eventually("the group is empty", || std::fs::remove_dir(&*group).is_ok().then_some(()));
        }
    }
}

/// A field of a process's status, in MiB.
fn status_mib(id: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix(field)?.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

/// Bytes of what a generation is made of.
fn generation_mib(log: &str) -> u64 {
    let listed = lambdaflow(["generations", "list", log, "--format", "json"]).exits(0).out;
    let newest: Value = serde_json::from_str(listed.lines().next().expect("a generation")).expect("JSON");
    let shards = newest["manifest"]["contents"]["shards"].as_array().expect("shards").clone();
    let files = shards.iter().flat_map(|files| files.as_array().expect("files"));
    files.map(|file| file["bytes"].as_u64().expect("a number")).sum::<u64>() >> 20
}

/// A server under the limit, and the most private memory that it was seen to have.
struct Limited {
    server: Serving,
    anonymous_mib: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Limited {
    fn start(limit: &Limit, log: &str) -> Self {
        let arguments = ["run", "wordcount", "--log", log, "--listen", "127.0.0.1:0", "--batch-events", "500", "--batch-interval", "0"];
        let process = limit.start(&program(arguments));
        let (id, anonymous_mib) = (process.id(), std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let most = std::sync::Arc::downgrade(&anonymous_mib);
        std::thread::spawn(move || {
            while let Some(most) = most.upgrade() {
                most.fetch_max(status_mib(id, "RssAnon"), std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(LOOK_PAUSE);
            }
        });
        Self { server: Serving::from(process), anonymous_mib }
    }

    fn anonymous_mib(&self) -> u64 {
        self.anonymous_mib.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn read(&self, path: &str, token: u64, pairs: &[(&str, &str)]) -> Value {
        let token = token.to_string();
        let pairs: Vec<(&str, &str)> = pairs.iter().copied().chain([("at_least", &*token)]).collect();
        self.server.get(&format!("/v1/views/{path}"), &pairs).ok()
    }

    /// Look-ups all over the view, ranges, prefixes, the top, and one row that is made from all others.
    fn check(&self, reference: &Reference, token: u64, rng: &mut Rng, context: &str) {
        let last = *reference.0.last_key_value().expect("words").0;
        for _ in 0..100 {
            let number = rng.below(last + 100);
            let key = Value::from(word(number)).to_string();
            let found = rows(&self.read("words/get", token, &[("key", &key)]));
            assert_eq!(found, reference.rows([number].into_iter()), "{context}: word {number}");
        }
        for _ in 0..20 {
            let (from, limit) = (rng.below(last), 1 + rng.below(30));
            let (text, most) = (Value::from(format!("{from:08}")).to_string(), limit.to_string());
            let want = reference.rows(reference.0.range(from..).map(|(number, _)| *number).take(limit as usize));
            assert_eq!(rows(&self.read("words/range", token, &[("from", &text), ("limit", &most)])), want, "{context}: from {from}");
            let prefix = Value::from(format!("{:07}", from / 10)).to_string();
            let want = reference.rows(from / 10 * 10..from / 10 * 10 + 10);
            assert_eq!(rows(&self.read("words/prefix", token, &[("prefix", &prefix)])), want, "{context}: with {prefix}");
        }
        let top = rows(&self.read("top_words/top", token, &[("n", "10")]));
        assert_eq!(top.iter().map(|(_, n)| *n).collect::<Vec<_>>(), reference.top(), "{context}");
        for (word, n) in &top {
            assert_eq!(reference.0.get(&word[..8].parse().expect("a number")), Some(n), "{context}: {word}");
        }
        let lengths = self.read("lengths/scan", token, &[]);
        let all = [WORD_LETTERS as u64, reference.0.len() as u64, reference.0.values().sum()];
        let text = lengths["rows"].to_string();
        assert_eq!(lengths["rows"].as_array().expect("rows").len(), 1, "{context}: {text}");
        assert!(all.iter().all(|number| text.contains(&number.to_string())), "{context}: {text}, expected {all:?}");
    }
}

#[test]
fn views_larger_than_memory_are_built_served_and_brought_up_to_date() {
    let seed = Rng::seed_from_env().unwrap_or(7);
    println!("LAMBDAFLOW_SEED={seed}");
    let (dir, mut rng, mut reference) = (Dir::new(), Rng::new(seed), Reference::default());
    let log = dir.at("log");
    let text: String = (0..words() / LINE_WORDS).map(|at| line(LINE_WORDS * at..LINE_WORDS * (at + 1))).collect();
    reference.0.extend((0..words() / LINE_WORDS * LINE_WORDS).map(|number| (number, 1)));
    let input = dir.file("lines", text);
    lambdaflow(["ingest", "wordcount", "--log", &log, &input]).exits(0);
    std::fs::remove_file(&input).expect("it is there");

    let limit = Limit::new("views");
    let limited = Limited::start(&limit, &log);
    limited.check(&reference, 0, &mut rng, "built");
    println!(
        "built: {} MiB private, {} MiB with mapped files at most",
        limited.anonymous_mib(),
        status_mib(limited.server.process.id(), "VmHWM")
    );
    let mut token = 0;
    for round in 0..3 {
        // Words that are there, and new ones behind all others.
        for _ in 0..10 {
            let last = reference.0.len() as u64;
            let numbers: Vec<u64> = (0..3).map(|_| rng.below(last)).chain([last, last + 1]).collect();
            numbers.iter().for_each(|number| *reference.0.entry(*number).or_default() += 1);
            let answer = limited.server.post("/v1/events", PLAIN_LINES, line(numbers.into_iter())).ok();
            token = answer["token"].as_u64().expect("a token");
        }
        limited.check(&reference, token, &mut rng, &format!("round {round}"));
        let handover = limited.server.post("/v1/batch", JSON_LINES, "").ok();
        assert_eq!(handover["agreed"], true, "{handover}");
        limited.check(&reference, token, &mut rng, &format!("after cycle {round}"));
    }
    println!("after cycles: {} MiB private", limited.anonymous_mib());
    let first = limited.anonymous_mib();
    limited.server.stop();

    let limited = Limited::start(&limit, &log);
    let started = limited.server.get("/v1/status", &[]).ok()["started"].as_str().expect("a sentence").to_owned();
    assert!(started.contains("restored"), "{started}");
    limited.check(&reference, 0, &mut rng, "restarted");
    let second = limited.anonymous_mib();
    limited.server.stop();
    let size = generation_mib(&log);
    println!("restarted: {second} MiB private; the generation has {size} MiB");
    if let Limit::Group(_) = limit {
        assert!(first <= MEMORY_MIB && second <= MEMORY_MIB, "{first} and {second} MiB");
        // A restart checks files and keeps none of them.
        assert!(second * 4 < first.max(MEMORY_MIB) * 3, "{second} MiB after a restart, {first} before");
    }
    assert!(words() < 100_000 || size > 2 * MEMORY_MIB, "{size} MiB are not several times {MEMORY_MIB}");
}
