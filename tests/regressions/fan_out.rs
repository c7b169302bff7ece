//! What many clients get is encoded once; each gets what is its own all the same.

use crate::packets::{self, Connect, publish_0, subscribe};
use crate::world::World;
use larder::limits::{COPIED_BYTES, Limits};

#[test]
fn each_of_many_gets_the_message_as_it_has_asked_for_it() {
    const RETAIN_AS_PUBLISHED: u8 = 0x08;
    let mut world = World::new(Limits::default());
    let mut readers = Vec::new();
    for round in 0..2 {
        for (name, is_v5, options) in [
            ("a", false, 0),
            ("b", true, 0),
            ("c", true, RETAIN_AS_PUBLISHED),
            ("small", true, 0),
        ] {
            let name: &'static str = format!("{name}{round}").leak();
            let mut connect = match is_v5 {
                true => Connect::v5(name),
                false => Connect::v311(name),
            };
            let is_small = name.starts_with("small");
            if is_small {
                connect = connect.packet_max(64);
            }
            let link = world.connect(&connect);
            world.say(link, &subscribe(is_v5, 1, &["#".to_owned()], options));
            world.received(link);
            readers.push((link, options > 0, is_small));
        }
    }
    let publisher = world.connect(&Connect::v311("publisher"));
    let sizes = [
        0,
        1,
        20,
        200,
        COPIED_BYTES - 1,
        COPIED_BYTES,
        3 * COPIED_BYTES,
    ];
    for (number, size) in (0_u8..).zip(sizes) {
        let payload = vec![b'a' + number; size];
        for retain in [false, true] {
            let publish = publish_0("t", &payload);
            let publish = match retain {
                true => packets::retained(publish),
                false => publish,
            };
            world.say(publisher, &publish);
            for (link, as_published, is_small) in &readers {
                let messages = world.messages(*link);
                if *is_small && size > 50 {
                    assert!(messages.is_empty());
                    continue;
                }
                let [message] = &messages[..] else {
                    panic!("{messages:?}")
                };
                assert_eq!(message.retain, retain && *as_published);
                assert_eq!(message.payload, payload);
            }
        }
    }
}
