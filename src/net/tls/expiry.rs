//! The ends of certificates, and of the answers of OCSP that are sent along, as the days pass.
//!
//! The log speaks of a certificate from two weeks before its end on: at the start, and then each time a day less is
//! left, or a day more is over. Ends are moments of the calendar, which an administrator may set to another time. So
//! the days are counted at each look, and there is a look every day at the latest.

use std::time::{Duration, SystemTime};

use log::Level;

use super::files::{Remark, answer_file};
use super::identity::Identity;

/// The number of days before the end of a certificate from which on the log warns of it.
const WARN_FROM: u64 = 14;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The record of what the log has said about the ends of one certificate and of its answer of OCSP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expiry {
    /// The number of days left that the log has named last. `None` if it has named none.
    told: Option<i64>,
    /// True if the log has said that the answer is too old.
    is_answer_told: bool,
}

/// The outcome of a look at an identity.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    /// The lines that the log should have now.
    pub remarks: Vec<Remark>,
    /// The time after which there may be something to say again: more than zero, and at most a day.
    pub again: Duration,
}

impl Expiry {
    /// Returns what the log should say about an identity, at the moment `now`. The next look is due after
    /// [`again`](Look::again).
    pub fn look(&mut self, identity: &Identity, now: SystemTime) -> Look {
        let (left, until_next) = days_until(identity.names().not_after, now);
        let is_known = self.told.is_some_and(|told| left == told || left == told + 1);
        let mut remarks: Vec<Remark> = match remark_on_end(identity, now) {
            // The clock may have been set back by less than a day.
            Some(_) if is_known => Vec::new(),
            remark => {
                self.told = remark.is_some().then_some(left);
                remark.into_iter().collect()
            }
        };
        let is_near = left <= i64::try_from(WARN_FROM).unwrap_or(i64::MAX) + 1;
        let mut again = if is_near { until_next } else { DAY };
        if let Some(until) = identity.answer_until().filter(|_| !self.is_answer_told) {
            match until.duration_since(now) {
                Ok(left) => again = again.min(left + Duration::from_secs(1)),
                Err(_) => {
                    self.is_answer_told = true;
                    remarks.push(Remark::too_old(identity));
                }
            }
        }
        Look { remarks, again }
    }

    /// The record for a certificate that is shown as before, with a new answer of OCSP.
    #[must_use]
    pub const fn with_new_answer(self) -> Self {
        Self {
            is_answer_told: false,
            ..self
        }
    }
}

impl Remark {
    fn too_old(identity: &Identity) -> Self {
        let file = answer_file(identity.file());
        Self {
            level: Level::Warn,
            text: format!(
                "OCSP answer {} is not sent along any more: it is too old",
                file.display()
            ),
        }
    }
}

/// Returns the number of whole days until the end, which is negative behind it, and the time after which it is one less.
fn days_until(end: SystemTime, now: SystemTime) -> (i64, Duration) {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let left = match end.duration_since(now) {
        Ok(left) => seconds(left),
        Err(over) => {
            let over = over.duration();
            -seconds(over) - i64::from(over.subsec_nanos() > 0)
        }
    };
    let day = seconds(DAY);
    let rest = Duration::from_secs(left.rem_euclid(day).unsigned_abs());
    (left.div_euclid(day), rest + Duration::from_secs(1))
}

/// Returns what the log should say about the end of a certificate: an error if it has expired, a warning if it will
/// soon.
#[must_use]
pub fn remark_on_end(identity: &Identity, now: SystemTime) -> Option<Remark> {
    let (file, names) = (identity.file().display(), identity.names());
    let day = names.last_day();
    let (level, text) = match names.days_left(now) {
        Some(days) if days > WARN_FROM => return None,
        Some(0) => (
            Level::Warn,
            format!("certificate {file} expires within a day, on {day}"),
        ),
        Some(1) => (Level::Warn, format!("certificate {file} expires in 1 day, on {day}")),
        Some(days) => (
            Level::Warn,
            format!("certificate {file} expires in {days} days, on {day}"),
        ),
        None => (
            Level::Error,
            format!("certificate {file} has expired on {day}: clients refuse it"),
        ),
    };
    Some(Remark { level, text })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::ocsp::tests::{good, until};
    use super::super::scaffold::Authority;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A certificate that ends in 2027, with the serial number 5.
    fn identity() -> Identity {
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.serial_number = Some(5_u64.into());
        params.not_after = rcgen::date_time_ymd(2027, 2, 28);
        let (certificate, key) = Authority::new().sign_pem(&params, &rcgen::KeyPair::generate().unwrap());
        Identity::from_pem(Path::new("a.pem"), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn end(identity: &Identity) -> SystemTime {
        identity.names().not_after
    }

    fn texts(look: Look) -> Vec<String> {
        look.remarks.into_iter().map(|remark| remark.text).collect()
    }

    /// The lines from two times on, each with the moment, in days before the end, as a daemon that looks when it should
    /// has them.
    fn lines(identity: &Identity, from: SystemTime, until: SystemTime) -> Vec<(SystemTime, String)> {
        let (mut expiry, mut now, mut lines) = (Expiry::default(), from, Vec::new());
        let mut looks = 0;
        while now <= until {
            let look = expiry.look(identity, now);
            assert!(look.again > Duration::ZERO && look.again <= DAY, "{:?}", look.again);
            let again = look.again;
            lines.extend(texts(look).into_iter().map(|text| (now, text)));
            now += again;
            looks += 1;
        }
        let days = until.duration_since(from).unwrap().as_secs() / DAY.as_secs();
        assert!(looks <= days + 3, "{looks} looks in {days} days");
        lines
    }

    #[test]
    fn the_log_speaks_of_the_end_from_two_weeks_on() {
        let identity = identity();
        let end = end(&identity);
        for (now, expected) in [
            (end - 15 * DAY, None),
            (end - 14 * DAY, Some((Level::Warn, "expires in 14 days, on 2027-02-28"))),
            (end - DAY, Some((Level::Warn, "expires in 1 day, on 2027-02-28"))),
            (end, Some((Level::Warn, "expires within a day, on 2027-02-28"))),
            (
                end + DAY,
                Some((Level::Error, "has expired on 2027-02-28: clients refuse it")),
            ),
        ] {
            let expected = expected.map(|(level, end)| Remark {
                level,
                text: format!("certificate a.pem {end}"),
            });
            assert_eq!(remark_on_end(&identity, now), expected);
        }
    }

    #[test]
    fn a_daemon_that_runs_for_months_has_a_line_a_day_from_two_weeks_on() {
        let identity = identity();
        let end = end(&identity);
        let lines = lines(&identity, end - 60 * DAY - Duration::from_secs(5000), end + 3 * DAY);
        let (times, texts): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
        let numbered = (2..15).rev().map(|days| format!("expires in {days} days"));
        let mut expected: Vec<String> = numbered.collect();
        expected.extend(["expires in 1 day,".to_owned(), "expires within a day".to_owned()]);
        expected.resize(18, "has expired on".to_owned());
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, expected) in texts.iter().zip(&expected) {
            assert!(text.contains(expected.as_str()), "{text:?} has no {expected:?}");
        }
        assert_eq!(
            times.first(),
            Some(&(end - 15 * DAY + SECOND)),
            "the moment at which the two weeks begin"
        );
        for pair in times.windows(2) {
            assert_eq!(pair[1].duration_since(pair[0]).unwrap(), DAY);
        }
        assert_eq!(
            times.get(15),
            Some(&(end + SECOND)),
            "the error comes at the end, and not hours later"
        );
    }

    #[test]
    fn a_daemon_that_is_started_in_the_last_days_warns_at_once() {
        let identity = identity();
        let end = end(&identity);
        let lines = lines(&identity, end - 3 * DAY / 2, end);
        let texts: Vec<_> = lines.into_iter().map(|(_, text)| text).collect();
        assert_eq!(
            texts,
            [
                "certificate a.pem expires in 1 day, on 2027-02-28",
                "certificate a.pem expires within a day, on 2027-02-28"
            ]
        );
    }

    #[test]
    fn a_clock_that_jumps_makes_no_line_twice_and_loses_none() {
        let identity = identity();
        let end = end(&identity);
        let mut expiry = Expiry::default();
        let mut said = |now| !expiry.look(&identity, now).remarks.is_empty();
        assert!(said(end - 5 * DAY));
        assert!(!said(end - 5 * DAY + SECOND - SECOND), "a look that comes too early");
        assert!(said(end - 5 * DAY + SECOND));
        assert!(!said(end - 5 * DAY), "the clock was set back by a second");
        assert!(!said(end - 5 * DAY + SECOND), "and has caught up");
        assert!(said(end + 100 * DAY), "it was set to another year");
        assert!(said(end - 2 * DAY), "and back");
        assert!(!said(end - 40 * DAY), "it was wrong by weeks");
        assert!(said(end - 10 * DAY));
        let look = Expiry::default().look(&identity, SystemTime::UNIX_EPOCH);
        assert_eq!((look.remarks, look.again), (Vec::new(), DAY));
    }

    #[test]
    fn the_end_of_an_answer_of_ocsp_is_told_once() {
        let mut identity = identity();
        identity.staple(good(&[5]), until() - 2 * DAY).unwrap();
        let mut expiry = Expiry::default();
        let mut look = |now| {
            let look = expiry.look(&identity, now);
            (look.again, texts(look))
        };
        assert_eq!(look(until() - 2 * DAY), (DAY, Vec::new()));
        assert_eq!(look(until() - 100 * SECOND), (101 * SECOND, Vec::new()));
        assert_eq!(look(until()), (SECOND, Vec::new()));
        let told = "OCSP answer a.pem.ocsp is not sent along any more: it is too old".to_owned();
        assert_eq!(look(until() + SECOND), (DAY, vec![told.clone()]));
        assert_eq!(look(until() + DAY), (DAY, Vec::new()));
        expiry = expiry.with_new_answer();
        assert_eq!(texts(expiry.look(&identity, until() + DAY)), [told]);
    }
}
