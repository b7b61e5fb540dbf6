//! The end of workers' processes: on request, by themselves, or not at all.

use log::Level;
use nix::sys::signal::Signal;

use super::Ended;
use super::Workers;
use super::process::Stage;
use super::protocol::WorkerProtocol;
use crate::doors::pool::core::{Event, Fault, StopMode, WorkerId};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::story::End;
use crate::framing::Framing;
use crate::process::exit_status::ExitStatus;
use crate::process::kill_sequence::{KillEvent, KillStep, Manner};
use crate::reactor::Key;

impl Workers {
    pub(crate) fn stop_worker(&mut self, desk: &mut Desk<'_>, id: WorkerId, mode: StopMode) {
        let Some(process) = self.get_mut(id) else {
            return;
        };
        process.reply = Vec::new();
        if process.stage != Stage::Lost {
            process.stage = Stage::Ending;
        }
        let manner = match mode {
            // It is most likely on its way.
            StopMode::Terminate if process.losing.loss.is_some() => Manner::Expected,
            StopMode::EndInput => Manner::Gently,
            StopMode::Terminate => Manner::Promptly,
            StopMode::Kill => Manner::AtOnce,
        };
        self.advance_ending(desk, id, KillEvent::Stop(manner));
    }

    /// One step on the way out. Everything is done that the step asks for, even if part of it fails.
    fn advance_ending(&mut self, desk: &mut Desk<'_>, id: WorkerId, event: KillEvent) {
        let Some(process) = self.get_mut(id) else {
            return;
        };
        // Whatever was to be done to one that has exited: it is time to reap it.
        let event = if process.losing.exit_waits {
            KillEvent::Exited
        } else {
            event
        };
        let actions = process.ending.handle(event, desk.cx.now());
        let deadline = process.ending.deadline();
        desk.cx
            .set_alarm(&mut process.ending_alarm, PoolSource::WorkerEnding.worker(id), deadline);
        if actions.contains(&KillStep::Terminate) || actions.contains(&KillStep::Kill) {
            self.log_loss_of_living(desk, id);
        }
        for action in actions {
            let Some(process) = self.get_mut(id) else {
                return;
            };
            let outcome = match action {
                KillStep::CloseStdin => {
                    process.child.end_input();
                    Ok(())
                }
                KillStep::Terminate => process.child.terminate_group(),
                KillStep::Kill => process.child.kill_group(Signal::SIGKILL),
                KillStep::Reap => {
                    self.reap(id);
                    Ok(())
                }
                KillStep::GiveUp => {
                    self.give_up_on(desk, id);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                let label = self.describe(id).unwrap_or_default();
                desk.note(Level::Error, Topic::System, format_args!("cannot end {label}: {error}"));
            }
        }
    }

    /// Stuck in the kernel: not even KILL ends it. It is not waited for, or the pool would be stuck as well.
    fn give_up_on(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        let label = self.describe(id).unwrap_or_default();
        let line = format_args!("{label} does not end, not even by KILL, and is left behind; see its state in /proc");
        desk.note(Level::Error, Topic::System, line);
        desk.report(Event::Exited(id));
        self.ended.push_back(Ended::Gone(id));
    }

    pub(crate) fn ending_timeout(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(id) = self.find(key) else { return };
        if let Some(process) = self.get_mut(id) {
            desk.cx.clear_alarm(&mut process.ending_alarm);
        }
        self.advance_ending(desk, id, KillEvent::Deadline);
    }

    /// Reports what the end of a process means for a worker whose output has been read to its end.
    pub(crate) fn report_exit(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        let others_die = !self.dying.is_empty();
        let Some(process) = self.get_mut(id) else {
            return;
        };
        let is_up = matches!(process.stage, Stage::Serving | Stage::Starting(_));
        // Its end can mean neither an answer nor the end of a session, and it was not told to end.
        let is_lost = is_up && matches!(process.protocol, WorkerProtocol::InOrder | WorkerProtocol::Numbered);
        if process.health_check.is_under_way() {
            // To be logged while it is known which worker it was and what it was asked.
            process.report_fault(desk, Fault::OutputClosed);
        } else if process.stage == Stage::Serving && process.untouched().next().is_some() {
            // Those had nothing to do with it.
            process.report_closed_input(desk);
        } else if others_die && is_lost {
            // Its place is filled now, and its story waits for those of the others.
            process.report_fault(desk, Fault::OutputClosed);
        }
    }

    /// Reaps a process that has ended, unless the losses before its own are to be logged first. Returns true if its
    /// exit is what says that its reply is whole.
    pub(crate) fn reap_in_order(&mut self, desk: &mut Desk<'_>, id: WorkerId) -> bool {
        let is_next = self.dying.first() == Some(&id);
        if let Some(process) = self.get_mut(id) {
            process.losing.exit_waits = process.losing.loss.is_some() && !is_next;
            if process.losing.exit_waits {
                return false;
            }
        }
        self.advance_ending(desk, id, KillEvent::Exited);
        let is_successful = matches!(
            self.ended.back(),
            Some(Ended::Reaped(ended, End::Background(_) | End::Ended(ExitStatus::Code(0)))) if *ended == id
        );
        is_successful && desk.options.framings.worker_reply == Framing::Eof
    }

    /// Reaps a process that has exited. What follows from its end is left to [`settle_ended`](Self::settle_ended).
    fn reap(&mut self, id: WorkerId) {
        let Some(process) = self.get_mut(id) else {
            return;
        };
        // To be asked while it is a zombie, and only of a worker that has been of no use.
        let is_useless = process.complaints.words.is_young() && !process.may_have_answered();
        let may_be_a_daemon = process.stage != Stage::Ending && is_useless;
        let left = if may_be_a_daemon {
            process.child.left_running()
        } else {
            None
        };
        let end = match (process.child.reap_with_group(), left) {
            (Ok(Some(status)), Some(left)) if status.success() => End::Background(left),
            (Ok(Some(status)), _) => End::Ended(status),
            (Ok(None), _) => End::Unknown("it has none".to_owned()),
            (Err(error), _) => End::Unknown(error.to_string()),
        };
        self.ended.push_back(Ended::Reaped(id, end));
    }

    /// Takes a worker that has no process any more, and about which something is left to do.
    pub(crate) fn next_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// Does what is left to do about a worker that has no process any more, or none that would be waited for: its loss
    /// is logged, the dispatcher is told, and once nothing more follows from that it is removed.
    pub(crate) fn settle_ended(&mut self, desk: &mut Desk<'_>, ended: Ended) {
        match ended {
            Ended::Reaped(id, end) => {
                self.log_exit(desk, id, &end);
                self.log_loss_of_dead(desk, id, end);
                desk.report(Event::Exited(id));
                self.ended.push_front(Ended::Gone(id));
            }
            Ended::Gone(id) => self.remove_worker(desk, id),
        }
    }

    fn remove_worker(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        self.with_words(desk, id, |repeats, _, words, tell| repeats.gone(words, tell));
        let Some(mut process) = self.remove(id) else {
            return;
        };
        let cx = &mut desk.cx;
        cx.set_alarm(&mut process.ending_alarm, PoolSource::WorkerEnding.worker(id), None);
        cx.set_alarm(&mut process.complaints.alarm, PoolSource::WorkerErrors.worker(id), None);
        cx.set_alarm(&mut process.reply_alarm, PoolSource::WorkerOutput.worker(id), None);
        let (label, goes_on) = (process.label(), process.child.has_left_background());
        drop(process);
        desk.outbox.has_freed_descriptor = true;
        if goes_on {
            desk.counters.background += 1;
            let line = format_args!("what {label} has left in the background goes on");
            desk.note(Level::Info, Topic::Background, line);
        }
    }

    /// The end of one that is not lost: it was told to go, or had a session.
    fn log_exit(&mut self, desk: &mut Desk<'_>, id: WorkerId, end: &End) {
        let Some(process) = self.get(id) else { return };
        let label = process.label();
        match end {
            End::Ended(status) if process.crashed(*status) => {
                let line = format_args!("{label} ended in its session: {status}");
                desk.note(Level::Warn, Topic::Died, line);
            }
            _ if process.stage == Stage::Ending => {
                log::debug!(service:% = desk.front.name(); "{}: {label} {end}, as it was told to", desk.front.name())
            }
            _ => {}
        }
    }
}
