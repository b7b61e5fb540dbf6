//! Chaos test: the daemon's promises while everything around it goes wrong.
//!
//! `chaos [SECONDS] [SEED] [MODE...]` starts an `iotcpd` with a pool for each mode ([`mode`]), or for those named, each on TCP and a UNIX socket,
//! whose workers are this very program (`worker`), and for that time
//!
//! * lets a few hundred clients ask ([`plan`]), each request with a text of its own and its answer known
//!   ([`request`]). Some requests kill their worker, hang it, or make it write garbage or a line too many; some clients
//!   leave, send nonsense, or say nothing;
//! * kills, stops and wakes workers, stops some while they are started, lets them fail their probes, kills the guards,
//!   upgrades the daemon, and sends HUP, USR1 and USR2, all at random ([`fault`]).
//!
//! Then the load stops, and the counters must be at rest and agree with what the clients saw. Then load starts again,
//! and TERM comes in the middle of it: the daemon must exit with 0 and leave no process. At last some daemons are
//! killed while they start their workers, every third of which has descendants in groups and sessions of its own.
//!
//! | promise | broken by |
//! | --- | --- |
//! | an answer goes whole to its own client, in the order of its requests or behind the number of its own, or to no client | a *wrong answer*: any bytes but the client's own answer or the refusal |
//! | a line behind a number gets one line with that number, on its own connection | a wrong answer: a second line, one with a number that is not under way, or another line that has no place there |
//! | a cancelled line gets one line as well | a silent loss |
//! | a pool that drains answers every line that was sent until its client could know | a silent loss; a line that was not sent is asked again |
//! | an answer or a refusal, in bounded time | a *silent loss*: a connection refused by the kernel, closed without a word, or open after queue time-out, busy time-out, read time-out, idle time-out and [`MARGIN`] |
//! | after HUP nothing is known any more | a wrong answer: one of a worker from before, to a request sent after all were replaced |
//! | a worker that fails its probe does not serve | a wrong answer: one of a worker that has been sick for longer than twice the interval of probes, and what else may come in between |
//! | what a worker has said in its session arrives | a wrong answer: one that is cut although its worker had come to its end, and before idle time-out |
//! | a pool has no more workers than it may | a block of statistics with more |
//! | total = replied + failed + timeout + in hand | a block of statistics in which it is not so, or requests in hand at the end |
//! | an answered client is counted as replied | fewer replied than answers seen, or more than those, the clients that left and the sessions that were cut; after an upgrade only the latter, as the counts before it went with the old process |
//! | an upgrade always succeeds, and the old process finishes what it has | one that fails; another status than 0 |
//! | TERM ends it with 0, nothing outlives it, and nothing one that is killed | another status, or none in time; a process that bears its mark |
//!
//! Excused: the client that left first; one that never sent a whole request, which may be closed without a word; and
//! one that had not sent the last byte when TERM was sent. On a connection that is kept, the end of it in the place of
//! an answer means "not served, ask again": allowed while the daemon is upgraded, and the client does ask again, and at
//! TERM. The end of a multiplexed connection is excused only while the daemon is upgraded and has not answered the hello;
//! a client that does not read before it sends may be late with what it sends to a pool that drains. A line that is not
//! whole, or has no number where each has one, needs no answer. Requests whose answer no client could judge are not sent; [`request`] lists them.
//!
//! The seed decides each step of each client and of the fault injector; the time of a step is up to the scheduler.
//! Exit status 1: a promise was broken; the seed is printed, and the end of the daemon's log, whose whole is kept.

mod ask;
mod client;
mod clock;
mod daemon;
mod dice;
mod fault;
mod log;
mod mode;
mod numbered;
mod plan;
mod request;
mod secured;
mod statistics;
mod tally;
mod timeline;
mod wire;
mod worker;

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::client::{Outcome, Seen, Target};
use crate::daemon::Daemon;
use crate::dice::Dice;
use crate::fault::FaultInjector;
use crate::log::Log;
use crate::mode::{BUSY_TIMEOUT, IDLE_TIMEOUT, MAX_UNANSWERED, PROBE_INTERVAL, QUEUE_TIMEOUT, READ_TIMEOUT};
use crate::plan::{MOST_WITH_NUMBERS, Plan};
use crate::statistics::Statistics;
use crate::tally::Tally;
use crate::timeline::Timeline;

/// In each mode.
const CLIENTS: u64 = 10;
/// Milliseconds between two connections of one client, at most.
const PAUSE: u64 = 600;
/// The time that the clients of a mode with lulls all stay away, after they have all been there for as long.
const LULL: Duration = Duration::from_secs(2);
/// The number of daemons that are killed during their starts.
const DEATHS: u64 = 10;
/// The number of times that a client asks which is not served.
const ATTEMPTS: usize = 20;

/// The delay that a promise may have on an overloaded machine.
const MARGIN: Duration = Duration::from_secs(15);
/// The time that the second load has gone on when TERM comes, and the time that it tries after that.
const BEFORE_TERM: Duration = Duration::from_millis(700);
const AFTER_TERM: Duration = Duration::from_millis(300);
const REST: Duration = Duration::from_millis(20);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, seed, only): (_, _, &[&str]) = match words.as_slice() {
        ["worker", ..] => return worker::run(arguments.get(1..).unwrap_or_default()),
        [] => (60, any_seed()?, &[]),
        [seconds] => (seconds.parse()?, any_seed()?, &[]),
        [seconds, seed, only @ ..] => (seconds.parse()?, seed.parse()?, only),
    };
    println!("chaos: {seconds} s, seed {seed}");
    let home = Daemon::directory()?;
    let modes = mode::named(home.path(), only)?;
    let mut daemon = Daemon::start(home, &modes)?;
    let mut broken = Chaos::new(&daemon, modes, seed)?.run(&mut daemon, Duration::from_secs(seconds));
    broken.extend(killed_during_starts(&mut Dice::new(seed, DEATHS), only)?);
    if broken.is_empty() {
        println!("chaos: every promise held");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "--- the end of the daemon's log\n{}\n---",
        daemon.log().last_lines().join("\n")
    );
    broken.iter().for_each(|promise| println!("BROKEN: {promise}"));
    println!("chaos: the whole log: {}", daemon.keep_log()?.display());
    println!("chaos: promises were broken; again: scripts/chaos {}", words.join(" "));
    Ok(ExitCode::FAILURE)
}

/// Daemons that are killed while they start their workers; what they have left.
fn killed_during_starts(dice: &mut Dice, only: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let mut broken = Vec::new();
    for number in 1..=DEATHS {
        let home = Daemon::directory()?;
        let modes = mode::named(home.path(), only)?;
        let mut daemon = Daemon::start(home, &modes)?;
        // The kill comes at any moment of the starts; to wait for an event would always hit the same one.
        thread::sleep(dice.pause(PAUSE));
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait(MARGIN)?;
        let left = daemon.left_behind()?;
        if !left.is_empty() {
            broken.push(format!("left behind by kill -9 during starts: {}", left.join(", ")));
        }
        println!("killed {number} of {DEATHS} daemons during their starts");
    }
    Ok(broken)
}

fn any_seed() -> Result<u64, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()))
}

/// A run: the load and the faults, and the promises that were broken.
struct Chaos {
    seed: u64,
    targets: Vec<Target>,
    timeline: Timeline,
    log: Arc<Log>,
    began: Instant,
    broken: Vec<String>,
}

impl Chaos {
    fn new(daemon: &Daemon, modes: Vec<mode::Mode>, seed: u64) -> Result<Self, Box<dyn Error>> {
        let promised = Duration::from_millis(QUEUE_TIMEOUT + BUSY_TIMEOUT + READ_TIMEOUT + IDLE_TIMEOUT);
        // A client with numbers may have sent several times as many requests as are read from it at a time.
        let shares = u64::try_from(MOST_WITH_NUMBERS / MAX_UNANSWERED)?;
        let for_more = Duration::from_millis(shares * (QUEUE_TIMEOUT + BUSY_TIMEOUT));
        let sickness = Duration::from_millis(2 * PROBE_INTERVAL + BUSY_TIMEOUT + fault::STOPPED);
        let target = |mode: mode::Mode| -> Result<Target, Box<dyn Error>> {
            Ok(Target {
                tcp: daemon.tcp(&mode)?,
                unix: mode.socket(),
                tls: mode.is_secured.then(|| secured::clients(&mode.home)).transpose()?,
                patience: promised + MARGIN + if mode.numbered > 0 { for_more } else { Duration::ZERO },
                sickness: sickness + MARGIN,
                has_answered: AtomicBool::new(false),
                mode,
            })
        };
        let targets: Result<Vec<Target>, _> = modes.into_iter().map(target).collect();
        Ok(Self {
            seed,
            targets: targets?,
            timeline: Timeline::default(),
            log: Arc::clone(daemon.log()),
            began: Instant::now(),
            broken: Vec::new(),
        })
    }

    fn run(mut self, daemon: &mut Daemon, time: Duration) -> Vec<String> {
        let mut tally = self.run_with_faults(daemon, time);
        match self.at_rest(daemon) {
            Ok(statistics) => self.compare(&statistics, &tally, daemon.was_upgraded()),
            Err(error) => self.broken.push(error.to_string()),
        }
        tally.add(self.run_into_term(daemon));
        println!("{tally}");
        self.broken.extend(tally.offences());
        if let Err(error) = self.after_the_end(daemon) {
            self.broken.push(error.to_string());
        }
        self.broken
    }

    /// Runs load and faults for `time`.
    fn run_with_faults(&mut self, daemon: &mut Daemon, time: Duration) -> Tally {
        let (running, stopped) = mpsc::channel();
        let mut dice = Dice::new(self.seed, fault::STREAM);
        let (tally, done) = thread::scope(|scope| {
            let modes = self.targets.iter().map(|target| &target.mode).collect();
            let injector = FaultInjector::new(daemon, modes, &self.timeline);
            // Boxed errors stay in their thread; what they say does not have to.
            let injector = scope.spawn(move || injector.run(&mut dice, &stopped).map_err(|error| error.to_string()));
            let tally = self.load(0, Instant::now() + time);
            drop(running);
            (tally, injector.join())
        });
        match done {
            Ok(Ok(done)) => println!("faults: {done}\n"),
            Ok(Err(error)) => self.broken.push(error),
            Err(_) => self.broken.push("the fault injector itself broke down".to_owned()),
        }
        tally
    }

    /// Every client until then, and until its last connection has ended. Clients of a mode in which none was answered yet
    /// go on a little longer: a busy machine is slow. `round` keeps the dice of two loads apart.
    fn load(&self, round: u64, until: Instant) -> Tally {
        let mut all = Tally::default();
        thread::scope(|scope| {
            let mut clients = Vec::new();
            for target in &self.targets {
                for _ in 0..CLIENTS {
                    let stream = clients.len() as u64 + (round << 32);
                    clients.push(scope.spawn(move || self.one_client(target, stream, until)));
                }
            }
            thread::sleep(until.saturating_duration_since(Instant::now()));
            println!("load {round} is over, its last answers are awaited");
            for client in clients {
                match client.join() {
                    Ok(tally) => all.add(tally),
                    Err(_) => all.broke_down(),
                }
            }
        });
        all
    }

    fn one_client(&self, target: &Target, stream: u64, until: Instant) -> Tally {
        let mut dice = Dice::new(self.seed, stream);
        let mut tally = Tally::default();
        for number in 0_u64.. {
            // The clients come at times of their own, which makes the load.
            thread::sleep(dice.pause(PAUSE) + self.lull_left(target));
            let has_proof = target.has_answered.load(Ordering::Relaxed);
            if Instant::now() >= if has_proof { until } else { until + MARGIN } {
                break;
            }
            let plan = Plan::draw(&mut dice, &target.mode, &format!("{stream}.{number}"));
            self.carry_out(plan, target, &mut tally);
        }
        tally
    }

    /// Returns the time that the target's clients are to stay away from now on, if they do so all at once.
    fn lull_left(&self, target: &Target) -> Duration {
        let (time, lull) = (self.began.elapsed().as_millis(), LULL.as_millis());
        let is_lull = target.mode.has_lulls && time % (2 * lull) >= lull;
        if is_lull { LULL } else { Duration::ZERO }
    }

    /// Once, and for what was not served again.
    fn carry_out(&self, mut plan: Plan, target: &Target, tally: &mut Tally) {
        for attempt in 1.. {
            let mut seen = client::perform(&plan, target, &self.timeline);
            if seen.outcomes.contains(&Outcome::Answered) {
                target.has_answered.store(true, Ordering::Relaxed);
            }
            let unserved = seen.outcomes.iter().position(|outcome| *outcome == Outcome::Unserved);
            if attempt == ATTEMPTS {
                give_up(&mut seen);
            }
            if let Some(offence) = tally.count(target.mode.name, &plan, &seen) {
                self.log.note(format_args!("chaos: BROKEN: {offence}"));
            }
            match unserved {
                Some(from) if attempt < ATTEMPTS => plan = plan.again(from),
                _ => break,
            }
        }
    }

    /// The statistics once nothing is in hand any more: what clients left behind may still be worked on.
    fn at_rest(&self, daemon: &Daemon) -> Result<Vec<Statistics>, Box<dyn Error>> {
        let patience = self.targets.iter().map(|target| target.patience).max();
        let patience = patience.unwrap_or(MARGIN);
        let deadline = Instant::now() + patience;
        loop {
            let all = daemon.statistics()?;
            let is_at_rest = |pool: &&Statistics| pool.in_hand() == Some(0) && pool.count("connections") == 0;
            let Some(busy) = all.iter().find(|pool| !is_at_rest(pool)) else {
                return Ok(all);
            };
            if Instant::now() >= deadline {
                return Err(format!("without load, {:?} requests in hand: {busy:?}", busy.in_hand()).into());
            }
            // The daemon announces no moment of rest: only another USR1 shows it.
            thread::sleep(REST);
        }
    }

    fn compare(&mut self, statistics: &[Statistics], tally: &Tally, was_upgraded: bool) {
        let mut sum = Statistics::default();
        for pool in statistics {
            sum.add(pool);
            let replied = pool.count("queries replied");
            let (answered, left, refused) = tally.answered_left_refused(&pool.name);
            let at_least = if was_upgraded { 0 } else { answered };
            let name = &pool.name;
            let mode = self
                .targets
                .iter()
                .map(|target| &target.mode)
                .find(|mode| mode.name == name);
            // A session that was cut, or in which its client said nothing, is one for the daemon, which has carried what
            // there was.
            let cut = if mode.is_some_and(|mode| mode.is_session) {
                refused + tally.silent(name)
            } else {
                0
            };
            let at_most = match mode {
                // A line that `ask` has asked again, because a connection broke, is two requests.
                Some(mode) if mode.is_asked => u64::MAX,
                _ => answered + left + cut,
            };
            if !(at_least..=at_most).contains(&replied) {
                self.broken.push(format!(
                    "{name}: {replied} counted as replied, {answered} answers seen, {left} clients left, {cut} sessions cut"
                ));
            }
            if answered == 0 {
                self.broken
                    .push(format!("{name}: nobody was answered, so nothing is proven"));
            }
        }
        let since = if was_upgraded {
            "since its last upgrade and "
        } else {
            ""
        };
        println!("what the daemon counted, {since}before TERM");
        for label in [
            "total",
            "replied",
            "failed",
            "timeout",
            "retried",
            "delayed",
            "ahead",
            "concurrent",
            "unknown",
        ] {
            println!("{label:<10} {}", sum.count(&format!("queries {label}")));
        }
        println!("in hand    0");
        println!("cache      {}", sum.all_of("cache "));
        println!("probes     {}", sum.count("probes asked"));
        println!("spawns     {}", sum.count("daemon spawns"));
        println!("restarts   {}", sum.all_of("restarts "));
        println!("refused    {}\n", sum.all_of("refused "));
    }

    /// The load again, and TERM in the middle of it.
    fn run_into_term(&self, daemon: &Daemon) -> Tally {
        thread::scope(|scope| {
            let load = scope.spawn(|| self.load(1, Instant::now() + BEFORE_TERM + AFTER_TERM));
            // TERM comes in the middle of the load, whatever that is doing.
            thread::sleep(BEFORE_TERM);
            self.timeline.end();
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
        match daemon.wait(MARGIN)? {
            Some(status) if status.success() => {}
            Some(status) => self.broken.push(format!("a process of the daemon ended by {status}")),
            None => self.broken.push("after TERM the daemon did not end".to_owned()),
        }
        let left = daemon.left_behind()?;
        if !left.is_empty() {
            self.broken.push(format!("left behind: {}", left.join(", ")));
        }
        for target in self.targets.iter().filter(|target| target.unix.exists()) {
            self.broken.push(format!("{} was left behind", target.unix.display()));
        }
        Ok(())
    }
}

/// Turns a request that was never served into a lost one.
fn give_up(seen: &mut Seen) {
    for outcome in seen
        .outcomes
        .iter_mut()
        .filter(|outcome| **outcome == Outcome::Unserved)
    {
        *outcome = Outcome::Lost(format!("not served {ATTEMPTS} times"));
    }
}
