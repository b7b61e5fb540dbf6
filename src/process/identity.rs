//! The user and the groups that a child runs as: names of the configuration are translated into the kernel's numbers.
//!
//! Names are looked up once, while the configuration is read, because a name service may use the network. A number is
//! accepted wherever a name is. A user that is known only by its number has no groups.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::spec::SpawnContext;

/// A user with the groups that a login would give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// The user id.
    pub user: u32,
    /// The primary group; `None` if the user was given as a number that the user database does not know.
    pub group: Option<u32>,
    /// The supplementary groups, including the primary one.
    pub supplementary_groups: Vec<u32>,
}

impl UserIdentity {
    /// Looks up a user by name or number.
    ///
    /// # Errors
    /// [`LookupError`] if there is no such user or the user database cannot be read.
    pub fn lookup(name_or_number: &str) -> Result<Self, LookupError> {
        let fail = |cause| LookupError {
            kind: Kind::User,
            name: name_or_number.to_owned(),
            cause,
        };
        let number = name_or_number.parse::<u32>();
        let found = match number {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(name_or_number),
        };
        match (found, number) {
            (Ok(Some(user)), _) => Self::with_groups(&user).map_err(|errno| fail(Some(errno))),
            (Ok(None), Ok(user)) => Ok(Self {
                user,
                group: None,
                supplementary_groups: Vec::new(),
            }),
            (Ok(None), Err(_)) => Err(fail(None)),
            (Err(errno), _) => Err(fail(Some(errno))),
        }
    }

    fn with_groups(user: &User) -> nix::Result<Self> {
        let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
        let supplementary_groups = getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect();
        Ok(Self {
            user: user.uid.as_raw(),
            group: Some(user.gid.as_raw()),
            supplementary_groups,
        })
    }

    /// Makes children that are started with `context` run as this user. A group that was set before stays.
    pub fn apply_to(self, context: &mut SpawnContext) {
        context.user = Some(self.user);
        context.group = context.group.or(self.group);
        context.supplementary_groups = self.supplementary_groups;
    }
}

/// Looks up a group by name or number.
///
/// # Errors
/// [`LookupError`] if there is no such group or the group database cannot be read.
pub fn lookup_group(name_or_number: &str) -> Result<u32, LookupError> {
    if let Ok(number) = name_or_number.parse() {
        return Ok(number);
    }
    let fail = |cause| LookupError {
        kind: Kind::Group,
        name: name_or_number.to_owned(),
        cause,
    };
    match Group::from_name(name_or_number) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(fail(None)),
        Err(errno) => Err(fail(Some(errno))),
    }
}

/// The error for a user or group that could not be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupError {
    kind: Kind,
    name: String,
    /// The reason why the database could not be read; `None` if it was read and does not hold the name.
    cause: Option<Errno>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, database) = match self.kind {
            Kind::User => ("user", "passwd"),
            Kind::Group => ("group", "group"),
        };
        let name = &self.name;
        match self.cause {
            None => write!(
                f,
                "there is no {kind} {name:?}; see `getent {database}`, or give its number"
            ),
            Some(errno) => {
                write!(
                    f,
                    "cannot look up {kind} {name:?}: {}; check `getent {database}`, or give its number",
                    errno.desc()
                )
            }
        }
    }
}

impl std::error::Error for LookupError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let by_name = UserIdentity::lookup("root").unwrap();
        assert_eq!((by_name.user, by_name.group), (0, Some(0)));
        assert!(by_name.supplementary_groups.contains(&0));
        assert_eq!(UserIdentity::lookup("0").unwrap(), by_name);
    }

    #[test]
    fn a_number_without_a_name_has_no_groups() {
        let unknown = UserIdentity::lookup("3999999999").unwrap();
        assert_eq!(
            unknown,
            UserIdentity {
                user: 3_999_999_999,
                group: None,
                supplementary_groups: vec![]
            }
        );
    }

    #[test]
    fn an_unknown_name_is_named_with_a_remedy() {
        let user = UserIdentity::lookup("no such user").unwrap_err().to_string();
        assert_eq!(
            user,
            "there is no user \"no such user\"; see `getent passwd`, or give its number"
        );
        let group = lookup_group("no such group").unwrap_err().to_string();
        assert_eq!(
            group,
            "there is no group \"no such group\"; see `getent group`, or give its number"
        );
    }

    #[test]
    fn a_group_set_before_the_user_stays() {
        let mut spec = SpawnContext {
            group: Some(7),
            ..SpawnContext::default()
        };
        UserIdentity {
            user: 5,
            group: Some(6),
            supplementary_groups: vec![6],
        }
        .apply_to(&mut spec);
        assert_eq!(
            (spec.user, spec.group, spec.supplementary_groups),
            (Some(5), Some(7), vec![6])
        );
    }
}
