//! Whose turn it is: in what order the lanes of a session are delivered from.
//!
//! What was sent on an earlier link comes first. Then the lanes come in the order of the classes, and the session's own
//! queue last; but each gets its share. Every message that leaves gives each queue with something to send its percentage
//! as credit; a queue with credit for a whole message is due, and pays for it. So it gets at least its part of all
//! messages, and the first gets what is left.

use super::journal::Journal;
use super::lanes::Lane;
use super::queue::Queue;
use super::window::Window;
use crate::limits::SESSION_LANES;

/// What a message costs in credit, at least: shares are percentages.
const PRICE: u32 = 100;

/// The turns of one delivery. A lane is named by its index; the session's own queue by the one after the last.
pub(super) struct Turns {
    /// Those that cannot go on now.
    waits: [bool; SESSION_LANES + 1],
    /// Messages for which a queue may gather credit: a window, as many as others can be sent while a page of it is read.
    messages_max: u32,
}

impl Turns {
    /// `window`: how many messages may be in flight.
    pub(super) fn new(window: u16) -> Turns {
        Turns {
            waits: [false; SESSION_LANES + 1],
            messages_max: u32::from(window.max(1)),
        }
    }

    /// Whose turn it is, and how many rows it may read ahead; `None`: nobody's.
    pub(super) fn next(
        &self,
        own: &Queue,
        lanes: &[Lane],
        is_open: bool,
        window: &Window,
        journal: &Journal,
    ) -> Option<(usize, Option<u16>)> {
        let queues = || {
            let queues = lanes.iter().map(|lane| &lane.queue);
            let queues = queues.chain(std::iter::once(own)).enumerate();
            queues.filter(|(_, queue)| queue.has_next(journal))
        };
        let is_resending = queues().any(|(_, queue)| queue.is_resending(window));
        let may = |index: usize, queue: &Queue| {
            !self.waits[index]
                && (is_open || index == lanes.len())
                && queue.is_resending(window) == is_resending
        };
        let price = price(queues().map(|(_, queue)| queue.policy().share));
        let ready = queues().filter(|(index, queue)| may(*index, queue));
        choose(ready.map(|(index, queue)| (index, queue.credit)), price)
    }

    /// It cannot go on now.
    pub(super) fn waits(&mut self, index: usize) {
        self.waits[index] = true;
    }

    /// It has had its turn.
    pub(super) fn passed(
        &self,
        index: usize,
        own: &mut Queue,
        lanes: &mut [Lane],
        journal: &Journal,
    ) {
        let shares = {
            let queues = lanes.iter().map(|lane| &lane.queue);
            let queues = queues.chain(std::iter::once(&*own));
            queues
                .filter(|queue| queue.has_next(journal))
                .map(|queue| queue.policy().share)
        };
        let price = price(shares);
        let queues = lanes.iter_mut().map(|lane| &mut lane.queue);
        for (other, queue) in queues.chain(std::iter::once(own)).enumerate() {
            queue.credit = if !queue.has_next(journal) {
                0
            } else {
                let share = queue.policy().share;
                self.credit_after(queue.credit, share, price, other == index)
            };
        }
    }

    /// The credit of a queue with something to send after a message has left; `is_its`: the message was its own. What it
    /// is sent beyond its share it owes to nobody.
    fn credit_after(&self, credit: u32, share: u8, price: u32, is_its: bool) -> u32 {
        let credit = credit + u32::from(share);
        if is_its {
            credit.saturating_sub(price)
        } else {
            credit.min(self.messages_max * price)
        }
    }
}

/// What a message costs those with something to send. If several lanes with the share of one class have more than all
/// together, each gets its part of that.
fn price(shares: impl Iterator<Item = u8>) -> u32 {
    shares.map(u32::from).sum::<u32>().max(PRICE)
}

/// Chooses among the queues that can go on, named with their credit in the order of the classes.
fn choose(queues: impl Iterator<Item = (usize, u32)>, price: u32) -> Option<(usize, Option<u16>)> {
    let mut first = None;
    let mut others = false;
    let mut due: Option<(usize, u32)> = None;
    for (index, credit) in queues {
        others |= first.is_some();
        first.get_or_insert(index);
        if credit >= price && due.is_none_or(|(_, most)| credit > most) {
            due = Some((index, credit));
        }
    }
    match due {
        // It has what is due to it before the others go on.
        Some((index, credit)) if others => {
            let rows = u16::try_from(credit / price).unwrap_or(u16::MAX);
            Some((index, Some(rows)))
        }
        _ => first.map(|index| (index, None)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// How many messages more or less than it should each queue is sent of so many, while all have something.
    fn differences(shares: &[u8], messages: usize, expected: &[i64]) -> Vec<i64> {
        let turns = Turns::new(64);
        let mut credits = vec![0; shares.len()];
        let mut sent = vec![0; shares.len()];
        let price = price(shares.iter().copied());
        for _ in 0..messages {
            let (next, _) = choose(credits.iter().copied().enumerate(), price).unwrap();
            sent[next] += 1;
            for (index, share) in shares.iter().enumerate() {
                credits[index] = turns.credit_after(credits[index], *share, price, index == next);
            }
        }
        sent.iter()
            .zip(expected)
            .map(|(of, expected)| of - expected)
            .collect()
    }

    #[test]
    fn each_gets_its_share_and_the_first_what_is_left() {
        for (shares, expected) in [
            (&[5, 5][..], &[9_500, 500][..]),
            (&[0, 30, 20, 0], &[5_000, 3_000, 2_000, 0]),
            (&[10, 33, 33, 24], &[1_000, 3_300, 3_300, 2_400]),
            (&[0, 100], &[0, 10_000]),
            // Lanes of one class may have its share each.
            (&[60, 60, 60, 60], &[2_500; 4]),
        ] {
            let differences = differences(shares, 10_000, expected);
            assert!(
                differences.iter().all(|of| of.abs() <= 3),
                "{shares:?}: {differences:?}"
            );
        }
    }

    #[test]
    fn who_waits_gathers_no_more_than_a_window() {
        let turns = Turns::new(2);
        assert_eq!(turns.credit_after(190, 50, 100, false), 200);
        assert_eq!(turns.credit_after(20, 50, 100, true), 0);
    }
}
