//! The sentences that `router` promises, as assertions: in debug builds after every event.

use super::life::{Life, Routed, Stage, State};
use super::router::Router;

impl Router {
    pub(super) fn check_invariants(&self, life: &Life) {
        let census = &self.census;
        assert_eq!(
            self.upstreams.active() + self.tunnels.streams(),
            census.connecting + census.asking + census.relaying,
            "each route that connects, asks or relays holds one server"
        );
        let with_programs = self.starter.users();
        assert_eq!(
            with_programs.0, census.starting,
            "each route that waits for a program is known to it"
        );
        assert!(
            with_programs.1 <= census.connecting + census.asking + census.relaying,
            "a program is had by routes that connect, ask or relay"
        );
        // A route that was woken still waits until it hears of it.
        assert!(
            self.waiting.len() <= census.waiting,
            "only routes that wait have a place"
        );
        assert!(
            self.tunnels.expecting() <= census.expecting,
            "only routes that expect a client have a place among these"
        );
        let may_last = match &life.state {
            State::Relaying(relaying) => relaying.ended.is_none() && relaying.routed.choice.rule.idle_timeout.is_none(),
            // A handshake has a deadline of its own.
            State::Securing(_) | State::Over(_) => true,
            State::Opening(_)
            | State::Waiting(_)
            | State::Starting(_)
            | State::Expecting(_)
            | State::Connecting(_)
            | State::Asking(_)
            | State::Answering(_) => false,
        };
        assert!(
            may_last || life.deadline().is_some(),
            "{:?} has a deadline",
            life.stage()
        );
        let is_of_its_table =
            |routed: &Routed| routed.choice.tunnel().is_some() || routed.choice.servers.has(&routed.server);
        assert!(
            life.routed().is_none_or(is_of_its_table),
            "the server is in the table that has decided"
        );
        let has_ended = matches!(life.stage(), Stage::Answering | Stage::Over);
        assert_eq!(has_ended, life.ending().is_some(), "a route that ends knows why");
    }
}
