//! A node of the tree of Topic Filters. Most have a short text and one subscriber, or none, and take no memory besides.

use super::{GroupNo, Match, Subscriber};
use crate::broker::few::Few;

/// A level of a filter, below those before it.
pub(super) struct Node {
    pub(super) parent: u32,
    pub(super) children: Children,
    pub(super) level: Level,
    pub(super) subscribers: Few<Subscriber>,
    /// Those who share the messages of this filter.
    #[expect(
        clippy::box_collection,
        reason = "most have none, and then it is one word"
    )]
    pub(super) groups: Option<Box<Vec<GroupNo>>>,
}

/// How many children a node has, and whether wildcards are among them: mostly there is none, and none is looked up.
#[derive(Clone, Copy, Default)]
pub(super) struct Children(u32);

impl Children {
    const PLUS: u32 = 1 << 31;
    const HASH: u32 = 1 << 30;

    fn flag(level: &[u8]) -> u32 {
        match level {
            b"+" => Children::PLUS,
            b"#" => Children::HASH,
            _ => 0,
        }
    }

    pub(super) fn add(&mut self, level: &[u8]) {
        self.0 = (self.0 + 1) | Children::flag(level);
    }

    pub(super) fn remove(&mut self, level: &[u8]) {
        self.0 = (self.0 - 1) & !Children::flag(level);
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_plus(self) -> bool {
        self.0 & Children::PLUS != 0
    }

    pub(super) fn has_hash(self) -> bool {
        self.0 & Children::HASH != 0
    }
}

/// The text of a level. Most are short, and stand in the node.
pub(super) enum Level {
    Short(u8, [u8; SHORT_LEVEL_BYTES]),
    Long(Box<str>),
}

const SHORT_LEVEL_BYTES: usize = 14;

impl Level {
    pub(super) fn new(text: &str) -> Level {
        let mut bytes = [0; SHORT_LEVEL_BYTES];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Level::Short(text.len() as u8, bytes)
            }
            None => Level::Long(text.into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Level::Short(len, bytes) => &bytes[..usize::from(*len)],
            Level::Long(text) => text.as_bytes(),
        }
    }
}

impl Node {
    pub(super) fn new(parent: u32, level: &str) -> Node {
        Node {
            parent,
            children: Children::default(),
            level: Level::new(level),
            subscribers: Few::None,
            groups: None,
        }
    }

    pub(super) fn each(&self, each: &mut impl FnMut(Match)) {
        self.subscribers
            .iter()
            .for_each(|subscriber| each(Match::Subscriber(subscriber)));
        self.groups().iter().for_each(|no| each(Match::Group(*no)));
    }

    pub(super) fn groups(&self) -> &[GroupNo] {
        self.groups.as_deref().map_or(&[], Vec::as_slice)
    }
}
