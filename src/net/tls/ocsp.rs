//! The word of an authority that a certificate is not revoked (RFC 6960), which a server sends along with it.
//!
//! Only the parts are looked at that decide if the answer is of any use: the certificate it is about, the verdict, and
//! the end of its time. The client checks the signature, because the answer matters to the client alone.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, GeneralizedTime};
use x509_cert::der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};

/// The reason why an answer is not sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Useless {
    /// It is no answer of OCSP, or one without a verdict.
    Malformed,
    /// It is about other certificates.
    Other,
    /// The verdict is that the certificate is revoked, or that the authority does not know it.
    NotGood,
    /// It was of use until this moment.
    Old(SystemTime),
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no answer of OCSP in DER",
            Self::Other => "it is about another certificate",
            Self::NotGood => "it does not say that the certificate is good",
            Self::Old(_) => "it is too old",
        })
    }
}

/// Returns the moment until which an answer in DER says that the certificate is good.
///
/// # Errors
/// It does not say so at the moment `now`.
pub fn good_until(answer: &[u8], certificate: &[u8], now: SystemTime) -> Result<SystemTime, Useless> {
    let verdicts = verdicts(answer).ok_or(Useless::Malformed)?;
    let certificate = Certificate::from_der(certificate).map_err(|_| Useless::Malformed)?;
    let serial = without_zeros(certificate.tbs_certificate.serial_number.as_bytes());
    let verdict = verdicts
        .iter()
        .find(|verdict| verdict.serial == serial)
        .ok_or(Useless::Other)?;
    if !verdict.is_good {
        return Err(Useless::NotGood);
    }
    // Without it, "newer information is available all the time": such an answer would be of use for ever.
    let until = verdict.next_update.ok_or(Useless::Malformed)?;
    if until < now {
        Err(Useless::Old(until))
    } else {
        Ok(until)
    }
}

/// The verdict about a certificate of one authority.
struct Verdict<'a> {
    serial: &'a [u8],
    is_good: bool,
    next_update: Option<SystemTime>,
}

/// The verdicts in an answer.
///
/// ```text
/// OCSPResponse      { status, [0] { { type, OCTET STRING of BasicOCSPResponse } } }
/// BasicOCSPResponse { { [0] version?, [1] or [2] responder, time, { SingleResponse ... }, ... }, signature ... }
/// SingleResponse    { { algorithm, hash, hash, serial }, [0] good or [1] revoked or [2] unknown, time, [0] { time }?, ... }
/// ```
fn verdicts(answer: &[u8]) -> Option<Vec<Verdict<'_>>> {
    let answer = parts(first_in(answer, Tag::Sequence)?)?;
    let typed = first_in(find(&answer, context(TagNumber::N0))?, Tag::Sequence)?;
    let basic = first_in(find(&parts(typed)?, Tag::OctetString)?, Tag::Sequence)?;
    let signed = parts(first_in(basic, Tag::Sequence)?)?;
    let singles = parts(find(&signed, Tag::Sequence)?)?;
    singles.iter().map(|single| verdict(single.value())).collect()
}

fn verdict(single: &[u8]) -> Option<Verdict<'_>> {
    let single = parts(single)?;
    let [certificate, status, _this_update, others @ ..] = &single[..] else {
        return None;
    };
    let next_update = match find(others, context(TagNumber::N0)) {
        Some(time) => Some(moment(time)?),
        None => None,
    };
    Some(Verdict {
        serial: without_zeros(parts(certificate.value())?.last()?.value()),
        is_good: matches!(
            status.tag(),
            Tag::ContextSpecific {
                number: TagNumber::N0,
                ..
            }
        ),
        next_update,
    })
}

fn moment(bytes: &[u8]) -> Option<SystemTime> {
    let time = GeneralizedTime::from_der(bytes).ok()?;
    Some(UNIX_EPOCH + time.to_unix_duration())
}

const fn context(number: TagNumber) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number,
    }
}

/// The values that stand behind each other in these bytes.
fn parts(bytes: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(parts)
}

/// The contents of the first value with this tag.
fn find<'a>(parts: &[AnyRef<'a>], tag: Tag) -> Option<&'a [u8]> {
    let found = parts.iter().find(|part| part.tag() == tag);
    found.map(|part| part.value())
}

fn first_in(bytes: &[u8], tag: Tag) -> Option<&[u8]> {
    find(&parts(bytes)?, tag)
}

/// A number in DER may begin with a zero, which says that it is not negative.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::scaffold::Authority;
    use super::*;

    /// The moment until which the answers here are of use.
    const UNTIL: &[u8] = b"20270131120000Z";

    pub(in super::super) fn until() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_801_396_800)
    }

    fn value(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
        let contents = contents.concat();
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        let length = match length {
            [0, length @ ..0x80] => vec![length],
            [0, length] => vec![0x81, length],
            [high, low] => vec![0x82, high, low],
        };
        [vec![tag], length, contents].concat()
    }

    /// The verdict about a certificate: its serial number, the tag of the status, and the end.
    type Single<'a> = (&'a [u8], u8, Option<&'a [u8]>);

    fn answer(singles: &[Single<'_>]) -> Vec<u8> {
        let this_update = value(0x18, &[b"20261130120000Z"]);
        let single = |(serial, status, until): &Single<'_>| {
            let algorithm = value(0x30, &[&value(0x06, &[&[0x2b, 0x0e, 3, 2, 0x1a]])]);
            let hash = value(0x04, &[&[7; 20]]);
            let certificate = value(0x30, &[&algorithm, &hash, &hash, &value(0x02, &[serial])]);
            let until = until.map_or(Vec::new(), |until| value(0xa0, &[&value(0x18, &[until])]));
            value(0x30, &[&certificate, &value(*status, &[]), &this_update, &until])
        };
        let singles: Vec<u8> = singles.iter().flat_map(single).collect();
        let responder = value(0xa2, &[&value(0x04, &[&[7; 20]])]);
        let signed = value(0x30, &[&responder, &this_update, &value(0x30, &[&singles])]);
        let basic = value(0x30, &[&signed, &value(0x30, &[]), &value(0x03, &[&[0; 65]])]);
        let kind = value(0x06, &[&[0x2b, 6, 1, 5, 5, 7, 48, 1, 1]]);
        let typed = value(0x30, &[&kind, &value(0x04, &[&basic])]);
        value(0x30, &[&value(0x0a, &[&[0]]), &value(0xa0, &[&typed])])
    }

    /// An answer that a certificate with this serial number is good.
    pub(in super::super) fn good(serial: &[u8]) -> Vec<u8> {
        answer(&[(serial, GOOD, Some(UNTIL))])
    }

    /// An answer that a certificate with this serial number is revoked.
    pub(in super::super) fn revoked(serial: &[u8]) -> Vec<u8> {
        answer(&[(serial, REVOKED, Some(UNTIL))])
    }

    const GOOD: u8 = 0x80;
    const REVOKED: u8 = 0xa1;
    const UNKNOWN: u8 = 0x82;

    /// A certificate with this serial number.
    fn numbered(serial: &[u8]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(serial.to_vec().into());
        Authority::new().sign(&params).0.to_vec()
    }

    #[test]
    fn the_verdict_about_the_certificate_counts() {
        let certificate = numbered(&[0x90, 5]);
        let (number, other) = (&[0, 0x90, 5][..], &[5][..]);
        for (singles, expected) in [
            (&[(number, GOOD, Some(UNTIL))][..], Ok(until())),
            (&[(other, REVOKED, None), (number, GOOD, Some(UNTIL))], Ok(until())),
            (&[(number, REVOKED, Some(UNTIL))], Err(Useless::NotGood)),
            (&[(number, UNKNOWN, Some(UNTIL))], Err(Useless::NotGood)),
            (&[(other, GOOD, Some(UNTIL))], Err(Useless::Other)),
            (&[], Err(Useless::Other)),
            (&[(number, GOOD, None)], Err(Useless::Malformed)),
            (&[(number, GOOD, Some(b"tomorrow"))], Err(Useless::Malformed)),
        ] {
            assert_eq!(good_until(&answer(singles), &certificate, until()), expected);
        }
    }

    #[test]
    fn an_old_answer_is_of_no_use() {
        let (certificate, answer) = (numbered(&[5]), answer(&[(&[5], GOOD, Some(UNTIL))]));
        let later = until() + Duration::from_secs(1);
        assert_eq!(good_until(&answer, &certificate, later), Err(Useless::Old(until())));
    }

    #[test]
    fn anything_else_is_no_answer() {
        let (certificate, answer) = (numbered(&[5]), answer(&[(&[5], GOOD, Some(UNTIL))]));
        for length in 0..answer.len() {
            assert_eq!(
                good_until(&answer[..length], &certificate, until()),
                Err(Useless::Malformed)
            );
        }
        // The authority refuses to answer: tryLater.
        assert_eq!(
            good_until(&[0x30, 3, 0x0a, 1, 3], &certificate, until()),
            Err(Useless::Malformed)
        );
        for place in 0..answer.len() {
            let mut damaged = answer.clone();
            damaged[place] ^= 0xff;
            let _ = good_until(&damaged, &certificate, until());
        }
    }
}
