//! The changes of files that inotify does not report, in words for the log. Behind such a change HUP must be sent.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::statfs;

use super::trail::Unwatched;

/// File systems whose files other machines can change, by the number that statfs(2) gives.
const NETWORK: [(u32, &str); 11] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
];

/// Returns the name of the file system of a file, if other machines can change the file there.
pub(super) fn network(file: &Path) -> Option<&'static str> {
    let number = u32::try_from(statfs(file).ok()?.filesystem_type().0).ok()?;
    NETWORK
        .iter()
        .find(|(network, _)| *network == number)
        .map(|(_, name)| *name)
}

/// Returns the line for a kernel that gives no inotify instance, or takes it away.
pub(super) fn without_inotify(error: Errno) -> String {
    format!("changed certificates are not read by themselves: {}", reason(error))
}

/// Returns the lines for the files whose way cannot be watched, and for the ones on a file system of the network.
pub(super) fn lines(unwatched: &[(&PathBuf, Unwatched)], remote: &[(&Path, &str)]) -> Vec<String> {
    let unwatched = unwatched.first().map(|(file, Unwatched { directory, error })| {
        let (others, directory, reason) = (others(unwatched.len()), directory.display(), reason(*error));
        format!(
            "a change of {}{others} may not be seen: {directory}: {reason}",
            file.display()
        )
    });
    let remote = remote.first().map(|(file, name)| {
        let (file, others) = (file.display(), others(remote.len()));
        format!("a change of {file}{others} by another machine is not seen ({name}); send HUP after it")
    });
    unwatched.into_iter().chain(remote).collect()
}

fn others(files: usize) -> String {
    match files {
        0 | 1 => String::new(),
        2 => ", and of another file,".to_owned(),
        _ => format!(", and of {} other files,", files - 1),
    }
}

fn reason(error: Errno) -> String {
    let remedy = match error {
        Errno::ENOSPC => "raise fs.inotify.max_user_watches, or send HUP after each change",
        Errno::EMFILE => "raise fs.inotify.max_user_instances, or send HUP after each change",
        _ => "send HUP after each change",
    };
    let what = match error {
        // As the kernel has it, there would be no space left on a device.
        Errno::ENOSPC => "no more files can be watched",
        Errno::EMFILE => "no more programs can watch files",
        error => error.desc(),
    };
    format!("{what}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_first_file_and_counts_the_others() {
        let unwatched = || Unwatched {
            directory: "/d".into(),
            error: Errno::ENOSPC,
        };
        let files: Vec<PathBuf> = ["/d/a", "/d/b", "/d/c"].map(PathBuf::from).into();
        let line = |count| {
            let unwatched: Vec<_> = files.iter().take(count).map(|file| (file, unwatched())).collect();
            lines(&unwatched, &[]).concat()
        };
        let end = "may not be seen: /d: no more files can be watched; raise fs.inotify.max_user_watches, or send HUP \
                   after each change";
        assert_eq!(line(1), format!("a change of /d/a {end}"));
        assert_eq!(line(2), format!("a change of /d/a, and of another file, {end}"));
        assert_eq!(line(3), format!("a change of /d/a, and of 2 other files, {end}"));
        assert_eq!(line(0), "");
        assert_eq!(
            lines(&[], &[(Path::new("/n/a"), "NFS")]),
            ["a change of /n/a by another machine is not seen (NFS); send HUP after it"]
        );
    }

    #[test]
    fn a_file_on_a_disk_or_in_memory_is_on_no_network() {
        assert_eq!(network(Path::new("/proc/self/status")), None);
        assert_eq!(network(Path::new("/no/such/file")), None);
    }
}
