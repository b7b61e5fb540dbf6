//! The names of signals in messages, without SIG, as in signal(7).

/// The signals of signal(7) with the numbers of most machines that Linux runs on. A test fails on a machine with other
/// numbers.
pub const SIGNALS: [(i32, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// Further names of some signals, as other programs use them.
const ALIASES: [(i32, &str); 3] = [(6, "IOT"), (17, "CLD"), (29, "POLL")];

/// The signals that the client of an exec door passes on to its program: requests to end, and signals whose meaning the
/// program chooses.
pub const PASSED_ON: [i32; 6] = [HUP, INT, QUIT, USR1, USR2, TERM];

/// Hang-up: end, or start again.
pub const HUP: i32 = 1;
/// Interrupt (control-C): end.
pub const INT: i32 = 2;
/// Quit (control-\): end.
pub const QUIT: i32 = 3;
/// The first signal whose meaning is up to the program.
pub const USR1: i32 = 10;
/// The second signal whose meaning is up to the program.
pub const USR2: i32 = 12;
/// The signal for a write to a pipe without a reader.
pub const PIPE: i32 = 13;
/// Terminate: end.
pub const TERM: i32 = 15;

/// Returns the name of a signal, or `None` for one without a name, such as a real-time signal.
pub fn name_of(number: i32) -> Option<&'static str> {
    SIGNALS
        .iter()
        .find(|(known, _)| *known == number)
        .map(|(_, name)| *name)
}

/// Returns the number of the signal with this name.
pub fn number_of(name: &[u8]) -> Option<i32> {
    SIGNALS
        .iter()
        .chain(&ALIASES)
        .find(|(_, known)| known.as_bytes() == name)
        .map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn signals_have_the_numbers_of_this_machine() {
        for (number, name) in SIGNALS {
            let signal = Signal::try_from(number).unwrap();
            assert_eq!(signal.as_str(), format!("SIG{name}"));
            assert_eq!(
                (name_of(number), number_of(name.as_bytes())),
                (Some(name), Some(number))
            );
        }
        let named = [HUP, INT, QUIT, USR1, USR2, PIPE, TERM].map(|number| name_of(number).unwrap());
        assert_eq!(named, ["HUP", "INT", "QUIT", "USR1", "USR2", "PIPE", "TERM"]);
    }

    #[test]
    fn unknown_signals_have_no_name() {
        assert_eq!((name_of(34), name_of(0), name_of(-1)), (None, None, None));
        for name in ["", "SIGINT", "int", "INT ", "RTMIN"] {
            assert_eq!(number_of(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(number_of(b"CLD"), Some(17));
    }
}
