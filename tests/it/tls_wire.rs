//! Messages of TLS made by hand, as no proper client sends them: in the clear ([`Hello`], [`record`]), and encrypted with
//! the keys of a proper client ([`Forger`]).

use std::io::Write;
use std::net::TcpStream;

use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, StreamOwned, SupportedCipherSuite,
};

pub(crate) const CHANGE_CIPHER: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;
pub(crate) const HEARTBEAT: u8 = 24;

pub(crate) const TLS_1_2: u16 = 0x0303;

/// An alert with this level and this description.
pub(crate) const fn alert(level: u8, description: u8) -> [u8; 2] {
    [level, description]
}

/// A record in the clear.
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1], &length[..], payload].concat()
}

/// A message of the handshake, in records of at most `most` bytes.
pub(crate) fn in_records(message: &[u8], most: usize) -> Vec<u8> {
    message
        .chunks(most)
        .flat_map(|chunk| record(HANDSHAKE, chunk))
        .collect()
}

/// The payload of records in the clear, one behind the other.
pub(crate) fn payload(mut records: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = records {
        let (content, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        payload.extend_from_slice(content);
        records = behind;
    }
    payload
}

/// A message of the handshake with this type.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &u24(body.len())[..], body].concat()
}

fn u24(length: usize) -> [u8; 3] {
    let [.., a, b, c] = length.to_be_bytes();
    [a, b, c]
}

fn u16s(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

/// A ClientHello in its parts. The ones that are made here are good ones.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) version: u16,
    pub(crate) suites: Vec<u16>,
    pub(crate) compressions: Vec<u8>,
    /// `None`: there is not even the length of them.
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

pub(crate) const SERVER_NAME: u16 = 0;
pub(crate) const GROUPS: u16 = 10;
pub(crate) const SIGNATURES: u16 = 13;
pub(crate) const EARLY_DATA: u16 = 42;
pub(crate) const VERSIONS: u16 = 43;
pub(crate) const KEY_SHARE: u16 = 51;

/// ECDHE with ECDSA or RSA and AES-128-GCM.
const SUITES_1_2: [u16; 2] = [0xc02b, 0xc02f];
const AES_128_GCM_SHA256: u16 = 0x1301;
pub(crate) const X25519: u16 = 29;
const ECDSA_P256_SHA256: u16 = 0x0403;

impl Hello {
    pub(crate) fn v1_2() -> Self {
        Self {
            version: TLS_1_2,
            suites: SUITES_1_2.to_vec(),
            compressions: vec![0],
            extensions: Some(vec![
                (GROUPS, with_length(&u16s(&[X25519]))),
                (11, vec![1, 0]),
                (SIGNATURES, with_length(&u16s(&[ECDSA_P256_SHA256]))),
            ]),
        }
    }

    pub(crate) fn v1_3() -> Self {
        Self {
            suites: vec![AES_128_GCM_SHA256],
            ..Self::v1_2()
        }
        .with(VERSIONS, &[2, 3, 4])
        .with_share(X25519)
    }

    /// Replaces an extension, or adds it.
    pub(crate) fn with(mut self, kind: u16, body: &[u8]) -> Self {
        let extensions = self.extensions.get_or_insert_default();
        extensions.retain(|(present, _)| *present != kind);
        extensions.push((kind, body.to_vec()));
        self
    }

    /// With a list of two bytes each in the place of such an extension.
    pub(crate) fn with_list(self, kind: u16, numbers: &[u16]) -> Self {
        self.with(kind, &with_length(&u16s(numbers)))
    }

    /// With this group and a share of it alone.
    pub(crate) fn with_share(self, group: u16) -> Self {
        let point: Vec<u8> = std::iter::once(9).chain([0; 31]).collect();
        let share = [&group.to_be_bytes()[..], &with_length(&point)].concat();
        self.with_list(GROUPS, &[group]).with(KEY_SHARE, &with_length(&share))
    }

    /// With these names of hosts, each as one entry.
    pub(crate) fn with_names(self, names: &[&[u8]]) -> Self {
        let entries = names.iter().flat_map(|name| [&[0], &with_length(name)[..]].concat());
        let entries: Vec<u8> = entries.collect();
        self.with(SERVER_NAME, &with_length(&entries))
    }

    /// The message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(with_length(&u16s(&self.suites)));
        body.push(u8::try_from(self.compressions.len()).unwrap());
        body.extend(&self.compressions);
        if let Some(extensions) = &self.extensions {
            let bytes = extensions
                .iter()
                .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &with_length(body)].concat());
            body.extend(with_length(&bytes.collect::<Vec<u8>>()));
        }
        message(1, &body)
    }

    /// The message in one record.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        record(HANDSHAKE, &self.message())
    }
}

/// A client behind a proper handshake that writes its records by itself.
pub(crate) struct Forger {
    pub(crate) socket: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Forger {
    /// Takes over from a client whose handshake is done. Its configuration must allow that its secrets are taken.
    #[track_caller]
    pub(crate) fn new(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        let suite = stream.conn.negotiated_cipher_suite().unwrap();
        let (connection, socket) = stream.into_parts();
        let (sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another cipher"),
        };
        Self {
            socket,
            encrypter: encrypter(suite, key, &iv),
            sequence,
        }
    }

    /// An encrypted record.
    pub(crate) fn record(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let plain = OutboundPlainMessage {
            typ: ContentType::from(kind),
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        let record = self.encrypter.encrypt(plain, self.sequence).unwrap();
        self.sequence += 1;
        record.encode()
    }

    /// Sends an encrypted record. An error is that of a daemon that has enough.
    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let record = self.record(kind, payload);
        self.socket.write_all(&record)
    }
}

fn encrypter(suite: SupportedCipherSuite, key: AeadKey, iv: &Iv) -> Box<dyn MessageEncrypter> {
    let iv: [u8; 12] = iv.as_ref().try_into().unwrap();
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, Iv::new(iv)),
        SupportedCipherSuite::Tls12(suite) => {
            let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
            let (salt, explicit) = iv.split_at(fixed);
            suite.aead_alg.encrypter(key, salt, explicit)
        }
    }
}
