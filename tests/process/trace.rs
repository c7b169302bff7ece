//! The judge of a trace: whether replies left only after what they rest on was on disk.
//!
//! The writer's thread is let go from its fsync after that line of the trace was written, and only then can it tell the
//! turn that a reply may leave.

use crate::calls::{Call, calls};
use larder_packet::{Frame, frame};
use std::collections::BTreeMap;

/// What a marker begins with; six digits follow. Markers stand in payloads, Topic Filters and Client Identifiers, and
/// are found again in the write-ahead log.
const MARKER: &[u8] = b"mark-";
const MARKER_BYTES: usize = 11;

/// The marker with this number.
pub(crate) fn marker(number: u32) -> String {
    format!("mark-{number:06}")
}

/// A packet that must not leave before the fsync that covers what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// The client's port.
    pub(crate) port: u16,
    pub(crate) reply: Reply,
    pub(crate) ground: Ground,
}

/// What a packet rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// That what has this marker is durable.
    Marker(u32),
    /// That the packet to which it is the reply is: something was written after it had been read, and is durable. While
    /// nothing else goes on, that is it.
    Request(Request),
}

/// A packet to a client: what it is the reply to, or the delivery itself, with its Packet Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reply {
    Connect,
    Subscribe(u16),
    /// PUBACK or PUBREC.
    Publish(u16),
    /// PUBREL.
    Receipt(u16),
    /// PUBCOMP.
    Release(u16),
    /// PUBLISH of QoS 1 or 2.
    Delivery(u16),
}

/// A packet from a client, with its Packet Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Request {
    /// PUBREC
    Receipt(u16),
    /// PUBREL
    Release(u16),
}

/// Checks every promise.
///
/// # Errors
/// A sentence for each one that was not kept, and for what makes the trace unfit to judge by.
pub(crate) fn judge(trace: &str, promises: &[Promise]) -> Result<(), Vec<String>> {
    let calls = calls(trace).map_err(|fault| vec![fault])?;
    let durable = durable(&calls);
    let replies = packets(&calls, &SENDS, reply).map_err(|fault| vec![fault])?;
    let requests = packets(&calls, &RECEIVES, request).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    for promise in promises {
        let left = replies.get(&(promise.port, promise.reply));
        let ground = match &promise.ground {
            Ground::Marker(number) => durable.get(marker(*number).as_bytes()).copied(),
            Ground::Request(request) => requests
                .get(&(promise.port, *request))
                .and_then(|read| synchronised_after(&calls, read.whole)),
        };
        match (left, ground) {
            (None, _) => faults.push(format!("{promise:?}: the reply never left")),
            (Some(_), None) => faults.push(format!("{promise:?}: it was never synchronised")),
            (Some(left), Some(ground)) if left.begun <= ground => faults.push(format!(
                "{promise:?}: the reply left at line {}, and its ground was durable only at line {}",
                left.begun + 1,
                ground + 1
            )),
            _ => {}
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

/// The line at which each marker was durable: where the first fsync of the write-ahead log returned that was entered
/// after the marker had been written there.
fn durable(calls: &[Call]) -> BTreeMap<&[u8], usize> {
    let in_log = |call: &&Call| call.file.ends_with("-wal");
    let mut durable = BTreeMap::new();
    // Written, and not yet durable: with the line at which the write returned.
    let mut written: Vec<(&[u8], usize)> = Vec::new();
    for call in calls.iter().filter(in_log) {
        match call.name.as_str() {
            "fsync" | "fdatasync" if call.returned == 0 => written.retain(|(marker, at)| {
                let covered = *at < call.entered;
                if covered {
                    durable.entry(*marker).or_insert(call.left);
                }
                !covered
            }),
            "write" | "pwrite64" | "writev" | "pwritev" if call.returned > 0 => {
                let whole = call.data.windows(MARKER_BYTES);
                written.extend(
                    whole
                        .filter(|bytes| bytes.starts_with(MARKER))
                        .map(|marker| (marker, call.left)),
                );
            }
            _ => {}
        }
    }
    durable
}

/// The line at which something was durable that was written to the write-ahead log after this line.
fn synchronised_after(calls: &[Call], line: usize) -> Option<usize> {
    let in_log = |call: &&Call| call.file.ends_with("-wal");
    let mut written = None;
    for call in calls.iter().filter(in_log) {
        match (call.name.as_str(), written) {
            ("fsync" | "fdatasync", Some(at)) if call.returned == 0 && at < call.entered => {
                return Some(call.left);
            }
            ("write" | "pwrite64" | "writev" | "pwritev", None) if call.entered > line => {
                written = Some(call.left);
            }
            _ => {}
        }
    }
    None
}

const SENDS: [&str; 4] = ["sendto", "sendmsg", "write", "writev"];
const RECEIVES: [&str; 3] = ["recvfrom", "recvmsg", "read"];

/// The lines at which a packet passed between the program and the kernel.
#[derive(Clone, Copy)]
struct Passed {
    /// The call for its first byte was entered.
    begun: usize,
    /// The call for its last byte was left.
    whole: usize,
}

/// When each packet that `which` knows passed for the first time, by the client's port.
fn packets<T: Ord>(
    calls: &[Call],
    names: &[&str],
    which: impl Fn(&[u8]) -> Option<T>,
) -> Result<BTreeMap<(u16, T), Passed>, String> {
    // What passed on each link: the bytes, and when each did.
    let mut passed: BTreeMap<u16, (Vec<u8>, Vec<Passed>)> = BTreeMap::new();
    for call in calls.iter().filter(|call| names.contains(&&*call.name)) {
        let Some(port) = peer_port(&call.file) else {
            continue;
        };
        let Ok(count) = usize::try_from(call.returned) else {
            continue;
        };
        let (bytes, lines) = passed.entry(port).or_default();
        bytes.extend_from_slice(&call.data[..count]);
        let (begun, whole) = (call.entered, call.left);
        lines.resize(bytes.len(), Passed { begun, whole });
    }
    let mut packets = BTreeMap::new();
    for (port, (bytes, lines)) in passed {
        let mut at = 0;
        while let Frame::Complete { len } =
            frame(&bytes[at..], usize::MAX).map_err(|error| format!("port {port}: {error}"))?
        {
            if let Some(packet) = which(&bytes[at..at + len]) {
                packets.entry((port, packet)).or_insert(Passed {
                    begun: lines[at].begun,
                    whole: lines[at + len - 1].whole,
                });
            }
            at += len;
        }
    }
    Ok(packets)
}

/// Which reply a packet is. All of them are short: their Remaining Length has one byte.
fn reply(packet: &[u8]) -> Option<Reply> {
    match packet[0] >> 4 {
        2 => Some(Reply::Connect),
        3 if packet[0] & 0b110 > 0 => {
            let topic_bytes = number_at(packet, 2)?;
            number_at(packet, 4 + usize::from(topic_bytes)).map(Reply::Delivery)
        }
        4 | 5 => number_at(packet, 2).map(Reply::Publish),
        6 => number_at(packet, 2).map(Reply::Receipt),
        7 => number_at(packet, 2).map(Reply::Release),
        9 => number_at(packet, 2).map(Reply::Subscribe),
        _ => None,
    }
}

fn request(packet: &[u8]) -> Option<Request> {
    match packet[0] >> 4 {
        5 => number_at(packet, 2).map(Request::Receipt),
        6 => number_at(packet, 2).map(Request::Release),
        _ => None,
    }
}

fn number_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

/// `TCP:[127.0.0.1:1883->127.0.0.1:40000]`: 40000.
fn peer_port(file: &str) -> Option<u16> {
    let (_, peer) = file.strip_prefix("TCP:[")?.split_once("->")?;
    peer.trim_end_matches(']').rsplit_once(':')?.1.parse().ok()
}

/// A judge that finds no fault in anything would be of no use.
mod tests {
    use super::*;

    const WRITE: &str = r#"7 pwrite64(5<\x2f\x64-wal>, "\x00mark-000001\x00", 13, 32) = 13"#;
    const SYNC: &str = r"7 fsync(5<\x2f\x64-wal>) = 0";
    const PUBACK: &str = r#"6 sendto(9<TCP:[127.0.0.1:1883->127.0.0.1:4000]>, "\x40\x02\x00\x07", 4, 0, NULL, 0) = 4"#;

    fn judged(lines: &[&str]) -> Result<(), String> {
        let promise = Promise {
            port: 4000,
            reply: Reply::Publish(7),
            ground: Ground::Marker(1),
        };
        judge(&lines.join("\n"), &[promise]).map_err(|faults| faults.join("\n"))
    }

    #[test]
    fn a_reply_after_its_fsync_is_right() {
        assert_eq!(judged(&[WRITE, SYNC, PUBACK]), Ok(()));
    }

    #[test]
    fn a_reply_before_its_fsync_is_found() {
        let fault = judged(&[WRITE, PUBACK, SYNC]).unwrap_err();
        assert!(fault.contains("left at line 2"), "{fault}");
        assert!(judged(&[PUBACK, WRITE, SYNC]).is_err());
    }

    #[test]
    fn a_reply_during_its_fsync_is_found() {
        let begun = r"7 fsync(5<\x2f\x64-wal> <unfinished ...>";
        let done = r"7 <... fsync resumed>)          = 0";
        assert!(judged(&[WRITE, begun, PUBACK, done]).is_err());
        assert_eq!(judged(&[WRITE, begun, done, PUBACK]), Ok(()));
    }

    #[test]
    fn an_fsync_that_does_not_cover_the_write_is_none() {
        let during = r#"7 pwrite64(5<\x2f\x64-wal>, "mark-000001", 11, 32 <unfinished ...>"#;
        let written = r"7 <... pwrite64 resumed>) = 11";
        let other_thread = r"8 fsync(5<\x2f\x64-wal>) = 0";
        for lines in [
            &[SYNC, WRITE, PUBACK][..],
            &[WRITE, r"7 fsync(4<\x2f\x64>) = 0", PUBACK],
            &[
                WRITE,
                r"7 fsync(5<\x2f\x64-wal>) = -1 EIO (Input/output error)",
                PUBACK,
            ],
            &[during, other_thread, written, PUBACK],
            &[WRITE, PUBACK],
        ] {
            assert!(judged(lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_reply_is_found_wherever_it_stands_in_what_was_sent() {
        let with_pingresp = PUBACK
            .replace(r#""\x40"#, r#""\xd0\x00\x40"#)
            .replace("= 4", "= 6");
        assert_eq!(judged(&[WRITE, SYNC, &with_pingresp]), Ok(()));
        assert!(judged(&[WRITE, &with_pingresp, SYNC]).is_err());
        let (first, last) = (PUBACK.replace("= 4", "= 1"), PUBACK.replace(r"\x40", ""));
        let last = last.replace("= 4", "= 3");
        assert!(judged(&[WRITE, &first, SYNC, &last]).is_err());
    }

    #[test]
    fn a_reply_to_a_packet_waits_for_what_was_written_after_it_was_read() {
        let pubrel = r#"6 recvfrom(9<TCP:[127.0.0.1:1883->127.0.0.1:4000]>, "\x62\x02\x00\x07", 4096, 0, NULL, NULL) = 4"#;
        let pubcomp = PUBACK.replace(r"\x40", r"\x70");
        let judged = |lines: &[&str]| {
            let promise = Promise {
                port: 4000,
                reply: Reply::Release(7),
                ground: Ground::Request(Request::Release(7)),
            };
            judge(&lines.join("\n"), &[promise])
        };
        assert_eq!(judged(&[pubrel, WRITE, SYNC, &pubcomp]), Ok(()));
        for lines in [
            [pubrel, WRITE, &pubcomp, SYNC],
            [pubrel, &pubcomp, WRITE, SYNC],
            [WRITE, pubrel, SYNC, &pubcomp],
            [pubrel, SYNC, WRITE, &pubcomp],
            [WRITE, SYNC, pubrel, &pubcomp],
            [WRITE, SYNC, &pubcomp, pubrel],
        ] {
            assert!(judged(&lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_trace_that_says_too_little_is_refused() {
        assert!(judged(&[WRITE, SYNC]).unwrap_err().contains("never left"));
        let cut = WRITE.replace(r#"\x00","#, r#"\x00"...,"#);
        assert!(judged(&[&cut, SYNC, PUBACK]).unwrap_err().contains("cut"));
    }
}
