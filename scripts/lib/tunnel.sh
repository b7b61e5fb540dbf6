# The part `tunnel` of scripts/bench: iotcpd's tunnel (a route door, and `iotcpd tunnel` behind it) beside rathole's, each with and
# without TLS between its two programs, and beside two bare routers, one behind the other: what two programs that splice cost
# without a tunnel. All are in front of the same server. To be sourced after scripts/lib/tls.sh.
# shellcheck shell=sh disable=SC2154,SC2034  # variables of, and for, scripts/bench and the libraries before this one

# All of it runs in a network namespace of its own, whose connections have the congestion control $congestion, whatever the
# system's is: BBR, which some machines are set to, paces every connection over the loopback by timers, to a quarter of what the
# kernel can move, at four times the processor time, and then a tunnel's one connection is compared with the timers of eight.
#
# The load, the server and the two programs of each tunnel share all processors, as the kernel places them: rathole has a thread
# for each processor, iotcpd one loop for each program. Processor time is that of both programs and of nothing else. Connections are
# those of scripts/lib/route.sh, without cryptography of their own. $work/tunnel/NAME has a line for each round.

tunnel_load=target/release/examples/route-load
rathole_version=0.5.0
rathole=target/rathole/bin/rathole
# The numbers of connections in flight, and of idle ones.
tunnel_clients=32
tunnel_idle=500
tunnel_secret=TB2pbZ5FR8GQZp9W
congestion=${CONGESTION:-cubic}

# install_rathole: from crates.io, into target/rathole, if it is not there. Its own Cargo.lock names a version of the crate time
# (0.3.29) that Rust 1.80 and later refuse, so its libraries are the newest that it takes.
install_rathole() {
    [ ! -x $rathole ] || return 0
    cargo install rathole --version $rathole_version --root target/rathole ||
        die "rathole $rathole_version cannot be built, with which the tunnel is compared"
}

# enter_network COMMAND...: runs it in a network of its own, which has the loopback alone.
enter_network() {
    [ "$(id -u)" -eq 0 ] && into='unshare -n' || into='unshare -rn'
    $into env IN_NETWORK=yes "$@"
}

# set_network_up: once in there.
set_network_up() {
    ip link set lo up
    for place in 127.0.0.0/8 127.0.0.1; do
        ip route change local $place dev lo proto kernel scope host src 127.0.0.1 table local congctl "$congestion" ||
            die "there is no congestion control $congestion here: name another one with CONGESTION"
    done
}

# note_tunnel NAME VALUE: of this round, if there is a value.
note_tunnel() {
    [ -z "$2" ] || echo "$2" >>"$work/tunnel/$1"
}

# tunnel_median NAME: of the rounds.
tunnel_median() {
    median <"$work/tunnel/$1"
}

# run_program NAME COMMAND...: starts it with its output in $work/tunnel/NAME.log; leaves its process in $process.
run_program() {
    log=$work/tunnel/$1.log
    shift
    "$@" >"$log" 2>&1 &
    process=$!
    running="$running $process"
}

# start_tunnel WHO: iotcpd, iotcpd_tls, rathole, rathole_tls or bare, in front of $served_address; leaves its processes in $WHO_server and
# $WHO_client, and its address in $WHO_address. Returns when a connection gets through.
start_tunnel() {
    who=$1
    port=$(draw_port)
    visited_port=$(draw_port)
    while [ "$visited_port" = "$port" ]; do
        visited_port=$(draw_port)
    done
    case $who in
        iotcpd*) start_iotcpd_tunnel "$who" "$port" "$visited_port" ;;
        rathole*) start_rathole "$who" "$port" "$visited_port" ;;
        bare)
            run_program bare-client target/release/examples/bare-router "$port" "$served_address" 10
            client=$process
            run_program bare-server target/release/examples/bare-router "$visited_port" "127.0.0.1:$port" 10
            server=$process
            ;;
    esac
    eval "${who}_server=\$server ${who}_client=\$client ${who}_address=127.0.0.1:$visited_port"
    tries=0
    until "$tunnel_load" new "127.0.0.1:$visited_port" 1 1 10 >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || die "nothing gets through $who: $(cat "$work/tunnel/$who"-*.log)"
        sleep 0.1
    done
}

# start_iotcpd_tunnel WHO PORT VISITED_PORT: leaves its processes in $server and $client.
start_iotcpd_tunnel() {
    tls='' certified=''
    if [ "$1" = iotcpd_tls ]; then
        tls=tls:
        certified="--ca $work/tls/ecdsa.pem --server-name localhost"
    fi
    {
        echo "[route.$1]"
        echo "tls-listen = '127.0.0.1:$3'"
        echo "tunnel-listen = '${tls}127.0.0.1:$2'"
        echo 'max-connections = 2000'
        echo 'max-connections-per-ip = 2000'
        [ -z "$tls" ] || echo "cert = '$work/tls/ecdsa.pem'"
        [ -z "$tls" ] || echo "key = '$work/tls/ecdsa.key'"
        seq 0 9 | sed "s|.*|[route.$1.services.\"www&.example.org\"]\nclient-secret = '$tunnel_secret'|"
    } >"$work/tunnel/$1.toml"
    echo "$tunnel_secret" >"$work/tunnel/secret"
    run_program "$1-server" "$binary" run "$work/tunnel/$1.toml"
    server=$process
    wait_for_port "$server" "$2" "$log"
    # shellcheck disable=SC2086  # a list of flags
    run_program "$1-client" "$binary" tunnel --remote "${tls}127.0.0.1:$2" --secret-file "$work/tunnel/secret" \
        --local "$served_address" $certified
    client=$process
}

# start_rathole WHO PORT VISITED_PORT: with what it has by default, but for TLS; leaves its processes in $server and $client.
start_rathole() {
    for side in server client; do
        {
            echo "[$side]"
            [ $side = client ] && echo "remote_addr = '127.0.0.1:$2'" || echo "bind_addr = '127.0.0.1:$2'"
            if [ "$1" = rathole_tls ]; then
                printf '[%s.transport]\ntype = "tls"\n[%s.transport.tls]\n' $side $side
                echo "pkcs12 = '$work/tunnel/identity.pfx'"
                echo "pkcs12_password = '$tunnel_secret'"
                echo "trusted_root = '$work/tls/ecdsa.pem'"
                echo "hostname = 'localhost'"
            fi
            echo "[$side.services.served]"
            echo "token = '$tunnel_secret'"
            [ $side = client ] && echo "local_addr = '$served_address'" || echo "bind_addr = '127.0.0.1:$3'"
        } >"$work/tunnel/$1-$side.toml"
        run_program "$1-$side" "$rathole" --$side "$work/tunnel/$1-$side.toml"
        if [ $side = server ]; then
            server=$process
            wait_for_port "$server" "$2" "$log"
        else
            client=$process
        fi
    done
}

# stop_tunnel WHO
stop_tunnel() {
    eval "server=\$$1_server client=\$$1_client"
    stop "$client"
    stop "$server"
}

# spend_on_tunnel WHO WHAT AMOUNT COMMAND...: as spend, for both programs of that tunnel; notes WHO-WHAT-us, the processor time for
# each of the AMOUNT things, and WHO-WHAT-rate and WHO-WHAT-p99, as the load says, and prints all.
spend_on_tunnel() {
    who=$1 what=$2 amount_moved=$3
    shift 3
    eval "both=\"\$${who}_server \$${who}_client\" at_tunnel=\$${who}_address"
    spend "$both" "$amount_moved" at "$at_tunnel" "$@"
    note_tunnel "$who-$what-us" "$spent"
    note_tunnel "$who-$what-rate" "$(echo "$said" | field rate)"
    note_tunnel "$who-$what-p99" "$(echo "$said" | field p99_us)"
    echo "round $round: $what, $who: $spent us each, $said"
}

# compare_tunnels WHO OTHER WHAT MEASURE...: notes the share of the first in the second of the last round, as WHO-OTHER-WHAT-MEASURE.
compare_tunnels() {
    one=$1 other=$2 what=$3
    shift 3
    for measure in "$@"; do
        note_tunnel "$one-$other-$what-$measure" \
            "$(ratio "$(tail -n 1 "$work/tunnel/$one-$what-$measure")" "$(tail -n 1 "$work/tunnel/$other-$what-$measure")")"
    done
}

# measure_tunnel_round: each load on each tunnel in turn, the two of a pair in either order. TLS takes a quarter of everything.
measure_tunnel_round() {
    for kind in '' _tls; do
        bytes=$tunnel_bytes connections=$tunnelled trips=$tunnel_trips
        if [ -n "$kind" ]; then
            bytes=$((bytes / 4)) connections=$((connections / 4)) trips=$((trips / 4))
        fi
        whos="iotcpd$kind rathole$kind"
        [ $((round % 2)) -eq 0 ] || whos="rathole$kind iotcpd$kind"
        [ -n "$kind" ] || whos="$whos bare"
        for direction in bulk push; do
            for streams in 1 8; do
                for who in $whos; do
                    spend_on_tunnel "$who" $direction-$streams $((bytes / 1000000)) \
                        "$tunnel_load" $direction @ $((bytes / streams)) $streams
                done
            done
        done
        for who in $whos; do
            spend_on_tunnel "$who" new "$connections" "$tunnel_load" new @ $tunnel_clients "$connections" 10
        done
        for who in $whos; do
            spend_on_tunnel "$who" trips "$trips" "$tunnel_load" trips @ $tunnel_clients "$trips"
        done
    done
    for pair in 'iotcpd rathole' 'iotcpd bare' 'iotcpd_tls rathole_tls' 'iotcpd_tls iotcpd'; do
        for what in bulk-1 bulk-8 push-1 push-8; do
            # shellcheck disable=SC2086  # two words
            compare_tunnels $pair $what rate us
        done
        for what in new trips; do
            # shellcheck disable=SC2086
            compare_tunnels $pair $what rate us p99
        done
    done
}

# count_tunnel_calls WHO: the system calls of all threads of each of its programs for a connection, in $work/tunnel/WHO-SIDE-calls.
count_tunnel_calls() {
    who=$1 tracers=
    eval "server=\$${who}_server client=\$${who}_client at_tunnel=\$${who}_address"
    for side in server client; do
        [ $side = server ] && traced=$server || traced=$client
        rm -f "$work"/strace-$side.*
        mkfifo "$work/strace-$side.says"
        strace -f -c -U calls,name -p "$traced" -o "$work/tunnel/$who-$side-counted" >"$work/strace-$side.says" 2>&1 &
        tracer=$!
        tracers="$tracers $tracer"
        running="$running $tracer"
        until_line strace-$side '*attached*'
    done
    "$tunnel_load" new "$at_tunnel" $tunnel_clients 1000 10 >/dev/null
    for tracer in $tracers; do
        stop "$tracer"
    done
    for side in server client; do
        counted=$(awk '$NF == "total" { print $1 }' "$work/tunnel/$who-$side-counted")
        ratio "$counted" 1000 >"$work/tunnel/$who-$side-calls"
        echo "system calls, $who, $side, for 1000 connections:"
        sort -n -r "$work/tunnel/$who-$side-counted" | head -n 14
    done
}

# hold_tunnel WHO: the bytes that each idle connection adds to each of its programs, in $work/tunnel/WHO-SIDE-held. The first
# connections are not counted: they fill what later ones use again.
hold_tunnel() {
    who=$1
    eval "server=\$${who}_server client=\$${who}_client at_tunnel=\$${who}_address"
    "$tunnel_load" new "$at_tunnel" $tunnel_clients 2000 10 >/dev/null
    server_before=$(resident_bytes "$server")
    client_before=$(resident_bytes "$client")
    load_before=$load load=$tunnel_load
    hold $tunnel_idle "$at_tunnel"
    load=$load_before
    echo $((($(resident_bytes "$server") - server_before) / tunnel_idle)) >"$work/tunnel/$who-server-held"
    echo $((($(resident_bytes "$client") - client_before) / tunnel_idle)) >"$work/tunnel/$who-client-held"
    let_go
}

measure_tunnel() {
    tunnelled=${CONNECTIONS:-20000}
    tunnel_trips=${TRIPS:-100000}
    tunnel_bytes=${STREAM_BYTES:-4000000000}
    mkdir -p "$work/tls" "$work/tunnel"
    certificate ecdsa ec -pkeyopt ec_paramgen_curve:P-256
    openssl pkcs12 -export -out "$work/tunnel/identity.pfx" -inkey "$work/tls/ecdsa.key" -in "$work/tls/ecdsa.pem" \
        -passout "pass:$tunnel_secret"
    start served "$tunnel_load" serve 0
    served_process=$process served_address=$address
    tunnels='iotcpd rathole bare iotcpd_tls rathole_tls'
    # Memory first: later each has served more than is in flight at a time.
    for who in $tunnels; do
        start_tunnel "$who"
        hold_tunnel "$who"
        stop_tunnel "$who"
    done
    for who in $tunnels; do
        start_tunnel "$who"
    done
    round=0
    while [ "$round" -lt "$rounds" ]; do
        measure_tunnel_round
        round=$((round + 1))
    done
    for who in $tunnels; do
        count_tunnel_calls "$who"
        stop_tunnel "$who"
    done
    stop "$served_process"
}

print_tunnel() {
    row 'bytes a second, eight streams / rathole' "$(tunnel_median iotcpd-rathole-bulk-8-rate)" '>=' 1.5
    row 'processor time for them / rathole' "$(tunnel_median iotcpd-rathole-bulk-8-us)" '<=' 0.35
    row 'bytes a second / two bare routers' "$(tunnel_median iotcpd-bare-bulk-8-rate)"
    row 'processor time / two bare routers' "$(tunnel_median iotcpd-bare-bulk-8-us)"
    row 'bytes a second, one stream / rathole' "$(tunnel_median iotcpd-rathole-bulk-1-rate)" '>=' 2
    row 'processor time for them / rathole' "$(tunnel_median iotcpd-rathole-bulk-1-us)" '<=' 0.35
    row 'bytes a second / two bare routers' "$(tunnel_median iotcpd-bare-bulk-1-rate)"
    row 'processor time / two bare routers' "$(tunnel_median iotcpd-bare-bulk-1-us)"
    for streams in 8 1; do
        row "bytes a second to the server, streams: $streams / rathole" "$(tunnel_median iotcpd-rathole-push-$streams-rate)"
        row 'processor time for them / rathole' "$(tunnel_median iotcpd-rathole-push-$streams-us)"
    done
    row 'new connections a second / rathole' "$(tunnel_median iotcpd-rathole-new-rate)" '>=' 1.2
    row 'the same / two bare routers' "$(tunnel_median iotcpd-bare-new-rate)"
    row 'their p99 / rathole' "$(tunnel_median iotcpd-rathole-new-p99)"
    row 'processor time for one / rathole' "$(tunnel_median iotcpd-rathole-new-us)"
    row 'the same / two bare routers' "$(tunnel_median iotcpd-bare-new-us)"
    row "round trips a second on $tunnel_clients streams / rathole" "$(tunnel_median iotcpd-rathole-trips-rate)"
    row 'their p99 / rathole' "$(tunnel_median iotcpd-rathole-trips-p99)"
    row 'processor time for one / rathole' "$(tunnel_median iotcpd-rathole-trips-us)"
    for side in server client; do
        row "resident per idle stream ($tunnel_idle of them), bytes, $side" "$(cat "$work/tunnel/iotcpd-$side-held")" '<=' 2048
        row 'the same, rathole' "$(cat "$work/tunnel/rathole-$side-held")"
        row 'the same with TLS' "$(cat "$work/tunnel/iotcpd_tls-$side-held")" '<=' 2048
        row 'the same, rathole' "$(cat "$work/tunnel/rathole_tls-$side-held")"
    done
    for side in server client; do
        row "system calls for a new connection, $side" "$(cat "$work/tunnel/iotcpd-$side-calls")"
        row 'the same, rathole' "$(cat "$work/tunnel/rathole-$side-calls")"
    done
    for what in bulk-8 bulk-1 push-8 push-1 new trips; do
        row "with TLS, rate of $what / rathole with TLS" "$(tunnel_median iotcpd_tls-rathole_tls-$what-rate)"
        row 'processor time / rathole with TLS' "$(tunnel_median iotcpd_tls-rathole_tls-$what-us)"
        row 'rate / without TLS' "$(tunnel_median iotcpd_tls-iotcpd-$what-rate)"
    done
    for who in $tunnels; do
        for what in bulk-8 bulk-1 push-8 push-1; do
            row "$who, $what: MB a second" "$(tunnel_median "$who-$what-rate" | awk '{ printf "%.0f", $1 / 1e6 }')"
            row "$who, $what: us of processor time for a MB" "$(tunnel_median "$who-$what-us")"
        done
        for what in new trips; do
            row "$who, $what: rate" "$(tunnel_median "$who-$what-rate")"
            row "$who, $what: p99, us" "$(tunnel_median "$who-$what-p99")"
            row "$who, $what: us of processor time for one" "$(tunnel_median "$who-$what-us")"
        done
    done
}
