//! Every drop can be seen: by client, class and reason, under `$SYS`.

use crate::packets::{self, Connect, publish_1};
use crate::world::{SYS_INTERVAL, World};
use larder::broker::{QueueClass, QueuePolicy, QueueRule, WhenFull};
use larder::limits::{Limits, SYS_CLIENTS};
use larder::net::LinkId;

/// A world in which a queue takes two messages, and so does its class "alarms".
fn world() -> World {
    let policy = QueuePolicy {
        messages_max: 2,
        when_full: WhenFull::DropNewest,
        ..QueuePolicy::drop_oldest(1 << 20)
    };
    let alarms = QueueClass {
        name: "alarms".to_owned(),
        filters: vec!["alarm/#".to_owned()],
        policy: policy.clone(),
        reserve: 0,
    };
    let rule = |client_id: &str, classes| QueueRule {
        client_id: client_id.to_owned(),
        policy: policy.clone(),
        classes,
    };
    let rules = vec![rule("hall/+1%", vec![alarms]), rule("*", Vec::new())];
    World::with_rules(Limits::default(), rules)
}

fn away(world: &mut World, client_id: &'static str) {
    let link = world.connect(&Connect::v311(client_id).unclean());
    world.subscribe(link, "#", 1);
    world.lose(link);
}

/// What is told of clients next, in the order of its telling.
fn told(world: &mut World, watcher: LinkId) -> Vec<String> {
    world.pass(SYS_INTERVAL);
    let messages = world.messages(watcher).into_iter();
    let told = messages.map(|message| {
        let topic = message.topic.strip_prefix("$SYS/larder/client/").unwrap();
        format!("{topic} {}", String::from_utf8_lossy(&message.payload))
    });
    told.collect()
}

fn watcher(world: &mut World) -> LinkId {
    let watcher = world.connect(&Connect::v311("watcher"));
    world.subscribe(watcher, "$SYS/larder/client/#", 0);
    watcher
}

#[test]
fn a_drop_is_told_by_client_class_and_reason() {
    let mut world = world();
    away(&mut world, "hall/+1%");
    away(&mut world, "plain");
    let publisher = world.connect(&Connect::v311("publisher"));
    let watcher = watcher(&mut world);
    assert_eq!(told(&mut world, watcher), [""; 0]);
    for topic in ["t", "t", "t", "alarm/a", "alarm/a", "alarm/a", "alarm/a"] {
        world.publish(publisher, topic, b"x");
    }
    let expected = [
        "hall%2F%2B1%25/dropped/queue-full 1",
        "hall%2F%2B1%25/class/alarms/dropped/queue-full 2",
        "plain/dropped/queue-full 5",
    ];
    assert_eq!(told(&mut world, watcher), expected);
    assert_eq!(told(&mut world, watcher), [""; 0]);
    world.publish(publisher, "alarm/a", b"x");
    assert_eq!(
        told(&mut world, watcher),
        [
            "hall%2F%2B1%25/class/alarms/dropped/queue-full 3",
            "plain/dropped/queue-full 6"
        ]
    );

    // Nothing is retained of a session that has ended, nor of another one with its name.
    for client_id in ["hall/+1%", "plain"] {
        let link = world.connect(&Connect::v311(client_id));
        world.lose(link);
    }
    away(&mut world, "plain");
    let gone = [
        "hall%2F%2B1%25/dropped/queue-full ",
        "hall%2F%2B1%25/class/alarms/dropped/queue-full ",
        "plain/dropped/queue-full ",
    ];
    assert_eq!(told(&mut world, watcher), gone);
    assert_eq!(retained(&mut world), 0);
}

/// How many topics are retained of clients.
fn retained(world: &mut World) -> usize {
    let link = world.connect(&Connect::v311("other watcher"));
    let filters = ["$SYS/larder/client/#".to_owned()];
    world.say(link, &packets::subscribe(false, 1, &filters, 0));
    let (retained, _) = packets::without_suback(&world.received(link));
    world.lose(link);
    packets::messages(false, &retained).len()
}

#[test]
fn drops_of_a_volatile_session_are_told_too() {
    let mut world = world();
    let link = world.connect(&Connect::v5("small").packet_max(30));
    world.subscribe(link, "#", 1);
    let publisher = world.connect(&Connect::v311("publisher"));
    let watcher = watcher(&mut world);
    for _ in 0..3 {
        world.say(publisher, &publish_1("t", 1, &[b'x'; 30]));
    }
    assert_eq!(told(&mut world, watcher), ["small/dropped/too-large 3"]);
    world.lose(link);
    assert_eq!(told(&mut world, watcher), ["small/dropped/too-large "]);
}

#[test]
fn clients_that_lost_nothing_lately_give_way_to_others() {
    let mut world = world();
    let names: Vec<&'static str> = (0..SYS_CLIENTS + 2)
        .map(|number| &*format!("c{number:02}").leak())
        .collect();
    for name in &names {
        let link = world.connect(&Connect::v311(name).unclean());
        world.subscribe(link, name, 1);
        world.lose(link);
    }
    let publisher = world.connect(&Connect::v311("publisher"));
    let watcher = watcher(&mut world);
    let lose = |world: &mut World, names: &[&str]| {
        for name in names {
            for _ in 0..3 {
                world.publish(publisher, name, b"x");
            }
        }
        told(world, watcher)
    };
    assert_eq!(lose(&mut world, &names[..2]).len(), 2);
    // The first two were the last to lose something.
    let told = lose(&mut world, &names[2..SYS_CLIENTS]);
    assert_eq!(told.len(), SYS_CLIENTS - 2);
    assert_eq!(lose(&mut world, &names[..1]), ["c00/dropped/queue-full 4"]);
    let told = lose(&mut world, &names[SYS_CLIENTS..]);
    assert_eq!(
        told,
        [
            "c50/dropped/queue-full 1",
            "c51/dropped/queue-full 1",
            "c01/dropped/queue-full ",
            "c02/dropped/queue-full ",
        ]
    );
    assert_eq!(retained(&mut world), SYS_CLIENTS);
    // All lose something at once: as many are told of as there is room for.
    lose(&mut world, &names);
    assert_eq!(retained(&mut world), SYS_CLIENTS);
    assert_eq!(lose(&mut world, &[]).len(), 2 * 2);
}
