//! Shared Subscriptions [MQTT 4.8.2]: the groups that share the messages of one filter under one ShareName, and which of its
//! members gets a message.
//!
//! The choice is made when a message is published. Who can take it at once goes before who has as much as it takes at a
//! time, and who is connected before who is away; among equals members take turns.

use super::link::{Link, Phase};
use super::router::Subscriber;
use super::session::Session;
use larder_packet::Qos;

/// Numbers the groups; used again once a group has no member left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupNo(u32);

/// How well a member can take a message now: the better the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// It is away, and the message would be lost to it.
    Gone,
    /// It is away, and the message waits in its queue.
    Away,
    /// It is connected, and other messages wait for it.
    Busy,
    /// It is connected, and can be sent the message.
    Ready,
}

impl Readiness {
    /// Of a session with its link, for a message of the QoS with which it would get it.
    pub(super) fn of(session: &Session, link: Option<&Link>, qos: Qos) -> Readiness {
        let Some(link) = link else {
            return match qos {
                Qos::AtMostOnce => Readiness::Gone,
                _ if session.queue.is_none() => Readiness::Gone,
                _ => Readiness::Away,
            };
        };
        let takes = u64::from(session.window.takes(link.receive_maximum));
        let has_room = qos == Qos::AtMostOnce
            || match &session.queue {
                Some(queue) => queue.messages < takes,
                None => session.window.free(link.receive_maximum) > 0,
            };
        let is_free = link.phase == Phase::Connected
            && link.blocked_since.is_none()
            && session.transient.is_empty();
        if has_room && is_free {
            Readiness::Ready
        } else {
            Readiness::Busy
        }
    }
}

struct Group {
    name: Box<str>,
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
    pub(super) fn add(&mut self, name: &str) -> GroupNo {
        let group = Group {
            name: name.into(),
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
        self.group_mut(no).name = "".into();
        self.free.push(no.0);
    }

    /// Its ShareName.
    pub(super) fn name(&self, no: GroupNo) -> &str {
        &self.groups[no.0 as usize].name
    }

    pub(super) fn members_mut(&mut self, no: GroupNo) -> &mut Vec<Subscriber> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SubscriptionRecord;

    /// A group of so many members, in the places from 0.
    fn group(members: u32) -> (Groups, GroupNo) {
        let mut groups = Groups::default();
        let no = groups.add("g");
        groups
            .members_mut(no)
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
        groups.members_mut(no).pop();
        assert_eq!(chosen(&mut groups, no, &all, 3), [0, 1, 0].map(Some));
        groups.members_mut(no).clear();
        assert_eq!(chosen(&mut groups, no, &all, 1), [None]);
    }

    #[test]
    fn the_number_of_a_group_that_ended_is_given_again() {
        let (mut groups, no) = group(1);
        let other = groups.add("h");
        groups.remove(no);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups.add("i"), no);
        assert_eq!((groups.name(no), groups.name(other)), ("i", "h"));
        assert!(groups.members_mut(no).is_empty());
    }
}
