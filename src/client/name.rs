//! What a client is called among the processes: `iotcpd-ask`, not `iotcpd`.
//!
//! Administrators type `kill -USR1 $(pidof iotcpd)` and `killall -HUP iotcpd` and mean the daemon. A client that runs on the
//! same machine, as Squid's helper does, must not be found by that. There are two names: the kernel's (`comm`, for killall,
//! pgrep and top), and the first word of the command line (for pidof and ps). The first is set by prctl(2). The second is
//! `.../iotcpd`, and behind it, after the one byte that ends it, stands `ask`: that byte becomes a dash, and both are one
//! word. So nothing is executed anew, no other byte moves, and a machine without /proc only lacks the second.
//!
//! What cannot be helped: the executable file is the daemon's, and so `pidof /usr/bin/iotcpd`, which compares that, finds both.

use std::ffi::CString;
use std::fs;

use nix::sys::prctl::set_name;

use super::sys;

/// Where /proc/PID/stat has the address of the command line, counted from the word behind the name (proc(5): arg_start).
const ARGUMENTS_BEGIN: usize = 48 - 3;

/// Takes on the name of the subcommand `command`, which is the first argument of this process, as its own. To be called once,
/// early. Failure is no reason not to run.
pub(super) fn take_on(command: &str) {
    if let Ok(name) = CString::new(format!("iotcpd-{command}")) {
        // It is shorter than the 16 bytes that the kernel keeps, and nothing else can go wrong.
        let _ = set_name(&name);
    }
    // Without /proc neither can be read, and without either pidof finds nothing.
    let (Ok(stat), Ok(arguments)) = (fs::read_to_string("/proc/self/stat"), fs::read("/proc/self/cmdline")) else {
        return;
    };
    if let (Some(begin), Some(offset)) = (begin_of_arguments(&stat), end_of_first(&arguments, command)) {
        sys::join_arguments(begin, offset);
    }
}

/// The address of the first argument. `None` where the kernel does not tell: 0.
fn begin_of_arguments(stat: &str) -> Option<usize> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let address = fields.split_whitespace().nth(ARGUMENTS_BEGIN)?.parse().ok()?;
    (address != 0).then_some(address)
}

/// Where the first argument ends, if `command` is the second and a third follows, so that what is changed is not the end of it
/// all, by which the kernel knows a command line that was overwritten.
fn end_of_first(arguments: &[u8], command: &str) -> Option<usize> {
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
    fn the_address_of_the_command_line_is_found_whatever_the_name_is() {
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
        assert_eq!(end_of_first(b"/usr/bin/iotcpd\0ask\0x\0", "ask"), Some(15));
        assert_eq!(end_of_first(b"(iotcpd)\0ask\0--squid\0", "ask"), Some(8));
        for other in [
            &b""[..],
            b"iotcpd",
            b"iotcpd\0",
            b"iotcpd\0ask\0",
            b"iotcpd\0asks\0x\0",
            b"iotcpd\0-v\0ask\0",
            b"\0ask\0x\0",
        ] {
            assert_eq!(end_of_first(other, "ask"), None, "{other:?}");
        }
    }
}
