//! The whole of `ask` against real sockets: a pool of one thread per connection, standard streams made of pipes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::super::stdio;
use super::*;
use crate::client::TlsOptions;
use crate::net::addr::{Connect, ConnectAddr};

/// Longer than any test takes: a run that ends in time ends for another reason.
const LONG: Duration = Duration::from_secs(600);
/// For runs that are to reach their time-out.
const SHORT: Duration = Duration::from_millis(50);

/// The behaviour of a scripted pool for one question.
type Script = fn(&[u8], &mut TcpStream);

fn echo(question: &[u8], client: &mut TcpStream) {
    client.write_all(&[b"re ", question, b"\n"].concat()).unwrap();
}

/// Starts a pool that serves until the process of the test ends, on a port of its own.
fn pool(script: Script) -> Connect {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            thread::spawn(move || answer_one(client.unwrap(), script));
        }
    });
    address
}

fn answer_one(client: TcpStream, script: Script) {
    let mut reader = BufReader::new(client);
    let mut question = Vec::new();
    // A client that was killed or has given up is no failure of the pool.
    if reader.read_until(b'\n', &mut question).is_ok() {
        assert_eq!(question.pop(), Some(b'\n'), "every question ends in a LF");
        script(&question, reader.get_mut());
    }
}

/// Returns an address on which nothing listens.
fn unused_port() -> Connect {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

fn hang(_: &[u8], client: &mut TcpStream) {
    // Ends when the asker gives up and resets the connection, which is an error here.
    let _ = client.read(&mut [0]);
}

fn options(mode: Mode, timeout: Duration, addresses: &[Connect]) -> Options {
    Options {
        addresses: addresses.to_vec(),
        tls: TlsOptions::default(),
        mode,
        timeout,
        channel_ids: ChannelIds::Auto,
        on_failure: b"ERR".to_vec(),
        on_contradiction: b"BH".to_vec(),
        privacy: Privacy::Public,
        connections: 1,
        max_connection_age: None,
    }
}

/// The other end of standard output.
#[derive(Debug)]
struct Output(mpsc::Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Streams that threads read and write.
fn streams(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
) -> impl FnOnce(&mut Context<'_>) -> io::Result<Ends> + Send {
    |cx| {
        Ok(Ends {
            input: stdio::Input::Thread(stdio::InputThread::start(cx, input)?),
            output: stdio::Output::Thread(stdio::OutputThread::start(cx, "stdout", output)?),
        })
    }
}

fn ask(options: Options, input: &str) -> (Result<(), Error>, String) {
    let (to, from) = mpsc::channel();
    let outcome = serve(options, streams(io::Cursor::new(input.to_owned()), Output(to)));
    let said: Vec<u8> = from.iter().flatten().collect();
    (outcome, String::from_utf8(said).unwrap())
}

#[test]
fn plain_answers_come_in_the_order_of_the_lines() {
    let lines: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    let (outcome, said) = ask(options(Mode::Plain, LONG, &[pool(echo), pool(echo)]), &lines.join("\n"));
    assert_eq!(outcome, Ok(()));
    let expected: String = lines.iter().map(|line| format!("re {line}\n")).collect();
    assert_eq!(said, expected);
}

#[test]
fn an_empty_input_asks_nothing() {
    assert_eq!(
        ask(options(Mode::Plain, LONG, &[unused_port()]), ""),
        (Ok(()), String::new())
    );
}

#[test]
fn a_reply_may_be_a_mebibyte() {
    let script: Script = |_, client| {
        client.write_all(&vec![b'x'; reply::LONGEST_REPLY]).unwrap();
        client.write_all(b"\n").unwrap();
    };
    let (outcome, said) = ask(options(Mode::Plain, LONG, &[pool(script)]), "a\n");
    assert_eq!(outcome, Ok(()));
    assert_eq!(said.len(), reply::LONGEST_REPLY + 1);
}

#[test]
fn squid_gets_each_answer_under_its_own_channel() {
    let input: String = (0..500)
        .map(|number| format!("{number} http://h{number}/ 1/- - GET\r\n"))
        .collect();
    let (outcome, said) = ask(options(Mode::Squid, LONG, &[pool(echo)]), &input);
    assert_eq!(outcome, Ok(()));
    let mut said: Vec<&str> = said.lines().collect();
    let mut expected: Vec<String> = (0..500)
        .map(|number| format!("{number} re http://h{number}/ 1/- - GET"))
        .collect();
    said.sort_unstable();
    expected.sort_unstable();
    assert_eq!(said, expected);
}

#[test]
fn an_invalid_reply_becomes_the_text_for_failures() {
    let scripts: [(Script, &str); 3] = [
        (|_, client| client.write_all(b"OK rewrite-u").unwrap(), "1 ERR\n"),
        (|_, client| client.write_all(b"O\0K\n").unwrap(), "1 ERR\n"),
        (|_, client| client.write_all(b"\n").unwrap(), "1 ERR\n"),
    ];
    for (script, expected) in scripts {
        let (outcome, said) = ask(options(Mode::Squid, LONG, &[pool(script)]), "1 http://a/\n");
        assert_eq!((outcome, said.as_str()), (Ok(()), expected));
    }
}

#[test]
fn a_connection_that_is_closed_without_a_byte_is_tried_again_within_the_time_out() {
    static CLOSED: AtomicUsize = AtomicUsize::new(0);
    let script: Script = |question, client| {
        if CLOSED.fetch_add(1, Ordering::SeqCst) >= 3 {
            echo(question, client);
        }
    };
    let (outcome, said) = ask(options(Mode::Squid, LONG, &[pool(script)]), "1 http://a/\n");
    assert_eq!((outcome, said.as_str()), (Ok(()), "1 re http://a/\n"));
    let (outcome, said) = ask(options(Mode::Squid, SHORT, &[pool(|_, _| {})]), "1 http://a/\n");
    assert_eq!((outcome, said.as_str()), (Ok(()), "1 ERR\n"), "and no longer");
}

#[test]
fn a_hanging_pool_costs_no_more_than_the_time_out() {
    let (outcome, said) = ask(options(Mode::Squid, SHORT, &[pool(hang)]), "1 http://a/\n8 http://b/");
    assert_eq!((outcome, said.as_str()), (Ok(()), "1 ERR\n8 ERR\n"));
}

#[test]
fn a_line_goes_on_to_the_pool_that_answers() {
    let scripts: [Script; 2] = [|_, _| {}, |_, client| client.write_all(b"half").unwrap()];
    let mut bad: Vec<Connect> = scripts.map(pool).into();
    bad.push(unused_port());
    for bad in bad {
        let (outcome, said) = ask(options(Mode::Squid, LONG, &[bad, pool(echo)]), "a\nb\nc");
        assert_eq!((outcome, said.as_str()), (Ok(()), "re a\nre b\nre c\n"));
    }
}

#[test]
fn a_line_whose_pool_hangs_goes_on_when_half_its_time_is_up() {
    // The time-out is long enough that the second pool has its half even on a busy machine.
    let timeout = Duration::from_secs(4);
    let (outcome, said) = ask(options(Mode::Squid, timeout, &[pool(hang), pool(echo)]), "a");
    assert_eq!((outcome, said.as_str()), (Ok(()), "re a\n"));
}

#[test]
fn plain_mode_reports_unanswered_lines_at_the_end() {
    let (outcome, said) = ask(options(Mode::Plain, SHORT, &[unused_port()]), "a\nb\n");
    assert_eq!(said, "ERR\nERR\n");
    let error = outcome.unwrap_err();
    assert_eq!(error.blame(), Blame::Peer);
    assert!(
        error.to_string().starts_with("2 of 2 lines were not answered"),
        "{error}"
    );
    // The cause was reported with the first line.
    assert!(!error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_name_is_looked_up_and_every_address_behind_it_tried() {
    // `localhost` may resolve to ::1 first, where nothing listens.
    let ConnectAddr::Tcp { port, .. } = pool(echo).address else {
        panic!("a pool is on TCP")
    };
    let address: Connect = format!("localhost:{port}").parse().unwrap();
    assert_eq!(ask(options(Mode::Plain, LONG, &[address]), "a").1, "re a\n");
}

#[test]
fn a_unix_socket_is_asked_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pool");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        // The hello comes first, and gets an answer like any other line.
        for _ in 0..2 {
            let (client, _) = listener.accept().unwrap();
            let mut question = String::new();
            let mut reader = BufReader::new(client);
            reader.read_line(&mut question).unwrap();
            reader.get_mut().write_all(format!("re {question}").as_bytes()).unwrap();
        }
    });
    let address: Connect = format!("unix:{}", path.display()).parse().unwrap();
    assert_eq!(ask(options(Mode::Plain, LONG, &[address]), "a\n").1, "re a\n");
    server.join().unwrap();
}

#[test]
fn a_closed_output_ends_the_run() {
    for mode in [Mode::Plain, Mode::Squid] {
        let (to, from) = mpsc::channel();
        drop(from);
        // The input never ends: the output ends the run.
        let (input, held_open) = std::os::unix::net::UnixStream::pair().unwrap();
        (&held_open).write_all(b"a\n").unwrap();
        let outcome = serve(options(mode, LONG, &[pool(echo)]), streams(input, Output(to)));
        match mode {
            Mode::Plain => {
                let error = outcome.unwrap_err();
                assert_eq!(error.blame(), Blame::System);
                assert!(
                    error.to_string().starts_with("cannot write to standard output"),
                    "{error}"
                );
            }
            // Squid ends its helpers this way.
            Mode::Squid => assert_eq!(outcome, Ok(())),
        }
    }
}

#[test]
fn lines_are_answered_while_the_input_stays_open() {
    let (input, mut squid) = std::os::unix::net::UnixStream::pair().unwrap();
    let (to, from) = mpsc::channel();
    let address = pool(echo);
    let run = thread::spawn(move || serve(options(Mode::Squid, LONG, &[address]), streams(input, Output(to))));
    for number in 0..20 {
        squid.write_all(format!("{number} x\n").as_bytes()).unwrap();
        assert_eq!(from.recv().unwrap(), format!("{number} re x\n").into_bytes());
    }
    drop(squid);
    assert_eq!(run.join().unwrap(), Ok(()));
}
