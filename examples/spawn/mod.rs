//! `posix_spawn` without a library in between, for the references of `scripts/bench`.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};

/// Strings with the array that `posix_spawn` needs of them: a pointer for each, and a null pointer.
pub(crate) struct Strings {
    _strings: Vec<CString>,
    pointers: Vec<*mut c_char>,
}

impl Strings {
    /// # Errors
    /// A string holds a NUL byte.
    pub(crate) fn new<T: Into<Vec<u8>>>(strings: impl IntoIterator<Item = T>) -> Result<Self, Box<dyn Error>> {
        let strings: Vec<CString> = strings.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
        let pointers = pointers.chain([ptr::null_mut()]).collect();
        Ok(Self {
            _strings: strings,
            pointers,
        })
    }

    /// The environment of this process.
    pub(crate) fn environment() -> Result<Self, Box<dyn Error>> {
        Self::new(std::env::vars().map(|(name, value)| format!("{name}={value}")))
    }
}

/// A program that was started, and our ends of its pipes.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) input: OwnedFd,
    /// Its standard output and its standard error.
    pub(crate) outputs: [OwnedFd; 2],
}

/// Starts the program that the first of `argv` names on the PATH, with three pipes.
///
/// # Errors
/// Those of `pipe2(2)` and `posix_spawnp(3)`.
pub(crate) fn spawn(argv: &Strings, environment: &Strings) -> Result<Started, Errno> {
    let (their_input, input) = pipe2(OFlag::O_CLOEXEC)?;
    let (output, their_output) = pipe2(OFlag::O_CLOEXEC)?;
    let (errors, their_errors) = pipe2(OFlag::O_CLOEXEC)?;
    Ok(Started {
        pid: with_streams(argv, environment, [&their_input, &their_output, &their_errors])?,
        input,
        outputs: [output, errors],
    })
}

fn with_streams(argv: &Strings, environment: &Strings, streams: [&OwnedFd; 3]) -> Result<Pid, Errno> {
    let mut actions = MaybeUninit::uninit();
    let mut pid = 0;
    // SAFETY: the actions are initialised before they are used, and destroyed once; the arrays end with a null pointer,
    // and they and their strings are borrowed during the call.
    let result = unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        for (source, target) in streams.into_iter().zip(0..) {
            libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), source.as_raw_fd(), target);
        }
        let program = argv.pointers.first().copied().unwrap_or(ptr::null_mut());
        let (argv, environment) = (argv.pointers.as_ptr(), environment.pointers.as_ptr());
        let result = libc::posix_spawnp(&raw mut pid, program, actions.as_ptr(), ptr::null(), argv, environment);
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        result
    };
    if result == 0 {
        Ok(Pid::from_raw(pid))
    } else {
        Err(Errno::from_raw(result))
    }
}
