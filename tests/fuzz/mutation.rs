//! Mutations of a corpus, without a look at what they reach.

use crate::random::Random;

/// As long as an input becomes.
const BYTES_MAX: usize = 4096;
/// Numbers at which something may turn.
const EDGES: [u8; 12] = [
    0, 1, 2, 0x10, 0x20, 0x26, 0x30, 0x7f, 0x80, 0x82, 0xfe, 0xff,
];

/// Up to `joined` of the corpus, one after the other, with up to eight changes.
pub(crate) fn mutated(corpus: &[Vec<u8>], joined: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=below(random, joined) {
        bytes.extend(one_of(corpus, random));
    }
    for _ in 0..=below(random, 8) {
        change(&mut bytes, corpus, random);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = below(random, bytes.len() + 1);
    let len_max = 1 << below(random, 8);
    let len = below(random, len_max).min(bytes.len() - at);
    let kind = below(random, 20);
    match kind {
        0..=3 if at < bytes.len() => bytes[at] ^= 1 << below(random, 8),
        4..=7 if at < bytes.len() => bytes[at] = EDGES[below(random, EDGES.len())],
        8 | 9 if at < bytes.len() => bytes[at] = random.next() as u8,
        10 | 11 => {
            bytes.drain(at..at + len);
        }
        12 | 13 => {
            let again = bytes[at..at + len].to_vec();
            let to = below(random, bytes.len() + 1);
            bytes.splice(to..to, again);
        }
        14 => bytes.truncate(at),
        15 | 16 => {
            let other = one_of(corpus, random);
            let from = below(random, other.len() + 1);
            bytes.splice(at..at + len, other[from..].iter().copied());
        }
        _ => {
            let new = (0..len % 16)
                .map(|_| random.next() as u8)
                .collect::<Vec<_>>();
            bytes.splice(at..at, new);
        }
    }
}

fn one_of<'a>(corpus: &'a [Vec<u8>], random: &mut Random) -> &'a Vec<u8> {
    &corpus[below(random, corpus.len())]
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.next() % limit.max(1) as u64).unwrap()
}
