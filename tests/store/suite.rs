//! What every store promises.

use crate::harness::{
    Fill, InMemory, Kept, OnDisk, all_of, in_words, latest, payload, seqs, superseded,
};
use larder::record::{
    Change, Dropped, End, Extent, LeftOut, PageRequest, RecoveredMessage, RecoveredRetained,
    RecoveredWill, SessionKey, SessionRecord, SubscriptionRecord, Will, WillRecord,
};
use larder::store::LATEST_TOPICS;
use larder::time::ServiceSeconds;
use larder_packet::Qos;

macro_rules! promises {
    ($($promise:ident)*) => {
        mod on_disk {
            $(#[test] fn $promise() { super::$promise(&mut super::OnDisk::new()); })*
        }
        mod in_memory {
            $(#[test] fn $promise() { super::$promise(&mut super::InMemory::new()); })*
        }
    };
}

promises! {
    starts_empty
    keeps_sessions_and_subscriptions
    keeps_the_reserve_when_the_record_changes
    keeps_rows_with_all_they_say
    shares_a_message_until_the_last_row_is_settled
    reads_pages_within_their_limits
    reads_pages_from_the_newest_row_back
    knows_which_rows_are_superseded
    knows_nothing_of_topics_beyond_those_that_it_remembers
    ignores_what_is_not_there
    drops_the_oldest_rows_of_a_range
    lets_stay_what_a_receiver_may_have_begun_with
    drops_what_is_too_many_and_what_is_too_old
    ends_a_session_with_all_it_has
    applies_changes_in_their_order
    keeps_the_later_of_two_rows_with_one_number
    notes_service_time_once_a_minute
    knows_a_queue_from_its_first_and_last_row
    keeps_of_a_received_row_what_is_still_owed
    gives_up_a_shared_message_that_all_have_received
    holds_packet_identifiers_until_they_are_released
    keeps_the_last_retained_message_of_each_topic
    keeps_a_will_until_its_session_ends
    copies_what_is_owed_retained_and_willed_at_once
}

const RECORD: SessionRecord = SessionRecord {
    expiry_interval: 3_600,
    left_at: Some(ServiceSeconds(77)),
    configured: false,
};
const CONFIGURED: SessionRecord = SessionRecord {
    expiry_interval: u32::MAX,
    left_at: None,
    configured: true,
};
const SUBSCRIPTION: SubscriptionRecord = SubscriptionRecord {
    qos: 2,
    no_local: true,
    retain_as_published: false,
    retain_handling: 2,
    identifier: Some(268_435_455),
};

const WILL: WillRecord = WillRecord {
    qos: 2,
    retain: true,
    delay_interval: u32::MAX,
    message_expiry_interval: Some(0),
};

fn starts_empty(store: &mut dyn Kept) {
    let recovered = store.restart();
    assert!(recovered.sessions.is_empty());
    assert_eq!(recovered.last_session, SessionKey(0));
    assert_eq!(recovered.service, ServiceSeconds(0));
    assert_eq!(recovered.wall, None);
    assert_eq!(recovered.salvaged, None);
    assert_eq!(recovered.retained, []);
    assert_eq!(
        in_words(&store.read(all_of(1))),
        [format!("read up to {}, bad []", 1_u64 << 40)]
    );
}

fn keeps_sessions_and_subscriptions(store: &mut dyn Kept) {
    let plain = SubscriptionRecord::default();
    let fill = Fill::new()
        .session(3, "press", RECORD)
        .session(9, "Ofen-Süd", CONFIGURED)
        .subscribe(3, "b/#", plain)
        .subscribe(3, "a/+", plain)
        .subscribe(3, "a/+", SUBSCRIPTION)
        .subscribe(9, "c", plain);
    store.commit(fill.done());
    store.commit(
        Fill::new()
            .unsubscribe(3, "b/#")
            .unsubscribe(3, "not there")
            .done(),
    );
    let recovered = store.restart();
    let [press, oven] = &recovered.sessions[..] else {
        panic!("{recovered:?}")
    };
    assert_eq!(
        (press.key, &press.client_id[..], press.record),
        (SessionKey(3), "press", RECORD)
    );
    assert_eq!(press.subscriptions, [("a/+".to_owned(), SUBSCRIPTION)]);
    assert_eq!(
        (oven.key, &oven.client_id[..], oven.record),
        (SessionKey(9), "Ofen-Süd", CONFIGURED)
    );
    assert_eq!(oven.subscriptions, [("c".to_owned(), plain)]);
    assert_eq!((oven.seq_reserved, oven.extent), (0, None));
    assert_eq!(recovered.last_session, SessionKey(9));
}

fn keeps_the_reserve_when_the_record_changes(store: &mut dyn Kept) {
    store.commit(
        Fill::new()
            .session(1, "press", RECORD)
            .reserve(1, 1024)
            .done(),
    );
    store.commit(Fill::new().session(1, "press", CONFIGURED).done());
    let recovered = store.restart();
    assert_eq!(recovered.sessions[0].seq_reserved, 1024);
    assert_eq!(recovered.sessions[0].record, CONFIGURED);
}

fn keeps_rows_with_all_they_say(store: &mut dyn Kept) {
    let mut fill = Fill::new().session(1, "a", RECORD).session(2, "b", RECORD);
    let shared = fill.message("hall/light", b"on");
    fill.owe(shared, 1, 1);
    fill.owe(shared, 2, 6);
    let single = fill.message("hall/heat", &[0; 5_000]);
    fill.owe(single, 1, 2);
    let unowed = fill.message("nobody", b"");
    assert_eq!(unowed, 2);
    store.commit(fill.done());
    for _ in 0..2 {
        let first = r#"1 "hall/light" "\u{1}\u{1}" "on" Some(9000) AtLeastOnce false "\u{b}\u{5}" 14 bytes at 1001 latest"#;
        let page = store.read(all_of(1));
        assert_eq!(in_words(&page)[0], first);
        assert_eq!((page.rows[1].size, page.rows[1].received), (5_011, false));
        assert_eq!(page.rows[1].message.payload.of(&page.bytes), [0; 5_000]);
        assert_eq!(seqs(&page), [1, 2]);
        let other = r#"6 "hall/light" "\u{1}\u{1}" "on" Some(9000) ExactlyOnce true "\u{b}\u{5}" 14 bytes at 1006 latest"#;
        assert_eq!(in_words(&store.read(all_of(2)))[0], other);
        store.restart();
    }
}

fn shares_a_message_until_the_last_row_is_settled(store: &mut dyn Kept) {
    let mut fill = Fill::new()
        .session(1, "a", RECORD)
        .session(2, "b", RECORD)
        .session(3, "c", RECORD);
    let message = fill.message("t", b"shared by three");
    for key in 1..=3 {
        fill.owe(message, key, 1);
    }
    store.commit(fill.done());
    store.commit(Fill::new().settle(1, 1).done());
    store.commit(Fill::new().end(2).done());
    store.restart();
    assert_eq!(seqs(&store.read(all_of(1))), [0; 0]);
    assert!(in_words(&store.read(all_of(3)))[0].contains("shared by three"));
    store.commit(Fill::new().settle(3, 1).done());
    assert_eq!(
        store
            .restart()
            .sessions
            .iter()
            .filter_map(|session| session.extent)
            .count(),
        0
    );
}

fn reads_pages_within_their_limits(store: &mut dyn Kept) {
    store.commit(
        Fill::new()
            .session(1, "a", RECORD)
            .queue(1, 1..=50, 100)
            .settle(1, 20)
            .done(),
    );
    let request = PageRequest {
        after: 10,
        up_to: 40,
        ..all_of(1)
    };
    let page = store.read(request);
    assert_eq!(
        seqs(&page),
        (11..=40).filter(|&seq| seq != 20).collect::<Vec<_>>()
    );
    assert_eq!(page.read_up_to, 40);

    let page = store.read(PageRequest {
        rows_max: 5,
        ..request
    });
    assert_eq!(
        (seqs(&page), page.read_up_to),
        (vec![11, 12, 13, 14, 15], 15)
    );
    let page = store.read(PageRequest {
        rows_max: 29,
        ..request
    });
    assert_eq!(
        (page.rows.len(), page.read_up_to),
        (29, 40),
        "nothing is left behind it"
    );

    // Each row is 105 bytes with topic, properties and identifiers.
    let page = store.read(PageRequest {
        bytes_max: 250,
        ..request
    });
    assert_eq!((seqs(&page), page.read_up_to), (vec![11, 12, 13], 13));
    let page = store.read(PageRequest {
        bytes_max: 0,
        ..request
    });
    assert_eq!(
        (seqs(&page), page.read_up_to),
        (vec![11], 11),
        "one row always comes"
    );
    let page = store.read(PageRequest {
        after: 40,
        ..request
    });
    assert_eq!((seqs(&page), page.read_up_to), (vec![], 40));
}

fn reads_pages_from_the_newest_row_back(store: &mut dyn Kept) {
    store.commit(
        Fill::new()
            .session(1, "a", RECORD)
            .session(2, "b", RECORD)
            .queue(1, 1..=50, 100)
            .queue(2, 1..=50, 100)
            .settle(1, 20)
            .done(),
    );
    let request = PageRequest {
        from: End::Newest,
        after: 10,
        up_to: 40,
        ..all_of(1)
    };
    let page = store.read(request);
    let descending: Vec<_> = (11..=40).rev().filter(|&seq| seq != 20).collect();
    assert_eq!((seqs(&page), page.read_up_to), (descending.clone(), 11));

    let mut read = Vec::new();
    let mut up_to = 40;
    while up_to > request.after {
        let page = store.read(PageRequest {
            up_to,
            rows_max: 5,
            ..request
        });
        assert!(page.rows.len() <= 5);
        read.extend(seqs(&page));
        up_to = page.read_up_to - 1;
    }
    assert_eq!(read, descending);

    // Each row is 105 bytes with topic, properties and identifiers.
    let page = store.read(PageRequest {
        bytes_max: 250,
        ..request
    });
    assert_eq!((seqs(&page), page.read_up_to), (vec![40, 39, 38], 38));
    let page = store.read(PageRequest {
        after: 40,
        ..request
    });
    assert_eq!((seqs(&page), page.read_up_to), (vec![], 41));
    let page = store.read(PageRequest {
        after: 0,
        up_to: u64::MAX,
        rows_max: 1,
        ..request
    });
    assert_eq!((seqs(&page), page.read_up_to), (vec![50], 50));
}

fn knows_which_rows_are_superseded(store: &mut dyn Kept) {
    let mut fill = Fill::new()
        .session(1, "a", RECORD)
        .session(2, "b", RECORD)
        .topics(1, 1, &["a", "b", "a", "c", "a/b", "b"]);
    // A message that several are owed stands beside their rows.
    let shared = fill.message("c", b"shared");
    fill.owe(shared, 1, 7);
    fill.owe(shared, 2, 1);
    store.commit(fill.topics(2, 2, &["c"]).done());
    for _ in 0..2 {
        let page = store.read(all_of(1));
        assert_eq!(
            (superseded(&page), latest(&page)),
            (vec![1, 2, 4], vec![3, 5, 6, 7])
        );
        assert_eq!(superseded(&store.read(all_of(2))), [1]);
        store.restart();
    }
    let newest = PageRequest {
        from: End::Newest,
        after: 1,
        up_to: 4,
        ..all_of(1)
    };
    let page = store.read(newest);
    assert_eq!((superseded(&page), latest(&page)), (vec![4, 2], vec![3]));
    let not_asked = PageRequest {
        recency: false,
        ..all_of(1)
    };
    let page = store.read(not_asked);
    assert_eq!((superseded(&page), latest(&page)), (vec![], vec![]));

    // The latest of "b" is gone, and that of "c" has been received: nothing is known of what they had superseded.
    store.commit(Fill::new().settle(1, 6).received(1, 7).done());
    let page = store.read(all_of(1));
    assert_eq!((superseded(&page), latest(&page)), (vec![1], vec![3, 5]));
    store.commit(Fill::new().topics(1, 9, &["b", "c"]).done());
    assert_eq!(superseded(&store.read(all_of(1))), [1, 2, 4]);
    store.commit(Fill::new().received(1, 2).received(1, 9).done());
    let page = store.read(all_of(1));
    assert_eq!(
        (superseded(&page), latest(&page)),
        (vec![1, 4], vec![3, 5, 10])
    );

    // Behind a row that is not remembered it begins anew.
    let mut fill = Fill::new();
    let other = fill.message("a", b"of no index");
    fill.owe(other, 1, 11);
    fill.not_indexed();
    store.commit(fill.done());
    let page = store.read(all_of(1));
    assert_eq!((superseded(&page), latest(&page)), (vec![], vec![]));
    store.commit(Fill::new().topics(1, 12, &["a", "a"]).done());
    let page = store.read(all_of(1));
    assert_eq!(
        (superseded(&page), latest(&page)),
        (vec![1, 3, 11, 12], vec![13])
    );
    assert_eq!(superseded(&store.read(all_of(2))), [1]);
}

fn knows_nothing_of_topics_beyond_those_that_it_remembers(store: &mut dyn Kept) {
    let max = u64::from(LATEST_TOPICS);
    let mut fill = Fill::new().session(1, "a", RECORD);
    for seq in 1..=max + 1 {
        let message = fill.message(&format!("{seq}"), b"");
        fill.owe_after(message, 1, seq, seq - 1, 0);
    }
    store.commit(fill.done());
    let unknown = format!("{}", max + 1);
    store.commit(Fill::new().topics(1, max + 2, &[&unknown, "1"]).done());
    let last = PageRequest {
        after: max,
        ..all_of(1)
    };
    let page = store.read(last);
    assert_eq!((superseded(&page), latest(&page)), (vec![], vec![max + 3]));
    assert_eq!(superseded(&store.read(all_of(1))), [1]);

    // Topics are forgotten whose rows are gone.
    let mut fill = Fill::new();
    for seq in 1..=max / 16 {
        fill = fill.settle(1, seq);
    }
    store.commit(fill.done());
    store.commit(Fill::new().topics(1, max + 4, &[&unknown]).done());
    assert_eq!(superseded(&store.read(last)), [max + 1, max + 2]);
    store.restart();
    assert_eq!(superseded(&store.read(last)), [max + 1, max + 2]);
}

fn ignores_what_is_not_there(store: &mut dyn Kept) {
    let mut fill = Fill::new().session(1, "a", RECORD);
    let one = fill.message("t", b"for one after all");
    fill.owe(one, 1, 1);
    fill.owe(one, 7, 1);
    let none = fill.message("t", b"for nobody");
    fill.owe(none, 7, 2);
    let fill = fill
        .settle(1, 99)
        .settle(7, 1)
        .end(7)
        .reserve(7, 5)
        .subscribe(7, "f", SUBSCRIPTION)
        .received(1, 99)
        .received(7, 1)
        .hold(7, 1)
        .release(7, 1)
        .release(1, 1)
        .unretain("not there")
        .will(7, b"nobody's", WillRecord::default())
        .no_will(7)
        .no_will(1)
        .drop_oldest(7, 0, (0, 9), 3, 0);
    let dropped = store.commit(fill.done());
    assert_eq!(
        dropped,
        [Dropped {
            session: SessionKey(7),
            aged: false,
            messages: 0,
            bytes: 0,
            kept: (0, 0),
            rest: None,
        }]
    );
    let recovered = store.restart();
    assert_eq!(recovered.sessions.len(), 1);
    let session = &recovered.sessions[0];
    assert!(session.subscriptions.is_empty() && session.held.is_empty() && session.will.is_none());
    assert!(recovered.retained.is_empty());
    assert!(in_words(&store.read(all_of(1)))[0].contains("for one after all"));
}

fn drops_the_oldest_rows_of_a_range(store: &mut dyn Kept) {
    // 103 bytes each.
    store.commit(
        Fill::new()
            .session(1, "a", RECORD)
            .queue(1, 1..=20, 100)
            .done(),
    );
    let ever = 20 * 103;
    let gone = |kept, messages, rest: Option<u64>| Dropped {
        session: SessionKey(1),
        aged: false,
        messages,
        bytes: messages * 103,
        kept: (kept, kept * 103),
        rest: rest.map(|row| (row - 1, (row - 1) * 103)),
    };
    // What is to stay is counted from the newest row back.
    let fill = Fill::new()
        .drop_oldest(1, 0, (5, 20), ever, 12 * 103)
        .drop_oldest(1, 0, (5, 20), ever, 10 * 103 + 102);
    let dropped = store.commit(fill.done());
    assert_eq!(dropped, [gone(0, 3, Some(9)), gone(0, 2, Some(11))]);
    assert_eq!(
        seqs(&store.read(all_of(1))),
        [1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    );
    // The hole does not make more go than must; a range ends where it ends.
    let fill = Fill::new()
        .drop_oldest(1, 0, (5, 20), ever, 10 * 103)
        .drop_oldest(1, 0, (5, 12), ever, 0);
    assert_eq!(
        store.commit(fill.done()),
        [gone(0, 0, Some(11)), gone(0, 2, None)]
    );
    store.restart();
    // What is kept counts, but leaves at least half to the newest.
    let fill = Fill::new()
        .drop_oldest(1, 3, (2, 20), ever, (3 + 6) * 103)
        .drop_oldest(1, 5, (0, 20), ever, 8 * 103)
        .drop_oldest(1, 100, (2, 20), ever, 0);
    assert_eq!(
        store.commit(fill.done()),
        [gone(3, 2, Some(15)), gone(5, 2, Some(17)), gone(7, 0, None)]
    );
    assert_eq!(
        seqs(&store.read(all_of(1))),
        [1, 2, 3, 4, 5, 17, 18, 19, 20]
    );
}

fn lets_stay_what_a_receiver_may_have_begun_with(store: &mut dyn Kept) {
    // 103 bytes each, the even ones of QoS 2.
    let fill = Fill::new().session(1, "a", RECORD).queue(1, 1..=16, 100);
    store.commit(fill.received(1, 4).received(1, 8).done());
    let gone = |kept, messages, rest: Option<u64>| Dropped {
        session: SessionKey(1),
        aged: false,
        messages,
        bytes: messages * 103,
        kept: (kept, kept * 103),
        rest: rest.map(|row| (row - 1, (row - 1) * 103)),
    };
    // Twelve may have been sent, and two were in flight: behind the first two stay those that were received, and two of QoS 2
    // that were not.
    let fill = Fill::new().drop_sent(1, (12, 2), (0, 15), 16 * 103, 0);
    assert_eq!(store.commit(fill.done()), [gone(6, 9, None)]);
    assert_eq!(seqs(&store.read(all_of(1))), [1, 2, 4, 6, 8, 10, 16]);
    store.restart();
    let fill = Fill::new().drop_sent(1, (4, 1), (0, 16), 16 * 103, 206);
    assert_eq!(store.commit(fill.done()), [gone(3, 3, Some(16))]);
    assert_eq!(seqs(&store.read(all_of(1))), [1, 2, 4, 16]);
}

fn drops_what_is_too_many_and_what_is_too_old(store: &mut dyn Kept) {
    let fill = Fill::new().session(1, "a", RECORD);
    store.commit(fill.queue(1, 1..=20, 100).done());
    let gone = |aged, messages, rest: Option<u64>| Dropped {
        session: SessionKey(1),
        aged,
        messages,
        bytes: messages * 103,
        kept: (0, 0),
        rest: rest.map(|row| (row - 1, (row - 1) * 103)),
    };
    // Number n was queued at 1,000 + n.
    let fill = Fill::new()
        .drop_to(1, 20, 20, 17)
        .drop_aged(1, 20, 1_006)
        .drop_aged(1, 20, 1_006)
        .drop_aged(1, 8, 9_999);
    assert_eq!(
        store.commit(fill.done()),
        [
            gone(false, 3, Some(4)),
            gone(true, 2, Some(6)),
            gone(true, 0, Some(6)),
            gone(true, 3, None)
        ]
    );
    assert_eq!(seqs(&store.read(all_of(1))), Vec::from_iter(9..=20));
}

fn ends_a_session_with_all_it_has(store: &mut dyn Kept) {
    let fill = Fill::new()
        .session(1, "a", RECORD)
        .subscribe(1, "f", SUBSCRIPTION)
        .hold(1, 7)
        .will(1, b"gone", WILL);
    store.commit(fill.queue(1, 1..=1_500, 50).done());
    store.commit(Fill::new().end(1).session(2, "a", CONFIGURED).done());
    assert_eq!(seqs(&store.read(all_of(1))), [0; 0]);
    let recovered = store.restart();
    assert_eq!(recovered.sessions.len(), 1);
    assert_eq!(recovered.sessions[0].key, SessionKey(2));
    assert_eq!(recovered.sessions[0].extent, None);
    assert!(recovered.sessions[0].subscriptions.is_empty());
    assert!(recovered.sessions[0].held.is_empty());
    assert_eq!(recovered.sessions[0].will, None);
    store.commit(Fill::new().end(2).done());
    let recovered = store.restart();
    assert!(recovered.sessions.is_empty());
    assert_eq!(
        recovered.last_session,
        SessionKey(2),
        "a key is never given twice"
    );
}

fn applies_changes_in_their_order(store: &mut dyn Kept) {
    let fill = Fill::new()
        .session(1, "first", RECORD)
        .queue(1, 1..=3, 10)
        .settle(1, 2)
        .session(2, "second", RECORD)
        .queue(2, 1..=3, 10)
        .end(2)
        .queue(1, 4..=6, 10)
        .drop_oldest(1, 0, (0, 6), 6 * 11, 5 * 11);
    assert_eq!(store.commit(fill.done())[0].messages, 1);
    assert_eq!(store.restart().sessions.len(), 1);
    assert_eq!(seqs(&store.read(all_of(1))), [3, 4, 5, 6]);
}

fn keeps_the_later_of_two_rows_with_one_number(store: &mut dyn Kept) {
    let mut fill = Fill::new().session(1, "a", RECORD).session(2, "b", RECORD);
    let shared = fill.message("t", b"shared");
    fill.owe(shared, 1, 1);
    fill.owe(shared, 2, 1);
    let later = fill.message("t", b"later");
    fill.owe(later, 1, 1);
    store.commit(fill.done());
    assert!(in_words(&store.read(all_of(1)))[0].contains("later"));
    assert!(in_words(&store.read(all_of(2)))[0].contains("shared"));
}

fn notes_service_time_once_a_minute(store: &mut dyn Kept) {
    let mut noted_after = |batches: &[(u64, Option<u64>)]| {
        for &(service, wall) in batches {
            store.commit(Fill::at(service, wall).done());
        }
        let recovered = store.restart();
        (recovered.service.0, recovered.wall)
    };
    assert_eq!(noted_after(&[(59, None)]), (0, None));
    assert_eq!(noted_after(&[(60, None), (119, None)]), (60, None));
    assert_eq!(
        noted_after(&[(130, Some(1_700_000_000))]),
        (130, Some(1_700_000_000))
    );
    assert_eq!(
        noted_after(&[(140, Some(1_700_000_010))]),
        (130, Some(1_700_000_000))
    );
    assert_eq!(noted_after(&[(190, None)]), (190, None));
    store.commit(Fill::at(191, None).session(1, "a", RECORD).done());
    assert_eq!(store.restart().service.0, 191, "the row is written anyway");
}

fn knows_a_queue_from_its_first_and_last_row(store: &mut dyn Kept) {
    let mut fill = Fill::new().session(1, "a", RECORD);
    for seq in 1..=10 {
        let message = fill.message("t", &payload(seq, 97));
        // Five messages were queued and cancelled before these.
        fill.owe_after(message, 1, seq + 100, seq + 4, 500 + (seq - 1) * 100);
    }
    store.commit(fill.settle(1, 101).settle(1, 103).settle(1, 110).done());
    let extent = Extent {
        first: 102,
        last: 109,
        messages: 8,
        bytes: 800,
        messages_ever: 14,
        bytes_ever: 1_400,
    };
    assert_eq!(store.restart().sessions[0].extent, Some(extent));
}

fn keeps_of_a_received_row_what_is_still_owed(store: &mut dyn Kept) {
    let fill = Fill::new().session(1, "a", RECORD).queue(1, 1..=3, 100);
    store.commit(fill.done());
    let before = store.restart().sessions[0].extent;
    store.commit(Fill::new().received(1, 2).done());
    for _ in 0..2 {
        let page = store.read(all_of(1));
        assert_eq!(
            in_words(&page)[1],
            r#"2 "" "" "" None ExactlyOnce false "" 103 bytes at 1002 received"#
        );
        assert_eq!(seqs(&page), [1, 2, 3]);
        assert_eq!(store.restart().sessions[0].extent, before);
    }
    // Said twice, it is as said once; what is dropped counts as it was queued.
    let fill = Fill::new()
        .received(1, 2)
        .received(1, 1)
        .drop_oldest(1, 0, (1, 3), 309, 103);
    assert_eq!(
        store.commit(fill.done()),
        [Dropped {
            session: SessionKey(1),
            aged: false,
            messages: 1,
            bytes: 103,
            kept: (0, 0),
            rest: Some((2, 206)),
        }]
    );
    store.commit(Fill::new().settle(1, 1).done());
    assert_eq!(seqs(&store.read(all_of(1))), [3]);
}

fn gives_up_a_shared_message_that_all_have_received(store: &mut dyn Kept) {
    let mut fill = Fill::new().session(1, "a", RECORD).session(2, "b", RECORD);
    let message = fill.message("t", b"shared by two");
    fill.owe(message, 1, 2);
    fill.owe(message, 2, 2);
    // In the same batch, too.
    store.commit(fill.received(1, 2).done());
    assert!(in_words(&store.read(all_of(1)))[0].ends_with("16 bytes at 1002 received"));
    assert!(in_words(&store.read(all_of(2)))[0].contains("shared by two"));
    store.commit(Fill::new().received(2, 2).settle(1, 2).done());
    store.restart();
    assert!(in_words(&store.read(all_of(2)))[0].ends_with("16 bytes at 1002 received"));
    store.commit(Fill::new().settle(2, 2).done());
    assert_eq!(store.restart().sessions[1].extent, None);
}

fn holds_packet_identifiers_until_they_are_released(store: &mut dyn Kept) {
    let fill = Fill::new()
        .session(1, "a", RECORD)
        .session(2, "b", RECORD)
        .hold(2, 65_535)
        .hold(2, 1)
        .hold(1, 300)
        .hold(2, 300)
        .hold(2, 300)
        .hold(1, 5)
        .release(1, 5);
    store.commit(fill.done());
    let held = |store: &mut dyn Kept| -> Vec<Vec<u16>> {
        let sessions = store.restart().sessions;
        let ids = sessions.iter().map(|session| session.held.iter());
        ids.map(|ids| ids.map(|id| id.get()).collect()).collect()
    };
    assert_eq!(held(store), [vec![300], vec![1, 300, 65_535]]);
    store.commit(Fill::new().release(2, 300).release(2, 1).hold(2, 1).done());
    assert_eq!(held(store), [vec![300], vec![1, 65_535]]);
}

fn keeps_the_last_retained_message_of_each_topic(store: &mut dyn Kept) {
    let large = vec![b'x'; 256 << 10];
    let fill = Fill::new()
        .retain("hall/light", b"on", Qos::AtLeastOnce)
        .retain("hall/heat", b"21", Qos::AtMostOnce)
        .retain("Öl", &large, Qos::ExactlyOnce)
        .retain("hall/light", b"off", Qos::ExactlyOnce)
        .retain("cellar", b"gone", Qos::AtLeastOnce)
        .unretain("cellar");
    store.commit(fill.done());
    store.commit(
        Fill::new()
            .unretain("hall/heat")
            .retain("hall/heat", b"22", Qos::AtMostOnce)
            .done(),
    );
    let retained = |topic: &str, payload: &[u8], qos| RecoveredRetained {
        message: RecoveredMessage {
            topic: topic.to_owned(),
            properties: b"\x01\x01".to_vec(),
            payload: payload.to_vec(),
            expires_at: Some(ServiceSeconds(9_000)),
        },
        qos,
        left_out: None,
    };
    let (heat, light) = (
        retained("hall/heat", b"22", Qos::AtMostOnce),
        retained("hall/light", b"off", Qos::ExactlyOnce),
    );
    let whole = retained("Öl", &large, Qos::ExactlyOnce);
    let mut left_out = retained("Öl", b"", Qos::ExactlyOnce);
    left_out.message.properties = Vec::new();
    left_out.left_out = Some(LeftOut::of(b"\x01\x01", &large));
    assert_eq!(store.restart().retained, [heat, light.clone(), left_out]);
    assert!(store.read_retained("Öl") == Some(whole));
    assert_eq!(store.read_retained("hall/light"), Some(light));
    assert_eq!(store.read_retained("cellar"), None);
    store.commit(Fill::new().unretain("Öl").unretain("hall/light").done());
    let left = store.restart().retained;
    assert_eq!(left, [retained("hall/heat", b"22", Qos::AtMostOnce)]);
}

fn keeps_a_will_until_its_session_ends(store: &mut dyn Kept) {
    let fill = Fill::new()
        .session(1, "a", RECORD)
        .session(2, "b", RECORD)
        .will(1, b"first", WillRecord::default())
        .will(1, b"second", WILL)
        .will(2, b"other", WillRecord::default());
    store.commit(fill.done());
    // The record of a session says nothing of its Will.
    store.commit(Fill::new().session(1, "a", CONFIGURED).no_will(2).done());
    let sessions = store.restart().sessions;
    let will = RecoveredWill {
        message: RecoveredMessage {
            topic: "will/1".to_owned(),
            properties: b"\x01\x01".to_vec(),
            payload: b"second".to_vec(),
            expires_at: None,
        },
        record: WILL,
    };
    assert_eq!(sessions[0].will, Some(will));
    assert_eq!(sessions[1].will, None);
    store.commit(Fill::new().end(1).session(3, "a", RECORD).done());
    let sessions = store.restart().sessions;
    assert!(sessions.iter().all(|session| session.will.is_none()));
}

/// One message may be all of these in one batch; each goes by itself.
fn copies_what_is_owed_retained_and_willed_at_once(store: &mut dyn Kept) {
    let mut fill = Fill::new().session(1, "a", RECORD).session(2, "b", RECORD);
    let message = fill.message("t", b"many times");
    fill.owe(message, 1, 1);
    let retain = Change::Retain {
        message,
        qos: Qos::AtLeastOnce,
    };
    let will = Will {
        message,
        record: WILL,
    };
    let save_will = Change::SaveWill {
        session: SessionKey(2),
        will: Some(will),
    };
    store.commit(fill.change(retain).change(save_will).done());
    store.commit(Fill::new().settle(1, 1).done());
    let recovered = store.restart();
    assert_eq!(recovered.sessions[0].extent, None);
    assert_eq!(recovered.retained[0].message.payload, b"many times");
    assert_eq!(
        recovered.sessions[1]
            .will
            .as_ref()
            .map(|will| &will.message),
        Some(&recovered.retained[0].message)
    );
}
