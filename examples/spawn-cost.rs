//! Measures the cost of a start to a daemon of 10 MB and to one of 1 GB, in one process and in turn.
//!
//! `spawn-cost [ROUNDS [STARTS]]`: in each round STARTS starts of `true` with three pipes, first with the smaller
//! memory, then with the larger one, all of it written to. A start is measured from before the pipes until its exec has
//! succeeded. Prints the medians of all rounds, `small_us=` and `large_us=`, and `ratio=`, the median of the rounds'
//! ratios of their medians; and behind them the same for a start by fork(2), which copies page tables: `fork_ratio=`.
#![expect(unsafe_code, reason = "a closure before the exec makes std fork")]

use std::error::Error;
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process;
use std::time::Instant;

use iotcpd::internals::process::{Command, SpawnContext, SpawnDefaults, Spawner, Stdio};

const PAGE: usize = 4096;
const SMALL: usize = 10_000_000;
const LARGE: usize = 1_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(7), |word| word.parse())?;
    let starts: usize = arguments.next().map_or(Ok(300), |word| word.parse())?;
    let mut spawner = Spawner::new(&SpawnContext::default(), &SpawnDefaults::default())?;
    let command = Command::new(vec!["true".into()])?;
    let mut memory = grown(Vec::new(), SMALL);
    let mut by_spawner = Comparison::default();
    let mut by_fork = Comparison::default();
    let mut start = || start_by_spawner(&mut spawner, &command);
    for _ in 0..rounds {
        let (small, small_fork) = (median(starts, &mut start)?, median(starts / 10 + 1, start_by_fork)?);
        memory = grown(memory, LARGE);
        let (large, large_fork) = (median(starts, &mut start)?, median(starts / 10 + 1, start_by_fork)?);
        memory.truncate(SMALL / PAGE);
        by_spawner.add(small, large);
        by_fork.add(small_fork, large_fork);
    }
    let Comparison { small, large, ratio } = by_spawner.medians();
    println!(
        "small_us={small:.1} large_us={large:.1} ratio={ratio:.3} fork_ratio={:.3}",
        by_fork.medians().ratio
    );
    Ok(())
}

/// Every page by itself, as a daemon's memory comes about, and written to.
fn grown(mut memory: Vec<Box<[u8]>>, bytes: usize) -> Vec<Box<[u8]>> {
    while memory.len() * PAGE < bytes {
        memory.push(black_box(vec![1; PAGE].into_boxed_slice()));
    }
    memory
}

/// Microseconds.
fn median(starts: usize, mut start: impl FnMut() -> Result<f64, Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let mut all = (0..starts).map(|_| start()).collect::<Result<Vec<_>, _>>()?;
    Ok(middle(&mut all))
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn start_by_spawner(spawner: &mut Spawner, command: &Command) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let mut child = spawner.spawn(command, Stdio::piped())?;
    let took = began.elapsed().as_secs_f64() * 1e6;
    while child.reap()?.is_none() {
        std::thread::yield_now();
    }
    Ok(took)
}

fn start_by_fork() -> Result<f64, Box<dyn Error>> {
    let mut command = process::Command::new("true");
    let piped = process::Stdio::piped;
    command.stdin(piped()).stdout(piped()).stderr(piped());
    // SAFETY: it does nothing.
    unsafe { command.pre_exec(|| Ok(())) };
    let began = Instant::now();
    let mut child = command.spawn()?;
    let took = began.elapsed().as_secs_f64() * 1e6;
    child.wait()?;
    Ok(took)
}

/// The measurements, a number for each round.
#[derive(Default)]
struct Comparison<T = Vec<f64>> {
    small: T,
    large: T,
    ratio: T,
}

impl Comparison {
    fn add(&mut self, small: f64, large: f64) {
        self.small.push(small);
        self.large.push(large);
        self.ratio.push(large / small);
    }

    fn medians(mut self) -> Comparison<f64> {
        Comparison {
            small: middle(&mut self.small),
            large: middle(&mut self.large),
            ratio: middle(&mut self.ratio),
        }
    }
}
