# The part `route` of scripts/bench: a route door beside a bare router, HAProxy and nginx, each of which sends TLS connections by
# their names to the same server. To be sourced after scripts/lib/bench.sh and scripts/lib/tls.sh.
# shellcheck shell=sh disable=SC2154,SC2034  # variables of, and for, scripts/bench and the libraries before this one

# The router that is measured has the first processor to itself, and load and server share the second one, so that a router
# cannot gain by taking time from the load. A connection is a ClientHello, an answer of 1,000 bytes, and the end, without
# cryptography: whatever differs is the router's. $work/route/NAME has a line for each round.

router_load=target/release/examples/route-load
# The numbers of names in the table, and of connections in flight.
few_names=10
many_names=100000
routed_clients=32
# A router has two descriptors for each idle connection, and 16,384 in all.
routed_idle=7500

# note_route NAME VALUE: of this round.
note_route() {
    echo "$2" >>"$work/route/$1"
}

# route_median NAME: of the rounds.
route_median() {
    median <"$work/route/$1"
}

# start_router NAME COMMAND...: start on the first processor.
start_router() {
    router_name=$1
    shift
    start "$router_name" taskset -c 0 "$@"
}

# start_route NAME NAMES SERVER: a route door with this many names for the address SERVER; in $process and $address.
start_route() {
    {
        echo "[route.$1]"
        echo 'tls-listen = "127.0.0.1:0"'
        echo "max-connections = $((routed_idle + 200))"
        echo "max-connections-per-ip = $((routed_idle + 200))"
        seq 0 $(($2 - 1)) | sed "s|.*|[route.$1.services.\"www&.example.org\"]\naddr = \"$3\"|"
        echo "[route.$1.services.localhost]"
        echo "addr = \"$3\""
    } >"$work/route/$1.toml"
    start_router "$1" "$binary" run "$work/route/$1.toml"
}

# start_haproxy NAME SERVER [OPTION]: HAProxy with one thread and the names of the small table; in $process and $address.
start_haproxy() {
    port=$(draw_port)
    {
        seq 0 $((few_names - 1)) | sed 's|.*|www&.example.org routed|'
        echo 'localhost routed'
    } >"$work/route/names.map"
    cat >"$work/route/$1.cfg" <<CONF
global
    maxconn 7700
    maxpipes 100
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    ${3:-}
frontend tls
    bind 127.0.0.1:$port backlog 1024
    tcp-request inspect-delay 10s
    tcp-request content reject unless { req.ssl_sni -m found }
    use_backend %[req.ssl_sni,lower,map($work/route/names.map)]
backend routed
    server one $2
CONF
    taskset -c 0 haproxy -db -f "$work/route/$1.cfg" 2>"$work/route/$1.log" &
    process=$! address=127.0.0.1:$port
    running="$running $process"
    wait_for_port "$process" "$port" "$work/route/$1.log"
}

# start_preread NAME SERVER: nginx that reads the name and passes the connection on; in $process and $address.
start_preread() {
    port=$(draw_port)
    {
        echo 'load_module /usr/lib/nginx/modules/ngx_stream_module.so;'
        echo 'daemon off; master_process off; error_log stderr error; worker_rlimit_nofile 16384;'
        echo "pid $work/route/$1.pid; events { worker_connections 16384; }"
        echo 'stream { map_hash_max_size 1024; map'
        echo "\$ssl_preread_server_name \$routed {"
        seq 0 $((few_names - 1)) | sed "s|.*|www&.example.org $2;|"
        echo "localhost $2;"
        echo "} server { listen 127.0.0.1:$port backlog=1024; ssl_preread on; proxy_pass \$routed; } }"
    } >"$work/route/$1.conf"
    taskset -c 0 nginx -c "$work/route/$1.conf" 2>"$work/route/$1.log" &
    process=$! address=127.0.0.1:$port
    running="$running $process"
    wait_for_port "$process" "$port" "$work/route/$1.log"
}

# spend_on_route WHO WHAT AMOUNT COMMAND...: as spend, for the router in $WHO_process and $WHO_address; notes WHO-WHAT-us and
# WHO-WHAT-rate, and prints both.
spend_on_route() {
    who=$1 what=$2 amount_routed=$3
    shift 3
    eval "who_process=\$${who}_process who_address=\$${who}_address"
    spend "$who_process" "$amount_routed" at "$who_address" taskset -c 1 "$@"
    note_route "$who-$what-us" "$spent"
    note_route "$who-$what-rate" "$(echo "$said" | field rate)"
    echo "round $round: $what, $who: $spent us each, $said"
}

# compare_routes WHAT: notes the door's shares of the last round: of the rates of the others, and of their processor time.
compare_routes() {
    for other in $2; do
        for measure in rate us; do
            note_route "$1-$measure-$other" \
                "$(ratio "$(tail -n 1 "$work/route/door-$1-$measure")" "$(tail -n 1 "$work/route/$other-$1-$measure")")"
        done
    done
}

# New connections: the door with few names and with many, and the three others.
measure_new_routes() {
    start_router bare "target/release/examples/bare-router" 0 "$served_address" $few_names
    bare_process=$process bare_address=$address
    start_route door $few_names "$served_address"
    door_process=$process door_address=$address
    start_route many $many_names "$served_address"
    many_process=$process many_address=$address
    start_haproxy haproxy "$served_address"
    haproxy_process=$process haproxy_address=$address
    start_preread nginx "$served_address"
    nginx_process=$process nginx_address=$address
    for at in "$bare_address" "$door_address" "$many_address" "$haproxy_address" "$nginx_address"; do
        "$router_load" new "$at" $routed_clients $((routed / 4)) $few_names >/dev/null
    done
    round=0
    while [ "$round" -lt "$rounds" ]; do
        for who in bare door haproxy nginx; do
            spend_on_route $who new "$routed" "$router_load" new @ $routed_clients "$routed" $few_names
        done
        spend_on_route many new "$routed" "$router_load" new @ $routed_clients "$routed" $many_names
        compare_routes new 'bare haproxy nginx many'
        round=$((round + 1))
    done
    for stopped in "$bare_process" "$many_process" "$haproxy_process" "$nginx_process"; do
        stop "$stopped"
    done
    traced=$door_process
    route_calls=$(calls 4000 "$router_load" new "$door_address" $routed_clients 4000 $few_names)
    stop "$door_process"
}

# A few long downloads, beside HAProxy that is made to splice.
measure_bulk_routes() {
    start_route door $few_names "$served_address"
    door_process=$process door_address=$address
    start_router bare "target/release/examples/bare-router" 0 "$served_address" $few_names
    bare_process=$process bare_address=$address
    start_haproxy haproxy "$served_address" 'option splice-request
    option splice-response'
    haproxy_process=$process haproxy_address=$address
    megabytes=$((4 * route_bytes / 1000000))
    round=0
    while [ "$round" -lt "$rounds" ]; do
        for who in bare door haproxy; do
            spend_on_route $who bulk "$megabytes" "$router_load" bulk @ "$route_bytes" 4
        done
        compare_routes bulk 'bare haproxy'
        round=$((round + 1))
    done
    for stopped in "$bare_process" "$door_process" "$haproxy_process"; do
        stop "$stopped"
    done
}

# Handshakes through the router with a pool that speaks TLS.
measure_routed_handshakes() {
    start_tls_pool behind "$echo_worker"
    pool_process=$process pool_address=$address
    start_route door $few_names "$pool_address"
    door_process=$process door_address=$address
    start_haproxy haproxy "$pool_address"
    haproxy_process=$process haproxy_address=$address
    round=0
    while [ "$round" -lt "$rounds" ]; do
        for who in door haproxy; do
            spend_on_route $who shake "$handshakes" "$load" --ca "$work/tls/ecdsa.pem" ask @ "$clients" "$handshakes"
        done
        compare_routes shake haproxy
        round=$((round + 1))
    done
    for stopped in "$door_process" "$haproxy_process" "$pool_process"; do
        stop "$stopped"
    done
}

# hold_routes NAME CONNECTIONS: the bytes that each idle connection through the router in $process, $address adds, in
# $work/route/NAME. The first connections are not counted: they fill what later ones use again.
hold_routes() {
    "$router_load" new "$address" $routed_clients 2000 $few_names >/dev/null
    before=$(resident_bytes "$process")
    load_before=$load load=$router_load
    hold "$2" "$address"
    load=$load_before
    echo $((($(resident_bytes "$process") - before) / $2)) >"$work/route/$1"
    let_go
    stop "$process"
}

measure_route_memory() {
    for held in 1000 "$routed_idle"; do
        start_route door $few_names "$served_address"
        hold_routes "door-$held" "$held"
        start_haproxy haproxy "$served_address"
        hold_routes "haproxy-$held" "$held"
    done
}

measure_route() {
    routed=${CONNECTIONS:-20000}
    handshakes=${HANDSHAKES:-6000}
    route_bytes=${STREAM_BYTES:-2000000000}
    mkdir -p "$work/tls" "$work/route"
    chmod a+rx "$work" "$work/tls" "$work/route"
    certificate ecdsa ec -pkeyopt ec_paramgen_curve:P-256
    start served taskset -c 1 "$router_load" serve 0
    served_process=$process served_address=$address
    measure_new_routes
    measure_bulk_routes
    measure_routed_handshakes
    measure_route_memory
    stop "$served_process"
}

print_route() {
    row 'routed connections a second / bare router' "$(route_median new-rate-bare)" '>=' 0.95
    row 'the same / HAProxy' "$(route_median new-rate-haproxy)" '>=' 1.1
    row 'the same / nginx (ssl_preread)' "$(route_median new-rate-nginx)"
    row 'processor time for one / bare router' "$(route_median new-us-bare)"
    row 'the same / HAProxy' "$(route_median new-us-haproxy)" '<=' 0.85
    row 'the same / nginx (ssl_preread)' "$(route_median new-us-nginx)"
    row "processor time for one, $few_names names / $many_names" "$(route_median new-us-many)" '>=' 0.9
    row 'system calls for one' "$route_calls" '<=' 16
    row 'bytes a second, four downloads / HAProxy with splice' "$(route_median bulk-rate-haproxy)" '>=' 1.15
    row 'processor time for them / HAProxy with splice' "$(route_median bulk-us-haproxy)" '<=' 0.7
    row 'bytes a second / bare router' "$(route_median bulk-rate-bare)"
    row 'TLS handshakes a second with a pool behind / HAProxy' "$(route_median shake-rate-haproxy)" '>=' 1
    for held in 1000 "$routed_idle"; do
        row "resident per idle connection ($held of them), bytes" "$(cat "$work/route/door-$held")" '<=' 1536
        row 'the same, HAProxy' "$(cat "$work/route/haproxy-$held")"
    done
    for who in door bare haproxy nginx; do
        row "us for a routed connection, $who" "$(route_median $who-new-us)"
    done
    for who in door bare haproxy; do
        row "us for a megabyte, $who" "$(route_median $who-bulk-us)"
    done
}
