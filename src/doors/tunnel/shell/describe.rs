//! The dump: a line for each server, one for each tunnel, and one for each stream. Its cost is bounded, as that of every
//! door's dump is.

use std::time::{Duration, Instant};

use super::TunnelDoor;
use super::streams::Traffic;
use super::tunnels::Stage;
use crate::amount;
use crate::doors::dump::{Dump, FIRST};

impl TunnelDoor {
    /// The longest of the times that the last answered pings took; none without an answer.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        let sessions = self.tunnels.iter().filter_map(|(_, tunnel)| match &tunnel.stage {
            Stage::Up(session) => session.round_trip(),
            Stage::Naming | Stage::Connecting(_) | Stage::Closing(_) => None,
        });
        sessions.max()
    }

    pub(super) fn describe(&self, now: Instant) -> String {
        let front = &self.front;
        let load = format_args!("streams = {}", self.streams.len());
        let mut dump = Dump::begin(front.name(), "tunnel door", front.uptime(now), String::new(), load);
        dump.front(front, now);
        let remotes = self.remotes.iter().map(|(_, slot)| {
            let (address, state) = (&slot.options.address, slot.state.state());
            match slot.state.up_since() {
                Some(since) => {
                    let since = amount::span(now.saturating_duration_since(since));
                    format!("remote: address = {address}, state = {state}, for = {since}")
                }
                None => format!("remote: address = {address}, state = {state}"),
            }
        });
        dump.list(FIRST, self.remotes.len(), remotes);
        let tunnels = self.tunnels.iter().map(|(_, tunnel)| {
            let name = &tunnel.name;
            match &tunnel.stage {
                Stage::Naming => format!("tunnel: address = {name}, state = naming"),
                Stage::Connecting(_) => format!("tunnel: address = {name}, state = connecting"),
                Stage::Closing(_) => format!("tunnel: address = {name}, state = closing"),
                Stage::Up(session) => {
                    let (streams, counters) = (session.streams(), session.counters());
                    let trip = session.round_trip().map_or_else(|| "unknown".to_owned(), |trip| amount::span(trip).to_string());
                    let state = if session.is_gone_away() { "gone away" } else { "up" };
                    format!(
                        "tunnel: address = {name}, state = {state}, streams = {streams}, in = {}, out = {}, round trip = {trip}",
                        counters.received, counters.sent
                    )
                }
            }
        });
        dump.list(FIRST, self.tunnels.len(), tunnels);
        let streams = self.streams.iter().map(|(_, carried)| {
            let Traffic { input, output, .. } = carried.traffic();
            let (number, stage) = (carried.stream.0, carried.stage());
            format!("stream {number}: state = {stage}, in = {input}, out = {output}")
        });
        dump.list(FIRST, self.streams.len(), streams);
        dump.text()
    }
}
