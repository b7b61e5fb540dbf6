//! A tunnel door in a file.

use super::keys::{Keys, Section};
use super::{Collected, accept};
use crate::config::lower;
use crate::config::spec::tunnel::TunnelSpec;
use crate::doors::tunnel::options::Options;

/// Reads a table `[tunnel.NAME]`. Returns `None` after a mistake, which has been reported.
pub(super) fn read_table(section: &Section<'_, '_>, found: &mut Collected<'_>) -> Option<Options> {
    let (spec, keys) = Keys::read::<TunnelSpec>(section, &mut found.report);
    let lowered = lower::tunnel(section.name.get_ref(), &spec, keys.all_read());
    let options = accept(&keys, lowered, found)?;
    if let Some(needs) = &mut found.needs {
        needs.add_tunnel(&keys, &options);
    }
    Some(options)
}
