//! The flags of the clients for servers that are asked by TLS.

use std::path::PathBuf;

use clap::Args;

use crate::client::{TlsOptions, nameless_text};
use crate::net::addr::{Connect, Transport};
use crate::net::tls::client::server_name;
use crate::net::tls::files::IdentityFiles;

#[derive(Debug, Args)]
pub(super) struct TlsFlags {
    /// With tls: the authorities whose certificates are trusted, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With tls: the certificate of this side in PEM, for servers that ask for one
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of that certificate, in PEM [default: in the file of --cert]
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// With tls: the name that the certificate of the server must have [default: the host of ADDRESS]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

impl TlsFlags {
    /// Returns the choices for these addresses. An address with a mistake is left out of them.
    pub(super) fn lower(&self, addresses: &[Connect], mistakes: &mut Vec<String>) -> TlsOptions {
        let name = self.server_name.as_deref().map(|name| (name, server_name(name)));
        if let Some((name, None)) = name {
            mistakes.push(format!(
                "iotcpd: --server-name: \"{}\" is no name of a host; write one as pool.example, or an address without \
                 its port",
                name.escape_debug()
            ));
        }
        let options = TlsOptions {
            authorities: self.ca.clone(),
            identity: self.cert.clone().map(|certificate| IdentityFiles {
                key: self.key.clone().unwrap_or_else(|| certificate.clone()),
                certificate,
            }),
            server_name: name.and_then(|(_, name)| name),
        };
        let mut secured = addresses.iter().filter(|it| it.transport == Transport::Tls).peekable();
        if secured.peek().is_none() && !addresses.is_empty() {
            let given = [
                ("--ca", self.ca.is_some()),
                ("--cert", self.cert.is_some()),
                ("--server-name", self.server_name.is_some()),
            ];
            for (flag, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
                mistakes.push(format!(
                    "iotcpd: {flag}: it is for TLS, and no address begins with tls:; write tls:HOST:PORT, or leave it out"
                ));
            }
        }
        for address in secured.filter(|it| options.name_of(&it.address).is_none()) {
            mistakes.push(format!("iotcpd: ADDRESS: {}", nameless_text(address)));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Client {
        address: String,
        #[command(flatten)]
        flags: TlsFlags,
    }

    fn lower(line: &str) -> Result<TlsOptions, Vec<String>> {
        let words = std::iter::once("client").chain(line.split_whitespace());
        let client = Client::try_parse_from(words).unwrap();
        let mut mistakes = Vec::new();
        let options = client.flags.lower(&[client.address.parse().unwrap()], &mut mistakes);
        if mistakes.is_empty() {
            Ok(options)
        } else {
            Err(mistakes)
        }
    }

    #[test]
    fn the_files_and_the_name_are_those_of_the_flags() {
        assert_eq!(lower("tls:a:1"), Ok(TlsOptions::default()));
        let options = lower("--ca ca.pem --cert a.pem --key a.key --server-name b tls:a:1").unwrap();
        let identity = |certificate: &str, key: &str| {
            Some(IdentityFiles {
                certificate: certificate.into(),
                key: key.into(),
            })
        };
        assert_eq!(options.authorities, Some("ca.pem".into()));
        assert_eq!(options.identity, identity("a.pem", "a.key"));
        assert_eq!(options.server_name, server_name("b"));
        let one_file = lower("--cert a.pem tls:a:1").unwrap();
        assert_eq!(one_file.identity, identity("a.pem", "a.pem"));
        assert!(Client::try_parse_from(["client", "--key", "a.key", "tls:a:1"]).is_err());
    }

    #[test]
    fn a_flag_for_tls_needs_an_address_with_tls() {
        let mistakes = lower("--ca ca.pem --cert a --key b --server-name c a:1").unwrap_err();
        assert_eq!(mistakes.len(), 3);
        assert_eq!(
            mistakes[0],
            "iotcpd: --ca: it is for TLS, and no address begins with tls:; write tls:HOST:PORT, or leave it out"
        );
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_a_mistake() {
        let mistakes = lower("--server-name a/b tls:a:1").unwrap_err();
        assert!(mistakes[0].starts_with("iotcpd: --server-name: \"a/b\" is no name of a host; "));
        let mistakes = lower("tls:a..b:1").unwrap_err();
        assert_eq!(
            mistakes,
            [
                "iotcpd: ADDRESS: no certificate can be for the host of tls:a..b:1; give the name that its \
              certificate has with --server-name"
            ]
        );
    }
}
