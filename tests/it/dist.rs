//! The files of `dist` for supervisors, and their text in the manual: the commands are understood, and
//! `systemd-analyze` has nothing to say about the units.
//!
//! Under a systemd that runs they are tried by `scripts/test-systemd`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{TempDir, temp_dir};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
/// The indentation of text in the manual that is meant to be copied.
const INDENT: &str = "     ";

fn units() -> Vec<PathBuf> {
    let listed = fs::read_dir(Path::new(SOURCE).join("dist/systemd")).unwrap();
    let paths = listed.map(|entry| entry.unwrap().path());
    paths.filter(|path| is_unit(path)).collect()
}

fn is_unit(path: &Path) -> bool {
    path.extension()
        .is_some_and(|kind| ["service", "socket"].contains(&kind.to_str().unwrap()))
}

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(SOURCE).join("dist/systemd").join(name)).unwrap()
}

/// The manual as it is read.
fn manual() -> String {
    let page = Path::new(SOURCE).join("man/iotcpd.1");
    let run = Command::new("mandoc").args(["-T", "ascii"]).arg(page).output();
    let run = run.unwrap_or_else(|error| panic!("cannot run mandoc: {error} (scripts/install-peers installs it)"));
    let mut read = String::new();
    for character in String::from_utf8(run.stdout).unwrap().chars() {
        // Bold and underlined is what is printed twice.
        match character {
            '\u{8}' => drop(read.pop()),
            _ => read.push(character),
        }
    }
    read
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("{INDENT}{line}\n"),
        })
        .collect()
}

/// A machine, as far as its units see it.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(temp_dir());
        let of_systemd = "usr/lib/systemd/system";
        fs::create_dir_all(tree.path("usr/lib/systemd")).unwrap();
        let copied = Command::new("cp")
            .args(["-r", "--no-dereference", &format!("/{of_systemd}")])
            .arg(tree.path(of_systemd))
            .output()
            .unwrap();
        assert!(
            copied.status.success(),
            "no units of systemd (scripts/install-peers installs it): {copied:?}"
        );
        std::os::unix::fs::symlink("usr/lib", tree.path("lib")).unwrap();
        for program in ["usr/local/bin/iotcpd", "usr/bin/kill", "bin/sh"] {
            tree.write(program, "");
            fs::set_permissions(tree.path(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn install(&self, name: &str, text: &str) {
        self.write(&format!("etc/systemd/system/{name}"), text);
    }

    fn analyze(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg("--root").arg(self.0.path());
        // The tests themselves may run under a systemd.
        let run = command.env_remove("NOTIFY_SOCKET").env("SYSTEMD_COLORS", "0").output();
        run.unwrap_or_else(|error| panic!("cannot run systemd-analyze: {error} (scripts/install-peers installs it)"))
    }

    /// The faults of a unit.
    fn complaints(&self, name: &str) -> String {
        let run = self.analyze(&["verify", "--man=no", name]);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.success(), said.is_empty(), "{name}: {run:?}");
        said
    }
}

/// A template is looked at as one of its instances.
fn instance(name: &str) -> String {
    name.replace("@.", "@mail.")
}

#[test]
fn nothing_is_wrong_with_any_unit() {
    let tree = Tree::new();
    let units = units();
    assert_eq!(units.len(), 7, "{units:?}");
    for path in &units {
        tree.install(name_of(path), &fs::read_to_string(path).unwrap());
    }
    for path in &units {
        assert_eq!(tree.complaints(&instance(name_of(path))), "");
    }
    // It would be told.
    fs::remove_file(tree.path("usr/local/bin/iotcpd")).unwrap();
    let said = tree.complaints("iotcpd.service");
    assert!(said.contains("/usr/local/bin/iotcpd"), "{said}");
}

#[test]
fn the_files_in_the_manual_are_the_installed_ones() {
    let (manual, tree) = (manual(), Tree::new());
    for name in ["iotcpd.service", "iotcpd.socket"] {
        let shown = indented(&unit(name));
        assert!(manual.contains(&shown), "the manual does not show\n{shown}");
        tree.install(name, &shown);
    }
    // With the blanks of a careless copy.
    for name in ["iotcpd.service", "iotcpd.socket"] {
        assert_eq!(tree.complaints(name), "");
    }
}

/// Every file below a directory, by its path in the source.
fn files(directory: &str) -> Vec<String> {
    let listed = fs::read_dir(Path::new(SOURCE).join(directory)).unwrap();
    let entries = listed.map(|entry| entry.unwrap());
    let paths = entries.flat_map(|entry| {
        let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => files(&path),
            false => vec![path],
        }
    });
    paths.collect()
}

#[test]
fn the_manual_names_every_file() {
    let manual = manual();
    for path in files("dist") {
        let told = path.strip_prefix("dist/systemd/").unwrap_or(&path);
        assert!(manual.contains(told), "{path}");
    }
}

#[test]
fn every_command_is_understood() {
    for path in files("dist") {
        let text = fs::read_to_string(Path::new(SOURCE).join(&path)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with(['#', ';']));
        let commands = lines.filter_map(|line| match line.split_once("/usr/local/bin/iotcpd ") {
            Some((_, words)) => Some(words),
            None => line.strip_prefix("command_args=\"")?.strip_suffix('"'),
        });
        let mut understood = 0;
        for words in commands {
            let words = format!("iotcpd {words}");
            let words = shell_words::split(&words).unwrap();
            if let Err(error) = iotcpd::internals::cli::command().try_get_matches_from(words) {
                panic!("{path}: {error}");
            }
            understood += 1;
        }
        let has_none = [".socket", ".sysusers", ".toml", "/finish"]
            .iter()
            .any(|end| path.ends_with(end));
        assert_eq!(understood == 0, has_none, "{path}");
    }
}

#[test]
fn the_file_that_the_service_reads_has_no_mistake() {
    let text = fs::read(Path::new(SOURCE).join("dist/iotcpd.toml")).unwrap();
    let services =
        iotcpd::internals::config::file::read("dist/iotcpd.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(services.iter().map(|it| it.name()).collect::<Vec<_>>(), ["ads"]);
}

/// The damage that a service can do when it is taken over, on the scale of systemd-analyze from 0 to 10.
#[test]
fn the_services_are_shielded() {
    let tree = Tree::new();
    let units = units();
    for path in &units {
        tree.install(name_of(path), &fs::read_to_string(path).unwrap());
    }
    for path in units.iter().filter(|path| path.extension().unwrap() == "service") {
        let name = instance(name_of(path));
        let run = tree.analyze(&["security", "--offline=true", "--threshold=25", "--no-pager", &name]);
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{name}: more than 2.5\n{said}");
    }
}

/// Says for every service what its neighbour in the manual says, where there is no reason to differ.
#[test]
fn all_units_have_the_same_hardening() {
    let shields = |text: &str| {
        let (_, shields) = text.split_once("\nProtectHome=").unwrap();
        let (shields, _) = shields.split_once("\n[Install]").unwrap();
        let kept = shields.lines().filter(|line| !line.starts_with('#'));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = shields(&unit("iotcpd.service"));
    assert!(first.len() > 15, "{first:?}");
    for name in ["iotcpd@.service", "iotcpd-exec.service", "iotcpd-command.service"] {
        assert_eq!(shields(&unit(name)), first, "{name}");
    }
}
