//! The name of a client among the processes: `iotcpd-ask`, not `iotcpd`.
//!
//! Administrators type `kill -USR1 $(pidof iotcpd)` and `killall -HUP iotcpd` and mean the daemon. These commands must
//! not hit a client on the same machine, such as Squid's helper. A process has two names: the kernel's (`comm`, used by
//! killall, pgrep and top), and the first word of the command line (used by pidof and ps). prctl(2) sets the first. The
//! second is `.../iotcpd`, followed by a NUL and `ask`: replacing that NUL by a dash makes one word of both. Nothing
//! has to be executed again, no other byte moves, and on a machine without /proc only the second name stays as it was.
//!
//! A limit: `pidof /usr/bin/iotcpd` compares the executable files and therefore finds daemon and clients alike.

use std::ffi::CString;
use std::fs;

use nix::sys::prctl::set_name;

use super::sys;

/// The index of the address of the command line in /proc/PID/stat, counted from the field after the process name
/// (proc(5): arg_start).
const ARGUMENTS_BEGIN: usize = 48 - 3;

/// Gives this process the name of the subcommand `command`, which must be the first argument of the process. Must be
/// called once, early. A failure is ignored: the program works under the old name as well.
pub(super) fn rename_process(command: &str) {
    if let Ok(name) = CString::new(format!("iotcpd-{command}")) {
        // The name is shorter than the 16 bytes that the kernel keeps; the call has no other way to fail.
        let _ = set_name(&name);
    }
    // Without /proc neither can be read, but pidof finds nothing without /proc either.
    let (Ok(stat), Ok(arguments)) = (fs::read_to_string("/proc/self/stat"), fs::read("/proc/self/cmdline")) else {
        return;
    };
    if let (Some(begin), Some(offset)) = (begin_of_arguments(&stat), end_of_first_argument(&arguments, command)) {
        sys::join_arguments(begin, offset);
    }
}

/// Returns the address of the first argument. `None` where the kernel hides it behind a 0.
fn begin_of_arguments(stat: &str) -> Option<usize> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let address = fields.split_whitespace().nth(ARGUMENTS_BEGIN)?.parse().ok()?;
    (address != 0).then_some(address)
}

/// Returns the offset of the NUL after the first argument, if `command` is the second and a third follows. Without a
/// third the byte would be near the end of the command line, by which the kernel recognizes one that was overwritten.
fn end_of_first_argument(arguments: &[u8], command: &str) -> Option<usize> {
    let end = memchr::memchr(0, arguments)?;
    let rest = arguments
        .get(end + 1..)?
        .strip_prefix(command.as_bytes())?
        .strip_prefix(b"\0")?;
    (end > 0 && !rest.is_empty()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_command_line_is_found_for_any_process_name() {
        let fields: Vec<String> = (3..53).map(|number| number.to_string()).collect();
        for name in ["iotcpd", "a) b", "("] {
            let stat = format!("77 ({name}) {}\n", fields.join(" "));
            assert_eq!(begin_of_arguments(&stat), Some(48), "{name}");
        }
        assert_eq!(begin_of_arguments("77 (x) S 1"), None);
        assert_eq!(begin_of_arguments(&format!("77 (x){}", " 0".repeat(50))), None);
        let own = begin_of_arguments(&fs::read_to_string("/proc/self/stat").unwrap());
        assert!(own.is_some());
    }

    #[test]
    fn only_a_command_line_of_the_expected_form_is_touched() {
        assert_eq!(end_of_first_argument(b"/usr/bin/iotcpd\0ask\0x\0", "ask"), Some(15));
        assert_eq!(end_of_first_argument(b"(iotcpd)\0ask\0--squid\0", "ask"), Some(8));
        for other in [
            &b""[..],
            b"iotcpd",
            b"iotcpd\0",
            b"iotcpd\0ask\0",
            b"iotcpd\0asks\0x\0",
            b"iotcpd\0-v\0ask\0",
            b"\0ask\0x\0",
        ] {
            assert_eq!(end_of_first_argument(other, "ask"), None, "{other:?}");
        }
    }
}
