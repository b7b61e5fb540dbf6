//! `iotcpd [flags]` and `iotcpd pool [flags]`: one pool, described on the command line.

use crate::config::lower;
use crate::config::lower::log::LogSettings;
use crate::config::spec::pool::PoolSpec;
use crate::daemon::{self, Plan};
use crate::doors;
use crate::doors::pool::options::Options;
use crate::error::Error;

/// The name of a pool that has no table with a name.
const NAME: &str = "pool";

pub(super) fn run(spec: &PoolSpec, log: LogSettings) -> Result<(), Error> {
    daemon::run(Plan {
        services: vec![doors::Options::Pool(Box::new(options(spec)?))],
        source: None,
        log,
        secret: None,
    })
}

/// Returns the pool that the flags describe, or a line for each mistake in them.
fn options(spec: &PoolSpec) -> Result<Options, Error> {
    match lower::pool(NAME, spec) {
        Ok(lowered) => Ok(lowered.options),
        Err(mistakes) => {
            let lines: Vec<_> = mistakes
                .iter()
                .map(|mistake| format!("iotcpd: {}", mistake.for_flags()))
                .collect();
            Err(Error::mistakes(lines))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Whole;
    use crate::error::Blame;

    #[test]
    fn mistakes_are_reported_with_their_flags() {
        let spec = PoolSpec {
            num_daemons: Some(Whole(0)),
            ipv4: Some("localhost".into()),
            ..PoolSpec::default()
        };
        let error = options(&spec).unwrap_err();
        assert_eq!(error.blame(), Blame::Operator);
        let expected = "iotcpd: --ipv4: `localhost` is not an IPv4 address; write for example 127.0.0.1, or 0.0.0.0 for every one\n\
                       iotcpd: --num-daemons: 0 is out of range; write a value from 1 to 4096";
        assert_eq!(error.to_string(), expected);
    }
}
