#!/usr/bin/env bash
# Lets libFuzzer look for bytes that a target of tests/fuzz/targets.rs does not stand. Needs a C++ compiler; stable Rust will do.
#
#   scripts/fuzz.sh segments                     for ten minutes
#   scripts/fuzz.sh documents -max_total_time=60  libFuzzer's options, for a minute
#
# Starts from tests/fuzz/corpus/TARGET. New inputs go to a directory of CARGO_TARGET_DIR; one that fails is named at the end, and
# belongs into the corpus once the bug is fixed. Exit code: libFuzzer's, 0 if nothing was found.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $# -lt 1 || ! -d tests/fuzz/corpus/$1 ]]; then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
target=$1
shift
build="${CARGO_TARGET_DIR:-target}/fuzz"
mkdir -p "$build/found/$target"
# What `cargo fuzz -s none` asks the compiler for: counters on each edge, and what is compared with what.
llvm() { printf ' -Cllvm-args=-sanitizer-coverage-%s' "$@"; }
export RUSTFLAGS="-Cpasses=sancov-module -Ccodegen-units=1$(llvm level=4 inline-8bit-counters pc-table trace-compares)"
# With a target named, build scripts and macros are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --manifest-path fuzz/Cargo.toml --target-dir "$build" --target "$host" --locked
LAMBDAFLOW_FUZZ_TARGET=$target exec "$build/$host/debug/lambdaflow-fuzz" -max_total_time=600 -max_len=4096 -rss_limit_mb=1024 \
    -artifact_prefix="$build/found/$target-" "$@" "$build/found/$target" "tests/fuzz/corpus/$target"
