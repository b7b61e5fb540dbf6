//! The events of a pool and the actions that the dispatcher decides: the words between it and the shell.

use std::time::Duration;

use super::super::options::Policy;
use super::health::HealthChange;

/// The client of a request, named by the shell: one request of a connection, or a session. The dispatcher only hands it
/// back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId(pub u64);

/// A request in hand: from its [`Event::Request`] to its [`Action::Answer`], [`Action::Refuse`] or
/// [`Event::Abandoned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    pub(super) index: u32,
    /// Arrival order over all requests ever: the queue is sorted by it, and it tells successors in an index apart.
    pub(super) ticket: u64,
}

#[cfg(test)]
impl RequestId {
    /// A request of tests that have no dispatcher.
    pub(crate) const FIRST: Self = Self { index: 0, ticket: 0 };
}

/// One incarnation of a worker: a process, or the intention to start one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    /// Dense and reused once [`Event::Exited`] has been handled, so that the shell can keep its processes in a vector.
    pub index: u32,
    /// Tells the users of one index apart.
    pub incarnation: u32,
}

/// The number under which a worker with `concurrency` knows one of its requests. It is never given out twice to one
/// incarnation of a worker, so that an answer too many is not taken for that to another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u32);

/// The one of its requests that a worker's output is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    /// The request that the worker has had longest: the worker answers in order.
    Oldest,
    /// The request whose number the worker has said.
    Channel(ChannelId),
}

/// A report of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole request has arrived.
    Request {
        /// The client that has sent the request.
        client: ClientId,
        /// The length of the request in bytes, as far as a worker has to search that for its end.
        size: usize,
    },
    /// The client has gone, and the answer is not wanted any more.
    Abandoned(RequestId),
    /// The client had gone before a byte of its request was given to the worker that it was just assigned to.
    Withdrawn(RequestId),
    /// The worker's exec has succeeded.
    Started(WorkerId),
    /// The worker's process could not be made.
    SpawnFailed(WorkerId),
    /// A started worker is ready to be asked.
    Ready(WorkerId),
    /// The first bytes of a reply have come, but not its end.
    ReplyBegun(WorkerId, ReplyTo),
    /// One whole reply has come.
    Reply {
        /// The worker that has written it.
        worker: WorkerId,
        /// The request that it answers.
        to: ReplyTo,
        /// The worker's state after it.
        after: AfterReply,
    },
    /// The worker cannot be used any more, though its process may still be there.
    Broken(WorkerId, Fault),
    /// The answer to [`Action::Inspect`].
    Inspected(WorkerId, Inspection),
    /// The answer to [`Action::Probe`]. A probe that ends in any other way ends in [`Event::Broken`], [`Event::Exited`]
    /// or its deadline.
    Probed(WorkerId, ProbeResult),
    /// The process has ended, its group with it, and is reaped.
    Exited(WorkerId),
    /// The worker has grown over its memory limit: replace it in good order.
    Outgrown(WorkerId),
    /// The time of [`next_deadline`](super::Dispatcher::next_deadline) has come.
    Tick,
    /// The operator wants every worker replaced.
    Roll,
    /// The operator has changed the numbers.
    Reconfigure(Box<Policy>),
    /// The pool ends; requests that still wait are refused.
    Shutdown(StopMode),
}

/// The state of a worker that has just replied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterReply {
    /// The worker has read its request and written one reply.
    InStep,
    /// The worker has written more than one reply, or replied before it had read all of its request.
    OutOfStep,
    /// The worker has answered the only request that it takes, and is replaced without delay.
    Spent,
    /// The same, but its client was cut off: it is ended before it can take the part that it has for the whole.
    Cut,
}

/// The reason for which a worker is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The worker has closed its standard output.
    OutputClosed,
    /// The worker could not be given this request: its standard input is closed. Not a byte of the request has reached
    /// it, nor of the requests that it was given after that.
    InputClosed(RequestId),
    /// The worker has written while nothing was asked; found before the request at hand was given to it, or before it
    /// has read a byte of it.
    Unasked,
    /// The worker has written a line with the number of no request that it has in flight, or with none: the answer
    /// belongs to no client.
    UnknownChannel,
    /// The worker's reply to this is over the limit.
    ReplyTooLong(ReplyTo),
    /// The worker's output is no reply in the framing that it was said to speak.
    Malformed,
}

impl Fault {
    /// Output that is about nothing the worker has in flight.
    pub(super) fn of_stray(to: ReplyTo) -> Self {
        match to {
            ReplyTo::Oldest => Fault::Unasked,
            ReplyTo::Channel(_) => Fault::UnknownChannel,
        }
    }
}

/// The state of a worker that was inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// The worker has read all of its input and written nothing more.
    InStep,
    /// The worker has left input unread or written more than one reply.
    OutOfStep,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The worker answered what was expected, and nothing else.
    Passed,
    /// The worker answered anything else.
    Failed,
}

/// The first step of ending a worker's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// End of input first, then TERM, then KILL.
    EndInput,
    /// TERM at once, then KILL: for a worker that does not follow, or is not to be trusted.
    Terminate,
    /// KILL at once.
    Kill,
}

/// An order to the shell, which carries them out one after the other. A reply just reported is still in the shell's
/// hands when it sees [`Answer`](Action::Answer): it comes before anything else that concerns that worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a process for this worker and report [`Event::Started`] or [`Event::SpawnFailed`].
    Spawn(WorkerId),
    /// Write the client's request to the worker.
    Assign(Assignment),
    /// The request waits for a worker; also one that comes back because its worker was lost.
    Enqueued {
        /// The request: the shell remembers it for [`Event::Abandoned`].
        request: RequestId,
        /// The client that has sent the request.
        client: ClientId,
    },
    /// The reply just reported goes to this client.
    Answer(Completion),
    /// The client gets the refusal.
    Refuse(RefusedRequest),
    /// Look whether the worker is in step, and report [`Event::Inspected`].
    Inspect(WorkerId),
    /// Ask the worker the question with the known answer, and report [`Event::Probed`].
    Probe {
        /// The worker.
        worker: WorkerId,
        /// The number to put before it, for a worker that is told numbers.
        channel: Option<ChannelId>,
    },
    /// End the worker's process and report [`Event::Exited`] when it has gone.
    Stop(WorkerId, StopMode),
    /// For the log: a worker is lost or stopped, and its place goes to another.
    Replaced(Replacement),
    /// For the log: where others had failed their probe a worker serves again, which has passed or is not probed any
    /// more.
    QuarantineEnded(WorkerId),
    /// For the log: the load wants more workers, and a place is opened for one.
    Grown {
        /// The number of the new place.
        slot: usize,
        /// The number of places now.
        places: usize,
    },
    /// For the log: a worker is not needed any more, and its place goes with it.
    Shrunk {
        /// The worker.
        worker: WorkerId,
        /// The number of the place.
        slot: usize,
        /// The number of places that are left.
        places: usize,
    },
    /// For the log: every worker the operator wanted replaced is.
    Rolled,
    /// For the log: the pool can serve now, or cannot any more.
    Health(HealthChange),
}

/// A request that is given to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The worker.
    pub worker: WorkerId,
    /// The request: the shell remembers it for [`Event::Abandoned`].
    pub request: RequestId,
    /// The client that has sent the request.
    pub client: ClientId,
    /// The number of the request, for a worker that is told one.
    pub channel: Option<ChannelId>,
}

/// A request that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The client that has sent the request.
    pub client: ClientId,
    /// The worker that has replied.
    pub worker: WorkerId,
    /// The time from the request's arrival until the worker got it.
    pub waited: Duration,
    /// The time from then until the reply was whole.
    pub served: Duration,
}

/// A request that gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedRequest {
    /// The client that has sent the request.
    pub client: ClientId,
    /// The reason.
    pub reason: Refusal,
    /// The worker that had the request at the time, if any.
    pub worker: Option<WorkerId>,
    /// The time from the request's arrival until now.
    pub waited: Duration,
}

/// A worker that is lost or stopped, and the fate of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement {
    /// The worker.
    pub worker: WorkerId,
    /// The number of the worker's place; `None` when it had lost its place before.
    pub slot: Option<usize>,
    /// The reason.
    pub reason: Restart,
    /// The time for which the place stays empty before a new process is started; `None`: a successor serves
    /// already.
    pub delay: Option<Duration>,
    /// The number of workers of this place that have been lost early one after the other, this one included: the
    /// delay grows with it.
    pub early_deaths: u32,
}

/// The reason for which a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// As many requests as allowed wait already.
    QueueFull,
    /// No worker became free in time.
    QueueTimeout,
    /// The request's worker took too long.
    BusyTimeout,
    /// The request's worker died, once too often or with part of the reply written.
    WorkerDied,
    /// The reply of the request's worker was over the limit.
    ReplyTooLong,
    /// The output of the request's worker was no reply.
    BadReply,
    /// The daemon ends.
    Shutdown,
}

/// The reason for which a worker was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// The worker ended by itself, or closed its standard input or output.
    Died,
    /// The worker's process could not be started.
    SpawnFailed,
    /// The worker did not become ready in time.
    StartTimeout,
    /// The worker took too long over a request.
    BusyTimeout,
    /// The worker answered more than it was asked.
    Desync,
    /// The worker answered under a number that was not in flight, or under none.
    UnknownChannel,
    /// The worker's reply was over the limit.
    Oversize,
    /// The worker had failed its probe, or not survived it.
    Quarantined,
    /// The worker's output was no reply.
    Malformed,
    /// The worker had served long enough, or grown too large.
    Recycled,
    /// The worker had answered the only request that it takes.
    Spent,
    /// The operator asked for the replacement.
    Asked,
}
