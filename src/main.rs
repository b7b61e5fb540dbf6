//! Parses, runs one command, turns its outcome into the exit status. Nothing else belongs here.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
