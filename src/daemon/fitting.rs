//! The limits of services, fitted to those of the machine: open files, and connections that wait to be accepted.

use crate::doors::Options;
use crate::doors::front::options::{Descriptors, Lowered};
use crate::error::{Blame, Error};
use crate::net::addr::ListenAddr;
use crate::net::bind;
use crate::process::limits::OpenFileLimit;

/// The descriptors that the daemon itself needs: standard streams, epoll, waker, signals, the guard, the log, the watch
/// of certificates, and a reserve.
const OWN_DESCRIPTORS: usize = 64;

/// Checks the descriptors that the services may need against the limit on open files, and their backlogs against
/// the kernel's limit. A limit on connections that the operator has set is kept or refused, except for an exec
/// door. A default limit, and that of an exec door, is lowered to the available descriptors. A backlog is lowered
/// to the kernel's limit, which would apply anyway.
///
/// # Errors
/// The limit on open files is too low.
pub(super) fn fit(limit: OpenFileLimit, mut services: Vec<&mut Options>) -> Result<(), Error> {
    if let Some(most) = bind::longest_backlog() {
        services.iter_mut().for_each(|options| fit_backlog(options, most));
    }
    let limit = usize::try_from(limit.now).unwrap_or(usize::MAX);
    let fixed = services
        .iter()
        .map(|options| descriptors(options).fixed)
        .fold(OWN_DESCRIPTORS, usize::saturating_add);
    let flexible = services.iter().map(|options| descriptors(options).flexible);
    let flexible: Vec<usize> = flexible.filter(|descriptors| *descriptors > 0).collect();
    let all = flexible.iter().copied().fold(fixed, usize::saturating_add);
    if all <= limit {
        return Ok(());
    }
    let left = limit.saturating_sub(fixed);
    let share = left / flexible.len().max(1);
    if flexible.is_empty() || share == 0 {
        let what = format!("the limit on open files, {limit}, is too low: {fixed} may be needed at a time");
        let remedy = "raise it (ulimit -Hn, LimitNOFILE= in a systemd unit), or lower --max-connections, --num-daemons or \
                      the threads of commands";
        return Err(Error::new(Blame::System, what, remedy));
    }
    for options in services.iter_mut().filter(|options| descriptors(options).flexible > 0) {
        let Some(Lowered { from, to }) = limit_connections(options, share) else {
            continue;
        };
        log::warn!(
            service:% = options.name(); "{}: the limit on open files, {limit}, leaves room for {to} connections, and --max-connections {from} is lowered to \
             that; raise the limit (ulimit -Hn, LimitNOFILE=) or set --max-connections",
            options.name()
        );
    }
    Ok(())
}

fn descriptors(options: &Options) -> Descriptors {
    options.front().descriptors(options.descriptor_needs())
}

/// Lowers the limit on connections to the number that takes this many descriptors.
fn limit_connections(options: &mut Options, descriptors: usize) -> Option<Lowered> {
    let most = descriptors / options.descriptor_needs().per_connection;
    options.front_mut().limit_connections(most.max(1))
}

/// Lowers the backlog of a service to the kernel's limit. A socket that is handed over keeps the backlog that it had.
fn fit_backlog(options: &mut Options, most: u32) {
    let is_bound = |address: &ListenAddr| !matches!(address, ListenAddr::Inherited(_));
    if let Some(Lowered { from, to }) = options.front_mut().limit_backlog(most)
        && options.front().addresses().any(is_bound)
    {
        log::warn!(
            service:% = options.name(); "{}: the kernel lets {to} connections wait to be accepted, and --backlog {from} is lowered to that; raise its limit \
             (sysctl net.core.somaxconn={from}) or set --backlog",
            options.name()
        );
    }
}
