//! The load generator of `scripts/bench`: one thread, C clients at once, one request per connection, each answer checked.
//!
//! `load ask ADDRESS CLIENTS REQUESTS [--like LINE --expect ANSWER]`: every request is another line, and must come back as
//! itself; with `--like` every request is LINE and the answer ANSWER. Prints one line of `name=value` pairs: rate (requests
//! a second) and the latency, from before connect until the server's close, in microseconds. Exit status 1: a wrong answer.
//!
//! `load hold ADDRESS CONNECTIONS`: opens connections that send nothing, asks one more line, so that all before it have
//! been accepted, prints `held`, and keeps them until its standard input ends.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod epoll;

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use hdrhistogram::Histogram;

const USAGE: &str =
    "usage: load ask ADDRESS CLIENTS REQUESTS [--like LINE --expect ANSWER] | load hold ADDRESS CONNECTIONS";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ask", address, clients, requests] => ask(
            address.parse()?,
            clients.parse()?,
            requests.parse()?,
            &Conversation::Echo,
        ),
        ["ask", address, clients, requests, "--like", line, "--expect", answer] => {
            let fixed = Conversation::Fixed {
                request: format!("{line}\n"),
                answer: format!("{answer}\n"),
            };
            ask(address.parse()?, clients.parse()?, requests.parse()?, &fixed)
        }
        ["hold", address, connections] => hold(address.parse()?, connections.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// What is said.
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
    stream: TcpStream,
    since: Instant,
    request: String,
    answer: Vec<u8>,
}

impl Asking {
    /// Connecting and sending may block for as long as the kernel's handshake with itself, and no longer.
    fn start(address: SocketAddr, request: String) -> io::Result<Self> {
        let since = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        Ok(Self {
            stream,
            since,
            request,
            answer: Vec::with_capacity(128),
        })
    }

    /// Reads what epoll has announced. `Ok(true)`: the server has closed.
    fn is_over(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer)?;
        self.answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        Ok(length == 0)
    }
}

fn ask(address: SocketAddr, clients: usize, requests: u64, says: &Conversation) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut epoll = epoll::Epoll::new()?;
    let mut asking: Vec<Option<Asking>> = Vec::new();
    let mut started: u64 = 0;
    let began = Instant::now();
    for name in 0..clients {
        let first = Asking::start(address, says.request(started))?;
        epoll.add(&first.stream, name)?;
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
            *slot = None;
            if started < requests {
                let next = Asking::start(address, says.request(started))?;
                epoll.add(&next.stream, name)?;
                *slot = Some(next);
                started += 1;
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

fn hold(address: SocketAddr, connections: usize) -> Result<(), Box<dyn Error>> {
    let held: Vec<TcpStream> = (0..connections)
        .map(|_| TcpStream::connect(address))
        .collect::<io::Result<_>>()?;
    let mut last = TcpStream::connect(address)?;
    last.write_all(b"http://www.example.org/ 10.0.0.1/- - GET\n")?;
    let mut answer = Vec::new();
    last.read_to_end(&mut answer)?;
    if answer.last() != Some(&b'\n') {
        return Err("the request behind the idle connections was not answered".into());
    }
    println!("held");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(held);
    Ok(())
}
