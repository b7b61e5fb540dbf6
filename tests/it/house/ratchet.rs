//! Exceptions from a rule that may only become fewer.

use std::collections::BTreeMap;

/// The number of offences that each room is allowed to have for the time being; a room that is not named has none.
pub(super) type Allowed = &'static [(&'static str, usize)];

/// Fails if a room has more offences than it is allowed. A number that has fallen does not fail; lower it here as well.
pub(super) fn hold(rule: &str, allowed: Allowed, offences: &BTreeMap<String, Vec<String>>) {
    let mut failures = Vec::new();
    for (room, places) in offences {
        let row = allowed.iter().find(|(name, _)| name == room);
        let limit = row.map_or(0, |(_, limit)| *limit);
        if places.len() > limit {
            failures.extend(places.iter().cloned());
            let number = places.len();
            failures.push(format!(
                "{room}: {number} times {rule}, and {limit} are allowed; the number may only fall (tests/it/house). \
                 All {number} are listed above; one of them is new"
            ));
        }
    }
    super::source::report(&failures);
}
