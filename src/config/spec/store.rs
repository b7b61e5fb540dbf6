//! The settings of the store of a route door as written: a table `[route.NAME.store]`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::config::units::{Time, Whole};

/// All settings of the store of a door. They are never flags; the clap definition lists the known keys.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StoreSpec {
    /// The kind of store [default: redis]
    #[arg(long = "type", value_name = "KIND")]
    #[serde(rename = "type")]
    pub kind: Option<StoreKind>,
    /// The store: HOST, HOST:PORT or unix:PATH [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    pub addr: Option<String>,
    /// Its port [default: the port in the address, or 6379]
    #[arg(long, value_name = "PORT")]
    pub port: Option<Whole>,
    /// The user [default: none]
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// The password [default: none]
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// The file whose first line is the password [default: none]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<String>,
    /// The number of the database [default: 0]
    #[arg(long, value_name = "NUMBER")]
    pub database: Option<Whole>,
    /// How often all entries are read [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub refresh: Option<Time>,
    /// The file that keeps the last good table for a start without the store [default: none]
    #[arg(long, value_name = "FILE")]
    pub table_cache: Option<String>,
    /// Speak TLS with the store
    #[arg(long)]
    pub tls: bool,
    /// The authorities of its certificate, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// The certificate that is shown to the store, in PEM [default: none]
    #[arg(long, value_name = "FILE")]
    pub cert: Option<String>,
    /// The key of that certificate, in PEM [default: in the file of cert]
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
}

/// The value of [`kind`](StoreSpec::kind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// Redis, or a server that speaks its protocol.
    Redis,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for StoreKind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Redis]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Redis => "redis",
        }))
    }
}
