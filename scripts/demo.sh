#!/usr/bin/env bash
# The main job, end to end: an access log in, exact merged answers out.
#
#   scripts/demo.sh [--stay] [FILE]
#
# FILE is a web server access log in the combined format; without one, 200,000 requests are generated. Half of the lines
# are loaded before the server starts, so that the batch layer computes them; the other half is appended to the running
# server, so that the speed layer does. With --stay, or on a terminal, the server then goes on until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

stay=
[ -t 1 ] && stay=yes
[ "${1:-}" = --stay ] && { stay=yes; shift; }
input=${1:-}

# Without the benchmarks Nexmark and TPC-H, which this does not need and which take long to compile.
cargo build --release --quiet --package lambdaflow-dataflows --no-default-features --features jemalloc
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
lambdaflow="$target/release/lambdaflow"

work=$(mktemp -d)
server=
cleanup() {
    [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

if [ -z "$input" ]; then
    input="$work/access.log"
    "$lambdaflow" generate web_analytics --events 200000 > "$input"
fi
lines=$(wc -l < "$input")
head -n $((lines / 2)) "$input" > "$work/first"
tail -n +$((lines / 2 + 1)) "$input" > "$work/second"

echo "== first half, offline"
"$lambdaflow" ingest web_analytics --log "$work/log" --on-error skip "$work/first"

"$lambdaflow" run web_analytics --log "$work/log" -w 2 --listen 127.0.0.1:0 --batch-interval 5s 2> "$work/server.err" &
server=$!
until grep -q '^serving on ' "$work/server.err"; do
    kill -0 "$server" 2>/dev/null || { cat "$work/server.err" >&2; exit 1; }
    sleep 0.05
done
url=$(sed -n 's/^serving on //p' "$work/server.err")
export LAMBDAFLOW_TO="$url"

echo "== second half, into the running server"
"$lambdaflow" ingest web_analytics --to "$url" --on-error skip --format json "$work/second" | tee "$work/ingested"
token=$(sed 's/.*"last_tick":\([0-9]*\).*/\1/' "$work/ingested")

echo "== top paths: batch and speed layer merged, with everything that was just appended"
"$lambdaflow" query top_paths --at-least "$token"
echo "== busiest hours of a path"
"$lambdaflow" query hits --top 5
echo "== bounce rate by day"
"$lambdaflow" query bounce_rate
echo "== both layers recompute everything and compare"
"$lambdaflow" audit

cat <<END
== look around
  $url                    in a browser
  curl '$url/v1/views/hits/top?n=3'
  curl '$url/v1/views/visitors/scan?limit=5'
  curl '$url/v1/status'
END
if [ -n "$stay" ]; then
    echo "Ctrl-C ends the server."
    wait "$server"
fi
