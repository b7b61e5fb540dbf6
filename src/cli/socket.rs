//! SOCKET and ADDRESS, as sockexec and its client take them: the path of a UNIX socket, or an address.

/// A path, unless it looks like an address: written so that net's addresses can read it.
pub(super) fn address(socket: &str) -> String {
    let is_address =
        socket.starts_with("unix:") || socket.starts_with("systemd") || (socket.contains(':') && !socket.contains('/'));
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
    fn a_path_is_told_from_an_address() {
        for path in ["/run/x", "x.sock", "./a:1", "../systemd", "/run/unix:x"] {
            assert_eq!(address(path), format!("unix:{path}"));
        }
        for it in [
            "unix:@x",
            "unix:x",
            "127.0.0.1:80",
            "[::1]:80",
            "localhost:80",
            "systemd:exec",
            ":80",
        ] {
            assert_eq!(address(it), it);
        }
    }
}
