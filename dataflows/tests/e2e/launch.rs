//! `lambdaflow launch`: a cluster on this machine, and what becomes of it when processes die, hang or are told to stop.

use std::collections::BTreeMap;
use std::time::Duration;

use super::harness::*;

/// The lines by which `launch` itself says that all processes serve.
fn serving(launcher: &Guard) -> Vec<String> {
    launcher.stderr().lines().filter_map(|line| line.strip_prefix("serving on ").map(str::to_owned)).collect()
}

/// A cluster of `run`, answering.
struct Cluster {
    launcher: Guard,
    /// By process.
    clients: Vec<Client>,
}

impl Cluster {
    fn start(log: &str, options: &[&str], more: &[&str]) -> Self {
        let run = ["run", "web_analytics", "--listen", "127.0.0.1:0", "--tick", "5ms", "--log", log];
        let launcher = start(program(["launch"].iter().chain(options).chain(&run).chain(more)), "");
        let mut cluster = Self { launcher, clients: Vec::new() };
        cluster.serves_again(1);
        cluster
    }

    /// Waits until all processes serve, for the `n`-th time.
    #[track_caller]
    fn serves_again(&mut self, n: usize) {
        let launcher = &mut self.launcher;
        let line = eventually("the cluster serves", || {
            let line = serving(launcher).get(n - 1).cloned();
            assert!(line.is_some() || launcher.ended().is_none(), "`launch` ended: {}", launcher.stderr());
            line
        });
        let host = "http://127.0.0.1";
        let ports = line.strip_prefix(host).expect("an address").split(", ");
        self.clients = ports.map(|port| Client::new(&format!("{host}{port}"))).collect();
    }

    fn id(&self) -> u32 {
        self.launcher.id()
    }

    /// How often each event is in the view `hits`, as this process answers it.
    fn counted(&self, process: usize, token: u64) -> BTreeMap<String, u64> {
        let answer = self.clients[process].get("/v1/views/hits/scan", &[("at_least", &token.to_string())]).ok();
        let mut counted = BTreeMap::new();
        for row in answer["rows"].as_array().expect("rows") {
            let path = row["key"][0].as_str().expect("a path").to_owned();
            *counted.entry(path).or_default() += row["value"]["hits"].as_u64().expect("a number");
        }
        counted
    }
}

/// The process ids of a launcher's processes, by their numbers.
fn processes(launcher: u32) -> BTreeMap<usize, u32> {
    let mut processes = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").expect("processes can be listed").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if parent_and_state(id).is_some_and(|(parent, _)| parent == launcher) {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = line.split('\0').skip_while(|word| *word != "-p");
            processes.extend(words.nth(1).and_then(|number| number.parse().ok()).map(|number: usize| (number, id)));
        }
    }
    processes
}

/// Of a process that there is.
fn parent_and_state(id: u32) -> Option<(u32, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((fields.next()?.parse().ok()?, state))
}

/// Waits until none of these runs. What nobody waits for stays as a zombie, and does nothing.
#[track_caller]
fn assert_gone(processes: &BTreeMap<usize, u32>) {
    let runs = |id: &u32| parent_and_state(*id).is_some_and(|(_, state)| state != "Z" && state != "X");
    eventually("no process is left", || (!processes.values().any(runs)).then_some(()));
}

#[test]
fn a_cluster_is_back_after_a_kill_and_has_every_acknowledged_event_once() {
    let dir = Dir::new();
    let mut cluster = Cluster::start(&dir.at("log"), &["-n", "3", "-w", "1"], &["--batch-interval", "500ms"]);
    assert_eq!(cluster.clients.len(), 3);
    let before = processes(cluster.id());
    assert_eq!(before.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);

    let mut next = 0;
    let mut append = |cluster: &Cluster| {
        let mut token = 0;
        for client in &cluster.clients {
            token = client.append(&(next..next + 20).map(event).collect::<Vec<_>>()).max(token);
            next += 20;
        }
        (token, next)
    };
    append(&cluster);
    signal("KILL", before[&1]);
    cluster.serves_again(2);
    let now = processes(cluster.id());
    assert!(now.values().all(|id| !before.values().any(|old| old == id)), "all are new: {before:?}, {now:?}");

    let (token, appended) = append(&cluster);
    let expected: BTreeMap<String, u64> = (0..appended).map(|n| (format!("/e/{n}"), 1)).collect();
    for process in 0..3 {
        assert_eq!(cluster.counted(process, token), expected, "as process {process} answers");
    }

    signal("TERM", cluster.id());
    let ended = cluster.launcher.wait().exits(0).says(&[
        "\nprocess 1 ended by signal 9; starting the cluster again in 1.0 s (1 of 10)\n",
        "[p0] error: lost process 1 (127.0.0.1:",
        "[p1] serving on http://127.0.0.1:",
    ]);
    assert_gone(&now);
    assert_eq!(ended.out, "");
    for line in ended.err.lines() {
        assert!(["[p0] ", "[p1] ", "[p2] ", "serving on ", "process 1 "].iter().any(|start| line.starts_with(start)), "{line:?}");
    }
}

#[test]
fn a_hung_process_is_replaced_and_restarts_have_a_limit() {
    let dir = Dir::new();
    let mut cluster = Cluster::start(&dir.at("log"), &["-n", "2", "--restarts", "1"], &["--peer-timeout", "3s"]);
    let token = cluster.clients[0].append(&[event(0)]);
    signal("STOP", processes(cluster.id())[&1]);
    cluster.serves_again(2);
    assert_eq!(cluster.counted(1, token), BTreeMap::from([("/e/0".to_owned(), 1)]));

    let now = processes(cluster.id());
    signal("KILL", now[&0]);
    cluster.launcher.wait().exits(128 + 9).says(&[
        "\n[p0] error: lost process 1 (127.0.0.1:",
        "\nprocess 1 did not end and was killed; starting the cluster again in 1.0 s (1 of 1)\n",
        "\nerror: process 0 ended by signal 9: process 0 ended by signal 9, process 1 ended with exit code 4\n",
        "--restarts",
    ]);
    assert_gone(&now);
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    let dir = Dir::new();
    lambdaflow_with_input(["ingest", "wordcount", "--log", &dir.at("words"), "-"], "some words\n").exits(0);
    let log = dir.at("words");
    let ended = lambdaflow(["launch", "-n", "2", "run", "web_analytics", "--listen", "127.0.0.1:0", "--log", &log]).exits(2);
    assert!(ended.err.contains("\nerror: process 0 ended with exit code 2: ") && !ended.err.contains("starting"), "{}", ended.err);
}

#[test]
fn a_launcher_that_is_killed_leaves_nobody_behind() {
    let dir = Dir::new();
    let cluster = Cluster::start(&dir.at("log"), &["-n", "2"], &[]);
    let processes = processes(cluster.id());
    assert_eq!(processes.len(), 2);
    cluster.launcher.kill();
    assert_gone(&processes);
}

#[test]
fn a_process_that_does_not_stop_is_killed() {
    let dir = Dir::new();
    for (stop_timeout, signals) in [("3s", 1), ("1h", 2)] {
        let cluster = Cluster::start(&dir.at("log"), &["-n", "2", "--stop-timeout", stop_timeout], &[]);
        let processes = processes(cluster.id());
        signal("STOP", processes[&1]);
        signal("INT", cluster.id());
        // The other one stops, so the first request has arrived.
        assert_gone(&BTreeMap::from([(0, processes[&0])]));
        if signals == 2 {
            signal("INT", cluster.id());
        }
        cluster.launcher.wait().exits(128 + 9).says(&["error: process 1 did not end and was killed: process 0 ended with exit code 0, "]);
        assert_gone(&processes);
    }
}

#[test]
fn an_audit_by_several_processes_is_printed_once() {
    let dir = Dir::new();
    let log = dir.at("log");
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], lines(500)).exits(0);
    let alone = lambdaflow(["audit", "web_analytics", "--log", &log]).exits(0).out;
    let together = lambdaflow(["launch", "-n", "3", "-w", "2", "audit", "web_analytics", "--log", &log]).exits(0).out;
    let views = |out: &str| out.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert!(together.starts_with("both layers, everything before tick "), "{together}");
    assert_eq!(views(&together), views(&alone));

    // `-w` may be the command's own, and a single process is a cluster, too.
    let one = lambdaflow(["launch", "-n", "1", "audit", "web_analytics", "-w", "2", "--log", &log]).exits(0).out;
    assert_eq!(views(&one), views(&alone));
}

#[test]
fn several_processes_compare_a_program_with_what_is_on_disk() {
    let dir = Dir::new();
    let log = dir.at("log");
    let server = Serving::start(&log, &["-w", "2", "--batch-interval", "0"]);
    server.append(&(0..200).map(event).collect::<Vec<_>>());
    server.post("/v1/rebuild", JSON_LINES, "").ok();
    let compared = lambdaflow(["launch", "-n", "3", "diff", "web_analytics", "--log", &log]).exits(0);
    assert_eq!(compared.out, "");
    assert_eq!(compared.err.matches("[p0] no difference: generation 2 (this program computed it)").count(), 1, "{}", compared.err);
    server.stop();
    let nothing = dir.at("nothing");
    lambdaflow(["launch", "-n", "2", "diff", "web_analytics", "--log", &nothing]).exits(2).says(&["[p0] error: ", "[p1] error: "]);
}

#[test]
fn several_processes_are_compared_with_sql() {
    let oracle = |launch: &[&str]| {
        let more = ["oracle", "bank", "--events", "3000", "--format", "json"];
        start(program(launch.iter().chain(&more)), "").wait()
    };
    let alone = oracle(&[]);
    if alone.code == 2 && alone.err.contains("is missing") {
        return skip("several_processes_are_compared_with_sql", &alone.err);
    }
    let (alone, together) = (alone.exits(0).json(), oracle(&["launch", "-n", "3", "-w", "2"]).exits(0).json());
    assert_eq!(together["processes"], 3);
    let rows = |report: &serde_json::Value| {
        let views = report["views"].as_array().expect("views").iter();
        views.map(|view| (view["view"].to_string(), view["rows"].as_u64())).collect::<Vec<_>>()
    };
    assert_eq!(rows(&together), rows(&alone));

    // Told to stop in the middle, they leave nothing behind.
    let dir = Dir::new();
    let place = dir.path("temporary");
    std::fs::create_dir(&place).expect("a directory");
    let mut command = program(["launch", "-n", "2", "oracle", "bank", "--events", "1000000"]);
    command.env("TMPDIR", &place);
    let launcher = start(command, "");
    let entries =
        |dir: &std::path::Path| -> Vec<_> { std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect() };
    // A directory of the launcher, and in it those of its processes, with what they compute.
    eventually("they have begun", || {
        entries(&place).iter().flat_map(|one| entries(one)).any(|one| !entries(&one).is_empty()).then_some(())
    });
    signal("TERM", launcher.id());
    let ended = launcher.wait();
    assert_eq!((ended.code, entries(&place)), (143, Vec::new()), "{ended:?}");
}

#[test]
fn mistakes_are_said_once_and_start_nothing() {
    for (arguments, says) in [
        (&["-n", "2"][..], "required arguments were not provided"),
        (&["run", "web_analytics", "--log", "l"], "--processes <N>"),
        (&["-n", "0", "run", "web_analytics", "--log", "l"], "between 1 and 256 processes"),
        (&["-n", "2", "-p", "1", "run", "web_analytics", "--log", "l"], "`launch` has no option -p"),
        (&["-n", "2", "-h", "hosts", "run", "web_analytics", "--log", "l"], "`launch` has no option -h"),
        (&["-n", "2", "run", "web_analytics", "--log", "l", "-p", "1"], "'--process <P>' cannot be used multiple times"),
        (&["-n", "2", "-w", "1", "run", "web_analytics", "--log", "l", "-w", "1"], "cannot be used multiple times"),
        (&["-n", "2", "run", "web_analytics"], "--log <DIR>"),
        (&["-n", "2", "run", "nothing", "--log", "l"], "there is no dataflow `nothing`"),
        (&["-n", "2", "query", "hits"], "unexpected argument '-n'"),
        (&["-n", "2", "launch", "-n", "2", "run"], "`launch` cannot be carried out by several processes"),
        (&["-n", "2", "audit", "web_analytics"], "--log DIR is missing"),
    ] {
        let ended = lambdaflow(["launch"].iter().chain(arguments)).exits(2).says(&[says]);
        assert!(!ended.err.contains("[p"), "{}", ended.err);
    }
    let help = lambdaflow(["launch", "--help"]).exits(0).out;
    assert!(help.starts_with("Example:\n  lambdaflow launch -n 4 -w 2 run web_analytics --log /tmp/web\n"), "{help}");
    assert!(lambdaflow(["launch", "-n", "2", "run", "--help"]).exits(0).out.contains("--batch-interval"));
}

#[test]
fn it_stops_between_two_starts() {
    let dir = Dir::new();
    let cluster = Cluster::start(&dir.at("log"), &["-n", "1"], &[]);
    let only = processes(cluster.id());
    for round in 1..=3 {
        // The pause doubles; in the third nobody waits for its end.
        signal("KILL", *processes(cluster.id()).values().next().expect("a process"));
        let pause = 1 << (round - 1);
        let line = format!("process 0 ended by signal 9; starting the cluster again in {pause}.0 s ({round} of 10)");
        eventually("the restart is announced", || cluster.launcher.stderr().contains(&line).then_some(()));
        if round < 3 {
            eventually("it serves again", || (serving(&cluster.launcher).len() > round).then_some(()));
        }
    }
    let started = std::time::Instant::now();
    signal("TERM", cluster.id());
    cluster.launcher.wait().exits(0);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_gone(&only);
}
