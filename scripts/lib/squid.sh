# The part `squid` of scripts/bench: a real Squid whose URL rewriter is, in turn, four squidGuards of its own, `iotcpd ask` before a
# pool, and a bare helper before a pool. To be sourced after scripts/lib/bench.sh.
# shellcheck shell=sh disable=SC2154  # variables of scripts/bench and scripts/lib/bench.sh

# Each round starts each chain once, measures it and ends it, in a turn that begins with another chain each time, so that where the
# scheduler puts its processes is drawn again. $work/squid/CHAIN.METRIC has a line for each round.

# The web server that is fetched from, and the load: wrk, every URL another one.
prepare_squid() {
    mkdir -p "$work/squid"
    # Squid and its helpers give up root, and have to reach their files here.
    chmod -R a+rwX "$work"
    cp "$binary" "$work/iotcpd"
    cp target/release/examples/bare-helper "$work/bare-helper"
    [ -z "$before" ] || cp "$before" "$work/before"
    echo '127.0.0.1 clean.example ads.example' >"$work/hosts"
    web=$(draw_port)
    cat >"$work/nginx.conf" <<CONF
daemon off;
master_process off;
error_log stderr warn;
pid $work/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path $work/nginx-body;
    proxy_temp_path $work/nginx-proxy;
    fastcgi_temp_path $work/nginx-fastcgi;
    uwsgi_temp_path $work/nginx-uwsgi;
    scgi_temp_path $work/nginx-scgi;
    server {
        listen 127.0.0.1:$web;
        location / { return 200 "a page\n"; }
    }
}
CONF
    nginx -c "$work/nginx.conf" 2>"$work/nginx.log" &
    nginx=$!
    running="$running $nginx"
    wait_served "http://127.0.0.1:$web/" --noproxy '*'
    cat >"$work/load.lua" <<'LUA'
local url, number = nil, 0
function init(arguments)
    url = arguments[1]
    wrk.headers["Host"] = url:match("//([^/]+)")
end
function request()
    number = number + 1
    return wrk.format("GET", url .. number)
end
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("rate=%.0f p50_us=%d p99_us=%d requests=%d errors=%d\n",
        summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99), summary.requests,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
LUA
}

# wait_served URL [CURL_OPTION...]: until a fetch of this URL succeeds.
wait_served() {
    tries=0
    until curl -s -f -o "$work/page" "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || die "no page at $*: $(cat "$work/nginx.log" "$work/squid.log")"
        sleep 0.1
    done
}

# fetch CONNECTIONS SECONDS [UNDER...]: as many fetches at once through the Squid on $proxy, by a load that runs under that
# command; leaves the result in $fetched.
fetch() {
    at_once=$1 for_seconds=$2
    shift 2
    fetched=$("$@" wrk -t 1 -c "$at_once" -d "$for_seconds" --timeout 10s -s "$work/load.lua" "http://127.0.0.1:$proxy" -- \
        "http://clean.example:$web/" | grep ^rate=)
    [ "$(echo "$fetched" | field errors)" = 0 ] || die "$chain: not every fetch went well: $fetched"
    asked=$((asked + $(echo "$fetched" | field requests)))
}

# start_squid PROGRAM CHILDREN: a Squid on the port $proxy with this URL rewriter; leaves its process in $squid.
start_squid() {
    proxy=$(draw_port)
    cat >"$work/squid.conf" <<CONF
http_port 127.0.0.1:$proxy
http_access allow all
visible_hostname squid.example
cache deny all
cache_mem 1 MB
memory_cache_shared off
hosts_file $work/hosts
pid_filename none
access_log none
cache_store_log none
cache_log stdio:/dev/null
pinger_enable off
client_db off
shutdown_lifetime 0 seconds
coredump_dir none
url_rewrite_program $1
url_rewrite_children $2
CONF
    rm -f "$work"/squid.says "$work"/squid.log "$work"/squid.event
    mkfifo "$work/squid.says"
    PATH=$PATH:/usr/sbin squid -N -d 1 -f "$work/squid.conf" >"$work/squid.says" 2>&1 &
    squid=$!
    running="$running $squid"
    until_line squid '*Accepting HTTP Socket connections*'
    # Squid says so just before it calls listen(2).
    wait_served "http://clean.example:$web/" -x "127.0.0.1:$proxy"
    asked=1
}

# check_filter: a URL on the list must be redirected, or what was measured is no filter.
check_filter() {
    status=$(curl -s -o "$work/page" -w '%{http_code}' -x "127.0.0.1:$proxy" "http://ads.example:$web/")
    [ "$status" = 302 ] || die "$chain: the blocked URL was answered by $status: $(cat "$work/squid.log")"
    asked=$((asked + 1))
}

# start_chain CHAIN: leaves the processes that are counted, helper and daemon, in $counted; none for Squid's own helpers.
start_chain() {
    chain=$1 counted=''
    guard="$(command -v squidGuard) -c $work/squidGuard.conf"
    binary=$work/iotcpd
    case $chain in
        before-*) binary=$work/before ;;
    esac
    case $chain$bare in
        own*) ;;
        bare-many--kept) start_pool "$chain" "$guard" -n4 --max-request 12000 --persistent --pipeline 64 ;;
        bare-one--kept) start_pool "$chain" "$guard" -n4 --max-request 12000 --persistent --pipeline 1 ;;
        *-many--*) start_pool "$chain" "$guard" -n4 --max-request 12000 --pipeline 16 ;;
        *-one--*) start_pool "$chain" "$guard" -n4 --max-request 12000 --pipeline 1 ;;
    esac
    case $chain in
        own) start_squid "$guard" '4 startup=4 idle=4 concurrency=0' ;;
        bare-*) start_squid "$work/bare-helper $bare $address" '1 startup=1 idle=1 concurrency=500' ;;
        *) start_squid "$binary ask --squid --channel-ids yes --fail closed $address" \
            '1 startup=1 idle=1 concurrency=500' ;;
    esac
    [ "$chain" = own ] || counted="$process $(pgrep -P "$squid")"
    check_filter
}

# stop_chain: after a look whether the pool has answered what was asked, since a helper may answer in its place.
stop_chain() {
    check_filter
    stop "$squid"
    [ "$chain" = own ] && return
    # What wrk had in hand at its end may be missing.
    replied=$(replies_of "$process" "$chain")
    [ "$replied" -ge "$asked" ] || die "$chain: the pool has answered $replied of $asked URLs: $(cat "$work/squid.log")"
    stop "$process"
}

# replies_of PROCESS NAME: the number of requests that the pool has answered.
replies_of() {
    kill -USR1 "$1"
    until grep -q 'queries replied' "$work/$2.log"; do
        sleep 0.1
    done
    sed -n 's/.*queries replied[^0-9]*\([0-9]*\).*/\1/p' "$work/$2.log"
}

# note METRIC VALUE: of the chain that runs.
note() {
    echo "$2" >>"$work/squid/$chain.$1"
}

# measure_chain CHAIN: one round of it.
measure_chain() {
    start_chain "$1"
    fetch 32 1
    # shellcheck disable=SC2086  # a list of processes
    time_before=$(processor_time $counted)
    fetch 32 "$seconds"
    # shellcheck disable=SC2086
    time_after=$(processor_time $counted)
    many=$fetched
    note rate "$(echo "$many" | field rate)"
    note p99 "$(echo "$many" | field p99_us)"
    fetch 1 "$seconds"
    note alone "$(echo "$fetched" | field p50_us)"
    said="$many, one at a time $(echo "$fetched" | field p50_us) us"
    if [ -n "$counted" ]; then
        note time "$(awk -v t=$((time_after - time_before)) -v n="$(echo "$many" | field requests)" \
            'BEGIN { printf "%.1f", t / n / 1000 }')"
        count_calls
        said="$said, $(tail -n 1 "$work/squid/$chain.time") us and $(tail -n 1 "$work/squid/$chain.calls") calls per URL"
    fi
    echo "round $round: $chain $said"
    stop_chain
}

# count_calls: by the kernel's own counter, which delays a call little; under strace every call takes long enough for more to
# gather behind it.
count_calls() {
    fetch 32 1 perf stat -x ' ' -e raw_syscalls:sys_enter -o "$work/perf" -p "$(echo "$counted" | tr ' ' ,)"
    note calls "$(ratio "$(awk '/sys_enter/ { print $1 }' "$work/perf")" "$(echo "$fetched" | field requests)")"
}

# time_of COMMAND...: reads $work/file, whose lines must all be answered; leaves the lines a second in $rate.
time_of() {
    began=$(date +%s%N)
    "$@" <"$work/file" >"$work/answers"
    took=$(($(date +%s%N) - began))
    in_file=$(wc -l <"$work/file")
    [ "$(grep -c "$answer\$" "$work/answers")" -eq "$in_file" ] || die "$*: wrong answers"
    rate=$(awk -v n="$in_file" -v t="$took" 'BEGIN { printf "%.0f", n * 1e9 / t }')
}

# file_of LINES: as many in $work/file, all of which are answered by $answer.
file_of() {
    yes "$request" | head -n "$1" >"$work/file"
}

# measure_file: one round of lines from a file.
measure_file() {
    file_of "$lines"
    time_of squidGuard -c "$work/squidGuard.conf"
    chain='file'
    note rate "$rate"
    said="squidGuard $rate"
    file_by ask "$lines" "$work/iotcpd"
    # A connection for each line takes ten times as long.
    [ -z "$before" ] || file_by before $((lines / 10)) "$work/before"
    echo "round $round: lines of a file a second: $said"
}

# file_by WHAT LINES BINARY: through its `ask` and pool with one squidGuard, as they are and with channel-IDs. The rate is measured:
# a line may wait for as long as it has to.
file_by() {
    by=$1 binary=$3
    file_of "$2"
    start_pool file "squidGuard -c $work/squidGuard.conf" -n1 --pipeline 64
    time_of "$binary" ask --timeout 60s "$address"
    chain=$by-file
    note rate "$rate"
    said="$said, $by $rate"
    awk '{ print NR, $0 }' "$work/file" >"$work/numbered"
    mv "$work/numbered" "$work/file"
    time_of "$binary" ask --squid --channel-ids yes --timeout 60s "$address"
    chain=$by-numbered
    note rate "$rate"
    said="$said, with channel-IDs $rate"
    stop "$process"
}

measure_squid() {
    before=${BEFORE:-}
    bare=${BARE:---kept}
    seconds=${SECONDS_OF_LOAD:-4}
    lines=${LINES_OF_FILE:-200000}
    prepare_squidguard
    prepare_squid
    chains='own ask-many ask-one bare-many bare-one'
    [ -z "$before" ] || chains="$chains before-many before-one"
    round=0
    while [ "$round" -lt "$rounds" ]; do
        for chain in $chains; do
            measure_chain "$chain"
        done
        measure_file
        # shellcheck disable=SC2086  # a list of chains
        set -- $chains
        first=$1
        shift
        chains="$* $first"
        round=$((round + 1))
    done
    stop "$nginx"
}

# of_rounds FILE FILE OPERATION: the median of what the operation makes of each round's two values.
of_rounds() {
    paste "$work/squid/$1" "$work/squid/$2" |
        awk -v what="$3" '{ printf "%.3f\n", what == "/" ? $1 / $2 : $1 - $2 }' | median
}

# column CHAIN METRIC [OPERATION CHAIN METRIC]: a cell of the table: the median of the chain's values, or of what they make with
# another's; a stroke for what was not measured.
column() {
    if [ ! -e "$work/squid/$1.$2" ]; then
        echo -
    elif [ $# -eq 2 ]; then
        median <"$work/squid/$1.$2"
    else
        of_rounds "$1.$2" "$4.$5" "$3"
    fi
}

# squid_row KIND WHAT COMPARISON TARGET METRIC [OPERATION CHAIN METRIC]: one line of the table, for the chains of that kind; with an
# empty comparison and target for information.
squid_row() {
    kind=$1 what=$2 comparison=$3 target=$4
    shift 4
    value=$(column "ask-$kind" "$@")
    passed=''
    [ -z "$target" ] || passed=$(verdict "$value" "$comparison" "$target")
    printf '%-62s %10s  %2s %-6s %-6s %8s %8s\n' "$what" "$value" "$comparison" "$target" \
        "$passed" "$(column "bare-$kind" "$@")" "$(column "before-$kind" "$@")"
}

print_squid() {
    printf '%-62s %10s  %-9s %-6s %8s %8s\n' 'through Squid, 32 fetches at once' measured target '' 'bare' before
    squid_row many 'rate, ask and pool with --pipeline 16 / four squidGuards' '>=' 1 rate / own rate
    squid_row many 'rate, the same / the bare helper' '>=' 0.95 rate / bare-many rate
    squid_row one 'rate, --pipeline 1 / four squidGuards' '>=' 0.9 rate / own rate
    squid_row many 'p99, --pipeline 16 / four squidGuards' '<=' 1 p99 / own p99
    squid_row many 'processor time of helper and daemon per URL, us' '<=' 15 time
    squid_row one 'the same with --pipeline 1' '' '' time
    squid_row many 'system calls of helper and daemon per URL' '<=' 2.2 calls
    squid_row one 'the same with --pipeline 1' '<=' 6.5 calls
    squid_row many 'added latency, one fetch at a time, us' '<=' 60 alone - own alone
    squid_row file 'rate, lines of a file, one squidGuard / squidGuard alone' '>=' 0.6 rate / file rate
    squid_row numbered 'the same with channel-IDs' '>=' 0.6 rate / file rate
}
