//! The budget of pipes, for a user that the kernel gives a limited number of pages in pipes (`pipe-user-pages-soft`).
//!
//! The limit counts all processes of a user, and root has none. So each test runs this test program once more, as a user
//! that has no other process: [`as_ordinary_user`].

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use iotcpd::internals::relay::{
    Budget, Conversation, Endpoint, Event, Limits, Outcome, PAUSE, PIECE, Pipes, Readiness, Shortage, Side, Standing,
    Tools,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{geteuid, pipe2};

use crate::harness::{Program, children_of, name_of, temp_dir};

/// Tells the second run of a test from the first, and names the daemon's binary to it.
const SECOND_RUN: &str = "IOTCPD_TEST_PIPE_BUDGET";

/// Held during a second run: the pages of a user that cannot change to another are enough for one.
static ALONE: Mutex<()> = Mutex::new(());

/// The number of second runs so far.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The number of bytes in a pipe of the default size.
const PLAIN: usize = 64 << 10;

/// Runs the test of this name once more as an ordinary user, unless this is that run. Returns the daemon's binary in
/// the second run.
fn as_ordinary_user(name: &str) -> Option<String> {
    if let Ok(binary) = std::env::var(SECOND_RUN) {
        return Some(binary);
    }
    // Where another user reaches them.
    let home = temp_dir();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &str, to: &str| {
        let to = home.path().join(to);
        if fs::hard_link(from, &to).is_err() {
            fs::copy(from, &to).unwrap();
        }
        to
    };
    let tests = copy(std::env::current_exe().unwrap().to_str().unwrap(), "tests");
    let binary = copy(env!("CARGO_BIN_EXE_iotcpd"), "iotcpd");
    let mut command = Command::new("setpriv");
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if geteuid().is_root() {
        // A user of its own for each run: others of the same user would share its pages.
        let user = 100_000 + std::process::id() * 8 + NUMBER.fetch_add(1, Ordering::Relaxed);
        command.args([
            format!("--reuid={user}"),
            "--regid=65534".to_owned(),
            "--clear-groups".to_owned(),
        ]);
    }
    let test = format!("pipe_budget::{name}");
    command
        .arg(&tests)
        .args(["--exact", &test, "--nocapture", "--test-threads=1"]);
    let output = command
        .env(SECOND_RUN, &binary)
        .current_dir("/")
        .output()
        .expect("setpriv, of util-linux");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

fn pipes() -> (Arc<Budget>, Pipes) {
    let budget = Arc::new(Budget::new(Limits::of_this_system()));
    (Arc::clone(&budget), Pipes::new(budget))
}

fn size(pipe: impl AsFd) -> usize {
    usize::try_from(fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap()).unwrap()
}

/// Asserts that the standard input and output of a worker have the default size, in a pool that is started now.
fn assert_workers_have_full_pipes(binary: &str) {
    let daemon = Program::start(Command::new(binary).args(["-n", "1", "-d", "cat", "-p", "0"]));
    let line = daemon.stderr_wait("listening on");
    let mut client = TcpStream::connect(line.rsplit(' ').next().unwrap()).unwrap();
    client.write_all(b"there\n").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"there\n");
    let workers = children_of(daemon.pid())
        .into_iter()
        .filter(|pid| name_of(*pid).as_deref() == Some("cat"));
    let streams = workers.flat_map(|pid| ["0", "1"].map(|stream| format!("/proc/{pid}/fd/{stream}")));
    let open = |path: String| {
        let mut options = OpenOptions::new();
        let is_input = path.ends_with('0');
        let options = options.read(is_input).write(!is_input).custom_flags(libc::O_NONBLOCK);
        options.open(path).unwrap()
    };
    let sizes: Vec<usize> = streams.map(|path| size(open(path))).collect();
    assert_eq!(sizes, [PLAIN; 2]);
}

#[test]
fn workers_have_pipes_of_full_size_beside_a_relay_that_has_all_of_its_own() {
    let Some(binary) = as_ordinary_user("workers_have_pipes_of_full_size_beside_a_relay_that_has_all_of_its_own")
    else {
        return;
    };
    let (budget, mut pipes) = pipes();
    let lent: Vec<_> = std::iter::from_fn(|| pipes.borrow(Instant::now())).collect();
    assert_eq!((pipes.shortages(), lent.len()), (0, budget.open().0));
    if Limits::of_this_system().user_pages == 16_384 {
        assert_eq!(budget.open(), (160, 32));
    }
    assert!(lent.iter().all(|pipe| size(&pipe.out) >= PLAIN));
    assert_workers_have_full_pipes(&binary);
}

/// Opens large pipes until the user may have no more.
fn take_all_pages(pipes: &mut Vec<(OwnedFd, OwnedFd)>) {
    let mut may_have_more = true;
    while may_have_more {
        let (out, into) = pipe2(OFlag::O_CLOEXEC).unwrap();
        may_have_more = fcntl(&out, FcntlArg::F_SETPIPE_SZ(1 << 20)).is_ok();
        pipes.push((out, into));
    }
}

/// Another process of the same user has taken nearly all pages, a predecessor during an upgrade above all.
#[test]
fn pipes_are_not_lent_while_another_process_has_the_users_pages() {
    // Other tests would have small pipes meanwhile, if they were of the same user.
    if !geteuid().is_root() && std::env::var(SECOND_RUN).is_err() {
        return;
    }
    if as_ordinary_user("pipes_are_not_lent_while_another_process_has_the_users_pages").is_none() {
        return;
    }
    let now = Instant::now();
    let (budget, mut pipes) = pipes();
    let (first, second) = (pipes.borrow(now).unwrap(), pipes.borrow(now).unwrap());
    pipes.give_back(second, now);
    let mut others = Vec::new();
    take_all_pages(&mut others);
    assert!(pipes.borrow(now).is_some(), "an empty one waits");
    assert!(pipes.borrow(now).is_none());
    assert_eq!((pipes.shortages(), pipes.take_shortage()), (1, Some(Shortage::Pages)));
    assert_eq!(budget.open(), (1, 1), "the one that is still lent");
    pipes.give_back(first, now);
    assert_eq!(budget.open(), (0, 0), "none is kept while they are short");
    assert!(pipes.borrow(now + PAUSE / 2).is_none());
    assert_eq!(
        (pipes.shortages(), pipes.take_shortage()),
        (1, None),
        "the kernel is not asked again and again"
    );
    take_all_pages(&mut others);
    assert!(pipes.borrow(now + PAUSE).is_none());
    assert_eq!(pipes.shortages(), 2);
    drop(others);
    assert!(pipes.borrow(now + 2 * PAUSE).is_some());
}

#[test]
fn pipes_are_not_lent_without_descriptors() {
    if as_ordinary_user("pipes_are_not_lent_without_descriptors").is_none() {
        return;
    }
    let (budget, mut pipes) = pipes();
    let mut others: Vec<File> = Vec::new();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    while let Ok(file) = File::open("/dev/null") {
        others.push(file);
    }
    others.pop();
    let now = Instant::now();
    assert!(pipes.borrow(now).is_none());
    assert_eq!(pipes.take_shortage(), Some(Shortage::Failed(Errno::EMFILE)));
    assert_eq!(budget.open(), (0, 0));
    others.pop();
    assert!(pipes.borrow(now).is_none());
    assert!(pipes.borrow(now + PAUSE).is_some());
}

/// A socket that splices.
struct Socket(OwnedFd);

impl Socket {
    fn pair() -> (Socket, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        (Socket(ours.into()), peer)
    }
}

impl Endpoint for Socket {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event> {
        match nix::unistd::read(&self.0, to) {
            Ok(0) => Err(Event::SourceEnded),
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN) => Err(Event::SourceEmpty),
            Err(_) => Err(Event::Failed),
        }
    }

    fn is_drained(&self) -> bool {
        false
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        match nix::unistd::write(&self.0, bytes) {
            Ok(count) => Event::Wrote(count),
            Err(Errno::EAGAIN) => Event::SinkFull,
            Err(_) => Event::Failed,
        }
    }

    fn say_end(&mut self) {
        nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// A download.
struct Download {
    client: Socket,
    server: Socket,
    client_peer: UnixStream,
    server_peer: Option<UnixStream>,
    conversation: Conversation,
}

impl Download {
    fn new() -> Self {
        let ((client, client_peer), (server, server_peer)) = (Socket::pair(), Socket::pair());
        Self {
            client,
            server,
            client_peer,
            server_peer: Some(server_peer),
            conversation: Conversation::new(Vec::new(), Vec::new()),
        }
    }

    /// Has the server send as much of this as it can, and runs until nothing moves. Returns the number of bytes sent.
    fn turn(&mut self, pipes: &mut Pipes, mut unsent: &[u8]) -> usize {
        let mut scratch = vec![0; PIECE];
        let before = unsent.len();
        loop {
            let sent = self
                .server_peer
                .as_mut()
                .and_then(|peer| peer.write(unsent).ok())
                .unwrap_or(0);
            unsent = &unsent[sent..];
            let all = Readiness {
                readable: true,
                writable: true,
                ..Readiness::default()
            };
            self.conversation.note(Side::Client, all);
            self.conversation.note(Side::Server, all);
            let delivered = self.conversation.down().direction().delivered();
            let mut tools = Tools {
                scratch: &mut scratch,
                pipes,
                now: Instant::now(),
            };
            let standing = self.conversation.run(&mut self.client, &mut self.server, &mut tools);
            let has_moved = self.conversation.down().direction().delivered() > delivered;
            if sent == 0 && !has_moved && standing != Standing::MoreLater {
                return before - unsent.len();
            }
        }
    }
}

/// Each keeps a pipe until its client reads. That costs the others speed, and neither progress nor memory.
#[test]
fn stalled_downloads_take_the_pipes_and_leave_others_and_workers_theirs() {
    let name = "stalled_downloads_take_the_pipes_and_leave_others_and_workers_theirs";
    let Some(binary) = as_ordinary_user(name) else {
        return;
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(4096), hard).unwrap();
    let (budget, mut pipes) = pipes();
    let bytes: Vec<u8> = (0..4_000_000_u32)
        .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let mut stalled: Vec<Download> = (0..300).map(|_| Download::new()).collect();
    for download in &mut stalled {
        download.turn(&mut pipes, &bytes);
    }
    let held = |download: &Download| download.conversation.down().direction().held();
    let in_pipes = stalled.iter().filter(|it| it.conversation.down().holds_pipe()).count();
    assert_eq!((in_pipes, pipes.shortages()), (budget.open().0, 0));
    assert!((1..=160).contains(&in_pipes));
    let in_memory = stalled.iter().filter(|it| !it.conversation.down().holds_pipe());
    assert!(in_memory.clone().count() >= 140 && in_memory.clone().all(|it| held(it) <= PIECE));
    assert_workers_have_full_pipes(&binary);
    // A new download is whole without a pipe.
    let mut download = Download::new();
    let (mut sent, mut received, mut piece) = (0, Vec::new(), vec![0; 100_000]);
    while received.len() < bytes.len() {
        sent += download.turn(&mut pipes, &bytes[sent..]);
        let count = download.client_peer.read(&mut piece).expect("bytes have come");
        received.extend_from_slice(&piece[..count]);
    }
    assert!(received == bytes);
    assert_eq!(download.conversation.down().spliced(), 0);
    drop(stalled);
    assert_eq!(budget.open(), (0, 0));
    let mut tools = Tools {
        scratch: &mut piece,
        pipes: &mut pipes,
        now: Instant::now(),
    };
    download.client_peer.shutdown(Shutdown::Write).unwrap();
    download.server_peer = None;
    let conversation = &mut download.conversation;
    for side in [Side::Client, Side::Server] {
        let readiness = Readiness {
            read_closed: true,
            ..Readiness::default()
        };
        conversation.note(side, readiness);
    }
    let standing = conversation.run(&mut download.client, &mut download.server, &mut tools);
    assert_eq!(standing, Standing::Over(Outcome::Complete));
}
