//! A tunnel door in a file.

use super::handing::Reference;
use super::keys::{Keys, Section};
use super::{Collected, accept};
use crate::config::lower::{self, KeyRef};
use crate::config::spec::tunnel::TunnelSpec;
use crate::doors::tunnel::options::{Local, Options};

/// Reads a table `[tunnel.NAME]`. Returns `None` after a mistake, which has been reported.
pub(super) fn read_table(section: &Section<'_, '_>, found: &mut Collected<'_>) -> Option<Options> {
    let (spec, keys) = Keys::read::<TunnelSpec>(section, &mut found.report);
    let lowered = lower::tunnel(section.name.get_ref(), &spec, keys.all_read());
    let options = accept(&keys, lowered, found)?;
    for (key, local) in [
        ("local", Some(&options.local)),
        ("local-tls", options.local_tls.as_ref()),
    ] {
        if let Some(Local::Door(door)) = local {
            let reference = Reference {
                place: keys.place(KeyRef::key(key)),
                key,
                door: door.to_string(),
                tls: None,
            };
            found.references.push((options.front.name.clone(), reference));
        }
    }
    if let Some(needs) = &mut found.needs {
        needs.add_tunnel(&keys, &options);
    }
    Some(options)
}
