//! The lines of a pool's dump: the registers of iotcpd 1.1, and a readable line for each worker, for each waiting
//! request and for each client.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::core::{Activity, Place, SlotView, Status, WorkerView};
use super::recorder::Excerpt;
use crate::amount::{size, span};
use crate::doors::dump::{ProcessView, process as process_view};

/// The numbers in the registers that only the shell knows. -1 stands for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    pub(super) stdin: i32,
    pub(super) stdout: i32,
    pub(super) pid: i32,
    pub(super) client_pid: i32,
    pub(super) client: i32,
}

/// Returns the registers of one worker as iotcpd 1.1 printed them at USR2, with an empty line at the end. Scripts read
/// them, so their names and their order must not change.
pub(super) fn registers(view: &SlotView, descriptors: Descriptors, now: Instant) -> String {
    let started = view
        .busy_since
        .map(|since| wall_clock(now.saturating_duration_since(since)))
        .unwrap_or_default();
    let rows = [
        ("status", i64::from(status_number(view.status))),
        ("producer_pipe_fd[PIPE_END_WRITE]", descriptors.stdin.into()),
        ("consumer_pipe_fd[PIPE_END_READ]", descriptors.stdout.into()),
        ("daemon_pid", descriptors.pid.into()),
        ("client_pid", descriptors.client_pid.into()),
        ("client_fd", descriptors.client.into()),
        ("start.tv_sec", i64::try_from(started.as_secs()).unwrap_or(i64::MAX)),
        ("start.tv_nsec", started.subsec_nanos().into()),
    ];
    let mut text: String = rows
        .iter()
        .map(|(name, value)| format!("d[{}].{name} = {value}\n", view.number))
        .collect();
    text.push('\n');
    text
}

fn status_number(status: Status) -> u8 {
    status as u8
}

/// Returns the time since 1970 at which it was `ago` before now.
fn wall_clock(ago: Duration) -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(ago)
}

/// Returns the description of a worker, without its requests in hand.
pub(super) fn worker(view: &WorkerView, number: usize, process: Option<ProcessView>, now: Instant) -> String {
    let (state, served) = (state(view, now), view.served);
    let process = process_view(process.as_ref());
    format!("worker {number}: state = {state}, {process}, served = {served}")
}

fn state(view: &WorkerView, now: Instant) -> String {
    let activity = match view.activity {
        Activity::Delayed(at) => {
            let left = span(at.saturating_duration_since(now));
            format!("waiting for its next start in {left}")
        }
        Activity::Starting => "starting".to_owned(),
        Activity::Probing => "being probed".to_owned(),
        Activity::Idle => "idle".to_owned(),
        Activity::Busy => "busy".to_owned(),
        Activity::Draining => "busy for nobody".to_owned(),
        Activity::Settling => "watched for a second answer".to_owned(),
        Activity::Resting => "resting".to_owned(),
        Activity::Stopping => "stopping".to_owned(),
    };
    let quarantined = if view.quarantined && view.activity != Activity::Stopping {
        "quarantined, "
    } else {
        ""
    };
    let position = match view.place {
        Place::Successor(_) if view.activity != Activity::Stopping => " to take over",
        Place::Outgoing if view.activity != Activity::Stopping => " and then let go",
        Place::Serving(_) | Place::Successor(_) | Place::Outgoing => "",
    };
    format!("{quarantined}{activity}{position}")
}

/// Returns the description of a request that a worker has in hand, or that waits. The text of the request comes last.
pub(super) fn request(since: Duration, client: &str, request: Option<&Excerpt<'_>>) -> String {
    let since = span(since);
    match request {
        Some(request) => format!("since = {since} ago, client = {client}, request = {request}"),
        None => format!("since = {since} ago, client = {client}"),
    }
}

/// Returns the line above the list of waiting requests.
pub(super) fn queue(length: usize, longest: Option<Duration>) -> String {
    match longest {
        None => "queue: nobody waits".to_owned(),
        Some(longest) => format!("queue: {length} waiting, the longest for {}", span(longest)),
    }
}

/// The activity of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientState {
    /// The client has all its answers, and has sent no further byte.
    Idle,
    /// The client's request is not whole.
    Reading,
    /// The client is owed an answer.
    Waiting,
    /// The client has not taken all of its answers.
    Writing,
    /// The client has all its answers and is closed; further bytes from it are discarded.
    Leaving,
    /// The client has a worker to itself.
    Session,
    /// The client's worker has ended, and the rest of its output is on its way.
    SessionEnds,
}

impl ClientState {
    fn name(self) -> &'static str {
        match self {
            ClientState::Idle => "idle",
            ClientState::Reading => "reading",
            ClientState::Waiting => "waiting",
            ClientState::Writing => "writing",
            ClientState::Leaving => "leaving",
            ClientState::Session => "session",
            ClientState::SessionEnds => "session whose worker has ended",
        }
    }
}

/// A client, as the dump describes it.
#[derive(Debug, Clone)]
pub(super) struct ClientView {
    pub(super) number: usize,
    pub(super) state: ClientState,
    /// The time since the client is in this state; in `Reading` and `Writing`, since bytes have last moved.
    pub(super) since: Duration,
    pub(super) age: Duration,
    pub(super) client: String,
    pub(super) load: Load,
}

/// The work that the pool has in hand for a client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// The number of requests without an answer, and of the bytes of requests and answers that are held.
    Requests { unanswered: usize, held: usize },
    /// The same of a client with a multiplexed connection.
    NumberedRequests { unanswered: usize, held: usize },
    /// The numbers of bytes that have gone to the worker, that have come from it, and that are held for it.
    Session { up: u64, down: u64, held: usize },
}

/// Returns the line of a client.
pub(super) fn client(view: &ClientView) -> String {
    let ClientView {
        number, state, client, ..
    } = view;
    let load = match view.load {
        Load::Requests { unanswered, held } => {
            let held = size(u64::try_from(held).unwrap_or(u64::MAX));
            format!("unanswered = {unanswered}, held = {held}")
        }
        Load::NumberedRequests { unanswered, held } => {
            let held = size(u64::try_from(held).unwrap_or(u64::MAX));
            format!("multiplexed, unanswered = {unanswered}, held = {held}")
        }
        Load::Session { up, down, held } => {
            let held = size(u64::try_from(held).unwrap_or(u64::MAX));
            format!("in = {}, out = {}, held = {held}", size(up), size(down))
        }
    };
    let (state, since, age) = (state.name(), span(view.since), span(view.age));
    format!("client {number}: state = {state}, since = {since} ago, age = {age}, {load}, client = {client}")
}

#[cfg(test)]
mod tests {
    use super::super::core::WorkerId;
    use super::super::options::Disclosure;
    use super::*;
    use crate::process::rss::Memory;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn view(activity: Activity) -> WorkerView {
        WorkerView {
            id: WorkerId {
                index: 0,
                incarnation: 0,
            },
            place: Place::Serving(3),
            activity,
            quarantined: false,
            served: 17,
            in_hand: 0,
        }
    }

    #[test]
    fn every_state_of_a_worker_has_its_words() {
        let now = Instant::now();
        let later = now + Duration::from_millis(3200);
        for (activity, words) in [
            (Activity::Delayed(later), "waiting for its next start in 3.2 s"),
            (Activity::Starting, "starting"),
            (Activity::Probing, "being probed"),
            (Activity::Idle, "idle"),
            (Activity::Busy, "busy"),
            (Activity::Draining, "busy for nobody"),
            (Activity::Settling, "watched for a second answer"),
            (Activity::Resting, "resting"),
            (Activity::Stopping, "stopping"),
        ] {
            assert_eq!(state(&view(activity), now), words);
            let quarantined = WorkerView {
                quarantined: true,
                ..view(activity)
            };
            let told = state(&quarantined, now);
            assert_eq!(
                told.starts_with("quarantined, "),
                activity != Activity::Stopping,
                "{told}"
            );
        }
        let with = |place, activity| {
            let view = WorkerView {
                place,
                ..view(activity)
            };
            state(&view, now)
        };
        assert_eq!(with(Place::Successor(3), Activity::Starting), "starting to take over");
        assert_eq!(with(Place::Outgoing, Activity::Busy), "busy and then let go");
        assert_eq!(with(Place::Outgoing, Activity::Stopping), "stopping");
    }

    #[test]
    fn a_line_has_what_there_is() {
        let now = Instant::now();
        let process = ProcessView {
            pid: 912,
            age: seconds(125),
            memory: Memory::Holds(3 << 19),
        };
        assert_eq!(
            worker(&view(Activity::Idle), 3, Some(process), now),
            "worker 3: state = idle, pid = 912, age = 2 min 5 s, memory = 1.5 MiB, served = 17"
        );
        assert_eq!(
            worker(&view(Activity::Starting), 3, None, now),
            "worker 3: state = starting, pid = none, served = 17"
        );
        let excerpt = Excerpt::of(b"a\nb\n", Disclosure::Excerpts);
        assert_eq!(
            request(seconds(2), "unix", Some(&excerpt)),
            "since = 2 s ago, client = unix, request = \"a\\x0ab\""
        );
        assert_eq!(request(seconds(2), "gone", None), "since = 2 s ago, client = gone");
        assert_eq!(queue(0, None), "queue: nobody waits");
        assert_eq!(queue(7, Some(seconds(3))), "queue: 7 waiting, the longest for 3 s");
        let view = ClientView {
            number: 5,
            state: ClientState::Waiting,
            since: seconds(1),
            age: seconds(4),
            client: "127.0.0.1:9".to_owned(),
            load: Load::Requests {
                unanswered: 2,
                held: 2048,
            },
        };
        let told =
            "client 5: state = waiting, since = 1 s ago, age = 4 s, unanswered = 2, held = 2 KiB, client = 127.0.0.1:9";
        assert_eq!(client(&view), told);
        let multiplexed = ClientView {
            load: Load::NumberedRequests {
                unanswered: 2,
                held: 2048,
            },
            ..view.clone()
        };
        let told = told.replace("unanswered", "multiplexed, unanswered");
        assert_eq!(client(&multiplexed), told);
        let session = ClientView {
            state: ClientState::Session,
            load: Load::Session {
                up: 1,
                down: 5000,
                held: 0,
            },
            ..view
        };
        let told = "client 5: state = session, since = 1 s ago, age = 4 s, in = 1 byte, out = 4.88 KiB, held = 0 bytes, \
                    client = 127.0.0.1:9";
        assert_eq!(client(&session), told);
    }
}
