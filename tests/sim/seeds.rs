//! The choice of the seeds that are run, and the seed that a failure prints.

/// Runs one simulation after the other and collects what they came to; names the seed of one that fails.
pub(crate) fn each<T>(simulate: impl Fn(u64) -> T + std::panic::RefUnwindSafe) -> Vec<T> {
    let run = |seed| {
        std::panic::catch_unwind(|| simulate(seed)).unwrap_or_else(|panic| {
            eprintln!("seed {seed}: run it alone with IOTCPD_SIM_SEED={seed}");
            std::panic::resume_unwind(panic)
        })
    };
    seeds().into_iter().map(run).collect()
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("IOTCPD_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("IOTCPD_SIM_SEEDS").unwrap_or(256)).collect(),
    }
}
