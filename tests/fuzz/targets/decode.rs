//! A packet: what is decoded means the same when it is encoded and decoded again.

use larder_packet::{Frame, Packet, Version, frame, packet};

const PACKET_MAX: usize = 1 << 20;

/// The first byte gives the version, the rest is what a link brings.
pub(crate) fn decode(input: &[u8]) {
    let Some((version, mut bytes)) = input.split_first() else {
        return;
    };
    let mut version = [Version::V311, Version::V5][usize::from(version % 2)];
    while let Ok(Frame::Complete { len }) = frame(bytes, PACKET_MAX) {
        let (first, rest) = bytes.split_at(len);
        bytes = rest;
        let Ok(decoded) = packet(version, first) else {
            continue;
        };
        if let Packet::Connect(connect) = &decoded {
            version = connect.version;
        }
        look_at(&decoded);
        let mut encoded = Vec::new();
        decoded.encode(version, &mut encoded);
        assert_eq!(encoded.len(), decoded.encoded_len(version), "{decoded:?}");
        let again = packet(version, &encoded);
        assert_eq!(
            again.as_ref(),
            Ok(&decoded),
            "{first:02x?} was encoded as {encoded:02x?}"
        );
    }
    // A beginning is never more than its whole.
    let _ = larder_packet::connect_level(bytes);
}

/// What is decoded late, is decoded.
fn look_at(decoded: &Packet) {
    match decoded {
        Packet::Connect(connect) => {
            connect.properties.iter().for_each(drop);
            if let Some(will) = &connect.will {
                will.properties.iter().for_each(drop);
            }
        }
        Packet::Publish(publish) => publish.properties.iter().for_each(drop),
        Packet::Subscribe(subscribe) => {
            subscribe.properties.iter().for_each(drop);
            assert!(subscribe.filters.iter().count() > 0);
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(unsubscribe.filters.iter().count() > 0);
        }
        _ => {}
    }
}
