//! Clients that go before their answer: it goes to no client, and above all not to the next one.

use nix::sys::signal::Signal;

use crate::harness::{Address, Arrival, Client, Daemon, Gate, TempDir, temp_dir, worker_command};

/// The way in which a client goes.
#[derive(Debug, Clone, Copy)]
enum Farewell {
    /// A reset over TCP.
    Reset,
    /// Closing a UNIX socket.
    Close,
}

/// A pool of one worker that stands at a gate, with the client that sent it there.
struct Held {
    daemon: Daemon,
    arrival: Arrival,
    holder: Client,
    farewell: Farewell,
    _directory: TempDir,
}

impl Held {
    fn new(farewell: Farewell, flags: &[&str]) -> Self {
        let directory = temp_dir();
        let listen = match farewell {
            Farewell::Reset => "127.0.0.1:0".to_owned(),
            Farewell::Close => format!("unix:{}/pool", directory.path().display()),
        };
        let command = worker_command(&[]);
        let daemon = Daemon::with(["-n", "1", "-d", &command, "--queue-timeout", "60s", "--listen", &listen])
            .args(flags)
            .start();
        assert!(matches!(
            (daemon.addr(), farewell),
            (Address::Tcp(_) | Address::Tls(..), Farewell::Reset) | (Address::Unix(_), Farewell::Close)
        ));
        let gate = Gate::new();
        let mut holder = daemon.watched_client();
        holder.send(format!("wait {} held\n", gate.path()));
        let arrival = gate.arrival();
        Self {
            daemon,
            arrival,
            holder,
            farewell,
            _directory: directory,
        }
    }

    /// A client whose request waits in the queue.
    fn queued(&self, request: &str) -> Client {
        let before = self.daemon.usr1().count("queue length");
        let mut client = self.daemon.client();
        client.send(format!("{request}\n"));
        self.daemon
            .usr1_until(|stats| stats.count("queue length") == before + 1);
        client
    }

    fn leave(&self, client: Client) {
        match self.farewell {
            Farewell::Reset => client.reset(),
            Farewell::Close => drop(client),
        }
    }
}

#[test]
fn after_a_client_has_hung_up_the_next_client_of_its_worker_gets_its_own_answer() {
    for farewell in [Farewell::Reset, Farewell::Close] {
        let held = Held::new(farewell, &[]);
        let mut next = held.queued("echo next");
        let Held {
            daemon,
            arrival,
            holder,
            ..
        } = held;
        match farewell {
            Farewell::Reset => holder.reset(),
            Farewell::Close => drop(holder),
        }
        daemon.usr1_until(|stats| stats.count("queries timeout") == 1);
        assert!(!next.has_input());
        arrival.open();
        assert_eq!(next.read_to_end(), b"next\n", "{farewell:?}");
        // The same worker: it had been asked three times, once for a client that had gone.
        assert_eq!(daemon.ask("served"), "3\n");
        let stats = daemon.usr1();
        assert_eq!((stats.count("daemon spawns"), stats.count("queries timeout")), (1, 1));
    }
}

#[test]
fn the_request_of_a_client_that_left_the_queue_reaches_no_worker() {
    for farewell in [Farewell::Reset, Farewell::Close] {
        let mut held = Held::new(farewell, &[]);
        let leaver = held.queued("stderr this was asked for nobody");
        let mut stayer = held.queued("served");
        held.leave(leaver);
        held.daemon.usr1_until(|stats| stats.count("queue length") == 1);
        held.arrival.open();
        assert_eq!(held.holder.read_to_end(), b"held\n");
        assert_eq!(stayer.read_to_end(), b"2\n", "{farewell:?}");
        assert_eq!(held.daemon.usr1().count("queries timeout"), 1);
        assert!(!held.daemon.stderr.text().contains("asked for nobody"));
    }
}

/// They go while the daemon does not look, right behind the reply that frees the worker for them. Over a UNIX socket,
/// where a close is seen at once; a reset over TCP arrives when the kernel comes to it.
#[test]
fn clients_that_leave_the_queue_at_the_last_moment_cost_no_worker_anything() {
    let directory = temp_dir();
    let listen = format!("unix:{}/pool", directory.path().display());
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", &command, "--queue-timeout", "60s", "--listen", &listen]).start();
    let (before, behind) = (Gate::new(), Gate::new());
    let mut holder = daemon.client();
    holder.send(format!("wait-twice {} {} held\n", before.path(), behind.path()));
    let arrival = before.arrival();
    // Watched, so that each departure is an event that stands in a list behind the reply.
    let mut leavers: Vec<Client> = (0..10).map(|_| daemon.watched_client()).collect();
    leavers.iter_mut().for_each(|leaver| leaver.send("echo nobody\n"));
    daemon.usr1_until(|stats| stats.count("queue length") == 10);
    let mut stayer = daemon.client();
    stayer.send("served\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 11);
    daemon.signal(Signal::SIGSTOP);
    arrival.open();
    let replied = behind.arrival();
    drop(leavers);
    daemon.signal(Signal::SIGCONT);
    replied.open();
    assert_eq!(holder.read_to_end(), b"held\n");
    assert_eq!(stayer.read_to_end(), b"2\n");
    assert_eq!(daemon.usr1().count("queries timeout"), 10);
}

#[test]
fn a_client_that_ends_its_input_is_answered_all_the_same() {
    for farewell in [Farewell::Reset, Farewell::Close] {
        let mut held = Held::new(farewell, &[]);
        let mut queued = held.queued("served");
        queued.half_close();
        held.holder.half_close();
        held.daemon.usr1();
        held.arrival.open();
        assert_eq!(held.holder.read_to_end(), b"held\n");
        assert_eq!(queued.read_to_end(), b"2\n", "{farewell:?}");
        let mut at_once = held.daemon.client();
        at_once.send("echo at once\n");
        at_once.half_close();
        assert_eq!(at_once.read_to_end(), b"at once\n");
        assert_eq!(held.daemon.usr1().count("queries timeout"), 0);
    }
}

#[test]
fn a_client_that_ends_its_input_has_gone_where_the_operator_says_so() {
    let mut held = Held::new(Farewell::Reset, &["--half-close", "hang-up"]);
    let mut queued = held.queued("stderr this was asked for nobody");
    let mut stayer = held.queued("served");
    queued.half_close();
    held.daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(queued.read_to_end(), b"");
    held.holder.half_close();
    assert_eq!(held.holder.read_to_end(), b"");
    held.daemon.usr1_until(|stats| stats.count("queries timeout") == 2);
    held.arrival.open();
    assert_eq!(stayer.read_to_end(), b"2\n");
    assert!(!held.daemon.stderr.text().contains("asked for nobody"));
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_line_costs_nothing() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "60s"]);
    let mut client = daemon.client();
    client.send("echo half a li");
    client.reset();
    daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.usr1().count("queries total"), 1);
}

crate::harness::over_tls! {
    after_a_client_has_hung_up_the_next_client_of_its_worker_gets_its_own_answer,
    the_request_of_a_client_that_left_the_queue_reaches_no_worker,
    a_client_that_ends_its_input_is_answered_all_the_same,
    a_client_that_leaves_in_the_middle_of_its_line_costs_nothing,
}
