#!/usr/bin/env bash
# Do the tests notice when an operator forgets its part of the layer law, or a file of runs a check or a sync?
#
# Each mutant is one small change: a look-up into the base left out, a subtraction forgotten, keys not exchanged, a sync left
# out. For each, a copy of HEAD (a git worktree in a temporary directory, removed at the end) is changed, and `cargo test --test
# operators` (or `generations`) must fail on it. A mutant that passes shows a gap in the tests.
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
suite=operators

# Prints how the tests end: `passed`, `failed N: first test`, `hung`, or `broken: why`.
run_tests() {
    local status=0
    if ! cargo test --quiet --test "$suite" --no-run >"$scratch/build" 2>&1; then
        echo "broken: does not compile: $(grep -m1 '^error' "$scratch/build")"
        return
    fi
    timeout "$TEST_SECONDS_MAX" cargo test --quiet --test "$suite" >"$scratch/tests" 2>&1 || status=$?
    case $status in
    0) echo passed ;;
    124) echo hung ;;
    *) awk '/^    [a-z_]+::/ && !seen[$1]++ { count++; if (count == 1) first = $1 }
            END { if (count) print "failed " count ": " first; else print "broken: no test result" }' "$scratch/tests" ;;
    esac
}

row() {
    printf '%-62s %-9s %s\n' "$1" "$2" "$3"
}

# mutant NAME FILE FROM TO: FROM, which must occur once in the file (relative to src/operators), becomes TO.
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
    for suite in generations operators; do
        outcome=$(run_tests)
        row "none, tests of $suite" "$outcome" ""
        [[ $outcome == passed ]] || exit 2
    done
fi

mutant 'place: keys are not exchanged' flow.rs \
    'if stream.scope().peers() == 1 {' \
    'if true {'

mutant 'join: multiplicity of the change ignored' join.rs \
    'base.iter().for_each(|(right, m)| join(left, right, n * m))' \
    'base.iter().for_each(|(right, m)| join(left, right, n.signum() * m))'
mutant 'join: multiplicity in the base ignored' join.rs \
    'base.iter().for_each(|(left, n)| join(left, right, n * m))' \
    'base.iter().for_each(|(left, n)| join(left, right, n.signum() * m))'

mutant 'look-up: what several runs say is not added up' ../runs/levels.rs \
    'if self.runs.len() > 1 {' \
    'if false {'
mutant 'ends: of several runs the wrong row is taken first' ../runs/levels.rs \
    'if rows.end == End::Least { order.is_lt() } else { order.is_gt() }' \
    'if rows.end == End::Least { order.is_gt() } else { order.is_lt() }'
mutant 'ends: what several runs say is not added up' ../runs/levels.rs \
    'Some(sum) => sum.plus_equals(&reader.change(row)),' \
    'Some(_) => {}'

mutant 'reduce: no look-up into the base' reduce.rs \
    'let rows = base.rows(&key).to_vec();' \
    'let rows = base.rows(&key)[..0].to_vec();'
mutant 'reduce: the results of the base are not subtracted' reduce.rs \
    'Group { rows, results });' \
    'Group { rows, results: Ok(Vec::new()) });'
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
    'let base = right_base.rows(&key);' \
    'let base = &right_base.rows(&key)[..0];'
mutant 'join: changes on the right miss the base of the left' join.rs \
    'let base = left_base.rows(&key);' \
    'let base = &left_base.rows(&key)[..0];'
mutant 'join: the left side is not frozen' join.rs \
    'sides.left.take(key)' \
    'sides.left.take(key).take(0)'
mutant 'join: the right side is not frozen' join.rs \
    'sides.right.take(key)' \
    'sides.right.take(key).take(0)'
mutant 'join: a key with changes on one side is forgotten' join.rs \
    'known.left.rows.is_empty() && known.right.rows.is_empty()' \
    'known.left.rows.is_empty() || known.right.rows.is_empty()'
mutant 'join: changes of one tick do not meet' join.rs \
    'known.left.add(lefts);
                    for (right, m) in &rights {
                        known.left.rows.iter().for_each(|(left, n)| join(left, right, n * m));
                    }' \
    'for (right, m) in &rights {
                            known.left.rows.iter().for_each(|(left, n)| join(left, right, n * m));
                        }
                        known.left.add(lefts);'

mutant 'running: the base is not brought in' running.rs \
    'let base = base.rows(&key).first().map(|((), sum)| sum.clone());' \
    'let base = base.rows(&key).first().map(|((), sum)| sum.clone()).filter(|_| false);'
mutant 'running: the rows of the base are not subtracted' running.rs \
    'let before = known.total();' \
    'let before = known.changes.clone();'
mutant 'running: the base is frozen again' running.rs \
    'Some((key, (), sums.changes?))' \
    'Some((key, (), sums.total()?))'
mutant 'in order: ticks are not waited for' in_order.rs \
    '.filter(|first| complete(first.key()))' \
    '.filter(|_| frontiers.len() < 9)'
mutant 'in order: changes of a tick are not added up' in_order.rs \
    '                consolidate(&mut changes);
' \
    ''
mutant 'running: distinct takes missing rows for present' running.rs \
    'n.is_some_and(|n| *n > 0)' \
    'n.is_some_and(|n| *n != 0)'

mutant 'opaque: the base of the input is not brought in' opaque.rs \
    'base_rows(self.changes.inner.scope(), &graph, &slot.base)' \
    'base_rows(self.changes.inner.scope(), &graph, &slot.base).filter(|_| false)'
mutant 'opaque: the base of the first of two is not brought in' opaque.rs \
    'let ((_, a), (graph, b)) = (self.0.whole(name), self.1.whole(name));' \
    'let (a, (graph, b)) = (self.0.changes, self.1.whole(name));'
mutant 'opaque: the base of the second of three is not brought in' opaque.rs \
    '= (self.0.whole(name), self.1.whole(name), self.2.whole(name));' \
    '= (self.0.whole(name), ((), self.1.changes), self.2.whole(name));'
mutant 'opaque: the base of the output is not subtracted' opaque.rs \
    'base_rows(scope, &graph, &slot.base).negate()' \
    'base_rows(scope, &graph, &slot.base).filter(|_| false)'
mutant 'opaque: changes of the input are not frozen' opaque.rs \
    'freeze_changes(&graph, &slot, &self.changes);' \
    'freeze_changes(&graph, &slot, &self.changes.clone().filter(|_| false));'
mutant 'opaque: changes of the output are not frozen' opaque.rs \
    'freeze_changes(&graph, &slot, &changes);' \
    'freeze_changes(&graph, &slot, &changes.clone().filter(|_| false));'

mutant 'graphs: missing edges count' graphs.rs \
    'Diff::from(*n > 0)' \
    'Diff::from(*n != 0)'
mutant 'graphs: components follow edges one way' graphs.rs \
    'let both = edges.clone().map(|(a, b)| (b, a)).concat(edges);' \
    'let both = edges;'

mutant 'aggregate: multiplicities of rows ignored' aggregate.rs \
    'logic(&row).times(diff)' \
    'logic(&row).times(diff.signum())'
mutant 'aggregate: only the first of a group counts' aggregate.rs \
    'sum.1.plus_equals(&value);' \
    ''

mutant 'top-k: missing rows take a place' top_k.rs \
    'n.clamp(0, missing)' \
    'n.abs().min(missing)'
mutant 'top-k: each row counts once' top_k.rs \
    'n.clamp(0, missing)' \
    'n.clamp(0, missing.min(1))'
mutant 'top-k: one row too many' top_k.rs \
    '(Vec::new(), k as Diff)' \
    '(Vec::new(), k as Diff + 1)'
mutant 'top-k: the least rows in place of the greatest' top_k.rs \
    'rows.iter().rev()' \
    'rows.iter()'
mutant 'top-k: no rows are taken from the base' top_k.rs \
    'Some((row, Some(n))) => self.add_row(row, n),' \
    'Some((_, Some(_))) => {}'
mutant 'top-k: the results of the base are not subtracted' top_k.rs \
    '                group.best = group.outermost(k, end, &base);
' \
    ''
mutant 'top-k: rows further in than was reached are trusted' top_k.rs \
    '.is_some_and(|reached| !further_out(row, reached, end))' \
    '.is_some_and(|_| false)'
mutant 'top-k: the row that was reached is trusted' top_k.rs \
    '.is_some_and(|reached| !further_out(row, reached, end))' \
    '.is_some_and(|reached| further_out(reached, row, end))'
mutant 'top-k: changes beyond the best are forgotten' top_k.rs \
    'group.add(changes);' \
    'if matters {
                group.add(changes);
            }'
mutant 'top-k: too few rows are taken for all there are' top_k.rs \
    'Some((innermost, _)) if full =>' \
    'Some((innermost, _)) if full || k > 0 =>'
mutant 'top-k: an empty group of the base is forgotten' top_k.rs \
    '!self.in_base && self.rows.is_empty()' \
    'self.rows.is_empty()'
mutant 'top-k: changes of a group of the base are not frozen' top_k.rs \
    'log.extend(changes.iter().cloned());' \
    'log.clear();'
mutant 'top-k: rows of the base are frozen again' top_k.rs \
    'let rows = if self.in_base { BTreeMap::new() } else { self.rows };' \
    'let rows = self.rows;'

mutant 'keyed: the state of the base is not brought in' keyed.rs \
    'base.rows(&key).first().map_or_else(' \
    'base.rows(&key)[..0].first().map_or_else('
mutant 'keyed: the results before are not subtracted' keyed.rs \
    '.map(|(outcome, n)| (outcome, -n))' \
    '.map(|(outcome, n)| (outcome, 0 * n))'
mutant 'keyed: frozen without subtracting the state of the base' keyed.rs \
    '(base, -1), (now, 1)' \
    '(base, 0), (now, 1)'
mutant 'keyed: the state is not frozen' keyed.rs \
    '(base, -1), (now, 1)' \
    '(base, -1), (now, 0)'
mutant 'keyed: a key of the base that is gone is forgotten' keyed.rs \
    'states.base == states.now && states.now == O::State::default()' \
    'states.now == O::State::default()'

mutant 'temporal: what the base has due is not carried out' temporal.rs \
    '                reader.collect(*at, into);
' \
    ''
mutant 'temporal: what was carried out is still frozen' temporal.rs \
    '(due, row, -diff)' \
    '(due, row, 0 * diff)'
mutant 'temporal: what a batch has due at its last tick waits' temporal.rs \
    'entry.saturating_add(1)' \
    'entry'
mutant 'temporal: the end is ignored' temporal.rs \
    'if end < u64::MAX {' \
    'if false {'
mutant 'temporal: rows appear after their end' temporal.rs \
    'if start.max(tick) >= end {
                            continue;
                        }' \
    'if start.max(tick) >= end {
                            session.give((row, tick, diff));
                            continue;
                        }'
mutant 'temporal: rows appear before their start' temporal.rs \
    'if start <= tick {' \
    'if true {'
mutant 'temporal: rows with a later start are forgotten' temporal.rs \
    '                            to_come.add(start, row.clone(), diff);
' \
    ''

mutant 'quarantine: half of what an event made stays' events.rs \
    'made.truncate(whole);' \
    'whole = made.len();'
mutant 'quarantine: half of what a row made stays' flow.rs \
    'made.truncate(whole);' \
    'whole = made.len();'
mutant 'quarantine: half of what an event added stays' aggregate.rs \
    'tried.and_then(|()| logic(&columns, row, &mut self.groups))' \
    'attempt(|| logic(&columns, row, &mut self.groups)).and(tried)'
mutant 'quarantine: an epoch that fails is added twice' aggregate.rs \
    '            self.groups.clear();
' \
    ''
mutant 'quarantine: events combined before a failure are lost' aggregate.rs \
    'in self.made_of.drain(..) {' \
    'in self.made_of.drain(..).rev().take(1) {'
mutant 'quarantine: later events of the chunk are lost' events.rs \
    '                            next += 1;' \
    '                            next = rows.end;'
mutant 'quarantine: later rows of the tick are lost' flow.rs \
    'failed.push((guard.consumed(message), time, diff));' \
    'failed.push((guard.consumed(message), time, diff));
                        return;'
mutant 'quarantine: errors of rows are not retracted' flow.rs \
    'failed.push((guard.consumed(message), time, diff));' \
    'failed.push((guard.consumed(message), time, diff.abs()));'
mutant 'quarantine: errors of aggregated rows are not retracted' aggregate.rs \
    'failed.push((guard.row(message, &(key, row)), time, diff))' \
    'failed.push((guard.row(message, &(key, row)), time, diff.abs()))'
mutant 'quarantine: errors of a reduction are not retracted' reduce.rs \
    'made.extend(outcomes(&key, before).map(|(outcome, n)| (outcome, -n)));' \
    'made.extend(outcomes(&key, before).filter(|(outcome, _)| outcome.is_ok()).map(|(outcome, n)| (outcome, -n)));'
mutant 'quarantine: an error of a pair hides the others' quarantine.rs \
    'Err(failure) => failed.push((*failure, time, diff)),' \
    'Err(failure) => {
                    failed.push((*failure, time, diff));
                    return;
                }'

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

suite=generations

mutant 'generations: a file of runs is not synced' ../runs/file.rs \
    'self.file.sync().map_err(|error| LogError::storage("sync", &self.path, error))?;' \
    ''
mutant 'generations: the names of files are not synced before the manifest' ../runs/store.rs \
    'for dir in self.dir.ancestors().take(3) {' \
    'for dir in self.dir.ancestors().take(0) {'
mutant 'generations: chunks are not checked' ../runs/file.rs \
    'if crc != chunk.crc {' \
    'if false {'
mutant 'generations: a file in another place is accepted' ../runs/file.rs \
    'if found != id {' \
    'if false {'
mutant 'generations: a log that lost its end is accepted' ../layers/restore.rs \
    'if shorter || manifest.frontier > self.log.frontier() {' \
    'if false {'
mutant 'generations: another version is gone on with' ../layers/restore.rs \
    'let current = manifest.contents.fingerprint == self.blueprint.fingerprint();' \
    'let current = true;'
mutant 'generations: answers begin before the frontier that was announced' ../layers/node.rs \
    'self.serving.frontier() } else { self.log.frontier() };' \
    'self.serving.frontier() } else { Tick(0) };'
mutant 'generations: each worker takes all keys' ../runs/levels.rs \
    'bucket(&K::into_owned(key)) as usize % workers == worker' \
    'workers > worker'
mutant 'generations: of a merged pair one is kept' ../runs/levels.rs \
    'run.file().is_some_and(|file| pair.contains(&file))' \
    'run.file() == Some(pair[0])'
mutant 'generations: a failed cycle leaves its files' ../runs/store.rs \
    'files.difference(&named)' \
    'named.difference(&named)'
mutant 'generations: files that a manifest names are removed' ../runs/store.rs \
    'self.numbers(RUNS)?.difference(&named)' \
    'self.numbers(RUNS)?.difference(&BTreeSet::new())'

echo
echo "$survivors survived, $broken broken; LAMBDAFLOW_SEED=$LAMBDAFLOW_SEED"
((broken == 0)) || exit 2
((survivors == 0))
