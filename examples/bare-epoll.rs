//! The reference of `scripts/bench`: a server that answers each line with itself at once. It has no workers, no limits
//! and no promises; what it reaches is what the sockets of this machine allow one thread.
//!
//! `bare-epoll PORT [--kept]`. Without `--kept` it closes after one answer, as the pool does. It says
//! `listening on ADDRESS` on standard error when it is ready, and ends by a signal.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod epoll;

use std::error::Error;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, accept4};
use nix::unistd::{read, write};

use epoll::LISTENER;

/// The fate of a connection after an event.
enum After {
    Wait,
    Close,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().ok_or("usage: bare-epoll PORT [--kept]")?.parse()?;
    let kept = arguments.next().is_some_and(|flag| flag == "--kept");
    let listener = epoll::listen_on(port)?;
    let mut epoll = epoll::Epoll::of_server(&listener)?;
    let mut waiting: Vec<Option<OwnedFd>> = Vec::new();
    loop {
        for name in epoll.wait()? {
            if name == LISTENER {
                accept_all(&listener, &epoll, &mut waiting, kept)?;
            } else if let Some(slot) = waiting.get_mut(name)
                && slot
                    .as_ref()
                    .is_some_and(|connection| matches!(serve(connection, kept), After::Close))
            {
                *slot = None;
            }
        }
    }
}

/// Accepts what is there. A line that has come with its connection is answered on the spot.
fn accept_all(
    listener: &TcpListener,
    epoll: &epoll::Epoll,
    waiting: &mut Vec<Option<OwnedFd>>,
    kept: bool,
) -> Result<(), Box<dyn Error>> {
    loop {
        let accepted = match accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
            Ok(accepted) => accepted,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
            Err(error) => return Err(error.into()),
        };
        // SAFETY: accept4 has just returned this descriptor, and nothing else owns it.
        let connection = unsafe { OwnedFd::from_raw_fd(accepted) };
        if matches!(serve(&connection, kept), After::Close) {
            continue;
        }
        let name = usize::try_from(accepted)?;
        epoll.add(&connection, name)?;
        if waiting.len() <= name {
            waiting.resize_with(name + 1, || None);
        }
        if let Some(slot) = waiting.get_mut(name) {
            *slot = Some(connection);
        }
    }
}

/// Reads once and answers if that was a whole line. Lines are short here and come in one piece.
fn serve(connection: &OwnedFd, kept: bool) -> After {
    let mut buffer = [0; 4096];
    match read(connection, &mut buffer) {
        Ok(0) => After::Close,
        Err(Errno::EAGAIN | Errno::EINTR) => After::Wait,
        Err(_) => After::Close,
        Ok(length) => {
            let line = buffer.get(..length).unwrap_or_default();
            if line.last() != Some(&b'\n') {
                return After::Wait;
            }
            let answered = write(connection, line) == Ok(length);
            if kept && answered { After::Wait } else { After::Close }
        }
    }
}
