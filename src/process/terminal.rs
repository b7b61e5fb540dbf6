//! A pseudo-terminal in place of the two pipes of a child's standard input and output, for programs that buffer their
//! output, or print none at all, unless they run on a terminal.
//!
//! **For the child**, the terminal is raw from the start: no echo, no line editing, no signals from control characters,
//! no translation of line ends. Bytes pass unchanged both ways (`cfmakeraw(3)`). A program that sets its terminal
//! itself, as a program with a line editor does, gets what it sets. The window has 24 lines of 80 characters. The
//! terminal is the controlling terminal of the session that the child leads, as every child here leads one. Standard
//! error is no part of it and stays a pipe.
//!
//! **Its end.** When our side is closed, the session gets HUP. A terminal cannot be closed in one direction, so the end
//! of input is passed on as a person would do it: the terminal is switched to lines, and the end-of-file character is
//! entered. A program that reads gets one end of file, whatever it has set before. But a program that is already in a
//! read uses the settings that applied when it began, and would take the character as an ordinary byte. So its group
//! is stopped and continued first, which makes the kernel restart the read. On a busy machine the character may arrive
//! before that has happened, so a caller enters it [again](END_AGAIN) while the program goes on. Bytes that the program
//! has not read by then are read as lines: of a line with more than 4,095 bytes the rest is lost, and a byte 4 among
//! them is an end of file of its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{
    InputFlags, LocalFlags, SetArg, SpecialCharacterIndices as Special, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
use nix::unistd::{Uid, fchown, write};

use super::sys;

/// End of transmission, control-D: at the beginning of a line, a terminal reads it as an end of file.
const END_OF_FILE: u8 = 4;
/// The value that disables a special character (`_POSIX_VDISABLE`).
const DISABLED: u8 = 0;
/// All other characters with a meaning in a line.
const LINE_EDITING: [Special; 7] = [
    Special::VERASE,
    Special::VKILL,
    Special::VEOL,
    Special::VEOL2,
    Special::VWERASE,
    Special::VLNEXT,
    Special::VREPRINT,
];

/// The two sides of a new terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Our side, non-blocking.
    pub(super) ours: OwnedFd,
    /// The child's side.
    pub(super) child: OwnedFd,
}

/// Opens a new terminal, whose child's side belongs to `owner`.
pub(super) fn open_terminal(owner: Option<Uid>) -> Result<Terminal, Errno> {
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname_r(&ours)?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let child = open(Path::new(&name), flags, Mode::empty())?;
    let mut settings = tcgetattr(&child)?;
    cfmakeraw(&mut settings);
    tcsetattr(&child, SetArg::TCSANOW, &settings)?;
    sys::set_window_size(child.as_fd(), 24, 80)?;
    if owner.is_some() {
        fchown(&child, owner, None)?;
    }
    let ours = OwnedFd::from(ours);
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok(Terminal { ours, child })
}

/// The time after which the end of file may be entered again; each further time, twice the last one.
pub const END_AGAIN: Duration = Duration::from_millis(20);

/// Enters an end of file. `ours` is our side of a terminal, and `restart` makes processes that read from it restart
/// their reads.
///
/// # Errors
/// EIO if the child has ended; WouldBlock if it has left so much unread that nothing more fits.
pub(super) fn end_input(ours: impl AsFd, restart: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut settings = tcgetattr(&ours)?;
    read_lines(&mut settings);
    tcsetattr(&ours, SetArg::TCSANOW, &settings)?;
    restart()?;
    write(&ours, &[END_OF_FILE])?;
    Ok(())
}

/// Switches to lines in which nothing but their end and the end of file has a meaning.
fn read_lines(settings: &mut Termios) {
    settings.local_flags.insert(LocalFlags::ICANON);
    settings
        .local_flags
        .remove(LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
    settings
        .input_flags
        .remove(InputFlags::ICRNL | InputFlags::INLCR | InputFlags::IGNCR);
    for place in LINE_EDITING {
        if let Some(character) = settings.control_chars.get_mut(place as usize) {
            *character = DISABLED;
        }
    }
    if let Some(character) = settings.control_chars.get_mut(Special::VEOF as usize) {
        *character = END_OF_FILE;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::super::spawn::{PreparedProgram, SpawnDefaults, Stdio};
    use super::super::testing::{read_line, shell_spec, wait, wait_readable};
    use super::*;
    use crate::process::child::Child;

    fn on_terminal(script: &str) -> Child {
        let mut spec = shell_spec(script);
        spec.context.terminal = true;
        let mut program = PreparedProgram::prepare(&spec, &SpawnDefaults::default()).unwrap();
        program.spawn(Stdio::piped()).unwrap()
    }

    #[test]
    fn a_terminal_controls_a_session_of_its_own() {
        let mut child = on_terminal(
            "test -t 0 && test -t 1 && echo two; test -t 2 || echo no; tty >/dev/tty; stty size; \
             set -- $(cat /proc/$$/stat); echo $1 $5 $6",
        );
        assert_eq!(
            (read_line(&mut child).as_str(), read_line(&mut child).as_str()),
            ("two", "no")
        );
        assert!(read_line(&mut child).starts_with("/dev/pts/"));
        assert_eq!(read_line(&mut child), "24 80");
        let pid = child.pid();
        assert_eq!(
            read_line(&mut child),
            format!("{pid} {pid} {pid}"),
            "leader of its group and session"
        );
        assert!(wait(&mut child).success());
    }

    #[test]
    fn bytes_pass_unchanged_both_ways() {
        let mut child = on_terminal("head -c 256 | od -An -v -tu1 | tr -s ' \\n' ' '; echo; printf 'a\\tb\\r\\n'");
        let all: Vec<u8> = (0..=255).collect();
        child.stdin.as_ref().unwrap().write_all(&all).unwrap();
        let expected: String = all.iter().map(|byte| format!(" {byte}")).collect();
        assert_eq!(read_line(&mut child).trim_end(), expected.trim_end());
        let mut line = [0; 5];
        wait_readable(child.stdout.as_ref().unwrap());
        assert_eq!(nix::unistd::read(child.stdout.as_ref().unwrap(), &mut line), Ok(5));
        assert_eq!(&line, b"a\tb\r\n");
    }

    #[test]
    fn the_end_of_input_is_read_after_the_bytes_before_it() {
        let mut child = on_terminal("cat; echo over");
        let mut stdin = child.stdin.as_ref().unwrap();
        stdin.write_all(b"one\ntwo").unwrap();
        assert_eq!(read_line(&mut child), "one");
        let mut rest = [0; 3];
        wait_readable(child.stdout.as_ref().unwrap());
        assert_eq!(nix::unistd::read(child.stdout.as_ref().unwrap(), &mut rest), Ok(3));
        loop {
            child.enter_end_of_file(child.stdin.as_ref().unwrap());
            let mut wanted = [PollFd::new(child.stdout.as_ref().unwrap().as_fd(), PollFlags::POLLIN)];
            if poll(&mut wanted, PollTimeout::try_from(END_AGAIN).unwrap()) == Ok(1) {
                break;
            }
        }
        assert_eq!(read_line(&mut child), "over");
        assert!(wait(&mut child).success());
    }

    #[test]
    fn the_group_on_a_terminal_can_be_killed_and_its_end_of_output_is_seen() {
        let mut child = on_terminal("echo up; sleep 1000 & wait");
        assert_eq!(read_line(&mut child), "up");
        child.kill_group(nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_readable(child.pidfd());
        let stdout = child.stdout.as_ref().unwrap();
        wait_readable(stdout);
        assert_eq!(nix::unistd::read(stdout, &mut [0; 8]), Err(Errno::EIO));
        wait(&mut child);
    }

    #[test]
    fn the_session_gets_hup_when_our_side_is_closed() {
        let mut child = on_terminal("trap 'exit 9' HUP; echo up; while :; do sleep 1000 & wait; done");
        assert_eq!(read_line(&mut child), "up");
        drop((child.stdin.take(), child.stdout.take()));
        assert_eq!(wait(&mut child), crate::process::exit_status::ExitStatus::Code(9));
    }
}
