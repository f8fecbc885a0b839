#!/usr/bin/env bash
# Do the operator tests notice when an operator forgets its part of the layer law?
#
# Each mutant is one small change to src/operators: a look-up into the base left out, a subtraction forgotten, keys not
# exchanged. For each, a copy of HEAD (a git worktree in a temporary directory, removed at the end) is changed, and
# `cargo test --test operators` must fail on it. A mutant that passes shows a gap in the tests.
#
#   CARGO_TARGET_DIR=/path/to/target scripts/mutants.sh           all mutants, half a minute to a minute each
#   CARGO_TARGET_DIR=/path/to/target scripts/mutants.sh reduce    those whose name contains `reduce`
#
# CARGO_TARGET_DIR must be given, so that dependencies are not compiled again. LAMBDAFLOW_SEED chooses the random logs (1
# if it is not set). The table is on stdout. Exit code: 0 all mutants were caught, 1 one survived, 2 the run says nothing:
# wrong usage, a mutant that no longer applies or compiles, or tests that fail without any mutant.
set -euo pipefail

# A mutant that makes the dataflow hang counts as caught. The tests themselves give up on a graph after 120 seconds.
readonly TEST_SECONDS_MAX=300

if [[ $# -gt 1 || -z ${CARGO_TARGET_DIR:-} ]]; then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
readonly only=${1:-}
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
scratch=$(mktemp -d)
readonly repository scratch copy=$scratch/copy
trap 'git -C "$repository" worktree remove --force "$copy" 2>/dev/null || true; rm -rf "$scratch"' EXIT
git -C "$repository" worktree add --quiet --detach "$copy" HEAD
cd "$copy"
export LAMBDAFLOW_SEED=${LAMBDAFLOW_SEED:-1} RUST_BACKTRACE=0 CARGO_PROFILE_DEV_DEBUG=none

survivors=0
broken=0

# Prints how the tests end: `passed`, `failed N: first test`, `hung`, or `broken: why`.
run_tests() {
    local status=0
    if ! cargo test --quiet --test operators --no-run >"$scratch/build" 2>&1; then
        echo "broken: does not compile: $(grep -m1 '^error' "$scratch/build")"
        return
    fi
    timeout "$TEST_SECONDS_MAX" cargo test --quiet --test operators >"$scratch/tests" 2>&1 || status=$?
    case $status in
    0) echo passed ;;
    124) echo hung ;;
    *) awk '/^    [a-z_]+::/ && !seen[$1]++ { count++; if (count == 1) first = $1 }
            END { if (count) print "failed " count ": " first; else print "broken: no test result" }' "$scratch/tests" ;;
    esac
}

row() {
    printf '%-52s %-9s %s\n' "$1" "$2" "$3"
}

# mutant NAME FILE FROM TO: FROM, which must occur once in the file, becomes TO.
mutant() {
    local name=$1 file=src/operators/$2 from=$3 to=$4 source rest outcome
    [[ $name == *"$only"* ]] || return 0
    source=$(<"$file")
    rest=${source#*"$from"}
    if [[ $rest == "$source" || $rest == *"$from"* ]]; then
        row "$name" BROKEN "its text does not occur once in $file"
        broken=$((broken + 1))
        return
    fi
    printf '%s\n' "${source%%"$from"*}$to$rest" >"$file"
    outcome=$(run_tests)
    git checkout --quiet -- "$file"
    case $outcome in
    passed)
        row "$name" SURVIVED "no test fails"
        survivors=$((survivors + 1))
        ;;
    broken*)
        row "$name" BROKEN "${outcome#broken: }"
        broken=$((broken + 1))
        ;;
    *) row "$name" caught "$outcome" ;;
    esac
}

row MUTANT RESULT "TESTS"
if [[ -z $only ]]; then
    outcome=$(run_tests)
    row none "$outcome" ""
    [[ $outcome == passed ]] || exit 2
fi

mutant 'place: keys are not exchanged' flow.rs \
    'if stream.scope().peers() == 1 {' \
    'if true {'

mutant 'look-up: multiplicity of the change ignored' look_up.rs \
    'time, diff * n)' \
    'time, diff.signum() * n)'
mutant 'look-up: multiplicity in the base ignored' look_up.rs \
    'time, diff * n)' \
    'time, diff * n.signum())'

mutant 'reduce: no look-up into the base' reduce.rs \
    'let rows = base.rows(&key).to_vec();' \
    'let rows = base.rows(&key)[..0].to_vec();'
mutant 'reduce: the results of the base are not subtracted' reduce.rs \
    'Group { rows, results });' \
    'Group { rows, results: results.into_iter().take(0).collect() });'
mutant 'reduce: frozen without subtracting base rows' reduce.rs \
    'val.clone(), -n)' \
    'val.clone(), 0 * n)'
mutant 'reduce: touched keys without rows forgotten when freezing' reduce.rs \
    'for (key, group) in std::mem::take(&mut *frozen.borrow_mut()) {' \
    'for (key, group) in std::mem::take(&mut *frozen.borrow_mut()).into_iter().filter(|(_, group)| !group.rows.is_empty()) {'
mutant 'reduce: a few changes to many rows are lost' reduce.rs \
    'Err(at) => rows.insert(at, (val, n)),' \
    'Err(_) => {}'

mutant 'join: changes on the left miss the base of the right' join.rs \
    'changes.concat(new_left).concat(new_right)' \
    'changes.concat(new_right.concat(new_left.filter(|_| false)))'
mutant 'join: changes on the right miss the base of the left' join.rs \
    'changes.concat(new_left).concat(new_right)' \
    'changes.concat(new_left.concat(new_right.filter(|_| false)))'
mutant 'join: the left side is not frozen' join.rs \
    'Run::from_rows(left_kept.rows())' \
    'Run::from_rows(left_kept.rows().into_iter().take(0))'

mutant 'running: the base is not brought in' running.rs \
    'let base = base.rows(&key).first().map(|((), sum)| sum.clone());' \
    'let base = base.rows(&key).first().map(|((), sum)| sum.clone()).filter(|_| false);'
mutant 'running: the base is frozen again' running.rs \
    'Some((key, (), sums.changes?))' \
    'Some((key, (), sums.total()?))'
mutant 'in order: ticks are not waited for' in_order.rs \
    '.filter(|first| !frontier.less_equal(first.key()))' \
    '.filter(|_| frontier.len() < 9)'
mutant 'running: distinct takes missing rows for present' running.rs \
    'Diff::from(n > 0)' \
    'Diff::from(n != 0)'

mutant 'opaque: the base of the input is not brought in' opaque.rs \
    'self.changes.concat(base_rows(scope, &layer, &input_slot.base));' \
    'self.changes.concat(base_rows(scope, &layer, &input_slot.base).filter(|_| false));'
mutant 'opaque: the base of the output is not subtracted' opaque.rs \
    '.concat(base_rows(scope, &layer, &output_slot.base).negate())' \
    '.concat(base_rows(scope, &layer, &output_slot.base).filter(|_| false))'

mutant 'aggregate: multiplicities of rows ignored' aggregate.rs \
    'logic(&row).times(diff)' \
    'logic(&row).times(diff.signum())'
mutant 'aggregate: only the first of a group counts' aggregate.rs \
    'sum.1.plus_equals(&value);' \
    ''

mutant 'top-k: missing rows take a place' top_k.rs \
    '.filter(|(_, n)| *n > 0)' \
    ''
mutant 'top-k: each row counts once' top_k.rs \
    'let taken = left.min(*n);' \
    'let taken = left.min(1);'
mutant 'top-k: one row too many' top_k.rs \
    'let mut left = k as Diff;' \
    'let mut left = k as Diff + 1;'
mutant 'top-k: the least rows in place of the greatest' top_k.rs \
    'rows.iter().rev()' \
    'rows.iter()'

mutant 'outer joins: matched rows stay as unmatched, too' relational.rs \
    '.concat(present.map(|key| (key, None)).negate())' \
    '.concat(present.map(|key| (key, None)).filter(|_| false))'
mutant 'as of: a version holds when the next one does' relational.rs \
    '|next| next - 1' \
    '|next| next'
mutant 'as of: facts with a version stay without one, too' relational.rs \
    'spans.extend(next.map(|first| ((first, u64::MAX, None), -1)));' \
    ''
mutant 'set operators: both sides are one' relational.rs \
    '(0 as Diff, 1 as Diff)' \
    '(1 as Diff, 0 as Diff)'

mutant 'cells: cells of zero are kept' cells.rs \
    'if *sums == [0; WIDTH] {' \
    'if false {'
mutant 'cells: merged cells of zero are kept' cells.rs \
    'if counters != [0; WIDTH] {' \
    'if true {'
mutant 'variance: the remainder is not corrected' moments.rs \
    '(exact - rest * rest)' \
    '(exact - rest * 0)'
mutant 'quantiles: one value too high' distributions.rs \
    'left <= 0' \
    'left < 0'
mutant 'heavy hitters: bits of others count' frequencies.rs \
    'counters[1 + bit] > counters[0] - counters[1 + bit]' \
    'counters[1 + bit] > 0'
mutant 'extremes: a set forgets that there were more' extremes.rs \
    'other.more || ' \
    ''

mutant 'sliding: rows of the stretch before are missing' windows.rs \
    'own.checked_add(1).map(' \
    'own.checked_add(1).filter(|_| false).map('
mutant 'sliding: the window is one too wide' windows.rs \
    'rows[first].0.0 >= width' \
    'rows[first].0.0 > width'
mutant 'sessions: a gap is one too short' windows.rs \
    '<= gap)' \
    '< gap)'

mutant 'upsert: deletions are forgotten' changes.rs \
    'self.0.add(key, Max::of((order, None)));' \
    ''
mutant 'deduplicate: missing rows count' changes.rs \
    'rows.iter().find(|(_, n)| *n > 0)' \
    'rows.first()'

mutant 'views: a view is not frozen' views.rs \
    'Run::from_rows(kept.rows())' \
    'Run::from_rows(kept.rows().into_iter().take(0))'

echo
echo "$survivors survived, $broken broken; LAMBDAFLOW_SEED=$LAMBDAFLOW_SEED"
((broken == 0)) || exit 2
((survivors == 0))
