//! The things that services need on this machine besides their file: programs, directories and certificates.
//!
//! Only `check` looks for them. A daemon finds out when it starts the programs or reads the certificates, and not
//! earlier: a disk may be slow, and a program may be installed later.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::keys::Keys;
use super::report::Report;
use crate::config::lower::{self, KeyRef};
use crate::config::quote::Quoted;
use crate::config::spec::listen::TlsSpec;
use crate::doors::pool::options::Options;
use crate::doors::pool::squidguard;
use crate::doors::route::options::{Password, StoreSettings, StoreTls};
use crate::doors::tunnel::options::Options as TunnelOptions;
use crate::net::tls::Version;
use crate::net::tls::expiry::remark_on_end;
use crate::net::tls::files::{self, IdentityFiles};
use crate::process::spawn;
use crate::process::spec::ProcessSpec;

/// The extent of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Only things without which the settings have no meaning.
    Settings,
    /// The needs of the services as well.
    Needs,
}

/// The needs, each with the position of the setting.
#[derive(Debug, Default)]
pub(super) struct Needs {
    list: Vec<(usize, Need)>,
}

#[derive(Debug)]
enum Need {
    /// A program that must exist, with its key.
    Program(&'static str, Box<ProcessSpec>),
    /// The configuration of a pool's worker; it must exist if the worker is the default one.
    Configuration(Box<ProcessSpec>, WorkerChoice),
    /// The directory in which programs are started.
    Directory(PathBuf),
    /// A program that clients may run, which need not exist.
    Permitted(PathBuf),
    /// A certificate and its key.
    Identity(IdentityFiles),
    /// The authorities that clients must have their certificates from.
    Authorities(PathBuf),
    /// The files of TLS with a store.
    StoreTls(StoreTls),
    /// The password of a store.
    Password(Password),
}

/// The origin of a worker's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerChoice {
    /// The command is the default.
    Default,
    Operator,
}

impl Needs {
    /// Adds the configuration of a pool's worker, if the worker is known to read one.
    pub(super) fn add_configuration(&mut self, keys: &Keys<'_, '_>, options: &Options) {
        let choice = if options.has_default_worker {
            WorkerChoice::Default
        } else {
            WorkerChoice::Operator
        };
        let need = Need::Configuration(Box::new(options.process.clone()), choice);
        self.list.push((keys.place(KeyRef::key("daemon")), need));
    }

    /// Adds the program of a service or a command; `key` is its key.
    pub(super) fn add_process(&mut self, keys: &Keys<'_, '_>, key: &'static str, process: &ProcessSpec) {
        let need = Need::Program(key, Box::new(process.clone()));
        self.list.push((keys.place(KeyRef::key(key)), need));
    }

    /// Adds the directory in which programs are started, if it is set; an empty name was reported before.
    pub(super) fn add_directory(&mut self, keys: &Keys<'_, '_>, chdir: Option<&str>) {
        if let Some(directory) = chdir.filter(|name| !name.is_empty()) {
            let place = keys.place(KeyRef::key("chdir"));
            self.list.push((place, Need::Directory(directory.into())));
        }
    }

    /// Adds the certificates of the listeners, and those of the authorities of clients. Nothing is added if their settings have a mistake, which was reported.
    pub(super) fn add_identities(&mut self, keys: &Keys<'_, '_>, spec: &TlsSpec) {
        for (index, files) in lower::identities_of(spec).into_iter().enumerate() {
            let place = keys.place(KeyRef::element("cert", index));
            self.list.push((place, Need::Identity(files)));
        }
        if let Some(file) = lower::authorities_of(spec) {
            let place = keys.place(KeyRef::key("client-ca"));
            self.list.push((place, Need::Authorities(file)));
        }
    }

    /// Adds the files by which a store is reached.
    pub(super) fn add_store(&mut self, keys: &Keys<'_, '_>, store: &StoreSettings) {
        if let Some(tls) = &store.place.tls {
            self.list
                .push((keys.place(KeyRef::key("tls")), Need::StoreTls(tls.clone())));
        }
        if let Some(password) = &store.place.password {
            let place = keys.place(KeyRef::key("password-file"));
            self.list.push((place, Need::Password(password.clone())));
        }
    }

    /// Adds the files of a tunnel door: that of its secret, and those of TLS with its servers.
    pub(super) fn add_tunnel(&mut self, keys: &Keys<'_, '_>, options: &TunnelOptions) {
        let place = keys.place(KeyRef::key("secret-file"));
        self.list.push((place, Need::Password(options.secret.clone())));
        if options.remotes.iter().any(|remote| remote.name.is_some()) {
            let tls = StoreTls {
                authorities: options.authorities.clone(),
                identity: options.identity.clone(),
            };
            self.list.push((keys.place(KeyRef::key("remote")), Need::StoreTls(tls)));
        }
    }

    /// Adds those of TLS that ends at a route door, all at the position of their one setting.
    pub(super) fn add_identities_at(&mut self, place: usize, spec: &TlsSpec) {
        let identities = lower::identities_of(spec).into_iter().map(Need::Identity);
        let authorities = lower::authorities_of(spec).map(Need::Authorities);
        self.list
            .extend(identities.chain(authorities).map(|need| (place, need)));
    }

    /// Adds a list of programs that clients may run. Patterns need nothing.
    pub(super) fn add_permitted(&mut self, keys: &Keys<'_, '_>, patterns: &[String]) {
        let written_out = |text: &&String| text.starts_with('/') && !text.contains(['*', '?', '[']);
        for (index, text) in patterns.iter().enumerate().filter(|(_, text)| written_out(text)) {
            let place = keys.place(KeyRef::element("allow-program", index));
            self.list.push((place, Need::Permitted(text.into())));
        }
    }

    /// Checks that everything exists, and reports what is missing.
    pub(super) fn check(self, report: &mut Report<'_>) {
        for (place, need) in self.list {
            match need {
                Need::Program(key, process) => {
                    if let Err(error) = spawn::look_up(&process) {
                        report.add(place, format!("{key}: {error}"));
                    }
                }
                Need::Configuration(process, choice) => {
                    let Some(lack) = squidguard::look(&process) else {
                        continue;
                    };
                    match choice {
                        WorkerChoice::Default => {
                            let text =
                                format!("daemon: the default worker is of no use: {lack}; say which program to run");
                            report.add(place, text);
                        }
                        WorkerChoice::Operator => report.add_ignored(place, || format!("daemon: {lack}")),
                    }
                }
                Need::Directory(path) if !path.is_dir() => {
                    let text = format!("chdir: {} is no directory; make it, or name another", quoted(&path));
                    report.add(place, text);
                }
                Need::Permitted(path) if !path.exists() => {
                    let text = format!("allow-program: there is no {}; nobody can run it yet", quoted(&path));
                    report.add_ignored(place, || text);
                }
                Need::Directory(_) | Need::Permitted(_) => {}
                Need::Identity(files) => check_identity(place, files, report),
                Need::StoreTls(StoreTls { authorities, identity }) => {
                    let read = files::read_client(authorities.as_deref(), identity.as_ref(), SystemTime::now());
                    for error in read.err().into_iter().flatten() {
                        report.add(place, format!("tls: {error}"));
                    }
                }
                Need::Password(password) => {
                    if let Err(error) = password.read() {
                        report.add(place, format!("password-file: {error}"));
                    }
                }
                Need::Authorities(file) => {
                    if let Err(error) = files::read_authorities(&file) {
                        report.add(place, format!("client-ca: {error}"));
                    }
                }
            }
        }
    }
}

/// Reads a certificate and its key. A certificate that ends soon, and a key that others can read, are no mistakes.
fn check_identity(place: usize, files: IdentityFiles, report: &mut Report<'_>) {
    let now = SystemTime::now();
    match files::read_server(&[files], Version::V1_2, None, None, now) {
        Ok((server, remarks)) => {
            let on_ends = server.identities().filter_map(|identity| remark_on_end(identity, now));
            for remark in remarks.into_iter().chain(on_ends) {
                report.add_ignored(place, || format!("cert: {}", remark.text));
            }
        }
        Err(errors) => {
            for error in errors {
                report.add(place, format!("cert: {error}"));
            }
        }
    }
}

fn quoted(path: &Path) -> String {
    Quoted(&path.to_string_lossy()).to_string()
}
