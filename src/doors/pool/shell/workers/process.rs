//! One worker's process, its pipes and what is half-read or half-written on them.

use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::time::Instant;

use super::health_check::HealthCheck;
use super::loss::Loss;
use super::protocol::WorkerProtocol;
use crate::buffer::Buffer;
use crate::doors::pool::core::{ChannelId, ReplyTo, RequestId, Restart, WorkerId};
use crate::doors::pool::echoes::Said;
use crate::doors::pool::options::Options;
use crate::doors::pool::recorder::Recorder;
use crate::doors::pool::repeats::Words;
use crate::doors::pool::story::{End, Side};
use crate::framing::channel::{LONGEST_PREFIX, Prefix};
use crate::framing::search::LineSearch;
use crate::framing::{Framer, Framing};
use crate::process::child::Child;
use crate::process::kill_sequence::KillSequence;
use crate::process::stderr_log::StderrLog;
use crate::reactor::Alarm;

/// A process from its exec until it is reaped.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    pub(crate) id: WorkerId,
    /// The number of its place when it was started, as logs and statistics have it.
    pub(crate) number: usize,
    pub(crate) child: Child,
    pub(crate) stage: Stage,
    pub(crate) framer: Framer,
    /// The look at the worker before the last of its output was read.
    pub(crate) look: Look,
    /// A reply that is not whole yet.
    pub(crate) reply: Vec<u8>,
    pub(crate) protocol: WorkerProtocol,
    /// When it will be whole if nothing more comes, where a pause is what ends it.
    pub(crate) reply_alarm: Alarm,
    pub(crate) input: Input,
    /// The requests that it was given and has not answered, oldest first.
    pub(crate) given: VecDeque<Given>,
    /// The number of bytes that it was ever given.
    pub(crate) given_bytes: u64,
    /// The number of them that it was seen to have read, when that was last looked at before its output was read.
    pub(crate) seen_read: u64,
    /// The bytes that the pipe has not taken of them.
    pub(crate) unsent: Buffer,
    /// True while the worker stands in the list of workers that are written to at the end of the turn.
    pub(crate) is_listed: bool,
    /// Its standard input is registered with the poll. Most workers always take a request whole and never need it.
    pub(crate) is_stdin_watched: bool,
    pub(crate) ending: KillSequence,
    pub(crate) ending_alarm: Alarm,
    pub(crate) complaints: Complaints,
    pub(crate) started: Instant,
    /// A byte has come from its standard output.
    pub(crate) has_written: bool,
    pub(crate) recorder: Recorder,
    pub(crate) health_check: HealthCheck,
    pub(crate) losing: Losing,
}

/// The lines of a worker's standard error that are held back or remembered.
#[derive(Debug)]
pub(crate) struct Complaints {
    pub(crate) stderr: StderrLog,
    /// Held back to be compared with those of other young workers.
    pub(crate) words: Words,
    /// Remembered to be compared with those of workers that were lost.
    pub(crate) said: Said,
    /// The time at which `stderr` or `words` is due.
    pub(crate) alarm: Alarm,
}

/// All that is known of the loss of a worker, until it is logged.
#[derive(Debug, Default)]
pub(crate) struct Losing {
    /// The line that answers nothing, for which it is lost.
    pub(crate) stray: Option<String>,
    /// More about why it is lost.
    pub(crate) complaint: Option<String>,
    /// The stream that it has closed, for which it is lost.
    pub(crate) closed: Option<Side>,
    /// That it is lost, until it is told why.
    pub(crate) loss: Option<Box<Loss>>,
    /// It has exited, and is reaped when the losses before its own have been told.
    pub(crate) exit_waits: bool,
    /// The end of its process.
    pub(crate) end: Option<End>,
}

/// The state of its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// As long as it serves.
    Stays,
    /// Until it has its one request: the end of the input is the end of that.
    EndsWithRequest,
    /// It has had it, or as much of it as it wants.
    Ended,
    /// It has closed it while it had several requests. It is given nothing more, and is lost when what it has answered
    /// has been read.
    Shut,
}

/// The stage of its life, which says what its output means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Start-up talk, until the ready line comes.
    Starting(LineSearch),
    /// Replies.
    Serving,
    /// Nothing any more: it was told to end.
    Ending,
    /// Nothing any more: it has closed its input or output of its own accord, as a process that dies does a moment
    /// before its end is known. However that end comes, it is told as a death.
    Lost,
}

/// A request that a worker has, or a probe, and where it lies in everything that it was ever given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    /// `None`: it is a probe.
    request: Option<RequestId>,
    channel: Option<ChannelId>,
    start: u64,
    end: u64,
}

/// The outcome of an attempt to write to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The pipe has all of it.
    Whole,
    /// The rest waits until the pipe has room.
    Partly,
    /// The worker does not listen, and not a byte of this request and of those behind it has reached it.
    Nothing(RequestId),
    /// The worker does not listen any more; something of each of its requests may have reached it.
    Lost,
}

/// The part of one of its requests that a worker has left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    Nothing,
    Some,
    /// All of it: what it has written cannot be an answer to that.
    Everything,
}

/// A look at a worker right before its output was read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// The number of bytes of output that were there.
    written: usize,
    /// When it had written these, it had read no more than so much of all that it was ever given.
    pub(crate) had_read: Option<u64>,
}

impl Look {
    /// Returns true if output that ends behind `end` bytes of the read was there. If not, it was written between the
    /// look and the read, by a worker that may have read more by then.
    pub(crate) fn covers(&self, end: usize) -> bool {
        end <= self.written
    }
}

/// The output of an idle worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nothing was written.
    Kept,
    /// Something was, unasked.
    Broken,
    /// It has closed its output.
    Closed,
}

impl WorkerProcess {
    /// A worker whose exec has just succeeded.
    pub(super) fn new(options: &Options, id: WorkerId, number: usize, child: Child, now: Instant) -> WorkerProcess {
        let protocol = WorkerProtocol::new(options);
        let longest_prefix = match protocol {
            WorkerProtocol::Numbered => LONGEST_PREFIX,
            WorkerProtocol::InOrder | WorkerProtocol::Once | WorkerProtocol::Session(_) => 0,
        };
        let framings = options.framings;
        WorkerProcess {
            id,
            number,
            child,
            stage: match &options.ready_line {
                Some(line) => Stage::Starting(LineSearch::new(line)),
                None => Stage::Serving,
            },
            framer: framings.worker_reply.framer(options.max_reply + longest_prefix),
            look: Look::default(),
            reply: Vec::new(),
            reply_alarm: Alarm::default(),
            input: match framings.worker_request {
                Framing::Eof => Input::EndsWithRequest,
                _ => Input::Stays,
            },
            protocol,
            given: VecDeque::new(),
            given_bytes: 0,
            seen_read: 0,
            unsent: Buffer::default(),
            is_listed: false,
            is_stdin_watched: false,
            ending: KillSequence::new(options.kill_timeout),
            ending_alarm: Alarm::default(),
            complaints: Complaints {
                stderr: StderrLog::new(now),
                words: Words::default(),
                said: Said::default(),
                alarm: Alarm::default(),
            },
            started: now,
            has_written: false,
            recorder: Recorder::new(recorded(options)),
            health_check: HealthCheck::new(options.probe.clone()),
            losing: Losing::default(),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.pid().as_raw()
    }

    /// The name of the worker in the log.
    pub(crate) fn label(&self) -> String {
        format!("worker {} (pid {})", self.number, self.pid())
    }

    /// The number of requests of which anything has reached the worker. Probes are none.
    pub(crate) fn requests_in_hand(&self) -> usize {
        let requests = self.given.iter().filter(|given| given.request.is_some()).count();
        requests.saturating_sub(self.untouched().count())
    }

    /// Returns true if what the worker has answered before may be wrong for the reason for which it is lost. It is not
    /// known which of the answers that are kept are its own.
    pub(crate) fn casts_doubt_by(&self, reason: Restart) -> bool {
        match reason {
            // Since it passed its last probe it may have answered as wrongly as it has answered this one.
            Restart::Quarantined => self.health_check.has_passed(),
            // It wrote what belongs to no request, and may have done so for a while.
            Restart::Desync | Restart::UnknownChannel | Restart::Malformed => self.given_bytes > 0,
            // It is too slow, too verbose or dead, and what it has said before stands; or it goes in good order.
            Restart::Died
            | Restart::SpawnFailed
            | Restart::StartTimeout
            | Restart::BusyTimeout
            | Restart::Oversize
            | Restart::Recycled
            | Restart::Spent
            | Restart::Asked => false,
        }
    }

    /// Returns true if the worker serves, and has been given what it has not answered.
    pub(crate) fn owes_a_reply(&self) -> bool {
        self.stage == Stage::Serving && !self.given.is_empty()
    }

    /// Returns true if a reply has begun, and nothing has come behind it since its alarm went off.
    pub(crate) fn is_quiet(&self) -> bool {
        self.reply_alarm.at().is_none() && !self.reply.is_empty()
    }

    /// Returns true while the ready line is awaited.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting(_))
    }

    /// Reads from its output once.
    pub(crate) fn read_output(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut stdout) = self.child.stdout.as_ref() else {
            return Ok(0);
        };
        loop {
            match stdout.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// Looks whether it has written anything since it was last read.
    pub(crate) fn check_silence(&mut self) -> Silence {
        match self.read_output(&mut [0; 1]) {
            Ok(0) => Silence::Closed,
            Ok(_) => {
                self.has_written = true;
                Silence::Broken
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Silence::Kept,
            Err(_) => Silence::Closed,
        }
    }

    /// To be asked right before its output is read: whatever it has written by now it wrote without what it had not
    /// read by now. Asked behind that, it may have read the rest in between, and pass for one that had read all before
    /// it answered.
    pub(crate) fn look(&mut self) -> Look {
        if self.given.is_empty() || self.stage != Stage::Serving {
            return Look::default();
        }
        // A worker that was once seen to have read everything is not looked at again until it is given more.
        let had_read = if self.seen_read < self.given_bytes {
            self.bytes_read()
        } else {
            Some(self.seen_read)
        };
        self.seen_read = had_read.unwrap_or(0);
        if had_read.is_none_or(|read| read >= self.given_bytes) {
            // The usual case: no reply in what is read now can have come too early, whenever it was written.
            return Look {
                written: usize::MAX,
                had_read,
            };
        }
        // In this order: what was written first is judged by what had been read later.
        let stdout = self.child.stdout.as_ref();
        let written = stdout.map_or(0, |stdout| crate::process::unread_bytes(stdout).unwrap_or(0));
        Look {
            written,
            had_read: self.bytes_read(),
        }
    }

    /// The number of bytes that it has read of all that it was ever given. `None`: its input cannot be looked at.
    pub(crate) fn bytes_read(&self) -> Option<u64> {
        let stdin = self.child.stdin.as_ref()?;
        let in_pipe = if self.child.is_on_terminal() {
            // Our side of a terminal cannot tell; what it has taken is taken for read.
            0
        } else {
            crate::process::unread_bytes(stdin).ok()?
        };
        let unread = u64::try_from(in_pipe + self.unsent.len()).ok()?;
        Some(self.given_bytes.saturating_sub(unread))
    }

    /// The part of one of its requests (`None`: of all) that it had not read when it had read `had_read` bytes; the
    /// requests behind it lie in its input by right. A worker whose input cannot be looked at is not to be trusted,
    /// unless that is because it was closed on purpose.
    pub(crate) fn unread_input(&self, request: Option<Given>, had_read: Option<u64>) -> Unread {
        if self.input == Input::Ended {
            return Unread::Nothing;
        }
        let (start, end) = request.map_or((0, self.given_bytes), |given| (given.start, given.end));
        match had_read {
            None => Unread::Some,
            Some(read) if read >= end => Unread::Nothing,
            Some(read) if read <= start => Unread::Everything,
            Some(_) => Unread::Some,
        }
    }

    /// Takes out what has been answered.
    pub(crate) fn take_answered(&mut self, to: ReplyTo) -> Option<Given> {
        self.given.remove(self.position(to)?)
    }

    pub(super) fn position(&self, to: ReplyTo) -> Option<usize> {
        match to {
            ReplyTo::Oldest => Some(0),
            ReplyTo::Channel(channel) => self.given.iter().position(|given| given.channel == Some(channel)),
        }
    }

    /// Takes a request for it, under its number if it is told one; [`send`](Self::send) writes both.
    pub(crate) fn queue_request(&mut self, request: Option<RequestId>, channel: Option<ChannelId>, bytes: &[u8]) {
        let (start, unsent_before) = (self.given_bytes, self.unsent.len());
        // Nothing of a line that is not there: a number alone would be taken for the beginning of the next one.
        if let Some(ChannelId(number)) = channel.filter(|_| !bytes.is_empty()) {
            self.unsent.end().extend_from_slice(Prefix::of(number).as_bytes());
        }
        self.unsent.end().extend_from_slice(bytes);
        let length = self.unsent.len().saturating_sub(unsent_before);
        let end = start.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        self.given_bytes = end;
        self.given.push_back(Given {
            request,
            channel,
            start,
            end,
        });
    }

    /// Writes what it has not been sent, as far as the pipe takes it.
    pub(super) fn write_unsent(&mut self) -> Sent {
        if matches!(self.input, Input::Ended | Input::Shut) {
            return Sent::Whole;
        }
        let Some(stdin) = self.child.stdin.as_ref() else {
            return self.unsent_outcome();
        };
        match self.unsent.write_to(stdin) {
            Ok(_) if self.unsent.is_empty() => {
                self.end_input_behind_request();
                Sent::Whole
            }
            Ok(_) => Sent::Partly,
            // EPIPE: it has closed its input.
            Err(_) => self.unsent_outcome(),
        }
    }

    /// Where the end of its input is what tells it that it has all of its request, now is the time.
    fn end_input_behind_request(&mut self) {
        if self.input == Input::EndsWithRequest && !self.given.is_empty() {
            self.end_input();
        }
    }

    /// Closes its input.
    pub(crate) fn end_input(&mut self) {
        self.input = Input::Ended;
        self.child.stdin = None;
        self.unsent.clear();
    }

    /// The outcome of a write to a worker that does not listen.
    pub(crate) fn unsent_outcome(&self) -> Sent {
        let first = self.untouched().next();
        first.and_then(|given| given.request).map_or(Sent::Lost, Sent::Nothing)
    }

    /// The requests of which not a byte has been written to the worker.
    pub(crate) fn untouched(&self) -> impl Iterator<Item = &Given> {
        let unsent = u64::try_from(self.unsent.len()).unwrap_or(u64::MAX);
        let sent = self.given_bytes.saturating_sub(unsent);
        // Nothing is unsent of an empty one.
        self.given.iter().filter(move |given| unsent > 0 && given.start >= sent)
    }
}

/// The number of requests that a worker's recorder keeps: as the operator wants, and, where any are wanted, no fewer
/// than may be in flight, or the one to blame would be overwritten by those written behind it.
fn recorded(options: &Options) -> usize {
    match options.record {
        0 => 0,
        wanted => {
            let policy = &options.policy;
            wanted.max(policy.concurrency.unwrap_or(policy.pipeline))
        }
    }
}
