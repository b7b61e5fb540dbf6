//! Proof under fire: the daemon's promises while everything around it goes wrong.
//!
//! `chaos [SECONDS] [SEED]` starts an `iotcpd` with scripted workers on TCP and a UNIX socket, and for that time
//!
//! * lets a few hundred clients ask, each request with a text of its own and its answer known ([`plan`]). Some requests kill
//!   their worker, hang it, or make it write garbage; some clients leave, send nonsense, or say nothing;
//! * kills, stops and wakes workers, kills the guard, upgrades the daemon, and sends HUP, USR1 and USR2, all at random ([`mischief`]).
//!
//! Then the load stops, and the counters must be at rest and agree with what the clients saw. Then it begins anew, and TERM
//! comes in the middle of it: the daemon must exit with 0 and leave no process.
//!
//! | promise | broken by |
//! | --- | --- |
//! | an answer goes whole to its own client, or to nobody | a *wrong answer*: any bytes but the client's own answer or the refusal |
//! | an answer or a refusal, in bounded time | a *silent loss*: a connection refused by the kernel, closed without a word, or open after queue time-out, busy time-out, read time-out and [`MARGIN`] |
//! | total = replied + failed + timeout + in hand | a block of statistics in which it is not so, or requests in hand at the end |
//! | who got an answer is counted as replied | fewer replied than answers seen, or more than those and the clients who left; after an upgrade only the latter, as the counts before it went with the old process |
//! | an upgrade always succeeds, and the old process finishes what it has | one that fails; another status than 0 |
//! | TERM ends it with 0, nothing outlives it | another status, or none in time; a process that bears its mark |
//!
//! Excused: the client that left first; one that never sent a whole line, which may be closed without a word; and whoever
//! had not sent the last byte when TERM was sent. What is not asked, because nobody could judge it, is in [`plan`].
//!
//! The seed decides what each client and the mischief do, one after the other; when they do it is up to the scheduler.
//! Exit status 1: a promise was broken; the seed and the end of the daemon's log are printed.

mod client;
mod daemon;
mod dice;
mod gates;
mod mischief;
mod plan;
mod tally;

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::client::Target;
use crate::daemon::{BUSY_TIMEOUT, Daemon, QUEUE_TIMEOUT, READ_TIMEOUT, Statistics};
use crate::dice::Dice;
use crate::gates::Gates;
use crate::plan::Plan;
use crate::tally::Tally;

const WORKERS: usize = 16;
const CLIENTS: u64 = 250;
/// Milliseconds between two connections of one client, at most.
const PAUSE: u64 = 600;

/// How much later than promised something may happen on a machine that has too much to do.
const MARGIN: Duration = Duration::from_secs(10);
/// How long the load has gone on again when TERM comes, and how long it tries after that.
const BEFORE_TERM: Duration = Duration::from_millis(700);
const AFTER_TERM: Duration = Duration::from_millis(300);
const REST: Duration = Duration::from_millis(20);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, seed) = match words.as_slice() {
        [] => (60, any_seed()?),
        [seconds] => (seconds.parse()?, any_seed()?),
        [seconds, seed] => (seconds.parse()?, seed.parse()?),
        _ => return Err("usage: chaos [SECONDS] [SEED]".into()),
    };
    println!("chaos: {seconds} s, seed {seed}");
    let mut daemon = Daemon::start(WORKERS)?;
    let broken = Fire::new(&daemon, seed)?.run(&mut daemon, Duration::from_secs(seconds));
    if broken.is_empty() {
        println!("chaos: every promise held");
        return Ok(ExitCode::SUCCESS);
    }
    println!("--- the end of the daemon's log\n{}\n---", daemon.log().join("\n"));
    broken.iter().for_each(|promise| println!("BROKEN: {promise}"));
    println!("chaos: promises were broken; again: scripts/chaos {seconds} {seed}");
    Ok(ExitCode::FAILURE)
}

fn any_seed() -> Result<u64, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()))
}

/// The load and the mischief, and the promises that were broken.
struct Fire {
    seed: u64,
    gates: Gates,
    target: Target,
    broken: Vec<String>,
}

impl Fire {
    fn new(daemon: &Daemon, seed: u64) -> Result<Self, Box<dyn Error>> {
        let promised = Duration::from_millis(QUEUE_TIMEOUT + BUSY_TIMEOUT + READ_TIMEOUT);
        Ok(Self {
            seed,
            gates: Gates::open(daemon.home())?,
            target: Target {
                tcp: daemon.tcp,
                unix: daemon.unix.clone(),
                patience: promised + MARGIN,
                ending: AtomicBool::new(false),
            },
            broken: Vec::new(),
        })
    }

    fn run(mut self, daemon: &mut Daemon, time: Duration) -> Vec<String> {
        let mut tally = self.under_fire(daemon, time);
        match self.at_rest(daemon) {
            Ok(statistics) => self.compare(&statistics, &tally, daemon.was_upgraded()),
            Err(error) => self.broken.push(error.to_string()),
        }
        tally.add(self.under_term(daemon));
        println!("{tally}");
        self.broken.extend(tally.offences());
        if let Err(error) = self.after_the_end(daemon) {
            self.broken.push(error.to_string());
        }
        self.broken
    }

    /// Load and mischief for so long.
    fn under_fire(&mut self, daemon: &mut Daemon, time: Duration) -> Tally {
        let (running, stopped) = mpsc::channel();
        let mut dice = Dice::new(self.seed, mischief::PLAYER);
        let (tally, done) = thread::scope(|scope| {
            // Boxed errors stay in their thread; what they say does not have to.
            let mischief =
                scope.spawn(move || mischief::make(daemon, &mut dice, &stopped).map_err(|error| error.to_string()));
            let tally = self.load(0, Instant::now() + time);
            drop(running);
            (tally, mischief.join())
        });
        match done {
            Ok(Ok(done)) => println!("mischief: {done}\n"),
            Ok(Err(error)) => self.broken.push(error),
            Err(_) => self.broken.push("the mischief itself broke down".to_owned()),
        }
        tally
    }

    /// Every client until then, and until its last connection has ended. `round` keeps the dice of two loads apart.
    fn load(&self, round: u64, until: Instant) -> Tally {
        let mut all = Tally::default();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|player| {
                    let player = player + round * CLIENTS;
                    scope.spawn(move || self.one_client(player, until))
                })
                .collect();
            for client in clients {
                match client.join() {
                    Ok(tally) => all.add(tally),
                    Err(_) => all.broke_down(),
                }
            }
        });
        all
    }

    fn one_client(&self, player: u64, until: Instant) -> Tally {
        let mut dice = Dice::new(self.seed, player);
        let mut tally = Tally::default();
        for number in 0_u64.. {
            thread::sleep(dice.pause(PAUSE));
            if Instant::now() >= until {
                break;
            }
            let plan = Plan::draw(&mut dice, &self.gates, &format!("{player}.{number}"));
            let (outcome, took) = client::perform(&plan, &self.target);
            tally.count(&plan, &outcome, took);
        }
        tally
    }

    /// The statistics once nothing is in hand any more: what clients left behind may still be worked on.
    fn at_rest(&self, daemon: &Daemon) -> Result<Statistics, Box<dyn Error>> {
        let deadline = Instant::now() + self.target.patience;
        loop {
            let statistics = daemon.statistics()?;
            let in_hand = statistics.in_hand();
            if in_hand == Some(0) && statistics.count("connections") == 0 {
                return Ok(statistics);
            }
            if Instant::now() >= deadline {
                return Err(format!("without load, {in_hand:?} requests in hand: {statistics:?}").into());
            }
            thread::sleep(REST);
        }
    }

    fn compare(&mut self, statistics: &Statistics, tally: &Tally, was_upgraded: bool) {
        let (answered, replied) = (tally.answered(), statistics.count("queries replied"));
        let at_least = if was_upgraded { 0 } else { answered };
        if !(at_least..=answered + tally.left()).contains(&replied) {
            let left = tally.left();
            self.broken.push(format!(
                "{replied} counted as replied, {answered} answers seen, {left} clients left"
            ));
        }
        if answered == 0 {
            self.broken.push("nobody was answered, so nothing is proven".to_owned());
        }
        let since = if was_upgraded {
            "since its last upgrade and "
        } else {
            ""
        };
        println!("what the daemon counted, {since}before TERM");
        for label in ["total", "replied", "failed", "timeout", "retried", "delayed", "unknown"] {
            println!("{label:<10} {}", statistics.count(&format!("queries {label}")));
        }
        println!("in hand    0");
        println!("spawns     {}", statistics.count("daemon spawns"));
        println!("restarts   {}", statistics.all_of("restarts "));
        println!("refused    {}\n", statistics.all_of("refused "));
    }

    /// The load again, and TERM in the middle of it.
    fn under_term(&self, daemon: &Daemon) -> Tally {
        thread::scope(|scope| {
            let load = scope.spawn(|| self.load(1, Instant::now() + BEFORE_TERM + AFTER_TERM));
            thread::sleep(BEFORE_TERM);
            self.target.ending.store(true, Ordering::SeqCst);
            // If it is not there any more, its exit status will say so.
            daemon.signal(Signal::SIGTERM).ok();
            load.join().unwrap_or_else(|_| {
                let mut none = Tally::default();
                none.broke_down();
                none
            })
        })
    }

    fn after_the_end(&mut self, daemon: &mut Daemon) -> Result<(), Box<dyn Error>> {
        match daemon.wait(self.target.patience)? {
            Some(status) if status.success() => {}
            Some(status) => self.broken.push(format!("after TERM the daemon ended by {status}")),
            None => self.broken.push("after TERM the daemon did not end".to_owned()),
        }
        let left = daemon.left_behind()?;
        if !left.is_empty() {
            self.broken.push(format!("left behind: {}", left.join(", ")));
        }
        if self.target.unix.exists() {
            self.broken.push("the UNIX socket was left behind".to_owned());
        }
        Ok(())
    }
}
