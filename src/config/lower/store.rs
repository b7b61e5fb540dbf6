//! The store of a route door: [`StoreSpec`] becomes [`Settings`](StoreSettings). Its files are not read here.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::service::{Place as Written, place as address_of};
use super::{KEY, KeyRef, Mistake, Mistakes, SHORTEST_TIMEOUT};
use crate::config::quote::Quoted;
use crate::config::spec::route::{StoreKind, StoreSpec};
use crate::config::units::Whole;
use crate::doors::route::options::{Address, Password, Secret, StorePlace, StoreSettings, StoreTls};
use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::tls::client::server_name;
use crate::net::tls::files::IdentityFiles;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 6379;
const DEFAULT_REFRESH: Duration = Duration::from_secs(5);

const PORT: RangeInclusive<u16> = 1..=u16::MAX;
const REFRESH: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=Duration::from_secs(86_400);
/// The databases of a Redis are counted in the 32 bits of an int.
const DATABASE: RangeInclusive<i32> = 0..=i32::MAX;

/// Lowers the settings of a store.
///
/// # Errors
/// All mistakes in them.
pub fn store(spec: &StoreSpec) -> Result<StoreSettings, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    // There is no other kind.
    let (Some(StoreKind::Redis) | None) = spec.kind;
    let address = address(&mut mistakes, spec);
    let tls = tls(&mut mistakes, spec, &address);
    let database = mistakes.count("database", spec.database, DATABASE).unwrap_or(0);
    let password = password(&mut mistakes, spec);
    let user = spec.username.clone().filter(|user| !user.is_empty());
    if user.is_some() && password.is_none() {
        let remedy = format!("write its {KEY}password or {KEY}password-file");
        mistakes.add(KeyRef::key("username"), "the user has no password", remedy);
    }
    let refresh = mistakes.time("refresh", spec.refresh, &REFRESH);
    let cache = file(&mut mistakes, "table-cache", spec.table_cache.as_deref());
    let settings = StoreSettings {
        place: StorePlace {
            address,
            tls,
            user,
            password,
            database: u32::try_from(database).unwrap_or(0),
        },
        refresh: refresh.unwrap_or(DEFAULT_REFRESH),
        cache: cache.map(Into::into),
    };
    mistakes.into_result(settings)
}

fn address(mistakes: &mut Mistakes, spec: &StoreSpec) -> ConnectAddr {
    let port = mistakes.count("port", spec.port, PORT);
    let local = ConnectAddr::Tcp {
        host: DEFAULT_HOST.to_owned(),
        port: port.unwrap_or(DEFAULT_PORT),
    };
    let Some(text) = spec.addr.as_deref().filter(|text| !text.is_empty()) else {
        return local;
    };
    let origin = KeyRef::key("addr");
    match address_of(text) {
        Ok(Written::Host(host, own)) => {
            if let (Some(Whole(port)), Some(own)) = (spec.port, own)
                && port != i64::from(own)
            {
                let text = format!("its port {own} is not the {KEY}port {port}");
                mistakes.add(origin, text, "leave one of the two out");
            }
            ConnectAddr::Tcp {
                host: host.into(),
                port: own.or(port).unwrap_or(DEFAULT_PORT),
            }
        }
        Ok(Written::Socket(Address::Unix(path))) if !path.starts_with('@') => {
            ConnectAddr::Unix(UnixAddr::Path(String::from(path).into()))
        }
        Ok(Written::Socket(_)) => {
            let text = "a store is not reached at an abstract socket";
            mistakes.add(origin, text, "write for example unix:/run/redis/redis.sock");
            local
        }
        Err(error) => {
            mistakes.add_error(
                origin,
                &error,
                "write for example 10.0.0.5 or unix:/run/redis/redis.sock",
            );
            local
        }
    }
}

fn tls(mistakes: &mut Mistakes, spec: &StoreSpec, address: &ConnectAddr) -> Option<StoreTls> {
    let authorities = file(mistakes, "ca", spec.ca.as_deref());
    let certificate = file(mistakes, "cert", spec.cert.as_deref());
    let key = file(mistakes, "key", spec.key.as_deref());
    if !spec.tls {
        for (name, file) in [("ca", &authorities), ("cert", &certificate), ("key", &key)] {
            if file.is_some() {
                let remedy = format!("write {KEY}tls = true as well, or leave it out");
                mistakes.add(KeyRef::key(name), "the store is spoken with in the clear", remedy);
            }
        }
        return None;
    }
    if key.is_some() && certificate.is_none() {
        let remedy = format!("name the file of its certificate with {KEY}cert");
        mistakes.add(KeyRef::key("key"), "it belongs to no certificate", remedy);
    }
    let text = match address {
        ConnectAddr::Unix(_) => Some("TLS goes over TCP alone, and this is a UNIX socket".to_owned()),
        ConnectAddr::Tcp { host, .. } if server_name(host).is_none() => {
            Some(format!("no certificate can be for {}", Quoted(host)))
        }
        ConnectAddr::Tcp { .. } => None,
    };
    if let Some(text) = text {
        let remedy = format!("write the name of the certificate, or leave {KEY}tls out");
        mistakes.add(KeyRef::key("addr"), text, remedy);
    }
    let identity = certificate.map(|certificate| IdentityFiles {
        key: key.unwrap_or_else(|| certificate.clone()).into(),
        certificate: certificate.into(),
    });
    Some(StoreTls {
        authorities: authorities.map(Into::into),
        identity,
    })
}

fn password(mistakes: &mut Mistakes, spec: &StoreSpec) -> Option<Password> {
    let file = file(mistakes, "password-file", spec.password_file.as_deref());
    let text = spec.password.as_deref().and_then(Secret::new);
    if text.is_some() && file.is_some() {
        let text = format!("there is {KEY}password as well");
        mistakes.add(KeyRef::key("password-file"), text, "leave one of the two out");
    }
    text.map(Password::Text)
        .or_else(|| file.map(|file| Password::File(file.into())))
}

/// Returns the name of a file, if one is given.
pub(super) fn file(mistakes: &mut Mistakes, key: &'static str, name: Option<&str>) -> Option<String> {
    let name = name?;
    if name.is_empty() {
        mistakes.add(KeyRef::key(key), "it is empty", "write the path of a file");
        return None;
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(change: impl FnOnce(&mut StoreSpec)) -> Result<StoreSettings, Vec<String>> {
        let mut spec = StoreSpec::default();
        change(&mut spec);
        store(&spec).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_store_without_settings_is_the_redis_of_this_machine() {
        let settings = lowered(|_| {}).unwrap();
        assert_eq!(settings.place.to_string(), "127.0.0.1:6379");
        assert_eq!((settings.refresh, settings.cache), (DEFAULT_REFRESH, None));
        assert_eq!((settings.place.tls, settings.place.password), (None, None));
    }

    #[test]
    fn the_address_may_have_the_port_or_be_a_socket() {
        let place = |addr: &str, port| {
            let settings = lowered(|spec| (spec.addr, spec.port) = (text(addr), port));
            settings.map(|settings| settings.place.to_string())
        };
        for (addr, port, told) in [
            ("10.0.0.5", None, "10.0.0.5:6379"),
            ("10.0.0.5:7000", None, "10.0.0.5:7000"),
            ("redis.internal", Some(Whole(7000)), "redis.internal:7000"),
            ("::1", Some(Whole(7000)), "[::1]:7000"),
            ("[::1]:7000", Some(Whole(7000)), "[::1]:7000"),
            ("unix:/run/redis.sock", None, "unix:/run/redis.sock"),
        ] {
            assert_eq!(place(addr, port).unwrap(), told);
        }
        let mistake = |addr: &str, port| place(addr, port).unwrap_err().concat();
        assert_eq!(
            mistake("a:7000", Some(Whole(7001))),
            "addr: its port 7000 is not the port 7001; leave one of the two out"
        );
        assert!(mistake("unix:@redis", None).starts_with("addr: a store is not reached at an abstract socket; "));
        assert!(mistake("redis://a", None).starts_with("addr: it is a URL; "));
        assert!(mistake("a", Some(Whole(0))).starts_with("port: 0 is out of range; "));
    }

    #[test]
    fn a_password_is_written_or_in_a_file_and_a_user_needs_one() {
        let both = lowered(|spec| (spec.password, spec.password_file) = (text("x"), text("/x"))).unwrap_err();
        assert_eq!(
            both,
            ["password-file: there is password as well; leave one of the two out"]
        );
        let none = lowered(|spec| spec.username = text("iotcpd")).unwrap_err();
        assert_eq!(
            none,
            ["username: the user has no password; write its password or password-file"]
        );
        let settings = lowered(|spec| (spec.username, spec.password) = (text("iotcpd"), text("hidden"))).unwrap();
        assert!(!format!("{settings:?}").contains("hidden"));
    }

    #[test]
    fn files_of_tls_need_tls_and_tls_needs_tcp() {
        let mistakes = lowered(|spec| (spec.ca, spec.cert) = (text("a"), text("b"))).unwrap_err();
        assert_eq!(
            mistakes[0],
            "ca: the store is spoken with in the clear; write tls = true as well, or leave it out"
        );
        assert_eq!(mistakes.len(), 2);
        let mistakes = lowered(|spec| (spec.tls, spec.addr) = (true, text("unix:/x"))).unwrap_err();
        assert!(mistakes[0].starts_with("addr: TLS goes over TCP alone"), "{mistakes:?}");
        let settings = lowered(|spec| (spec.tls, spec.cert) = (true, text("b"))).unwrap();
        let identity = settings.place.tls.unwrap().identity.unwrap();
        assert_eq!((identity.certificate, identity.key), ("b".into(), "b".into()));
    }
}
