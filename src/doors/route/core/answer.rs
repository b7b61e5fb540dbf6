//! The answers that the router gives itself, in place of a backend.

use super::name::Name;

/// The alert to a client whose ClientHello has a fault: fatal, decode_error (RFC 8446, section 6.2).
pub const DECODE_ERROR: &[u8] = &alert(50);
/// The alert to a client whose server cannot be reached: fatal, internal_error.
pub const INTERNAL_ERROR: &[u8] = &alert(80);
/// The alert to a client that wants a name that leads nowhere: fatal, unrecognized_name.
pub const UNRECOGNIZED_NAME: &[u8] = &alert(112);

/// The answer to PostgreSQL's SSLRequest: go on with TLS.
pub const POSTGRES_TLS: &[u8] = b"S";
/// The answer to PostgreSQL's GSSENCRequest: go on without GSSAPI.
pub const POSTGRES_NO_GSS: &[u8] = b"N";

/// A page that the router answers to a request of HTTP. The connection is closed behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// 400: the head of the request has a fault.
    BadRequest,
    /// 404: no service has the name.
    NotFound,
    /// 408: the head did not come in time.
    RequestTimeout,
    /// 421: another service has the name, and this connection has gone to the first one.
    Misdirected,
    /// 502: no server of the service was reached.
    BadGateway,
}

impl Page {
    /// The bytes of the answer, which has no body if the method of the request was HEAD.
    pub fn answer(self, is_for_head: bool) -> &'static [u8] {
        let whole = match self {
            Page::BadRequest => BAD_REQUEST,
            Page::NotFound => NOT_FOUND,
            Page::RequestTimeout => REQUEST_TIMEOUT,
            Page::Misdirected => MISDIRECTED,
            Page::BadGateway => BAD_GATEWAY,
        };
        let head = whole.find(END_OF_HEAD).map_or(whole.len(), |at| at + END_OF_HEAD.len());
        let answer = if is_for_head { whole.get(..head) } else { None };
        answer.unwrap_or(whole).as_bytes()
    }
}

const END_OF_HEAD: &str = "\r\n\r\n";

const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 35\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n400: the request is not understood\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 30\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n404: no service has this name\n";
const REQUEST_TIMEOUT: &str = "HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 42\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n408: the request was not complete in time\n";
const MISDIRECTED: &str = "HTTP/1.1 421 Misdirected Request\r\nContent-Type: text/plain\r\nContent-Length: 61\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n421: this connection has gone to the service of another name\n";
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: 39\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n502: the service cannot be reached now\n";

/// Returns the answer that sends a client to the same path by https: 308, by which the client keeps its method. `path`
/// is the one of a [`Head`](super::head::Head).
pub fn redirect(host: &Name, https_port: u16, path: &str) -> Vec<u8> {
    let host = host.as_str();
    let (opening, closing) = if host.contains(':') { ("[", "]") } else { ("", "") };
    let port = Some(https_port)
        .filter(|port| *port != 443)
        .map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    let head = format!(
        "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://{opening}{host}{closing}{port}{slash}{path}\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    head.into_bytes()
}

/// Returns a record with a fatal alert. Its version is the one that every TLS client takes before a version is agreed
/// upon.
const fn alert(description: u8) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, description]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore};

    use super::*;

    /// The error of a client that gets these bytes for its hello.
    fn seen_by_a_client(mut answer: &[u8]) -> Error {
        let provider = crate::net::tls::provider::provider();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "a.example".try_into().unwrap()).unwrap();
        client.write_tls(&mut Vec::new()).unwrap();
        client.read_tls(&mut answer).unwrap();
        client.process_new_packets().unwrap_err()
    }

    #[test]
    fn a_client_understands_the_alerts() {
        for (answer, expected) in [
            (DECODE_ERROR, AlertDescription::DecodeError),
            (INTERNAL_ERROR, AlertDescription::InternalError),
            (UNRECOGNIZED_NAME, AlertDescription::UnrecognisedName),
        ] {
            assert_eq!(seen_by_a_client(answer), Error::AlertReceived(expected));
        }
    }

    #[test]
    fn a_page_is_a_whole_answer_with_or_without_its_body() {
        for (page, status) in [
            (Page::BadRequest, 400),
            (Page::NotFound, 404),
            (Page::RequestTimeout, 408),
            (Page::Misdirected, 421),
            (Page::BadGateway, 502),
        ] {
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut answer = httparse::Response::new(&mut headers);
            let whole = page.answer(false);
            let head = answer.parse(whole).unwrap().unwrap();
            assert_eq!(answer.code, Some(status));
            let value = |name: &str| answer.headers.iter().find(|header| header.name == name).unwrap().value;
            let body = &whole[head..];
            assert_eq!(value("Content-Length"), body.len().to_string().as_bytes(), "{status}");
            assert_eq!(value("Connection"), b"close");
            assert!(body.starts_with(format!("{status}: ").as_bytes()) && body.ends_with(b"\n"));
            assert_eq!(page.answer(true), &whole[..head]);
        }
    }

    #[test]
    fn a_redirection_keeps_host_and_path_and_names_a_port_only_where_it_must() {
        for (host, port, path, location) in [
            ("www.example.org", 443, "/a?b=c", "https://www.example.org/a?b=c"),
            ("WWW.Example.org.", 443, "/", "https://www.example.org/"),
            ("www.example.org", 8443, "/", "https://www.example.org:8443/"),
            ("::1", 443, "/", "https://[::1]/"),
            ("::1", 8443, "", "https://[::1]:8443/"),
            ("a", 443, "?b", "https://a/?b"),
            ("a", 80, "//b/c", "https://a:80//b/c"),
        ] {
            let answer = redirect(&Name::parse(host.as_bytes()).unwrap(), port, path);
            let text = String::from_utf8(answer).unwrap();
            let expected = format!(
                "HTTP/1.1 308 Permanent Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            assert_eq!(text, expected);
        }
    }
}
