//! Accepting: who has connected becomes a client. How listeners take turns and pause is [`Accepting`]'s business.

use std::fmt;

use log::Level;

use super::super::report::Topic;
use super::Pool;
use crate::net::conn::Conn;
use crate::net::listening::{Accepting, Listening};
use crate::net::origin::Origin;
use crate::reactor::Context;

impl Accepting for Pool {
    fn listening_mut(&mut self) -> &mut Listening {
        &mut self.listening
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        self.welcome(cx, conn, origin);
    }

    fn log_pause(&mut self, cx: &mut Context<'_>, line: fmt::Arguments<'_>) {
        self.note(cx, Level::Error, Topic::Accept, line);
    }
}
