//! What services need of this machine beside their file: programs and directories.
//!
//! Whether they are there is asked by `check` alone. Who runs the services finds out when it starts them, and not before: a
//! disk may be slow, and a program may come.

use std::path::{Path, PathBuf};

use super::keys::Keys;
use super::report::Report;
use crate::config::lower::Origin;
use crate::config::quote::Quoted;
use crate::doors::pool::options::Options;
use crate::doors::pool::squidguard;
use crate::process::spawn;
use crate::process::spec::ProcessSpec;

/// What is looked at beside the file itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// Nothing that is not needed to know what it means.
    No,
    /// What the services need.
    AtNeeds,
}

/// What they need, each with the place where that is said.
#[derive(Debug, Default)]
pub(super) struct Needs {
    list: Vec<(usize, Need)>,
}

#[derive(Debug)]
enum Need {
    /// By that key. It has to be there.
    Program(&'static str, Box<ProcessSpec>),
    /// The configuration of a pool's worker; it has to be there where that is the default one.
    Configuration(Box<ProcessSpec>, Whose),
    /// Where programs are to be started.
    Directory(PathBuf),
    /// One that may be run, but does not have to.
    Permitted(PathBuf),
}

/// Who has chosen a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Nobody: it is the default.
    Nobodys,
    TheOperators,
}

impl Needs {
    /// Of a pool whose worker is known to read a file.
    pub(super) fn add_configuration(&mut self, keys: &Keys<'_, '_>, options: &Options) {
        let whose = if options.has_default_worker {
            Whose::Nobodys
        } else {
            Whose::TheOperators
        };
        let need = Need::Configuration(Box::new(options.process.clone()), whose);
        self.list.push((keys.place(Origin::key("daemon")), need));
    }

    /// Of a service, or a command, that runs one program, which `key` names.
    pub(super) fn add_process(&mut self, keys: &Keys<'_, '_>, key: &'static str, process: &ProcessSpec) {
        let need = Need::Program(key, Box::new(process.clone()));
        self.list.push((keys.place(Origin::key(key)), need));
    }

    /// Of where programs are started, if that is said; one without a name has been told already.
    pub(super) fn add_directory(&mut self, keys: &Keys<'_, '_>, chdir: Option<&str>) {
        if let Some(directory) = chdir.filter(|name| !name.is_empty()) {
            let place = keys.place(Origin::key("chdir"));
            self.list.push((place, Need::Directory(directory.into())));
        }
    }

    /// Of a list of programs that clients may choose from. Those that are patterns need nothing.
    pub(super) fn add_permitted(&mut self, keys: &Keys<'_, '_>, patterns: &[String]) {
        let written_out = |text: &&String| text.starts_with('/') && !text.contains(['*', '?', '[']);
        for (index, text) in patterns.iter().enumerate().filter(|(_, text)| written_out(text)) {
            let place = keys.place(Origin::element("allow-program", index));
            self.list.push((place, Need::Permitted(text.into())));
        }
    }

    /// Looks whether all of it is there.
    pub(super) fn look(self, report: &mut Report<'_>) {
        for (place, need) in self.list {
            match need {
                Need::Program(key, process) => {
                    if let Err(error) = spawn::look_up(&process) {
                        report.add(place, format!("{key}: {error}"));
                    }
                }
                Need::Configuration(process, whose) => {
                    let Some(lack) = squidguard::look(&process) else {
                        continue;
                    };
                    match whose {
                        Whose::Nobodys => {
                            let text =
                                format!("daemon: the default worker is of no use: {lack}; say which program to run");
                            report.add(place, text);
                        }
                        Whose::TheOperators => report.add_passed_over(place, || format!("daemon: {lack}")),
                    }
                }
                Need::Directory(path) if !path.is_dir() => {
                    let text = format!("chdir: {} is no directory; make it, or name another", quoted(&path));
                    report.add(place, text);
                }
                Need::Permitted(path) if !path.exists() => {
                    let text = format!("allow-program: there is no {}; nobody can run it yet", quoted(&path));
                    report.add_passed_over(place, || text);
                }
                Need::Directory(_) | Need::Permitted(_) => {}
            }
        }
    }
}

fn quoted(path: &Path) -> String {
    Quoted(&path.to_string_lossy()).to_string()
}
