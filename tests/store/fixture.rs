//! What an earlier Larder wrote must be read for ever: `fixture-v1.db` was written by schema 1, format 1.
//!
//! A new one is made by `LARDER_WRITE_FIXTURE=1 cargo test --test store fixture`; it belongs to a new schema or format,
//! under a new name beside the old ones.

use crate::harness::{Directory, Fill, Kept, OnDisk, all_of, found, in_words};
use larder::record::{Batch, SessionRecord, SubscriptionRecord};
use larder::time::ServiceSeconds;
use std::fs;
use std::path::PathBuf;

#[test]
fn reads_a_fixture_of_schema_1() {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/store/fixture-v1.db");
    let expected = fixture.with_extension("txt");
    if std::env::var_os("LARDER_WRITE_FIXTURE").is_some() {
        let mut disk = OnDisk::new();
        disk.commit(contents());
        disk.stop();
        fs::copy(disk.database(), &fixture).unwrap();
        fs::write(&expected, in_full(&mut disk)).unwrap();
    }
    let directory = Directory::new();
    fs::copy(&fixture, directory.path().join("larder.db")).unwrap();
    let (mut disk, _) = OnDisk::at(directory, 1 << 30);
    assert_eq!(in_full(&mut disk), fs::read_to_string(expected).unwrap());
    // And it is written to as any other.
    disk.commit(
        Fill::new()
            .settle(1, 1)
            .settle(40, 7)
            .queue(40, 8..=8, 10)
            .done(),
    );
    assert_eq!(disk.read(all_of(1)).rows.len(), 1);
    assert_eq!(disk.read(all_of(40)).rows.len(), 1);
}

fn contents() -> Batch {
    let left = SessionRecord {
        expiry_interval: 86_400,
        left_at: Some(ServiceSeconds(300)),
        configured: false,
    };
    let bridge = SessionRecord {
        expiry_interval: u32::MAX,
        left_at: None,
        configured: true,
    };
    let plain = SubscriptionRecord {
        qos: 1,
        ..SubscriptionRecord::default()
    };
    let special = SubscriptionRecord {
        qos: 2,
        no_local: true,
        retain_as_published: true,
        retain_handling: 2,
        identifier: Some(268_435_455),
    };
    let mut fill = Fill::at(1_000, Some(1_700_000_000))
        .session(1, "press", left)
        .session(40, "$larder/bridge/Süd", bridge)
        .subscribe(1, "hall/+/state", plain)
        .subscribe(40, "#", special)
        .subscribe(40, "hall/#", plain)
        .reserve(1, 1_024)
        .reserve(40, 2_048);
    let shared = fill.message("hall/3/state", b"on");
    fill.owe(shared, 1, 1);
    fill.owe(shared, 40, 7);
    let single = fill.message("hall/4/state", b"off");
    fill.owe(single, 1, 2);
    fill.done()
}

/// All that can be read, after a restart.
fn in_full(disk: &mut OnDisk) -> String {
    let recovered = disk.restart();
    let mut text = found(&recovered) + "\n";
    for session in &recovered.sessions {
        text += &format!("queue {}:\n", session.key.0);
        for row in in_words(&disk.read(all_of(session.key.0))) {
            text += &format!("  {row}\n");
        }
    }
    text
}
