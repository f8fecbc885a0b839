//! `scripts/cluster.sh`: a cluster on several machines, all of which are this one. What stands for ssh runs its commands here.

use std::process::Command;

use super::harness::*;
use super::ports::free_addresses;

const TOKEN: &str = "not-to-be-seen-on-a-command-line";

/// Running processes whose command line has this part.
fn running(part: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("processes can be listed").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Of a zombie it is empty.
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
        if line.contains(part) {
            found.push((id, line));
        }
    }
    found
}

/// Machines: a directory with a hostfile and something that stands for ssh.
struct Machines(Dir);

impl Machines {
    fn new(n: usize) -> Self {
        let dir = Dir::new();
        dir.file("hosts", format!("# machines\n\n{}\n", free_addresses(n).join("\n")));
        dir.file("ssh", "[ \"$1\" = 127.0.0.1 ] || exit 255\nshift\nexec sh -c \"$*\"\n");
        Self(dir)
    }

    /// A path that shells have to be told exactly.
    fn log(&self) -> String {
        self.0.at("it's a $log")
    }

    fn script(&self, arguments: &[&str]) -> Guard {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cluster.sh"));
        command.arg(self.0.at("hosts")).args(arguments).args(["--log", &self.log()]);
        command.env("LAMBDAFLOW_SSH", format!("sh {}", self.0.at("ssh")));
        command.env("LAMBDAFLOW_BIN", env!("CARGO_BIN_EXE_lambdaflow")).env("LAMBDAFLOW_CLUSTER_TOKEN", TOKEN);
        start(command, "")
    }

    /// A server on each machine, and its clients by process.
    fn serve(&self, n: usize) -> (Guard, Vec<Client>) {
        let mut script = self.script(&["run", "web_analytics", "--listen", "127.0.0.1:0", "--tick", "5ms"]);
        let clients = (0..n).map(|process| {
            let prefix = format!("[p{process}] serving on ");
            let url = eventually("all serve", || {
                let stderr = script.stderr();
                assert!(script.ended().is_none(), "the script ended: {stderr}");
                stderr.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
            });
            Client::new(&url)
        });
        let clients = clients.collect();
        (script, clients)
    }

    #[track_caller]
    fn assert_nothing_runs(&self) {
        let log = self.log();
        eventually("nothing is left", || running(&log).is_empty().then_some(()));
    }
}

#[test]
fn several_machines_are_started_and_stopped_together() {
    let machines = Machines::new(2);
    let (script, clients) = machines.serve(2);
    let token = clients[0].append(&[event(0), event(1)]).to_string();
    let answer = clients[1].get("/v1/views/hits/scan", &[("at_least", &token)]).ok();
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(2), "{answer}");
    assert_eq!(running(TOKEN), [], "command lines can be read by everybody");

    signal("TERM", script.id());
    assert_eq!(script.wait().exits(0).out, "");
    machines.assert_nothing_runs();

    let audit = machines.script(&["audit", "web_analytics"]).wait().exits(0);
    assert_eq!(audit.out.matches("both layers, everything before tick ").count(), 1, "{}", audit.out);
    assert!(audit.out.contains("\nhits             agree   batch         2 rows"), "{}", audit.out);
}

#[test]
fn a_process_that_dies_on_one_machine_ends_all() {
    let machines = Machines::new(2);
    let (script, _) = machines.serve(2);
    let log = machines.log();
    let own = format!("{} run -n 2 -p 1 ", env!("CARGO_BIN_EXE_lambdaflow"));
    let victim = running(&log).into_iter().find(|(_, line)| line.starts_with(&own)).expect("process 1 runs").0;
    signal("KILL", victim);
    script.wait().exits(128 + 9).says(&[
        "[p0] error: lost process 1 (127.0.0.1:",
        "process 0 ended with exit code 4\n",
        "process 1 ended with exit code 137\n",
    ]);
    machines.assert_nothing_runs();
}

#[test]
fn a_script_that_is_killed_leaves_nothing_running() {
    let machines = Machines::new(2);
    let (script, _) = machines.serve(2);
    script.kill();
    machines.assert_nothing_runs();
}

/// The first process tells the script to stop, as Ctrl-C would; the script is starting the others meanwhile.
#[test]
fn a_script_that_is_told_to_stop_starts_nothing_more() {
    const HOSTS: usize = 100;
    let machines = Machines::new(0);
    machines.0.file("hosts", (0..HOSTS).map(|host| format!("127.0.0.1:{}\n", 2101 + host)).collect::<String>());
    let calls = machines.0.file("calls", "");
    // The script is the parent of the shell that starts what stands for ssh.
    let stop = "read -r _ _ _ script _ < /proc/$PPID/stat\nkill -TERM $script";
    let standin = format!("echo call >> {calls}\nif mkdir {calls}.first; then\n{stop}\nfi 2> /dev/null\nexec cat > /dev/null\n");
    machines.0.file("ssh", standin);
    machines.script(&["run", "web_analytics"]).wait().exits(0);
    let called = std::fs::read_to_string(calls).expect("the list of calls").lines().count();
    assert!((1..HOSTS).contains(&called), "{called} of {HOSTS} were started");
}

#[test]
fn mistakes_of_the_script_are_said() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cluster.sh");
    let dir = Dir::new();
    let nobody = dir.file("nobody", "# to be written\n\n");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(script);
        command.args(arguments);
        start(command, "").wait().exits(2)
    };
    run(&[]).says(&["scripts/cluster.sh HOSTFILE COMMAND", "LAMBDAFLOW_SSH"]);
    run(&["--help"]).says(&["scripts/cluster.sh HOSTFILE COMMAND"]);
    run(&[&dir.at("none"), "run"]).says(&["cannot be read"]);
    run(&[&nobody, "run"]).says(&["names nobody"]);
}
