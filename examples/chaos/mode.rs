//! The modes that are tested: a pool each, all of them in one daemon.

use std::path::{Path, PathBuf};

use crate::request::{
    BINARY, CHANNELS, DEADLY, DEADLY_INSIDE, GARBAGE, Group, LASTING, LINES, LONG, MAX_REPLY, MAX_REQUEST, OUT_OF_STEP,
    PROBED, RequestKind, SESSION, SHARED, SOUND, TOO_MANY, UNSAYABLE,
};
use crate::secured;
use crate::wire::Wire;
use crate::worker::{HEALTHY, PROBE};

/// The time-outs that every pool is given, in milliseconds: short, so that many of them are met.
pub(crate) const QUEUE_TIMEOUT: u64 = 500;
pub(crate) const BUSY_TIMEOUT: u64 = 1000;
pub(crate) const READ_TIMEOUT: u64 = 1000;
pub(crate) const IDLE_TIMEOUT: u64 = 2000;
pub(crate) const PROBE_INTERVAL: u64 = 1000;
/// The number of unanswered requests at which a pool does not read from a client that stays.
pub(crate) const MAX_UNANSWERED: usize = 16;
/// The time that a worker rests after each answer, in milliseconds, where workers may print a line too many.
pub(crate) const REST: u64 = 200;

/// The set-up of one mode.
#[derive(Debug)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// Where its files are; the same for all.
    pub(crate) home: PathBuf,
    /// Between client and daemon.
    pub(crate) request: Wire,
    pub(crate) reply: Wire,
    /// True if connections are kept.
    pub(crate) is_kept: bool,
    /// True if every request in hand has a worker of its own, or waits for one in the queue.
    pub(crate) is_one_by_one: bool,
    /// True if a connection has a worker of its own, and its answer is all that comes back.
    pub(crate) is_session: bool,
    /// The percentage of clients that put a number before each of their lines.
    pub(crate) numbered: usize,
    /// True if these do not connect to the pool, but to an `iotcpd ask --squid` that does.
    pub(crate) is_asked: bool,
    /// True if its clients over TCP speak TLS.
    pub(crate) is_secured: bool,
    /// True if its clients come and go all at once.
    pub(crate) has_lulls: bool,
    pub(crate) most_workers: u64,
    /// The file that makes workers sick which start while it exists, in a mode with probes.
    pub(crate) poison: Option<PathBuf>,
    is_misnamed: bool,
    kinds: &'static [Group],
    /// The lines of its table in the file.
    keys: String,
    worker_flags: String,
}

/// The framings of the clients' requests, of their replies, and the same of workers, as the daemon calls them.
type Framings = [&'static str; 4];

const BY_LINE: Framings = ["line"; 4];

const ALONE: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, LINES, OUT_OF_STEP];
const AHEAD: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, LINES];
const AT_ONCE: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, LINES, CHANNELS];
const SPENT: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE];
const IN_NETSTRINGS: &[Group] = &[
    SOUND,
    LONG,
    DEADLY,
    DEADLY_INSIDE,
    LASTING,
    BINARY,
    GARBAGE,
    OUT_OF_STEP,
];
const TO_NETSTRINGS: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, UNSAYABLE, GARBAGE];
const COUNTED: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, BINARY];
const HEADED: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, BINARY, GARBAGE];
const ENDED: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING];
/// Replies in one write of what a pipe takes at once: a pause in one would be its end.
const QUIET: &[Group] = &[SOUND, DEADLY];
const RESTED: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, OUT_OF_STEP, TOO_MANY];
const KNOWN: &[Group] = &[SHARED, SOUND, DEADLY, DEADLY_INSIDE];
const TALKING: &[Group] = &[SESSION];
const EXAMINED: &[Group] = &[SOUND, LONG, DEADLY, DEADLY_INSIDE, LASTING, PROBED];

/// Every mode; `home` is the daemon's directory.
fn all(home: &Path) -> Result<Vec<Mode>, String> {
    let line = |name, kinds| Mode::new(home, name, BY_LINE, kinds);
    let framed = |name, kinds| Mode::new(home, name, [name.trim_start_matches("tls-"); 4], kinds);
    let modes = vec![
        line("line", ALONE).workers(12),
        line("ahead", AHEAD).workers(4).pipeline(8),
        line("kept", ALONE).workers(4).kept(),
        line("kept-ahead", AHEAD).workers(4).kept().pipeline(8),
        line("channels", AT_ONCE).workers(4).concurrency(8),
        line("kept-channels", AT_ONCE).workers(4).kept().concurrency(8),
        framed("netstring", IN_NETSTRINGS).workers(4),
        Mode::new(
            home,
            "line-netstring",
            ["line", "line", "netstring", "netstring"],
            TO_NETSTRINGS,
        )
        .workers(4)
        .kept()
        .pipeline(8),
        framed("content-length", HEADED).workers(4).kept(),
        framed("u32be", COUNTED).workers(4).kept().pipeline(8),
        framed("until-empty-line", ENDED).workers(4),
        framed("nul", ENDED).workers(4).kept(),
        framed("eof", SPENT).workers(4),
        Mode::new(home, "line-eof", ["line", "line", "eof", "eof"], SPENT)
            .workers(4)
            .kept(),
        Mode::new(home, "quiet", ["line", "eof", "line", "quiet=20ms"], QUIET).workers(4),
        line("cache", KNOWN).workers(4).kept().cached(),
        line("probe", EXAMINED).workers(4).probed(),
        line("elastic", ALONE).elastic(),
        line("rest", RESTED).workers(12).rested(),
        Mode::session(home, "session", TALKING),
        line("multiplexed", AHEAD).workers(4).pipeline(8).multiplexed(),
        line("multiplexed-channels", AT_ONCE)
            .workers(4)
            .kept()
            .concurrency(8)
            .multiplexed(),
        Mode::new(
            home,
            "multiplexed-netstring",
            ["line", "line", "netstring", "netstring"],
            TO_NETSTRINGS,
        )
        .workers(4)
        .multiplexed(),
        line("multiplexed-cache", KNOWN).workers(4).cached().multiplexed(),
        line("ask", AHEAD).workers(4).pipeline(8).asked(),
        line("tls", ALONE).workers(4).secured(),
        line("tls-kept", AHEAD).workers(4).kept().pipeline(8).secured(),
        framed("tls-netstring", IN_NETSTRINGS).workers(4).kept().secured(),
        line("tls-multiplexed", AHEAD)
            .workers(4)
            .pipeline(8)
            .multiplexed()
            .secured(),
        line("tls-ask", AHEAD).workers(4).pipeline(8).asked().secured(),
        Mode::session(home, "tls-session", TALKING).secured(),
    ];
    match modes.iter().find(|mode| mode.is_misnamed) {
        Some(mode) => Err(format!("mode {} has an unknown framing", mode.name)),
        None => Ok(modes),
    }
}

/// The modes with these names, or every mode if none is named.
pub(crate) fn named(home: &Path, names: &[&str]) -> Result<Vec<Mode>, String> {
    let mut modes = all(home)?;
    if let Some(unknown) = names.iter().find(|name| !modes.iter().any(|mode| mode.name == **name)) {
        let known: Vec<&str> = modes.iter().map(|mode| mode.name).collect();
        return Err(format!("no mode is called {unknown}; there are {}", known.join(", ")));
    }
    modes.retain(|mode| names.is_empty() || names.contains(&mode.name));
    Ok(modes)
}

impl Mode {
    fn new(home: &Path, name: &'static str, framings: Framings, kinds: &'static [Group]) -> Self {
        let [request, reply, worker_request, worker_reply] = framings;
        let wires = framings.map(Wire::named);
        let [request_wire, reply_wire, ..] = wires.map(|wire| wire.unwrap_or(Wire::Line));
        let mut mode = Self {
            name,
            home: home.to_owned(),
            request: request_wire,
            reply: reply_wire,
            is_kept: false,
            is_one_by_one: true,
            is_session: false,
            numbered: 0,
            is_asked: false,
            is_secured: false,
            has_lulls: false,
            most_workers: 0,
            poison: None,
            is_misnamed: wires.contains(&None),
            kinds,
            keys: String::new(),
            worker_flags: format!("--request-framing {worker_request} --reply-framing {worker_reply}"),
        };
        mode.key(&format!(
            "read-timeout = \"{READ_TIMEOUT}ms\"\nbusy-timeout = \"{BUSY_TIMEOUT}ms\""
        ));
        mode.key(&format!("max-request = {MAX_REQUEST}\nmax-reply = {MAX_REPLY}"));
        mode.key(&format!("request-framing = \"{request}\"\nreply-framing = \"{reply}\""));
        mode.key(&format!("worker-request-framing = \"{worker_request}\""));
        mode.key(&format!("worker-reply-framing = \"{worker_reply}\""));
        if worker_request != "eof" {
            mode.key("max-requests = 500");
        }
        mode
    }

    fn session(home: &Path, name: &'static str, kinds: &'static [Group]) -> Self {
        let mut mode = Self::new(home, name, ["eof"; 4], kinds);
        // Nothing that is about requests means anything here.
        mode.keys = format!("mode = \"session\"\nidle-timeout = \"{IDLE_TIMEOUT}ms\"\n");
        mode.worker_flags = format!("--session {}", home.display());
        (mode.is_session, mode.is_one_by_one) = (true, false);
        mode.workers(6)
    }

    /// Its kinds and their weights.
    pub(crate) fn kinds(&self) -> Vec<(RequestKind, usize)> {
        self.kinds.concat()
    }

    /// Its table of the daemon's file; `program` is this one.
    pub(crate) fn table(&self, program: &str) -> String {
        let Self { name, home, keys, .. } = self;
        let daemon = format!("{} worker {}", shell_words::quote(program), self.worker_flags);
        let socket = self.socket();
        let socket = socket.display();
        format!(
            "[pool.{name}]\ndaemon = {daemon:?}\nlisten = [\"{}127.0.0.1:0\", \"unix:{socket}\"]\n\
             env = [\"CHAOS_MODE={name}\"]\nchdir = \"{}\"\n\
             queue-size = 300\nqueue-timeout = \"{QUEUE_TIMEOUT}ms\"\n\
             max-age = \"20s\"\nalarm-interval = \"100ms\"\nkill-timeout = \"300ms\"\nstop-timeout = \"5s\"\n\
             {keys}\n",
            self.transport(),
            home.display()
        )
    }

    /// The beginning of its address over TCP.
    pub(crate) fn transport(&self) -> &'static str {
        if self.is_secured { "tls:" } else { "" }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.join(self.name)
    }

    fn key(&mut self, line: &str) {
        self.keys.push_str(line);
        self.keys.push('\n');
    }

    fn with(mut self, line: &str) -> Self {
        self.key(line);
        self
    }

    fn workers(mut self, number: u64) -> Self {
        self.most_workers = number;
        self.with(&format!("num-daemons = {number}"))
    }

    fn kept(mut self) -> Self {
        // Answers that wait for those before them are in hand as well.
        (self.is_kept, self.is_one_by_one) = (true, false);
        self.with(&format!(
            "persistent = true\nidle-timeout = \"{IDLE_TIMEOUT}ms\"\nmax-unanswered = {MAX_UNANSWERED}"
        ))
    }

    /// Most clients send many requests on a connection, and get the answers in any order.
    fn multiplexed(mut self) -> Self {
        (self.numbered, self.is_one_by_one) = (75, false);
        if self.is_kept {
            return self;
        }
        self.with(&format!(
            "idle-timeout = \"{IDLE_TIMEOUT}ms\"\nmax-unanswered = {MAX_UNANSWERED}"
        ))
    }

    fn asked(self) -> Self {
        let mut mode = self.multiplexed();
        (mode.numbered, mode.is_asked) = (100, true);
        mode
    }

    fn secured(mut self) -> Self {
        self.is_secured = true;
        let (certificate, key) = secured::files(&self.home);
        self.with(&format!("cert = {certificate:?}\nkey = {key:?}"))
    }

    fn pipeline(mut self, depth: u32) -> Self {
        self.is_one_by_one = false;
        self.with(&format!("pipeline = {depth}"))
    }

    fn concurrency(mut self, depth: u32) -> Self {
        self.is_one_by_one = false;
        self.worker_flags.push_str(" --concurrent");
        self.with(&format!("concurrency = {depth}"))
    }

    fn cached(self) -> Self {
        self.with("cache-size = \"1MiB\"\ncache-ttl = \"5s\"\ncache-skip = \"^(?:echo|wait)\"")
    }

    fn probed(mut self) -> Self {
        let poison = self.home.join("poison");
        self.worker_flags.push_str(&format!(" --poison {}", poison.display()));
        self.poison = Some(poison);
        self.with(&format!("probe = \"{PROBE}\"\nprobe-expect = \"^{HEALTHY}$\""))
            .with(&format!("probe-interval = \"{PROBE_INTERVAL}ms\""))
    }

    fn rested(self) -> Self {
        self.with(&format!("rest = \"{REST}ms\""))
    }

    fn elastic(mut self) -> Self {
        self.has_lulls = true;
        self.most_workers = 8;
        self.with("max-workers = 8\nmin-workers = 1\nspare-workers = 2\nworker-idle-timeout = \"500ms\"")
    }
}
