//! Requests in the framing of the workers, and replies in the framing of the clients.
//!
//! Where both sides have the same framing, every byte of a payload passes as it came, and so do the bytes that the
//! framing adds, unless another reader might find the end elsewhere
//! ([`Framing::passed_on`](crate::framing::Framing::passed_on)). A reply that the clients' framing cannot express is a
//! refusal to its client and no harm to another, because the worker has answered and is in step.
//!
//! The worker's reading of a request is the one that counts, and runtimes disagree about the end of a line. So a
//! request that a worker might take for more than one is refused ([`LineRules`]).

use std::time::Duration;

use super::Clients;
use crate::doors::pool::core::ClientId;
use crate::doors::pool::options::{Framing, Framings};
use crate::doors::pool::shell::Reply;
use crate::doors::pool::shell::desk::Desk;
use crate::framing::line_rules::LineRules;
use crate::framing::multiplex::is_hello;
use crate::framing::{Frame, Unfit};

/// Appends to `wire` what a worker is to be given of a client's bytes, at whose beginning that frame lies.
pub(crate) fn request(
    framings: Framings,
    rules: LineRules,
    frame: &Frame,
    bytes: &[u8],
    wire: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let payload = frame.payload_in(bytes);
    // In the other framings these bytes are the beginning of no request.
    if matches!(framings.request, Framing::Line | Framing::Eof) && is_hello(payload) {
        return Err(Unfit("is the first line of a multiplexed connection"));
    }
    if framings.request == framings.worker_request {
        let message = bytes.get(..frame.length).unwrap_or(bytes);
        wire.extend_from_slice(&framings.request.passed_on(message, payload));
    } else {
        framings.worker_request.encode(payload, wire)?;
    }
    rules.check(framings.worker_request, wire)?;
    rules.write_ends(framings.worker_request, wire);
    Ok(())
}

impl Clients {
    /// Answers a request with a worker's reply, in its client's framing. An error: the client's framing cannot carry
    /// it, and the request is not answered yet.
    pub(crate) fn send_reply(
        &mut self,
        desk: &mut Desk<'_>,
        id: ClientId,
        reply: Reply<'_>,
        served: Duration,
    ) -> Result<(), Unfit> {
        let Framings {
            reply: wanted,
            worker_reply: given,
            ..
        } = desk.options.framings;
        if wanted == given {
            let message = wanted.passed_on(reply.bytes, reply.payload);
            self.answer_all(desk, id, &message, served);
            return Ok(());
        }
        let mut wire = Vec::new();
        wanted.encode(reply.payload, &mut wire)?;
        self.answer_all(desk, id, &wire, served);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Framing, Progress};

    fn framed(request: Framing, worker_request: Framing, bytes: &[u8]) -> Result<Vec<u8>, Unfit> {
        let framings = Framings {
            request,
            worker_request,
            ..Framings::default()
        };
        let Progress::Frame(frame) = request.framer(100).advance(bytes) else {
            panic!("{bytes:?} is not a whole request")
        };
        let mut wire = Vec::new();
        super::request(framings, LineRules::default(), &frame, bytes, &mut wire).map(|()| wire)
    }

    #[test]
    fn between_equal_framings_a_message_passes_as_it_came() {
        assert_eq!(
            framed(Framing::Line, Framing::Line, b"a\r\nbehind"),
            Ok(b"a\r\n".to_vec())
        );
    }

    #[test]
    fn a_head_is_rewritten_even_between_equal_framings() {
        assert_eq!(
            framed(
                Framing::ContentLength,
                Framing::ContentLength,
                b"content-LENGTH: 1\nX:  y\n\n{behind"
            ),
            Ok(b"Content-Length: 1\r\nX:  y\r\n\r\n{".to_vec())
        );
    }

    #[test]
    fn a_payload_is_framed_again_between_different_framings() {
        assert_eq!(
            framed(Framing::Line, Framing::Netstring, b"a\r\nbehind"),
            Ok(b"2:a\r,".to_vec())
        );
        assert_eq!(
            framed(Framing::Netstring, Framing::Eof, b"3:a\nb,"),
            Ok(b"a\nb".to_vec())
        );
        assert_eq!(
            framed(Framing::Netstring, Framing::Line, b"3:a\nb,"),
            Err(Unfit("is more than one line"))
        );
    }

    #[test]
    fn a_nul_reaches_no_worker_that_reads_lines() {
        let unfit = Err(Unfit("holds a NUL byte"));
        assert_eq!(framed(Framing::Line, Framing::Line, b"a\0b\n"), unfit);
        assert_eq!(framed(Framing::Netstring, Framing::Line, b"3:a\0b,"), unfit);
        assert_eq!(
            framed(Framing::Line, Framing::Netstring, b"a\0b\n"),
            Ok(b"3:a\0b,".to_vec())
        );
    }

    #[test]
    fn a_lone_cr_reaches_no_worker_that_reads_lines_whatever_its_client_speaks() {
        let unfit = Err(Unfit(
            "holds a carriage return before no line feed (see --allow-lone-cr)",
        ));
        assert_eq!(framed(Framing::Line, Framing::Line, b"a\rb\n"), unfit);
        assert_eq!(framed(Framing::Netstring, Framing::Line, b"3:a\rb,"), unfit);
        assert_eq!(framed(Framing::Nul, Framing::UntilEmptyLine, b"a\n\rb\0"), unfit);
        assert_eq!(framed(Framing::UntilEmptyLine, Framing::Line, b"a\r\r\n\n"), unfit);
        assert_eq!(
            framed(Framing::Line, Framing::Netstring, b"a\rb\n"),
            Ok(b"3:a\rb,".to_vec())
        );
        assert_eq!(
            framed(Framing::Netstring, Framing::Line, b"2:a\r,"),
            Ok(b"a\r\n".to_vec())
        );
    }
}
