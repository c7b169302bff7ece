//! What acknowledges leaves only after the fsync that covers it: seen from outside, in the system calls.

use crate::broker::{Broker, Setup, require};
use crate::client::{Client, Identity, Received, Step, packet_id};
use crate::trace::{Ground, Promise, Reply, Request, judge, marker};
use larder_packet::{Qos, ReasonCode, Version};
use std::fs;

const TRACE: &str = "trace";
const MESSAGES: u32 = 150;
const PUBLISHERS: u32 = 4;
/// Messages that each of several publishers has unacknowledged.
const WINDOW: u32 = 8;

#[test]
fn no_acknowledgement_leaves_before_its_fsync_with_one_message_at_a_time() {
    let broker = traced();
    let mut promises = subscribed(&broker);
    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));
    promises.extend(publish(&mut publisher, 1000, 1));
    drop(publisher);
    check(broker, &promises);
}

#[test]
fn no_acknowledgement_leaves_before_its_fsync_with_several_publishers() {
    let broker = traced();
    let mut promises = subscribed(&broker);
    // Connected, subscribed and silent: its window fills, and the rest of its queue waits on disk.
    let mut silent = broker.connect(&Identity::stored("silent", Version::V5));
    silent.subscribe("#", Qos::AtLeastOnce).unwrap();
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (1..=PUBLISHERS)
            .map(|index| {
                let version = if index % 2 == 0 {
                    Version::V5
                } else {
                    Version::V311
                };
                let identity = Identity::volatile(&format!("publisher-{index}"), version);
                let mut publisher = broker.connect(&identity);
                scope.spawn(move || match index {
                    1 | 2 => publish(&mut publisher, 1000 * index, WINDOW),
                    _ => publish_2(&mut publisher, 1000 * index),
                })
            })
            .collect();
        for publisher in publishers {
            promises.extend(publisher.join().unwrap());
        }
    });
    check(broker, &promises);
}

#[test]
fn no_step_of_qos_2_is_taken_before_the_fsync_that_covers_the_last() {
    let broker = traced();
    let mut subscriber = broker.connect(&Identity::stored("subscriber", Version::V311));
    subscriber.subscribe("to/#", Qos::ExactlyOnce).unwrap();
    let mut publisher = broker.connect(&Identity::stored("publisher", Version::V5));
    let mut promises = Vec::new();
    for number in 1000..1000 + MESSAGES {
        exactly_once(&mut publisher, &mut subscriber, number, &mut promises);
    }
    check(broker, &promises);
}

/// One message of QoS 2 from its PUBLISH to both PUBCOMPs, and what was promised on the way.
fn exactly_once(
    publisher: &mut Client,
    subscriber: &mut Client,
    number: u32,
    promises: &mut Vec<Promise>,
) {
    let ours = packet_id(number);
    let mut promise = |client: &Client, reply, ground| {
        let port = client.port();
        promises.push(Promise {
            port,
            reply,
            ground,
        });
    };
    publisher.queue_publish_2("to/present", marker(number).as_bytes(), ours, false);
    publisher.flush().unwrap();
    let pubrec = publisher.receive().unwrap();
    assert_eq!(pubrec, Received::PubRec(ours, ReasonCode::Success));
    let id = ours.get();
    promise(publisher, Reply::Publish(id), Ground::Marker(number));
    publisher.queue_step(Step::Release, ours);
    publisher.flush().unwrap();
    assert_eq!(publisher.receive().unwrap(), Received::PubComp(ours));
    let ground = Ground::Request(Request::Release(id));
    promise(publisher, Reply::Release(id), ground);

    let Received::Publish(message) = subscriber.receive().unwrap() else {
        panic!("{number}: a PUBLISH was due");
    };
    assert_eq!(message.payload, marker(number).as_bytes());
    let theirs = message.packet_id.unwrap();
    let id = theirs.get();
    promise(subscriber, Reply::Delivery(id), Ground::Marker(number));
    subscriber.queue_step(Step::Receipt, theirs);
    subscriber.flush().unwrap();
    assert_eq!(subscriber.receive().unwrap(), Received::PubRel(theirs));
    let ground = Ground::Request(Request::Receipt(id));
    promise(subscriber, Reply::Receipt(id), ground);
    subscriber.queue_step(Step::Completion, theirs);
    subscriber.flush().unwrap();
}

/// A broker under strace, which leaves the broker our child (`-D`) and hides nothing of what is written (`-s`).
fn traced() -> Broker {
    require("strace");
    let setup = Setup::new("");
    let calls =
        "trace=fsync,fdatasync,write,pwrite64,writev,pwritev,sendto,sendmsg,read,recvfrom,recvmsg";
    let words = [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-yy",
        "-xx",
        "-s",
        "1000000",
        "-e",
        calls,
        "-o",
    ];
    let trace = setup.beside(TRACE).into_os_string();
    setup
        .wrapped(words.map(Into::into).into_iter().chain([trace]))
        .start()
}

/// Stored sessions, subscribed and away again, and what was promised by their CONNACKs and SUBACKs.
fn subscribed(broker: &Broker) -> Vec<Promise> {
    let mut promises = Vec::new();
    for (number, version) in [(1, Version::V311), (3, Version::V5)] {
        let mut client = broker.connect(&Identity::stored(&marker(number), version));
        let filter = format!("{}/#", marker(number + 1));
        client.subscribe(&filter, Qos::AtLeastOnce).unwrap();
        client.subscribe("to/#", Qos::AtLeastOnce).unwrap();
        let port = client.port();
        promises.push(Promise {
            port,
            reply: Reply::Connect,
            ground: Ground::Marker(number),
        });
        promises.push(Promise {
            port,
            reply: Reply::Subscribe(1),
            ground: Ground::Marker(number + 1),
        });
        client.disconnect().unwrap();
    }
    promises
}

/// Publishes messages that are marked from `first` on, and says what their PUBACKs promised.
fn publish(publisher: &mut Client, first: u32, window: u32) -> Vec<Promise> {
    let numbers = first..=first + MESSAGES - 1;
    publisher
        .publish_all("to/absent", numbers.clone(), window, |number| {
            marker(number).into_bytes()
        })
        .unwrap();
    let port = publisher.port();
    numbers
        .map(|number| Promise {
            port,
            reply: Reply::Publish(packet_id(number).get()),
            ground: Ground::Marker(number),
        })
        .collect()
}

/// The same with QoS 2, a window at a time, and what the PUBRECs promised.
fn publish_2(publisher: &mut Client, first: u32) -> Vec<Promise> {
    let port = publisher.port();
    let numbers = Vec::from_iter(first..first + MESSAGES);
    for window in numbers.chunks(WINDOW as usize) {
        for number in window {
            let payload = marker(*number);
            let id = packet_id(*number);
            publisher.queue_publish_2("to/absent", payload.as_bytes(), id, false);
        }
        publisher.flush().unwrap();
        for number in window {
            let id = packet_id(*number);
            let pubrec = publisher.receive().unwrap();
            assert_eq!(pubrec, Received::PubRec(id, ReasonCode::Success));
            publisher.queue_step(Step::Release, id);
        }
        publisher.flush().unwrap();
        for number in window {
            let pubcomp = publisher.receive().unwrap();
            assert_eq!(pubcomp, Received::PubComp(packet_id(*number)));
        }
    }
    let promise = |number: &u32| Promise {
        port,
        reply: Reply::Publish(packet_id(*number).get()),
        ground: Ground::Marker(*number),
    };
    numbers.iter().map(promise).collect()
}

fn check(mut broker: Broker, promises: &[Promise]) {
    broker.signal("TERM");
    // The log ends when strace, too, has written its last line.
    broker.wait_for_end();
    let trace = fs::read_to_string(broker.beside(TRACE)).unwrap();
    let syncs = trace.lines().filter(|line| line.contains("sync(")).count();
    println!(
        "durable: {} replies, {syncs} fsyncs, {} lines of trace",
        promises.len(),
        trace.lines().count()
    );
    if let Err(faults) = judge(&trace, promises) {
        panic!(
            "{} of {} replies:\n{}",
            faults.len(),
            promises.len(),
            faults.join("\n")
        );
    }
}
