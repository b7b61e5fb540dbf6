//! Processes of workers are started, a few in a turn.

use std::io;

use mio::Interest;

use super::Workers;
use super::process::WorkerProcess;
use crate::doors::pool::core::{Event, WorkerId};
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::process::failure::SpawnError;
use crate::process::spawn::Stdio;
use crate::reactor::{Context, SourceKind};

impl Workers {
    pub(crate) fn queue_spawn(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        if self.waiting.is_empty() {
            self.spawn_later(cx);
        }
        self.waiting.push_back(id);
    }

    /// Takes the worker whose process is to be started next.
    pub(crate) fn next_spawn(&mut self) -> Option<WorkerId> {
        self.waiting.pop_front()
    }

    /// Lets the rest be started in the next turn.
    pub(crate) fn spawn_later(&self, cx: &mut Context<'_>) {
        cx.resume_later(PoolSource::Spawning.only());
    }

    pub(crate) fn has_waiting_spawns(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Starts the process of a worker; `number` is that of its place. A failure is reported, and tried again after a
    /// while.
    ///
    /// # Errors
    /// Those of starting it, for a caller that cannot go on without it.
    pub(crate) fn spawn(&mut self, desk: &mut Desk<'_>, id: WorkerId, number: usize) -> Result<(), SpawnError> {
        match self.program.spawn(Stdio::piped()) {
            Ok(child) => {
                self.start(desk, WorkerProcess::new(desk.options, id, number, child, desk.cx.now()));
                Ok(())
            }
            Err(error) => {
                self.refusal = Some(error.to_string());
                desk.report(Event::SpawnFailed(id));
                Err(error)
            }
        }
    }

    fn start(&mut self, desk: &mut Desk<'_>, mut process: WorkerProcess) {
        log::debug!(service:% = desk.front.name(); "{}: {} is started", desk.front.name(), process.label());
        desk.report(Event::Started(process.id));
        match process.watch(&desk.cx) {
            Ok(()) if desk.options.ready_line.is_none() => desk.report(Event::Ready(process.id)),
            Ok(()) => {}
            Err(error) => process.report_unwatched(desk, &error),
        }
        self.insert(process);
    }
}

impl WorkerProcess {
    /// Registers the end of the process and its output with the poll.
    fn watch(&mut self, cx: &Context<'_>) -> io::Result<()> {
        let exit = PoolSource::WorkerExit.worker(self.id);
        cx.register(exit, self.child.pidfd(), Interest::READABLE)?;
        if let Some(stdout) = &mut self.child.stdout {
            cx.register(PoolSource::WorkerOutput.worker(self.id), stdout, Interest::READABLE)?;
        }
        if let Some(stderr) = &mut self.child.stderr {
            cx.register(PoolSource::WorkerErrors.worker(self.id), stderr, Interest::READABLE)?;
        }
        Ok(())
    }
}
