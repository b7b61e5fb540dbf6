//! How workers' processes end: told to, by themselves, or not at all.

use std::io;

use log::Level;
use nix::sys::signal::Signal;

use super::super::core::{Ending, Event, Fault, Restart, WorkerId};
use super::super::report::Topic;
use super::process::Stage;
use super::{Of, Pool};
use crate::amount;
use crate::framing::Framing;
use crate::process::reaper::{self, Manner};
use crate::reactor::{Context, Key};

impl Pool {
    pub(super) fn end_process(&mut self, cx: &mut Context<'_>, id: WorkerId, ending: Ending) {
        let manner = match ending {
            Ending::Gently => Manner::Gently,
            Ending::Firmly => Manner::Promptly,
            Ending::Now => Manner::AtOnce,
        };
        if let Some(process) = self.crew.get_mut(id) {
            if process.stage != Stage::Lost {
                process.stage = Stage::Ending;
            }
            process.reply = Vec::new();
        }
        self.end_on(cx, id, reaper::Event::Stop(manner));
    }

    /// One step on the way out. Everything is done that the step asks for, even if part of it fails.
    fn end_on(&mut self, cx: &mut Context<'_>, id: WorkerId, event: reaper::Event) {
        let Some(process) = self.crew.get_mut(id) else { return };
        let actions = process.ending.handle(event, cx.now());
        let deadline = process.ending.deadline();
        cx.set_alarm(&mut process.ending_alarm, Of::WorkerEnding.worker(id), deadline);
        for action in actions {
            let Some(process) = self.crew.get_mut(id) else { return };
            let outcome = match action {
                reaper::Action::CloseStdin => {
                    process.child.end_input();
                    Ok(())
                }
                reaper::Action::Terminate => process.child.terminate_group(),
                reaper::Action::Kill => process.child.kill_group(Signal::SIGKILL),
                reaper::Action::Reap => self.reap(cx, id),
                reaper::Action::GiveUp => {
                    self.give_up_on(cx, id);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                let who = self.crew.describe(id).unwrap_or_default();
                self.note(
                    cx,
                    Level::Error,
                    Topic::System,
                    format_args!("cannot end {who}: {error}"),
                );
            }
        }
    }

    /// Stuck in the kernel: not even KILL ends it. It is not waited for, or the pool would be stuck as well.
    fn give_up_on(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let who = self.crew.describe(id).unwrap_or_default();
        let line = format_args!("{who} does not end, not even by KILL, and is left behind; see its state in /proc");
        self.note(cx, Level::Error, Topic::System, line);
        self.is_gone(cx, id);
    }

    pub(super) fn ending_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.crew.find(key) else { return };
        if let Some(process) = self.crew.get_mut(id) {
            cx.alarm_fired(&mut process.ending_alarm);
        }
        self.end_on(cx, id, reaper::Event::Deadline);
    }

    /// The process has ended. Its last words are heard first: a reply that was written counts.
    pub(super) fn exit_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.crew.find(key) else { return };
        self.hear_last_words(cx, id);
        let Some(process) = self.crew.get(id) else { return };
        if process.examination.is_under_way() {
            // To be told while it is known who it was and what it was asked.
            self.fault(cx, id, Fault::OutputClosed);
        } else if process.stage == Stage::Serving && process.untouched().next().is_some() {
            // Those had nothing to do with it.
            self.input_is_shut(cx, id);
        }
        if let Some(process) = self.crew.get_mut(id) {
            process.was_signalled = process.ending.has_signalled();
        }
        self.session_loses_worker(cx, id);
        self.end_on(cx, id, reaper::Event::Exited);
    }

    fn reap(&mut self, cx: &mut Context<'_>, id: WorkerId) -> io::Result<()> {
        let Some(process) = self.crew.get_mut(id) else {
            return Ok(());
        };
        let outcome = process.child.reap_with_group();
        let (left, pid) = (process.child.has_left_background(), process.pid());
        if let Ok(Some(status)) = outcome
            && process.crashed(status)
        {
            let (number, pid) = (process.number, process.pid());
            let line = format_args!("worker {number} (pid {pid}) ended in its session: {status}");
            self.note(cx, Level::Warn, Topic::Died, line);
        }
        if let (Ok(Some(status)), Framing::Eof) = (&outcome, self.options.framings.worker_reply)
            && status.success()
        {
            self.reply_has_ended(cx, id);
        }
        let status = match outcome {
            Ok(status) => status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string()),
            Err(error) => format!("status unknown, because {error}"),
        };
        self.log_exit(cx, id, &status);
        if left {
            self.dispatcher.counters_mut().background += 1;
            let line = format_args!("what worker process {pid} has left in the background goes on");
            self.note(cx, Level::Info, Topic::Background, line);
        }
        self.is_gone(cx, id);
        Ok(())
    }

    /// There is no process any more, or none that would be waited for.
    fn is_gone(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        self.dispatcher.handle(cx.now(), Event::Exited(id));
        if let Some(mut process) = self.crew.remove(id) {
            cx.set_alarm(&mut process.ending_alarm, Of::WorkerEnding.worker(id), None);
            cx.set_alarm(&mut process.stderr_alarm, Of::WorkerErrors.worker(id), None);
            cx.set_alarm(&mut process.reply_alarm, Of::WorkerOutput.worker(id), None);
        }
        self.act(cx, None);
        self.descriptor_freed(cx);
    }

    fn log_exit(&mut self, cx: &mut Context<'_>, id: WorkerId, status: &str) {
        let Some(process) = self.crew.get(id) else { return };
        let (number, pid) = (process.number, process.pid());
        let lived = amount::span(cx.now().saturating_duration_since(process.started));
        match process.stage {
            // The words of iotcpd 1.1, for scripts that look for them.
            Stage::Starting(_) | Stage::Serving | Stage::Lost => {
                let line = format_args!("daemon d[{number}] has died: pid {pid}, {status}, after {lived}");
                self.note(cx, Level::Warn, Topic::Died, line);
                self.tell_record(cx, id, Restart::Died);
            }
            Stage::Ending => log::debug!("{}: worker {number} (pid {pid}) has ended: {status}", self.options.name),
        }
    }
}
