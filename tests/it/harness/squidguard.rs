//! Debian's squidGuard with a real database: the program that the pool was made for.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::Program;

/// The domain on its list.
pub(crate) const BLOCKED_DOMAIN: &str = "ads.example";

/// A configuration and its database in a directory of their own.
#[derive(Debug)]
pub(crate) struct SquidGuard {
    home: TempDir,
}

impl SquidGuard {
    /// Builds a database that blocks [`BLOCKED_DOMAIN`]; a request for it is sent to `redirect`, in which squidGuard
    /// puts the URL in the place of `%u`.
    #[track_caller]
    pub(crate) fn redirecting_to(redirect: &str) -> Self {
        let guard = Self {
            home: super::temp_dir(),
        };
        let home = guard.home.path();
        for directory in ["db/blocked", "log"] {
            fs::create_dir_all(home.join(directory)).expect("make a directory for squidGuard");
        }
        fs::write(home.join("db/blocked/domains"), format!("{BLOCKED_DOMAIN}\n")).expect("write a list");
        let configuration = format!(
            "dbhome {home}/db\nlogdir {home}/log\n\ndest blocked {{\n    domainlist blocked/domains\n}}\n\n\
             acl {{\n    default {{\n        pass !blocked all\n        redirect {redirect}\n    }}\n}}\n",
            home = home.display()
        );
        fs::write(guard.configuration(), configuration).expect("write squidGuard's configuration");
        let build = Program::start(Command::new("squidGuard").args(["-c", &guard.configuration(), "-C", "all"]));
        let (status, _, stderr) = build.finish();
        let log = fs::read_to_string(home.join("log/squidGuard.log")).unwrap_or_default();
        assert!(
            status.success() && home.join("db/blocked/domains.db").exists(),
            "squidGuard made no database ({status}): {stderr}\n{log}"
        );
        guard
    }

    /// The command of a worker, for `--daemon`.
    pub(crate) fn command(&self) -> String {
        shell_words::join(["squidGuard", "-c", &self.configuration()])
    }

    /// Writes a mistake into its configuration: a squidGuard that reads it from now on lets everything pass ("emergency
    /// mode").
    #[track_caller]
    pub(crate) fn break_configuration(&self) {
        let sound = fs::read_to_string(self.configuration()).expect("read squidGuard's configuration");
        fs::write(self.sound_configuration(), &sound).expect("keep squidGuard's configuration");
        fs::write(self.configuration(), format!("{sound}\nno such word\n")).expect("break squidGuard's configuration");
    }

    /// Takes the mistake out again.
    #[track_caller]
    pub(crate) fn mend_configuration(&self) {
        fs::rename(self.sound_configuration(), self.configuration()).expect("mend squidGuard's configuration");
    }

    fn sound_configuration(&self) -> String {
        format!("{}.sound", self.configuration())
    }

    fn configuration(&self) -> String {
        format!("{}/squidGuard.conf", self.home.path().display())
    }
}
