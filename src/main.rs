//! Hands the arguments to the command line and its outcome to the system. Nothing else belongs here.

use std::process::ExitCode;

fn main() -> ExitCode {
    iotcpd::main(std::env::args_os())
}
