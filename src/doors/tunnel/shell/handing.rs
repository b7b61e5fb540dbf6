//! Streams for another door of the process: a pair of sockets stands between. The stream is carried to one of them as to a
//! service; the daemon gives the other one to the door behind the turn of the loop, as if it had been accepted there.
//!
//! The client of such a stream is remote, whatever it says of itself: with `accept-proxy` a header in front of its bytes
//! tells its address, and the server of the tunnel is trusted to send it. An address of loopback means another machine's.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use log::Level;
use mio::Interest;
use mio::net::UnixStream;

use super::super::report;
use super::tunnels::Tunnel;
use super::{TunnelDoor, TunnelSource};
use crate::doors::HandedConnection;
use crate::net::addr::{Mark, PeerAddr};
use crate::net::conn::Conn;
use crate::net::origin::{Asserted, Origin};
use crate::net::proxy::{Details, Parsed, parse};
use crate::net::stream::Stream;
use crate::reactor::{Context, Key, SourceKind};

/// The client of a stream, as its header tells.
struct Client {
    asserted: Asserted,
    details: Option<Details>,
}

impl TunnelDoor {
    /// Gives a stream to the door of this name, which gets the held bytes first.
    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>, key: Key, mut held: Vec<u8>, door: Arc<str>) {
        let client = match self.take_client(&mut held) {
            Ok(client) => client,
            Err(why) => return self.refuse_stream(cx, key, &door, &why),
        };
        let (near, far) = match self.pair(cx, key) {
            Ok(pair) => pair,
            Err(error) => return self.refuse_stream(cx, key, &door, &error.to_string()),
        };
        let origin = Origin {
            peer: self.peer_of(key),
            asserted: Some(client.asserted),
            details: client.details.map(Rc::new),
            door: Some(Rc::from(self.front.name())),
            tls: None,
            mark: Mark::default(),
        };
        let handed = HandedConnection {
            door,
            conn: far,
            origin,
            // The stream is reset.
            refusal: b"",
        };
        self.handed.push_back((key, Box::new(handed)));
        self.begin_relay(cx, key, near, held);
    }

    /// Takes the header from the front of the bytes, if there is to be one.
    fn take_client(&self, held: &mut Vec<u8>) -> Result<Client, String> {
        let unknown = Client {
            asserted: Asserted::Unknown,
            details: None,
        };
        if !self.options.accept_proxy {
            return Ok(unknown);
        }
        match parse(held) {
            Parsed::Header(header) => {
                held.drain(..header.length.min(held.len()));
                let is_loopback =
                    matches!(header.client, Asserted::Address(address) if address.ip().to_canonical().is_loopback());
                let asserted = if is_loopback { Asserted::Unknown } else { header.client };
                Ok(Client {
                    asserted,
                    details: header.details,
                })
            }
            Parsed::Wrong(fault) => Err(format!("its PROXY header {fault}")),
            Parsed::NeedMore { .. } | Parsed::NoHeader => {
                Err("it does not begin with a PROXY header, which accept-proxy asks for".to_owned())
            }
        }
    }

    /// Makes the two sockets. The first is registered as that of the stream.
    fn pair(&self, cx: &mut Context<'_>, key: Key) -> io::Result<(Conn, Conn)> {
        let (near, far) = UnixStream::pair()?;
        let mut near = Conn::new(Stream::Unix(near));
        cx.register(
            TunnelSource::Stream.at(key),
            &mut near,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok((near, Conn::new(Stream::Unix(far))))
    }

    /// The server through whose tunnel a stream has come.
    fn peer_of(&mut self, key: Key) -> PeerAddr {
        let tunnel = self.streams.get(key).map(|carried| carried.tunnel);
        let session = tunnel
            .and_then(|tunnel| self.tunnels.get_mut(tunnel))
            .and_then(Tunnel::session);
        let peer = session.and_then(|session| session.conn_mut().socket().peer_addr().ok());
        peer.unwrap_or(PeerAddr::Unix)
    }

    fn refuse_stream(&mut self, cx: &mut Context<'_>, key: Key, door: &str, why: &str) {
        self.counters.refused += 1;
        let line = format_args!("a client was not served: it is for the door {door}: {why}");
        self.front.note(cx, Level::Error, report::LOCAL, line);
        self.finish(cx, key, true);
    }

    /// The next connection for another door. Its stream is remembered until the next call, for a door that refuses.
    pub(super) fn take_handed(&mut self) -> Option<Box<HandedConnection>> {
        let (key, handed) = self.handed.pop_front()?;
        self.handing = Some(key);
        Some(handed)
    }

    /// Refuses the stream whose connection was taken last.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, handed: &HandedConnection, why: &str) {
        if let Some(key) = self.handing.take() {
            self.refuse_stream(cx, key, &handed.door, why);
            self.write_out(cx);
        }
    }

    /// Returns true if a stream may still be given to the door of this name.
    pub(super) fn may_still_hand_to(&self, door: &str) -> bool {
        let may_come = self.front.is_serving() || self.opening > 0;
        (may_come && self.locals.has_door(door)) || self.handed.iter().any(|(_, handed)| *handed.door == *door)
    }
}
