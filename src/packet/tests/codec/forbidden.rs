//! What the standards forbid, one broken rule a packet, with its clause.

use larder_packet::ReasonCode::{self as R, MalformedPacket as Bad, ProtocolError as Error};
use larder_packet::Version::{self, V5, V311};
use larder_packet::packet;

/// Each packet breaks one rule: Reason Code, clause, version, first byte, what follows the fixed header.
#[test]
fn what_the_standard_forbids_is_refused_with_its_clause() {
    for (reason, clause, version, first, body) in FORBIDDEN {
        let mut bytes = vec![*first, u8::try_from(body.len()).unwrap()];
        bytes.extend_from_slice(body);
        match packet(*version, &bytes) {
            Ok(decoded) => panic!("[{clause}] lets through {decoded:?}"),
            Err(malformed) => {
                assert_eq!(
                    (malformed.reason, malformed.clause),
                    (*reason, *clause),
                    "{body:02x?}"
                );
            }
        }
    }
}

type Forbidden = (R, &'static str, Version, u8, &'static [u8]);

const FORBIDDEN: &[Forbidden] = &[
    // Data representations.
    (Bad, "MQTT-1.5.4-1", V311, 0x30, b"\0\x02\xC3\x28"),
    (Bad, "MQTT-1.5.4-1", V311, 0x30, b"\0\x03\xED\xA0\x80"),
    (Bad, "MQTT-1.5.4-2", V311, 0x30, b"\0\x03a\0b"),
    (Bad, "MQTT-1.5.5-1", V5, 0x30, b"\0\x01a\x80\0"),
    (Bad, "MQTT 1.5.5", V5, 0x30, b"\0\x01a\xFF\xFF\xFF\xFF\x01"),
    (Bad, "MQTT-2.2.1-3", V311, 0x32, b"\0\x01a\0\0"),
    (Bad, "MQTT-2.2.1-3", V311, 0x82, b"\0\0\0\x01a\0"),
    (Bad, "MQTT-2.2.1-3", V5, 0x40, b"\0\0"),
    (Bad, "MQTT 2.1.4", V311, 0x40, b"\0"),
    (Bad, "MQTT 2.1.4", V311, 0x40, b"\0\x01\0"),
    (Bad, "MQTT 2.1.4", V5, 0xC0, b"\0"),
    (Bad, "MQTT 2.1.2", V311, 0xF0, b""),
    // Properties.
    (Bad, "MQTT 2.2.2.2", V5, 0x30, b"\0\x01a\x02\x7F\0"),
    (Bad, "MQTT 2.2.2.2", V5, 0x30, b"\0\x01a\x05\x11\0\0\0\x01"),
    (
        Error,
        "MQTT 2.2.2.2",
        V5,
        0x30,
        b"\0\x01a\x0A\x02\0\0\0\x01\x02\0\0\0\x01",
    ),
    (Bad, "MQTT 2.1.4", V5, 0x30, b"\0\x01a\x05\x02\0\0"),
    (Bad, "MQTT 2.1.4", V5, 0x30, b"\0\x01a\x03\x02\0\0\0\x01"),
    (Error, "MQTT 3.3.2.3.2", V5, 0x30, b"\0\x01a\x02\x01\x02"),
    (
        R::TopicAliasInvalid,
        "MQTT-3.3.2-8",
        V5,
        0x30,
        b"\0\x01a\x03\x23\0\0",
    ),
    (Error, "MQTT-3.3.2-14", V5, 0x30, b"\0\x01a\x04\x08\0\x01+"),
    (Error, "MQTT 3.8.2.1.2", V5, 0x30, b"\0\x01a\x02\x0B\0"),
    // CONNECT.
    (
        R::UnsupportedProtocolVersion,
        "MQTT-3.1.2-1",
        V5,
        0x10,
        b"\0\x04mqtt\x05\x02\0\0\0\0\0",
    ),
    (
        R::UnsupportedProtocolVersion,
        "MQTT-3.1.2-2",
        V5,
        0x10,
        b"\0\x04MQTT\x03\x02\0\0\0\0",
    ),
    (
        R::UnsupportedProtocolVersion,
        "MQTT-3.1.2-2",
        V5,
        0x10,
        b"\0\x04MQTT\x06\x02\0\0\0\0\0",
    ),
    (
        R::UnsupportedProtocolVersion,
        "MQTT-3.1.2-2",
        V5,
        0x10,
        b"\0\x06MQIsdp\x03\x02\0\0\0\x01c",
    ),
    (
        Bad,
        "MQTT-3.1.2-3",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x03\0\0\0\x01c",
    ),
    (
        Bad,
        "MQTT-3.1.2-11",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x0A\0\0\0\x01c",
    ),
    (
        Bad,
        "MQTT-3.1.2-12",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x1E\0\0\0\x01c\0\x01w\0\0",
    ),
    (
        Bad,
        "MQTT-3.1.2-13",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x22\0\0\0\x01c",
    ),
    (
        Bad,
        "MQTT 3.1.1 [MQTT-3.1.2-22]",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x42\0\0\0\x01c\0\x01p",
    ),
    (
        Bad,
        "MQTT 2.1.4",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01w",
    ),
    (
        Bad,
        "MQTT 2.1.4",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x02\0\0\0\x01cd",
    ),
    (
        Bad,
        "MQTT 2.1.4",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x82\0\0\0\x01c",
    ),
    (
        Bad,
        "MQTT-3.3.2-2",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01#\0\0",
    ),
    (
        Bad,
        "MQTT-4.7.3-1",
        V311,
        0x10,
        b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\0\0\0",
    ),
    (
        Error,
        "MQTT 3.1.2.11.3",
        V5,
        0x10,
        b"\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01c",
    ),
    (
        Error,
        "MQTT 3.1.2.11.4",
        V5,
        0x10,
        b"\0\x04MQTT\x05\x02\0\0\x05\x27\0\0\0\0\0\x01c",
    ),
    (
        Error,
        "MQTT 3.1.2.11.6",
        V5,
        0x10,
        b"\0\x04MQTT\x05\x02\0\0\x02\x19\x02\0\x01c",
    ),
    (
        Error,
        "MQTT 3.1.2.11.7",
        V5,
        0x10,
        b"\0\x04MQTT\x05\x02\0\0\x02\x17\x02\0\x01c",
    ),
    (
        Error,
        "MQTT 3.1.2.11.10",
        V5,
        0x10,
        b"\0\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\x01c",
    ),
    // CONNACK.
    (Bad, "MQTT-3.2.2-1", V311, 0x20, b"\x02\0"),
    (Error, "MQTT-3.2.2-6", V311, 0x20, b"\x01\x05"),
    (Error, "MQTT-3.2.2-8", V311, 0x20, b"\0\x06"),
    (Error, "MQTT-3.2.2-8", V5, 0x20, b"\0\x01\0"),
    (Error, "MQTT 3.2.2.3.4", V5, 0x20, b"\0\0\x02\x24\x02"),
    // PUBLISH.
    (Bad, "MQTT-3.3.1-2", V311, 0x38, b"\0\x01a"),
    (Bad, "MQTT-3.3.1-4", V311, 0x36, b"\0\x01a\0\x01"),
    (Bad, "MQTT-3.3.2-2", V311, 0x30, b"\0\x01#"),
    (Bad, "MQTT-3.3.2-2", V5, 0x30, b"\0\x03a/+\0"),
    (Bad, "MQTT-4.7.3-1", V311, 0x30, b"\0\0"),
    (Error, "MQTT 3.3.2.1", V5, 0x30, b"\0\0\0"),
    // Acknowledgements.
    (Error, "MQTT-3.4.2-1", V5, 0x40, b"\0\x01\x92"),
    (Error, "MQTT-3.5.2-1", V5, 0x50, b"\0\x01\x01"),
    (Error, "MQTT-3.6.2-1", V5, 0x62, b"\0\x01\x80"),
    (Error, "MQTT-3.7.2-1", V5, 0x70, b"\0\x01\x10"),
    (Bad, "MQTT-2.1.3-1", V5, 0x60, b"\0\x01"),
    (Bad, "MQTT 2.1.4", V5, 0x40, b"\0\x01\0\0\0"),
    // SUBSCRIBE, SUBACK.
    (Bad, "MQTT-2.1.3-1", V311, 0x80, b"\0\x01\0\x01a\0"),
    (Error, "MQTT-3.8.3-2", V311, 0x82, b"\0\x01"),
    (
        Error,
        "MQTT-3.8.3-4",
        V5,
        0x82,
        b"\0\x01\0\0\x0A$share/g/a\x04",
    ),
    (Bad, "MQTT-3.8.3-5", V311, 0x82, b"\0\x01\0\x01a\x04"),
    (Bad, "MQTT-3.8.3-5", V5, 0x82, b"\0\x01\0\0\x01a\x40"),
    (Error, "MQTT 3.8.3.1", V311, 0x82, b"\0\x01\0\x01a\x03"),
    (Error, "MQTT 3.8.3.1", V5, 0x82, b"\0\x01\0\0\x01a\x30"),
    (
        Error,
        "MQTT 3.8.2.1.2",
        V5,
        0x82,
        b"\0\x01\x02\x0B\0\0\x01a\0",
    ),
    (
        Error,
        "MQTT 2.2.2.2",
        V5,
        0x82,
        b"\0\x01\x04\x0B\x01\x0B\x02\0\x01a\0",
    ),
    (Bad, "MQTT-4.7.1-1", V311, 0x82, b"\0\x01\0\x02a#\0"),
    (Bad, "MQTT-4.7.1-2", V311, 0x82, b"\0\x01\0\x02a+\0"),
    (Bad, "MQTT-4.7.3-1", V311, 0x82, b"\0\x01\0\0\0"),
    (Bad, "MQTT-4.8.2-2", V5, 0x82, b"\0\x01\0\0\x08$share/g\0"),
    (Bad, "MQTT 2.1.4", V311, 0x82, b"\0\x01\0\x01a"),
    (Error, "MQTT-3.9.3-2", V311, 0x90, b"\0\x01\x87"),
    (Error, "MQTT-3.9.3-2", V5, 0x90, b"\0\x01\0\x03"),
    (Error, "MQTT-3.9.3-2", V5, 0x90, b"\0\x01\0"),
    // UNSUBSCRIBE, UNSUBACK.
    (Error, "MQTT-3.10.3-2", V5, 0xA2, b"\0\x01\0"),
    (Bad, "MQTT-4.7.1-1", V5, 0xA2, b"\0\x01\0\0\x03#/a"),
    (Error, "MQTT-3.11.3-2", V5, 0xB0, b"\0\x01\0\x01"),
    (Bad, "MQTT 2.1.4", V311, 0xB0, b"\0\x01\0"),
    // DISCONNECT, AUTH.
    (Bad, "MQTT-2.1.3-1", V5, 0xE1, b""),
    (Bad, "MQTT 2.1.4", V311, 0xE0, b"\0"),
    (Error, "MQTT-3.14.2-1", V5, 0xE0, b"\x86"),
    (Error, "MQTT-3.14.2-1", V5, 0xE0, b"\x01"),
    (Error, "MQTT-3.15.2-1", V5, 0xF0, b"\x80\0"),
    (Error, "MQTT 3.15.2.2.2", V5, 0xF0, b"\x18\0"),
];
