//! The system calls of this room that no wrapper has: all of its `unsafe`.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// listen(2) with any backlog. nix takes no more than SOMAXCONN at the time it was compiled (4096), but the kernel's
/// own limit, net.core.somaxconn, may be higher, and the kernel cuts what is over it by itself.
pub(super) fn listen(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: listen takes two integers and touches no memory of ours; the descriptor is open while it is borrowed.
    Errno::result(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(())
}

/// The most messages that [`send_messages`] takes.
pub(super) const MOST_MESSAGES: usize = 8;

/// sendmmsg(2) of these messages on a connected socket, each of which may be made of pieces. Returns the number of
/// bytes that were taken. Of more than [`MOST_MESSAGES`] the rest is left. With `more` the kernel may wait for further
/// bytes (MSG_MORE). The wrapper of nix allocates memory for each call.
pub(super) fn send_messages(socket: BorrowedFd<'_>, messages: &[&[IoSlice<'_>]], more: bool) -> io::Result<usize> {
    let empty = |message: &&&[IoSlice<'_>]| message.is_empty();
    let count = messages.len() - messages.iter().rev().take_while(empty).count();
    let messages = messages.get(..count).unwrap_or_default();
    // SAFETY: all zeroes are a value of it: null pointers and numbers.
    let mut headers: [libc::mmsghdr; MOST_MESSAGES] = unsafe { std::mem::zeroed() };
    for (header, pieces) in headers.iter_mut().zip(messages) {
        // The kernel only reads there; and a piece has the layout of an iovec, as std promises.
        header.msg_hdr.msg_iov = pieces.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_iovlen = pieces.len();
    }
    let count = u32::try_from(messages.len().min(MOST_MESSAGES)).map_err(|_| Errno::EINVAL)?;
    let flags = if more {
        libc::MSG_NOSIGNAL | libc::MSG_MORE
    } else {
        libc::MSG_NOSIGNAL
    };
    // SAFETY: the first `count` headers are filled; each points to as many pieces as it says, borrowed for this call,
    // and the kernel writes nowhere but into the headers' own `msg_len`.
    let sent = Errno::result(unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags) })?;
    let sent = usize::try_from(sent).unwrap_or(0);
    Ok(headers.iter().take(sent).map(|header| header.msg_len as usize).sum())
}

/// recvmsg(2) of one message, with at most one descriptor of this process that came with it. Returns the number of bytes: 0
/// at the end.
pub(super) fn receive_with_socket(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut pieces = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let mut received = None;
    for control in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(numbers) = control else {
            continue;
        };
        for number in numbers {
            // SAFETY: the kernel has opened this descriptor for this process by the call above, and nothing else knows of
            // it. A second one, for which there is no room in `space`, would be closed here.
            received = Some(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok((message.bytes, received))
}

/// Returns the amount of sent bytes that the kernel holds (SIOCOUTQ, by the number that it shares with TIOCOUTQ): on a
/// UNIX socket the bytes that its peer has not read, with the kernel's overhead; over TCP the bytes that the other
/// machine has not acknowledged.
pub(super) fn unread_by_peer(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int to the place it is given.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Returns the number of bytes of a TCP connection that were written and are not acknowledged (SIOCOUTQ), and the
/// number of these that have not been sent once (SIOCOUTQNSD, tcp(7)).
pub(super) fn outgoing(socket: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    /// linux/sockios.h; the same on every architecture, but in neither libc nor nix.
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    let mut unsent: libc::c_int = 0;
    // SAFETY: SIOCOUTQNSD writes one int to the place it is given.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut unsent) })?;
    Ok((unread_by_peer(socket)?, usize::try_from(unsent).unwrap_or(0)))
}

/// Throws away up to `length` bytes that have arrived on a TCP socket, without copying them: with MSG_TRUNC the kernel
/// leaves the buffer of a TCP socket alone (tcp(7)). Not for UNIX sockets, which ignore that flag.
pub(super) fn discard_tcp(socket: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer; were the socket of another kind, the kernel
    // would find the null pointer when it copies and answer EFAULT. No memory of ours is touched in either case.
    let count = Errno::result(unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), length, flags) })?;
    usize::try_from(count).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Takes over a descriptor that this process was started with, and makes it close-on-exec.
///
/// # Errors
/// EBADF if it is not open. EBUSY if it is close-on-exec: then it cannot have come through exec, and has another
/// owner in this process.
pub(super) fn take_over(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: borrowed for the two fcntl calls below, which are harmless on any number: F_GETFD answers EBADF for one
    // that is not open, and then nothing else is done. The number is not -1.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFD)?);
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return Err(Errno::EBUSY.into());
    }
    fcntl(borrowed, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open (F_GETFD answered) and has no other owner: everything that this process opens is
    // close-on-exec from its first moment (std, mio, nix with the flags used here; what is handed to a successor is not
    // for the moment of its start, which comes long after everything was taken over), and this one was not, so it is
    // inherited; and a second call for the same number is refused above, because this one has set the flag.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The supplementary groups of the process at the other end of a UNIX socket, as they were when it connected
/// (SO_PEERGROUPS, which no manual page tells of: Linux 4.13, `net/core/sock.c`). nix does not have it.
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const SIZE: usize = size_of::<libc::gid_t>();
    // As many as most users have; the kernel says how much it wants where that is too little.
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * SIZE).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the kernel writes at most `length` bytes at the pointer, which points to that number of bytes of a
        // live vector of integers, for which every value is valid; then it writes what it has used, or wants, to
        // `length`, a live local.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(usize::MAX) / SIZE;
        match Errno::result(outcome) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // They do not change after the connect, so this happens once.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns the events that poll(2) finds on a descriptor at this moment: `wanted`, and POLLHUP and POLLERR, which are
/// always reported. nix's wrapper loses all events when POLLRDHUP is among them, because it has no name for it. An
/// error (EINTR, ENOMEM) is reported as no event: the next system call on the descriptor tells more.
pub(super) fn poll_now(fd: BorrowedFd<'_>, wanted: libc::c_short) -> libc::c_short {
    let mut asked = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: wanted,
        revents: 0,
    };
    // SAFETY: the pointer is to one pollfd that lives until poll returns, and the count says one. With a time-out of 0
    // it does not wait.
    let answered = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if answered == 1 { asked.revents } else { 0 }
}

/// Which of the descriptors 0 to 2 were closed when this program was started: a bit for each. Written once, before
/// `main`, because it cannot be known later: std puts /dev/null in the place of each.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Has the dynamic loader, or the start-up code of a static program, call [`note_closed_streams`] before `main`.
#[used]
// SAFETY: the section holds pointers to functions of this signature, which the C runtime calls with arguments that may
// be ignored (ELF's gABI, "Initialization and Termination Functions"; glibc and musl).
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_closed_streams;

/// Runs before std is ready, so it may call nothing but the C library, and must not panic.
extern "C" fn note_closed_streams() {
    for number in 0..3u8 {
        // SAFETY: F_GETFD takes a number, open or not, and touches no memory of ours.
        if unsafe { libc::fcntl(number.into(), libc::F_GETFD) } == -1 {
            CLOSED_AT_START.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

/// Returns true if the standard stream of this number, 0 to 2, was closed when the program started.
pub(super) fn was_closed_at_start(number: u8) -> bool {
    CLOSED_AT_START.load(Ordering::Relaxed) & (1 << number) != 0
}
