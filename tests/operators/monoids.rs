//! The monoids: their laws, their answers in both layers, and `check_monoid`, which must notice what is none.

use std::collections::{BTreeMap, BTreeSet};

use columnar::Columnar;
use lambdaflow::differential_dataflow::difference::{IsZero, Semigroup};
use lambdaflow::operators::{
    Abelian, ArgMax, ArgMin, BoundedSet, Bucket, Count, CountMin, Events, Heavy, HeavyHitters, Histogram, HyperLogLog, Max, Mean, Min,
    Moments, Monoid, Quantiles, Real, Sum, Summary, Variance, Views,
};
use lambdaflow::runs::AnswerRow;
use lambdaflow::testing::{Random, check_abelian, check_monoid};
use serde::{Deserialize, Serialize};

use crate::harness::{Fact, Kind, answer, check, rows, rows_of, text};

fn sum_of<M: Monoid + Default>(values: impl IntoIterator<Item = M>) -> M {
    let mut sum = M::default();
    values.into_iter().for_each(|value| sum.plus_equals(&value));
    sum
}

#[test]
fn every_monoid_keeps_its_laws() {
    let values = [0i64, 1, -1, 7, 1_000, i64::MIN, i64::MAX];
    check_abelian(&values.map(|value| Count(value as isize)));
    check_abelian(&values.map(Sum));
    check_abelian(&values.map(|value| (Count::one(), Sum(value))));
    check_abelian(&values.map(Mean::of));
    check_abelian(&values.map(Variance::of));
    // Sums of many values reach the code that merges whole arrays of cells; one value, that which puts cells in their place.
    let groups = |values: &[u64]| -> Vec<Vec<u64>> {
        values.iter().map(|value| vec![*value]).chain([(0..40).collect(), (20..90).map(|i| i * i).collect(), vec![]]).collect()
    };
    let groups = groups(&[0, 3, 70_000, u64::MAX]);
    check_abelian(&groups.iter().map(|group| sum_of(group.iter().map(|i| Histogram::of_width(*i as i64, 10)))).collect::<Vec<_>>());
    check_abelian(&groups.iter().map(|group| sum_of(group.iter().map(|i| Quantiles::of(*i as i64)))).collect::<Vec<_>>());
    check_abelian(&groups.iter().map(|group| sum_of(group.iter().map(CountMin::of))).collect::<Vec<_>>());
    check_abelian(&groups.iter().map(|group| sum_of(group.iter().map(|i| HeavyHitters::of(*i)))).collect::<Vec<_>>());
    check_monoid(&groups.iter().map(|group| sum_of(group.iter().map(HyperLogLog::of))).collect::<Vec<_>>());
    check_monoid(&values.map(Min::of));
    check_monoid(&values.map(|value| Max::of(value.to_string())));
    check_monoid(&values.map(|value| ArgMax::of((value % 7, value))));
    check_monoid(&groups.iter().map(|group| sum_of(group.iter().map(|i| BoundedSet::<_, 3>::of(*i)))).collect::<Vec<_>>());
}

fn of_rows(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("mean", rows.clone().aggregate(|(_, amount)| Mean::of(*amount)));
    views.publish("variance", rows.clone().aggregate(|(_, amount)| Variance::of(*amount)));
    views.publish("histogram", rows.clone().aggregate(|(_, amount)| Histogram::of_width(*amount, 2)));
    views.publish("bounds", rows.clone().aggregate(|(_, amount)| Histogram::of_bounds(*amount, &[-1, 2])));
    views.publish("mean_rows", rows.aggregate(|(_, amount)| Mean::of(*amount)).rows().map(|(group, mean)| (group, mean.answer())));
}

/// Each group's amounts with their multiplicities, unless every sum over them is zero.
fn amounts(facts: &[Fact]) -> BTreeMap<String, BTreeMap<i64, i64>> {
    let mut groups: BTreeMap<String, BTreeMap<i64, i64>> = BTreeMap::new();
    for ((group, (_, amount)), n) in rows_of(facts) {
        *groups.entry(group).or_default().entry(amount).or_default() += n as i64;
    }
    groups.values_mut().for_each(|amounts| amounts.retain(|_, n| *n != 0));
    groups
}

/// A row for each group of which a sum is not zero.
fn of_amounts<A: Serialize + Ord>(facts: &[Fact], sums: impl Fn(&BTreeMap<i64, i64>) -> (bool, A)) -> Vec<AnswerRow> {
    let groups = amounts(facts).into_iter().map(|(group, amounts)| (group, sums(&amounts)));
    answer(groups.filter(|(_, (there, _))| *there).map(|(group, (_, answer))| ((group, answer), 1)).collect())
}

fn quotient(dividend: i64, divisor: i64) -> Real {
    if divisor == 0 { Real::NONE } else { Real::new(dividend as f64 / divisor as f64) }
}

fn mean(amounts: &BTreeMap<i64, i64>) -> (bool, Real) {
    let (count, sum): (i64, i64) = (amounts.values().sum(), amounts.iter().map(|(amount, n)| amount * n).sum());
    ((count, sum) != (0, 0), quotient(sum, count))
}

fn variance(amounts: &BTreeMap<i64, i64>) -> (bool, Moments) {
    let power = |power: u32| -> i64 { amounts.iter().map(|(amount, n)| amount.pow(power) * n).sum() };
    let [count, sum, squares] = [0, 1, 2].map(power);
    // Variance times count squared, a whole number.
    let distances = count * squares - sum * sum;
    let of = |divisor: i64| if count > 0 && divisor > 0 { Real::new(distances as f64 / count as f64 / divisor as f64) } else { Real::NONE };
    let moments = Moments { count, mean: quotient(sum, count), variance: of(count), sample_variance: of(count - 1) };
    ([count, sum, squares] != [0, 0, 0], moments)
}

fn histogram(amounts: &BTreeMap<i64, i64>, from: impl Fn(i64) -> i64) -> (bool, Vec<Bucket>) {
    let mut buckets: BTreeMap<i64, i64> = BTreeMap::new();
    amounts.iter().for_each(|(amount, n)| *buckets.entry(from(*amount)).or_default() += n);
    let count: i64 = buckets.values().sum();
    let buckets: Vec<Bucket> = buckets.into_iter().filter(|(_, n)| *n != 0).map(|(from, count)| Bucket { from, count }).collect();
    (count != 0 || !buckets.is_empty(), buckets)
}

fn of_rows_matches_plain_rust(kind: Kind) {
    let bound = |amount| match amount {
        ..-1 => i64::MIN,
        -1..2 => -1,
        _ => 2,
    };
    check(
        kind,
        of_rows,
        &[
            ("mean", &|facts| of_amounts(facts, mean)),
            ("variance", &|facts| of_amounts(facts, variance)),
            ("histogram", &|facts| of_amounts(facts, |amounts| histogram(amounts, |amount| amount - (amount + 2) % 2))),
            ("bounds", &|facts| of_amounts(facts, |amounts| histogram(amounts, bound))),
            ("mean_rows", &|facts| of_amounts(facts, mean)),
        ],
    );
}

#[test]
fn moments_and_histograms_match_plain_rust() {
    of_rows_matches_plain_rust(Kind::Matched);
}

#[test]
fn moments_and_histograms_are_linear_in_negative_multiplicities() {
    of_rows_matches_plain_rust(Kind::Unmatched);
}

/// Sketches of so few small values are exact.
fn sketches(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("quantiles", rows.clone().aggregate(|(_, amount)| Quantiles::of(*amount)));
    views.publish("heavy", rows.clone().aggregate(|(user, _)| HeavyHitters::of(*user)));
    let counts = rows.aggregate(|(user, _)| CountMin::of(user));
    views.publish("total", counts.clone());
    views.publish(
        "estimates",
        counts.rows().flat_map(|(group, counts)| (0..3u64).map(move |user| (group.clone(), (user, counts.estimate(&user))))),
    );
}

/// Each group's users, and amounts, as often as they are there.
fn each(facts: &[Fact]) -> BTreeMap<String, (Vec<u64>, Vec<i64>)> {
    let mut groups: BTreeMap<String, (Vec<u64>, Vec<i64>)> = BTreeMap::new();
    for ((group, (user, amount)), n) in rows_of(facts) {
        let (users, amounts) = groups.entry(group).or_default();
        users.extend(std::iter::repeat_n(user, n as usize));
        amounts.extend(std::iter::repeat_n(amount, n as usize));
    }
    groups.values_mut().for_each(|(_, amounts)| amounts.sort());
    groups
}

fn count_of(users: &[u64], user: u64) -> i64 {
    users.iter().filter(|other| **other == user).count() as i64
}

#[test]
fn sketches_of_few_values_match_plain_rust() {
    let by_group = |rows: BTreeMap<String, _>| answer(rows.into_iter().map(|row| (row, 1)).collect());
    check(
        Kind::Matched,
        sketches,
        &[
            ("quantiles", &|facts| {
                let summary = |amounts: Vec<i64>| {
                    let n = amounts.len();
                    let percent = |p: usize| amounts[(n * p).div_ceil(100) - 1];
                    Summary { count: n as i64, min: amounts[0], p50: percent(50), p90: percent(90), p99: percent(99), max: amounts[n - 1] }
                };
                answer(each(facts).into_iter().map(|(group, (_, amounts))| ((group, summary(amounts)), 1)).collect())
            }),
            ("heavy", &|facts| {
                let heavy = |users: Vec<u64>| {
                    let ids: BTreeSet<u64> = users.iter().copied().collect();
                    let mut heavy: Vec<Heavy> = ids.into_iter().map(|id| Heavy { id, count: count_of(&users, id) }).collect();
                    heavy.retain(|heavy| heavy.count * 50 >= users.len() as i64);
                    heavy.sort_by_key(|heavy| (-heavy.count, heavy.id));
                    heavy
                };
                answer(each(facts).into_iter().map(|(group, (users, _))| ((group, heavy(users)), 1)).collect())
            }),
            ("total", &|facts| by_group(each(facts).into_iter().map(|(group, (users, _))| (group, users.len())).collect())),
            ("estimates", &|facts| {
                let rows = each(facts).into_iter();
                answer(
                    rows.flat_map(|(group, (users, _))| [0, 1, 2].map(|user| ((group.clone(), (user, count_of(&users, user))), 1)))
                        .collect(),
                )
            }),
        ],
    );
}

fn of_events(facts: Events<'_, Fact>, views: &mut Views) {
    let facts = || facts.clone();
    views.publish("min", facts().aggregate::<u64, Min<i64>>(|fact, groups| groups.add(*fact.user, Min::of(*fact.amount))));
    views.publish("max", facts().aggregate::<u64, Max<String>>(|fact, groups| groups.add(*fact.user, Max::of(text(fact.group)))));
    views.publish(
        "last",
        facts().aggregate::<String, ArgMax<i64, u64>>(|fact, groups| groups.add(fact.group, ArgMax::of((*fact.amount, *fact.user)))),
    );
    let first =
        facts().aggregate::<String, ArgMin<i64, u64>>(|fact, groups| groups.add(fact.group, ArgMin::of((*fact.amount, *fact.user))));
    views.publish("first_rows", first.rows().map(|(group, first)| (group, first.into_inner())));
    let sets = facts().aggregate::<String, BoundedSet<u64, 2>>(|fact, groups| groups.add(fact.group, BoundedSet::of(*fact.user)));
    views.publish("set", sets.clone());
    views.publish("set_rows", sets.rows().map(|(group, set)| (group, (set.values().to_vec(), set.has_more()))));
}

/// A row for each key, with what is made of all values that it has.
fn grouped<K: Ord + Serialize, V: Ord, A: Ord + Serialize>(
    facts: &[Fact],
    key_value: impl Fn(&Fact) -> (K, V),
    of: impl Fn(BTreeSet<V>) -> A,
) -> Vec<AnswerRow> {
    let mut groups: BTreeMap<K, BTreeSet<V>> = BTreeMap::new();
    facts.iter().map(key_value).for_each(|(key, value)| _ = groups.entry(key).or_default().insert(value));
    answer(groups.into_iter().map(|(key, values)| ((key, of(values)), 1)).collect())
}

#[test]
fn extremes_and_sets_match_plain_rust() {
    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
    struct Set {
        values: Vec<u64>,
        more: bool,
    }
    let set = |users: BTreeSet<u64>| Set { more: users.len() > 2, values: users.into_iter().take(2).collect() };
    check(
        Kind::Matched,
        of_events,
        &[
            ("min", &|facts| grouped(facts, |fact| (fact.user, fact.amount), |amounts| amounts.first().copied())),
            ("max", &|facts| grouped(facts, |fact| (fact.user, fact.group.clone()), |groups| groups.last().cloned())),
            ("last", &|facts| grouped(facts, |fact| (fact.group.clone(), (fact.amount, fact.user)), |orders| orders.last().copied())),
            ("first_rows", &|facts| {
                grouped(facts, |fact| (fact.group.clone(), (fact.amount, fact.user)), |orders| orders.first().copied())
            }),
            ("set", &|facts| grouped(facts, |fact| (fact.group.clone(), fact.user), set)),
            ("set_rows", &|facts| {
                grouped(
                    facts,
                    |fact| (fact.group.clone(), fact.user),
                    |users| (users.iter().copied().take(2).collect::<Vec<_>>(), users.len() > 2),
                )
            }),
        ],
    );
}

/// Of 50,000 ids, a quarter are one of ten; the others are spread over 20,000.
fn skewed(random: &mut Random) -> Vec<u64> {
    let id = |random: &mut Random| match random.below(4) {
        0 => random.below(10).pow(3),
        _ => 1_000 + random.below(20_000),
    };
    (0..50_000).map(|_| id(random)).collect()
}

#[test]
fn estimates_keep_their_promised_errors_after_values_are_taken_back() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut random = Random::new(seed);
    let (kept, taken_back) = (skewed(&mut random), skewed(&mut random));
    let mut exact: BTreeMap<u64, i64> = BTreeMap::new();
    kept.iter().for_each(|id| *exact.entry(*id).or_default() += 1);
    let total = kept.len() as i64;

    fn linear<M: Abelian + Default>(kept: &[u64], taken_back: &[u64], of: impl Fn(u64) -> M) -> M {
        let (plus, minus) = (sum_of(kept.iter().chain(taken_back).map(|id| of(*id))), sum_of(taken_back.iter().map(|id| of(*id))));
        sum_of([plus, minus.times(-1)])
    }
    let counts = linear(&kept, &taken_back, |id| CountMin::of(&id));
    assert_eq!(counts, sum_of(kept.iter().rev().map(CountMin::of)), "what was taken back leaves a trace");
    assert_eq!(counts.total(), total);
    let errors: Vec<i64> = exact.iter().map(|(id, n)| counts.estimate(id) - n).collect();
    assert!(errors.iter().all(|error| *error >= 0));
    let beyond = errors.iter().filter(|error| **error as f64 > 0.0027 * total as f64).count();
    assert!(beyond * 50 <= errors.len(), "{beyond} of {} estimates are too high", errors.len());

    let hitters = linear(&kept, &taken_back, HeavyHitters::of);
    assert_eq!(hitters, sum_of(kept.iter().rev().map(|id| HeavyHitters::of(*id))), "what was taken back leaves a trace");
    assert_eq!(hitters.total(), total);
    let heavy: BTreeMap<u64, i64> = hitters.answer().into_iter().map(|heavy| (heavy.id, heavy.count)).collect();
    for (id, n) in exact.iter().filter(|(_, n)| **n * 50 >= total) {
        let estimate = heavy.get(id).unwrap_or_else(|| panic!("id {id} has {n} of {total} and is missing"));
        assert!((0..total / 100).contains(&(estimate - n)), "id {id} has {n}, estimated {estimate}");
    }
    assert!(heavy.keys().all(|id| exact.contains_key(id)), "ids that never were: {heavy:?}");

    let quantiles = linear(&kept, &taken_back, Quantiles::of);
    let mut sorted = kept.clone();
    sorted.sort();
    for percent in 0..=100 {
        let exact = sorted[((kept.len() * percent).div_ceil(100)).max(1) - 1] as f64;
        let estimate = quantiles.quantile(percent as f64 / 100.0).unwrap() as f64;
        assert!((estimate - exact).abs() <= exact / 128.0, "{percent} %: {exact}, estimated {estimate}");
    }
    assert!(linear(&[], &taken_back, HeavyHitters::of).times(3).answer().is_empty());
}

/// What claims to be a monoid, with the laws that its functions happen to keep.
macro_rules! claimed {
    ($name:ident($inner:ty), zero($z:pat): $zero:expr, plus($a:ident, $b:ident): $plus:expr, times($c:ident, $n:pat): $times:expr) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
        struct $name($inner);
        impl IsZero for $name {
            fn is_zero(&self) -> bool {
                let $z = &self.0;
                $zero
            }
        }
        impl Semigroup for $name {
            fn plus_equals(&mut self, other: &Self) {
                let ($a, $b) = (&self.0, &other.0);
                self.0 = $plus;
            }
        }
        impl Monoid for $name {
            type Answer = $inner;
            fn answer(&self) -> $inner {
                self.0.clone()
            }
        }
        impl Abelian for $name {
            fn times(&self, n: isize) -> Self {
                let ($c, $n) = (&self.0, n as i64);
                Self($times)
            }
        }
    };
}

claimed!(Whole(i64), zero(a): *a == 0, plus(a, b): a + b, times(a, n): a * n);
claimed!(First(i64), zero(a): *a == 0, plus(a, b): if *a == 0 { *b } else { *a }, times(a, n): a * n);
claimed!(Midpoint(i64), zero(a): *a == 0, plus(a, b): if *a == 0 || *b == 0 { a + b } else { (a + b) / 2 }, times(a, n): a * n);
claimed!(Product(i64), zero(a): *a == 0, plus(a, b): a * b, times(a, n): a.pow(n.unsigned_abs() as u32));
claimed!(Greatest(i64), zero(a): *a == 0, plus(a, b): *a.max(b), times(a, _): *a);
claimed!(NeverZero(i64), zero(_): false, plus(a, b): a + b, times(a, n): a * n);
claimed!(EvenIsZero(i64), zero(a): a % 2 == 0, plus(a, b): a + b, times(a, n): a * n);
claimed!(Padded(Vec<i64>), zero(a): a.iter().all(|n| *n == 0), plus(a, b): {
    (0..a.len().max(b.len())).map(|i| a.get(i).unwrap_or(&0) + b.get(i).unwrap_or(&0)).collect()
}, times(a, n): a.iter().map(|i| i * n).collect());
claimed!(Forgetful(i64), zero(a): *a == 0, plus(a, b): a + b, times(a, n): if n < 0 { -a } else { a * n });
claimed!(Magnitude(i64), zero(a): *a == 0, plus(a, b): a + b, times(a, n): a * n.abs());

/// A value whose columns keep only its lowest byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Clipped(u64);
impl Columnar for Clipped {
    type Container = Vec<u8>;
    fn into_owned(other: &u8) -> Self {
        Self(u64::from(*other))
    }
}
impl columnar::Push<&Clipped> for Vec<u8> {
    fn push(&mut self, value: &Clipped) {
        self.push(value.0 as u8);
    }
}
impl IsZero for Clipped {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}
impl Semigroup for Clipped {
    fn plus_equals(&mut self, other: &Self) {
        self.0 += other.0;
    }
}
impl Monoid for Clipped {
    type Answer = u64;
    fn answer(&self) -> u64 {
        self.0
    }
}

/// The message with which a check fails.
fn complaint(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(check).expect_err("a broken monoid passes");
    panic.downcast_ref::<String>().expect("a message with values").clone()
}

#[test]
fn what_is_no_monoid_is_noticed_with_the_values_that_show_it() {
    let cases: [(String, &str); 10] = [
        (complaint(|| check_monoid(&[First(1), First(2)])), "First(1) + First(2) depends on the order"),
        (complaint(|| check_monoid(&[Midpoint(8), Midpoint(4)])), "(Midpoint(8) + Midpoint(8)) + Midpoint(4) depends on the grouping"),
        (complaint(|| check_monoid(&[Product(3)])), "adding Product(0) on the right changes Product(3)"),
        (complaint(|| check_monoid(&[Greatest(-3)])), "adding Greatest(0) on the right changes Greatest(-3)"),
        (complaint(|| check_monoid(&[NeverZero(1)])), "the default NeverZero(0) is not zero"),
        (complaint(|| check_monoid(&[EvenIsZero(1)])), "EvenIsZero(1) + EvenIsZero(1) = EvenIsZero(2) says it is zero"),
        (complaint(|| check_abelian(&[Padded(vec![1])])), "leave a zero that is not the default"),
        (complaint(|| check_abelian(&[Forgetful(2)])), "-2 times Forgetful(2) does not take back 2"),
        (complaint(|| check_abelian(&[Magnitude(2)])), "Magnitude(2) and its opposite Magnitude(2) leave Magnitude(4)"),
        (complaint(|| check_monoid(&[Clipped(1), Clipped(256)])), "Clipped(256) came back from columns as Clipped(0)"),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "it says `{said}`, not `{expected}`");
    }
    check_abelian(&[Whole(1), Whole(-4)]);
}
