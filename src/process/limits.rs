//! Resource limits: those a child is given, and the daemon's own limit on open files.
//!
//! A daemon with thousands of clients wants a high limit on descriptors, its children do not: a program that uses
//! `select` breaks on descriptors over 1023, others walk over all that may be open. So the daemon raises its own soft
//! limit once ([`OpenFileLimit::raise`]) and each child gets the one that the daemon was started with. What a limit
//! does to a process that exceeds it is `setrlimit(2)`.

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// The limits of one child. `None` leaves a limit as the daemon was started with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Address space in bytes (`RLIMIT_AS`); allocations beyond it fail in the child.
    pub memory: Option<u64>,
    /// Processor time in seconds (`RLIMIT_CPU`): SIGXCPU when it is used up, SIGKILL a second later.
    pub cpu_seconds: Option<u64>,
    /// Descriptors (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes and threads of the child's user, all of them counted and not only ours (`RLIMIT_NPROC`). Without
    /// effect on root.
    pub processes: Option<u64>,
}

/// The daemon's soft limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFileLimit {
    /// What the daemon was started with; what its children get.
    pub original: u64,
    /// What the daemon has now.
    pub now: u64,
}

impl OpenFileLimit {
    /// Raises the soft limit of this process to its hard limit.
    ///
    /// # Errors
    /// Those of `getrlimit(2)` and `setrlimit(2)`; the limit is then as it was, and good enough to go on with.
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
    /// The calls that put these limits into effect. `inherited_open_files` is the limit of a child whose own is not
    /// set.
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

/// The kernel looks at the hard limit first, and that one is SIGKILL without notice. A second between the two lets the
/// child say something, unless the daemon's own hard limit leaves no room for it.
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
