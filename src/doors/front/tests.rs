//! The front of a door over real sockets.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{FrontOptions, LimitKind};
use crate::doors::scaffold::{Kept, open};
use crate::doors::{Door, Shutdown};
use crate::net::access::TrustedProxies;
use crate::net::addr::{Listen, ListenAddr, Mark};
use crate::net::origin::Asserted;

/// A socket in a directory.
fn socket(home: &Path, name: &str) -> ListenAddr {
    let address = format!("unix:{}", home.join(name).display());
    address.parse().expect("an address")
}

fn marked(address: &ListenAddr, mark: u8) -> Listen {
    Listen {
        mark: Mark(mark),
        ..Listen::plain(address.clone())
    }
}

fn options(listen: Vec<Listen>) -> FrontOptions {
    FrontOptions {
        listen,
        ..FrontOptions::sample(LimitKind::Fixed)
    }
}

#[test]
fn a_connection_carries_the_mark_that_its_listener_has_when_it_is_accepted() {
    let home = tempfile::tempdir().expect("a directory");
    let [first, second, third] = ["1", "2", "3"].map(|name| socket(home.path(), name));
    let mut kept = Kept::begin(options(vec![marked(&first, 1), marked(&second, 2)]));
    let (_one, origin) = kept.connect(&first, b"");
    assert_eq!(origin.mark, Mark(1));
    let (_two, origin) = kept.connect(&second, b"");
    assert_eq!(origin.mark, Mark(2));
    // The sockets stay open, and what their connections are to the door changes.
    let changed = options(vec![marked(&first, 2), marked(&second, 0), marked(&third, 7)]);
    let new = open(&changed.listen[2..]);
    kept.with(|door, cx| door.front.reload(cx, Arc::new(changed), new));
    for (address, mark) in [(&first, 2), (&second, 0), (&third, 7)] {
        let (_client, origin) = kept.connect(address, b"");
        assert_eq!(origin.mark, Mark(mark), "{address}");
    }
    let marks = kept.with(|door, _| door.kept.iter().map(|(_, origin)| origin.mark).collect::<Vec<_>>());
    assert_eq!(marks, [1, 2, 2, 0, 7].map(Mark), "those of before stay");
}

#[test]
fn a_connection_behind_a_proxy_carries_the_mark_of_its_listener_and_the_client_of_its_header() {
    let home = tempfile::tempdir().expect("a directory");
    let address = socket(home.path(), "1");
    let mut options = options(vec![marked(&address, 3)]);
    options.proxies = TrustedProxies {
        unix: true,
        ..TrustedProxies::default()
    };
    let mut kept = Kept::begin(options);
    let (_client, origin) = kept.connect(&address, b"PROXY TCP4 192.0.2.7 192.0.2.1 5 6\r\nhello");
    assert_eq!(origin.mark, Mark(3));
    assert_eq!(origin.asserted, Some(Asserted::Address(([192, 0, 2, 7], 5).into())));
}

/// A door that has no time for its clients after a stop, and this time after a hand-over, with one client.
fn replaced(home: &Path, old_generation_timeout: Option<Duration>) -> (Kept, UnixStream) {
    let address = socket(home, "1");
    let mut kept = Kept::begin(FrontOptions {
        stop_timeout: Duration::ZERO,
        old_generation_timeout,
        ..options(vec![Listen::plain(address.clone())])
    });
    let (client, _) = kept.connect(&address, b"");
    kept.with(|door, cx| door.hand_over(cx));
    (kept, client)
}

#[test]
fn after_a_hand_over_the_clients_of_a_door_have_the_time_of_an_old_generation_until_the_daemon_is_told_to_stop() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut kept, _client) = replaced(home.path(), Some(Duration::from_secs(3600)));
    for _ in 0..3 {
        kept.reactor.turn(Some(Instant::now())).expect("a turn");
    }
    assert_eq!(
        kept.with(|door, _| door.steps.clone()),
        [Shutdown::Drain { hasten: None }]
    );
    kept.with(|door, cx| door.drain(cx));
    kept.turn_until(|door| door.is_finished().then_some(()));
    let steps = kept.with(|door, _| door.steps.clone());
    assert!(
        matches!(steps[1..], [Shutdown::Drain { hasten: Some(_) }, Shutdown::Stop]),
        "{steps:?}"
    );
}

#[test]
fn after_a_hand_over_the_clients_of_other_doors_have_the_stop_timeout() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut kept, _client) = replaced(home.path(), None);
    kept.turn_until(|door| door.is_finished().then_some(()));
    assert_eq!(
        kept.with(|door, _| door.steps.clone()),
        [Shutdown::Drain { hasten: None }, Shutdown::Stop]
    );
}

#[test]
fn a_door_that_drains_gets_no_more_time_when_the_daemon_is_told_to_stop() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut kept, _client) = replaced(home.path(), Some(Duration::ZERO));
    kept.with(|door, cx| {
        let options = FrontOptions {
            stop_timeout: Duration::from_secs(3600),
            ..door.front.options().clone()
        };
        door.front.reload(cx, Arc::new(options), Vec::new());
        door.drain(cx);
    });
    kept.turn_until(|door| door.is_finished().then_some(()));
}
