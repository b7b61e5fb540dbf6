//! The readiness that an event reports for a source.

/// The readiness that an event reports. All of it is a hint: the system call that follows decides, and a spurious event
/// is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Reading may make progress: there are bytes, an end of file or an error to fetch.
    pub readable: bool,
    /// Writing may make progress.
    pub writable: bool,
    /// The peer sends nothing more (a half-close, or more than that).
    pub read_closed: bool,
    /// Both directions are over, or the connection is in error. For a stream socket: the peer has gone.
    pub hung_up: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Readiness {
        Readiness {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            // In mio, is_write_closed is EPOLLHUP, or EPOLLOUT and EPOLLERR together, or EPOLLERR alone.
            hung_up: event.is_write_closed() || event.is_error(),
        }
    }
}
