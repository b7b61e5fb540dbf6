//! The first bytes of a server that speaks TLS, as a client without it gets them.

/// Returns true if the first bytes from a server are those of an alert of TLS (RFC 8446, section 5.1): it speaks TLS, and
/// was spoken to without. No text begins with them.
#[must_use]
pub fn is_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [21, 3, _, 0, 2, ..])
}
