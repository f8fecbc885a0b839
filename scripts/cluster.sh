#!/usr/bin/env bash
# A cluster on several machines: one process for each line of a hostfile, started through ssh.
#
#   scripts/cluster.sh HOSTFILE COMMAND [ARGUMENT...]
#
#   export LAMBDAFLOW_CLUSTER_TOKEN=$(openssl rand -hex 16)
#   scripts/cluster.sh hosts run web_analytics --log /shared/web -w 4 --listen 0.0.0.0:7070 --insecure
#   scripts/cluster.sh hosts audit web_analytics --log /shared/web -w 4
#
# HOSTFILE has host:port on each line: where each process meets the others, on a private network. Every host needs the same
# program, and the same --log directory on a file system whose locks (flock) hold for the whole cluster: docs/clusters.md names
# some. Each process gets -n, -p and -h from here. What process 0 prints to stdout goes to stdout, all else to stderr, each line
# under the number of its process. Ctrl-C stops all of them, and so does the end of this script or of its connections. Exit code:
# that of the process that failed first, as far as can be told; 0 if none did. Nothing is started again: that is for a service
# manager (scripts/systemd).
#
#   LAMBDAFLOW_CLUSTER_TOKEN  the same for all, sent to them by stdin; made up if there is none
#   LAMBDAFLOW_BIN            the program on each host; default lambdaflow
#   LAMBDAFLOW_SSH            what runs a command on a host; default ssh. Called with a host and a line for its shell
set -euo pipefail

usage() {
    sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}
case ${1:-} in
    '' | -*) usage ;;
esac
[ $# -ge 2 ] || usage
hostfile=$1 command=$2
shift 2
[ -r "$hostfile" ] || { echo "error: hostfile $hostfile cannot be read" >&2; exit 2; }

# As the program reads it: neither empty lines nor those that begin with # count.
mapfile -t hosts < <(sed 's/^[[:space:]]*//; s/[[:space:]]*$//' "$hostfile" | grep -v -e '^#' -e '^$')
n=${#hosts[@]}
[ "$n" -ge 1 ] || { echo "error: hostfile $hostfile names nobody" >&2; exit 2; }
token=${LAMBDAFLOW_CLUSTER_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
read -ra ssh <<< "${LAMBDAFLOW_SSH:-ssh}"

# What runs on a host: reads the token and the hosts, starts the program, and stops it when stdin ends: the connection is gone, or
# somebody here wants it to be. If it does not stop then, it is killed. `$1` is how many hosts there are, then come the program, its command and its arguments.
# shellcheck disable=SC2016 # The other shell expands it.
remote='
set -u
IFS= read -r LAMBDAFLOW_CLUSTER_TOKEN
export LAMBDAFLOW_CLUSTER_TOKEN
hosts=$(mktemp) || exit 5
left=$1 program=$2 command=$3 process=$4
shift 4
while [ "$left" -gt 0 ] && IFS= read -r host; do
    echo "$host"
    left=$((left - 1))
done > "$hosts"
exec 3<&0
"$program" "$command" -n "$(grep -c . "$hosts")" -p "$process" -h "$hosts" "$@" < /dev/null 3<&- &
child=$!
{
    while IFS= read -r _ <&3; do :; done
    kill -TERM "$child"
    sleep 10
    kill -KILL "$child"
} > /dev/null 2>&1 &
watcher=$!
wait "$child"
code=$?
kill "$watcher" 2> /dev/null
rm -f "$hosts"
exit "$code"
'

# A word that any POSIX shell reads as it is.
quote() {
    printf "'%s' " "${1//\'/\'\\\'\'}"
}

# The stdin of a process: what must not be seen on a command line, and then nothing, for as long as the process is to run.
feed() {
    printf '%s\n' "$token" "${hosts[@]}"
    # The pipe must end with this, and this must end with the script.
    while kill -0 $$ 2> /dev/null; do
        sleep 1 > /dev/null
    done
}

prefixed() {
    local line
    while IFS= read -r line || [ -n "$line" ]; do
        printf '[p%d] %s\n' "$1" "$line"
    done >&2
}

start() {
    local process=$1 host line
    shift
    host=${hosts[process]%:*}
    host=${host#[}
    host=${host%]}
    line="sh -c $(quote "$remote")sh $n $(quote "${LAMBDAFLOW_BIN:-lambdaflow}")$(quote "$command")$process $(for word in "$@"; do quote "$word"; done)"
    set +e
    if [ "$process" = 0 ]; then
        "${ssh[@]}" "$host" "$line" 2>&1 >&4 4>&- | prefixed "$process"
    else
        "${ssh[@]}" "$host" "$line" 2>&1 4>&- | prefixed "$process"
    fi
    exit "${PIPESTATUS[0]}"
}

feeders=() running=() interrupted=
# shellcheck disable=SC2317 # Traps call it.
stop() {
    interrupted=yes
    [ ${#feeders[@]} = 0 ] || kill "${feeders[@]}" 2> /dev/null || true
}
trap stop INT TERM
trap stop EXIT

# What is told to stop starts nothing more.
for ((process = 0; process < n; process++)); do
    [ -z "$interrupted" ] || break
    # A pipe that is there before both its ends are used: whoever is killed leaves nobody waiting.
    exec {stdin}< <(feed)
    feeders+=($!)
    start "$process" "$@" 4>&1 <&"$stdin"- &
    running+=($!)
    exec {stdin}<&-
done
# It may have been told before the last one was noted.
[ -z "$interrupted" ] || stop

# What failed because it lost another process (4) is not what began it.
first=0
for process in "${!running[@]}"; do
    while :; do
        interrupted=
        code=0
        wait "${running[process]}" || code=$?
        # A signal interrupts it, too.
        [ -n "$interrupted" ] || break
    done
    [ "$code" = 0 ] || echo "process $process ended with exit code $code" >&2
    case $first in
        0) first=$code ;;
        4) [ "$code" = 0 ] || first=$code ;;
    esac
done
exit "$first"
