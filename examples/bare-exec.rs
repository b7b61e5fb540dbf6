//! The reference of `scripts/bench` for the exec door: a server of the same protocol that does nothing but serve. One
//! thread, and no promises: no log, no limits of time or memory, no list of programs, no session and no guard for what
//! it starts, and a client that does not read, or a program that closes its outputs and goes on, holds up all others.
//!
//! `bare-exec SOCKET`. Ends by a signal. A request is served when it is there as a whole, input included.
#![expect(unsafe_code, reason = "posix_spawn and epoll without a library in between")]

mod epoll;
mod spawn;

use std::error::Error;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, MsgFlags, listen, recv};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};
use spawn::{Started, Strings, spawn};

/// The name of the listener in epoll; no client has it.
const LISTENER: usize = usize::MAX;
/// The sources of a client in epoll: the connection, and two outputs behind it.
const SOURCES: usize = 3;
const BUFFER: usize = 64 * 1024;

/// A client, from its connection to its answer.
struct Client {
    /// The number of the client, so that an event for another one in its place is not taken for its own.
    number: usize,
    stream: UnixStream,
    /// The bytes of the request that have come, until the program is started.
    request: Vec<u8>,
    program: Option<Program>,
}

struct Program {
    pid: Pid,
    /// The standard output and the standard error, until they have ended.
    outputs: [Option<OwnedFd>; 2],
}

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1).ok_or("usage: bare-exec SOCKET")?;
    let listener = UnixListener::bind(socket)?;
    listen(&listener, Backlog::new(1024)?)?;
    let environment = Strings::environment()?;
    let mut epoll = epoll::Epoll::new()?;
    epoll.add(&listener, LISTENER)?;
    let (mut clients, mut accepted, mut buffer) = (Vec::<Client>::new(), 0, vec![0; BUFFER]);
    loop {
        for name in epoll.wait()? {
            let place = if name == LISTENER {
                clients.push(Client {
                    number: accepted,
                    stream: listener.accept()?.0,
                    request: Vec::new(),
                    program: None,
                });
                accepted += 1;
                clients.len() - 1
            } else {
                match clients.iter().position(|client| client.number == name / SOURCES) {
                    Some(place) => place,
                    None => continue,
                }
            };
            let Some(client) = clients.get_mut(place) else { continue };
            let is_served = match name {
                LISTENER => serve(client, true, &epoll, &environment, &mut buffer)?,
                name if name % SOURCES == 0 => serve(client, false, &epoll, &environment, &mut buffer)?,
                name => pass_on(client, name % SOURCES - 1, &mut buffer)?,
            };
            if is_served {
                clients.swap_remove(place);
            }
        }
    }
}

/// Reads from a client, and starts its program when the request is complete. Returns true if the client is to be
/// dropped.
fn serve(
    client: &mut Client,
    is_new: bool,
    epoll: &epoll::Epoll,
    environment: &Strings,
    buffer: &mut [u8],
) -> Result<bool, Box<dyn Error>> {
    match recv(client.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        // Only a client whose request has not come with its connection is watched.
        Err(Errno::EAGAIN) if is_new => epoll.add(&client.stream, client.number * SOURCES)?,
        Err(Errno::EAGAIN | Errno::EINTR) => {}
        Ok(0) | Err(_) => return Ok(client.program.is_none()),
        Ok(count) => client
            .request
            .extend_from_slice(buffer.get(..count).unwrap_or_default()),
    }
    let Some((argv, input)) = parse(&client.request) else {
        if is_new && !client.request.is_empty() {
            epoll.add(&client.stream, client.number * SOURCES)?;
        }
        return Ok(false);
    };
    let Ok(Started {
        pid,
        input: stdin,
        outputs,
    }) = spawn(&Strings::new(argv)?, environment)
    else {
        client.stream.write_all(b"8:exitcode,3:127,")?;
        return Ok(true);
    };
    if !input.is_empty() {
        // A program that reads none of it is none of the server's business.
        let _ = write(&stdin, &input);
    }
    for (output, name) in outputs.iter().zip(client.number * SOURCES + 1..) {
        epoll.add(output, name)?;
    }
    client.request = Vec::new();
    client.program = Some(Program {
        pid,
        outputs: outputs.map(Some),
    });
    Ok(false)
}

/// Returns the arguments and the input of a complete request.
fn parse(request: &[u8]) -> Option<(Vec<&[u8]>, Vec<u8>)> {
    let (count, mut rest) = netstring(request)?;
    let count: usize = std::str::from_utf8(count).ok()?.parse().ok()?;
    let (mut argv, mut input) = (Vec::with_capacity(count.min(64)), Vec::new());
    loop {
        let (string, behind) = netstring(rest)?;
        rest = behind;
        match string {
            argument if argv.len() < count => argv.push(argument),
            b"" => return Some((argv, input)),
            piece => input.extend_from_slice(piece),
        }
    }
}

/// Returns the first netstring, and the bytes behind it.
fn netstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(bytes.get(..colon)?).ok()?.parse().ok()?;
    let rest = bytes.get(colon + 1..)?;
    Some((rest.get(..length)?, rest.get(length + 1..)?))
}

/// Reads once from an output, and sends that to the client; behind the end of both outputs, the exit status. Returns
/// true if the client has its answer.
fn pass_on(client: &mut Client, which: usize, buffer: &mut [u8]) -> Result<bool, Box<dyn Error>> {
    let Some(program) = &mut client.program else {
        return Ok(false);
    };
    let Some(place) = program.outputs.get_mut(which) else {
        return Ok(false);
    };
    let Some(output) = place else { return Ok(false) };
    let count = read(&*output, buffer)?;
    if count > 0 {
        let head = format!("6:{},{count}:", if which == 0 { "stdout" } else { "stderr" });
        let bytes = buffer.get(..count).unwrap_or_default();
        client.stream.write_all(&[head.as_bytes(), bytes, b","].concat())?;
        return Ok(false);
    }
    *place = None;
    if program.outputs.iter().any(Option::is_some) {
        return Ok(false);
    }
    let answer = match waitpid(program.pid, None)? {
        WaitStatus::Exited(_, code) => format!("8:exitcode,{}:{code},", code.to_string().len()),
        WaitStatus::Signaled(_, signal, _) => {
            let name = signal.as_str().trim_start_matches("SIG");
            format!("7:termsig,{}:{name},", name.len())
        }
        other => return Err(format!("a program has ended otherwise: {other:?}").into()),
    };
    client.stream.write_all(answer.as_bytes())?;
    Ok(true)
}
