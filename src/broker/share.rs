//! Shared Subscriptions [MQTT 4.8.2]: the groups that share the messages of one filter under one ShareName, and which of its
//! members gets a message.
//!
//! The choice is made when a message is published. Who can take it at once goes before who has as much as it takes at a
//! time, and who is connected before who is away; among equals members take turns.

use super::link::{Link, Phase};
use super::queue::Queue;
use super::router::Subscriber;
use super::session::Session;
use crate::record::ShareKey;
use larder_packet::{Qos, topic};

/// Numbers the groups; used again once a group has no member left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupNo(u32);

/// How well a member can take a message now: the better the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// It is away, or its queue is full, and the message would be lost to it.
    Gone,
    /// It is away, and the message waits in its queue.
    Away,
    /// It is connected, and other messages wait for it.
    Busy,
    /// It is connected, and can be sent the message.
    Ready,
}

impl Readiness {
    /// Of a session with its link, for a message of `len` bytes and the QoS with which it would get it.
    pub(super) fn of(session: &Session, link: Option<&Link>, qos: Qos, len: u64) -> Readiness {
        let queues = |queue: &Queue| {
            let policy = queue.policy();
            (qos > Qos::AtMostOnce || policy.qos0)
                && (policy.when_full.takes_all() || queue.has_room(len))
        };
        let is_queued = session.queue.as_deref().is_some_and(queues);
        let Some(link) = link else {
            return if is_queued {
                Readiness::Away
            } else {
                Readiness::Gone
            };
        };
        if session.queue.is_some() && qos > Qos::AtMostOnce && !is_queued {
            return Readiness::Gone;
        }
        let takes = u64::from(session.window.takes(link.receive_maximum));
        let has_room = qos == Qos::AtMostOnce
            || match &session.queue {
                Some(queue) => queue.messages() < takes,
                None => session.window.free(link.receive_maximum) > 0,
            };
        let is_free = link.phase == Phase::Connected
            && link.held_up.blocked_since.is_none()
            && session.transient.is_empty();
        if has_room && is_free {
            Readiness::Ready
        } else {
            Readiness::Busy
        }
    }
}

struct Group {
    /// As its members have subscribed to it.
    filter: Box<str>,
    key: ShareKey,
    members: Vec<Subscriber>,
    /// Whose turn it is.
    next: usize,
}

/// The groups of all filters.
#[derive(Default)]
pub(super) struct Groups {
    groups: Vec<Group>,
    free: Vec<u32>,
}

impl Groups {
    /// Groups that have members.
    pub(super) fn len(&self) -> usize {
        self.groups.len() - self.free.len()
    }

    /// Members of all groups.
    pub(super) fn members(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// A group without members.
    pub(super) fn add(&mut self, filter: &str) -> GroupNo {
        let group = Group {
            filter: filter.into(),
            key: share_key(filter),
            members: Vec::new(),
            next: 0,
        };
        let index = if let Some(index) = self.free.pop() {
            self.groups[index as usize] = group;
            index
        } else {
            self.groups.push(group);
            u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX)
        };
        GroupNo(index)
    }

    /// Takes out a group whose members have left.
    pub(super) fn remove(&mut self, no: GroupNo) {
        self.group_mut(no).filter = "".into();
        self.free.push(no.0);
    }

    /// Its filter, as its members have subscribed to it.
    pub(super) fn filter(&self, no: GroupNo) -> &str {
        &self.groups[no.0 as usize].filter
    }

    /// What rows name it by.
    pub(super) fn key(&self, no: GroupNo) -> ShareKey {
        self.groups[no.0 as usize].key
    }

    /// The group that a row to this topic names.
    pub(super) fn find(&self, key: ShareKey, name: &str) -> Option<GroupNo> {
        let is_it = |group: &Group| {
            group.key == key
                && topic::shared(&group.filter)
                    .is_some_and(|shared| topic::matches(shared.filter, name))
        };
        let index = self.groups.iter().position(is_it)?;
        u32::try_from(index).ok().map(GroupNo)
    }

    pub(super) fn members_of(&self, no: GroupNo) -> &[Subscriber] {
        &self.groups[no.0 as usize].members
    }

    pub(super) fn members_of_mut(&mut self, no: GroupNo) -> &mut Vec<Subscriber> {
        &mut self.group_mut(no).members
    }

    /// The member that gets the next message: of those whom `readiness` finds fittest, the one whose turn it is. `None` if
    /// it has none to say of any.
    pub(super) fn choose(
        &mut self,
        no: GroupNo,
        readiness: impl Fn(&Subscriber) -> Option<Readiness>,
    ) -> Option<Subscriber> {
        let group = self.group_mut(no);
        let count = group.members.len();
        let mut fittest: Option<(Readiness, usize)> = None;
        for step in 0..count {
            let index = (group.next + step) % count;
            let Some(found) = readiness(&group.members[index]) else {
                continue;
            };
            if fittest.is_none_or(|(known, _)| found > known) {
                fittest = Some((found, index));
            }
            if found == Readiness::Ready {
                break;
            }
        }
        let (_, index) = fittest?;
        group.next = index + 1;
        Some(group.members[index])
    }

    fn group_mut(&mut self, no: GroupNo) -> &mut Group {
        &mut self.groups[no.0 as usize]
    }
}

/// FNV-1a: the same on every machine and for ever, for it is on disk.
fn share_key(filter: &str) -> ShareKey {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    ShareKey(filter.bytes().fold(0x811C_9DC5, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SubscriptionRecord;

    #[test]
    fn a_row_finds_its_group_by_key_and_topic() {
        assert_eq!(share_key("foobar"), ShareKey(0xBF9C_F968), "FNV-1a's test");
        let mut groups = Groups::default();
        let [a, b] = ["$share/g/a/#", "$share/g/b"].map(|filter| groups.add(filter));
        let (key_a, key_b) = (groups.key(a), groups.key(b));
        assert_eq!(groups.find(key_a, "a/x"), Some(a));
        assert_eq!(groups.find(key_b, "b"), Some(b));
        assert_eq!(groups.find(key_a, "b"), None);
        groups.remove(a);
        assert_eq!(groups.find(key_a, "a/x"), None);
    }

    /// A group of so many members, in the places from 0.
    fn group(members: u32) -> (Groups, GroupNo) {
        let mut groups = Groups::default();
        let no = groups.add("$share/g/a");
        groups
            .members_of_mut(no)
            .extend((0..members).map(|place| Subscriber {
                place,
                options: SubscriptionRecord::default(),
            }));
        (groups, no)
    }

    /// Who gets the next messages, if the members are as ready as this.
    fn chosen(
        groups: &mut Groups,
        no: GroupNo,
        readiness: &[Option<Readiness>],
        messages: usize,
    ) -> Vec<Option<u32>> {
        (0..messages)
            .map(|_| {
                groups
                    .choose(no, |member| readiness[member.place as usize])
                    .map(|member| member.place)
            })
            .collect()
    }

    #[test]
    fn members_that_are_equally_ready_take_turns() {
        for readiness in [Readiness::Ready, Readiness::Busy, Readiness::Away] {
            let (mut groups, no) = group(3);
            let all = [Some(readiness); 3];
            assert_eq!(
                chosen(&mut groups, no, &all, 5),
                [0, 1, 2, 0, 1].map(Some),
                "{readiness:?}"
            );
        }
    }

    #[test]
    fn the_fitter_goes_first_whosever_turn_it_is() {
        use Readiness::{Away, Busy, Gone, Ready};
        let (mut groups, no) = group(4);
        let mut of = |readiness: [Option<Readiness>; 4]| chosen(&mut groups, no, &readiness, 2);
        let [away, busy, gone, ready] = [Away, Busy, Gone, Ready].map(Some);
        assert_eq!(of([away, busy, ready, busy]), [2, 2].map(Some));
        assert_eq!(of([ready, busy, ready, busy]), [0, 2].map(Some));
        assert_eq!(of([away, busy, away, busy]), [3, 1].map(Some));
        assert_eq!(of([away, gone, None, away]), [3, 0].map(Some));
        assert_eq!(of([gone, None, None, None]), [0, 0].map(Some));
        assert_eq!(of([None; 4]), [None, None]);
    }

    #[test]
    fn who_comes_and_goes_leaves_the_others_their_turns() {
        let (mut groups, no) = group(3);
        let all = [Some(Readiness::Ready); 3];
        assert_eq!(chosen(&mut groups, no, &all, 2), [0, 1].map(Some));
        groups.members_of_mut(no).pop();
        assert_eq!(chosen(&mut groups, no, &all, 3), [0, 1, 0].map(Some));
        groups.members_of_mut(no).clear();
        assert_eq!(chosen(&mut groups, no, &all, 1), [None]);
    }

    #[test]
    fn the_number_of_a_group_that_ended_is_given_again() {
        let (mut groups, no) = group(1);
        let other = groups.add("$share/h/a");
        groups.remove(no);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups.add("$share/i/a"), no);
        assert_eq!(groups.filter(no), "$share/i/a");
        assert_eq!(groups.filter(other), "$share/h/a");
        assert!(groups.members_of_mut(no).is_empty());
    }
}
