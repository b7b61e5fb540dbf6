# Shared by scripts/bench and scripts/bench-before: servers that are started and stopped, and the numbers in their output.
# To be sourced with the working directory at the project's root and `set -eu` in force. Leaves nothing behind: a temporary
# directory in $work and the processes in $running go when the shell ends.
# shellcheck shell=sh disable=SC2034  # variables for the scripts that source this

requests=${REQUESTS:-20000}
clients=16
many_idle=10000
binary=target/release/iotcpd
echo_worker=$PWD/target/release/examples/echo-worker
load=target/release/examples/load
bare_spawn=target/release/examples/bare-spawn
bare_exec=target/release/examples/bare-exec
exec_load=target/release/examples/exec-load
session_load=target/release/examples/session-load
work=$(mktemp -d)
running=
listens=

die() {
    echo "bench: $*" >&2
    exit 1
}

finish() {
    for process in $running; do
        kill "$process" 2>/dev/null || :
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# build EXAMPLES...: the program as it is installed, and programs that try it, as arguments of cargo. One call of cargo for
# both would build the program with what the tests ask of the libraries that it shares with them: half a megabyte of Unicode
# tables for regex-syntax.
build() {
    cargo build --release --bins
    cargo build --release "$@"
}

# until_line NAME PATTERN: the rest of NAME's output goes to its log; returns when a line matches, and leaves it in $line.
until_line() {
    mkfifo "$work/$1.event"
    exec 4<>"$work/$1.event"
    (
        exec <"$work/$1.says" >/dev/null
        told=
        while IFS= read -r said; do
            printf '%s\n' "$said" >>"$work/$1.log"
            # shellcheck disable=SC2254  # a pattern, on purpose
            case $said in
                $2)
                    [ -n "$told" ] || printf '%s\n' "$said" >&4
                    told=yes
                    ;;
            esac
        done
        [ -n "$told" ] || echo ended >&4
    ) &
    read -r line <&4
    exec 4>&-
    [ "$line" != ended ] || die "$1 ended: $(cat "$work/$1.log")"
}

# start NAME COMMAND...: starts a server; leaves its process in $process and its address in $address.
start() {
    name=$1
    shift
    rm -f "$work/$name".*
    mkfifo "$work/$name.says"
    "$@" >"$work/$name.says" 2>&1 &
    process=$!
    running="$running $process"
    until_line "$name" '*listening on *'
    address=${line##*listening on }
    address=${address%% *}
}

# stop PROCESS: ends it, and forgets its number before another process gets it.
stop() {
    kill "$1"
    wait "$1" 2>/dev/null || :
    others=
    for other in $running; do
        [ "$other" = "$1" ] || others="$others $other"
    done
    running=$others
}

# start_pool NAME WORKER [FLAGS]: four workers and limits that no measurement here comes near; on the listeners of $listens, if that
# is set.
start_pool() {
    name=$1 worker=$2
    shift 2
    # shellcheck disable=SC2086  # a list of flags
    start "$name" "$binary" -d "$worker" ${listens:--p 0} --queue-timeout 30s --read-timeout 10m --queue-size 100000 \
        --max-connections $((many_idle + 500)) --max-connections-per-ip $((many_idle + 500)) "${@:--n4}"
}

# draw_port: a port on which nothing listens, below those that the kernel gives away by itself.
draw_port() {
    while :; do
        drawn=$(shuf -i 20000-32000 -n 1)
        [ -n "$(ss -H -t -l -n "sport = :$drawn")" ] || break
    done
    echo "$drawn"
}

# processor_time PROCESS...: of all threads, in nanoseconds.
processor_time() {
    for counted_process in "$@"; do
        cat "/proc/$counted_process"/task/*/schedstat
    done | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

# at PLACE COMMAND...: runs it with the place in the place of its word @.
at() {
    place=$1
    shift
    for word in "$@"; do
        [ "$word" != @ ] || word=$place
        set -- "$@" "$word"
        shift
    done
    "$@"
}

# field NAME: that value of a line of name=value pairs.
field() {
    tr ' ' '\n' | sed -n "s/^$1=//p"
}

ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'
}

median() {
    sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}

# verdict MEASURED COMPARISON TARGET: ok or missed.
verdict() {
    awk -v a="$1" -v b="$3" -v at_least="$2" 'BEGIN { print ((at_least == ">=" ? a >= b : a <= b) ? "ok" : "missed") }'
}

# row WHAT MEASURED COMPARISON TARGET: one line of the table, with its verdict and its share of the target; without a target for
# information.
row() {
    if [ $# -eq 2 ]; then
        printf '%-62s %10s\n' "$1" "$2"
        return
    fi
    printf '%-62s %10s  %s %-6s %-6s %s\n' "$1" "$2" "$3" "$4" "$(verdict "$2" "$3" "$4")" "$(ratio "$2" "$4")"
}

resident_bytes() {
    awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$1/status"
}

# start_door NAME: an exec door on $work/NAME. Its log, a line for each run, goes to a file: until_line is too slow a reader.
start_door() {
    rm -f "$work/$1"
    "$binary" exec "$work/$1" 2>"$work/$1.log" &
    process=$!
    running="$running $process"
    until "$exec_load" runs "$work/$1" 1 1 true >/dev/null 2>&1; do
        kill -0 "$process" 2>/dev/null || die "the exec door ended: $(cat "$work/$1.log")"
        sleep 0.1
    done
}

# prepare_squidguard: a configuration in $work/squidGuard.conf, and a $request that it gives $answer to.
prepare_squidguard() {
    mkdir -p "$work/db/blocked" "$work/log"
    echo ads.example >"$work/db/blocked/domains"
    cat >"$work/squidGuard.conf" <<CONF
dbhome $work/db
logdir $work/log
dest blocked {
    domainlist blocked/domains
}
acl {
    default {
        pass !blocked all
        redirect 302:http://127.0.0.1/blocked?u=%u
    }
}
CONF
    squidGuard -c "$work/squidGuard.conf" -C all
    request='http://ads.example/x 10.0.0.1/- - GET'
    answer='OK status=302 url="http://127.0.0.1/blocked?u=http://ads.example/x"'
}
