//! A connection that one door hands over to another: the daemon passes it on, because doors do not know each other.

use std::sync::Arc;

use crate::net::conn::Conn;
use crate::net::origin::Origin;

/// A connection on its way from the door that has accepted it to another one, to which it was handed over.
#[derive(Debug)]
pub struct HandedConnection {
    /// The name of the other door.
    pub door: Arc<str>,
    /// The connection, of which the other door has read nothing yet. It is not registered.
    pub conn: Conn,
    /// The origin, with the name of the door that hands it over.
    pub origin: Origin,
    /// The last words to the client if the other door cannot take it.
    pub refusal: &'static [u8],
}
