//! A client of an exec door, as small as the protocol allows: netstrings out, pairs of netstrings in.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use crate::harness::{Client, Daemon, TempDir, is_over_tls};

/// One connection.
pub(crate) struct ExecClient {
    client: Client,
}

/// The complete result of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// `exitcode` or `termsig`, and what it says.
    pub(crate) end: (String, String),
}

impl Outcome {
    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.end.0, "exitcode", "{self:?}");
        &self.end.1
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

pub(crate) fn netstring(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes, b","].concat()
}

/// The number of arguments, and the arguments.
pub(crate) fn request(arguments: &[&str]) -> Vec<u8> {
    let mut wire = netstring(arguments.len().to_string().as_bytes());
    wire.extend(arguments.iter().flat_map(|argument| netstring(argument.as_bytes())));
    wire
}

impl ExecClient {
    #[track_caller]
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let client = daemon.client();
        Self { client }
    }

    /// Another handle on the same UNIX socket, for a thread that sends.
    pub(crate) fn sender(&self) -> UnixStream {
        self.client.unix()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send(bytes);
    }

    pub(crate) fn half_close(&mut self) {
        self.client.half_close();
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        loop {
            match self.client.read(&mut byte) {
                Ok(read) => return (read == 1).then_some(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("read from the daemon: {error}"),
            }
        }
    }

    fn netstring(&mut self) -> Option<Vec<u8>> {
        let mut length = String::new();
        loop {
            match self.byte() {
                None if length.is_empty() => return None,
                Some(b':') => break,
                byte => length.push(byte.expect("a whole netstring").into()),
            }
        }
        let mut bytes = vec![0; length.parse().unwrap_or_else(|error| panic!("{length:?}: {error}"))];
        self.client.read_exact(&mut bytes).expect("a whole netstring");
        assert_eq!(self.byte(), Some(b','), "a netstring ends with a comma");
        Some(bytes)
    }

    /// The next pair; `None`: the daemon has closed.
    pub(crate) fn pair(&mut self) -> Option<(String, Vec<u8>)> {
        let kind = self.netstring()?;
        let data = self.netstring().expect("data behind a type");
        Some((String::from_utf8(kind).unwrap(), data))
    }

    /// Reads standard output until this text has come, and asserts that nothing else does.
    #[track_caller]
    pub(crate) fn wait_output(&mut self, text: &str) {
        let mut come = Vec::new();
        while come.len() < text.len() {
            let (kind, data) = self.pair().expect("output before the end");
            assert_eq!(kind, "stdout", "{}", String::from_utf8_lossy(&data));
            come.extend(data);
        }
        assert_eq!(String::from_utf8_lossy(&come), text);
    }

    /// Reads the first pair, which is output.
    #[track_caller]
    pub(crate) fn wait_output_begun(&mut self) {
        assert_eq!(self.pair().expect("output").0, "stdout");
    }

    /// Reads to the end: exactly one `exitcode` or `termsig`, nothing behind it, then the close.
    #[track_caller]
    pub(crate) fn outcome(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let (kind, data) = self
                .pair()
                .unwrap_or_else(|| panic!("closed without an end: {outcome:?}"));
            match kind.as_str() {
                "stdout" => outcome.stdout.extend(data),
                "stderr" => outcome.stderr.extend(data),
                "exitcode" | "termsig" => {
                    outcome.end = (kind, String::from_utf8(data).unwrap());
                    assert_eq!(self.pair(), None, "nothing comes behind the end");
                    return outcome;
                }
                other => panic!("a pair of type {other:?}"),
            }
        }
    }
}

/// An exec door on a UNIX socket of its own, or over TLS if the test runs over it.
#[track_caller]
pub(crate) fn door(flags: &[&str]) -> (Daemon, TempDir) {
    let directory = crate::harness::temp_dir();
    let address = address_in(&directory);
    let daemon = Daemon::with(["exec"]).args(flags).args(&[&address]).start();
    (daemon, directory)
}

/// The address of such a door.
pub(crate) fn address_in(directory: &TempDir) -> String {
    if is_over_tls() {
        "127.0.0.1:0".to_owned()
    } else {
        directory.path().join("exec.sock").display().to_string()
    }
}

/// Runs a program with this input.
#[track_caller]
pub(crate) fn run(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut client = ExecClient::connect(daemon);
    let mut wire = request(arguments);
    if !input.is_empty() {
        wire.extend(netstring(input));
    }
    wire.extend(b"0:,");
    client.send(wire);
    client.outcome()
}

#[track_caller]
pub(crate) fn sh(daemon: &Daemon, script: &str) -> Outcome {
    run(daemon, &["sh", "-c", script], b"")
}
