//! Topics in the order of their levels: what is below a level stands together behind it. And how a filter goes through
//! them.

use larder_packet::topic;
use std::cmp::Ordering;
use std::rc::Rc;

/// A Topic Name in the order of its levels: U+0000, which no topic has, stands for `/`. Whoever holds one holds a place
/// among the topics, also when its message is gone.
pub(super) type Key = Rc<[u8]>;

/// The key of a Topic Name.
pub(super) fn key_of(topic: &str) -> Vec<u8> {
    let mut key = Vec::new();
    write_key(&mut key, topic);
    key
}

pub(super) fn write_key(key: &mut Vec<u8>, topic: &str) {
    key.clear();
    push_level(key, topic);
}

/// Also several levels.
fn push_level(key: &mut Vec<u8>, level: &str) {
    key.extend(
        level
            .bytes()
            .map(|byte| if byte == b'/' { 0 } else { byte }),
    );
}

/// The Topic Name of a key, written into `topic`.
pub(super) fn topic_of<'a>(key: &[u8], topic: &'a mut Vec<u8>) -> &'a str {
    topic.clear();
    topic.extend(key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }));
    std::str::from_utf8(topic).unwrap_or_default()
}

/// The first key that can match a filter: its levels up to the first wildcard.
pub(super) fn first(filter: &str, seek: &mut Vec<u8>) {
    seek.clear();
    for (index, level) in topic::levels(filter).enumerate() {
        if matches!(level, "+" | "#") {
            return;
        }
        if index > 0 {
            seek.push(0);
        }
        push_level(seek, level);
    }
}

/// How a key stands to a filter.
pub(super) enum Look {
    Matches,
    /// Not, and the next one that can match is at or after this.
    Seek,
    /// Not, and no later one can.
    End,
}

/// Behind everything that begins with these levels.
const BEHIND: u8 = 1;

pub(super) fn look(filter: &str, key: &[u8], seek: &mut Vec<u8>) -> Look {
    let mut levels = key.split(|byte| *byte == 0);
    // Where the level begins, and where the last one ends that another may take the place of.
    let (mut start, mut turn) = (0, None);
    let mut seek_to = |parts: &[&[u8]]| {
        seek.clear();
        parts.iter().for_each(|part| seek.extend_from_slice(part));
        Look::Seek
    };
    for (index, wanted) in topic::levels(filter).enumerate() {
        // A wildcard in the first level does not match a topic that begins with $ [MQTT-4.7.2-1].
        if index == 0 && matches!(wanted, "+" | "#") && key.first() == Some(&b'$') {
            return seek_to(&[&[b'$' + 1]]);
        }
        if wanted == "#" {
            return Look::Matches;
        }
        let Some(level) = levels.next() else {
            // The topic ends above the filter: on with what is below it.
            let below = if wanted == "+" { "" } else { wanted };
            return seek_to(&[key, &[0], below.as_bytes()]);
        };
        let end = start + level.len();
        if wanted == "+" {
            turn = Some(end);
        } else {
            match wanted.as_bytes().cmp(level) {
                Ordering::Equal => {}
                Ordering::Greater => return seek_to(&[&key[..start], wanted.as_bytes()]),
                Ordering::Less => {
                    return turn.map_or(Look::End, |end| seek_to(&[&key[..end], &[BEHIND]]));
                }
            }
        }
        start = end + 1;
    }
    if levels.next().is_some() {
        // The topic lies below what the filter names.
        return turn.map_or(Look::End, |end| seek_to(&[&key[..end], &[BEHIND]]));
    }
    Look::Matches
}
