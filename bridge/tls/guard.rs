//! What may come from the server, record by record, before embedded-tls sees it. That takes records which nobody has
//! sealed for those of the server, and some that it cannot handle at all.

/// The content types of a record [RFC 8446 5.1].
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const HEADER_BYTES: usize = 5;
/// The longest plaintext, and the longest sealed record.
const PLAIN_BYTES_MAX: usize = 1 << 14;
pub(super) const SEALED_BYTES_MAX: usize = PLAIN_BYTES_MAX + 256;
/// A content type and the seal of AES-GCM.
const SEALED_BYTES_MIN: usize = 17;

/// A ServerHello [RFC 8446 4.1.3]: type, length, version, random, session id with its length, cipher suite.
const SERVER_HELLO: u8 = 2;
const RANDOM_AT: usize = 6;
const SESSION_ID_AT: usize = RANDOM_AT + 32;
const SESSION_ID_BYTES_MAX: usize = 32;
const HELLO_BYTES: usize = SESSION_ID_AT + 1 + SESSION_ID_BYTES_MAX + 2;
const HELLO_BYTES_MIN: usize = HELLO_BYTES - SESSION_ID_BYTES_MAX;
/// TLS_AES_128_GCM_SHA256, the only one that is offered.
const CIPHER_SUITE: [u8; 2] = [0x13, 0x01];
/// The random that makes a HelloRetryRequest of a ServerHello.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a server did that is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It is no TLS at all.
    NotTls,
    /// It said in the clear, before there were keys, why it goes: the alert's description.
    Alert(u8),
    /// It wants a key exchange other than P-256.
    KeyExchange,
    /// It chose a version or a cipher that was not offered.
    NotOffered,
    /// A record that is malformed or, once there are keys, not sealed.
    Record,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Guard {
    header: [u8; HEADER_BYTES],
    header_read: usize,
    /// Bytes of the record that are still to come.
    left: usize,
    /// The first bytes of the record, while there are no keys.
    start: [u8; HELLO_BYTES],
    start_read: usize,
    has_keys: bool,
    is_open: bool,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_read: 0,
            left: 0,
            start: [0; HELLO_BYTES],
            start_read: 0,
            has_keys: false,
            is_open: false,
        }
    }

    /// The handshake is over.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Looks at what comes next.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Result<(), Breach> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.header[self.header_read] = *byte;
                self.header_read += 1;
                bytes = rest;
                if self.header_read == HEADER_BYTES {
                    self.begin()?;
                }
                continue;
            }
            let (now, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= now.len();
            bytes = rest;
            if !self.has_keys {
                let kept = now.len().min(HELLO_BYTES - self.start_read);
                self.start[self.start_read..][..kept].copy_from_slice(&now[..kept]);
                self.start_read += kept;
            }
            if self.left == 0 {
                self.end()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Breach> {
        let [kind, major, _, length @ ..] = self.header;
        let length = usize::from(u16::from_be_bytes(length));
        let fits = match kind {
            _ if major != 3 => false,
            APPLICATION_DATA => {
                self.has_keys && (SEALED_BYTES_MIN..=SEALED_BYTES_MAX).contains(&length)
            }
            // For middle boxes that know nothing newer [RFC 8446 D.4].
            CHANGE_CIPHER_SPEC => self.has_keys && !self.is_open && length == 1,
            ALERT => !self.has_keys && length == 2,
            HANDSHAKE => !self.has_keys && (HELLO_BYTES_MIN..=PLAIN_BYTES_MAX).contains(&length),
            _ => false,
        };
        if !fits {
            let is_tls = self.has_keys || (major == 3 && (20..=23).contains(&kind));
            return Err(if is_tls {
                Breach::Record
            } else {
                Breach::NotTls
            });
        }
        self.left = length;
        self.start_read = 0;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Breach> {
        self.header_read = 0;
        if self.has_keys {
            return Ok(());
        }
        if self.header[0] == ALERT {
            return Err(Breach::Alert(self.start[1]));
        }
        let record = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
        let [kind, length @ ..] = [self.start[0], self.start[1], self.start[2], self.start[3]];
        let length = length
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        // One message, and nothing behind it that has no seal.
        if kind != SERVER_HELLO || length + 4 != record {
            return Err(Breach::Record);
        }
        if self.start[RANDOM_AT..SESSION_ID_AT] == RETRY {
            return Err(Breach::KeyExchange);
        }
        let suite_at = SESSION_ID_AT + 1 + usize::from(self.start[SESSION_ID_AT]);
        let start = &self.start[..self.start_read];
        if start.get(suite_at..suite_at + 2) != Some(&CIPHER_SUITE) {
            return Err(Breach::NotOffered);
        }
        self.has_keys = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(random: [u8; 32], suite: [u8; 2]) -> Vec<u8> {
        let body = [
            &[3, 3],
            random.as_slice(),
            &[32],
            &[9; 32],
            &suite,
            &[0; 20],
        ]
        .concat();
        let length = body.len() as u8;
        [&[22, 3, 3, 0, length + 4, 2, 0, 0, length], body.as_slice()].concat()
    }

    fn seen(records: &[&[u8]]) -> Result<(), Breach> {
        let bytes = records.concat();
        let whole = Guard::new().see(&bytes);
        let mut guard = Guard::new();
        let in_bytes = bytes.iter().try_for_each(|byte| guard.see(&[*byte]));
        assert_eq!(whole, in_bytes);
        whole
    }

    #[test]
    fn a_handshake_passes_and_what_has_no_seal_does_not() {
        let hello = hello([7; 32], [0x13, 1]);
        let sealed = [&[23, 3, 3, 0, 17], [0; 17].as_slice()].concat();
        let change = [20, 3, 3, 0, 1, 1];
        assert_eq!(seen(&[&hello, &change, &sealed, &sealed]), Ok(()));
        for bad in [
            [21, 3, 3, 0, 2, 1, 0].as_slice(),
            &[22, 3, 3, 0, 4, 8, 0, 0, 0],
            &[23, 3, 3, 0, 16],
            &[23, 3, 3, 0x41, 1],
            &[20, 3, 3, 0, 2],
            &hello,
        ] {
            assert_eq!(
                seen(&[&hello, &sealed, bad]),
                Err(Breach::Record),
                "{bad:?}"
            );
        }
        assert_eq!(seen(&[&sealed]), Err(Breach::Record));
        let mut guard = Guard::new();
        assert_eq!(guard.see(&hello), Ok(()));
        guard.open();
        assert_eq!(guard.see(&change), Err(Breach::Record));
    }

    #[test]
    fn only_what_was_offered_passes() {
        assert_eq!(seen(&[&hello([7; 32], [0x13, 2])]), Err(Breach::NotOffered));
        assert_eq!(seen(&[&hello(RETRY, [0x13, 1])]), Err(Breach::KeyExchange));
        let mut long_id = hello([7; 32], [0x13, 1]);
        long_id[5 + SESSION_ID_AT] = 255;
        assert_eq!(seen(&[&long_id]), Err(Breach::NotOffered));
        let mut more = hello([7; 32], [0x13, 1]);
        more[8] -= 1;
        assert_eq!(seen(&[&more]), Err(Breach::Record));
        assert_eq!(seen(&[&[21, 3, 1, 0, 2, 2, 70]]), Err(Breach::Alert(70)));
        assert_eq!(seen(&[b"HTTP/1.1 400"]), Err(Breach::NotTls));
    }
}
