//! The names in a certificate, and its end.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::{Decode, Error, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::{Certificate, TbsCertificate};

use crate::amount;

/// The type of a common name (CN).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The names that the authority of a certificate has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The whole subject, in the form of RFC 4514, in which control characters of ASCII are escaped.
    pub subject: String,
    /// The common names in the subject. Hardly any certificate has more than one.
    pub common_names: Vec<String>,
    /// The names of hosts. One may begin with `*.`, which stands for a label.
    pub dns: Vec<String>,
    /// The addresses of hosts.
    pub addresses: Vec<IpAddr>,
    /// The URIs, such as those of SPIFFE.
    pub uris: Vec<String>,
    /// The addresses of e-mail.
    pub emails: Vec<String>,
    /// The moment at which the certificate expires.
    pub not_after: SystemTime,
}

/// The reason why the names of a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate is malformed ({})", self.0)
    }
}

impl From<Error> for Malformed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl Names {
    /// Reads the names of a certificate in DER. Nothing is verified.
    ///
    /// # Errors
    /// It is no certificate, or one whose names have no proper form.
    pub fn read(certificate: &[u8]) -> Result<Self, Malformed> {
        let certificate = Certificate::from_der(certificate)?.tbs_certificate;
        let mut names = Self {
            subject: certificate.subject.to_string(),
            common_names: common_names(&certificate),
            dns: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            not_after: UNIX_EPOCH + certificate.validity.not_after.to_unix_duration(),
        };
        for name in alternative_names(&certificate)? {
            match name {
                GeneralName::DnsName(name) => names.dns.push(name.to_string()),
                GeneralName::UniformResourceIdentifier(name) => names.uris.push(name.to_string()),
                GeneralName::Rfc822Name(name) => names.emails.push(name.to_string()),
                GeneralName::IpAddress(name) => names.addresses.extend(address(name.as_bytes())),
                // The forms that no one uses.
                _ => {}
            }
        }
        Ok(names)
    }

    /// Returns the names by which a client may ask for the certificate of a server.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        if self.dns.is_empty() {
            &self.common_names
        } else {
            &self.dns
        }
    }

    /// Returns the names and the addresses of the hosts that the certificate is for, for the log.
    #[must_use]
    pub fn all_hosts(&self) -> Vec<String> {
        if self.dns.is_empty() && self.addresses.is_empty() {
            return self.common_names.clone();
        }
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.dns.iter().cloned().chain(addresses).collect()
    }

    /// Returns the number of whole days until the certificate expires; `None` if it has expired.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> Option<u64> {
        let left = self.not_after.duration_since(now).ok()?;
        Some(left.as_secs() / DAY.as_secs())
    }

    /// Returns the day on which the certificate expires, as `2027-01-31`.
    #[must_use]
    pub fn last_day(&self) -> String {
        let mut day = amount::moment(self.not_after, humantime::format_rfc3339_seconds);
        day.truncate(10);
        day
    }
}

fn common_names(certificate: &TbsCertificate) -> Vec<String> {
    let attributes = certificate.subject.0.iter().flat_map(|names| names.0.iter());
    attributes.filter_map(common_name).collect()
}

fn common_name(attribute: &AttributeTypeAndValue) -> Option<String> {
    (attribute.oid == COMMON_NAME).then(|| text(&attribute.value)).flatten()
}

/// The text in a value of one of the types of strings that are in use.
fn text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok()?.to_string(),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok()?.to_string(),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok()?.to_string(),
        Tag::TeletexString => TeletexStringRef::try_from(value).ok()?.to_string(),
        _ => return None,
    };
    Some(text)
}

/// An address as it stands in a certificate: 4 bytes, or 16.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn alternative_names(certificate: &TbsCertificate) -> Result<Vec<GeneralName>, Error> {
    let extension = certificate.get::<SubjectAltName>()?;
    Ok(extension.map(|(_, names)| names.0).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, SanType, date_time_ymd};

    use super::super::scaffold::Authority;
    use super::*;

    fn named(params: &CertificateParams) -> Names {
        Names::read(&Authority::new().sign(params).0).unwrap()
    }

    #[test]
    fn each_kind_of_name_is_found() {
        let mut params = CertificateParams::new(vec!["a.example".into(), "*.b.example".into(), "::1".into()]).unwrap();
        params.subject_alt_names.extend([
            SanType::URI("spiffe://farm/squid".try_into().unwrap()),
            SanType::Rfc822Name("root@a.example".try_into().unwrap()),
        ]);
        params.distinguished_name.push(DnType::OrganizationName, "A, Inc.");
        params.distinguished_name.push(DnType::CommonName, "squid-1");
        params.not_after = date_time_ymd(2027, 1, 31);
        let names = named(&params);
        assert_eq!(names.subject, "O=A\\, Inc.,CN=squid-1");
        assert_eq!(names.common_names, ["squid-1"]);
        assert_eq!(names.dns, ["a.example", "*.b.example"]);
        assert_eq!(names.addresses, ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(names.hosts(), names.dns);
        assert_eq!(names.all_hosts(), ["a.example", "*.b.example", "::1"]);
        assert_eq!(names.uris, ["spiffe://farm/squid"]);
        assert_eq!(names.emails, ["root@a.example"]);
        assert_eq!(names.last_day(), "2027-01-31");
    }

    #[test]
    fn a_certificate_without_alternative_names_is_for_its_common_name() {
        for value in [
            DnValue::Utf8String("tür".into()),
            DnValue::PrintableString("tuer".try_into().unwrap()),
            DnValue::Ia5String("tuer".try_into().unwrap()),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, value.clone());
            let hosts = named(&params).hosts().to_vec();
            let expected = if let DnValue::Utf8String(name) = value {
                name
            } else {
                "tuer".into()
            };
            assert_eq!(hosts, [expected]);
        }
    }

    #[test]
    fn a_certificate_for_addresses_alone_is_shown_with_them() {
        let mut params = CertificateParams::new(vec!["192.0.2.7".into(), "2001:db8::7".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a host");
        assert_eq!(named(&params).all_hosts(), ["192.0.2.7", "2001:db8::7"]);
        params.subject_alt_names.clear();
        assert_eq!(named(&params).all_hosts(), ["a host"]);
    }

    #[test]
    fn a_name_of_an_odd_type_is_shown_and_matches_nothing() {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, DnValue::BmpString("a".try_into().unwrap()));
        let names = named(&params);
        assert_eq!(names.subject, "2.5.4.3=#1e020061");
        assert!(names.hosts().is_empty());
    }

    #[test]
    fn control_characters_of_a_subject_are_escaped() {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "a\nERROR fake\u{7f}");
        assert_eq!(named(&params).subject, "CN=a\\0aERROR fake\\7f");
    }

    #[test]
    fn the_end_is_counted_in_whole_days() {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(2027, 1, 31);
        let names = named(&params);
        let end = names.not_after;
        assert_eq!(names.days_left(end - 14 * DAY), Some(14));
        assert_eq!(names.days_left(end - 14 * DAY + Duration::from_secs(1)), Some(13));
        assert_eq!(names.days_left(end), Some(0));
        assert_eq!(names.days_left(end + Duration::from_secs(1)), None);
    }

    #[test]
    fn anything_else_is_no_certificate() {
        let certificate = Authority::new().certify(&["a"]).0;
        for length in 0..certificate.len() {
            assert!(Names::read(&certificate[..length]).is_err());
        }
        let error = Names::read(b"-----BEGIN").unwrap_err();
        assert!(
            error.to_string().starts_with("the certificate is malformed ("),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_certificate_ends_nothing_but_itself() {
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "squid-1");
        let certificate = Authority::new().sign(&params).0.to_vec();
        let (mut read, mut refused) = (0, 0);
        for place in 0..certificate.len() {
            for bit in 0..8 {
                let mut damaged = certificate.clone();
                damaged[place] ^= 1 << bit;
                match Names::read(&damaged) {
                    Ok(names) => {
                        assert!(!names.subject.contains(|c: char| c.is_ascii_control()), "{names:?}");
                        assert!(names.last_day().len() == 10, "{names:?}");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(read > 0 && refused > 0, "{read} {refused}");
    }
}
