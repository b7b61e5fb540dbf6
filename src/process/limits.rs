//! Resource limits: those of a child, and the daemon's own limit on open files.
//!
//! A daemon with thousands of clients needs a high limit on descriptors. Its children must not have that: a program
//! that uses `select` breaks on descriptors above 1023, and others loop over all possible descriptors. So the daemon
//! raises its own soft limit once ([`OpenFileLimit::raise`]), and each child gets the limit that the daemon was started
//! with. The effect of each limit is described in `setrlimit(2)`.

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// The limits of one child. `None` leaves a limit as the daemon was started with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Address space in bytes (`RLIMIT_AS`). Allocations beyond it fail in the child.
    pub memory: Option<u64>,
    /// Processor time in seconds (`RLIMIT_CPU`). SIGXCPU follows when it is used up, and SIGKILL a second later.
    pub cpu_seconds: Option<u64>,
    /// Descriptors (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes and threads of the child's user (`RLIMIT_NPROC`). All of the user's processes count, not only the
    /// daemon's children. Has no effect on root.
    pub processes: Option<u64>,
}

/// The daemon's soft limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFileLimit {
    /// The limit that the daemon was started with, which its children get.
    pub original: u64,
    /// The limit that the daemon has now.
    pub now: u64,
}

impl OpenFileLimit {
    /// Raises the soft limit of this process to its hard limit.
    ///
    /// # Errors
    /// Those of `getrlimit(2)` and `setrlimit(2)`. The limit is unchanged then, and sufficient to go on.
    pub fn raise() -> nix::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(Self {
            original: soft,
            now: hard.max(soft),
        })
    }
}

/// One call of `setrlimit` in the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitSetting {
    pub(super) resource: Resource,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

impl ResourceLimits {
    /// Returns the calls that set these limits. `inherited_open_files` is the limit on open files of a child without
    /// one of its own.
    pub(super) fn settings(&self, inherited_open_files: Option<u64>) -> Result<Vec<LimitSetting>, Errno> {
        let mut settings = Vec::new();
        let exact = |resource, value| LimitSetting {
            resource,
            soft: value,
            hard: value,
        };
        settings.extend(self.memory.map(|bytes| exact(Resource::RLIMIT_AS, bytes)));
        settings.extend(self.processes.map(|count| exact(Resource::RLIMIT_NPROC, count)));
        if let Some(seconds) = self.cpu_seconds {
            settings.push(cpu_setting(seconds, getrlimit(Resource::RLIMIT_CPU)?.1));
        }
        if let Some(count) = self.open_files {
            settings.push(exact(Resource::RLIMIT_NOFILE, count));
        } else if let Some(original) = inherited_open_files {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            settings.push(LimitSetting {
                resource: Resource::RLIMIT_NOFILE,
                soft: original.min(hard),
                hard,
            });
        }
        Ok(settings)
    }
}

/// Returns the limits on processor time. The hard limit means SIGKILL without notice, so it is a second above the soft
/// one, in which the child can report the fault, unless the daemon's own hard limit leaves no room for that.
fn cpu_setting(seconds: u64, own_hard: u64) -> LimitSetting {
    let notice = seconds.saturating_add(1);
    let hard = if own_hard != RLIM_INFINITY && seconds <= own_hard {
        notice.min(own_hard)
    } else {
        notice
    };
    LimitSetting {
        resource: Resource::RLIMIT_CPU,
        soft: seconds,
        hard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_limits_are_left_alone() {
        assert_eq!(ResourceLimits::default().settings(None), Ok(vec![]));
    }

    #[test]
    fn a_child_gets_the_original_open_file_limit_unless_it_has_its_own() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let inherited = ResourceLimits::default().settings(Some(64)).unwrap();
        assert_eq!(
            inherited,
            [LimitSetting {
                resource: Resource::RLIMIT_NOFILE,
                soft: 64,
                hard
            }]
        );
        let own = ResourceLimits {
            open_files: Some(32),
            ..Default::default()
        }
        .settings(Some(64))
        .unwrap();
        assert_eq!(
            own,
            [LimitSetting {
                resource: Resource::RLIMIT_NOFILE,
                soft: 32,
                hard: 32
            }]
        );
    }

    #[test]
    fn raising_the_limit_returns_the_former_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let first = OpenFileLimit::raise().unwrap();
        assert!(first.original <= hard);
        assert_eq!(first.now, hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
        assert_eq!(OpenFileLimit::raise().unwrap().original, hard);
    }

    #[test]
    fn cpu_time_warns_before_it_kills_where_there_is_room() {
        for (seconds, own_hard, hard) in [(5, RLIM_INFINITY, 6), (5, 5, 5), (5, 9, 6), (9, 5, 10)] {
            let setting = cpu_setting(seconds, own_hard);
            assert_eq!(
                (setting.soft, setting.hard),
                (seconds, hard),
                "{seconds} s under a hard limit of {own_hard}"
            );
        }
    }
}
