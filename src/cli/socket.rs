//! SOCKET and ADDRESS, in the syntax of sockexec and its client: the path of a UNIX socket, or an address.

/// Returns the address in the syntax of `net::addr`. Everything that does not look like an address is a path. A number
/// is a port, as for sockproc, and not a file; a file of such a name is written as `./13000`.
pub(super) fn address(socket: &str) -> String {
    let is_number = !socket.is_empty() && socket.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = is_number
        || socket.starts_with("unix:")
        || socket.starts_with("systemd")
        || socket.starts_with("tls:")
        || (socket.contains(':') && !socket.contains('/'));
    if is_address {
        socket.to_owned()
    } else {
        format!("unix:{socket}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_distinguished() {
        for path in [
            "/run/x",
            "x.sock",
            "./a:1",
            "../systemd",
            "/run/unix:x",
            "./13000",
            "13000x",
            "",
        ] {
            assert_eq!(address(path), format!("unix:{path}"));
        }
        for it in [
            "unix:@x",
            "unix:x",
            "127.0.0.1:80",
            "[::1]:80",
            "localhost:80",
            "systemd:exec",
            "tls:unix:/x",
            ":80",
            "13000",
            "0",
        ] {
            assert_eq!(address(it), it);
        }
    }
}
