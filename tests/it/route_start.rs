//! Servers that are programs of the route door: started by their first client, shared by all, stopped when unused.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::harness::{Client, Daemon, Installation, TempDir, free_port, temp_dir};
use crate::route_peers::{Backend, INTERNAL_ERROR, RouteFile, at, client, hello};
use crate::upgrade::upgrade;

/// A server at a port of 127.0.0.1 or a UNIX socket. It writes a line about itself into a file when it is started,
/// answers each piece that ends a line with its process id, and returns all that a client has sent at the client's end.
const SERVER: &str = r#"
use strict; use warnings; use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
my ($where, $starts) = @ARGV;
open(my $file, '>>', $starts) or die "starts: $!"; syswrite($file, "$$ $>\n"); close $file;
unlink $where if $where =~ m{/};
my $listener = $where =~ m{/} ? IO::Socket::UNIX->new(Local => $where, Listen => 512)
    : IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $where, Listen => 512, ReuseAddr => 1);
die "cannot listen: $!" unless $listener;
syswrite(STDOUT, "listening there\n");
my $all = IO::Select->new($listener); my %got;
while (my @ready = $all->can_read) {
    for my $one (@ready) {
        if ($one == $listener) { my $new = $listener->accept or next; $all->add($new); next; }
        if (sysread($one, my $piece, 65536)) {
            $got{$one} .= $piece; syswrite($one, "$$\n") if $piece =~ /\n\z/; next;
        }
        syswrite($one, $got{$one} // ''); $all->remove($one); delete $got{$one}; close $one;
    }
}
"#;

/// A server that may be started.
struct Server {
    home: TempDir,
    /// A port or a path.
    address: String,
}

impl Server {
    fn new() -> Self {
        let home = temp_dir();
        fs::write(home.path().join("server.pl"), SERVER).expect("write the server");
        // A server with a user of its own reads and writes here.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(home.path(), open).expect("a directory that all may use");
        let address = free_port().to_string();
        Self { home, address }
    }

    fn on_unix_socket() -> Self {
        let server = Self::new();
        let address = server.home.path().join("socket").display().to_string();
        Self { address, ..server }
    }

    fn starts_file(&self) -> PathBuf {
        self.home.path().join("starts")
    }

    /// The command that starts it. `mark` makes it another one.
    fn command(&self, mark: &str) -> String {
        let home = self.home.path().display();
        format!("perl {home}/server.pl {} {home}/starts {mark}", self.address)
    }

    /// The keys of its service.
    fn keys(&self, more: &str) -> String {
        self.keys_with(&self.command(""), more)
    }

    fn keys_with(&self, command: &str, more: &str) -> String {
        let addr = if self.address.starts_with('/') {
            format!("addr = 'unix:{}'", self.address)
        } else {
            format!("addr = '127.0.0.1'\ntls-port = {}", self.address)
        };
        format!("{addr}\nstart = '{command}'\n{more}")
    }

    /// The lines that it has written, one for each start.
    fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.starts_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const NAME: &str = "app.example";

fn door(keys: &str, server: &Server, more: &str) -> (Daemon, RouteFile) {
    let file = RouteFile::new(keys, &[(NAME, server.keys(more))]);
    (file.start(), file)
}

/// A client that the server has answered, and the process id of that.
#[track_caller]
fn served(daemon: &Daemon) -> (Client, i32) {
    let mut client = client(daemon, NAME, "who?\n");
    let pid = ask_again(&mut client, "");
    (client, pid)
}

#[track_caller]
fn ask_again(client: &mut Client, says: &str) -> i32 {
    client.send(says);
    let line = client.read_line();
    line.trim().parse().unwrap_or_else(|_| panic!("{line:?} is no number"))
}

/// A client that sends something, ends, and is returned all of it.
#[track_caller]
fn returned(daemon: &Daemon) {
    let mut client = client(daemon, NAME, "and more");
    client.half_close();
    let whole = [&hello(NAME)[..], b"and more"].concat();
    assert_eq!(client.read_to_end(), whole);
}

#[track_caller]
fn refused(daemon: &Daemon) {
    assert_eq!(client(daemon, NAME, "").read_to_end(), INTERNAL_ERROR);
}

#[test]
fn the_first_client_starts_the_server_and_its_hello_arrives_whole() {
    let server = Server::new();
    let (daemon, _file) = door("", &server, "");
    assert!(server.starts().is_empty() && daemon.children().is_empty());
    returned(&daemon);
    let (_first, pid) = served(&daemon);
    let (_second, other) = served(&daemon);
    assert_eq!((daemon.children(), other), (vec![pid], pid));
    assert_eq!(server.starts(), [format!("{pid} {}", geteuid())]);
    let stats = daemon.usr1();
    let count = |label| stats.count(label);
    assert_eq!(
        (
            count("programs started"),
            count("programs running"),
            count("programs failed")
        ),
        (1, 1, 0)
    );
    assert_eq!((count("connect failed"), count("backends out")), (0, 0));
    daemon.stderr_wait("started, because a client asks for its server");
    daemon.stderr_wait("its server is there after");
    daemon.stderr_wait(&format!("(pid {pid}): listening there"));
    let dump = daemon.usr2().join("\n");
    let line = format!("state = up, pid = {pid}, started = ");
    assert!(
        dump.contains(&line) && dump.contains("waiting = 0, active = 2"),
        "{dump}"
    );
}

#[test]
fn many_clients_at_once_start_the_server_once() {
    const MANY: usize = 300;
    let server = Server::new();
    let (daemon, _file) = door("", &server, "");
    let mut clients: Vec<Client> = (0..MANY).map(|_| client(&daemon, NAME, "who?\n")).collect();
    let pids: Vec<i32> = clients.iter_mut().map(|client| ask_again(client, "")).collect();
    assert_eq!(pids, [pids[0]; MANY]);
    assert_eq!(server.starts().len(), 1);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("routes active"), stats.count("programs started")),
        (300, 1)
    );
}

#[test]
fn a_server_on_a_unix_socket_is_started_as_well() {
    let server = Server::on_unix_socket();
    let (daemon, _file) = door("", &server, "");
    returned(&daemon);
    let (_client, pid) = served(&daemon);
    assert_eq!(daemon.children(), [pid]);
}

#[test]
fn services_with_the_same_program_share_it() {
    let server = Server::new();
    let services = [(NAME, server.keys("")), ("www.app.example", server.keys(""))];
    let daemon = RouteFile::new("", &services).start();
    let (_client, pid) = served(&daemon);
    let mut other = client(&daemon, "www.app.example", "who?\n");
    assert_eq!((ask_again(&mut other, ""), server.starts().len()), (pid, 1));
}

#[test]
fn a_server_that_is_there_already_is_used_as_it_is() {
    let backend = Backend::new();
    let keys = format!("{}\nstart = '/bin/false'\nidle = '100ms'", at(backend.address()));
    let daemon = RouteFile::new("", &[(NAME, keys)]).start();
    for _ in 0..3 {
        let mut client = client(&daemon, NAME, "");
        let mut served = backend.accept();
        served.expect(hello(NAME));
        served.send("yes");
        client.read_text("yes");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(
        (stats.count("programs started"), stats.count("programs failed")),
        (0, 0)
    );
}

// ---- failures --------------------------------------------------------------------------------------------------

#[test]
fn a_program_that_never_listens_is_ended_and_its_clients_are_refused() {
    let server = Server::new();
    let keys = server.keys_with("sleep 1000", "ready-timeout = '300ms'\nkill-timeout = '100ms'");
    let daemon = RouteFile::new("", &[(NAME, keys)]).start();
    let mut clients: Vec<Client> = (0..3).map(|_| client(&daemon, NAME, "")).collect();
    for client in &mut clients {
        assert_eq!(client.read_to_end(), INTERNAL_ERROR);
    }
    daemon.stderr_wait("is ended: its server was not there within 300 ms (ready-timeout)");
    daemon.stderr_wait("was not there within its ready-timeout");
    let stats = daemon.usr1_until(|stats| stats.count("programs running") == 0);
    assert_eq!(
        (stats.count("programs started"), stats.count("programs failed")),
        (1, 1)
    );
    assert!(daemon.children().is_empty());
}

#[test]
fn a_program_that_exits_at_once_has_its_clients_refused_at_once_and_is_not_started_all_the_time() {
    let server = Server::new();
    // The time is that of a hang.
    let keys = server.keys_with("perl -e \"exit 7\"", "ready-timeout = '1h'");
    let daemon = RouteFile::new("", &[(NAME, keys)]).start();
    for _ in 0..20 {
        refused(&daemon);
    }
    daemon.stderr_wait("has exited by itself: exit status 7");
    daemon.stderr_wait("is not there: its program has failed");
    let stats = daemon.usr1();
    let started = stats.count("programs started");
    // One failure has no consequence, the second one a rest of a second, the third one of two.
    assert!((2..10).contains(&started), "{started}");
    assert_eq!(stats.count("programs failed"), started);
}

#[test]
fn a_program_that_cannot_be_started_costs_its_own_service_alone() {
    let (server, backend) = (Server::new(), Backend::new());
    let keys = server.keys_with("/no/such/program", "");
    let services = [(NAME, keys), ("www.example.org", at(backend.address()))];
    let daemon = RouteFile::new("", &services).start();
    daemon.stderr_wait("program /no/such/program is not available");
    refused(&daemon);
    daemon.stderr_wait("program /no/such/program cannot be started");
    let _client = client(&daemon, "www.example.org", "");
    backend.accept().expect(hello("www.example.org"));
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("programs started"), stats.count("programs failed")),
        (0, 1)
    );
}

#[test]
fn a_server_that_is_killed_breaks_its_connections_and_the_next_client_starts_it_again() {
    let server = Server::new();
    let (daemon, _file) = door("", &server, "");
    let (mut broken, pid) = served(&daemon);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server");
    broken.read_to_end_or_reset();
    // Before, a dying process may still have its listener.
    daemon.stderr_wait(&format!("(pid {pid}) has exited by itself: signal 9 (SIGKILL)"));
    let (_client, other) = served(&daemon);
    assert_ne!(pid, other);
    assert_eq!(server.starts().len(), 2);
}

#[test]
fn a_client_that_leaves_before_its_server_is_there_is_forgotten() {
    let server = Server::new();
    let keys = server.keys_with("sleep 1000", "ready-timeout = '1h'");
    let daemon = RouteFile::new("", &[(NAME, keys)]).start();
    let client = client(&daemon, NAME, "");
    daemon.usr1_until(|stats| stats.count("programs running") == 1);
    client.reset();
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

// ---- ends ------------------------------------------------------------------------------------------------------

#[test]
fn an_unused_server_is_ended_and_started_again_by_the_next_client() {
    let server = Server::new();
    let (daemon, _file) = door("", &server, "idle = '200ms'");
    let (kept, pid) = served(&daemon);
    let (other, _) = served(&daemon);
    drop((kept, other));
    daemon.stderr_wait("is ended: no client has used it for its idle time");
    let line = daemon.stderr_wait(&format!("(pid {pid}) has ended"));
    assert!(line.contains("SIGTERM"), "{line}");
    assert!(daemon.children().is_empty());
    let (_client, other) = served(&daemon);
    assert_ne!(pid, other);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("programs started"), stats.count("programs failed")),
        (2, 0)
    );
}

#[test]
fn a_daemon_that_is_told_to_stop_ends_the_server_behind_its_last_connection() {
    let server = Server::new();
    let (daemon, _file) = door("stop-timeout = '600s'", &server, "");
    let (mut client, pid) = served(&daemon);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    assert_eq!(ask_again(&mut client, "still there?\n"), pid);
    drop(client);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.stderr_wait("is ended: it is not wanted any more");
}

#[test]
fn a_daemon_whose_time_to_stop_is_over_cuts_the_connections_and_ends_the_server() {
    let server = Server::new();
    let (daemon, _file) = door("stop-timeout = '100ms'", &server, "");
    let (mut client, pid) = served(&daemon);
    daemon.signal(Signal::SIGTERM);
    client.read_to_end_or_reset();
    daemon.wait_exit();
    daemon.stderr_wait(&format!("(pid {pid}) has ended"));
}

/// The harness looks for what is left when the daemon is dropped, which is killed.
#[test]
fn nothing_of_a_server_outlives_a_daemon_that_is_killed() {
    let server = Server::new();
    let command = format!("sh -c \"sleep 1000 & setsid sleep 1000 & exec {}\"", server.command(""));
    let daemon = RouteFile::new("", &[(NAME, server.keys_with(&command, ""))]).start();
    served(&daemon);
}

#[test]
fn an_unused_server_ends_with_all_that_it_has_started() {
    let server = Server::new();
    let command = format!("sh -c \"sleep 1000 & exec {}\"", server.command(""));
    let keys = server.keys_with(&command, "idle = '100ms'");
    let daemon = RouteFile::new("", &[(NAME, keys)]).start();
    let (client, pid) = served(&daemon);
    drop(client);
    daemon.stderr_wait(&format!("(pid {pid}) has ended"));
    daemon.usr1_until(|_| daemon.children().is_empty());
}

// ---- changes ---------------------------------------------------------------------------------------------------

#[track_caller]
fn reload(daemon: &Daemon, nth: usize) {
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("the configuration was read again", nth);
}

#[test]
fn a_changed_command_replaces_the_server_once_its_connections_have_ended() {
    let server = Server::new();
    let (daemon, file) = door("", &server, "");
    let (mut old, pid) = served(&daemon);
    file.write("", &[(NAME, server.keys_with(&server.command("changed"), ""))]);
    reload(&daemon, 1);
    assert_eq!(ask_again(&mut old, "still there?\n"), pid);
    let (other, same) = served(&daemon);
    assert_eq!(same, pid, "both cannot listen there");
    drop((old, other));
    daemon.stderr_wait(&format!("(pid {pid}) has ended"));
    let (_client, other) = served(&daemon);
    assert_ne!(pid, other);
    daemon.stderr_wait(&format!("changed (pid {other})"));
}

#[test]
fn the_settings_of_a_server_that_runs_on_are_taken_over() {
    let server = Server::new();
    let (daemon, file) = door("", &server, "");
    let (client, pid) = served(&daemon);
    file.write("", &[(NAME, server.keys("idle = '100ms'"))]);
    reload(&daemon, 1);
    drop(client);
    daemon.stderr_wait("is ended: no client has used it for its idle time");
    daemon.stderr_wait(&format!("(pid {pid}) has ended"));
}

#[test]
fn a_server_whose_service_is_removed_ends_with_its_last_connection() {
    let server = Server::new();
    let (daemon, file) = door("", &server, "");
    let (mut client, pid) = served(&daemon);
    let backend = Backend::new();
    file.write("", &[("www.example.org", at(backend.address()))]);
    reload(&daemon, 1);
    assert_eq!(ask_again(&mut client, "still there?\n"), pid);
    drop(client);
    daemon.stderr_wait(&format!("(pid {pid}) has ended"));
    assert!(!daemon.usr2().join("\n").contains("program perl"));
}

#[test]
fn a_successor_uses_the_server_of_its_predecessor_and_starts_its_own_when_that_has_ended() {
    let server = Server::new();
    let file = RouteFile::new("", &[(NAME, server.keys(""))]);
    let installation = Installation::new();
    let daemon = Daemon::with(["run", "--config", file.path()])
        .installed_at(&installation.program())
        .start();
    let (mut old, pid) = served(&daemon);
    upgrade(&daemon, daemon.pid(), 1);
    let (new, same) = served(&daemon);
    assert_eq!((same, server.starts().len()), (pid, 1));
    drop(new);
    assert_eq!(ask_again(&mut old, "still there?\n"), pid);
    drop(old);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let (_client, other) = served(&daemon);
    assert_ne!(pid, other);
}

// ---- the process -----------------------------------------------------------------------------------------------

#[test]
fn a_server_has_the_user_and_the_limits_of_its_service() {
    let server = Server::new();
    let user = if geteuid().is_root() { "user = 'nobody'\n" } else { "" };
    let keys = format!("{user}limit-open-files = 77\nchdir = '/'\nenv = ['MARK=yes']\nnice = 3");
    let (daemon, _file) = door("", &server, &keys);
    let (_client, pid) = served(&daemon);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    assert_eq!(files.split_whitespace().nth(3), Some("77"));
    if geteuid().is_root() {
        assert!(server.starts()[0].ends_with(" 65534"), "{:?}", server.starts());
    }
    let command = "sh -c \"echo in $(pwd), $MARK, $(nice)\"";
    let other = Server::new();
    let daemon = RouteFile::new("", &[(NAME, other.keys_with(command, &keys))]).start();
    refused(&daemon);
    daemon.stderr_wait(": in /, yes, 3");
}

#[test]
fn a_check_finds_a_program_that_is_missing() {
    let server = Server::new();
    let keys = server.keys_with("/no/such/program", "");
    let file = RouteFile::new("", &[(NAME, keys)]);
    let (status, _, stderr) = Daemon::with(["check", "--config", file.path()]).spawn().finish();
    assert!(!status.success());
    assert!(
        stderr.contains(": start: ") && stderr.contains("/no/such/program"),
        "{stderr}"
    );
}
