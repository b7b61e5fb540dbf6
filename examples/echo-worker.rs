//! The cheapest worker there can be: what it reads, it writes. A pool that gives a worker one request at a time gets
//! each line back whole, so the bench sees the pool's own cost and next to none of the worker's.

use std::io;

use nix::unistd::{read, write};

fn main() -> nix::Result<()> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = read(&stdin, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let written = write(&stdout, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}
