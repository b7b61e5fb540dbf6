//! Debian's Squid, filtered by squidGuard through `iotcpd ask --squid`, as the README tells administrators to.
//!
//! A test starts a web server, a pool, and a Squid of its own on free ports of 127.0.0.1, and fetches through that
//! Squid. Both names that are fetched, the blocked one and the clean one, lead to the same web server, so that a
//! blocked page loads where nothing filters it: that is how a filter that fails open is seen. Where Squid is missing
//! these tests fail.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};
use tempfile::TempDir;

use crate::harness::{
    Address, BLOCKED_DOMAIN, Builder, Certificate, Client, Daemon, Program, SquidGuard, WATCHDOG, free_port, temp_dir,
    wait_all_gone, worker_command,
};
use crate::tls_client_certificates::Authority;

/// A name that is on no list.
const CLEAN_DOMAIN: &str = "clean.example";

/// The variable that marks Squid and its helpers.
const MARK: &str = "IOTCPD_TEST_SQUID";

// ---- the web ---------------------------------------------------------------------------------------------------

/// A web server that answers every request with the path asked for.
pub(crate) struct Web {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a web server");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ending = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ending);
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                thread::spawn(move || serve(connection.expect("accept a web client")));
            }
        });
        Self {
            address,
            ending,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self, domain: &str, path: &str) -> String {
        format!("http://{domain}:{}/{path}", self.address.port())
    }
}

/// One request, one answer. A client that goes in between is no concern of the test.
fn serve(connection: TcpStream) {
    let mut input = BufReader::new(&connection);
    let mut request = String::new();
    input.read_line(&mut request).ok();
    let mut header = String::new();
    while input.read_line(&mut header).is_ok_and(|length| length > 2) {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let body = format!("the page {path}\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
    write!(&connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).ok();
}

impl Drop for Web {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

// ---- Squid -----------------------------------------------------------------------------------------------------

/// A running Squid, whose URL rewriter is `iotcpd ask --squid`.
pub(crate) struct Squid {
    program: Program,
    pub(crate) address: Address,
    home: TempDir,
}

impl Squid {
    /// Squid with one helper of `channels` channels that filters URLs through these addresses; ready for clients.
    #[track_caller]
    pub(crate) fn start(concurrency: u32, asks: &str) -> Self {
        Self::with(|ask| {
            format!(
                "http_access allow all\nurl_rewrite_program {ask} {asks}\n\
                 url_rewrite_children 1 startup=1 idle=1 concurrency={concurrency} queue-size=1000\n"
            )
        })
    }

    /// Squid with these lines in its configuration, which are made for `iotcpd ask --squid` as it is called there.
    #[track_caller]
    fn with(lines: impl FnOnce(&str) -> String) -> Self {
        let home = temp_dir();
        let path = home.path().display().to_string();
        // Squid gives up root, and its user has to reach its files, and the helper's program, in here.
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("let Squid into its directory");
        let binary = env!("CARGO_BIN_EXE_iotcpd");
        let helper = format!("{path}/iotcpd");
        if fs::hard_link(binary, &helper).is_err() {
            fs::copy(binary, &helper).expect("copy the helper");
        }
        let logs = home.path().join("log");
        fs::create_dir(&logs).expect("make a directory for Squid's log");
        if geteuid().is_root() {
            give_to_squid(&logs);
        }
        fs::write(
            home.path().join("hosts"),
            format!("127.0.0.1 {BLOCKED_DOMAIN} {CLEAN_DOMAIN}\n"),
        )
        .expect("write the hosts");
        let port = free_port();
        let configuration = format!(
            "http_port 127.0.0.1:{port}\nvisible_hostname squid.example\ncache_effective_user proxy\n\
             cache deny all\ncache_mem 1 MB\nmemory_cache_shared off\nhosts_file {path}/hosts\n\
             pid_filename none\naccess_log none\ncache_store_log none\ncache_log {path}/log/cache.log\n\
             coredump_dir {path}/log\npinger_enable off\nshutdown_lifetime 0 seconds\nclient_db off\n\
             {}",
            lines(&format!("{helper} ask --squid"))
        );
        fs::write(home.path().join("squid.conf"), configuration).expect("write Squid's configuration");
        let mut command = Command::new("squid");
        // Debian keeps it where only root's PATH leads.
        let search = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{search}:/usr/sbin:/sbin"));
        command.env(MARK, home.path());
        command.args(["-N", "-d", "1", "-f", &format!("{path}/squid.conf")]);
        let squid = Self {
            program: Program::start(&mut command),
            address: Address::Tcp((Ipv4Addr::LOCALHOST, port).into()),
            home,
        };
        squid.wait_listening();
        squid
    }

    /// Squid 5 says that it accepts just before it calls listen(2); in the moment between, connections are refused.
    #[track_caller]
    fn wait_listening(&self) {
        self.program.stderr_wait("Accepting HTTP Socket connections");
        let Address::Tcp(address) = self.address else {
            panic!("Squid listens on TCP")
        };
        let deadline = Instant::now() + WATCHDOG;
        while let Err(error) = TcpStream::connect(address) {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(Instant::now() < deadline, "Squid does not listen");
            thread::yield_now();
        }
    }

    /// Fetches a URL: the head of the response and its body.
    #[track_caller]
    fn fetch(&self, url: &str) -> Response {
        fetch(&self.address, url)
    }

    /// The same as a user with a password, both of which stand in `credentials`, in base64.
    #[track_caller]
    fn fetch_as(&self, credentials: &str, url: &str) -> Response {
        ask_for(
            &self.address,
            "GET",
            url,
            &format!("Proxy-Authorization: Basic {credentials}\r\n"),
        )
    }
}

#[track_caller]
pub(crate) fn fetch(squid: &Address, url: &str) -> Response {
    ask_for(squid, "GET", url, "")
}

#[track_caller]
fn ask_for(squid: &Address, method: &str, url: &str, header: &str) -> Response {
    let host = url.split('/').nth(2).unwrap_or(url);
    let mut client = Client::connect(squid);
    client.send(format!(
        "{method} {url} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n"
    ));
    let response = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    Response {
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn give_to_squid(file: &Path) {
    let user = User::from_name("proxy").expect("look up a user");
    let user = user.expect("the user proxy, which Debian's squid package relies on");
    chown(file, Some(user.uid), Some(user.gid)).expect("give Squid its file");
}

impl Drop for Squid {
    fn drop(&mut self) {
        self.program.signal(Signal::SIGKILL);
        self.program.wait_exit();
        let left = wait_all_gone(&format!("{MARK}={}", self.home.path().display()));
        if thread::panicking() {
            eprintln!("--- what Squid said:\n{}\n---", self.program.stderr.text());
        } else {
            assert_eq!(left, Ok(()), "Squid's helpers outlived it");
        }
    }
}

/// Squid's answer.
#[derive(Debug)]
pub(crate) struct Response {
    head: String,
    body: String,
}

impl Response {
    /// Where a redirection leads.
    pub(crate) fn location(&self) -> Option<&str> {
        let redirected = self.head.starts_with("HTTP/1.1 302 ");
        let location = self.head.lines().find_map(|line| line.strip_prefix("Location: "));
        location.filter(|_| redirected)
    }

    /// Returns true if the web server's page at this path came.
    #[track_caller]
    fn assert_page(&self, path: &str) {
        assert!(self.head.starts_with("HTTP/1.1 200 "), "{self:?}");
        assert_eq!(self.body, format!("the page /{path}\n"), "{self:?}");
    }
}

/// The files for TLS between a pool and the `ask` of a Squid, which shows a certificate. What `ask` reads belongs to the
/// user that it runs as, Squid's, as it must for an administrator.
pub(crate) struct TlsFiles(Certificate);

impl TlsFiles {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let (files, authority) = (Certificate::new(), Authority::named("authority"));
        let clients = files.write("clients.pem", &authority.pem);
        let own = files.write("squid.pem", &authority.name("squid").pem());
        files.write("foreign.pem", &Authority::named("foreign").name("squid").pem());
        let directory = Path::new(&clients).parent().expect("a file is in a directory");
        fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("let Squid into the directory");
        if geteuid().is_root() {
            for file in [own, files.path("cert.pem"), files.path("foreign.pem")] {
                give_to_squid(Path::new(&file));
            }
        }
        Self(files)
    }

    /// Gives a pool a listener with TLS for this Squid.
    pub(crate) fn serve(&self, pool: Builder) -> Builder {
        let pool = self.0.flags().iter().fold(pool, |pool, flag| pool.args(&[flag]));
        pool.args(&["--client-ca", &self.0.path("clients.pem"), "--allow-subject", "squid"])
    }

    /// The words for the `ask` of the Squid. `own`: the file of its certificate.
    #[track_caller]
    pub(crate) fn asks(&self, address: &Address, own: &str) -> String {
        let (ca, own) = (self.0.path("cert.pem"), self.0.path(own));
        format!("--timeout 600s --ca {ca} --cert {own} tls:localhost:{}", address.port())
    }
}

/// squidGuard that sends blocked URLs to a page of `web`.
#[track_caller]
pub(crate) fn squidguard(web: &Web) -> SquidGuard {
    SquidGuard::redirecting_to(&format!("302:{}", web.url("127.0.0.1", "blocked?u=%u")))
}

// ---- the tests -------------------------------------------------------------------------------------------------

#[test]
fn squid_is_filtered_through_ask() {
    let web = Web::start();
    let guard = squidguard(&web);
    let daemon = Daemon::pool(
        4,
        &guard.command(),
        &["--max-request", "12000", "--queue-timeout", "600s"],
    );
    // With channel-IDs and without.
    for concurrency in [500, 0] {
        let squid = Squid::start(concurrency, &format!("--timeout 600s {}", daemon.addr()));
        squid.fetch(&web.url(CLEAN_DOMAIN, "clean")).assert_page("clean");
        let blocked = web.url(BLOCKED_DOMAIN, "banner.gif");
        let response = squid.fetch(&blocked);
        let location = response.location().unwrap_or_else(|| panic!("{response:?}"));
        assert_eq!(location, web.url("127.0.0.1", &format!("blocked?u={blocked}")));
        squid.fetch(location).assert_page(&format!("blocked?u={blocked}"));
    }
    assert_eq!(daemon.usr1().count("queries replied"), 6);
}

#[test]
fn squid_is_filtered_over_tls_with_a_certificate_of_its_own() {
    let (web, files) = (Web::start(), TlsFiles::new());
    let guard = squidguard(&web);
    let command = guard.command();
    let daemon = Daemon::with(["-n", "4", "--queue-timeout", "600s", "-d", &command]);
    let daemon = files.serve(daemon).start();
    let blocked = web.url(BLOCKED_DOMAIN, "banner.gif");
    // With channel-IDs and without: the lines share a connection, or one connection takes each.
    for (concurrency, connections) in [(500, "1"), (500, "0"), (0, "1")] {
        let asks = files.asks(&daemon.addr(), "squid.pem");
        let squid = Squid::start(concurrency, &format!("--connections {connections} {asks}"));
        for number in 0..8 {
            let path = number.to_string();
            squid.fetch(&web.url(CLEAN_DOMAIN, &path)).assert_page(&path);
            let location = squid.fetch(&blocked).location().map(str::to_owned);
            assert_eq!(location, Some(web.url("127.0.0.1", &format!("blocked?u={blocked}"))));
        }
        if (concurrency, connections) == (500, "1") {
            let dump = daemon.usr2();
            let is_named = |line: &String| line.ends_with("(TLSv1.3, subject \"CN=squid\")");
            assert!(dump.iter().any(is_named), "{dump:#?}");
        }
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (48, 0));
    assert_eq!((stats.count("tls cut"), stats.count("tls failed")), (0, 0));
    // All but the first line of an `ask` that connects for each resume a session.
    assert_eq!(stats.count("tls handshakes") - stats.count("tls resumed"), 3);
}

/// With ten minutes for each line, one that was tried for half of its time would hold the browser up.
#[test]
fn pages_load_at_once_while_the_pool_refuses_the_certificate_of_squid() {
    let (web, files) = (Web::start(), TlsFiles::new());
    let command = worker_command(&[]);
    let daemon = files.serve(Daemon::with(["-n", "1", "-d", &command])).start();
    for (concurrency, lines) in [(500, 1), (0, 4)] {
        let squid = Squid::start(concurrency, &files.asks(&daemon.addr(), "foreign.pem"));
        for number in 0..3 {
            let path = number.to_string();
            squid.fetch(&web.url(CLEAN_DOMAIN, &path)).assert_page(&path);
        }
        daemon.stderr_wait_nth("its certificate comes from no authority that is trusted here", lines);
    }
    assert_eq!(daemon.usr1().count("queries total"), 0);
}

#[test]
fn every_client_gets_the_answer_to_its_own_url() {
    let web = Web::start();
    let guard = squidguard(&web);
    let daemon = Daemon::pool(4, &guard.command(), &["--queue-timeout", "600s"]);
    let squid = Squid::start(500, &format!("--timeout 600s {}", daemon.addr()));
    let browsers: Vec<_> = (0..24)
        .map(|browser| {
            let (address, blocked) = (squid.address.clone(), web.url(BLOCKED_DOMAIN, ""));
            let (clean, page) = (web.url(CLEAN_DOMAIN, ""), web.url("127.0.0.1", "blocked?u="));
            thread::spawn(move || {
                for number in 0..8 {
                    let path = format!("{browser}-{number}");
                    let response = fetch(&address, &format!("{blocked}{path}"));
                    assert_eq!(
                        response.location(),
                        Some(format!("{page}{blocked}{path}").as_str()),
                        "{response:?}"
                    );
                    fetch(&address, &format!("{clean}{path}")).assert_page(&path);
                }
            })
        })
        .collect();
    for browser in browsers {
        browser.join().expect("every browser got its own pages");
    }
    assert_eq!(daemon.usr1().count("queries replied"), 24 * 8 * 2);
}

#[test]
fn pages_load_while_the_pool_is_away_and_are_filtered_when_it_is_back() {
    let web = Web::start();
    let guard = squidguard(&web);
    let port = free_port().to_string();
    let (command, blocked) = (guard.command(), web.url(BLOCKED_DOMAIN, "banner.gif"));
    let start = || {
        Daemon::with([
            "-n",
            "2",
            "--queue-timeout",
            "600s",
            "-d",
            command.as_str(),
            "-p",
            port.as_str(),
        ])
        .start()
    };
    let daemon = start();
    let squid = Squid::start(500, &format!("--timeout 10s 127.0.0.1:{port}"));
    assert!(squid.fetch(&blocked).location().is_some());

    drop(daemon);
    for number in 0..10 {
        squid
            .fetch(&web.url(CLEAN_DOMAIN, &format!("{number}")))
            .assert_page(&format!("{number}"));
        squid.fetch(&blocked).assert_page("banner.gif");
    }

    let daemon = start();
    // `ask` tries the address again after a while; until then pages go on loading.
    let deadline = Instant::now() + WATCHDOG;
    loop {
        let response = squid.fetch(&blocked);
        if response.location().is_some() {
            break;
        }
        response.assert_page("banner.gif");
        assert!(Instant::now() < deadline, "filtering has not come back: {response:?}");
    }
    drop(daemon);
}

#[test]
fn a_pool_that_hangs_does_not_hang_the_browser() {
    let web = Web::start();
    let daemon = Daemon::pool(
        1,
        &worker_command(&["--never-read"]),
        &["-b", "600s", "--queue-timeout", "600s"],
    );
    for concurrency in [500, 0] {
        let squid = Squid::start(concurrency, &format!("--timeout 100ms {}", daemon.addr()));
        for number in 0..3 {
            squid
                .fetch(&web.url(CLEAN_DOMAIN, &format!("{number}")))
                .assert_page(&format!("{number}"));
        }
    }
}

/// A new helper is a new beginning for channel-IDs, too.
#[test]
fn a_reconfigured_squid_is_filtered_as_before() {
    let web = Web::start();
    let guard = squidguard(&web);
    let daemon = Daemon::pool(2, &guard.command(), &["--queue-timeout", "600s"]);
    let squid = Squid::start(10, &format!("--channel-ids auto --timeout 600s {}", daemon.addr()));
    let blocked = web.url(BLOCKED_DOMAIN, "banner.gif");
    for round in 1..=3 {
        for _ in 0..3 {
            assert!(squid.fetch(&blocked).location().is_some(), "round {round}");
        }
        squid.program.signal(Signal::SIGHUP);
        squid
            .program
            .stderr_wait_nth("Accepting HTTP Socket connections", round + 1);
        squid.wait_listening();
    }
    assert!(squid.fetch(&blocked).location().is_some());
    assert_eq!(daemon.usr1().count("queries replied"), 10);
}

// ---- passwords -------------------------------------------------------------------------------------------------

/// `1042:pw1042` and `1:pw1` in base64, and a wrong password.
const USERS: [&str; 2] = ["MTA0MjpwdzEwNDI=", "MTpwdzE="];
const WRONG: &str = "MTA0MjpndWVzcw==";

/// A program that knows the passwords of two users.
const CHECKER: &str =
    "sh -c 'while read -r line; do case $line in \"1042 pw1042\"|\"1 pw1\") echo OK;; *) echo ERR;; esac; done'";

#[test]
fn users_whose_names_are_numbers_log_in() {
    let web = Web::start();
    let daemon = Daemon::pool(2, CHECKER, &["--queue-timeout", "600s", "--confidential"]);
    for (concurrency, channel_ids) in [(0, "no"), (10, "yes"), (10, "auto"), (0, "auto")] {
        let asks = format!(
            "--confidential --fail closed --channel-ids {channel_ids} --timeout 600s {}",
            daemon.addr()
        );
        let squid = Squid::with(|ask| {
            format!(
                "auth_param basic program {ask} {asks}\n\
                 auth_param basic children 1 startup=0 idle=1 concurrency={concurrency}\n\
                 auth_param basic realm test\nacl users proxy_auth REQUIRED\n\
                 http_access allow users\nhttp_access deny all\n"
            )
        });
        squid
            .fetch_as(USERS[0], &web.url(CLEAN_DOMAIN, "first"))
            .assert_page("first");
        let refused = squid.fetch_as(WRONG, &web.url(CLEAN_DOMAIN, "wrong"));
        assert!(refused.head.starts_with("HTTP/1.1 407 "), "{refused:?}");
        // Without channel-IDs, and without a word about them, a user called 1 cannot be told from one.
        if (concurrency, channel_ids) != (0, "auto") {
            squid
                .fetch_as(USERS[1], &web.url(CLEAN_DOMAIN, "second"))
                .assert_page("second");
        }
    }
}

// ---- when no pool answers ----------------------------------------------------------------------------------------

#[test]
fn fail_closed_lets_nothing_pass_wherever_squid_asks() {
    let web = Web::start();
    let away = format!("--fail closed --timeout 100ms 127.0.0.1:{}", free_port());
    let closed = "HTTP/1.1 302 ";
    for concurrency in [0, 10] {
        let squid = Squid::start(concurrency, &away);
        for (method, url) in [
            ("GET", web.url(CLEAN_DOMAIN, "clean")),
            ("CONNECT", "127.0.0.1:443".to_owned()),
        ] {
            let response = ask_for(&squid.address, method, &url, "");
            assert!(response.head.starts_with(closed), "{method}: {response:?}");
            assert_eq!(response.location(), Some("http://url-filter-unavailable.invalid/"));
        }
    }
    for rules in [
        "allow listed\nhttp_access deny all",
        "deny listed\nhttp_access allow all",
        "deny !listed\nhttp_access allow all",
    ] {
        let squid = Squid::with(|ask| {
            format!(
                "external_acl_type pool ttl=0 negative_ttl=0 concurrency=10 children-max=1 %SRC {ask} --channel-ids yes {away}\n\
                 acl listed external pool\nhttp_access {rules}\n"
            )
        });
        let response = squid.fetch(&web.url(CLEAN_DOMAIN, "clean"));
        assert!(response.head.starts_with("HTTP/1.1 403 "), "{rules}: {response:?}");
    }
    let squid = Squid::with(|ask| {
        format!(
            "auth_param basic program {ask} --channel-ids no {away}\nauth_param basic children 1 concurrency=0\n\
             auth_param basic realm test\nacl users proxy_auth REQUIRED\nhttp_access allow users\nhttp_access deny all\n"
        )
    });
    let response = squid.fetch_as(USERS[0], &web.url(CLEAN_DOMAIN, "clean"));
    assert!(response.head.starts_with("HTTP/1.1 407 "), "{response:?}");
}

/// The pool's own refusals, with the same word on its side.
#[test]
fn a_pool_that_refuses_lets_nothing_pass_where_it_fails_closed() {
    let web = Web::start();
    let page = web.url("127.0.0.1", "denied");
    let hanging = worker_command(&["--never-read"]);
    let flags = [
        "-b",
        "600s",
        "--queue-timeout",
        "100ms",
        "--queue-size",
        "0",
        "--fail",
        "closed",
        "--fail-url",
        &page,
    ];
    let daemon = Daemon::pool(1, &hanging, &flags);
    let mut first = Client::connect(&daemon.addr());
    first.send("busy\n");
    daemon.usr1_until(|stats| stats.count("queries total") == 1);
    let squid = Squid::start(10, &format!("--timeout 600s {}", daemon.addr()));
    let response = squid.fetch(&web.url(CLEAN_DOMAIN, "clean"));
    assert_eq!(response.location(), Some(page.as_str()), "{response:?}");
}
