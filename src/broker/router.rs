//! Which sessions, and which groups of Shared Subscriptions, a Topic Name goes to: a tree of Topic Filters, level by level.
//!
//! Nodes stand in one table, and one hash table finds a node's child by the pair (parent, level): a node costs its level's
//! text and a few words, and a topic is matched in as many look-ups as it has levels, however many subscriptions there are.

mod node;

use super::share::{GroupNo, Groups, Readiness};
use crate::limits::SUBSCRIPTION_BYTES;
use crate::record::{ShareKey, SubscriptionRecord};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use larder_packet::Qos;
use larder_packet::topic;
use node::Node;
use std::hash::BuildHasher;

const ROOT: u32 = 0;
/// A level's node and its place in the hash table.
const NODE_BYTES: usize = size_of::<Node>() + 16;

/// A session's subscription at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    /// The session's place.
    pub(super) place: u32,
    pub(super) options: SubscriptionRecord,
}

impl Subscriber {
    /// The QoS with which it gets a message of this one.
    pub(super) fn granted(&self, qos: Qos) -> Qos {
        Qos::from_u8(self.options.qos).unwrap_or_default().min(qos)
    }
}

/// What a Topic Name goes to.
pub(super) enum Match<'a> {
    Subscriber(&'a Subscriber),
    /// One member of this group.
    Group(GroupNo),
}

/// The tree of subscriptions.
pub(super) struct Router {
    nodes: Vec<Node>,
    free: Vec<u32>,
    groups: Groups,
    children: HashTable<u32>,
    hasher: FixedState,
    subscriptions: usize,
    bytes: usize,
}

impl Router {
    /// For subscriptions of so many bytes.
    pub(super) fn new(seed: u64, bytes_max: usize) -> Router {
        // They do not move when there are more.
        let mut nodes = Vec::with_capacity(1 + bytes_max / (NODE_BYTES + SUBSCRIPTION_BYTES));
        nodes.push(Node::new(ROOT, ""));
        Router {
            nodes,
            free: Vec::new(),
            groups: Groups::default(),
            children: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            subscriptions: 0,
            bytes: 0,
        }
    }

    /// Subscriptions of all sessions.
    pub(super) fn len(&self) -> usize {
        self.subscriptions
    }

    /// Of these, the shared ones.
    pub(super) fn shared_len(&self) -> usize {
        self.groups.members()
    }

    /// Bytes that they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a subscription with this filter would begin one group more than there may be.
    pub(super) fn has_no_group_for(&self, filter: &str, groups_max: usize) -> bool {
        self.groups.len() >= groups_max
            && topic::shared(filter).is_some()
            && self.group(filter).is_none()
    }

    /// Adds a subscription, or replaces the session's with the same filter. Gives back what that was.
    pub(super) fn subscribe(
        &mut self,
        filter: &str,
        place: u32,
        options: SubscriptionRecord,
    ) -> Option<SubscriptionRecord> {
        let mut node = ROOT;
        for level in topic::levels(unshared(filter)) {
            node = self
                .child(node, level)
                .unwrap_or_else(|| self.add_child(node, level));
        }
        let new = Subscriber { place, options };
        let replaced = if topic::shared(filter).is_none() {
            let subscribers = &mut self.nodes[node as usize].subscribers;
            let replaced = replace(subscribers, new);
            if replaced.is_none() {
                subscribers.push(new);
            }
            replaced
        } else {
            let no = self.group_at(node, filter).unwrap_or_else(|| {
                let no = self.groups.add(filter);
                let groups = &mut self.nodes[node as usize].groups;
                groups.get_or_insert_default().push(no);
                no
            });
            let members = self.groups.members_of_mut(no);
            let replaced = replace(members, new);
            if replaced.is_none() {
                members.push(new);
            }
            replaced
        };
        if replaced.is_some() {
            return replaced;
        }
        self.subscriptions += 1;
        self.bytes += subscription_bytes(filter);
        None
    }

    /// Removes a subscription; `false` if there was none.
    pub(super) fn unsubscribe(&mut self, filter: &str, place: u32) -> bool {
        let Some(node) = self.node(unshared(filter)) else {
            return false;
        };
        let was_there = match self.group_at(node, filter) {
            Some(no) => self.leave_group(node, no, place),
            None if topic::shared(filter).is_some() => false,
            None => {
                let subscribers = &mut self.nodes[node as usize].subscribers;
                let before = subscribers.len();
                subscribers.retain(|subscriber| subscriber.place != place);
                subscribers.len() < before
            }
        };
        if !was_there {
            return false;
        }
        self.subscriptions -= 1;
        self.bytes -= subscription_bytes(filter);
        self.prune(node);
        true
    }

    fn leave_group(&mut self, node: u32, no: GroupNo, place: u32) -> bool {
        let members = self.groups.members_of_mut(no);
        let Some(index) = members.iter().position(|member| member.place == place) else {
            return false;
        };
        members.remove(index);
        if members.is_empty() {
            self.groups.remove(no);
            let groups = &mut self.nodes[node as usize].groups;
            if let Some(others) = groups {
                others.retain(|other| *other != no);
                groups.take_if(|others| others.is_empty());
            }
        }
        true
    }

    /// The member of a group that gets the next message; `readiness` says how well each could take it.
    pub(super) fn choose(
        &mut self,
        no: GroupNo,
        readiness: impl Fn(&Subscriber) -> Option<Readiness>,
    ) -> Option<Subscriber> {
        self.groups.choose(no, readiness)
    }

    /// What the rows of a group name it by.
    pub(super) fn share_key(&self, no: GroupNo) -> ShareKey {
        self.groups.key(no)
    }

    /// The group that a row to this topic names.
    pub(super) fn group_of(&self, key: ShareKey, name: &str) -> Option<GroupNo> {
        self.groups.find(key, name)
    }

    /// Whether a filter is that of a Shared Subscription with such a member.
    pub(super) fn has_member(&self, filter: &str, is_such: impl Fn(&Subscriber) -> bool) -> bool {
        self.group(filter)
            .is_some_and(|no| self.groups.members_of(no).iter().any(is_such))
    }

    /// Calls `each` for every subscription and every group that matches; a session may come several times.
    pub(super) fn matches(&self, name: &str, each: &mut impl FnMut(Match)) {
        // A filter that begins with a wildcard does not match a name that begins with $ [MQTT-4.7.2-1].
        self.descend(ROOT, Some(name), !name.starts_with('$'), each);
    }

    /// `rest`: the levels still to be matched, `None` after the last one.
    fn descend(
        &self,
        node: u32,
        rest: Option<&str>,
        wildcards: bool,
        each: &mut impl FnMut(Match),
    ) {
        let children = self.nodes[node as usize].children;
        let all = wildcards && children.has_hash();
        if let Some(all) = all.then(|| self.child(node, "#")).flatten() {
            self.nodes[all as usize].each(each);
        }
        let Some(rest) = rest else {
            self.nodes[node as usize].each(each);
            return;
        };
        if children.is_empty() {
            return;
        }
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.child(node, level) {
            self.descend(child, rest, true, each);
        }
        let any = wildcards && children.has_plus();
        if let Some(child) = any.then(|| self.child(node, "+")).flatten() {
            self.descend(child, rest, true, each);
        }
    }

    /// The node of a filter.
    fn node(&self, filter: &str) -> Option<u32> {
        topic::levels(filter).try_fold(ROOT, |node, level| self.child(node, level))
    }

    /// The group at a node whose members have subscribed to this filter.
    fn group_at(&self, node: u32, filter: &str) -> Option<GroupNo> {
        let mut groups = self.nodes[node as usize].groups().iter().copied();
        groups.find(|no| self.groups.filter(*no) == filter)
    }

    fn group(&self, filter: &str) -> Option<GroupNo> {
        self.group_at(self.node(unshared(filter))?, filter)
    }

    fn hash(&self, parent: u32, level: &[u8]) -> u64 {
        self.hasher.hash_one((parent, level))
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        self.children
            .find(self.hash(parent, level.as_bytes()), |child| {
                let node = &self.nodes[*child as usize];
                node.parent == parent && node.level.as_bytes() == level.as_bytes()
            })
            .copied()
    }

    fn add_child(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node::new(parent, level);
        let index = if let Some(index) = self.free.pop() {
            self.nodes[index as usize] = node;
            index
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        };
        self.nodes[parent as usize].children.add(level.as_bytes());
        let hash = self.hash(parent, level.as_bytes());
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.children.insert_unique(hash, index, |child| {
            let node = &nodes[*child as usize];
            hasher.hash_one((node.parent, node.level.as_bytes()))
        });
        index
    }

    /// Takes out nodes that hold nothing any more.
    fn prune(&mut self, mut index: u32) {
        while index != ROOT {
            let node = &self.nodes[index as usize];
            let is_empty = node.subscribers.is_empty() && node.groups.is_none();
            if !node.children.is_empty() || !is_empty {
                return;
            }
            let parent = node.parent;
            let hash = self.hash(parent, node.level.as_bytes());
            if let Ok(entry) = self.children.find_entry(hash, |child| *child == index) {
                entry.remove();
            }
            let gone = std::mem::replace(&mut self.nodes[index as usize], Node::new(ROOT, ""));
            let children = &mut self.nodes[parent as usize].children;
            children.remove(gone.level.as_bytes());
            self.free.push(index);
            index = parent;
        }
    }
}

/// Puts a subscription in place of its session's, if there is one, and gives back that one's options.
fn replace(subscribers: &mut [Subscriber], new: Subscriber) -> Option<SubscriptionRecord> {
    let known = subscribers
        .iter_mut()
        .find(|subscriber| subscriber.place == new.place)?;
    Some(std::mem::replace(&mut known.options, new.options))
}

/// The Topic Filter that Topic Names are held against: of a Shared Subscription, what follows the ShareName.
fn unshared(filter: &str) -> &str {
    topic::shared(filter).map_or(filter, |shared| shared.filter)
}

/// What a subscription with this filter takes in memory: its text in the session's list and as levels in the tree. The first
/// two levels of a Shared Subscription are not in the tree: they pay for its group.
pub(super) fn subscription_bytes(filter: &str) -> usize {
    SUBSCRIPTION_BYTES + 2 * filter.len() + NODE_BYTES * topic::levels(filter).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(filters: &[&str]) -> Router {
        let mut router = Router::new(7, 0);
        for (place, filter) in (0..).zip(filters) {
            router.subscribe(filter, place, SubscriptionRecord::default());
        }
        router
    }

    #[test]
    fn it_agrees_with_the_definition_of_a_match() {
        let filters = [
            "a", "a/b", "a/+", "a/#", "#", "+", "+/+", "+/b/#", "/", "/+", "a//b", "a/+/b",
            "$SYS/#", "$SYS/+", "+/x", "a/b/#", "a/b/c/d", "+/+/+/#", "a/+/+",
        ];
        let names = [
            "a", "a/b", "a/b/c", "a//b", "/", "/a", "b", "$SYS/x", "$SYS", "a/b/c/d", "a/b/", "x/b",
        ];
        let router = router(&filters);
        for name in names {
            let mut got = Vec::new();
            router.matches(name, &mut |found| {
                if let Match::Subscriber(subscriber) = found {
                    got.push(filters[subscriber.place as usize]);
                }
            });
            let mut expected: Vec<_> = filters
                .iter()
                .copied()
                .filter(|filter| topic::matches(filter, name))
                .collect();
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn what_is_unsubscribed_leaves_nothing_behind() {
        let filters = [
            "a/b/c",
            "a/b",
            "a/#",
            "+/+",
            "$share/g/a/b",
            "$share/h/a/b",
            "$share/g/a/+",
        ];
        let mut router = router(&filters);
        for (place, filter) in (0..).zip(filters) {
            assert!(router.unsubscribe(filter, place));
            assert!(!router.unsubscribe(filter, place));
        }
        assert_eq!((router.len(), router.bytes()), (0, 0));
        assert_eq!(router.groups.len(), 0);
        assert_eq!(router.children.len(), 0);
        assert_eq!(router.free.len() + 1, router.nodes.len());
    }

    #[test]
    fn a_group_is_a_share_name_with_a_filter() {
        let filters = [
            "$share/g/a/#",
            "$share/g/a/#",
            "$share/h/a/#",
            "$share/g/a/+",
            "a/#",
        ];
        let mut router = router(&filters);
        assert_eq!(router.groups.len(), 3);
        let (mut subscribers, mut groups) = (0, Vec::new());
        router.matches("a/b", &mut |found| match found {
            Match::Subscriber(_) => subscribers += 1,
            Match::Group(no) => groups.push(no),
        });
        let mut sizes: Vec<usize> = groups
            .into_iter()
            .map(|no| router.groups.members_of_mut(no).len())
            .collect();
        sizes.sort_unstable();
        assert_eq!((subscribers, sizes), (1, vec![1, 1, 2]));
        assert!(!router.has_no_group_for("$share/g/a/#", 3));
        assert!(router.has_no_group_for("$share/i/a/#", 3));
        assert!(!router.has_no_group_for("b", 3));
    }
}
