//! SIGTERM and SIGINT: clients are told, settlements are saved.

use crate::broker::Setup;
use crate::client::{Identity, Received};
use larder_packet::{Qos, ReasonCode, Version};

const MESSAGES: u32 = 200;

#[test]
fn sigterm_tells_the_clients_and_saves_what_they_have_acknowledged() {
    stops_well("TERM");
}

#[test]
fn sigint_tells_the_clients_and_saves_what_they_have_acknowledged() {
    stops_well("INT");
}

fn stops_well(signal: &str) {
    let mut broker = Setup::new("").start();
    let stored = [
        Identity::stored("stored-5", Version::V5),
        Identity::stored("stored-311", Version::V311),
    ];
    let mut links = Vec::new();
    for identity in &stored {
        let mut link = broker.connect(identity);
        link.subscribe("t", Qos::AtLeastOnce).unwrap();
        links.push((identity.version, link));
    }
    for (client_id, version) in [("volatile-5", Version::V5), ("volatile-311", Version::V311)] {
        links.push((
            version,
            broker.connect(&Identity::volatile(client_id, version)),
        ));
    }

    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));
    publisher
        .publish_all("t", 1..=MESSAGES, 16, |number| {
            number.to_string().into_bytes()
        })
        .unwrap();
    for (_, link) in &mut links[..stored.len()] {
        for number in 1..=MESSAGES {
            assert_eq!(
                link.next_message().unwrap().payload,
                number.to_string().into_bytes()
            );
        }
        // The PINGREQ comes after the PUBACKs.
        link.ping().unwrap();
    }

    broker.signal(signal);
    links.push((Version::V5, publisher));
    for (version, link) in &mut links {
        if *version == Version::V5 {
            let told = link.receive().unwrap();
            assert_eq!(told, Received::Disconnect(ReasonCode::ServerShuttingDown));
        }
        link.expect_end().unwrap();
    }
    assert_eq!(broker.wait_for_end().code(), Some(0));

    broker.start();
    let mut publisher = broker.connect(&Identity::volatile("publisher", Version::V5));
    publisher.publish_acknowledged("t", b"after").unwrap();
    for identity in &stored {
        let mut link = broker.connect(identity);
        assert!(link.session_present);
        // The first that comes: nothing that was acknowledged before comes again.
        assert_eq!(link.next_message().unwrap().payload, b"after");
    }
}
