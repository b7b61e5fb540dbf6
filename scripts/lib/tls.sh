# The part `tls` of scripts/bench: a pool and a session with TLS beside the `ssl` stream of one nginx process, and beside the same
# without TLS. To be sourced after scripts/lib/bench.sh.
# shellcheck shell=sh disable=SC2154,SC2034  # variables of, and for, scripts/bench and scripts/lib/bench.sh

# Server and load share the machine's processors, so servers are compared by the processor time that they take for the same
# work; time by the clock is printed for information. Of nginx and of the daemon all threads are counted, and no other process:
# neither the workers nor the server that nginx hands the plaintext to. $work/tls/NAME has a line for each round.

# certificate NAME KEY...: a certificate for localhost that its own key has signed, in $work/tls/NAME.pem, and the key behind it
# in NAME.key, made with these options of `openssl req`.
certificate() {
    certified=$work/tls/$1
    shift
    openssl req -x509 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -addext basicConstraints=critical,CA:FALSE -newkey "$@" -keyout "$certified.key" -out "$certified.pem" 2>"$work/tls/openssl"
    [ -s "$certified.pem" ] || die "no certificate: $(cat "$work/tls/openssl")"
}

# start_tls_pool NAME WORKER [FLAG...]: start_pool on TLS, with the ECDSA certificate.
start_tls_pool() {
    listens="--listen tls:127.0.0.1:0 --cert $work/tls/ecdsa.pem --key $work/tls/ecdsa.key"
    start_pool "$@"
    listens=
    address=${address#tls:}
}

# start_nginx NAME SETTING...: one nginx process with this in the server of its stream; leaves it in $process and $address.
start_nginx() {
    name=$1
    shift
    port=$(draw_port)
    cat >"$work/tls/$name.conf" <<CONF
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
error_log stderr error;
pid $work/tls/$name.pid;
worker_rlimit_nofile 32768;
events { worker_connections 16384; }
stream {
    server {
        listen 127.0.0.1:$port ssl backlog=1024;
        ssl_protocols TLSv1.3;
        ssl_certificate $work/tls/ecdsa.pem;
        ssl_certificate_key $work/tls/ecdsa.key;
        $*
    }
}
CONF
    nginx -c "$work/tls/$name.conf" 2>"$work/tls/$name.log" &
    process=$! address=127.0.0.1:$port
    running="$running $process"
    wait_for_port "$process" "$port" "$work/tls/$name.log"
}

# wait_for_port PROCESS PORT LOG: until something listens there.
wait_for_port() {
    until [ -n "$(ss -H -t -l -n "sport = :$2")" ]; do
        kill -0 "$1" 2>/dev/null || die "it ended: $(cat "$3")"
        sleep 0.1
    done
}

# spend PROCESSES AMOUNT COMMAND...: runs the load and leaves what it says in $said, and the microseconds of processor time that
# the processes, one or a list, took together for each of the AMOUNT things in $spent.
spend() {
    spenders=$1 amount=$2
    shift 2
    # shellcheck disable=SC2086  # a list
    spent_before=$(processor_time $spenders)
    said=$("$@")
    # shellcheck disable=SC2086
    spent=$(awk -v t=$(($(processor_time $spenders) - spent_before)) -v n="$amount" 'BEGIN { printf "%.2f", t / n / 1000 }')
}

# note_tls NAME VALUE: of this round.
note_tls() {
    echo "$2" >>"$work/tls/$1"
}

# compare_tls NAME UNIT AMOUNT COMMAND...: rounds of the load on nginx ($nginx, $nginx_address) and on the daemon ($daemon,
# $daemon_address), in turn, @ in the command being the place; adds to $work/tls the share of NAME-time, NAME-rate, and the
# daemon's own NAME-us. What a UNIT costs either is printed.
compare_tls() {
    name=$1 unit=$2 units=$3
    shift 3
    round=0
    while [ "$round" -lt "$rounds" ]; do
        spend "$nginx" "$units" at "$nginx_address" "$@"
        by_nginx=$spent nginx_said=$said
        spend "$daemon" "$units" at "$daemon_address" "$@"
        echo "round $round: $name, nginx  $by_nginx us a $unit, $nginx_said"
        echo "round $round: $name, iotcpd $spent us a $unit, $said"
        note_tls "$name-time" "$(ratio "$by_nginx" "$spent")"
        note_tls "$name-rate" "$(ratio "$(echo "$said" | field rate)" "$(echo "$nginx_said" | field rate)")"
        note_tls "$name-us" "$spent"
        note_tls "$name-nginx-us" "$by_nginx"
        round=$((round + 1))
    done
}

# New connections, with a line on each: the bare server answers behind nginx, the echo workers behind the pool.
measure_handshakes() {
    start reference target/release/examples/bare-epoll 0
    reference=$process reference_address=$address
    start_tls_pool new "$echo_worker"
    daemon=$process daemon_address=$address
    start_nginx new "proxy_pass $reference_address; ssl_session_cache off; ssl_session_tickets off;"
    nginx=$process nginx_address=$address
    compare_tls new handshake "$handshakes" "$load" --ca "$work/tls/ecdsa.pem" ask @ "$clients" "$handshakes"
    stop "$nginx"
    start_nginx resumed "proxy_pass $reference_address; ssl_session_tickets on;"
    nginx=$process nginx_address=$address
    # nginx gives one ticket for each that is used, and the load keeps eight: with more clients some would have none.
    compare_tls resumed handshake "$handshakes" "$load" --ca "$work/tls/ecdsa.pem" --resume ask @ 4 "$handshakes"
    stop "$nginx"
    # Neither side has anything to do behind the handshake.
    start_nginx bare "return ''; ssl_session_cache off; ssl_session_tickets off;"
    nginx=$process nginx_address=$address
    compare_tls bare handshake "$handshakes" "$load" --ca "$work/tls/ecdsa.pem" storm @ 1500 "$handshakes"
    stop "$nginx"
    stop "$daemon"
    stop "$reference"
}

# A stream through `cat` and back, in records of 16 KiB: nginx hands it to a session without TLS.
measure_tls_stream() {
    start plain "$binary" --mode session -n 2 -d cat -p 0 --queue-timeout 30s
    plain=$process plain_address=$address
    start stream "$binary" --mode session -n 2 -d cat --listen tls:127.0.0.1:0 --cert "$work/tls/ecdsa.pem" \
        --key "$work/tls/ecdsa.key" --queue-timeout 30s
    daemon=$process daemon_address=${address#tls:}
    start_nginx stream "proxy_pass $plain_address; proxy_half_close on; proxy_buffer_size 16k;"
    nginx=$process nginx_address=$address
    compare_tls stream MB $((tls_bytes / 1000000)) "$session_load" --ca "$work/tls/ecdsa.pem" stream @ "$tls_bytes"
    stop "$nginx"
    stop "$daemon"
    stop "$plain"
}

# Lines on multiplexed connections, with TLS and without.
measure_tls_lines() {
    start_pool plain "$echo_worker" -n2 --pipeline 64
    plain=$process plain_address=$address
    start_tls_pool lines "$echo_worker" -n2 --pipeline 64
    lines=$((10 * requests))
    round=0
    while [ "$round" -lt "$rounds" ]; do
        spend "$plain" "$lines" "$load" multiplex "$plain_address" 4 32 "$lines"
        plain_spent=$spent plain_said=$said
        spend "$process" "$lines" "$load" --ca "$work/tls/ecdsa.pem" multiplex "$address" 4 32 "$lines"
        echo "round $round: multiplexed, plain $plain_spent us a line, $plain_said"
        echo "round $round: multiplexed, TLS   $spent us a line, $said"
        note_tls lines-rate "$(ratio "$(echo "$said" | field rate)" "$(echo "$plain_said" | field rate)")"
        note_tls lines-time "$(ratio "$plain_spent" "$spent")"
        round=$((round + 1))
    done
    stop "$process"
    stop "$plain"
}

# A pool without TLS beside one with an RSA key of 4,096 bits that 500 clients a second come to, in one process.
measure_storm() {
    plain_port=$(draw_port)
    slow_port=$(draw_port)
    limits='queue-timeout = "30s"
queue-size = 10000
max-connections = 5000
max-connections-per-ip = 5000'
    cat >"$work/tls/storm.toml" <<TOML
[pool.plain]
daemon = "$echo_worker"
num-daemons = 4
listen = "127.0.0.1:$plain_port"
$limits

[pool.slow]
daemon = "$echo_worker"
num-daemons = 4
listen = "tls:127.0.0.1:$slow_port"
cert = "$work/tls/rsa.pem"
key = "$work/tls/rsa.key"
$limits
TOML
    "$binary" run "$work/tls/storm.toml" 2>"$work/tls/storm.log" &
    daemon=$!
    running="$running $daemon"
    wait_for_port "$daemon" "$plain_port" "$work/tls/storm.log"
    wait_for_port "$daemon" "$slow_port" "$work/tls/storm.log"
    round=0
    while [ "$round" -lt "$rounds" ]; do
        quiet=$("$load" pace "127.0.0.1:$plain_port" 1000 4000)
        "$load" --ca "$work/tls/rsa.pem" storm "127.0.0.1:$slow_port" 500 2500 >"$work/tls/stormed" &
        storm=$!
        running="$running $storm"
        sleep 0.5
        loud=$("$load" pace "127.0.0.1:$plain_port" 1000 4000)
        wait "$storm" || die 'the storm has failed'
        running=${running% "$storm"}
        echo "round $round: a plain pool alone             $quiet"
        echo "round $round: beside 500 handshakes a second $loud; handshakes $(cat "$work/tls/stormed")"
        note_tls storm-p99 "$(ratio "$(echo "$loud" | field p99_us)" "$(echo "$quiet" | field p99_us)")"
        note_tls storm-p50 "$(ratio "$(echo "$loud" | field p50_us)" "$(echo "$quiet" | field p50_us)")"
        note_tls storm-rate "$(field rate <"$work/tls/stormed")"
        round=$((round + 1))
    done
    stop "$daemon"
}

# hold_tls NAME CONNECTIONS: the bytes that each idle connection to the server in $process, $address adds, in $work/tls/NAME. The first
# connections are not counted: they fill what later ones use again.
hold_tls() {
    "$load" --ca "$work/tls/ecdsa.pem" ask "$address" "$clients" 2000 >/dev/null
    before=$(resident_bytes "$process")
    hold "$2" "$address" --ca "$work/tls/ecdsa.pem"
    echo $((($(resident_bytes "$process") - before) / $2)) >"$work/tls/$1"
    let_go
    stop "$process"
}

measure_tls_memory() {
    for held in 1000 "$many_idle"; do
        start_tls_pool idle "$echo_worker"
        hold_tls "held-$held" "$held"
        start_pool idle "$echo_worker"
        "$load" ask "$address" "$clients" 2000 >/dev/null
        before=$(resident_bytes "$process")
        hold "$held" "$address"
        echo $((($(resident_bytes "$process") - before) / held)) >"$work/tls/held-plain-$held"
        let_go
        stop "$process"
    done
    start reference target/release/examples/bare-epoll 0
    reference=$process
    start_nginx idle "proxy_pass $address; ssl_session_tickets on;"
    hold_tls held-nginx 1000
    stop "$reference"
}

# The system calls of the daemon for a connection with a line on it.
measure_tls_calls() {
    start_tls_pool traced "$echo_worker"
    traced=$process
    "$load" --ca "$work/tls/ecdsa.pem" ask "$address" "$clients" 500 >/dev/null
    tls_calls=$(calls 2000 "$load" --ca "$work/tls/ecdsa.pem" ask "$address" "$clients" 2000)
    stop "$traced"
}

measure_tls() {
    handshakes=${HANDSHAKES:-6000}
    tls_bytes=${STREAM_BYTES:-500000000}
    mkdir -p "$work/tls"
    chmod a+rx "$work" "$work/tls"
    certificate ecdsa ec -pkeyopt ec_paramgen_curve:P-256
    certificate rsa rsa:4096
    measure_handshakes
    measure_tls_stream
    measure_tls_lines
    measure_storm
    measure_tls_memory
    measure_tls_calls
}

# tls_median NAME: of the rounds.
tls_median() {
    median <"$work/tls/$1"
}

print_tls() {
    row 'new connections per core, a line on each / nginx' "$(tls_median new-time)" '>=' 0.9
    row 'the same, by the clock' "$(tls_median new-rate)"
    row 'the same, handshakes alone, per core / nginx' "$(tls_median bare-time)" '>=' 0.9
    row 'resumed sessions per core, a line on each / nginx' "$(tls_median resumed-time)"
    row 'bytes a second per core, session with cat / nginx' "$(tls_median stream-time)" '>=' 0.9
    row 'the same, by the clock' "$(tls_median stream-rate)"
    row 'multiplexed lines a second, TLS / plain' "$(tls_median lines-rate)" '>=' 0.8
    row 'the same, per core of the daemon' "$(tls_median lines-time)"
    row 'p99 of a plain pool, 500 RSA-4096 handshakes a second / none' "$(tls_median storm-p99)" '<=' 2
    row 'the same, median' "$(tls_median storm-p50)"
    row 'RSA-4096 handshakes a second then' "$(tls_median storm-rate)"
    for held in 1000 "$many_idle"; do
        row "resident per idle TLS connection ($held of them), bytes" "$(cat "$work/tls/held-$held")"
        row 'the same without TLS' "$(cat "$work/tls/held-plain-$held")"
    done
    row 'the same, nginx with its connection to the server (1000)' "$(cat "$work/tls/held-nginx")"
    for what in new bare resumed; do
        row "us of the daemon for a handshake, $what" "$(tls_median $what-us)"
        row 'the same, nginx' "$(tls_median $what-nginx-us)"
    done
    row 'us of the daemon for a megabyte each way' "$(tls_median stream-us)"
    row 'the same, nginx' "$(tls_median stream-nginx-us)"
    row 'system calls of the daemon for a new connection with a line' "$tls_calls"
}
