//! The load generator of `scripts/bench`: one thread, C clients at once, each answer checked.
//!
//! `load ask ADDRESS CLIENTS REQUESTS [--like LINE --expect ANSWER]`: one request per connection; every one is another
//! line, and must come back as itself; with `--like` every request is LINE and the answer ANSWER. Prints one line of
//! `name=value` pairs: rate (requests a second) and the latency, from before connect until the server's close, in
//! microseconds. Exit status 1: a wrong answer.
//!
//! `load keep ADDRESS CLIENTS IN_FLIGHT REQUESTS [--like LINE --expect ANSWER]`: the same on connections that stay,
//! each with IN_FLIGHT requests unanswered at any time; answers must come in the order of the requests. The latency is
//! that from the write of a request to the read of its answer.
//!
//! `load multiplex ADDRESS CLIENTS IN_FLIGHT REQUESTS [--like LINE --expect ANSWER]`: the same on multiplexed
//! connections (`doc/protocol.md`), whose answers may come in any order.
//!
//! `load pace ADDRESS RATE REQUESTS`: one request per connection, RATE begun in a second at even distances, whatever
//! becomes of those before. The latency is that from the moment at which a request was due, so that it counts when the
//! server makes the next ones wait.
//!
//! `load hold ADDRESS CONNECTIONS`: opens connections that send nothing, asks one more line, so that all before it have
//! been accepted, prints `held`, and keeps them until its standard input ends.
//!
//! `load storm ADDRESS RATE CONNECTIONS`: RATE connections begun in a second at even distances, each of which makes its
//! handshake and is closed. Prints their number, and how many of them the server has `failed`.
//!
//! `load --ca FILE [--resume] ...`: the same over TLS, see `connection/mod.rs`. `ask` prints the share of handshakes that
//! have resumed a session, too.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod connection;
mod epoll;

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connection::{Connection, Transport};
use hdrhistogram::Histogram;

const USAGE: &str = "usage: load [--ca FILE [--resume]] ask ADDRESS CLIENTS REQUESTS [--like LINE --expect ANSWER] \
                     | load keep ADDRESS CLIENTS IN_FLIGHT REQUESTS [--like LINE --expect ANSWER] \
                     | load multiplex ADDRESS CLIENTS IN_FLIGHT REQUESTS [--like LINE --expect ANSWER] \
                     | load pace ADDRESS RATE REQUESTS \
                     | load hold ADDRESS CONNECTIONS \
                     | load storm ADDRESS RATE CONNECTIONS";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (transport, words) = Transport::parse(&words)?;
    let server = |address: &str| -> Result<Server, Box<dyn Error>> {
        let address = address.parse()?;
        Ok(Server { address, transport })
    };
    let (words, says) = match words {
        [words @ .., "--like", line, "--expect", answer] => {
            let fixed = Conversation::Fixed {
                request: format!("{line}\n"),
                answer: format!("{answer}\n"),
            };
            (words, fixed)
        }
        words => (words, Conversation::Echo),
    };
    match words {
        ["ask", address, clients, requests] => ask(&server(address)?, clients.parse()?, requests.parse()?, &says),
        [how @ ("keep" | "multiplex"), address, clients, in_flight, requests] => keep(
            *how == "multiplex",
            &server(address)?,
            clients.parse()?,
            in_flight.parse()?,
            requests.parse()?,
            &says,
        ),
        ["pace", address, rate, requests] => pace(&server(address)?, rate.parse()?, requests.parse()?),
        ["hold", address, connections] => hold(&server(address)?, connections.parse()?),
        ["storm", address, rate, connections] => storm(&server(address)?, rate.parse()?, connections.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// The server that is put under load.
struct Server {
    address: SocketAddr,
    transport: Transport,
}

impl Server {
    /// Connecting may block for as long as the kernel's handshake with itself, and no longer.
    fn connect(&self) -> io::Result<Connection> {
        Connection::start(self.address, &self.transport)
    }
}

/// The words of a conversation.
enum Conversation {
    /// A line of its own each time, and itself for the answer.
    Echo,
    /// Always the same.
    Fixed { request: String, answer: String },
}

impl Conversation {
    fn request(&self, number: u64) -> String {
        match self {
            Self::Echo => format!("http://www.example.org/{number}/index.html 10.0.0.1/- - GET\n"),
            Self::Fixed { request, .. } => request.clone(),
        }
    }

    fn is_answer(&self, request: &str, answer: &[u8]) -> bool {
        match self {
            Self::Echo => request.as_bytes() == answer,
            Self::Fixed { answer: expected, .. } => expected.as_bytes() == answer,
        }
    }
}

/// One client in the middle of a request.
struct Asking {
    connection: Connection,
    since: Instant,
    request: String,
    answer: Vec<u8>,
}

impl Asking {
    fn start(server: &Server, request: String) -> io::Result<Self> {
        let since = Instant::now();
        let mut connection = server.connect()?;
        connection.send(request.as_bytes())?;
        Ok(Self {
            connection,
            since,
            request,
            answer: Vec::with_capacity(128),
        })
    }

    /// Reads what epoll has announced. `Ok(true)`: the server has closed.
    fn is_over(&mut self) -> io::Result<bool> {
        let goes_on = self.connection.receive(&mut [0; 4096], &mut self.answer)?;
        Ok(!goes_on)
    }
}

fn ask(server: &Server, clients: usize, requests: u64, says: &Conversation) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut epoll = epoll::Epoll::new()?;
    let mut asking: Vec<Option<Asking>> = Vec::new();
    let (mut started, mut resumed) = (0, 0);
    let began = Instant::now();
    for name in 0..clients {
        let first = Asking::start(server, says.request(started))?;
        epoll.add(first.connection.socket(), name)?;
        asking.push(Some(first));
        started += 1;
    }
    while latency.len() < requests {
        for name in epoll.wait()? {
            let Some(slot) = asking.get_mut(name) else { continue };
            let Some(client) = slot else { continue };
            if !client.is_over()? {
                continue;
            }
            latency.record(u64::try_from(client.since.elapsed().as_nanos())?)?;
            if !says.is_answer(&client.request, &client.answer) {
                let (request, answer) = (client.request.trim_end(), String::from_utf8_lossy(&client.answer));
                return Err(format!("wrong answer to {request:?}: {answer:?}").into());
            }
            resumed += u64::from(client.connection.is_resumed());
            *slot = None;
            if started < requests {
                let next = Asking::start(server, says.request(started))?;
                epoll.add(next.connection.socket(), name)?;
                *slot = Some(next);
                started += 1;
            }
        }
    }
    print!("resumed={:.3} ", resumed as f64 / requests as f64);
    print_result(&latency, began.elapsed().as_secs_f64());
    Ok(())
}

/// Open loop: requests begin when they are due.
fn pace(server: &Server, rate: u32, requests: u32) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut epoll = epoll::Epoll::new()?;
    let mut asking: Vec<Option<Asking>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let (began, mut started) = (Instant::now(), 0);
    let due = |number: u32| began + Duration::from_secs(1) * number / rate;
    while latency.len() < u64::from(requests) {
        while started < requests && due(started) <= Instant::now() {
            let mut client = Asking::start(server, Conversation::Echo.request(started.into()))?;
            client.since = due(started);
            let name = free.pop().unwrap_or_else(|| {
                asking.push(None);
                asking.len() - 1
            });
            epoll.add(client.connection.socket(), name)?;
            if let Some(slot) = asking.get_mut(name) {
                *slot = Some(client);
            }
            started += 1;
        }
        let until_due = if started < requests {
            due(started).saturating_duration_since(Instant::now())
        } else {
            Duration::from_secs(10)
        };
        for name in epoll.wait_for(until_due)? {
            let Some(slot) = asking.get_mut(name) else { continue };
            let Some(client) = slot else { continue };
            if !client.is_over()? {
                continue;
            }
            latency.record(u64::try_from(client.since.elapsed().as_nanos())?)?;
            if !Conversation::Echo.is_answer(&client.request, &client.answer) {
                return Err(format!("wrong answer to {:?}", client.request.trim_end()).into());
            }
            *slot = None;
            free.push(name);
        }
    }
    print_result(&latency, began.elapsed().as_secs_f64());
    Ok(())
}

/// A request without an answer.
type Asked = (String, Instant);

/// The requests without an answer on a connection that stays.
enum Unanswered {
    /// Answers come in the order of the requests; the oldest is the first.
    InOrder(VecDeque<Asked>),
    /// Each is at the place of its number. The other places are free.
    Numbered(Vec<Option<Asked>>, Vec<usize>),
}

impl Unanswered {
    /// Adds a request, and writes what stands before it on the wire.
    fn push(&mut self, asked: Asked, wire: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::InOrder(all) => all.push_back(asked),
            Self::Numbered(places, free) => {
                let number = free.pop().unwrap_or_else(|| {
                    places.push(None);
                    places.len() - 1
                });
                write!(wire, "{number} ")?;
                if let Some(place) = places.get_mut(number) {
                    *place = Some(asked);
                }
            }
        }
        Ok(())
    }

    /// Takes out the request to which a line is the answer. Returns it with the text of the answer.
    fn take<'l>(&mut self, line: &'l [u8]) -> Option<(Asked, &'l [u8])> {
        match self {
            Self::InOrder(all) => Some((all.pop_front()?, line)),
            Self::Numbered(places, free) => {
                let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number: usize = std::str::from_utf8(line.get(..digits)?).ok()?.parse().ok()?;
                let asked = places.get_mut(number)?.take()?;
                free.push(number);
                Some((asked, line.get(digits + 1..)?))
            }
        }
    }
}

/// A connection that stays.
struct Kept {
    connection: Connection,
    asked: Unanswered,
    /// The beginning of an answer that has not come whole.
    partial: Vec<u8>,
}

impl Kept {
    fn start(server: &Server, is_multiplexed: bool) -> io::Result<Self> {
        let mut connection = server.connect()?;
        connection.socket().set_nodelay(true)?;
        let asked = if is_multiplexed {
            connection.send(b"iotcpd-multiplex 1\n")?;
            let mut welcome = Vec::new();
            while welcome.last() != Some(&b'\n') {
                connection.receive(&mut [0; 4096], &mut welcome)?;
            }
            Unanswered::Numbered(Vec::new(), Vec::new())
        } else {
            Unanswered::InOrder(VecDeque::new())
        };
        Ok(Self {
            connection,
            asked,
            partial: Vec::new(),
        })
    }

    /// Sends `more` requests in one write.
    fn ask(&mut self, number: u64, more: u64, says: &Conversation) -> io::Result<()> {
        let (mut bytes, now) = (Vec::new(), Instant::now());
        for number in number..number + more {
            let request = says.request(number);
            self.asked.push((request.clone(), now), &mut bytes)?;
            bytes.extend_from_slice(request.as_bytes());
        }
        // The kernel takes what is in flight, or the measurement is set up wrongly.
        self.connection.send(&bytes)
    }

    /// Reads what epoll has announced, and checks the answers in it; how many they are.
    fn hear(&mut self, says: &Conversation, latency: &mut Histogram<u64>) -> Result<u64, Box<dyn Error>> {
        if !self.connection.receive(&mut [0; 64 * 1024], &mut self.partial)? {
            return Err("the server has closed a connection that was to stay".into());
        }
        let held = std::mem::take(&mut self.partial);
        let (mut answers, now) = (0, Instant::now());
        for line in held.split_inclusive(|byte| *byte == b'\n') {
            if line.last() != Some(&b'\n') {
                self.partial = line.to_vec();
                break;
            }
            let ((request, since), line) = self.asked.take(line).ok_or("an answer to nothing")?;
            latency.record(u64::try_from(now.saturating_duration_since(since).as_nanos())?)?;
            if !says.is_answer(&request, line) {
                let (request, answer) = (request.trim_end(), String::from_utf8_lossy(line));
                return Err(format!("wrong answer to {request:?}: {answer:?}").into());
            }
            answers += 1;
        }
        Ok(answers)
    }
}

fn keep(
    is_multiplexed: bool,
    server: &Server,
    clients: usize,
    in_flight: u64,
    requests: u64,
    says: &Conversation,
) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut epoll = epoll::Epoll::new()?;
    let (mut kept, mut started) = (Vec::new(), 0);
    let began = Instant::now();
    for name in 0..clients {
        let mut client = Kept::start(server, is_multiplexed)?;
        epoll.add(client.connection.socket(), name)?;
        client.ask(started, in_flight, says)?;
        started += in_flight;
        kept.push(client);
    }
    let mut answered = 0;
    while answered < requests.max(started) {
        for name in epoll.wait()? {
            let Some(client) = kept.get_mut(name) else { continue };
            let answers = client.hear(says, &mut latency)?;
            answered += answers;
            let more = answers.min(requests.saturating_sub(started));
            if more > 0 {
                client.ask(started, more, says)?;
                started += more;
            }
        }
    }
    print_result(&latency, began.elapsed().as_secs_f64());
    Ok(())
}

fn print_result(latency: &Histogram<u64>, seconds: f64) {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let at = |quantile| microseconds(latency.value_at_quantile(quantile));
    println!(
        "rate={:.0} p50_us={:.1} p99_us={:.1} p999_us={:.1} max_us={:.1}",
        latency.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        microseconds(latency.max())
    );
}

fn hold(server: &Server, connections: usize) -> Result<(), Box<dyn Error>> {
    let connect = |_| {
        let mut connection = server.connect()?;
        // Tickets are the first that the server says when it has the client's last message.
        connection.finish_handshake(1)?;
        Ok(connection)
    };
    let held: Vec<Connection> = (0..connections).map(connect).collect::<io::Result<_>>()?;
    let mut last = Asking::start(server, Conversation::Echo.request(0))?;
    while !last.is_over()? {}
    let answer = last.answer;
    if answer.last() != Some(&b'\n') {
        return Err("the request behind the idle connections was not answered".into());
    }
    println!("held");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(held);
    Ok(())
}

/// Open loop, as [`pace`] is.
fn storm(server: &Server, rate: u32, connections: u32) -> Result<(), Box<dyn Error>> {
    let mut epoll = epoll::Epoll::new()?;
    let mut arriving: HashMap<usize, Connection> = HashMap::new();
    let (began, mut started, mut failed) = (Instant::now(), 0, 0);
    let due = |number: u32| began + Duration::from_secs(1) * number / rate;
    while started < connections || !arriving.is_empty() {
        while started < connections && due(started) <= Instant::now() {
            let (connection, name) = (server.connect()?, started as usize);
            epoll.add(connection.socket(), name)?;
            arriving.insert(name, connection);
            started += 1;
        }
        let until_due = match started < connections {
            true => due(started).saturating_duration_since(Instant::now()),
            false => Duration::from_secs(10),
        };
        for name in epoll.wait_for(until_due)? {
            let Some(connection) = arriving.get_mut(&name) else {
                continue;
            };
            let goes_on = connection.receive(&mut [0; 4096], &mut Vec::new()).unwrap_or(false);
            failed += u32::from(!goes_on);
            if !goes_on || !connection.is_handshaking() {
                arriving.remove(&name);
            }
        }
    }
    println!(
        "rate={:.0} connections={connections} failed={failed}",
        f64::from(connections - failed) / began.elapsed().as_secs_f64()
    );
    Ok(())
}
