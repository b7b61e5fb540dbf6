//! TLS on a connection: it begins with the handshake, and then the connection is read and written like any other.

use std::io;
use std::rc::Rc;
use std::time::SystemTime;

use super::super::origin::Origin;
use super::super::stream::Stream;
use super::super::tls::Established;
use super::super::tls::engine::Engine;
use super::super::tls::error::Fault;
use super::super::tls::meter::Meter;
use super::super::tls::server::ServerTls;
use super::super::tls::signature::Unsigned;
use super::super::tls::transport::{Secured, Step};
use super::Conn;

impl Conn {
    /// Puts TLS on a connection on which nothing was written. Its early bytes are the first of the handshake. Nothing may
    /// be read or written until [that is over](Self::advance_handshake).
    #[must_use]
    pub fn secure(mut self, engine: Engine) -> Self {
        let received = std::mem::take(&mut self.early);
        self.stream = Stream::Tls(Box::new(Secured::new(self.stream, engine, received)));
        self
    }

    /// Makes a step of the handshake. While the step says that it waits, this must be called after every event.
    ///
    /// # Errors
    /// The reason why the handshake has failed: a [`Fault`] within an error of the
    /// kind InvalidData, or an error of the socket.
    pub fn advance_handshake(&mut self) -> io::Result<Step> {
        let Stream::Tls(secured) = &mut self.stream else {
            return Ok(Step::Done);
        };
        if !self.is_readable && !secured.has_received() {
            let _ = secured.push();
            return Ok(Step::Waiting);
        }
        let step = secured.step();
        match step {
            Ok(Step::Waiting) => (self.is_readable, self.reads_to_end) = (false, false),
            // The peer's first bytes may have come with its last message.
            Ok(Step::Done) => self.is_readable = true,
            Ok(Step::MoreLater | Step::NeedsSignature) | Err(_) => {}
        }
        step
    }

    /// Takes the handshake that is to be signed. There is one, once, when a step has said that a signature is needed. No
    /// further step may be made until [that is there](Self::go_on_with).
    pub fn take_unsigned(&mut self) -> Option<Unsigned> {
        match &mut self.stream {
            Stream::Tls(secured) => secured.take_unsigned(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Goes on with the engine that has made the signature.
    ///
    /// # Errors
    /// The handshake has failed, see [`advance_handshake`](Self::advance_handshake).
    pub fn go_on_with(&mut self, signed: Engine) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tls(secured) => secured.go_on_with(signed),
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
        }
    }

    /// Returns true if the peer has sent a byte of the handshake. Must be called during that.
    #[must_use]
    pub fn has_begun_handshake(&self) -> bool {
        match &self.stream {
            Stream::Tls(secured) => secured.engine().has_begun(),
            Stream::Tcp(_) | Stream::Unix(_) => false,
        }
    }

    /// Counts the connection by `meter` from now on, if it has TLS and that goes wrong. `origin` is its origin, for the
    /// log.
    pub fn count_by(&mut self, meter: &Rc<Meter>, origin: &Origin) {
        if let Stream::Tls(secured) = &mut self.stream {
            secured.count_by(Rc::clone(meter), origin.clone());
        }
    }

    /// The outcome of the handshake; `None` before, and without TLS.
    #[must_use]
    pub fn established(&self) -> Option<Established> {
        match &self.stream {
            Stream::Tls(secured) => secured.engine().established().ok(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Judges a client whose handshake is done, see [`ServerTls::judge`]. One without TLS has nothing to be judged by.
    ///
    /// # Errors
    /// The client may not connect.
    pub fn judge_client(&self, server: &ServerTls, now: SystemTime) -> Result<(), Fault> {
        match &self.stream {
            Stream::Tls(secured) => server.judge(secured.engine(), now),
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, IoSlice, Read, Write};
    use std::time::{Duration, Instant};

    use super::super::super::scaffold::{TlsClient, tcp_pair, tls_pair, unix_pair, wait_readable, wait_writable};
    use super::super::super::sys;
    use super::super::super::tls::error::Fault;
    use super::super::super::tls::scaffold::Authority;
    use super::super::{CloseStep, LingerLimits, Received, Sent};
    use super::*;
    use crate::reactor::Readiness;

    const LIMITS: LingerLimits = LingerLimits {
        time: Duration::from_secs(5),
        bytes: 100_000,
    };

    fn pair() -> (Conn, TlsClient) {
        let (stream, client) = tls_pair();
        (Conn::new(stream), client)
    }

    /// Takes in what a poll would tell.
    fn note(conn: &mut Conn, readable: bool, writable: bool) {
        conn.note(Readiness {
            readable,
            writable,
            ..Readiness::default()
        });
    }

    /// Reads whatever the client has sent up to now.
    fn read_all(conn: &mut Conn, size: usize) -> (Vec<u8>, Received) {
        let (mut all, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            match conn.read(&mut piece) {
                Received::Bytes(count) => all.extend_from_slice(&piece[..count]),
                other => return (all, other),
            }
        }
    }

    /// A connection after its handshake on a UNIX socket, which is full as soon as it says so, and the client's end.
    fn pair_on_unix_socket() -> (Conn, std::os::unix::net::UnixStream) {
        let (stream, mut socket) = unix_pair();
        let (engine, mut client) = Authority::new().sides();
        let mut conn = Conn::new(stream).secure(engine);
        client.write_tls(&mut socket).expect("a hello");
        while conn.advance_handshake().expect("a hello") != Step::Waiting {}
        client.complete_io(&mut socket).expect("the handshake");
        note(&mut conn, true, false);
        while conn.advance_handshake().expect("the last flight") != Step::Done {}
        (conn, socket)
    }

    /// Writes to the socket, past TLS, until it is full. Returns the number of bytes.
    fn fill(conn: &Conn) -> usize {
        let mut written = 0;
        for piece in [&[7; 10_000][..], &[7; 1]] {
            while let Ok(count) = sys::send_messages(conn.stream.fd(), &[&[IoSlice::new(piece)]], false) {
                written += count;
            }
        }
        written
    }

    fn pattern(length: u32) -> Vec<u8> {
        (0..length)
            .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect()
    }

    #[test]
    fn a_read_that_would_block_has_left_nothing_decrypted() {
        let bytes = pattern(150_000);
        for size in [1, 1000, 70_000] {
            let (mut conn, mut client) = pair();
            let (sent, mut read) = (bytes.clone(), Vec::new());
            let sending = std::thread::spawn(move || {
                client.write_all(&sent).expect("write");
                client
            });
            while read.len() < bytes.len() {
                // One edge for all that is there: a read that forgets something waits here for ever.
                wait_readable(conn.socket());
                note(&mut conn, true, false);
                let (some, end) = read_all(&mut conn, size);
                assert_eq!(end, Received::Nothing);
                read.extend(some);
            }
            assert!(read == bytes);
            drop(sending.join());
        }
    }

    #[test]
    fn a_read_that_has_left_the_end_says_so() {
        let (mut conn, mut client) = pair();
        client.write_all(b"request").expect("write");
        client.say_end();
        let mut buffer = [0; 100];
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut buffer), Received::Bytes(7));
        // Either record may have come alone.
        if conn.is_drained() {
            wait_readable(conn.socket());
        }
        note(&mut conn, true, false);
        assert_eq!(conn.read(&mut buffer), Received::End);
        assert_eq!(conn.send(b"answer"), Sent::Bytes(6));
        let mut answer = [0; 6];
        client.read_exact(&mut answer).expect("the answer");
        assert_eq!(&answer, b"answer");
    }

    #[test]
    fn a_connection_that_ends_without_a_word_was_cut() {
        let (mut conn, mut client) = pair();
        client.write_all(b"a part").expect("write");
        client.socket().shutdown(std::net::Shutdown::Write).expect("shutdown");
        wait_readable(conn.socket());
        conn.expect_input();
        assert_eq!(read_all(&mut conn, 100), (b"a part".to_vec(), Received::Cut));
        assert_eq!(conn.error().map(std::io::Error::kind), Some(ErrorKind::UnexpectedEof));
        // It may have ended one direction alone, and is not to take what it gets for a part.
        assert_eq!(conn.send(b"answer"), Sent::Bytes(6));
        assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Done);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer and its end");
        assert_eq!(answer, "answer");
    }

    #[test]
    fn garbage_is_answered_with_an_alert() {
        let (mut conn, mut client) = pair();
        client
            .socket()
            .write_all(b"\x17\x03\x03\x00\x1f this cannot be decrypted, ever")
            .expect("write");
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut [0; 100]), Received::Failed);
        let error = conn.error().expect("an error");
        assert_eq!(error.to_string(), "it sends a record that cannot be decrypted");
        let alert = client.read(&mut [0; 1]).expect_err("an alert");
        assert!(alert.to_string().contains("BadRecordMac"), "{alert}");
    }

    /// As with SSL_write, a write that could not be finished is made again with the same bytes.
    #[test]
    fn bytes_are_written_once_although_the_socket_is_full() {
        let bytes = pattern(9_000_000);
        let (mut conn, mut client) = pair();
        let Sent::Bytes(first) = conn.send(&bytes) else {
            panic!("there is room for some")
        };
        assert!(first < bytes.len());
        assert_eq!(conn.unwritten(), bytes.len() - first);
        assert_eq!(conn.send(b" and the rest"), Sent::Nothing);
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).map(|_| all)
        });
        while conn.unwritten() > 0 {
            wait_writable(conn.socket());
            note(&mut conn, false, true);
            assert_ne!(conn.flush(), Sent::Failed);
        }
        conn.say_end().expect("the end");
        while conn.stream.has_unsent() {
            wait_writable(conn.socket());
            note(&mut conn, false, true);
        }
        let all = reading.join().expect("a reader").expect("a clean end");
        assert_eq!(all.len(), bytes.len() + 13);
        assert!(all.starts_with(&bytes) && all.ends_with(b" and the rest"));
    }

    #[test]
    fn messages_of_many_pieces_arrive_in_order_with_the_end_behind_them() {
        let bytes = pattern(200_000);
        let pieces: Vec<IoSlice<'_>> = bytes.chunks(3001).map(IoSlice::new).collect();
        let messages: Vec<&[IoSlice<'_>]> = pieces.chunks(17).collect();
        let (mut conn, mut client) = pair();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).map(|_| all)
        });
        let sent = conn.write_messages(&messages);
        let Sent::Bytes(mut sent) = sent else {
            panic!("{sent:?}")
        };
        while sent < bytes.len() {
            wait_writable(conn.socket());
            note(&mut conn, false, true);
            if let Sent::Bytes(more) = conn.write_messages(&[&[IoSlice::new(&bytes[sent..])]]) {
                sent += more;
            }
        }
        conn.output_mut().extend_from_slice(b"the end");
        while conn.unwritten() > 0 {
            assert_ne!(conn.flush_messages(<[u8]>::len, true), Sent::Failed);
            note(&mut conn, false, true);
        }
        let all = reading.join().expect("a reader").expect("a clean end");
        assert!(all == [&bytes[..], b"the end"].concat());
    }

    #[test]
    fn the_last_bytes_have_the_end_of_both_layers_behind_them() {
        let (mut conn, client) = pair();
        let socket = client.socket();
        // The tickets have come by now, or come with the bytes.
        conn.output_mut().extend_from_slice(b"last");
        assert_eq!(conn.flush_messages(<[u8]>::len, true), Sent::Bytes(4));
        wait_readable(&socket);
        let mut all = [0; 5000];
        let mut count = 0;
        while let Ok(more @ 1..) = (&socket).read(&mut all[count..]) {
            count += more;
        }
        // An alert of TLS 1.3 takes 24 bytes: a header of 5, the alert of 2, its type and a tag of 16. It is the last.
        assert!(
            count >= 24 + 26 && all[count - 24..].starts_with(&[23, 3, 3, 0, 19]),
            "{count}"
        );
    }

    #[test]
    fn a_client_that_is_turned_away_or_answered_finds_a_clean_end() {
        let (conn, mut client) = pair();
        client.write_all(b"a request that is not read").expect("write");
        wait_readable(conn.socket());
        conn.turn_away(b"ERR\n", false);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer and its end");
        assert_eq!(answer, "ERR\n");
        let (mut conn, mut client) = pair();
        assert_eq!(conn.send(b"answer"), Sent::Bytes(6));
        // The client owes its own end: were the socket closed before, that would be answered with a reset.
        assert_eq!(conn.begin_close(false, LIMITS, Instant::now()), CloseStep::Waiting);
        client.say_end();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer and its end");
        assert_eq!(answer, "answer");
        drop(client);
        let mut step = CloseStep::Waiting;
        while step != CloseStep::Done {
            wait_readable(conn.socket());
            note(&mut conn, true, false);
            step = conn.go_on_closing();
        }
    }

    #[test]
    fn a_client_that_has_said_its_end_by_tls_is_not_waited_for() {
        let (mut conn, client) = pair();
        client.say_end();
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut [0; 10]), Received::End);
        assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Done);
    }

    #[test]
    fn a_client_that_ends_before_there_is_room_for_the_end_still_gets_that() {
        let (mut conn, mut socket) = pair_on_unix_socket();
        let filler = fill(&conn);
        assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Waiting);
        assert!(conn.stream.has_unsent(), "{filler} bytes leave room");
        socket.shutdown(std::net::Shutdown::Write).expect("shutdown");
        note(&mut conn, true, false);
        assert_eq!(conn.go_on_closing(), CloseStep::Waiting);
        socket.read_exact(&mut vec![0; filler]).expect("what was written");
        note(&mut conn, true, true);
        assert_eq!(conn.go_on_closing(), CloseStep::Done);
        drop(conn);
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).expect("the end");
        // An alert of TLS 1.3 takes 24 bytes: a header of 5, the alert of 2, its type and a tag of 16.
        let alert = rest.last_chunk::<24>().expect("an alert");
        assert!(alert.starts_with(&[23, 3, 3, 0, 19]), "{alert:?}");
    }

    #[test]
    fn bytes_do_not_pass_the_connection() {
        let (conn, _client) = pair();
        assert!(conn.raw().is_none());
    }

    #[test]
    fn a_handshake_may_begin_with_bytes_that_were_read_before() {
        for early in [0, 1, 5, 100, usize::MAX] {
            let (stream, mut socket) = tcp_pair();
            let (engine, mut client) = Authority::new().sides();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).expect("a hello");
            let early = early.min(hello.len());
            let conn = Conn::with_early(stream, hello[..early].to_vec());
            let mut conn = conn.secure(engine);
            assert_eq!(conn.established(), None);
            if early < hello.len() {
                while conn.advance_handshake().expect("a hello that goes on") != Step::Waiting {}
                socket.write_all(&hello[early..]).expect("write");
                wait_readable(conn.socket());
                note(&mut conn, true, false);
            }
            while conn.advance_handshake().expect("a hello") != Step::Waiting {}
            client.complete_io(&mut socket).expect("the handshake");
            client.writer().write_all(b"and at once").expect("write");
            client.complete_io(&mut socket).expect("write");
            loop {
                wait_readable(conn.socket());
                note(&mut conn, true, false);
                if conn.advance_handshake().expect("the last flight") == Step::Done {
                    break;
                }
            }
            assert!(conn.established().is_some() && conn.is_readable());
            let mut conn = conn.restart(Vec::new());
            while let Received::Nothing = conn.read(&mut [0; 11]) {
                wait_readable(conn.socket());
                note(&mut conn, true, false);
            }
        }
    }

    #[test]
    fn a_client_without_tls_is_known_by_its_first_bytes() {
        let (stream, mut client) = tcp_pair();
        let (engine, _) = Authority::new().sides();
        let mut conn = Conn::new(stream).secure(engine);
        client.write_all(b"GET / HTTP/1.1\r\n").expect("write");
        wait_readable(conn.socket());
        let error = conn.advance_handshake().expect_err("no handshake");
        let fault = error.downcast::<Fault>().expect("a fault of TLS");
        assert_eq!(fault, Fault::NotTls(b"GET / HTTP/1.1\r\n".to_vec()));
    }
}
