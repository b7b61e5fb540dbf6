//! The survey before doors are opened or changed: files, directories and socket files are looked at, any of which may
//! take time or never answer. Nothing here needs the loop, so a daemon that serves makes the survey on a thread
//! ([`reload`](super::reload)).

use crate::config::file::{Contents, Source};
use crate::config::spec::log::LogSpec;
use crate::doors::front::tls::PreparedServers;
use crate::doors::preparing::{Before, Surroundings};
use crate::doors::{Listeners, Options, Prepared};
use crate::error::{Blame, Error};
use crate::net::addr::{Listen, ListenAddr, UnixAddr};
use crate::net::listener::Listener;

/// A service with everything that was prepared for it.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) options: Options,
    pub(super) prepared: Prepared,
    /// The certificates of its TLS servers.
    pub(super) tls: PreparedServers,
    /// Listeners for those of its addresses that were not open before and could be opened here.
    pub(super) listeners: Listeners,
}

/// The result of a survey.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) services: Vec<Ready>,
    /// The settings of the log in the file; the default if there is no file.
    pub(super) log: LogSpec,
}

/// The input of a survey.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    /// The file to read again; `None` if the services stay as they are.
    pub(super) source: Option<Source>,
    /// The present services.
    pub(super) services: Vec<Options>,
    /// The addresses of all open services, including the ones that are draining.
    pub(super) held: Vec<Held>,
    pub(super) before: Before,
    pub(super) surroundings: Surroundings,
}

/// The addresses of an open service.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) addresses: Vec<ListenAddr>,
    /// True if the configuration does not name it any more.
    pub(super) leaving: bool,
}

impl Ready {
    /// Prepares a service, without its listeners. Waits for the file system.
    ///
    /// # Errors
    /// The reason why the service cannot be opened or changed.
    pub(super) fn prepare(options: Options, before: &Before, surroundings: &Surroundings) -> Result<Ready, Error> {
        let prepared = options.prepare(surroundings)?;
        let tls = options.front().prepare_tls(before)?;
        Ok(Ready {
            options,
            prepared,
            tls,
            listeners: Listeners::new(),
        })
    }
}

impl Survey {
    /// Makes the survey. Waits for the file system.
    ///
    /// # Errors
    /// The reason why a service cannot be opened or changed. Nothing is left behind.
    pub(super) fn make(self) -> Result<Surveyed, Error> {
        let Contents { services, log } = match &self.source {
            Some(source) => source.load()?,
            None => Contents {
                services: self.services.clone(),
                log: LogSpec::default(),
            },
        };
        let ready = services.into_iter().map(|options| {
            let ready = Ready::prepare(options, &self.before, &self.surroundings)?;
            let listeners = self.bind_paths(&ready.options)?;
            Ok(Ready { listeners, ..ready })
        });
        let services = ready.collect::<Result<_, _>>()?;
        Ok(Surveyed { services, log })
    }

    /// Listens on the addresses of a service that are files and that no open service has. The daemon will refuse an
    /// address that another service has.
    fn bind_paths(&self, options: &Options) -> Result<Listeners, Error> {
        let is_path = |listen: &&Listen| matches!(listen.address, ListenAddr::Unix(UnixAddr::Path(_)));
        let mine = |held: &Held| held.leaving && held.name == options.name();
        let is_held = |address: &ListenAddr| {
            let others = self.held.iter().filter(|held| !mine(held));
            others.clone().any(|held| held.addresses.contains(address))
        };
        let new = options
            .front()
            .listen
            .iter()
            .filter(is_path)
            .filter(|listen| !is_held(&listen.address));
        let bound = new.map(|listen| {
            let listener = Listener::bind(&listen.address, &options.front().unix_socket, options.front().backlog);
            let listener = listener
                .map_err(|error| Error::with_remedy(Blame::System, format_args!("{}: {error}", options.name())))?;
            Ok((listen.clone(), listener))
        });
        bound.collect()
    }
}
