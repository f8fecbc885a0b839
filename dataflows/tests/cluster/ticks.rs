//! Ticks may be as long as one likes, on each process: nobody takes the pause between two of them for a process that hangs.

use super::cluster::*;
use super::harness::*;

/// A cluster whose ticks were as long as `--peer-timeout` used to end, and to be started again, for ever.
#[test]
fn a_cluster_with_ticks_longer_than_the_peer_timeout_stays_up() {
    for ticks in [["3s", "3s"], ["5ms", "3s"], ["3s", "5ms"]] {
        let dir = Dir::new();
        // Batch cycles close ticks, too.
        let plan = Plan::new(&dir, "web_analytics", (2, 1)).set("--batch-interval", "0").with(&["--peer-timeout", "2s"]);
        let guards = [0, 1].map(|process| plan.clone().set("--tick", ticks[process]).launch(process));
        let cluster = Cluster { members: guards.into_iter().map(Serving::from).collect() };
        // What is appended is complete a tick later: both go on through several.
        for n in 0..3 {
            let token = cluster[n % 2].append(&[event(n as u64)]).to_string();
            let seen = cluster[1 - n % 2].get("/v1/views/visitors/scan", &[("at_least", &token), ("timeout_ms", "30000")]).ok();
            assert_eq!(seen["rows"].as_array().map(Vec::len), Some(n + 1), "{ticks:?}");
        }
        cluster.stop();
    }
}

/// The thread that closes ticks used to sleep until the next one was due, and a stop to wait for it.
#[test]
fn processes_stop_in_the_middle_of_a_long_tick() {
    for (processes, name) in [(1, "INT"), (1, "TERM"), (2, "INT"), (2, "TERM")] {
        let dir = Dir::new();
        let plan = Plan::new(&dir, "web_analytics", (processes, 1)).set("--tick", "1h");
        let cluster = plan.start();
        cluster[0].append(&[event(1)]);
        cluster.members.iter().for_each(|member| signal(name, member.process.id()));
        for member in cluster.members {
            let _ = member.process.wait().exits(0);
        }
        lambdaflow(["log", "verify", &plan.log]).exits(0);
        assert_eq!(cat(&plan.log).len(), 1, "{name} of {processes}");
    }
}
