//! The doors of a daemon: they are opened, changed, and removed when they have finished.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_dumpable;

use crate::config::file::Source;
use crate::doors::preparing::{Before, ServerId, Surroundings};
use crate::doors::{Door, Options, Readiness};
use crate::error::{Blame, Error};
use crate::net::addr::ListenAddr;
use crate::net::handover::{HandedOver, Outgoing};
use crate::net::inherit::{self, Inherited, Variables};
use crate::net::link::Link;
use crate::net::listener::Listener;
use crate::process::limits::OpenFileLimit;
use crate::reactor::{Context, Reactor, ServiceId};

use super::fitting::fit;
use super::renewal::Certificates;
use super::survey::{Held, Ready, Survey};

#[derive(Debug)]
pub(super) struct Doors {
    open: Vec<Open>,
    limit: OpenFileLimit,
    surroundings: Surroundings,
    handed_over: HandedOver,
    inherited: Inherited,
    /// The number of workers of each service of a predecessor. Emptied once this daemon serves.
    places: Places,
    /// The links that the doors of a predecessor have offered, with their names, until each has its own.
    links: Vec<(String, Link)>,
    /// True if a door that drains may expect connections from another.
    pub(super) expects_handed: bool,
}

/// The names of services and the numbers of their workers.
pub(super) type Places = Vec<(String, usize)>;

#[derive(Debug)]
struct Open {
    id: ServiceId,
    options: Options,
    /// True if the configuration does not name it any more.
    leaving: bool,
}

impl Doors {
    /// Returns the doors of a daemon, none of which is open. `handed_over` and `places` come from a predecessor, and
    /// `inherited` from the service manager.
    pub(super) fn new(
        limit: OpenFileLimit,
        surroundings: Surroundings,
        handed_over: HandedOver,
        inherited: Inherited,
        places: Places,
    ) -> Self {
        Doors {
            open: Vec::new(),
            limit,
            surroundings,
            handed_over,
            inherited,
            places,
            links: Vec::new(),
            expects_handed: false,
        }
    }

    /// Sets the links that the doors of a predecessor have offered. Must be called before doors are opened.
    pub(super) fn set_links(&mut self, links: Vec<(String, Link)>) {
        self.links = links;
    }

    /// Opens a door for each service, or none if one fails. No door accepts clients before [`accept`](Self::accept).
    pub(super) fn open_all(&mut self, reactor: &mut Reactor<dyn Door>, services: Vec<Options>) -> Result<(), Error> {
        let mut services = services;
        fit(self.limit, services.iter_mut().collect())?;
        let mut ready = Vec::new();
        for options in services {
            let mut service = Ready::prepare(options, &Before::default(), &self.surroundings)?;
            self.listen(&mut service, &[])?;
            ready.push(service);
        }
        for service in ready {
            self.open(reactor, service)?;
        }
        for name in self.inherited.unclaimed() {
            log::warn!("the service manager has handed over a socket named {name} that no service listens on");
        }
        Ok(())
    }

    /// Lets every door accept clients. Closes the sockets of a predecessor that no service listens on.
    pub(super) fn accept(&mut self, reactor: &mut Reactor<dyn Door>) -> Result<(), Error> {
        for outcome in self.each(reactor, |door, cx| door.begin_serving(cx)) {
            outcome?;
        }
        self.places = Places::new();
        for (service, address, mut listener) in std::mem::take(&mut self.handed_over).into_rest() {
            listener.take_charge();
            log::info!(service:% = service; "{service}: no longer listening on {address}");
        }
        Ok(())
    }

    fn open(&mut self, reactor: &mut Reactor<dyn Door>, service: Ready) -> Result<(), Error> {
        let Ready {
            options,
            prepared,
            tls,
            listeners,
        } = service;
        Self::keep_secrets(&options);
        let mut door = options.clone().open(prepared, listeners, Instant::now())?;
        door.front_mut().set_tls(tls);
        if let Some((_, places)) = self.places.iter().find(|(name, _)| name == options.name()) {
            door.begin_with(*places);
        }
        if let Some(index) = self.links.iter().position(|(name, _)| name == options.name()) {
            door.take_link(self.links.swap_remove(index).1);
        }
        let id = reactor.add(door).map_err(|_| {
            Error::new(
                Blame::Operator,
                "too many services",
                "run some of them in a daemon of their own",
            )
        })?;
        self.open.push(Open {
            id,
            options,
            leaving: false,
        });
        reactor.with(id, |door, cx| door.start(cx)).unwrap_or(Ok(()))
    }

    /// Opens the listeners of a service for the addresses that it does not have already.
    fn listen(&mut self, service: &mut Ready, held: &[ListenAddr]) -> Result<(), Error> {
        let Ready { options, listeners, .. } = service;
        let mut had = std::mem::take(listeners);
        let new = options
            .front()
            .listen
            .iter()
            .filter(|listen| !held.contains(&listen.address));
        for listen in new {
            let address = &listen.address;
            if let Some(holder) = self.holder_of(address, options.name()) {
                let what = format!("{}: {address} is still held by {holder}", options.name());
                let remedy = "take it away from there and send HUP, then give it to the other and send HUP again";
                return Err(Error::new(Blame::Operator, what, remedy));
            }
            if let Some(place) = had.iter().position(|(had, _)| had.address == *address) {
                listeners.push(had.remove(place));
                continue;
            }
            if let Some(listener) = self.handed_over.claim(options.name(), address) {
                listeners.push((listen.clone(), listener));
                continue;
            }
            let opened = Listener::open(
                address,
                &options.front().unix_socket,
                options.front().backlog,
                &mut self.inherited,
            );
            let opened = opened
                .map_err(|error| Error::with_remedy(Blame::System, format_args!("{}: {error}", options.name())))?;
            listeners.extend(opened.into_iter().map(|listener| (listen.clone(), listener)));
        }
        let listeners = listeners.iter().map(|(listen, listener)| (&listen.address, listener));
        options.front().check_transports(listeners)
    }

    /// Returns the open service, other than `wanted_by`, that listens on an address.
    fn holder_of(&self, address: &ListenAddr, wanted_by: &str) -> Option<&str> {
        let others = self.open.iter().filter(|open| open.options.name() != wanted_by);
        others
            .filter(|open| open.options.front().listens_on(address))
            .map(|open| open.options.name())
            .next()
    }

    // ---- change ------------------------------------------------------------------------------------------------

    /// Returns the survey that must precede a [reload](Self::reload).
    pub(super) fn survey(&self, reactor: &mut Reactor<dyn Door>, source: Option<Source>) -> Survey {
        let certificates = self.certificates(reactor).into_iter();
        let before = certificates.map(|Certificates { id, tls, .. }| (id, Arc::clone(tls.server())));
        let before = Before { tls: before.collect() };
        let staying = self.open.iter().filter(|open| !open.leaving);
        let held = self.open.iter().map(|open| Held {
            name: open.options.name().to_owned(),
            addresses: open.options.front().addresses().cloned().collect(),
            leaving: open.leaving,
        });
        Survey {
            source,
            services: staying.map(|open| open.options.clone()).collect(),
            held: held.collect(),
            before,
            surroundings: self.surroundings.clone(),
        }
    }

    /// Returns the certificates of the doors that the configuration names.
    pub(super) fn certificates(&self, reactor: &mut Reactor<dyn Door>) -> Vec<Certificates> {
        let staying = self.open.iter().filter(|open| !open.leaving);
        let certificates = staying.flat_map(|open| {
            let prepared = |door: &mut (dyn Door + 'static)| {
                let servers = door.front().prepared_servers();
                let servers = servers.map(|(name, tls)| (name.clone(), tls.clone()));
                servers.collect::<Vec<_>>()
            };
            let prepared = reactor.with(open.id, |door, _| prepared(door)).unwrap_or_default();
            let options = open.options.front();
            prepared.into_iter().filter_map(|(name, tls)| {
                let (_, options) = options.tls_servers().find(|(other, _)| *other == name)?;
                let (id, options) = (ServerId::new(open.options.name(), name), options.clone());
                Some(Certificates { id, options, tls })
            })
        });
        certificates.collect()
    }

    /// Gives every door what was prepared for it again, and its certificates; its options stay the same.
    pub(super) fn set_prepared(&mut self, reactor: &mut Reactor<dyn Door>, services: Vec<Ready>) {
        for Ready {
            options, prepared, tls, ..
        } in services
        {
            self.call(reactor, options.name(), |door, _| {
                door.set_prepared(prepared);
                door.front_mut().set_tls(tls);
            });
        }
    }

    /// Applies all changes of the configuration, or none if there is an error. So everything that may fail comes first
    /// and is undone if it does: listening, then opening the new doors. The rest cannot fail. No file is touched here,
    /// because the [survey](Self::survey) has done that.
    pub(super) fn reload(&mut self, reactor: &mut Reactor<dyn Door>, mut services: Vec<Ready>) -> Result<(), Error> {
        fit(
            self.limit,
            services.iter_mut().map(|service| &mut service.options).collect(),
        )?;
        let (mut changed, mut new) = (Vec::new(), Vec::new());
        for mut service in services {
            if let Some(open) = self.find(service.options.name()) {
                open.options.may_become(&service.options)?;
            }
            let held = self.find(service.options.name());
            if let Some(open) = &held {
                let check = |door: &mut (dyn Door + 'static), _: &mut Context<'_>| {
                    service
                        .options
                        .front()
                        .check_transports(door.front().listening().iter())
                };
                reactor.with(open.id, check).unwrap_or(Ok(()))?;
            }
            let held = held.map(|open| open.options.front().addresses().cloned().collect::<Vec<_>>());
            self.listen(&mut service, held.as_deref().unwrap_or_default())?;
            match held {
                Some(_) => changed.push(service),
                None => new.push(service),
            }
        }
        let named = changed.iter().chain(&new);
        let named = named.map(|service| service.options.name().to_owned());
        let named: Vec<String> = named.collect();
        self.open_new(reactor, new)?;
        self.drain_removed(reactor, &named);
        for service in changed {
            self.change(reactor, service)?;
        }
        Ok(())
    }

    /// Calls the door of this name, if the configuration names it.
    pub(super) fn call<R>(
        &mut self,
        reactor: &mut Reactor<dyn Door>,
        name: &str,
        call: impl FnOnce(&mut (dyn Door + 'static), &mut Context<'_>) -> R,
    ) -> Option<R> {
        let id = self.find(name)?.id;
        reactor.with(id, call)
    }

    /// Returns the id of the door of this name, if the configuration names it.
    pub(super) fn id_of(&self, name: &str) -> Option<ServiceId> {
        let mut staying = self.open.iter().filter(|open| !open.leaving);
        staying.find(|open| open.options.name() == name).map(|open| open.id)
    }

    /// Returns the ids of the doors that may hand connections over.
    pub(super) fn givers(&self) -> impl Iterator<Item = ServiceId> {
        let givers = self.open.iter().filter(|open| open.options.may_hand_over());
        givers.map(|open| open.id)
    }

    /// Returns the names and ids of the doors that the configuration names.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, ServiceId)> {
        let staying = self.open.iter().filter(|open| !open.leaving);
        staying.map(|open| (open.options.name(), open.id))
    }

    fn find(&mut self, name: &str) -> Option<&mut Open> {
        self.open
            .iter_mut()
            .find(|open| !open.leaving && open.options.name() == name)
    }

    /// Opens all of these doors, or none.
    fn open_new(&mut self, reactor: &mut Reactor<dyn Door>, new: Vec<Ready>) -> Result<(), Error> {
        let before = self.open.len();
        for service in new {
            let opened = self.open(reactor, service);
            let newest = self.open.last().map(|open| open.id);
            let accepts = |id| reactor.with(id, |door, cx| door.begin_serving(cx)).unwrap_or(Ok(()));
            if let Err(error) = opened.and_then(|()| newest.map_or(Ok(()), accepts)) {
                for opened in self.open.drain(before..) {
                    reactor.remove(opened.id);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps the requests of a confidential service out of core dumps from now on, even after the service is removed.
    /// Must be called before requests arrive.
    fn keep_secrets(options: &Options) {
        if options.is_confidential() {
            // This fails only for undefined values.
            let _ = set_dumpable(false);
        }
    }

    fn change(&mut self, reactor: &mut Reactor<dyn Door>, service: Ready) -> Result<(), Error> {
        let Ready {
            options,
            prepared,
            tls,
            listeners,
        } = service;
        Self::keep_secrets(&options);
        let Some(open) = self.find(options.name()) else {
            return Ok(());
        };
        let stays = options
            .front()
            .addresses()
            .any(|address| open.options.front().listens_on(address));
        let same_socket = open.options.front().unix_socket == options.front().unix_socket
            && open.options.front().backlog == options.front().backlog;
        if stays && !same_socket {
            log::warn!(
                service:% = options.name(); "{}: addresses that stay open keep their backlog, mode and owner until a restart",
                options.name()
            );
        }
        let change = |door: &mut (dyn Door + 'static), cx: &mut Context<'_>| {
            door.reload(cx, options.clone(), prepared, listeners)?;
            door.front_mut().set_tls(tls);
            Ok(())
        };
        reactor.with(open.id, change).unwrap_or(Ok(()))?;
        open.options = options;
        Ok(())
    }

    /// Drains the doors that the configuration does not name any more.
    fn drain_removed(&mut self, reactor: &mut Reactor<dyn Door>, named: &[String]) {
        for open in self.open.iter_mut().filter(|open| !open.leaving) {
            if !named.iter().any(|name| name == open.options.name()) {
                log::info!(service:% = open.options.name(); "{}: not in the configuration any more", open.options.name());
                open.leaving = true;
                reactor.with(open.id, |door, cx| door.drain(cx));
            }
        }
    }

    // ---- all of them -------------------------------------------------------------------------------------------

    /// Calls every door, in the order of the configuration.
    pub(super) fn each<R>(
        &self,
        reactor: &mut Reactor<dyn Door>,
        mut call: impl FnMut(&mut (dyn Door + 'static), &mut Context<'_>) -> R,
    ) -> Vec<R> {
        self.open
            .iter()
            .filter_map(|open| reactor.with(open.id, &mut call))
            .collect()
    }

    /// Returns the readiness of the door that is the least ready.
    pub(super) fn readiness(&self, reactor: &mut Reactor<dyn Door>) -> Readiness {
        let each = self.each(reactor, |door, _| door.readiness());
        each.into_iter().min().unwrap_or(Readiness::Fully)
    }

    /// Returns what the doors that are not ready wait for, each with its name.
    pub(super) fn wait_for(&self, reactor: &mut Reactor<dyn Door>) -> String {
        let named = |open: &Open| {
            let wants = |door: &mut (dyn Door + 'static)| (door.readiness(), door.waits_for());
            let (readiness, what) = reactor.with(open.id, |door, _| wants(door))?;
            (readiness == Readiness::Waiting).then(|| format!("{}: {what}", open.options.name()))
        };
        self.open.iter().filter_map(named).collect::<Vec<_>>().join("; ")
    }

    /// Returns the longest time that the programs behind the doors may take until they serve.
    pub(super) fn start_timeout(&self) -> Duration {
        let timeouts = self.open.iter().filter_map(|open| open.options.start_timeout());
        timeouts.max().unwrap_or_default()
    }

    /// Returns duplicates of all listening sockets, for a successor.
    pub(super) fn offer(&self, reactor: &mut Reactor<dyn Door>) -> io::Result<Outgoing> {
        let mut outgoing = Outgoing::default();
        for open in &self.open {
            let name = open.options.name();
            let mut add = |door: &mut (dyn Door + 'static)| {
                let mut listeners = door.front().listening().iter();
                listeners.try_for_each(|(address, listener)| outgoing.add(name, address, listener))
            };
            reactor.with(open.id, |door, _| add(door)).unwrap_or(Ok(()))?;
        }
        for listener in self.inherited.rest() {
            outgoing.add("", &ListenAddr::Inherited(None), listener)?;
        }
        Ok(outgoing)
    }

    /// Returns the links that doors offer to a successor, with the names of the doors.
    pub(super) fn offer_links(&self, reactor: &mut Reactor<dyn Door>) -> Vec<(String, OwnedFd)> {
        let doors = self.open.iter().filter(|open| !open.leaving);
        doors
            .filter_map(|open| {
                let link = reactor.with(open.id, |door, cx| door.offer_link(cx))??;
                Some((open.options.name().to_owned(), link))
            })
            .collect()
    }

    /// Returns the number of workers of each door, for a successor.
    pub(super) fn places(&self, reactor: &mut Reactor<dyn Door>) -> Places {
        let doors = self.open.iter().filter(|open| !open.leaving);
        doors
            .filter_map(|open| {
                let places = reactor.with(open.id, |door, _| door.places())?;
                Some((open.options.name().to_owned(), places))
            })
            .collect()
    }

    /// Removes the doors that have finished. Returns true if none is left.
    pub(super) fn remove_finished(&mut self, reactor: &mut Reactor<dyn Door>) -> bool {
        self.open.retain(|open| {
            let finished = reactor.with(open.id, |door, _| door.is_finished()).unwrap_or(true);
            if finished {
                reactor.remove(open.id);
            }
            !finished
        });
        self.open.is_empty()
    }
}

/// Takes over the sockets of the service manager that the environment describes.
pub(super) fn inherited() -> Inherited {
    let variable = |name| std::env::var(name).ok();
    let (pid, fds, names) = (
        variable("LISTEN_PID"),
        variable("LISTEN_FDS"),
        variable("LISTEN_FDNAMES"),
    );
    let given = inherit::given(
        Variables {
            pid: pid.as_deref(),
            fds: fds.as_deref(),
            names: names.as_deref(),
        },
        std::process::id(),
    );
    Inherited::take_over(given)
}
