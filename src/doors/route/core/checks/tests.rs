//! The turns of subjects, and the servers for which an answer counts.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn network(host: &str, port: u16) -> Address {
    Address::Network {
        host: host.into(),
        port,
    }
}

fn servers(addresses: &[Address]) -> Option<Arc<Servers>> {
    let list = addresses.iter().map(|address| Server {
        address: address.clone(),
        weight: 1,
    });
    Some(Arc::new(Servers {
        list: list.collect(),
        balance: Default::default(),
    }))
}

fn check(question: Question, port: Option<u16>) -> Check {
    Check {
        question,
        port,
        interval: 10 * SECOND,
        timeout: SECOND,
    }
}

/// The addresses that are asked, each with the servers that the answer is for.
fn found(tls: &[Address], http: &[Address], check: Check) -> Vec<(String, Vec<String>)> {
    let (tls, http) = (servers(tls), servers(http));
    let mut rule = super::super::table::tests::rule_to(&Arc::default());
    rule.target = Target::Servers { tls, http };
    asked(&rule, &check)
        .into_iter()
        .map(|(address, told)| {
            let mut told: Vec<_> = told
                .iter()
                .map(|told| format!("{:?} {}", told.way, told.address))
                .collect();
            told.sort();
            (address.to_string(), told)
        })
        .collect()
}

fn expected(rows: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let row =
        |(address, told): &(&str, &[&str])| ((*address).to_owned(), told.iter().map(|told| (*told).into()).collect());
    rows.iter().map(row).collect()
}

#[test]
fn a_check_of_tcp_asks_each_port_for_itself() {
    let found = found(
        &[network("a", 443), network("b", 443)],
        &[network("a", 80)],
        check(Question::Tcp, None),
    );
    let rows: [(&str, &[&str]); 3] = [
        ("a:80", &["Http a:80"]),
        ("a:443", &["Tls a:443"]),
        ("b:443", &["Tls b:443"]),
    ];
    assert_eq!(found, expected(&rows));
}

#[test]
fn a_check_of_http_asks_the_port_for_http_on_behalf_of_that_for_tls() {
    let get = || Question::Http("/".into());
    let (tls, http) = (
        [network("a", 443), network("b", 443)],
        [network("a", 80), network("b", 80)],
    );
    let rows: [(&str, &[&str]); 2] = [
        ("a:80", &["Http a:80", "Tls a:443"]),
        ("b:80", &["Http b:80", "Tls b:443"]),
    ];
    assert_eq!(found(&tls, &http, check(get(), None)), expected(&rows));
    // Two servers of one host, which their ports tell apart.
    let both = [network("a", 8080), network("a", 8081)];
    let rows: [(&str, &[&str]); 2] = [
        ("a:8080", &["Http a:8080", "Tls a:8080"]),
        ("a:8081", &["Http a:8081", "Tls a:8081"]),
    ];
    assert_eq!(found(&both, &both, check(get(), None)), expected(&rows));
    let rows: [(&str, &[&str]); 2] = [("a:8080", &["Http a:8080"]), ("a:8081", &["Http a:8081"])];
    assert_eq!(found(&[network("a", 443)], &both, check(get(), None)), expected(&rows));
    // A port of its own is that of the host.
    let rows: [(&str, &[&str]); 1] = [("a:9", &["Http a:8080", "Http a:8081", "Tls a:443"])];
    assert_eq!(
        found(&[network("a", 443)], &both, check(get(), Some(9))),
        expected(&rows)
    );
    let socket = [Address::Unix("/run/web".into())];
    let rows: [(&str, &[&str]); 1] = [("unix:/run/web", &["Http unix:/run/web", "Tls unix:/run/web"])];
    assert_eq!(found(&socket, &socket, check(get(), None)), expected(&rows));
}

fn subject(host: &str, interval: Duration) -> Subject {
    let address = network(host, 80);
    Subject {
        service: host.into(),
        number: 0,
        check: Arc::new(Check {
            interval,
            ..check(Question::Tcp, None)
        }),
        address: Arc::new(address.clone()),
        send_proxy: None,
        told: vec![Told {
            way: Way::Http,
            servers: servers(std::slice::from_ref(&address)).unwrap(),
            address: Arc::new(address),
        }],
    }
}

#[test]
fn a_subject_is_asked_soon_and_then_at_its_interval() {
    let start = Instant::now();
    let mut checker = Checker::new(1);
    assert_eq!(checker.next_time(), None);
    checker.replace(&[subject("a", 10 * SECOND)], start);
    let first = checker.next_time().expect("a time");
    assert!(first >= start && first < start + FIRST);
    assert!(checker.begin(first - Duration::from_millis(1)).is_none());
    let (id, _) = checker.begin(first).expect("a subject");
    assert!(checker.begin(first + SECOND).is_none(), "once at a time");
    assert!(checker.end(id, &Outcome::Passed, first + SECOND).is_some());
    let next = checker.next_time().expect("a time");
    assert!(next >= first + 10 * SECOND && next <= first + 12 * SECOND);
    let (id, _) = checker.begin(next).expect("a subject");
    assert!(checker.end(id, &Outcome::Unknown, next).is_some());
    assert!(checker.next_time() <= Some(next + AGAIN), "nothing was found out");
    assert!(
        checker.end(id, &Outcome::Passed, next).is_none(),
        "it is not being asked"
    );
}

#[test]
fn a_new_table_keeps_the_times_of_the_subjects_that_stay() {
    let start = Instant::now();
    let mut checker = Checker::new(1);
    checker.replace(&[subject("a", 10 * SECOND), subject("b", 10 * SECOND)], start);
    let later = start + 2 * SECOND;
    let (first, _) = checker.begin(later).expect("a subject");
    let (second, _) = checker.begin(later).expect("a subject");
    checker.end(first, &Outcome::Passed, later);
    let time = checker.next_time();
    let gone = checker.replace(&[subject("a", 10 * SECOND), subject("c", 10 * SECOND)], later);
    assert_eq!(gone, [subject("b", 10 * SECOND)]);
    assert_eq!(checker.count(), 2);
    let (of_a, of_b) = match checker.end(second, &Outcome::Passed, later) {
        None => (first, second),
        Some(_) => (second, first),
    };
    assert!(
        checker.end(of_b, &Outcome::Passed, later).is_none(),
        "its outcome counts for nothing"
    );
    if of_a == first {
        assert!(time.is_some());
    }
    // A shorter interval counts at once.
    checker.replace(&[subject("a", SECOND)], later);
    assert!(checker.next_time() < Some(later + FIRST));
}

#[test]
fn a_server_that_a_newer_table_does_not_have_checked_any_more_is_given_back_although_its_host_stays() {
    let start = Instant::now();
    let mut checker = Checker::new(1);
    let mut both = subject("a", SECOND);
    let other = Told {
        way: Way::Tls,
        ..both.told[0].clone()
    };
    both.told.push(other.clone());
    checker.replace(std::slice::from_ref(&both), start);
    assert_eq!(checker.replace(std::slice::from_ref(&both), start), []);
    let left = checker.replace(&[subject("a", SECOND)], start);
    let told = vec![other];
    assert_eq!(left, [Subject { told, ..both }]);
}

/// The answer to the old question may come after the change.
#[test]
fn an_answer_does_not_count_for_another_question_than_was_asked() {
    let start = Instant::now();
    let later = start + 20 * SECOND;
    let mut checker = Checker::new(1);
    checker.replace(&[subject("a", SECOND)], start);
    let (asked, _) = checker.begin(later).expect("its turn");
    let by_http = Subject {
        check: Arc::new(Check {
            interval: SECOND,
            ..check(Question::Http("/".into()), None)
        }),
        ..subject("a", SECOND)
    };
    assert_eq!(checker.replace(std::slice::from_ref(&by_http), later), []);
    assert_eq!(checker.end(asked, &Outcome::Passed, later), None);
    assert_eq!(checker.count(), 1);
    let (again, subject) = checker.begin(later + 20 * SECOND).expect("its turn");
    assert_eq!(subject, &by_http);
    // The same question with other times goes on.
    let slower = Subject {
        check: Arc::new(Check {
            interval: 5 * SECOND,
            ..(*by_http.check).clone()
        }),
        ..by_http
    };
    checker.replace(std::slice::from_ref(&slower), later + 20 * SECOND);
    assert!(checker.end(again, &Outcome::Passed, later + 20 * SECOND).is_some());
}

#[test]
fn the_last_thing_found_out_stays_with_the_time_since_when_it_is_so() {
    let start = Instant::now();
    let mut checker = Checker::new(1);
    checker.replace(&[subject("a", SECOND)], start);
    let found = |checker: &Checker| checker.views().next().expect("a subject").1.cloned();
    assert_eq!(found(&checker), None);
    let failed = |why: &str| Outcome::Failed(why.to_owned());
    let rows = [
        (Outcome::Unknown, None),
        (Outcome::Passed, Some((None, 1))),
        (Outcome::Unknown, Some((None, 1))),
        (failed("x"), Some((Some("x"), 3))),
        (failed("y"), Some((Some("y"), 3))),
        (Outcome::Passed, Some((None, 5))),
    ];
    for (number, (outcome, expected)) in (0_u32..).zip(rows) {
        let now = start + 10 * SECOND * number;
        let (id, _) = checker.begin(now + SECOND).expect("a subject");
        checker.end(id, &outcome, now);
        let expected = expected.map(|(fault, since): (Option<&str>, u32)| Found {
            fault: fault.map(str::to_owned),
            since: start + 10 * SECOND * since,
        });
        assert_eq!(found(&checker), expected, "row {number}");
    }
}

proptest! {
    /// Whatever happens in whatever order, the lists agree, a few are asked at a time, and every subject gets its turn.
    #[test]
    fn every_subject_gets_its_turn(steps in prop::collection::vec((0..4_u8, any::<u16>()), 1..200)) {
        let mut checker = Checker::new(7);
        let mut now = Instant::now();
        let outcomes = [Outcome::Passed, Outcome::Unknown, Outcome::Failed("no".to_owned())];
        let mut asked: Vec<CheckId> = Vec::new();
        for (kind, number) in steps {
            match kind {
                0 => {
                    let subjects: Vec<_> = (0..number % 60).map(|host| subject(&host.to_string(), SECOND)).collect();
                    checker.replace(&subjects, now);
                    prop_assert_eq!(checker.count(), subjects.len());
                }
                1 => now += Duration::from_millis(u64::from(number % 3000)),
                2 => {
                    while let Some((id, _)) = checker.begin(now) {
                        prop_assert!(!asked.contains(&id));
                        asked.push(id);
                    }
                }
                _ if asked.is_empty() => {}
                _ => {
                    let id = asked.swap_remove(usize::from(number) % asked.len());
                    checker.end(id, &outcomes[usize::from(number % 3)], now);
                }
            }
            let is_asked = |entry: &&Entry| entry.state == State::Asked;
            prop_assert_eq!(checker.entries.values().filter(is_asked).count(), checker.asked);
            prop_assert!(checker.asked <= MOST);
            prop_assert_eq!(checker.waiting.len() + checker.asked, checker.count());
            prop_assert_eq!(checker.places.len(), checker.count());
        }
        // All that are asked end, and then each has its turn within its interval.
        asked.drain(..).for_each(|id| { checker.end(id, &Outcome::Passed, now); });
        let mut seen = BTreeSet::new();
        let end = now + 2 * SECOND;
        while let Some(time) = checker.next_time().filter(|time| *time <= end) {
            now = now.max(time);
            let (id, _) = checker.begin(now).expect("a subject whose time has come");
            seen.insert(id);
            checker.end(id, &Outcome::Passed, now);
        }
        prop_assert_eq!(seen.len(), checker.count());
    }
}
