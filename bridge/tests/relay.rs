//! The rules of the relay, one by one.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use larder_bridge::message::{Message, Properties};
use larder_bridge::relay::{Action, CloseReason, Counters, Reason, Relay, Side, Terms};
use larder_bridge::rule::Rule;
use larder_packet::Qos;

fn rule(filter: &str, strip_prefix: &str, add_prefix: &str, qos: Qos) -> Rule {
    Rule {
        filter: filter.into(),
        strip_prefix: strip_prefix.into(),
        add_prefix: add_prefix.into(),
        qos,
    }
}

/// Forwards `plant/#` as `site/#`, receives `commands/#` as it is.
fn relay(window: u16) -> Relay {
    Relay::new(
        vec![
            rule("plant/quick", "", "", Qos::AtMostOnce),
            rule("plant/#", "plant/", "site/", Qos::AtLeastOnce),
        ],
        vec![rule("commands/#", "", "", Qos::AtLeastOnce)],
        window,
        Counters::default(),
    )
}

fn linked(window: u16) -> Relay {
    let mut relay = relay(window);
    relay.linked(Side::Local, Terms::default());
    relay.linked(Side::Cloud, Terms::default());
    relay
}

fn message(topic: &str, qos: Qos) -> Message {
    Message {
        topic: topic.into(),
        qos,
        retain: false,
        properties: Properties::default(),
        payload: Bytes::from_static(b"21.5"),
    }
}

fn actions(relay: &mut Relay, now: u64) -> Vec<Action> {
    std::iter::from_fn(|| relay.poll_action(now)).collect()
}

/// The ids and topics of what was sent to the cloud; nothing else may have been done.
fn sent(actions: &[Action]) -> Vec<(u64, &str)> {
    actions
        .iter()
        .map(|action| match action {
            Action::Publish {
                to: Side::Cloud,
                id,
                message,
            } => (*id, message.topic.as_str()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn acks(tags: &[u16]) -> Vec<Action> {
    tags.iter()
        .map(|tag| Action::Acknowledge {
            to: Side::Local,
            tag: *tag,
        })
        .collect()
}

#[test]
fn acknowledged_to_the_source_after_the_destination_and_in_order() {
    let mut relay = linked(8);
    for tag in 1..=3 {
        relay.message(
            Side::Local,
            tag,
            message(&format!("plant/{tag}"), Qos::AtLeastOnce),
            0,
        );
    }
    let done = actions(&mut relay, 0);
    let ids: Vec<_> = sent(&done).iter().map(|(id, _)| *id).collect();
    assert_eq!(
        sent(&done)
            .iter()
            .map(|(_, topic)| *topic)
            .collect::<Vec<_>>(),
        ["site/1", "site/2", "site/3"]
    );
    relay.acknowledged(Side::Cloud, ids[1], 0);
    relay.acknowledged(Side::Cloud, ids[2], 0x10);
    assert_eq!(actions(&mut relay, 0), []);
    relay.acknowledged(Side::Cloud, ids[0], 0);
    assert_eq!(actions(&mut relay, 0), acks(&[1, 2, 3]));
    relay.acknowledged(Side::Cloud, ids[0], 0);
    assert_eq!(
        relay.counters(),
        Counters {
            forwarded: 3,
            ..Counters::default()
        }
    );
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut relay = linked(8);
    relay.message(Side::Local, 1, message("plant/quick", Qos::AtLeastOnce), 0);
    let done = actions(&mut relay, 0);
    assert_eq!(sent(&done[..1]), [(0, "plant/quick")]);
    assert_eq!(done[1..], acks(&[1]));
}

#[test]
fn what_no_rule_matches_is_acknowledged_in_its_turn() {
    let mut relay = linked(8);
    relay.message(Side::Local, 1, message("plant/1", Qos::AtLeastOnce), 0);
    relay.message(Side::Local, 2, message("kitchen/1", Qos::AtLeastOnce), 0);
    let id = sent(&actions(&mut relay, 0))[0].0;
    relay.acknowledged(Side::Cloud, id, 0);
    assert_eq!(actions(&mut relay, 0), acks(&[1, 2]));
    assert_eq!(relay.counters().unmatched, 1);
}

#[test]
fn qos_0_crosses_now_or_not_at_all() {
    let mut relay = relay(2);
    relay.linked(Side::Local, Terms::default());
    relay.message(Side::Local, 0, message("plant/1", Qos::AtMostOnce), 0);
    relay.linked(Side::Cloud, Terms::default());
    assert_eq!(actions(&mut relay, 0), []);
    for _ in 0..3 {
        relay.message(Side::Local, 0, message("plant/2", Qos::AtMostOnce), 0);
    }
    assert_eq!(
        sent(&actions(&mut relay, 0)),
        [(0, "site/2"), (0, "site/2")]
    );
    relay.written(Side::Cloud);
    relay.message(Side::Local, 0, message("plant/3", Qos::AtMostOnce), 0);
    assert_eq!(sent(&actions(&mut relay, 0)), [(0, "site/3")]);
    assert_eq!(relay.counters().dropped, 2);
}

#[test]
fn the_cloud_takes_no_more_than_its_receive_maximum() {
    let mut relay = relay(8);
    relay.linked(Side::Local, Terms::default());
    relay.linked(
        Side::Cloud,
        Terms {
            receive_maximum: 2,
            ..Terms::default()
        },
    );
    for tag in 1..=8 {
        relay.message(Side::Local, tag, message("plant/1", Qos::AtLeastOnce), 0);
    }
    assert!(!relay.accepts(Side::Local));
    let first = actions(&mut relay, 0);
    assert_eq!(first.len(), 2);
    relay.acknowledged(Side::Cloud, sent(&first)[0].0, 0);
    assert!(matches!(
        actions(&mut relay, 0)[..],
        [Action::Publish { .. }, Action::Acknowledge { tag: 1, .. }]
    ));
    assert!(relay.accepts(Side::Local));
}

#[test]
fn a_new_cloud_link_gets_again_what_is_unacknowledged_in_its_order() {
    let mut relay = linked(8);
    for tag in 1..=3 {
        relay.message(
            Side::Local,
            tag,
            message(&format!("plant/{tag}"), Qos::AtLeastOnce),
            0,
        );
    }
    let ids: Vec<_> = sent(&actions(&mut relay, 0))
        .iter()
        .map(|(id, _)| *id)
        .collect();
    relay.acknowledged(Side::Cloud, ids[1], 0);
    relay.unlinked(Side::Cloud, false);
    assert_eq!(actions(&mut relay, 0), []);
    relay.linked(Side::Cloud, Terms::default());
    let again = actions(&mut relay, 0);
    assert_eq!(
        sent(&again)
            .iter()
            .map(|(_, topic)| *topic)
            .collect::<Vec<_>>(),
        ["site/1", "site/3"]
    );
    assert_eq!(relay.counters().doubled_possible, 2);
}

#[test]
fn nothing_of_a_dead_local_link_is_acknowledged_on_the_next() {
    let mut relay = linked(8);
    relay.message(Side::Local, 1, message("plant/1", Qos::AtLeastOnce), 0);
    relay.message(Side::Local, 2, message("plant/2", Qos::AtLeastOnce), 0);
    let ids: Vec<_> = sent(&actions(&mut relay, 0))
        .iter()
        .map(|(id, _)| *id)
        .collect();
    relay.acknowledged(Side::Cloud, ids[0], 0);
    relay.unlinked(Side::Local, false);
    relay.linked(Side::Local, Terms::default());
    relay.acknowledged(Side::Cloud, ids[1], 0);
    assert_eq!(actions(&mut relay, 0), []);
    // The session brings both again, and their new ids have their own acks.
    relay.message(Side::Local, 1, message("plant/1", Qos::AtLeastOnce), 0);
    let again = actions(&mut relay, 0);
    relay.acknowledged(Side::Cloud, sent(&again)[0].0, 0);
    assert_eq!(actions(&mut relay, 0), acks(&[1]));
}

#[test]
fn refused_by_the_cloud_is_counted_reported_and_acknowledged() {
    let mut relay = linked(8);
    relay.message(Side::Local, 7, message("plant/1", Qos::AtLeastOnce), 0);
    let id = sent(&actions(&mut relay, 0))[0].0;
    relay.acknowledged(Side::Cloud, id, 0x87);
    let done = actions(&mut relay, 0);
    assert_eq!(done[..1], acks(&[7]));
    assert!(
        matches!(&done[1], Action::SetAside { to: Side::Cloud, what }
        if what.topic == "site/1" && what.payload_len == 4 && what.reason == Reason::Refused(0x87))
    );
    assert_eq!(relay.counters().set_aside(), 1);
}

#[test]
fn larger_than_the_cloud_takes_is_set_aside_unsent() {
    let mut relay = relay(8);
    relay.linked(Side::Local, Terms::default());
    relay.linked(
        Side::Cloud,
        Terms {
            packet_size_max: Some(16),
            ..Terms::default()
        },
    );
    relay.message(
        Side::Local,
        1,
        message("plant/a-long-name", Qos::AtLeastOnce),
        0,
    );
    relay.message(Side::Local, 2, message("plant/", Qos::AtLeastOnce), 0);
    let done = actions(&mut relay, 0);
    assert_eq!(sent(&done[..1]), [(2, "site/")]);
    assert_eq!(done[1..2], acks(&[1]));
    assert!(matches!(&done[2], Action::SetAside { what, .. }
        if what.reason == Reason::TooLarge { size: 27, max: 16 }));
    assert_eq!(relay.counters().too_large, 1);
}

#[test]
fn a_message_that_closes_five_links_is_set_aside_and_the_next_ones_go() {
    let mut relay = relay(8);
    relay.linked(Side::Local, Terms::default());
    for tag in 1..=3 {
        relay.message(
            Side::Local,
            tag,
            message(&format!("plant/{tag}"), Qos::AtLeastOnce),
            0,
        );
    }
    // After the second time it is sent alone, to be sure that it is the one.
    for sent_together in [3, 3, 1, 1, 1] {
        relay.linked(Side::Cloud, Terms::default());
        assert_eq!(sent(&actions(&mut relay, 0)).len(), sent_together);
        relay.unlinked(Side::Cloud, true);
    }
    let done = actions(&mut relay, 0);
    assert_eq!(done[..1], acks(&[1]));
    assert!(
        matches!(&done[1], Action::SetAside { what, .. } if what.reason == Reason::ClosesLinks(5))
    );
    relay.linked(Side::Cloud, Terms::default());
    assert_eq!(
        sent(&actions(&mut relay, 0))
            .iter()
            .map(|(_, topic)| *topic)
            .collect::<Vec<_>>(),
        ["site/2", "site/3"]
    );
}

#[test]
fn links_that_fail_by_themselves_blame_no_message() {
    let mut relay = relay(8);
    relay.linked(Side::Local, Terms::default());
    relay.message(Side::Local, 1, message("plant/1", Qos::AtLeastOnce), 0);
    for _ in 0..20 {
        relay.linked(Side::Cloud, Terms::default());
        assert_eq!(sent(&actions(&mut relay, 0)).len(), 1);
        relay.unlinked(Side::Cloud, false);
    }
    assert_eq!(relay.counters().set_aside(), 0);
}

#[test]
fn the_expiry_interval_goes_on_counting_in_the_relay() {
    let mut relay = relay(8);
    relay.linked(Side::Local, Terms::default());
    let lasting = |seconds| {
        let mut message = message("plant/1", Qos::AtLeastOnce);
        message.properties.message_expiry = Some(seconds);
        message
    };
    relay.message(Side::Local, 1, lasting(10), 1_000);
    relay.message(Side::Local, 2, lasting(3), 1_000);
    relay.linked(Side::Cloud, Terms::default());
    let done = actions(&mut relay, 4_500);
    let [Action::Publish { id, message, .. }] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!(message.properties.message_expiry, Some(7));
    relay.acknowledged(Side::Cloud, *id, 0);
    assert_eq!(actions(&mut relay, 4_500), acks(&[1, 2]));
    assert_eq!(relay.counters().expired, 1);
}

#[test]
fn a_thousand_expired_messages_are_acknowledged_at_once() {
    let mut relay = relay(1_000);
    relay.linked(Side::Local, Terms::default());
    for tag in 1..=1_000 {
        let mut message = message("plant/1", Qos::AtLeastOnce);
        message.properties.message_expiry = Some(1);
        relay.message(Side::Local, tag, message, 0);
    }
    relay.linked(Side::Cloud, Terms::default());
    assert_eq!(actions(&mut relay, 2_000).len(), 1_000);
}

#[test]
fn what_the_server_does_not_take_is_not_sent() {
    let mut relay = relay(8);
    relay.linked(Side::Local, Terms::default());
    relay.linked(
        Side::Cloud,
        Terms {
            qos_max: Qos::AtMostOnce,
            retain_available: false,
            ..Terms::default()
        },
    );
    relay.message(
        Side::Local,
        1,
        Message {
            retain: true,
            ..message("plant/1", Qos::AtLeastOnce)
        },
        0,
    );
    let done = actions(&mut relay, 0);
    assert!(
        matches!(&done[0], Action::Publish { message, .. } if message.qos == Qos::AtMostOnce && !message.retain)
    );
    assert_eq!(done[1..], acks(&[1]));
}

#[test]
fn properties_and_retain_cross_as_they_are() {
    let mut relay = linked(8);
    let properties = Properties {
        payload_format: Some(1),
        message_expiry: Some(60),
        content_type: Some("text/plain".into()),
        response_topic: Some("plant/answers".into()),
        correlation_data: Some(Bytes::from_static(b"7")),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "1".into()),
        ],
    };
    let sent = Message {
        retain: true,
        properties,
        ..message("commands/1", Qos::AtLeastOnce)
    };
    relay.message(Side::Cloud, 1, sent.clone(), 0);
    assert!(
        matches!(&actions(&mut relay, 0)[..], [Action::Publish { to: Side::Local, message, .. }] if *message == sent)
    );
}

#[test]
fn a_topic_that_the_prefixes_spoil_is_set_aside() {
    let mut relay = linked(8);
    let long = format!("plant/{}", "x".repeat(65_529));
    let mut relay_long = Relay::new(
        vec![rule("plant/#", "", "site/", Qos::AtLeastOnce)],
        Vec::new(),
        8,
        Counters::default(),
    );
    relay_long.linked(Side::Local, Terms::default());
    relay_long.message(Side::Local, 1, message(&long, Qos::AtLeastOnce), 0);
    assert!(
        matches!(&actions(&mut relay_long, 0)[..], [Action::Acknowledge { tag: 1, .. }, Action::SetAside { what, .. }]
        if what.reason == Reason::InvalidTopic)
    );
    relay.message(Side::Local, 1, message(&long, Qos::AtLeastOnce), 0);
    assert_eq!(sent(&actions(&mut relay, 0)).len(), 1);
}

#[test]
fn a_side_that_breaks_its_word_loses_its_link() {
    let mut relay = linked(1);
    relay.message(Side::Cloud, 1, message("commands/1", Qos::ExactlyOnce), 0);
    assert_eq!(
        actions(&mut relay, 0),
        [Action::Close {
            side: Side::Cloud,
            reason: CloseReason::ExactlyOnce
        }]
    );
}

#[test]
fn a_side_that_exceeds_the_window_loses_its_link_once_what_was_taken_has_crossed() {
    let mut relay = linked(2);
    for tag in 1..=3 {
        relay.message(
            Side::Local,
            tag,
            message(&format!("plant/{tag}"), Qos::AtLeastOnce),
            0,
        );
    }
    let ids: Vec<_> = sent(&actions(&mut relay, 0))
        .iter()
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(ids.len(), 2);
    relay.acknowledged(Side::Cloud, ids[0], 0);
    assert_eq!(actions(&mut relay, 0), acks(&[1]));
    // There is room again, but the third is missing.
    relay.message(Side::Local, 4, message("plant/4", Qos::AtLeastOnce), 0);
    relay.acknowledged(Side::Cloud, ids[1], 0);
    let done = actions(&mut relay, 0);
    assert_eq!(done[..1], acks(&[2]));
    assert_eq!(
        done[1..],
        [Action::Close {
            side: Side::Local,
            reason: CloseReason::WindowExceeded
        }]
    );
    relay.unlinked(Side::Local, false);
    relay.linked(Side::Local, Terms::default());
    relay.message(Side::Local, 1, message("plant/3", Qos::AtLeastOnce), 0);
    assert_eq!(sent(&actions(&mut relay, 0)).len(), 1);
}
