//! The law for workers of several processes: every number of processes and workers, every codec.
//!
//! Every other test of this suite checks one round of cuts so, too; see `Law::connected`.

use lambdaflow::operators::{Codec, Count, Events, HyperLogLog, Sum, Views};
use lambdaflow::testing::{Connected, Law, Random, check_layers_by_tick};

use crate::harness::{Fact, Kind, facts, rows};

/// An operator of each way of keeping state.
fn of_each_kind(facts: Events<'_, Fact>, views: &mut Views) {
    let all = rows(facts.clone());
    let sums =
        facts.clone().aggregate::<String, (Count, Sum)>(|fact, groups| groups.add(fact.group, (Count::one(), Sum::of(*fact.amount))));
    views.publish("sums", sums.clone());
    let users = facts.aggregate::<u64, HyperLogLog>(|fact, groups| groups.add(*fact.user, HyperLogLog::of(fact.group)));
    views.publish("groups_of_users", users);
    views.publish("amounts", all.clone().aggregate::<Sum>(|(_, amount)| Sum::of(*amount)));
    views.publish("joined", all.clone().join(sums.rows().map(|(group, (count, _))| (group, count))));
    views.publish("distinct", all.clone().map(|(group, (user, _))| (user, group)).distinct());
    views.publish(
        "most",
        all.clone().map(|(group, (user, amount))| (group, (amount, user))).reduce(|_, rows, most| {
            most.push((*rows[rows.len() - 1].0, 1));
        }),
    );
    views.publish("best", all.map(|(group, (user, amount))| (user, (amount, group))).max());
}

#[test]
fn the_law_holds_for_any_number_of_processes_and_workers() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let codecs: Vec<Codec> = Codec::ALL.into_iter().filter(|codec| codec.available().is_ok()).collect();
    for (round, (processes, workers)) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)].into_iter().enumerate() {
        let codec = codecs[(seed as usize).wrapping_add(round) % codecs.len()];
        let connected = Connected::Sockets { processes, codec };
        let law = Law { workers: vec![workers], cuts: 1, seed, connected: Some(connected) };
        let (checks, _) = check_layers_by_tick(of_each_kind, &facts(Kind::Matched, seed), &law);
        assert!(checks > 0, "{processes} processes of {workers} workers, {codec}");
    }
}

#[test]
fn the_law_holds_when_every_row_is_written_and_read() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for codec in Codec::ALL.into_iter().filter(|codec| codec.available().is_ok()) {
        let law = Law { workers: vec![2], cuts: 1, seed, connected: Some(Connected::Serialized(codec)) };
        let (checks, _) = check_layers_by_tick(of_each_kind, &facts(Kind::Unmatched, seed), &law);
        assert!(checks > 0, "{codec}");
    }
}
