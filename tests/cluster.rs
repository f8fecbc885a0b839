//! Processes that find each other, talk, and notice a loss: several in one test process, each with its own address.

#[path = "cluster_support/ports.rs"]
mod ports;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::cluster::{AskError, Cluster, ClusterError, ClusterOptions, Handler, Membership, ProgramId};
use lambdaflow::layers::Links;
use ports::free_addresses as addresses;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn options(addresses: &[String], process: usize) -> ClusterOptions {
    ClusterOptions {
        membership: Membership { process, workers: 2, addresses: addresses.to_vec() },
        token: "secret".to_owned(),
        connect_timeout: PATIENCE,
        peer_timeout: PATIENCE,
    }
}

fn program() -> ProgramId {
    let text = |text: &str| text.to_owned();
    ProgramId {
        dataflow: text("visits"),
        version: text("version 1"),
        fingerprint: text("00"),
        event: text("Visit"),
        options: vec![(text("--history"), text("5000 ms"))],
    }
}

/// Starts all at once, and waits for what became of each.
fn meet(starts: Vec<(ClusterOptions, ProgramId)>) -> Vec<Result<Cluster, ClusterError>> {
    let starting = starts.into_iter().map(|(options, program)| std::thread::spawn(move || Cluster::join(&options, program)));
    let starting: Vec<_> = starting.collect();
    starting.into_iter().map(|cluster| cluster.join().expect("joining does not panic")).collect()
}

fn meet_all(processes: usize) -> Vec<Cluster> {
    let addresses = addresses(processes);
    let met = meet((0..processes).map(|process| (options(&addresses, process), program())).collect());
    met.into_iter().map(|cluster| cluster.unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Answers with the number of bytes that came along.
struct Counts {
    process: usize,
    asked: AtomicUsize,
}

impl Handler for Counts {
    fn answer(&self, from: usize, request: &[u8], body: &[u8]) -> Vec<u8> {
        let request = value(request);
        self.asked.fetch_add(1, Ordering::Relaxed);
        if request == json!("sleep") {
            std::thread::sleep(Duration::from_millis(200));
        }
        json!({"process": self.process, "from": from, "request": request, "bytes": body.len()}).to_string().into_bytes()
    }
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("JSON")
}

#[test]
fn everybody_can_ask_everybody_and_large_messages_arrive() {
    let clusters = meet_all(3);
    for (process, cluster) in clusters.iter().enumerate() {
        cluster.handle(Arc::new(Counts { process, asked: AtomicUsize::new(0) }));
    }
    std::thread::scope(|scope| {
        for (from, cluster) in clusters.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..50usize {
                    let body = vec![7; if round == 49 { 20 << 20 } else { round }];
                    let asked: Vec<_> = cluster.others().map(|to| (to, cluster.begin(to, &json!(round), &body))).collect();
                    for (to, asked) in asked {
                        let answer = cluster.finish(to, asked, PATIENCE).expect("all live");
                        assert_eq!(value(&answer), json!({"process": to, "from": from, "request": round, "bytes": body.len()}));
                    }
                }
            });
        }
    });
    let late = clusters[0].ask(1, &json!("sleep"), &[], Duration::from_millis(20));
    assert!(matches!(late, Err(AskError::Late { .. })), "{late:?}");
}

#[test]
fn what_is_asked_before_anybody_answers_waits() {
    let clusters = meet_all(2);
    let asked = clusters[1].begin(0, &json!("early"), &[]);
    clusters[0].handle(Arc::new(Counts { process: 0, asked: AtomicUsize::new(0) }));
    assert_eq!(value(&clusters[1].finish(0, asked, PATIENCE).expect("both live"))["request"], "early");
}

#[test]
fn statements_come_in_order_and_ticks_are_known() {
    let clusters = meet_all(2);
    clusters[0].tell_all(&json!(1));
    clusters[0].tell_all(&json!([2]));
    clusters[0].set_tick(77, Duration::ZERO);
    assert_eq!(clusters[1].hear::<u64>(0), Ok(1));
    assert_eq!(clusters[1].hear::<Vec<u64>>(0), Ok(vec![2]));
    let deadline = Instant::now() + PATIENCE;
    while clusters[1].tick() != 77 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_closed_connection_a_goodbye_and_silence_are_noticed_by_all() {
    let lost = |cluster: &Cluster| cluster.wait_for_loss(PATIENCE).expect("somebody is gone");
    // Closed.
    let clusters = meet_all(3);
    let asked = clusters[0].begin(1, &json!("never answered"), &[]);
    clusters[1].hang_up();
    for survivor in [0, 2] {
        let lost = lost(&clusters[survivor]);
        assert!(matches!(&lost, ClusterError::Lost { process: 1, .. }), "{lost}");
        assert_eq!(lost.exit_code(), 4);
    }
    assert!(matches!(clusters[0].finish(1, asked, PATIENCE), Err(AskError::Lost(_))));
    assert!(clusters[0].connect("speed", 0, &AtomicBool::new(false)).is_err_and(|why| why.contains("process 1")));

    // Goodbye.
    let clusters = meet_all(3);
    clusters[2].leave("its disk is full");
    for survivor in [0, 1] {
        let lost = lost(&clusters[survivor]);
        // Who hears it from the other survivor first, names that one, too.
        assert!(matches!(&lost, ClusterError::Stopped { process: 2, why, .. } if why.starts_with("its disk is full")), "{lost}");
    }

    // Silence: it met the others, and then its threads stand still.
    let addresses = addresses(2);
    let silent = ClusterOptions { peer_timeout: Duration::from_millis(600), ..options(&addresses, 0) };
    let dialling = std::thread::spawn({
        let (address, addresses) = (addresses[0].clone(), addresses.clone());
        move || {
            let (mut stream, _) = greet(&address, &hello(&addresses, 1));
            // One word.
            stream.write_all(&[0; 25]).expect("it is open");
            stream
        }
    });
    let cluster = Cluster::join(&silent, program()).unwrap_or_else(|error| panic!("{error}"));
    let began = Instant::now();
    let gone = lost(&cluster);
    assert!(matches!(&gone, ClusterError::Lost { process: 1, why, .. } if why.contains("nothing was heard")), "{gone}");
    assert!(began.elapsed() >= Duration::from_millis(500));
    drop(dialling.join());
}

#[test]
fn those_who_are_done_may_go() {
    let clusters = meet_all(3);
    std::thread::scope(|scope| {
        let parting = clusters.iter().map(|cluster| {
            scope.spawn(move || {
                let parted = cluster.wait_until_done(0).and_then(|()| cluster.part());
                cluster.hang_up();
                parted
            })
        });
        // Process 0 waits for nobody to say that it is done.
        let parted: Vec<_> = parting.collect();
        for parted in parted {
            assert_eq!(parted.join().expect("parting does not panic"), Ok(()));
        }
    });
    assert!(clusters.iter().all(|cluster| cluster.lost().is_none()));
}

#[test]
fn graphs_get_connections_of_their_own() {
    let clusters = meet_all(3);
    std::thread::scope(|scope| {
        for (own, cluster) in clusters.iter().enumerate() {
            scope.spawn(move || {
                for (name, number) in [("speed", 0), ("batch", 1), ("batch", 2)] {
                    let streams = cluster.connect(name, number, &AtomicBool::new(false)).expect("all connect");
                    assert!(streams[own].is_none());
                    for (other, stream) in streams.iter().enumerate().filter_map(|(other, stream)| Some((other, stream.as_ref()?))) {
                        let text = |from: usize, to: usize| format!("{name} {number} from {from} to {to}");
                        let mut stream = stream;
                        stream.write_all(text(own, other).as_bytes()).expect("it is open");
                        let mut heard = vec![0; text(other, own).len()];
                        stream.read_exact(&mut heard).expect("it is open");
                        assert_eq!(String::from_utf8_lossy(&heard), text(other, own));
                    }
                }
            });
        }
    });
    // Given up by one, the other gives up when it is told to; the next number is not disturbed by what is left.
    let stop = AtomicBool::new(true);
    assert!(clusters[2].connect("batch", 3, &stop).is_ok_and(|streams| streams.iter().flatten().count() == 2));
    assert!(clusters[0].connect("batch", 3, &AtomicBool::new(true)).is_err());
    std::thread::scope(|scope| {
        for cluster in &clusters {
            scope.spawn(move || cluster.connect("batch", 4, &AtomicBool::new(false)).expect("all connect"));
        }
    });
}

#[test]
fn processes_that_were_started_differently_refuse_each_other() {
    type Change = fn(&mut ClusterOptions, &mut ProgramId);
    let changes: [(&str, Change); 7] = [
        ("-w 3", |options, _| options.membership.workers = 3),
        ("-n 3", |options, _| options.membership.addresses.push("127.0.0.1:9".to_owned())),
        ("address 1 of its hostfile", |options, _| options.membership.addresses[1] = "127.0.0.1:9".to_owned()),
        ("the dataflow other", |_, program| program.dataflow = "other".to_owned()),
        ("the program's version 2", |_, program| program.version = "version 2".to_owned()),
        ("events of type Other", |_, program| program.event = "Other".to_owned()),
        ("--history 9 ms", |_, program| program.options[0].1 = "9 ms".to_owned()),
    ];
    for (difference, change) in changes {
        let addresses = addresses(2);
        let mut starts: Vec<_> = (0..2).map(|process| (options(&addresses, process), program())).collect();
        let (changed, program) = &mut starts[1];
        change(changed, program);
        for met in meet(starts) {
            let error = met.err().unwrap_or_else(|| panic!("{difference} goes unnoticed"));
            assert!(matches!(&error, ClusterError::Mismatch(what) if what.contains(difference)), "{difference}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}

#[test]
fn who_does_not_come_is_named() {
    let addresses = addresses(3);
    let short = |process| ClusterOptions { connect_timeout: Duration::from_millis(500), ..options(&addresses, process) };
    let met = meet(vec![(short(0), program()), (short(2), program())]);
    for met in met {
        let error = met.err().expect("process 1 is absent");
        assert!(matches!(&error, ClusterError::Absent { missing, .. } if missing.contains("process 1 (")), "{error}");
        assert!(!error.to_string().contains("process 0") || !error.to_string().contains("process 2"), "{error}");
        assert_eq!(error.exit_code(), 4);
    }
}

/// A process that had met all others used to lose, without a reason, one that gave up because it had not.
#[test]
fn who_has_met_all_hears_why_another_has_not() {
    for _ in 0..10 {
        let addresses = addresses(3);
        // Process 1 says hello to process 2, and then something else to process 0.
        let listener = TcpListener::bind(&addresses[1]).expect("it is free");
        let starting = [0, 2].map(|process| {
            let options = options(&addresses, process);
            std::thread::spawn(move || Cluster::join(&options, program()))
        });
        let (mut greeted, _) = listener.accept().expect("process 2 dials");
        hear_one(&mut greeted);
        say(&mut greeted, &json!({"Welcome": {"life": "0123"}}));
        let [first, last] = starting;
        let last = last.join().expect("joining does not panic").unwrap_or_else(|error| panic!("{error}"));
        let mut other = hello(&addresses, 1);
        other["program"]["dataflow"] = json!("other");
        say(&mut dial(&addresses[0]), &other);
        let refused = first.join().expect("joining does not panic").err().expect("process 1 runs something else");
        assert!(matches!(&refused, ClusterError::Mismatch(_)), "{refused}");
        let told = last.wait_for_loss(PATIENCE).expect("process 0 is gone");
        let named = |why: &str| why.contains("process 1 has the dataflow other") && !why.contains("hint");
        assert!(matches!(&told, ClusterError::Stopped { process: 0, why, .. } if named(why)), "{told}");
    }
}

/// As service managers on several machines start them: one by one, and again whenever one has given up.
#[test]
fn who_gives_up_may_come_again_while_others_wait() {
    for (impatient, patient) in [(2, 0), (0, 2)] {
        let addresses = addresses(3);
        let join = |options: ClusterOptions| std::thread::spawn(move || Cluster::join(&options, program()));
        let waiting = join(options(&addresses, patient));
        for _ in 0..2 {
            let short = ClusterOptions { connect_timeout: Duration::from_millis(500), ..options(&addresses, impatient) };
            let given_up = Cluster::join(&short, program()).err().expect("process 1 is absent");
            assert!(matches!(&given_up, ClusterError::Absent { missing, .. } if missing.contains("process 1 (")), "{given_up}");
        }
        let rest = [join(options(&addresses, impatient)), join(options(&addresses, 1))];
        let clusters = rest.into_iter().chain([waiting]).map(|cluster| cluster.join().expect("joining does not panic"));
        let clusters: Vec<Cluster> = clusters.map(|cluster| cluster.unwrap_or_else(|error| panic!("{error}"))).collect();
        for cluster in &clusters {
            cluster.handle(Arc::new(Counts { process: cluster.membership().process, asked: AtomicUsize::new(0) }));
        }
        for cluster in &clusters {
            for other in cluster.others() {
                assert_eq!(value(&cluster.ask(other, &json!("there?"), &[], PATIENCE).expect("all live"))["process"], other);
            }
        }
    }
}

/// Its machine lost power: nobody ended its connection.
#[test]
fn a_process_that_vanished_does_not_keep_its_next_life_out() {
    let addresses = addresses(3);
    let join = |process| {
        let options = options(&addresses, process);
        std::thread::spawn(move || Cluster::join(&options, program()))
    };
    let first = join(0);
    let (mut vanished, _) = greet(&addresses[0], &hello(&addresses, 2));
    let next = join(2);
    assert_eq!(vanished.read(&mut [0]).expect("it is ended in order"), 0, "its next life has its place");
    let joined = [first, join(1), next].map(|joining| joining.join().expect("joining does not panic"));
    assert!(joined.into_iter().all(|joined| joined.unwrap_or_else(|error| panic!("{error}")).lost().is_none()));
}

/// The end of a first attempt may be noticed after the second has succeeded.
#[test]
fn a_connection_that_was_given_up_takes_nothing_from_the_one_that_followed() {
    let addresses = addresses(2);
    let joining = std::thread::spawn({
        let options = options(&addresses, 0);
        move || Cluster::join(&options, program())
    });
    let mut given_up = dial(&addresses[0]);
    say(&mut given_up, &hello(&addresses, 1));
    hear_one(&mut given_up);
    let (talk, life) = greet(&addresses[0], &hello(&addresses, 1));
    let cluster = joining.join().expect("joining does not panic").unwrap_or_else(|error| panic!("{error}"));
    drop(given_up);
    let mut graph = hello(&addresses, 1);
    for _ in 0..20 {
        graph["channel"] = json!({"Graph": {"name": "speed", "number": 0, "to": life}});
        assert_eq!(greet(&addresses[0], &graph).1, life);
    }
    assert!(cluster.lost().is_none());
    drop(talk);
}

#[test]
fn another_cluster_and_a_second_of_the_same_number_stay_outside() {
    let addresses = addresses(2);
    let first = std::thread::spawn({
        let options = options(&addresses, 0);
        move || Cluster::join(&options, program())
    });
    let other = ClusterOptions { token: "another".to_owned(), connect_timeout: Duration::from_millis(1_500), ..options(&addresses, 1) };
    let refused = Cluster::join(&other, program()).err().expect("its token differs");
    assert!(refused.to_string().contains("tokens differ"), "{refused}");
    let second = Cluster::join(&options(&addresses, 1), program()).unwrap_or_else(|error| panic!("{error}"));
    let first = first.join().expect("joining does not panic").unwrap_or_else(|error| panic!("{error}"));

    // The address of the one that is there is taken; it says hello all the same.
    let mut stream = dial(&addresses[0]);
    say(&mut stream, &hello(&addresses, 1));
    assert!(hear(&mut stream).contains("there is a process 1 already"));
    assert!(first.lost().is_none() && second.lost().is_none());
}

/// Strangers on the cluster's address, before and after the processes have met.
#[test]
fn strangers_do_not_disturb() {
    let addresses = addresses(2);
    let joining = std::thread::spawn({
        let options = options(&addresses, 0);
        move || Cluster::join(&options, program())
    });
    let strangers = |address: &str| {
        let mut http = dial(address);
        http.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is open");
        let mut garbage = dial(address);
        garbage.write_all(&[0xFF; 4096]).unwrap_or_default();
        let mut long = dial(address);
        long.write_all(b"LFCL\x01\x00\xFF\xFF\xFF\xFF").expect("it is open");
        let mut wrong = dial(address);
        say(&mut wrong, &json!({"hello": "world"}));
        let mut newer = dial(address);
        newer.write_all(b"LFCL\x09\x00\x00\x00\x00\x00").expect("it is open");
        let silent: Vec<_> = (0..100).map(|_| dial(address)).collect();
        // All that said something wrong are turned away.
        for mut stream in [http, garbage, long, wrong, newer] {
            let mut rest = Vec::new();
            let closed = stream.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{closed:?}, {rest:?}");
        }
        silent
    };
    let before = strangers(&addresses[0]);
    // Strangers who say nothing take all handshakes that go on at a time; they lose them after a few seconds.
    let second = Cluster::join(&options(&addresses, 1), program()).unwrap_or_else(|error| panic!("{error}"));
    let first = joining.join().expect("joining does not panic").unwrap_or_else(|error| panic!("{error}"));
    drop(before);
    let after = strangers(&addresses[0]);
    first.handle(Arc::new(Counts { process: 0, asked: AtomicUsize::new(0) }));
    assert_eq!(value(&second.ask(0, &json!("still there?"), &[], PATIENCE).expect("both live"))["process"], 0);
    drop(after);
}

fn dial(address: &str) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A handshake's message, as another implementation would write it.
fn say(stream: &mut TcpStream, message: &Value) {
    let body = message.to_string();
    let header = [&b"LFCL\x01\x00"[..], &(body.len() as u32).to_le_bytes()].concat();
    stream.write_all(&[&header, body.as_bytes()].concat()).expect("it is open");
}

/// Reads a message of a handshake.
fn hear_one(stream: &mut TcpStream) -> Value {
    let mut header = [0; 10];
    stream.read_exact(&mut header).expect("a message");
    let length = u32::from_le_bytes(header[6..].try_into().expect("4 bytes"));
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).expect("a message");
    value(&body)
}

/// Meets a process as one of a greater number does; returns which life of it answered.
fn greet(address: &str, hello: &Value) -> (TcpStream, Value) {
    let mut stream = dial(address);
    say(&mut stream, hello);
    let welcome = hear_one(&mut stream);
    stream.write_all(&[6]).expect("it is open");
    (stream, welcome["Welcome"]["life"].clone())
}

fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("it answers and closes");
    String::from_utf8_lossy(&heard).into_owned()
}

fn hello(addresses: &[String], process: usize) -> Value {
    json!({
        "token": "secret", "process": process, "workers": 2, "addresses": addresses, "life": "0123", "channel": "Talk",
        "program": {"dataflow": "visits", "version": "version 1", "fingerprint": "00", "event": "Visit", "options": [["--history", "5000 ms"]]},
    })
}

/// Nested deeper than JSON is read: a client's question can be that.
#[test]
fn what_cannot_be_read_ends_nobody() {
    let clusters = meet_all(2);
    clusters[0].handle(Arc::new(Deep));
    let deep = (0..500).fold(json!(1), |inner, _| json!([inner]));
    let answer = clusters[1].ask(0, &deep, &[], PATIENCE).expect("both live");
    assert!(serde_json::from_slice::<Value>(&answer).is_err());
    assert_eq!(clusters[1].ask(0, &json!("and then?"), &[], PATIENCE).expect("both live"), json!("and then?").to_string().as_bytes());
    assert!(clusters.iter().all(|cluster| cluster.lost().is_none()));
}

/// Answers with the question.
struct Deep;

impl Handler for Deep {
    fn answer(&self, _: usize, request: &[u8], _: &[u8]) -> Vec<u8> {
        request.to_vec()
    }
}

/// It has a thread that says it is there, and does nothing else.
#[test]
fn a_process_whose_tick_stands_still_is_lost_unless_all_stand_still() {
    let addresses = addresses(2);
    let hasty = |process| ClusterOptions { peer_timeout: Duration::from_millis(700), ..options(&addresses, process) };
    let met = meet(vec![(hasty(0), program()), (hasty(1), program())]);
    let clusters: Vec<Cluster> = met.into_iter().map(|cluster| cluster.unwrap_or_else(|error| panic!("{error}"))).collect();
    for cluster in &clusters {
        cluster.set_tick(1_000, Duration::ZERO);
    }
    assert_eq!(clusters[0].wait_for_loss(Duration::from_millis(1_500)), None, "all stand still");
    let began = Instant::now();
    let going_on = std::thread::spawn({
        let cluster = clusters[0].clone();
        move || {
            while cluster.lost().is_none() && began.elapsed() < PATIENCE {
                cluster.set_tick(1_000 + began.elapsed().as_millis() as u64, Duration::from_millis(5));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let lost = clusters[0].wait_for_loss(PATIENCE).expect("it is noticed");
    assert!(matches!(&lost, ClusterError::Lost { process: 1, why, .. } if why.contains("it stands at tick 1000")), "{lost}");
    going_on.join().expect("it only counts");
}

/// Both of its ends used to go on as if nothing had happened, or to end with what their threads had panicked of.
#[test]
fn a_connection_for_rows_that_breaks_by_itself_is_a_loss() {
    // Half of that is waited for a better reason.
    let meet_hasty = |seconds| {
        let addresses = addresses(3);
        let hasty = |process| ClusterOptions { peer_timeout: Duration::from_secs(seconds), ..options(&addresses, process) };
        let met = meet((0..3).map(|process| (hasty(process), program())).collect());
        met.into_iter().map(|cluster| cluster.unwrap_or_else(|error| panic!("{error}"))).collect::<Vec<_>>()
    };
    let clusters = meet_hasty(6);
    clusters[1].broke("speed", 2, "reset");
    let why = "the connection for rows of the speed graph broke: reset";
    assert_eq!(clusters[1].ended(), Some(format!("{}: {why}", clusters[1].name(2))));
    for (process, cluster) in clusters.iter().enumerate() {
        let error = cluster.wait_for_loss(PATIENCE).expect("it is noticed");
        let said = error.to_string();
        // The others hear of it from either end, or from each other.
        let named = if process == 1 { vec![2] } else { vec![1, 2] };
        assert!(said.contains(why) && named.iter().all(|end| said.contains(&cluster.name(*end))), "process {process}: {said}");
        assert_eq!((error.exit_code(), cluster.broken_by("MergeQueue poisoned.")), (4, Some(error)));
    }

    // It broke because of a process that says in time why it stops.
    let clusters = meet_hasty(30);
    clusters[1].broke("speed", 2, "reset");
    clusters[2].leave("its disk is full");
    for survivor in [0, 1] {
        let error = clusters[survivor].wait_for_loss(PATIENCE).expect("it is noticed");
        assert!(matches!(&error, ClusterError::Stopped { process: 2, .. }), "{error}");
    }

    // One that has nothing left to do ends its connections as it likes.
    let clusters = meet_hasty(10);
    let part = |cluster: &Cluster| assert_eq!(cluster.part(), Ok(()));
    std::thread::scope(|scope| {
        scope.spawn(|| part(&clusters[2]));
        assert_eq!(clusters[1].wait_until_done(2), Ok(()));
        clusters[1].broke("speed", 2, "reset");
        assert_eq!(clusters[1].wait_for_loss(Duration::from_secs(6)), None);
        clusters[..2].iter().for_each(|cluster| drop(scope.spawn(move || part(cluster))));
    });
}

#[test]
fn a_process_that_stops_waits_for_no_answer() {
    let clusters = meet_all(2);
    let asked = clusters[1].begin(0, &json!("nobody answers"), &[]);
    let waiting = std::thread::spawn({
        let cluster = clusters[1].clone();
        move || cluster.finish(0, asked, Duration::MAX)
    });
    clusters[1].stop_waiting();
    assert_eq!(waiting.join().expect("waiting does not panic"), Err(AskError::Stopping));
}
