//! Debian's redis-server as the store of a route door, with its files in a directory of its own, and redis-cli.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Program, TempDir, free_port, temp_dir};

/// A server on a port of 127.0.0.1, which can be killed and started again there.
pub(crate) struct RedisServer {
    program: Option<Program>,
    home: TempDir,
    pub(crate) port: u16,
    /// The flags by which redis-cli reaches it.
    pub(crate) flags: Vec<String>,
}

impl RedisServer {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With these lines in its configuration.
    #[track_caller]
    pub(crate) fn with(lines: &str) -> Self {
        let (home, port) = (temp_dir(), free_port());
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nappendonly no\ndaemonize no\nlogfile \"\"\n{lines}\n",
            home.path().display()
        );
        fs::write(home.path().join("redis.conf"), text).expect("write a file");
        let flags = vec!["-p".to_owned(), port.to_string()];
        let mut server = Self {
            program: None,
            home,
            port,
            flags,
        };
        server.start_again();
        server
    }

    /// With TLS alone at its port, and these files.
    #[track_caller]
    pub(crate) fn with_tls(cert: &str, key: &str, lines: &str) -> Self {
        let tls = |port| {
            format!(
                "port 0\ntls-port {port}\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {cert}\n{lines}"
            )
        };
        let mut server = Self::with("");
        server.kill();
        let path = server.path("redis.conf");
        let mut text = fs::read_to_string(&path).expect("read a file");
        write!(text, "{}", tls(server.port)).expect("a string");
        fs::write(&path, text).expect("write a file");
        server.start_again();
        server
    }

    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.home.path().join(name);
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// Starts it at its port, and waits until it serves.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let program = Program::start(Command::new("redis-server").arg(self.path("redis.conf")));
        let ready = program
            .stdout
            .wait_from(0, |line| line.contains("Ready to accept connections"));
        if let Err(why) = ready {
            program.fail(&why);
        }
        self.program = Some(program);
    }

    /// Kills it; its data is what it has saved.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        if let Some(program) = self.program.take() {
            program.signal(Signal::SIGKILL);
            program.wait_exit();
        }
    }

    pub(crate) fn forget_data(&self) {
        let dump = self.home.path().join("dump.rdb");
        if Path::new(&dump).exists() {
            fs::remove_file(dump).expect("remove a file");
        }
    }

    /// The program, to be stopped and continued.
    pub(crate) fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    /// Runs redis-cli with these words, and returns its output without the last line feed.
    #[track_caller]
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        let program = Program::start(Command::new("redis-cli").args(&self.flags).args(words));
        let (status, output, errors) = program.finish();
        assert!(status.success() && !output.starts_with("ERR"), "{output}{errors}");
        output.trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    pub(crate) fn set(&self, key: &str, value: &str) {
        assert_eq!(self.cli(&["SET", key, value]), "OK");
    }

    /// Sends many commands at once, each a line.
    #[track_caller]
    pub(crate) fn send_all(&self, commands: &str) {
        let mut program = Program::start(Command::new("redis-cli").args(&self.flags).arg("--pipe"));
        let mut stdin = program.stdin.take().expect("a pipe");
        stdin.write_all(commands.as_bytes()).expect("send");
        drop(stdin);
        let (status, output, errors) = program.finish();
        assert!(status.success() && output.contains("errors: 0"), "{output}{errors}");
    }
}
