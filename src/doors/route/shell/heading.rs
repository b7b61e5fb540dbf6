//! The header of the PROXY protocol in front of the bytes that a server gets, if its service wants one.

use super::super::core::hello::{self, Hello, Parsed};
use super::super::core::name::Name;
use super::super::core::table::{ProxyVersion, Rule};
use super::routes::Route;
use crate::net::proxy::writing::Described;

impl Route {
    /// Returns the header for the server that was chosen, in front of the held bytes.
    pub(super) fn header(&self, held: &[u8]) -> Option<Vec<u8>> {
        let rule = &self.life.routed()?.choice.rule;
        let version = rule.send_proxy?;
        let described = Described {
            client: self.origin.assertion(),
            // It does not fail on an open socket.
            to: self.client.conn.socket().local_addr().ok().flatten(),
            authority: None,
            alpn: None,
        };
        let is_ended = self.origin.tls.is_some();
        Some(match version {
            ProxyVersion::One => described.version_1(),
            // The hello was for this door, and what it has asked for is known.
            ProxyVersion::Two if is_ended => {
                let name = self.life.asked().name.as_deref().map(str::as_bytes);
                Described {
                    authority: name.filter(|name| Name::parse(name).is_some()),
                    alpn: rule.alpn.as_deref(),
                    ..described
                }
                .version_2()
            }
            ProxyVersion::Two => {
                // The hello was judged before, so this costs a microsecond at most.
                let mut progress = hello::Progress::default();
                let hello = match hello::parse(held, &mut progress) {
                    Parsed::Hello(hello) => hello,
                    // The bytes of another protocol.
                    Parsed::NeedMore | Parsed::Wrong(_) => Hello::default(),
                };
                Described {
                    authority: hello.name.filter(|name| Name::parse(name).is_some()),
                    alpn: protocol(rule, &hello),
                    ..described
                }
                .version_2()
            }
        })
    }
}

/// Returns the protocol above TLS: the one by which the rule was chosen, or the client's first choice. The server's own
/// choice comes later, and is encrypted.
fn protocol<'a>(rule: &'a Rule, hello: &Hello<'a>) -> Option<&'a [u8]> {
    let first = || hello.alpn.protocols().next();
    rule.alpn.as_deref().or_else(first)
}
