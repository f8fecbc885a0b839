//! The layers at their edges: before the base, after an error, after a panic, after a handover.

mod handover;
#[path = "../cluster_support/ports.rs"]
mod ports;

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use columnar::Columnar;
use lambdaflow::cluster::{Cluster, ClusterOptions, Membership, ProgramId};
use lambdaflow::differential_dataflow::operators::Iterate;
use lambdaflow::layers::{
    BatchError, Command, Coordinator, Crew, Cycle, CycleError, Dataflow, EventSource, Feed, Links, Node, NodeOptions, OneProcess,
    Processes, Replay, Report, SpeedGraph, SpeedWorkers, hush_broken_exchange, is_broken_exchange, run_batch,
};
use lambdaflow::log::{Block, Event, Log, LogError, LogOptions, SystemClock, Tick};
use lambdaflow::operators::{Events, Flow, Views};
use lambdaflow::runs::{Generation, Query, ReadError};
use lambdaflow::serving::{Read, Served, Serving};
use lambdaflow::storage::RealDisk;
use lambdaflow::testing::loopback;
use serde::{Deserialize, Serialize};

/// After that, something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Number {
    n: u64,
}

impl Event for Number {
    const NAME: &'static str = "tests.Number";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["n: u64"];
}

/// How often each number came.
fn counts(numbers: Events<'_, Number>, views: &mut Views) {
    views.publish("counts", numbers.map(|number| *number.n).count());
}

fn block(events: impl IntoIterator<Item = (u64, u64)>) -> Block<Number> {
    Block::from_events(events.into_iter().map(|(tick, n)| (Tick(tick), Number { n })))
}

fn generation(dataflow: &Arc<dyn Dataflow<Number>>, events: &[(u64, u64)], cut: u64, workers: usize) -> Generation {
    let before = events.iter().copied().filter(|(tick, _)| *tick < cut);
    let feed = Feed::new(Replay::new([block(before)], Tick(cut)), Some(Tick(cut)));
    let output = run_batch(dataflow, None, feed, Tick(cut), workers, &Arc::new(AtomicBool::new(false))).expect("the batch runs");
    Generation { id: 1, frontier: Tick(cut), shards: output.shards }
}

fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: it took too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A graph on a base keeps its last ticks readable, as many as it was told. Soon after a handover that many ticks reach back
/// before the base. The base holds everything before its frontier at once, so it cannot answer there: such a read got the
/// rows of the whole base, events after the tick asked for included. It must be refused.
#[test]
fn a_tick_before_the_base_is_refused() {
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(counts);
    let events: Vec<(u64, u64)> = (0..20).map(|tick| (tick, 7)).collect();
    for workers in 1..=2 {
        let base = generation(&dataflow, &events, 10, workers);
        let speed = SpeedWorkers::start(workers, Arc::new(|| ())).expect("workers start");
        let after = block(events.iter().copied().filter(|(tick, _)| *tick >= 10));
        let from = base.frontier;
        let feed = Feed::new(Replay::new([after], Tick(20)), None);
        let graph = speed.install(&dataflow, Arc::new(base), from, feed, 1000).expect("it is built");
        wait_for("the graph follows", || graph.upper() == Tick(20));
        let view = &graph.views["counts"];
        for tick in 0..9 {
            assert_eq!(
                view.read(Tick(tick), &Query::Scan { limit: 9 }),
                Err(ReadError::TooOld { asked: Tick(tick), since: Tick(9) }),
                "{workers} workers"
            );
        }
        for tick in 9..20 {
            let rows = view.read(Tick(tick), &Query::Scan { limit: 9 }).expect("readable from the base on");
            assert_eq!(rows[0].key, serde_json::json!(7));
            assert_eq!(rows[0].value, serde_json::json!(tick + 1));
        }
    }
}

/// Blocks, then an error.
struct Failing {
    blocks: VecDeque<Block<Number>>,
    complete: Tick,
}

impl EventSource<Number> for Failing {
    fn next(&mut self) -> Result<Option<Block<Number>>, LogError> {
        self.blocks.pop_front().map(Some).ok_or(LogError::Closed)
    }
    fn complete(&self) -> Tick {
        self.complete
    }
}

/// When the log cannot be read, the graph's input used to end, as at a shutdown. What was on its way was then worked off tick
/// by tick, and the frontier went with it past events that had not been read: answers called complete what was not. The
/// frontier must stay where the input was complete.
#[test]
fn a_log_that_cannot_be_read_moves_no_frontier() {
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(|numbers: Events<'_, Number>, views: &mut Views| {
        let counted = numbers.map(|number| *number.n).count().map(|(n, times)| (times as u64, n)).distinct();
        views.publish("times", counted.count().map(|(row, n)| (row.0, (row.1, n))));
    });
    for round in 0..40 {
        let speed = SpeedWorkers::start(2, Arc::new(|| ())).expect("workers start");
        // Another partition still has events from tick 5 on.
        let blocks = (0..4).map(|_| block((5..400).map(|tick| (tick, tick % 50)))).collect();
        let feed = Feed::new(Failing { blocks, complete: Tick(5) }, None);
        let graph = speed.install(&dataflow, Arc::new(Generation::empty(2)), Tick(0), feed, 1000).expect("it is built");
        wait_for("the error is told", || graph.failure().is_some());
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            assert!(
                graph.upper() <= Tick(5),
                "round {round}: complete before {}, but no event from tick 5 on was certain",
                graph.upper().0
            );
        }
    }
}

/// In raw differential code, where a panic is not quarantined.
fn halves<'s>(numbers: Events<'s, Number>) -> Flow<'s, u64> {
    numbers.map(|number| *number.n).linear(|numbers| numbers.map(|n| 100 / n))
}

/// In a process with several workers timely lets the others wait for ever when one panics: nothing was said, and no answer
/// became fresher. All must end and say why; a server then ends its process.
#[test]
fn a_panic_in_the_speed_layer_is_told_and_hangs_nobody() {
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(|numbers: Events<'_, Number>, views: &mut Views| {
        views.publish("halves", halves(numbers).map(|half| (half, 1u64)));
    });
    for workers in 1..=3 {
        let speed = SpeedWorkers::start(workers, Arc::new(|| ())).expect("workers start");
        let feed = || Feed::new(Replay::new([block([(1, 1), (2, 0)])], Tick(3)), None);
        let base = Arc::new(Generation::empty(workers));
        // The panic may come before the last worker has built its graph.
        let _graph = speed.install(&dataflow, Arc::clone(&base), Tick(0), feed(), 5);
        wait_for("the panic is told", || speed.panicked().is_some_and(|message| message.contains("divide by zero")));
        assert!(speed.install(&dataflow, base, Tick(0), feed(), 5).is_err(), "there is nobody to build a graph");
        speed.stop();
    }
}

/// A panic in the batch layer is an error of that batch, whichever of the workers it meets.
#[test]
fn a_panic_in_the_batch_layer_is_an_error() {
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(|numbers: Events<'_, Number>, views: &mut Views| {
        views.publish("halves", halves(numbers).count());
    });
    for workers in 1..=3 {
        let feed = Feed::new(Replay::new((0..9).map(|i| block([(i, 8 - i)])), Tick(9)), Some(Tick(9)));
        let ended = run_batch(&dataflow, None, feed, Tick(9), workers, &Arc::new(AtomicBool::new(false)));
        assert!(matches!(&ended, Err(BatchError::Panicked { message, .. }) if message.contains("divide by zero")), "{:?}", ended.err());
    }
}

/// A batch whose log cannot be read ends with the error.
#[test]
fn a_batch_that_cannot_read_the_log_is_an_error() {
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(counts);
    for workers in 1..=3 {
        let feed = Feed::new(Failing { blocks: VecDeque::from([block([(1, 1)])]), complete: Tick(1) }, Some(Tick(9)));
        let ended = run_batch(&dataflow, None, feed, Tick(9), workers, &Arc::new(AtomicBool::new(false)));
        assert!(matches!(ended, Err(BatchError::Log(LogError::Closed))), "{:?}", ended.err());
    }
}

/// Counts the graphs that are alive.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Graphs that are closed are taken off the workers, also while they have work and after their input failed; otherwise each
/// handover would leave one behind.
#[test]
fn closed_graphs_are_gone() {
    let alive = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&alive);
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(move |numbers: Events<'_, Number>, views: &mut Views| {
        counter.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&counter));
        let rows = numbers.map(move |number| {
            let _ = &alive;
            (*number.n % 10, *number.n)
        });
        let whole = rows.clone().opaque("Same", |rows| rows.iterate(|_, inner| inner));
        let best = rows.reduce(|_, rows, out| out.extend(rows.last().map(|(n, _)| (**n, 1)))).join(whole);
        views.publish("best", best);
    });
    let speed = SpeedWorkers::start(2, Arc::new(|| ())).expect("workers start");
    let mut graphs: VecDeque<SpeedGraph<Number>> = VecDeque::new();
    for round in 0..6u64 {
        let blocks: Vec<_> = (0..20).map(|i| block((0..500).map(|n| (round + i, n)))).collect();
        let feed = match round % 2 {
            0 => Feed::new(Replay::new(blocks, Tick(1000)), None),
            _ => Feed::new(Failing { blocks: blocks.into(), complete: Tick(0) }, None),
        };
        graphs.push_back(speed.install(&dataflow, Arc::new(Generation::empty(2)), Tick(0), feed, 5).expect("it is built"));
        if graphs.len() > 1 {
            graphs.pop_front().expect("there are two").close();
        }
        wait_for("the old graph goes", || alive.load(Ordering::SeqCst) <= 2);
    }
}

/// Stops the batches of all processes when one fails, as the coordinator does.
fn stop_all(stops: &[Arc<AtomicBool>]) {
    stops.iter().for_each(|stop| stop.store(true, Ordering::Release));
}

/// Runs a batch of two workers in each process, over what `feed` gives each. After one has failed, `failed` is called with what
/// stops each. Returns what they ended with.
fn batch_everywhere(
    dataflow: &Arc<dyn Dataflow<Number>>,
    links: Vec<Arc<dyn Links>>,
    feed: impl Fn(usize) -> Feed<Number>,
    failed: impl Fn(&[Arc<AtomicBool>]) + Clone + Send + 'static,
) -> Vec<Result<(), BatchError>> {
    let stops: Arc<Vec<Arc<AtomicBool>>> = Arc::new(links.iter().map(|_| Arc::default()).collect());
    let processes = links.len();
    let (end, ends) = std::sync::mpsc::channel();
    for (process, links) in links.into_iter().enumerate() {
        let (end, failed) = (end.clone(), failed.clone());
        let (dataflow, feed, crew, stops) =
            (Arc::clone(dataflow), feed(process), Crew::new(2, process, processes, links), Arc::clone(&stops));
        std::thread::spawn(move || {
            let ended = run_batch(&dataflow, None, feed, Tick(9), crew, &stops[process]).map(drop);
            if ended.is_err() {
                failed(&stops);
            }
            end.send((process, ended)).expect("the test waits");
        });
    }
    let mut all: Vec<_> = stops.iter().map(|_| ends.recv_timeout(PATIENCE).expect("it ends everywhere")).collect();
    all.sort_by_key(|(process, _)| *process);
    all.into_iter().map(|(_, ended)| ended).collect()
}

/// A process whose batch panics used to wait for the end of what the others send, and they for its rows: nobody ever heard of it.
#[test]
fn a_batch_that_panics_on_one_process_fails_on_all() {
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(|numbers: Events<'_, Number>, views: &mut Views| {
        views.publish("halves", halves(numbers).count());
    });
    // Only the second has the event.
    let blocks = |process| if process == 1 { vec![block([(1, 1), (1, 0)])] } else { Vec::new() };
    let feed = |process| Feed::new(Replay::new(blocks(process), Tick(9)), Some(Tick(9)));
    let check = |ended: Vec<Result<(), BatchError>>, of_others: fn(&BatchError) -> bool| {
        let of_first = |error: &BatchError| matches!(error, BatchError::Panicked { message, .. } if message.contains("divide by zero"));
        let right = |(process, ended): (usize, &Result<(), BatchError>)| {
            ended.as_ref().is_err_and(|error| if process == 1 { of_first(error) } else { of_others(error) })
        };
        assert!(ended.iter().enumerate().all(right), "{ended:?}");
    };
    check(batch_everywhere(&dataflow, loopback(3), feed, stop_all), |error| matches!(error, BatchError::Stopped));
    // Nobody stops the others, but their links know that one has left.
    let breaking = Breaking::default();
    let left = Arc::clone(&breaking.ended);
    let ended = batch_everywhere(&dataflow, breaking.links(3), feed, move |_| left.store(true, Ordering::Release));
    check(ended, |error| matches!(error, BatchError::Broken(why) if why == "one has left"));
}

/// What the test can do to links between processes.
#[derive(Clone, Default)]
struct Breaking {
    /// With the processes at this end and at the other.
    streams: Arc<Mutex<Vec<((usize, usize), TcpStream)>>>,
    ended: Arc<AtomicBool>,
}

impl Breaking {
    fn links(&self, processes: usize) -> Vec<Arc<dyn Links>> {
        let breakable = |(own, links)| Arc::new(Breakable { own, links, breaking: self.clone() }) as Arc<dyn Links>;
        loopback(processes).into_iter().enumerate().map(breakable).collect()
    }
}

struct Breakable {
    own: usize,
    links: Arc<dyn Links>,
    breaking: Breaking,
}

impl Links for Breakable {
    fn connect(&self, graph: &str, number: u64, stop: &AtomicBool) -> Result<Vec<Option<TcpStream>>, String> {
        let streams = self.links.connect(graph, number, stop)?;
        let open = streams.iter().enumerate().filter_map(|(other, stream)| Some((other, stream.as_ref()?)));
        let copies = open.map(|(other, stream)| ((self.own, other), stream.try_clone().expect("the stream is open")));
        self.breaking.streams.lock().unwrap().extend(copies);
        Ok(streams)
    }

    fn broke(&self, graph: &str, _process: usize, _why: &str) {
        panic!("the {graph} can be tried again");
    }

    fn ended(&self) -> Option<String> {
        self.breaking.ended.load(Ordering::Acquire).then(|| "one has left".to_owned())
    }
}

/// A source that always has more.
struct Endless(u64);

impl EventSource<Number> for Endless {
    fn next(&mut self) -> Result<Option<Block<Number>>, LogError> {
        self.0 += 10;
        Ok(Some(block((0..10).map(|n| (1, self.0 + n)))))
    }
    fn complete(&self) -> Tick {
        Tick(1)
    }
}

/// Workers whose connections broke used to panic once, and once more in the destructors of what they had not sent yet: that
/// aborted the whole process, also one that was only asked to stop after another.
#[test]
fn a_batch_whose_connections_break_fails_on_all_and_aborts_nobody() {
    // In a process of its own: workers that stand still in the panic hook keep the test harness from taking it back.
    const CHILD: &str = "LAMBDAFLOW_TEST_BREAKS_CONNECTIONS";
    const DONE: i32 = 42;
    if std::env::var_os(CHILD).is_some() {
        std::process::exit(if std::panic::catch_unwind(break_connections).is_ok() { DONE } else { 1 });
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this binary"));
    child.args(["a_batch_whose_connections_break", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    let ended = child.output().expect("it starts");
    assert_eq!(ended.status.code(), Some(DONE), "{ended:?}");
}

fn break_connections() {
    hush_broken_exchange();
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(counts);
    for round in 0..10 {
        let breaking = Breaking::default();
        let cut = Arc::clone(&breaking.streams);
        let cutting = std::thread::spawn(move || {
            wait_for("all have met", || cut.lock().unwrap().len() == 6);
            std::thread::sleep(Duration::from_millis(round * 5));
            // One connection of the three.
            let (between, stream) = &cut.lock().unwrap()[0];
            stream.shutdown(Shutdown::Both).expect("it was open");
            *between
        });
        let ended = batch_everywhere(&dataflow, breaking.links(3), |_| Feed::new(Endless(0), Some(Tick(9))), stop_all);
        let (one, other) = cutting.join().expect("it does not panic");
        let broken = |ended: &Result<(), BatchError>| ended.as_ref().is_err_and(|error| is_broken_exchange(&error.to_string()));
        assert!(ended.iter().all(Result::is_err) && ended.iter().any(broken), "round {round}: {ended:?}");
        for (at, to) in [(one, other), (other, one)] {
            let said = ended[at].as_ref().expect_err("all failed").to_string();
            let named = said.contains(&format!("the connection for rows to process {to} broke"));
            assert!(named || said == BatchError::Stopped.to_string(), "round {round}: {ended:?}");
        }
    }
}

/// One process gave up before it asked for connections, and the other has made them and sends. What was sent is dropped with the
/// next attempt, which must not be taken for a connection that broke: the cluster used to end with it.
#[test]
fn a_batch_that_one_process_gave_up_early_leaves_the_next_alone() {
    let addresses = ports::free_addresses(2);
    let join = |process| {
        let options = ClusterOptions {
            membership: Membership { process, workers: 2, addresses: addresses.clone() },
            token: String::new(),
            connect_timeout: PATIENCE,
            peer_timeout: PATIENCE,
        };
        let [dataflow, version, fingerprint, event] = ["counts", "1", "0", "Number"].map(str::to_owned);
        let program = ProgramId { dataflow, version, fingerprint, event, options: Vec::new() };
        std::thread::spawn(move || Cluster::join(&options, program).unwrap_or_else(|error| panic!("{error}")))
    };
    let clusters = [join(0), join(1)].map(|joining| joining.join().expect("it joins"));
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(counts);
    let run = |process: usize, attempt, feed, stop: &Arc<AtomicBool>| {
        let crew = Crew::new(2, process, 2, Arc::new(clusters[process].clone())).for_graph(attempt);
        let (dataflow, stop) = (Arc::clone(&dataflow), Arc::clone(stop));
        std::thread::spawn(move || run_batch(&dataflow, None, feed, Tick(9), crew, &stop).map(drop))
    };
    for attempt in [1, 3, 5] {
        let stop = Arc::default();
        let (sent, sends) = std::sync::mpsc::channel();
        let early = run(1, attempt, Feed::new(Sending(sent), Some(Tick(9))), &stop);
        (0..20).for_each(|_| sends.recv_timeout(PATIENCE).expect("it sends"));
        stop_all(&[stop]);
        assert!(matches!(early.join().expect("it ends"), Err(BatchError::Stopped)));

        let feed = || Feed::new(Replay::new([block((0..100).map(|n| (1, n)))], Tick(9)), Some(Tick(9)));
        let both = [0, 1].map(|process| run(process, attempt + 1, feed(), &Arc::default()));
        for (process, ended) in both.into_iter().enumerate() {
            assert!(matches!(ended.join().expect("it ends"), Ok(())), "process {process}, after attempt {attempt}");
            assert_eq!(clusters[process].ended(), None);
        }
    }
}

/// Always has more, and says when it is asked for it.
struct Sending(std::sync::mpsc::Sender<()>);

impl EventSource<Number> for Sending {
    fn next(&mut self) -> Result<Option<Block<Number>>, LogError> {
        self.0.send(()).expect("the test waits");
        Ok(Some(block((0..1000).map(|n| (1, n)))))
    }
    fn complete(&self) -> Tick {
        Tick(1)
    }
}

static TOUCHED: AtomicBool = AtomicBool::new(false);

/// A key whose hash panics when it is touched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
struct Touchy {
    n: u64,
}

impl std::hash::Hash for Touchy {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        assert!(!TOUCHED.load(Ordering::SeqCst), "do not touch");
        self.n.hash(state);
    }
}

/// The panic of a step on process 0 of a cluster used to leave the coordinator waiting for its report for ever.
#[test]
fn a_step_that_panics_has_failed_and_others_are_carried_out_after_it() {
    fn touchy(numbers: Events<'_, Number>, views: &mut Views) {
        views.publish("touchy", numbers.map(|number| (Touchy { n: *number.n }, ())));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let log = Log::<Number>::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path().join("log"), LogOptions::default());
    let log = log.expect("a log");
    let node = Node::start(Arc::new(touchy), log.clone(), NodeOptions { history: u64::MAX, ..NodeOptions::default() }, Arc::default());
    let node = Arc::new(node.unwrap_or_else(|reason| panic!("{reason}")));
    let mut coordinator = Coordinator::new(Box::new(OneProcess(Arc::clone(&node))));
    coordinator.start_empty().expect("nothing is in the log");
    log.append((0..9).map(|n| Number { n }).collect()).expect("it is appended");
    let Report::Proposed { frontier } = node.obey(&Command::Propose) else { panic!("a log has a frontier") };
    let computed = node.obey(&Command::Batch { attempt: 9, cuts: vec![frontier], full: true });
    assert!(matches!(computed, Report::Frozen { rows: 9, .. }), "{computed:?}");
    // The speed layer has come as far by then, and touches nothing.
    assert!(matches!(node.obey(&Command::Audit), Report::Audited { .. }));
    TOUCHED.store(true, Ordering::SeqCst);
    let failed = node.obey(&Command::Audit);
    TOUCHED.store(false, Ordering::SeqCst);
    assert!(matches!(&failed, Report::Failed(failure) if failure.reason.contains("do not touch")), "{failed:?}");
    assert!(matches!(node.obey(&Command::Discard), Report::Done));
    assert!(coordinator.audit(Cycle::Full).expect("it is carried out").iter().all(|audit| audit.agrees()));
}

/// Panics when it is asked to audit.
struct Panicking(Arc<Mutex<Vec<&'static str>>>);

impl Processes for Panicking {
    fn ask(&mut self, command: &Command) -> Vec<Report> {
        let (name, report) = match command {
            Command::Propose => ("propose", Report::Proposed { frontier: Tick(5) }),
            Command::Divide { to, .. } => ("divide", Report::Divided { cuts: vec![*to] }),
            Command::Batch { .. } => ("batch", Report::Frozen { rows: 1, tail: 0 }),
            Command::Audit => panic!("nobody thought of this"),
            Command::Discard => ("discard", Report::Done),
            _ => ("other", Report::Done),
        };
        self.0.lock().expect("one thread").push(name);
        vec![report]
    }
}

/// A cycle that panics used to leave behind what it had taken: the tick that was held for its audit, so that the speed graph
/// kept every later change apart for ever, and the generation it had computed. It must give them back like any cycle that fails.
#[test]
fn a_cycle_that_panics_gives_back_what_it_holds() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut coordinator = Coordinator::new(Box::new(Panicking(Arc::clone(&asked))));
    // Only what is served can be compared with.
    coordinator.start_empty().expect("nothing is audited");
    asked.lock().expect("one thread").clear();
    for cycle in [Cycle::Incremental, Cycle::Full] {
        let ended = coordinator.cycle(cycle);
        assert!(matches!(&ended, Err(CycleError::Step { reason, .. }) if reason.contains("nobody thought of this")), "{ended:?}");
        assert!(coordinator.audit(cycle).is_err());
    }
    assert_eq!(*asked.lock().expect("one thread"), ["propose", "divide", "batch", "discard"].repeat(4));
}

/// One block, and then time passes.
struct Passing {
    block: Option<Block<Number>>,
    started: Instant,
}

impl EventSource<Number> for Passing {
    fn next(&mut self) -> Result<Option<Block<Number>>, LogError> {
        Ok(self.block.take())
    }
    fn complete(&self) -> Tick {
        Tick(1 + self.started.elapsed().as_millis() as u64)
    }
}

/// A read without a tick is answered at the latest complete one. With little history that tick could be gone when the read
/// came to the second shard, and the reader, who had not asked for any tick, was told that his was too old.
#[test]
fn a_read_of_the_latest_is_never_too_old() {
    const NUMBERS: u64 = 3000;
    let dataflow: Arc<dyn Dataflow<Number>> = Arc::new(counts);
    let serving = Arc::new(Serving::default());
    let keeper = serving.start_keeper().expect("a thread starts");
    let speed = SpeedWorkers::start(2, Arc::new(move || keeper.unpark())).expect("workers start");
    let source = Passing { block: Some(block((0..NUMBERS).map(|n| (0, n)))), started: Instant::now() };
    let feed = Feed::new(source, None);
    let graph = Arc::new(speed.install(&dataflow, Arc::new(Generation::empty(2)), Tick(0), feed, 1).expect("it is built"));
    assert!(serving.switch(Served::new(1, Tick(0), graph.views.clone(), Arc::clone(&graph.history)), || false));
    let stop = Arc::new(AtomicBool::new(false));
    let ticks = std::thread::spawn({
        let (graph, stop) = (Arc::clone(&graph), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Acquire) {
                graph.wake();
                std::thread::sleep(Duration::from_micros(300));
            }
        }
    });
    serving.wait(Tick(0), Duration::from_secs(60)).expect("the block is worked off");
    let some = (0..200).map(|n| serde_json::json!(n)).collect();
    for query in
        [Query::Scan { limit: usize::MAX }, Query::Top(10), Query::Get(some), Query::Prefix { prefix: serde_json::json!(7), limit: 9 }]
    {
        for _ in 0..10 {
            let answer = serving.read(&Read::latest("counts", query.clone())).expect("the latest can be read");
            assert!(answer.as_of < answer.frontier);
            let rows = match &query {
                Query::Scan { .. } => NUMBERS as usize,
                Query::Get(keys) => keys.len(),
                Query::Top(n) => *n,
                _ => 1,
            };
            assert_eq!(answer.rows.len(), rows);
        }
    }
    stop.store(true, Ordering::Release);
    ticks.join().expect("it only wakes");
}
