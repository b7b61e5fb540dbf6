//! A Redis as a store: its connections, and the few commands that are needed.
//!
//! The crate `redis` speaks the protocol, by its blocking client. Nothing of it is seen outside of this file, and two
//! of its ways are not taken: a pipeline of it waits for each answer although the first one was late, and it reads
//! values of any length. Here the first error ends a connection, and of a value no more is asked for than an entry may
//! have.
//!
//! Each wait has a time-out of its own, but for two in the system: the look-up of a host, and a connection to a UNIX
//! socket whose queue is full. So all of this is for threads that are not waited for.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{
    Client, ClientTlsConfig, Cmd, Connection, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    Pipeline, PubSub, RedisConnectionInfo, RedisError, ServerError, TlsCertificates, Value, cmd, from_redis_value,
};

use super::entry::{Entry, LONGEST_VALUE};
use super::faults::Faults;
use super::key::{self, Key};
use super::place::{Place, StoreTls};
use super::reading::{MOST, Reading};
use crate::error::error_text;
use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::tls::error::Fault;
use crate::net::tls::{files, provider};

/// The longest time for a connection, each of several addresses of a host counted alone, and for its beginning: the
/// handshake of TLS and the password.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for bytes of an answer, and for room for those of a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait for a notification after which it is asked if any is wanted.
const LISTEN_TIMEOUT: Duration = Duration::from_millis(500);
/// A silent connection is tested after this time, and then as often, three times.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The number of keys that Redis looks at for one answer to SCAN.
const KEYS_A_SCAN: usize = 1_000;
/// The longest text of an error that is shown, in characters.
const LONGEST_TEXT: usize = 200;

/// The events that a Redis must notify of: of the names of keys (K), with commands for all types (g) and for texts ($),
/// and with keys that expire (x) or are evicted (e).
const EVENTS: &str = "Kg$xe";
/// The sign for all commands and events at once.
const ALL_EVENTS: char = 'A';

/// The reason for which a store cannot be used. It prints a sentence about "it", the store, and has no secret.
#[derive(Debug, Clone)]
pub struct Failure(String);

impl Failure {
    /// A failure in these words.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Failure(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Failure {}

/// The form in which the crate keeps the cause of an error.
type Cause = Arc<dyn Error + Send + Sync>;

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let cause = error.source().and_then(|source| source.downcast_ref::<Cause>());
        if let Some(error) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            return Failure(match (tls, error.kind()) {
                (Some(error), _) => Fault::from(error.clone()).to_string(),
                (None, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => "it does not answer in time".to_owned(),
                (None, io::ErrorKind::UnexpectedEof) => "it has closed the connection".to_owned(),
                (None, _) => error_text(error),
            });
        }
        Failure(format!("it answers: {}", shortened(&error.to_string())))
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Failure(format!("it answers: {}", said(&error)))
    }
}

/// Returns the words of an answer that is an error.
fn said(error: &ServerError) -> String {
    shortened(&format!("{} {}", error.code(), error.details().unwrap_or_default()))
}

fn shortened(text: &str) -> String {
    let shown: String = text.trim().chars().take(LONGEST_TEXT).collect();
    shown.escape_debug().to_string()
}

/// The value of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such key.
    Nothing,
    /// The value, or as much of it as shows that it is too long for an entry.
    Value(Vec<u8>),
    /// The value is of another type than a text.
    NoText,
    /// The value may not be read, in these words of the store.
    Refused(String),
}

/// The outcome of asking for notifications.
#[derive(Debug, PartialEq, Eq)]
pub enum Notifications {
    /// They are switched on.
    On,
    /// The store does not let its settings be read or changed, in these words.
    Refused(String),
}

/// A connection for commands. The first error makes it useless.
pub struct Redis {
    connection: Connection,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// Connects to a store. Blocks.
    ///
    /// # Errors
    /// The store cannot be reached, or does not let this client in; or a file of its settings is of no use.
    pub fn connect(place: &Place) -> Result<Redis, Failure> {
        let connection = connect(place)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Redis { connection })
    }

    /// Switches on the notifications that are needed. Others stay on.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn ask_for_notifications(&mut self) -> Result<Notifications, Failure> {
        const NAME: &str = "notify-keyspace-events";
        let (name, present): (String, String) = match self.ask(cmd("CONFIG").arg("GET").arg(NAME))? {
            Ok(value) => match read(value) {
                Ok(pair) => pair,
                // It has no setting of that name.
                Err(_) => return Ok(Notifications::Refused(format!("it has no setting {NAME}"))),
            },
            Err(error) => return Ok(Notifications::Refused(said(&error))),
        };
        let Some(wanted) = with_events(&present) else {
            return Ok(Notifications::On);
        };
        match self.ask(cmd("CONFIG").arg("SET").arg(name).arg(wanted))? {
            Ok(_) => Ok(Notifications::On),
            Err(error) => Ok(Notifications::Refused(said(&error))),
        }
    }

    /// Returns some of the keys that may be those of services, and the cursor for the next ones, which is 0 at the end.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn scan(&mut self, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), Failure> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(key::PATTERN);
        scan.arg("COUNT").arg(KEYS_A_SCAN);
        read(self.ask(&scan)??)
    }

    /// Returns the values of these keys, in their order.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn read(&mut self, keys: &[Key]) -> Result<Vec<Found>, Failure> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_A_SCAN) {
            all.extend(self.read_some(keys)?);
        }
        Ok(all)
    }

    /// Reads the values of these keys into a reading.
    ///
    /// # Errors
    /// The connection has failed; some of the keys may have been read.
    pub fn read_into(
        &mut self,
        keys: Vec<Key>,
        reading: &mut Reading,
        faults: &mut Faults<Key>,
    ) -> Result<(), Failure> {
        let found = self.read(&keys)?;
        for (key, found) in keys.into_iter().zip(found) {
            let entry = match found {
                Found::Nothing => {
                    reading.remove(&key);
                    continue;
                }
                Found::Value(value) => Entry::read(key.label(), &value).map_err(|fault| fault.to_string()),
                Found::NoText => Err("it is no text (string)".to_owned()),
                Found::Refused(why) => Err(format!("it may not be read ({why})")),
            };
            match entry {
                Ok(entry) => {
                    if !reading.put(key.clone(), entry) {
                        faults.note(key, format_args!("the store has more than {MOST} entries"));
                    }
                }
                Err(fault) => {
                    reading.remove(&key);
                    faults.note(key, fault);
                }
            }
        }
        Ok(())
    }

    /// Returns the keys of all services.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn keys(&mut self) -> Result<BTreeSet<Key>, Failure> {
        let mut keys = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let (next, some) = self.scan(cursor)?;
            keys.extend(some.iter().filter_map(|key| Key::parse(key)));
            if next == 0 {
                return Ok(keys);
            }
            cursor = next;
        }
    }

    /// Writes values under their keys.
    ///
    /// # Errors
    /// The connection has failed, or the store takes a value no more; some of them may have been written.
    pub fn set(&mut self, pairs: &[(String, String)]) -> Result<(), Failure> {
        for pairs in pairs.chunks(KEYS_A_SCAN) {
            let mut commands = Pipeline::with_capacity(pairs.len());
            for (key, value) in pairs {
                commands.cmd("SET").arg(key).arg(value);
            }
            accept(self.ask_all(&commands)?)?;
        }
        Ok(())
    }

    /// Removes keys.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn delete(&mut self, keys: &[Key]) -> Result<(), Failure> {
        for keys in keys.chunks(KEYS_A_SCAN) {
            let mut commands = Pipeline::with_capacity(keys.len());
            for key in keys {
                commands.cmd("DEL").arg(key.as_bytes());
            }
            accept(self.ask_all(&commands)?)?;
        }
        Ok(())
    }

    fn read_some(&mut self, keys: &[Key]) -> Result<Vec<Found>, Failure> {
        let mut commands = Pipeline::with_capacity(keys.len());
        for key in keys {
            // Both ends are included: one byte more than an entry may have.
            commands.cmd("GETRANGE").arg(key.as_bytes()).arg(0).arg(LONGEST_VALUE);
        }
        let mut found = Vec::with_capacity(keys.len());
        for value in self.ask_all(&commands)? {
            found.push(match value {
                Value::BulkString(value) if value.is_empty() => Found::Nothing,
                Value::BulkString(value) => Found::Value(value),
                Value::ServerError(error) if error.code() == "WRONGTYPE" => Found::NoText,
                Value::ServerError(error) if error.code() == "NOPERM" => Found::Refused(said(&error)),
                Value::ServerError(error) => return Err(error.into()),
                _ => return Err(Failure::new("it answers something else to GETRANGE than a text")),
            });
        }
        self.tell_empty_from_missing(keys, &mut found)?;
        Ok(found)
    }

    /// GETRANGE answers the same for a key with an empty value and for one that is not there.
    fn tell_empty_from_missing(&mut self, keys: &[Key], found: &mut [Found]) -> Result<(), Failure> {
        let mut commands = Pipeline::new();
        let mut places: Vec<&mut Found> = Vec::new();
        for (key, found) in keys.iter().zip(found).filter(|(_, found)| **found == Found::Nothing) {
            commands.cmd("EXISTS").arg(key.as_bytes());
            places.push(found);
        }
        for (place, value) in places.into_iter().zip(self.ask_all(&commands)?) {
            if value == Value::Int(1) {
                *place = Found::Value(Vec::new());
            }
        }
        Ok(())
    }

    /// Sends a command, and returns its answer: a value, or an error of the store.
    fn ask(&mut self, command: &Cmd) -> Result<Result<Value, ServerError>, Failure> {
        self.connection.send_packed_command(&command.get_packed_command())?;
        Ok(match self.connection.recv_response()? {
            Value::ServerError(error) => Err(error),
            value => Ok(value),
        })
    }

    /// Sends several commands at once, and returns their answers.
    fn ask_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.connection.send_packed_command(&commands.get_packed_pipeline())?;
        let mut answers = Vec::with_capacity(commands.len());
        for _ in 0..commands.len() {
            answers.push(self.connection.recv_response()?);
        }
        Ok(answers)
    }
}

/// Returns the setting that has the events which are needed beside these, or `None` if they are all there.
fn with_events(present: &str) -> Option<String> {
    let is_there = |event: &char| present.contains(*event) || (*event != 'K' && present.contains(ALL_EVENTS));
    let missing: String = EVENTS.chars().filter(|event| !is_there(event)).collect();
    (!missing.is_empty()).then(|| format!("{present}{missing}"))
}

/// Returns the first of several answers that is an error.
fn accept(answers: Vec<Value>) -> Result<(), Failure> {
    for answer in answers {
        if let Value::ServerError(error) = answer {
            return Err(error.into());
        }
    }
    Ok(())
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    from_redis_value(value).map_err(|_| Failure::new("it answers something that is not expected"))
}

/// A connection for notifications.
pub(super) struct Subscription {
    connection: Connection,
    pattern: String,
}

/// The outcome of a wish to listen.
pub(super) enum Listening<'a> {
    To(Notices<'a>),
    /// The store does not permit it.
    Refused(Failure),
}

/// The notifications of changes.
pub(super) struct Notices<'a> {
    messages: PubSub<'a>,
}

impl Subscription {
    /// Connects as [`Redis::connect`] does.
    ///
    /// # Errors
    /// See there.
    pub(super) fn connect(place: &Place) -> Result<Subscription, Failure> {
        let connection = connect(place)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let pattern = key::channels(place.database);
        Ok(Subscription { connection, pattern })
    }

    /// Begins to listen to changes of the keys of services.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) fn listen(&mut self) -> Result<Listening<'_>, Failure> {
        // By hand, for the crate takes an error for the confirmation.
        let subscribe = cmd("PSUBSCRIBE").arg(&self.pattern).get_packed_command();
        self.connection.send_packed_command(&subscribe)?;
        if let Value::ServerError(error) = self.connection.recv_response()? {
            return Ok(Listening::Refused(error.into()));
        }
        let messages = self.connection.as_pubsub();
        messages.set_read_timeout(Some(LISTEN_TIMEOUT))?;
        Ok(Listening::To(Notices { messages }))
    }
}

impl Notices<'_> {
    /// Waits for the next change for a moment, and returns its key.
    ///
    /// # Errors
    /// The connection has failed.
    pub(super) fn next(&mut self) -> Result<Option<Key>, Failure> {
        match self.messages.get_message() {
            Ok(message) => Ok(message
                .get_channel::<Vec<u8>>()
                .ok()
                .and_then(|name| Key::of_channel(&name))),
            Err(error) if error.is_timeout() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Connects to a store, and tells it who is there.
fn connect(place: &Place) -> Result<Connection, Failure> {
    let mut settings = RedisConnectionInfo::default()
        .set_db(i64::from(place.database))
        .set_skip_set_lib_name();
    if let Some(user) = &place.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &place.password {
        let password = password.read().map_err(Failure)?;
        settings = settings.set_password(password.reveal());
    }
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(3);
    let info = address(place)
        .into_connection_info()?
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive));
    let client = match &place.tls {
        Some(tls) => client_with_tls(info, tls)?,
        None => Client::open(info)?,
    };
    Ok(client.get_connection_with_timeout(CONNECT_TIMEOUT)?)
}

fn address(place: &Place) -> ConnectionAddr {
    match (&place.address, &place.tls) {
        (ConnectAddr::Unix(UnixAddr::Path(path)), _) => ConnectionAddr::Unix(path.clone()),
        // The settings have none, and no file has such a name.
        (ConnectAddr::Unix(UnixAddr::Abstract(_)), _) => ConnectionAddr::Unix("".into()),
        (ConnectAddr::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
        (ConnectAddr::Tcp { host, port }, Some(_)) => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        },
    }
}

/// Reads the files of TLS. They are judged as those of every other client of this program, whose words are better.
fn client_with_tls(info: ConnectionInfo, tls: &StoreTls) -> Result<Client, Failure> {
    let StoreTls { authorities, identity } = tls;
    let wrong = |errors: Vec<files::FileError>| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure(errors.join("; "))
    };
    files::read_client(authorities.as_deref(), identity.as_ref(), SystemTime::now()).map_err(wrong)?;
    provider::serve_as_default();
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())));
    let client_tls = match identity {
        Some(identity) => Some(ClientTlsConfig {
            client_cert: bytes(&identity.certificate)?,
            client_key: bytes(&identity.key)?,
        }),
        None => None,
    };
    let root_cert = authorities.as_deref().map(bytes).transpose()?;
    Ok(Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_that_are_on_stay_on() {
        for (present, wanted) in [
            ("", Some("Kg$xe")),
            ("AKE", None),
            ("KA", None),
            ("AE", Some("AEK")),
            ("Elg", Some("ElgK$xe")),
            ("eKx$g", None),
        ] {
            assert_eq!(with_events(present).as_deref(), wanted, "{present:?}");
        }
    }

    #[test]
    fn the_words_of_a_failure_are_short_and_have_no_control_characters() {
        let error = RedisError::from((::redis::ErrorKind::Client, "bad", "\u{1b}[31m".repeat(100)));
        let told = Failure::from(error).to_string();
        assert!(told.len() < 2_000 && !told.contains('\u{1b}'), "{told}");
        let timeout = RedisError::from(io::Error::from(io::ErrorKind::WouldBlock));
        assert_eq!(Failure::from(timeout).to_string(), "it does not answer in time");
    }
}
