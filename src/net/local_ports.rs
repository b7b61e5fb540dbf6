//! The ports that the kernel chooses for this machine's end of a connection, and the question of a connection to itself.
//!
//! A connection to a port of this machine at which nothing listens may be given that port for its own end, and is then
//! connected to itself (simultaneous open, RFC 9293, section 3.5): whatever is sent comes back as if it were the answer.
//! That can happen only at a port from the range, so all other connections save the system call that looks for it.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// The range of local ports (ip(7), net.ipv4.ip_local_port_range of this network namespace; IPv6 has the same).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPorts(RangeInclusive<u16>);

impl LocalPorts {
    /// The range as it is now. If the kernel does not say, it is taken to be every port.
    #[must_use]
    pub fn read() -> Self {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        Self::parse(&text).unwrap_or(LocalPorts(0..=u16::MAX))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        match (numbers.next()?.ok()?, numbers.next()?.ok()?) {
            (first, last) if first <= last => Some(LocalPorts(first..=last)),
            _ => None,
        }
    }

    /// The port of this address, if a connection to it may be connected to itself.
    #[must_use]
    pub fn suspect(&self, target: SocketAddr) -> Option<u16> {
        Some(target.port()).filter(|port| self.0.contains(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_read_and_a_fault_in_it_means_every_port() {
        let ports = LocalPorts::parse("32768\t60999\n").expect("the form of the kernel");
        for (port, is_suspect) in [
            (443, false),
            (32_767, false),
            (32_768, true),
            (60_999, true),
            (61_000, false),
        ] {
            let suspect = ports.suspect(([127, 0, 0, 1], port).into());
            assert_eq!(suspect, is_suspect.then_some(port));
        }
        for fault in ["", "1024", "60999 32768", "a b", "1 70000"] {
            assert_eq!(LocalPorts::parse(fault), None, "{fault:?}");
        }
        // A port that the kernel has chosen is within the range.
        let chosen = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        assert!(LocalPorts::read().suspect(chosen.expect("a port")).is_some());
    }
}
