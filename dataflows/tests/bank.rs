//! Transfers between accounts: all balances add up to zero at every tick, wherever the layers are cut.

use lambdaflow::log::Tick;
use lambdaflow::testing::{Law, Random, check_layers_by_tick};
use lambdaflow_dataflows::bank::{Transfer, bank, reference};
use serde_json::{Value, json};

/// Few accounts and three days, so that accounts come and go on either side of the join; a few transfers at a tick.
fn log(seed: u64) -> Vec<(Tick, Transfer)> {
    let mut random = Random::new(seed);
    let (accounts, transfers) = (2 + random.below(12), 60 + random.below(120));
    let mut tick = 0;
    let mut log = Vec::new();
    for id in 0..transfers {
        tick += u64::from(random.below(3) == 0);
        let (from, to) = (random.below(accounts), random.below(accounts));
        // Late by up to two days, whatever the tick; now and then nothing, or something that is taken back.
        let at = 1_767_225_600 + id * 900 + 2 * 86_400 - random.below(2 * 86_400);
        let amount = random.below(7) as i64 - 1;
        log.push((Tick(tick), Transfer { id, at, from, to, amount }));
    }
    log
}

#[test]
fn the_law_holds_and_every_tick_adds_up_to_zero() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut totals = 0;
    for seed in seed..seed.saturating_add(6) {
        let log = log(seed);
        let (checks, by_tick) = check_layers_by_tick(bank, &log, &Law { seed, ..Law::default() });
        assert!(checks > 10, "{checks} checks");
        for (tick, answers) in by_tick.iter().enumerate() {
            let want = reference::answers(log.iter().filter(|(at, _)| at.0 <= tick as u64).map(|(_, transfer)| transfer));
            for (view, got) in answers {
                let got: Vec<Value> = got.iter().map(|row| json!({"key": row.key, "value": row.value, "count": row.count})).collect();
                let want = if view == "errors" { &Vec::new() } else { &want[view.as_str()] };
                assert_eq!(got, *want, "{view} at tick {tick}, seed {seed}");
                totals += if view == "daily_total" { got.len() } else { 0 };
            }
        }
    }
    assert!(totals > 100, "{totals} totals of a day");
}
