//! What is fuzzed of generations: files of runs and manifests, opened as a start does, and read as clients do.

use super::edits::{Input, edit, edit_document, mend_document, mend_runs};
use super::targets::{Shapes, shapes};
use columnar::Columnar;
use lambdaflow::layers::{Blueprint, Coordinator, Cycle, Dataflow, Node, NodeOptions, OneProcess};
use lambdaflow::log::{Execution, Log, LogError, LogOptions, SimClock, Tick};
use lambdaflow::operators::{BoundedSet, Count, Events, Sum, Views};
use lambdaflow::runs::{AnswerRow, GenerationError, GenerationStore, Manifest, Query, View};
use lambdaflow::serving::Serving;
use lambdaflow::storage::{Disk, SimDisk};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const DIR: &str = "/place/log";
const NAME: &str = "shapes";

/// Rows with columns of every shape: as keys, as values, and in what is added up.
fn views_of_shapes(events: Events<'_, Shapes>, views: &mut Views) {
    let nested = events.clone().map(|event| {
        let shapes = Shapes::into_owned(event);
        (shapes.nested, (shapes.flag, shapes.letter))
    });
    views.publish("nested", nested);
    let lists = events.clone().map(|event| {
        let list = Shapes::into_owned(event).list;
        (*event.number % 7, vec![list.clone(), Vec::new(), list])
    });
    views.publish("lists", lists);
    let times = events.clone().map(|event| {
        let shapes = Shapes::into_owned(event);
        ((shapes.maybe, shapes.pair), shapes.time)
    });
    views.publish("times", times);
    views.publish(
        "sums",
        events.clone().aggregate::<u64, (Count, Sum)>(|shapes, groups| {
            groups.add(*shapes.number % 5, (Count::one(), Sum(*shapes.number as i64)));
        }),
    );
    views.publish(
        "sets",
        events.aggregate::<u64, BoundedSet<String, 4>>(|shapes, groups| {
            groups.add(*shapes.number % 3, BoundedSet::of(String::from_utf8_lossy(shapes.text).into_owned()));
        }),
    );
}

fn dataflow() -> Arc<dyn Dataflow<Shapes>> {
    Arc::new(views_of_shapes)
}

/// A log with one generation, of two workers.
struct Image {
    disk: SimDisk,
    log_id: String,
    blueprint: Blueprint,
    runs: Vec<PathBuf>,
    manifest: PathBuf,
    answers: Answers,
}

type Answers = BTreeMap<String, Vec<AnswerRow>>;

/// A process over a disk that runs no cycle by itself.
struct System {
    log: Log<Shapes>,
    coordinator: Coordinator,
    node: Arc<Node<Shapes>>,
    serving: Arc<Serving>,
    /// Why generations were passed over.
    passed_over: Vec<String>,
    restored: bool,
}

fn open_log(disk: &SimDisk) -> Log<Shapes> {
    let options = LogOptions { execution: Execution::Inline, ..LogOptions::default() };
    Log::open(Arc::new(disk.clone()), SimClock::at(100) as _, Path::new(DIR), options).expect("a good log")
}

fn start(disk: &SimDisk) -> Result<System, String> {
    let log = open_log(disk);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let store = GenerationStore::open(shared, Path::new(DIR), log.id(), NAME, 1).map_err(|error| error.to_string())?;
    let options = NodeOptions { crew: 2.into(), history: 10, store: Some(Arc::new(store)), ..NodeOptions::default() };
    let serving = Arc::new(Serving::default());
    let node = Arc::new(Node::start(dataflow(), log.clone(), options, Arc::clone(&serving))?);
    let mut coordinator = Coordinator::new(Box::new(OneProcess(Arc::clone(&node))));
    let started = coordinator.start().map_err(|error| error.to_string())?;
    assert!(node.settle(), "merging panicked");
    let restored = started.found.newest.is_some();
    Ok(System { log, coordinator, node, serving, passed_over: started.found.passed_over, restored })
}

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let disk = SimDisk::new();
        let mut system = start(&disk).expect("a good disk");
        system.log.append((0..24).map(shapes).collect()).expect("a good disk");
        system.coordinator.cycle(Cycle::Full).expect("a good disk");
        assert!(system.node.settle());
        let log_id = system.log.id().to_owned();
        drop(system);
        let disk = disk.after_kill();
        let blueprint = Blueprint::of(&dataflow(), "").expect("a good dataflow");
        let (manifest, views) = stand(&disk, &log_id, &blueprint).expect("a good generation");
        let dir = Path::new(DIR).join("generations").join(NAME);
        let runs: Vec<PathBuf> = manifest.files().map(|file| dir.join(format!("{:020}.runs", file.number))).collect();
        assert_eq!(runs.len(), 2, "one file for each worker: sums of wild numbers may overflow");
        let answers = read(&manifest, &views, true);
        assert!(answers.iter().all(|(name, rows)| rows.is_empty() == (name == "errors")), "{answers:?}");
        Image { disk, log_id, blueprint, runs, manifest: dir.join(format!("{:020}.json", manifest.id)), answers }
    })
}

type Standing = (Manifest, BTreeMap<String, Arc<dyn View>>);

/// Opens the newest generation, as a start does, to read its views as they stand.
fn stand(disk: &SimDisk, log_id: &str, blueprint: &Blueprint) -> Result<Standing, GenerationError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let store = GenerationStore::open(disk, Path::new(DIR), log_id, NAME, 1)?;
    let (_, manifest) = store.manifests()?.into_iter().next().expect("there is a manifest");
    let manifest = manifest?;
    std::hint::black_box((manifest.rows(), manifest.bytes()));
    assert_eq!(store.verify(&manifest).is_empty(), store.files(&manifest).is_ok());
    let files = store.files(&manifest)?;
    let (views, unread) = blueprint.standing(&store, &manifest, &files, &1.into())?;
    std::hint::black_box(unread);
    Ok((manifest, views))
}

/// All rows of all views. Every kind of read must find those that are `trusted`; of mended ones, keys may be on wrong workers.
fn read(manifest: &Manifest, views: &BTreeMap<String, Arc<dyn View>>, trusted: bool) -> Answers {
    let at = Tick(manifest.frontier.0.saturating_sub(1));
    let read = |view: &Arc<dyn View>| {
        let read = |query| match view.read(at, &query) {
            Ok(rows) => rows,
            Err(error) => {
                assert!(!trusted, "{}: {error}", view.info().name);
                Vec::new()
            }
        };
        let rows = read(Query::Scan { limit: usize::MAX });
        let top = read(Query::Top(usize::MAX));
        assert!(!trusted || top.len() == rows.len());
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            let found = read(Query::Get(vec![first.key.clone(), last.key.clone()]));
            assert!(!trusted || found.contains(first) && found.contains(last), "{found:?}");
            let range = read(Query::Range { from: Some(first.key.clone()), to: Some(last.key.clone()), limit: usize::MAX });
            assert!(!trusted || range.len() < rows.len());
            read(Query::Prefix { prefix: last.key.clone(), limit: 2 });
        }
        assert_eq!(view.digest(at).is_ok(), view.upper() > at);
        rows
    };
    views.iter().map(|(name, view)| (name.clone(), read(view))).collect()
}

/// Asserts that an error names a file of generations that is there, and a byte in it or right after it.
fn check_place(disk: &SimDisk, error: &GenerationError) {
    let inside = |file: &Path, byte: u64| {
        let files = disk.files();
        let length = files.get(file).map(|bytes| bytes.len() as u64);
        assert!(length.is_some_and(|length| byte <= length), "{error}: of {length:?} bytes");
    };
    match error {
        GenerationError::Damaged { file, byte, .. } => inside(file, *byte),
        GenerationError::Storage(LogError::Damaged(damage)) => inside(&damage.file, damage.byte),
        GenerationError::Storage(LogError::NewerFormat { path, found, supported }) => {
            assert!(disk.files().contains_key(path) && *found > u64::from(*supported), "{error}");
        }
        // A manifest may name any file.
        GenerationError::Storage(LogError::Storage { path, .. }) => assert!(!disk.files().contains_key(path), "{error}"),
        other => panic!("bytes of a file are no reason for: {other}"),
    }
}

/// Opens a generation of which one file was replaced. `trusted` says that no checksum holds by mending.
fn open_edited(path: &Path, bytes: &[u8], trusted: bool, whole_start: bool) {
    let image = image();
    let same = image.disk.files()[path] == bytes;
    let disk = image.disk.after_kill();
    disk.plant(path, bytes);
    match stand(&disk, &image.log_id, &image.blueprint) {
        Ok((manifest, views)) => {
            let answers = read(&manifest, &views, trusted);
            assert!(!trusted || answers == image.answers, "answers that nobody computed: {answers:?}");
        }
        Err(error) => {
            assert!(!same, "a good generation is refused: {error}");
            check_place(&disk, &error);
        }
    }
    if whole_start {
        match start(&disk) {
            Ok(system) => {
                assert_eq!(system.restored, system.passed_over.is_empty() && system.restored);
                assert!(!same || system.restored);
                assert!(!trusted || system.restored || !system.passed_over.is_empty(), "a generation is not used, without a word");
                let last = Tick(system.log.advance().expect("a good disk").0 - 1);
                assert!(system.serving.wait(last, Duration::from_secs(5)).is_ok());
            }
            Err(error) => assert!(!trusted && error.contains("is ahead of the log"), "{error}"),
        }
    }
}

/// Files of runs: edits of good ones, with checksums mended or not, and any bytes instead of one.
pub fn runs(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let path = &image().runs[usize::from(choice & 1)];
    let good = image().disk.files()[path].clone();
    let mut edited = good.clone();
    if choice & 4 == 0 {
        edit(&mut edited, &mut input);
    } else {
        edited = input.rest().to_vec();
    }
    let mut mended = edited.clone();
    mend_runs(&mut mended);
    // An input may itself have made a checksum right.
    let trusted = mended != edited || good == edited;
    if choice & 2 == 0 && trusted {
        open_edited(path, &edited, true, choice & 0x70 == 0);
    } else {
        open_edited(path, &mended, mended == good, choice & 0x70 == 0);
    }
}

/// Manifests, likewise; also what they say is edited.
pub fn manifests(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let path = &image().manifest;
    let good = image().disk.files()[path].clone();
    let mut edited = good.clone();
    match choice & 12 {
        0 => edit(&mut edited, &mut input),
        4 => edited = input.rest().to_vec(),
        _ => edit_document(&mut edited, &mut input),
    }
    if choice & 2 != 0 {
        mend_document(&mut edited);
    }
    open_edited(path, &edited, good == edited, choice & 0x70 == 0);
}
