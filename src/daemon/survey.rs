//! What is to be found out before doors can be opened or changed: files, directories and socket files are looked at, and
//! any of that may take its time, or never end. Nothing here needs the loop, so that a daemon that serves has it done on a
//! thread ([`reload`](super::reload)).

use crate::config::file::{Contents, Source};
use crate::config::spec::log::LogSpec;
use crate::doors::{Listeners, Options, PreparedPrograms};
use crate::error::{Blame, Error};
use crate::net::addr::{ListenAddr, UnixAddr};
use crate::net::listener::Listener;
use crate::process::spawn::SpawnDefaults;

/// A service with all that is had for it beforehand.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) options: Options,
    pub(super) programs: PreparedPrograms,
    /// Some of those that it listens on and that were not listened on before.
    pub(super) listeners: Listeners,
}

/// What the survey has come to.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) services: Vec<Ready>,
    /// What the file says about the log; nothing where there is no file.
    pub(super) log: LogSpec,
}

/// What is to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    /// To be read again; `None`: the services stay as they are.
    pub(super) source: Option<Source>,
    /// The services of now.
    pub(super) services: Vec<Options>,
    /// What they listen on, and those that are on the way to their end.
    pub(super) held: Vec<Held>,
    pub(super) defaults: SpawnDefaults,
}

/// The addresses of an open service.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) addresses: Vec<ListenAddr>,
    /// The file does not name it any more.
    pub(super) leaving: bool,
}

impl Survey {
    /// Looks, for as long as that takes.
    ///
    /// # Errors
    /// What keeps a service from being opened, or changed. Nothing is left behind.
    pub(super) fn make(self) -> Result<Surveyed, Error> {
        let Contents { services, log } = match &self.source {
            Some(source) => source.load()?,
            None => Contents {
                services: self.services.clone(),
                log: LogSpec::default(),
            },
        };
        let ready = services.into_iter().map(|options| {
            let programs = options.prepare(&self.defaults)?;
            let listeners = self.bind_paths(&options)?;
            Ok(Ready {
                options,
                programs,
                listeners,
            })
        });
        let services = ready.collect::<Result<_, _>>()?;
        Ok(Surveyed { services, log })
    }

    /// Listens on those addresses of a service that are files, and that nobody here has. One that another service has is left
    /// for the daemon to refuse.
    fn bind_paths(&self, options: &Options) -> Result<Listeners, Error> {
        let is_path = |address: &&ListenAddr| matches!(address, ListenAddr::Unix(UnixAddr::Path(_)));
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
            .filter(|address| !is_held(address));
        let bound = new.map(|address| {
            let listener = Listener::bind(address, &options.front().unix_socket, options.front().backlog);
            let listener = listener
                .map_err(|error| Error::with_remedy(Blame::System, format_args!("{}: {error}", options.name())))?;
            Ok((address.clone(), listener))
        });
        bound.collect()
    }
}
