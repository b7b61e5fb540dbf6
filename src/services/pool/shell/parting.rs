//! What the pool says to its clients, and how it parts from them: the answer or the refusal, what is left unread, the close.

use std::io;
use std::io::Write;
use std::time::Duration;

use log::Level;

use super::super::core::ClientId;
use super::super::report::Topic;
use super::client::{After, Phase};
use super::clients::Line;
use super::{Of, Pool};
use crate::net::addr::PeerAddr;
use crate::net::stream::{Stream, Unread};
use crate::reactor::{Context, Key};

/// How long, and for how many bytes, a client that has its answer may go on sending.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
/// What is thrown away of one client's input in one turn, in system calls.
const DISCARDS_PER_TURN: usize = 4;

impl Pool {
    // ---- answering ---------------------------------------------------------------------------------------------

    pub(super) fn answer(&mut self, cx: &mut Context<'_>, id: ClientId, reply: &[u8], served: Duration) {
        if let Err(gone) = self.send(cx, Key::from_bits(id.0), reply, After::LookForInput) {
            self.dispatcher.counters_mut().answer_was_lost(served);
            let line = format_args!("{gone} hung up before its answer");
            self.note(cx, Level::Debug, Topic::HungUp, line);
        }
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: ClientId) {
        self.send_refusal(cx, Key::from_bits(id.0), After::LookForInput);
    }

    pub(super) fn send_refusal(&mut self, cx: &mut Context<'_>, key: Key, after: After) {
        let refusal = std::mem::take(&mut self.options.error_reply);
        // Whom it does not reach has gone, and is counted as refused already.
        let _ = self.send(cx, key, &refusal, after);
        self.options.error_reply = refusal;
    }

    /// Writes the last words to a client. An error names the client that is not there any more.
    fn send(&mut self, cx: &mut Context<'_>, key: Key, bytes: &[u8], after: After) -> Result<(), PeerAddr> {
        let Some(client) = self.clients.get_mut(key) else {
            return Ok(());
        };
        let written = match write_some(&mut client.stream, bytes) {
            Ok(written) => written,
            Err(_) => {
                let peer = client.peer;
                self.close(cx, key);
                return Err(peer);
            }
        };
        let input = std::mem::take(&mut client.input);
        if let Some(unsent) = bytes.get(written..).filter(|unsent| !unsent.is_empty()) {
            let deadline = cx.now() + self.options.write_timeout;
            client.phase = Phase::Writing {
                unsent: unsent.to_vec(),
                written: 0,
                deadline,
                after,
            };
            self.settle(cx, key);
        } else {
            self.part(cx, key, after);
        }
        self.clients.keep_buffer(input);
        Ok(())
    }

    pub(super) fn write_on(&mut self, cx: &mut Context<'_>, key: Key) {
        let progress_by = cx.now() + self.options.write_timeout;
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Phase::Writing {
            unsent,
            written,
            deadline,
            after,
        } = &mut client.phase
        else {
            return;
        };
        match write_some(&mut client.stream, unsent.get(*written..).unwrap_or_default()) {
            Ok(0) => {}
            Ok(more) => {
                *written += more;
                *deadline = progress_by;
            }
            Err(_) => return self.close(cx, key),
        }
        if *written == unsent.len() {
            let after = *after;
            return self.part(cx, key, after);
        }
        self.settle(cx, key);
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// All is said. The connection is closed, at once where nothing of the client's is left unread.
    fn part(&mut self, cx: &mut Context<'_>, key: Key, after: After) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let unread = match after {
            After::Linger => Ok(Unread::Bytes(0)),
            After::LookForInput => client.stream.discard_unread(),
        };
        match unread {
            Ok(Unread::Bytes(_)) if client.stream.shutdown_write().is_ok() => {
                client.phase = Phase::Lingering {
                    deadline: cx.now() + LINGER,
                    budget: LINGER_BYTES,
                };
                self.linger_on(cx, key);
            }
            Ok(Unread::Bytes(_) | Unread::None | Unread::End) | Err(_) => self.close(cx, key),
        }
    }

    pub(super) fn linger_on(&mut self, cx: &mut Context<'_>, key: Key) {
        for _ in 0..DISCARDS_PER_TURN {
            let Some(client) = self.clients.get_mut(key) else {
                return;
            };
            let Phase::Lingering { budget, .. } = &mut client.phase else {
                return;
            };
            match client.stream.discard_unread() {
                Ok(Unread::Bytes(count)) if count < *budget => *budget -= count,
                Ok(Unread::None) => return self.settle(cx, key),
                // The end, an error, or a client that never stops.
                Ok(Unread::Bytes(_) | Unread::End) | Err(_) => return self.close(cx, key),
            }
        }
        self.settle(cx, key);
        cx.resume_later(Of::client(key));
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        cx.alarm_fired(&mut client.alarm);
        match client.phase {
            Phase::Reading { .. } if client.input.is_empty() => {
                let line = format_args!("closed {}: it sent nothing within --read-timeout", client.peer);
                let line = line.to_string();
                self.dispatcher.counters_mut().refusals.read_timeout += 1;
                self.note(cx, Level::Info, Topic::ReadTimeout, format_args!("{line}"));
                self.close(cx, key);
            }
            Phase::Reading { .. } => self.refuse_line(cx, key, Line::TooSlow),
            Phase::Writing { .. } => {
                let peer = client.peer;
                self.dispatcher.counters_mut().refusals.write_timeout += 1;
                let line = format_args!("closed {peer}: it took nothing of its answer within --write-timeout");
                self.note(cx, Level::Warn, Topic::WriteTimeout, line);
                self.close(cx, key);
            }
            Phase::Lingering { .. } => self.close(cx, key),
            // It has no deadline; the dispatcher keeps it.
            Phase::Asked { .. } => {}
        }
    }

    /// Ends a connection: the only way out of the table.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(mut client) = self.clients.remove(key) else {
            return;
        };
        cx.set_alarm(&mut client.alarm, Of::client(key), None);
        self.clients.keep_buffer(client.input);
        drop(client.stream);
        self.descriptor_freed(cx);
    }
}

/// Writes as much as the socket takes at once; 0 when it is full.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
