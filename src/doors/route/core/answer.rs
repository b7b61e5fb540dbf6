//! The answers that the router gives itself, in place of a backend.

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
}
