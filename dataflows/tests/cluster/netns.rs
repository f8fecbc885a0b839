//! Two processes on two networks, joined by one link: it fails and comes back, loses and delays. TCP rides out what is short
//! enough; what is longer ends both. No answer is ever wrong.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::bank::{Reader, Writer, check_all, check_prefixes};
use super::cluster::*;
use super::harness::*;
use super::tools::{Lack, installed, needs, run};

/// Time under load between the faults.
const CALM: Duration = Duration::from_millis(400);
/// A failure of the link that is ridden through.
const SHORT: Duration = Duration::from_millis(900);
/// How long answers may take when packets get lost: their repetition waits longer each time.
const RIDDEN_OUT: Duration = Duration::from_secs(60);

/// Two networks with a link between them, for one test.
struct Networks {
    names: [String; 2],
}

impl Networks {
    fn new(test: &str) -> Result<Self, Lack> {
        installed(&["ip", "nft", "ss", "tc"])?;
        let names = ["a", "b"].map(|side| format!("lf-{test}-{}-{side}", std::process::id()));
        run("ip", &["netns", "add", &names[0]]).map_err(Lack::Kernel)?;
        let networks = Self { names };
        networks.join().map_err(Lack::Kernel)?;
        Ok(networks)
    }

    fn join(&self) -> Result<(), String> {
        let [a, b] = &self.names;
        run("ip", &["netns", "add", b])?;
        run("ip", &["-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b])?;
        for (side, name) in self.names.iter().enumerate() {
            run("ip", &["-n", name, "address", "add", &format!("{}/24", address(side)), "dev", "wire"])?;
            self.link(side, "up")?;
            run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn link(&self, side: usize, state: &str) -> Result<(), String> {
        run("ip", &["-n", &self.names[side], "link", "set", "wire", state]).map(drop)
    }

    /// Some packets that come in by the link on one side are dropped.
    fn drop_incoming(&self, side: usize, which: &str) {
        self.filter(side, &format!("{which} drop"));
    }

    fn filter(&self, side: usize, rule: &str) {
        let rule = format!("type filter hook input priority 0; iifname \"wire\" {rule};");
        let rules = format!("table ip lossy {{\nchain incoming {{\n{rule}\n}}\n}}");
        self.exec(side, &["nft", &rules]);
    }

    fn drop_nothing(&self, side: usize) {
        self.exec(side, &["nft", "delete table ip lossy"]);
    }

    fn exec(&self, side: usize, command: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.names[side]], command].concat()).expect("it worked a moment ago")
    }

    /// The port on the side of process 1 of the connection to process 0 that is probed when nothing is on its way. Among processes
    /// that have met, that is only the one on which rows are exchanged.
    fn probed_port(&self) -> String {
        eventually("a connection is quiet, and probed", || {
            let connections = self.exec(1, &["ss", "-tnoH", "state", "established", "dport", "=", ":2101"]);
            let probed = connections.lines().find(|connection| connection.contains("timer:(keepalive"))?;
            let own = format!("{}:", address(1));
            probed.split_whitespace().find_map(|word| word.strip_prefix(&own)).map(str::to_owned)
        })
    }

    /// Does something as if on the machine of one side. Only this thread moves there.
    fn on<T: Send>(&self, side: usize, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.names[side]);
        std::thread::scope(|scope| {
            let moved = scope.spawn(move || {
                let network = std::fs::File::open(path).expect("a network");
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
                work()
            });
            moved.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn plan(&self, plan: Plan, dir: &Dir) -> Plan {
        let mut plan = plan.with(&["--history", "20s", "--cluster-token", "ours"]);
        plan.addresses = (0..2).map(|side| format!("{}:2101", address(side))).collect();
        plan.hostfile = dir.file("hosts", plan.addresses.join("\n"));
        plan
    }

    /// Starts a process on the machine of each side.
    fn start(&self, plan: &Plan) -> [Serving; 2] {
        [0, 1].map(|side| self.launch(plan, side, side)).map(Serving::from)
    }

    /// Starts one process on the machine of a side.
    fn launch(&self, plan: &Plan, process: usize, side: usize) -> Guard {
        let command = plan.command(process);
        let mut inside = std::process::Command::new("ip");
        inside.args(["netns", "exec", &self.names[side]]).arg(command.get_program()).args(command.get_args());
        inside.env_remove("LAMBDAFLOW_TO").env_remove("LAMBDAFLOW_LOG");
        start(inside, "")
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for name in &self.names {
            // The second may not be there, when the first is all that could be made.
            let _ = run("ip", &["netns", "delete", name]);
        }
    }
}

fn address(side: usize) -> String {
    format!("10.77.0.{}", 1 + side)
}

/// A writer and a reader on each side.
struct Load {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
}

impl Load {
    fn new(seed: u64) -> Self {
        let writer = |side: u64| Writer::new(format!("teller-{side}"), seed.wrapping_add(side));
        Self { writers: (0..2).map(writer).collect(), readers: vec![Reader::default(), Reader::default()] }
    }

    /// Appends and reads on both sides until so much time is over and each has got something done.
    fn run(&mut self, networks: &Networks, members: &[Serving; 2], time: Duration) -> Duration {
        let began = Instant::now();
        let (writers, readers) = (self.writers.iter_mut(), self.readers.iter_mut());
        std::thread::scope(|scope| {
            for (side, (writer, reader)) in writers.zip(readers).enumerate() {
                let (client, process) = (&members[side].client, &members[side].process);
                // What went wrong is tried again: the link may be down.
                scope.spawn(move || {
                    networks.on(side, || {
                        let mut done = 0;
                        while done == 0 || began.elapsed() < time {
                            done += usize::from(writer.append(&fresh(client)).is_ok());
                            assert!(began.elapsed() < RIDDEN_OUT, "no append for {RIDDEN_OUT:?} on side {side}: {}", process.stderr());
                        }
                    });
                });
                scope.spawn(move || {
                    networks.on(side, || {
                        let before = reader.rounds;
                        while reader.rounds == before || began.elapsed() < time {
                            let _ = reader.round(&fresh(client));
                            assert!(began.elapsed() < RIDDEN_OUT, "no answer for {RIDDEN_OUT:?} on side {side}: {}", process.stderr());
                        }
                    });
                });
            }
        });
        began.elapsed()
    }

    /// Everything that was acknowledged is there, and nothing else; the cluster ends.
    fn check(&self, networks: &Networks, members: [Serving; 2], context: &str) {
        let moved = || self.writers.iter().flat_map(|writer| &writer.moved);
        check_prefixes(moved(), &self.readers);
        for (side, member) in members.iter().enumerate() {
            networks.on(side, || check_all(&fresh(&member.client), moved(), context));
        }
        members.iter().for_each(|member| signal("TERM", member.process.id()));
        for member in members {
            let _ = member.process.wait().exits(0);
        }
        let rounds: usize = self.readers.iter().map(|reader| reader.rounds).sum();
        println!("{context}: {} appends, {rounds} ticks read in all views", moved().count());
    }
}

/// A client without connections: they belong to the network of the thread that made them.
fn fresh(client: &Client) -> Client {
    Client::new(&client.url)
}

#[test]
fn a_link_that_fails_for_a_moment_loses_or_delays_is_ridden_out() {
    const NAME: &str = "a_link_that_fails_for_a_moment_loses_or_delays_is_ridden_out";
    let networks = needs!(NAME, Networks::new("short"));
    let seed = seed();
    let dir = Dir::new();
    // Packets that are lost again and again are repeated after longer and longer pauses: 6 s of silence were too short, once in 24 runs.
    let plan = networks.plan(Plan::new(&dir, "bank", (2, 1)).with(&["--peer-timeout", "30s"]), &dir);
    let members = networks.start(&plan);
    let mut load = Load::new(seed);
    load.run(&networks, &members, CALM);

    for (what, side) in [("the link is down", 0), ("the link is down on the other side", 1)] {
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load.run(&networks, &members, SHORT + CALM));
            networks.link(side, "down").expect("root may");
            // The length of the failure, not a wait for anything.
            std::thread::sleep(SHORT);
            networks.link(side, "up").expect("root may");
            println!("{what} for {SHORT:?}: work was done after {:?}", loading.join().expect("the load goes on"));
        });
    }
    for (what, which) in
        [("one in five packets is lost", "numgen random mod 100 < 20"), ("packets are lost one way", "numgen random mod 100 < 30")]
    {
        networks.drop_incoming(0, which);
        if what.starts_with("one in five") {
            networks.drop_incoming(1, which);
        }
        println!("{what}: work was done after {:?}", load.run(&networks, &members, CALM));
        networks.drop_nothing(0);
        if what.starts_with("one in five") {
            networks.drop_nothing(1);
        }
    }
    for side in 0..2 {
        networks.exec(side, &["tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", "2mbit", "burst", "4kb", "latency", "300ms"]);
    }
    println!("2 Mbit/s, queued for 300 ms at most: work was done after {:?}", load.run(&networks, &members, CALM));
    for side in 0..2 {
        networks.exec(side, &["tc", "qdisc", "delete", "dev", "wire", "root"]);
    }
    load.run(&networks, &members, CALM);
    load.check(&networks, members, NAME);
}

#[test]
fn a_link_that_fails_for_longer_ends_both_and_costs_nothing() {
    const NAME: &str = "a_link_that_fails_for_longer_ends_both_and_costs_nothing";
    let networks = needs!(NAME, Networks::new("long"));
    let dir = Dir::new();
    let plan = networks.plan(Plan::new(&dir, "bank", (2, 1)).hasty(), &dir);
    let mut load = Load::new(seed());
    type Cut = fn(&Networks);
    let cuts: [(&str, Cut, Cut); 4] = [
        ("the link is down", |networks| networks.link(0, "down").expect("root may"), |networks| networks.link(0, "up").expect("root may")),
        ("nothing arrives at process 0", |networks| networks.drop_incoming(0, ""), |networks| networks.drop_nothing(0)),
        // Wherever in a message they are. What process 1 sends is answered so; process 0 hears nothing any more.
        (
            "connections are reset",
            |networks| networks.filter(0, "meta l4proto tcp reject with tcp reset"),
            |networks| networks.drop_nothing(0),
        ),
        ("nothing arrives at process 1", |networks| networks.drop_incoming(1, ""), |networks| networks.drop_nothing(1)),
    ];
    for (what, cut, mend) in cuts {
        let members = networks.start(&plan);
        load.run(&networks, &members, CALM);
        let since = Instant::now();
        cut(&networks);
        let mut took = Vec::new();
        for (side, member) in members.into_iter().enumerate().rev() {
            took.push(ends_without(member.process, &[plan.name(1 - side)], since));
        }
        println!("{what}: both end after {took:?}");
        // A reset is noticed at once, silence takes its time.
        assert!(what == "connections are reset" || took.iter().any(|took| *took >= PEER_TIMEOUT / 2), "{what}: {took:?}");
        if what == "the link is down" {
            // Cut off at the start: both say who did not come.
            let guards = [0, 1].map(|side| {
                let command = plan.command(side);
                let mut inside = std::process::Command::new("ip");
                inside.args(["netns", "exec", &networks.names[side]]).arg(command.get_program()).args(command.get_args());
                start(inside, "")
            });
            for (side, guard) in guards.into_iter().enumerate() {
                check_lost(&guard.wait(), &[plan.name(1 - side)]);
            }
        }
        mend(&networks);
        // A connection across the link works again, so that the start does not have to wait for it.
        networks.on(0, || {
            let listener = std::net::TcpListener::bind((address(0), 2100)).expect("a port");
            eventually("the link is back", || {
                networks.on(1, || TcpStream::connect_timeout(&format!("{}:2100", address(0)).parse().expect("an address"), CALM).ok())
            });
            drop(listener);
        });
    }
    let members = networks.start(&plan);
    load.run(&networks, &members, CALM);
    load.check(&networks, members, NAME);
}

/// The machine of one that was met loses power, so that nobody hears of its end, while a third has yet to come.
#[test]
fn a_process_that_vanishes_during_the_start_is_looked_for_again() {
    const NAME: &str = "a_process_that_vanishes_during_the_start_is_looked_for_again";
    let networks = needs!(NAME, Networks::new("start"));
    let dir = Dir::new();
    let mut plan = networks.plan(Plan::new(&dir, "bank", (3, 1)), &dir);
    plan.addresses.push(format!("{}:2102", address(1)));
    plan.hostfile = dir.file("three", plan.addresses.join("\n"));
    let first = networks.launch(&plan, 0, 0);
    let waiting = networks.launch(&plan, 1, 1);
    networks.drop_incoming(1, &format!("tcp dport {}", networks.probed_port()));
    first.kill();
    eventually("it is missed", || waiting.stderr().contains("process 0 (10.77.0.1:2101): it came, and is gone").then_some(()));
    let rest = [networks.launch(&plan, 0, 0), networks.launch(&plan, 2, 1)];
    let members = rest.into_iter().chain([waiting]).map(Serving::from).collect();
    Cluster { members }.stop();
}

/// Both processes used to end with "MergeQueue poisoned." and exit code 101; a connection on which nothing arrived any more was never
/// noticed.
#[test]
fn a_connection_for_rows_that_breaks_by_itself_ends_both_and_costs_nothing() {
    const NAME: &str = "a_connection_for_rows_that_breaks_by_itself_ends_both_and_costs_nothing";
    let networks = needs!(NAME, Networks::new("rows"));
    let dir = Dir::new();
    let plan = networks.plan(Plan::new(&dir, "bank", (2, 1)).set("--batch-interval", "0").hasty(), &dir);
    let quiet = plan.clone().set("--tick", "1h");
    let mut load = Load::new(seed());
    let cuts = [
        ("it is reset", &plan, 0, "sport", "reject with tcp reset"),
        ("what process 1 sends is dropped", &plan, 0, "sport", "drop"),
        ("what process 0 sends is dropped", &plan, 1, "dport", "drop"),
        ("nothing is sent, and would be dropped", &quiet, 0, "sport", "drop"),
    ];
    for (what, plan, side, port, rule) in cuts {
        let members = networks.start(plan);
        if !std::ptr::eq(plan, &quiet) {
            load.run(&networks, &members, CALM);
        }
        networks.filter(side, &format!("tcp {port} {} {rule}", networks.probed_port()));
        let since = Instant::now();
        for (side, member) in members.into_iter().enumerate() {
            let ended = member.process.wait();
            println!("{what}: process {side} ends after {:?}: {}", since.elapsed(), ended.err);
            check_lost(&ended, &[plan.name(1 - side)]);
            assert!(ended.err.contains("the connection for rows of the speed graph broke"), "{what}: {}", ended.err);
            assert!(!ended.err.contains("MergeQueue"), "{what}: {}", ended.err);
        }
        networks.drop_nothing(side);
    }
    let members = networks.start(&plan);
    load.run(&networks, &members, CALM);
    load.check(&networks, members, NAME);
}
