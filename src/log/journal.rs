//! The test if standard error is the journal of systemd, by `JOURNAL_STREAM` of systemd.exec(5).

use std::io;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// The variable that holds the device and the inode of the journal's socket, in a process whose standard output or
/// error is that socket. The variable is inherited further than the stream, so both numbers are compared.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Returns true if standard error is the journal.
pub fn is_standard_error() -> bool {
    let Some(named) = std::env::var_os(VARIABLE) else {
        return false;
    };
    // The call fails for a closed standard error, which is not the journal.
    fstat(io::stderr().as_fd()).is_ok_and(|file| names_file(&named.to_string_lossy(), file.st_dev, file.st_ino))
}

fn names_file(named: &str, device: u64, inode: u64) -> bool {
    let Some((of_device, of_inode)) = named.split_once(':') else {
        return false;
    };
    of_device.parse() == Ok(device) && of_inode.parse() == Ok(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_and_inode_are_both_compared() {
        assert!(names_file("9:12345", 9, 12_345));
        for other in [
            "9:12346",
            "8:12345",
            "9",
            "9:",
            ":12345",
            "",
            "9:12345:1",
            "x:y",
            "-9:12345",
        ] {
            assert!(!names_file(other, 9, 12_345), "{other}");
        }
    }
}
