//! The retained messages, by topic.
//!
//! They stand in the order of their topics' levels. A filter goes through them in leaps: from a topic that does not match
//! to the next one that could. A message of more than [`RETAINED_HELD_BYTES`] is in memory only until it is on disk, and is
//! read when it is wanted.

mod body;

use super::journal::InBatch;
use super::levels::{Key, Look, first, look, write_key};
use super::message::Content;
use crate::limits::RETAINED_BYTES;
use crate::record::{LeftOut, RETAINED_HELD_BYTES, Ticket};
use crate::time::{Mono, ServiceSeconds};
use body::Body;
use larder_packet::Qos;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::rc::Rc;

/// The retained message of a topic.
pub(super) struct Retained {
    body: Body,
    properties: u32,
    pub(super) qos: Qos,
    pub(super) expires_at: Option<ServiceSeconds>,
    pub(super) stored: Stored,
}

/// What the store knows of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// It may have a message of it.
    pub(super) is_known: bool,
    /// It is to be told of the last change.
    pub(super) is_stale: bool,
    /// It was told of a change of QoS 0 a short time ago: the topic stands among the recent ones.
    pub(super) is_recent: bool,
    /// What it was told last.
    pub(super) told: Option<InBatch>,
}

impl Retained {
    /// A message in the memory of the one before it.
    fn new(content: &Content, qos: Qos, stored: Stored, before: Body) -> Retained {
        let is_removed = content.payload.is_empty();
        let properties = if is_removed { &[] } else { content.properties };
        let mut bytes = before.reuse(properties.len() + content.payload.len());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(content.payload);
        Retained {
            body: Body::Held(bytes),
            properties: u32::try_from(properties.len()).unwrap_or(u32::MAX),
            qos,
            expires_at: content.expires_at.filter(|_| !is_removed),
            stored,
        }
    }

    /// Bytes of properties and payload.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    pub(super) fn is_removed(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn is_on_disk(&self) -> bool {
        matches!(self.body, Body::OnDisk(_))
    }

    /// Whether it need not be in memory once it is on disk.
    pub(super) fn is_large(&self) -> bool {
        self.len() > RETAINED_HELD_BYTES
    }

    /// Whether a subscriber may get it.
    pub(super) fn is_valid(&self, now: ServiceSeconds) -> bool {
        !self.is_removed() && self.expires_at.is_none_or(|at| at > now)
    }

    /// Its properties and its payload; `None`: they are on disk.
    fn parts(&self) -> Option<(&[u8], &[u8])> {
        match &self.body {
            Body::Held(bytes) => Some(bytes.split_at(self.properties as usize)),
            Body::OnDisk(_) => None,
        }
    }

    /// Whether this is what it says.
    fn says(&self, properties: &[u8], payload: &[u8]) -> bool {
        match &self.body {
            Body::Held(_) => self.parts() == Some((properties, payload)),
            Body::OnDisk(left_out) => *left_out == LeftOut::of(properties, payload),
        }
    }

    /// The message with this Topic Name; `None`: it is to be read.
    pub(super) fn content<'a>(&'a self, topic: &'a str) -> Option<Content<'a>> {
        let (properties, payload) = self.parts()?;
        Some(Content {
            topic,
            properties,
            payload,
            expires_at: self.expires_at,
        })
    }
}

/// What a topic adds to the figures of all.
#[derive(Clone, Copy, Default)]
struct Figures {
    bytes: usize,
    is_message: bool,
    expires: bool,
    is_stale: bool,
}

impl Figures {
    fn of(retained: &Retained) -> Figures {
        Figures {
            bytes: retained.body.cost(),
            is_message: !retained.is_removed(),
            expires: retained.expires_at.is_some(),
            is_stale: retained.stored.is_stale,
        }
    }
}

/// What comes next on the way of a filter through the topics.
pub(super) enum Next<'a> {
    /// A topic that matches; its message may be gone.
    Topic(&'a Key, &'a Retained),
    /// Enough for now: go on after this one.
    Later(&'a Key),
    /// No further one matches.
    End,
}

/// Whether there is room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Yes,
    /// With the next commit.
    Later,
    No,
}

/// All retained messages.
#[derive(Default)]
pub(super) struct RetainedMessages {
    topics: BTreeMap<Key, Retained>,
    /// Topics of which the store was told at QoS 0, and until when it is not told again; the oldest first.
    recent: VecDeque<(Mono, Key)>,
    /// Topics whose message leaves the memory when this is committed; in this order.
    leaving: VecDeque<(Ticket, Key)>,
    /// Topics that went while somebody stood at them.
    left: Vec<Key>,
    bytes: usize,
    bytes_max: usize,
    messages: usize,
    expiring: usize,
    stale: usize,
    /// The store has more of them than there was room for.
    pub(super) is_partial: bool,
    key: Vec<u8>,
}

impl RetainedMessages {
    /// None, and room for so many bytes of them.
    pub(super) fn new(bytes_max: usize) -> RetainedMessages {
        RetainedMessages {
            bytes_max,
            ..RetainedMessages::default()
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.messages
    }

    /// Bytes that they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one of them can expire.
    pub(super) fn can_expire(&self) -> bool {
        self.expiring > 0
    }

    /// Whether the store is to be told of one of them.
    pub(super) fn is_stale(&self) -> bool {
        self.stale > 0
    }

    /// What the store knows of a topic; `None`: there is no message of it, and none to be removed.
    pub(super) fn stored(&mut self, topic: &str) -> Option<Stored> {
        write_key(&mut self.key, topic);
        self.topics.get(&self.key[..]).map(|found| found.stored)
    }

    /// Whether a message that was retained still is the last one of its topic: no other has been retained since, nor has it
    /// been removed.
    pub(super) fn is_last(&mut self, content: &Content) -> bool {
        write_key(&mut self.key, content.topic);
        match self.topics.get(&self.key[..]) {
            Some(last) if !last.is_removed() => last.says(content.properties, content.payload),
            _ => content.payload.is_empty(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Retained> {
        self.topics.get(key)
    }

    /// Whether memory is wanted: more than half of it is used.
    pub(super) fn is_filling(&self) -> bool {
        self.bytes > self.bytes_max / 2
    }

    /// Whether this message may be retained, in place of its topic's last one.
    pub(super) fn room(&mut self, content: &Content) -> Room {
        self.forget_left();
        write_key(&mut self.key, content.topic);
        let len = content.properties.len() + content.payload.len();
        let more = match self.topics.get(&self.key[..]) {
            Some(before) => Body::memory(len).saturating_sub(before.body.cost()),
            None => topic_bytes(&self.key) + Body::memory(len),
        };
        if self.bytes + more <= self.bytes_max {
            Room::Yes
        } else if self.leaving.is_empty() {
            Room::No
        } else {
            Room::Later
        }
    }

    /// Retains a message in place of its topic's last one; an empty payload leaves the topic without a message.
    pub(super) fn set(&mut self, content: &Content, qos: Qos, stored: Stored) {
        self.put(content.topic, |before| {
            Retained::new(content, qos, stored, before)
        });
        let key = std::mem::take(&mut self.key);
        self.leaves_with(&key);
        self.key = key;
    }

    /// A message is found whose properties and payload are on disk.
    pub(super) fn set_on_disk(
        &mut self,
        content: &Content,
        left_out: LeftOut,
        qos: Qos,
        stored: Stored,
    ) {
        self.put(content.topic, |before| Retained {
            body: Body::OnDisk(left_out),
            expires_at: content.expires_at,
            ..Retained::new(content, qos, stored, before)
        });
    }

    /// Puts a message in place of its topic's last one, whose memory it may have.
    fn put(&mut self, topic: &str, new: impl FnOnce(Body) -> Retained) {
        write_key(&mut self.key, topic);
        let (before, now) = if let Some(found) = self.topics.get_mut(&self.key[..]) {
            let before = Figures::of(found);
            *found = new(std::mem::take(&mut found.body));
            (before, Figures::of(found))
        } else {
            let new = new(Body::default());
            let now = Figures::of(&new);
            self.bytes += topic_bytes(&self.key);
            self.topics.insert(Key::from(&self.key[..]), new);
            (Figures::default(), now)
        };
        self.discount(before);
        self.count(now);
    }

    /// The store was told of a topic, or is to be.
    pub(super) fn set_stored(&mut self, key: &Key, stored: Stored) {
        if let Some(found) = self.topics.get_mut(key) {
            self.stale -= usize::from(found.stored.is_stale);
            self.stale += usize::from(stored.is_stale);
            found.stored = stored;
        }
        self.leaves_with(key);
    }

    /// A large message leaves the memory when its record is committed.
    fn leaves_with(&mut self, key: &[u8]) {
        let Some((key, found)) = self.topics.get_key_value(key) else {
            return;
        };
        let is_held = matches!(found.body, Body::Held(_));
        let told = found.stored.told.filter(|_| !found.stored.is_stale);
        if let Some(told) = told.filter(|_| is_held && found.is_large()) {
            self.leaving.push_back((told.ticket(), Rc::clone(key)));
        }
    }

    /// A commit came.
    pub(super) fn committed(&mut self, ticket: Ticket) {
        while self.leaving.front().is_some_and(|(of, _)| *of <= ticket) {
            let Some((_, key)) = self.leaving.pop_front() else {
                return;
            };
            let Some(found) = self.topics.get_mut(&key) else {
                continue;
            };
            // It may have changed since.
            let is_told = found
                .stored
                .told
                .is_some_and(|told| told.ticket() <= ticket);
            if is_told && !found.stored.is_stale && found.is_large() {
                self.bytes -= found.body.cost();
                if let Some((properties, payload)) = found.parts() {
                    found.body = Body::OnDisk(LeftOut::of(properties, payload));
                }
            }
        }
        self.forget_left();
    }

    /// Forgets a topic.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some((key, old)) = self.topics.remove_entry(key) {
            self.discount(Figures::of(&old));
            self.left.push(key);
            self.forget_left();
        }
    }

    fn count(&mut self, of: Figures) {
        self.bytes += of.bytes;
        self.messages += usize::from(of.is_message);
        self.expiring += usize::from(of.expires);
        self.stale += usize::from(of.is_stale);
    }

    fn discount(&mut self, of: Figures) {
        self.bytes -= of.bytes;
        self.messages -= usize::from(of.is_message);
        self.expiring -= usize::from(of.expires);
        self.stale -= usize::from(of.is_stale);
    }

    /// Topics that went take memory as long as somebody stands at them, and no longer.
    pub(super) fn forget_left(&mut self) {
        let bytes = &mut self.bytes;
        self.left.retain(|key| {
            let is_held = Rc::strong_count(key) > 1;
            if !is_held {
                *bytes -= topic_bytes(key);
            }
            is_held
        });
    }

    // --- In their order ---

    /// What comes after `after` on the way of a filter. Each topic that is looked at takes one of the `steps`.
    pub(super) fn next(&self, filter: &str, after: Option<&Key>, steps: &mut usize) -> Next<'_> {
        let mut seek = Vec::new();
        let mut range = match after {
            Some(after) => self
                .topics
                .range::<[u8], _>((Excluded(&after[..]), Unbounded)),
            None => {
                first(filter, &mut seek);
                self.topics
                    .range::<[u8], _>((Included(&seek[..]), Unbounded))
            }
        };
        loop {
            let Some((key, found)) = range.next() else {
                return Next::End;
            };
            *steps = steps.saturating_sub(1);
            match look(filter, key, &mut seek) {
                Look::Matches => return Next::Topic(key, found),
                Look::End => return Next::End,
                Look::Seek if *steps == 0 => return Next::Later(key),
                Look::Seek => {
                    range = self
                        .topics
                        .range::<[u8], _>((Included(&seek[..]), Unbounded))
                }
            }
        }
    }

    /// The topics after `after`, with their messages.
    pub(super) fn after(&self, after: Option<&Key>) -> impl Iterator<Item = (&Key, &Retained)> {
        let from = after.map_or(Unbounded, |after| Excluded(&after[..]));
        self.topics.range::<[u8], _>((from, Unbounded))
    }

    // --- Those of QoS 0 ---

    /// The topic stands among the recent ones until `until`, which is not before that of any other.
    pub(super) fn push_recent(&mut self, key: &[u8], until: Mono) {
        if let Some((key, _)) = self.topics.get_key_value(key) {
            self.recent.push_back((until, Rc::clone(key)));
        }
    }

    /// When the first of the recent topics is no longer recent.
    pub(super) fn recent_until(&self) -> Option<Mono> {
        self.recent.front().map(|(until, _)| *until)
    }

    /// The first of the recent topics, if its time is over.
    pub(super) fn poll_recent(&mut self, now: Mono) -> Option<Key> {
        let is_over = self.recent.front().is_some_and(|(until, _)| *until <= now);
        let over = is_over.then(|| self.recent.pop_front()).flatten();
        over.map(|(_, key)| key)
    }

    /// All recent topics.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Key> {
        self.recent.iter().map(|(_, key)| key)
    }
}

/// Bytes of a topic and what is retained of it, without the message.
fn topic_bytes(key: &[u8]) -> usize {
    RETAINED_BYTES + key.len()
}

#[cfg(test)]
mod tests {
    use super::super::levels::{key_of, topic_of};
    use super::body::BODY_STEP_BYTES;
    use super::*;
    use larder_packet::topic;

    fn content<'a>(topic: &'a str, payload: &'a str) -> Content<'a> {
        Content {
            topic,
            properties: b"",
            payload: payload.as_bytes(),
            expires_at: None,
        }
    }

    fn retained(topics: &[&str]) -> RetainedMessages {
        let mut retained = RetainedMessages::new(1 << 20);
        for topic in topics {
            retained.set(&content(topic, "x"), Qos::AtMostOnce, Stored::default());
        }
        retained
    }

    /// The topics that match, and how many were looked at.
    fn walk(retained: &RetainedMessages, filter: &str, at_once: usize) -> (Vec<String>, usize) {
        let (mut found, mut after, mut looked_at) = (Vec::new(), None, 0);
        loop {
            let mut steps = at_once;
            let next = retained.next(filter, after.as_ref(), &mut steps);
            looked_at += at_once - steps;
            match next {
                Next::End => return (found, looked_at),
                Next::Later(key) => after = Some(Rc::clone(key)),
                Next::Topic(key, _) => {
                    found.push(topic_of(key, &mut Vec::new()).to_owned());
                    after = Some(Rc::clone(key));
                }
            }
        }
    }

    #[test]
    fn a_walk_finds_what_matches_however_often_it_is_interrupted() {
        // Characters before and after `/` and `$`, empty levels, and all combinations of three levels.
        let levels = ["", "a", "a-b", "a0", "b", "$x", "\u{1}", "ä", "!"];
        let mut topics = Vec::new();
        for a in levels {
            topics.push(a.to_owned());
            for b in levels {
                topics.push(format!("{a}/{b}"));
                topics.extend(levels.iter().map(|c| format!("{a}/{b}/{c}")));
            }
        }
        topics.retain(|topic| !topic.is_empty());
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let retained = retained(&names);
        let levels = ["", "a", "a-b", "b", "$x", "+", "\u{1}", "none", "zzz"];
        let mut filters = vec!["#".to_owned()];
        for a in levels {
            filters.extend([a.to_owned(), format!("{a}/#")]);
            for b in levels {
                filters.extend([format!("{a}/{b}"), format!("{a}/{b}/#")]);
                filters.extend(levels.iter().map(|c| format!("{a}/{b}/{c}")));
            }
        }
        filters.retain(|filter| !filter.is_empty());
        for filter in &filters {
            let mut expected: Vec<&str> = names
                .iter()
                .copied()
                .filter(|topic| topic::matches(filter, topic))
                .collect();
            expected.sort_unstable();
            for at_once in [1, 2, 1000] {
                let (mut found, _) = walk(&retained, filter, at_once);
                found.sort_unstable();
                assert_eq!(found, expected, "{filter}");
            }
        }
    }

    #[test]
    fn a_walk_looks_at_little_that_does_not_match() {
        let topics: Vec<String> = (0..10_000)
            .map(|no| format!("site/{}/{}/value", no / 100, no % 100))
            .collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let retained = retained(&names);
        for (filter, matches, most) in [
            ("site/7/7/value", 1, 2),
            ("site/7/#", 100, 101),
            ("site/+/7/value", 100, 302),
            ("site/7/+/value", 100, 202),
            ("other/#", 0, 1),
            ("site/+/none/#", 0, 300),
            ("#", 10_000, 10_000),
        ] {
            let (found, looked_at) = walk(&retained, filter, 100_000);
            assert_eq!(found.len(), matches, "{filter}");
            assert!(looked_at <= most, "{filter}: {looked_at}");
        }
    }

    #[test]
    fn it_takes_no_more_memory_than_it_may_and_gives_all_back() {
        let mut retained = RetainedMessages::new(3 * (RETAINED_BYTES + 3 + BODY_STEP_BYTES));
        let (a, b) = (content("t/a", "1234567"), content("t/b", "1234567"));
        retained.set(&a, Qos::AtMostOnce, Stored::default());
        assert_eq!(retained.room(&b), Room::Yes);
        retained.set(&b, Qos::AtMostOnce, Stored::default());
        retained.set(
            &content("t/c", "123456"),
            Qos::AtMostOnce,
            Stored::default(),
        );
        let other = content("t/c", "1234567");
        assert_eq!(retained.room(&other), Room::Yes, "in place of the other");
        assert_eq!(retained.room(&content("t/c", "123456789")), Room::No);
        assert_eq!(retained.room(&content("t/d", "1")), Room::No);

        let held = retained.after(None).next().map(|(key, _)| Rc::clone(key));
        for topic in ["t/a", "t/b", "t/c"] {
            retained.remove(&key_of(topic));
        }
        assert_eq!(retained.len(), 0);
        assert_eq!(
            retained.bytes(),
            RETAINED_BYTES + 3,
            "somebody stands at t/a"
        );
        drop(held);
        assert_eq!(retained.room(&a), Room::Yes);
        assert_eq!(retained.bytes(), 0);
    }

    #[test]
    fn a_message_without_a_payload_is_none() {
        let mut retained = retained(&["a"]);
        let stale = Stored {
            is_stale: true,
            ..Stored::default()
        };
        retained.set(&content("a", ""), Qos::AtMostOnce, stale);
        assert_eq!((retained.len(), retained.is_stale()), (0, true));
        assert_eq!(retained.stored("a"), Some(stale));
        retained.remove(b"a");
        assert_eq!((retained.bytes(), retained.is_stale()), (0, false));
    }
}
