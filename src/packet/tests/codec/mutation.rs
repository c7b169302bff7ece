//! Damaged packets: decoding never panics, and what it accepts is a packet that can be sent on unchanged.

use crate::samples;
use larder_packet::{Frame, Version, frame, packet};

const ROUNDS: usize = 200_000;

#[test]
fn damaged_packets_are_refused_or_are_other_packets() {
    let corpus: Vec<(Version, Vec<u8>)> = [Version::V311, Version::V5]
        .into_iter()
        .flat_map(|version| {
            samples::packets(version)
                .into_iter()
                .map(move |sample| (version, sample))
        })
        .map(|(version, sample)| {
            let mut bytes = Vec::new();
            sample.encode(version, &mut bytes);
            (version, bytes)
        })
        .filter(|(_, bytes)| bytes.len() < 1000)
        .collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let (version, bytes) = &corpus[random.below(corpus.len())];
        let mut damaged = bytes.clone();
        for _ in 0..=random.below(3) {
            damage(&mut damaged, &mut random);
        }
        if random.below(4) != 0 {
            correct_length(&mut damaged);
        }
        let whole = match frame(&damaged, 4096) {
            Ok(Frame::Complete { len }) => &damaged[..len],
            // What frame refuses, packet must survive as well.
            Ok(Frame::Incomplete { .. }) | Err(_) => &damaged[..],
        };
        accepted += usize::from(check(*version, whole));
    }
    // A test whose damage is always refused would not test what follows decoding.
    assert!(accepted > ROUNDS / 20, "{accepted}");
}

#[test]
fn noise_is_survived() {
    let mut random = Random(7);
    for _ in 0..ROUNDS / 4 {
        let mut bytes: Vec<u8> = (0..2 + random.below(40))
            .map(|_| random.below(256) as u8)
            .collect();
        correct_length(&mut bytes);
        check(Version::V311, &bytes);
        check(Version::V5, &bytes);
    }
}

/// Decodes; what is accepted must survive encoding and decoding. Returns whether it was accepted.
fn check(version: Version, bytes: &[u8]) -> bool {
    let Ok(decoded) = packet(version, bytes) else {
        return false;
    };
    let mut encoded = Vec::new();
    decoded.encode(version, &mut encoded);
    assert_eq!(encoded.len(), decoded.encoded_len(version), "{decoded:?}");
    assert!(encoded.len() <= bytes.len(), "{decoded:?} became longer");
    assert_eq!(packet(version, &encoded), Ok(decoded), "{bytes:02x?}");
    // Everything borrowed can be walked.
    let _ = format!("{decoded:?}");
    true
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len().max(1));
    match random.below(6) {
        _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = [0x00, 0x01, 0x7F, 0x80, 0xFF][random.below(5)],
        2 => bytes.insert(at, random.below(256) as u8),
        3 => {
            bytes.remove(at);
        }
        4 => bytes.truncate(at),
        _ => {
            let end = bytes.len().min(at + random.below(12));
            let copy = bytes[at..end].to_vec();
            bytes.extend(copy);
        }
    }
}

/// Gives the packet the Remaining Length that its bytes have, so that the damage behind it is looked at.
fn correct_length(bytes: &mut Vec<u8>) {
    let size = bytes
        .iter()
        .skip(1)
        .take(4)
        .take_while(|&&byte| byte & 0x80 != 0)
        .count()
        + 1;
    let Some(body) = bytes.get(1 + size..) else {
        return;
    };
    let mut corrected = vec![bytes[0]];
    let mut length = body.len();
    while length > 127 {
        corrected.push(length as u8 | 0x80);
        length >>= 7;
    }
    corrected.push(length as u8);
    corrected.extend_from_slice(body);
    *bytes = corrected;
}

/// xorshift64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
