//! The examples of operators of one's own, and of time: each checks the layer law when it runs.

#[path = "../examples/as_known_at.rs"]
mod as_known_at;
#[path = "../examples/keyed.rs"]
mod keyed;
#[path = "../examples/linear.rs"]
mod linear;
#[path = "../examples/opaque.rs"]
mod opaque;

use lambdaflow::log::Tick;
use lambdaflow::testing::answers_after_cuts;

#[test]
fn the_examples_keep_the_law() {
    as_known_at::main();
    keyed::main();
    linear::main();
    opaque::main();
}

/// Days on both sides of a cut join into one streak: the state came out of the generation.
#[test]
fn the_state_of_a_keyed_operator_survives_freezing() {
    let visit = |tick, day| (Tick(tick), keyed::Visit { user: "ada".to_owned(), day });
    let visits = [visit(0, 1), visit(1, 2), visit(2, 4), visit(3, 5), visit(4, 3), visit(5, 9)];
    for cuts in [vec![], vec![Tick(3)], vec![Tick(2), Tick(4)], vec![Tick(6)]] {
        let answers = answers_after_cuts(keyed::streaks, &visits, &cuts, 2, 1);
        assert_eq!(answers["streaks"][0].value, 5, "cuts {cuts:?}");
    }
}

/// What was known at a tick does not change when a late reading corrects the hour it belongs to.
#[test]
fn a_late_reading_corrects_its_hour_from_when_it_was_known() {
    for (tick, warmest) in [(51, None), (52, Some(1_910))] {
        let known: Vec<_> = as_known_at::log().into_iter().filter(|(at, _)| at.0 <= tick).collect();
        let answers = answers_after_cuts(as_known_at::temperatures, &known, &[Tick(40)], 1, 1);
        let of_hour_two = answers["warmest"].iter().find(|row| row.key == 2).map(|row| row.value.as_i64().expect("a number"));
        assert_eq!(of_hour_two, warmest, "as known at tick {tick}");
    }
}
