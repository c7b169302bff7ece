//! What an earlier Larder wrote must be read for ever: `fixture-v1.db` was written by schema 1, `fixture-v2.db` by
//! schema 2, `fixture-v3.db` by schema 3.
//!
//! The newest is made by `LARDER_WRITE_FIXTURE=1 cargo test --test store fixture`; a new schema or format gets one under
//! a new name beside the old ones.

use crate::harness::{Directory, Fill, Kept, OnDisk, all_of, found, in_words, open, superseded};
use larder::record::{Batch, LaneRecord, SessionRecord, SubscriptionRecord, WillRecord};
use larder::time::ServiceSeconds;
use larder_packet::Qos;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn reads_a_fixture_of_schema_1() {
    write_on(read("fixture-v1"));
}

#[test]
fn reads_a_fixture_of_schema_2() {
    write_on(read("fixture-v2"));
}

#[test]
fn reads_a_fixture_of_schema_3() {
    if std::env::var_os("LARDER_WRITE_FIXTURE").is_some() {
        let mut disk = OnDisk::new();
        disk.commit(contents());
        disk.stop();
        fs::copy(disk.database(), path("fixture-v3", "db")).unwrap();
        fs::write(path("fixture-v3", "txt"), in_full(&mut disk)).unwrap();
    }
    write_on(read("fixture-v3"));
}

/// An earlier Larder is to refuse it from then on: it looks at the first bytes of the file.
#[test]
fn marks_an_old_file_as_one_of_schema_3() {
    for (fixture, rows) in [
        ("fixture-v1", "1 0,2 0,7 0"),
        ("fixture-v2", "1 0,2 0,4 1,7 0,3 0"),
    ] {
        let disk = read(fixture);
        assert_eq!(version(&disk.database()), 3);
        let queued = sql(
            &disk,
            "SELECT group_concat(seq || ' ' || received) FROM queued",
        );
        assert_eq!(queued, rows);
    }
}

/// What it had queued is known by its topic only from the first later message on.
#[test]
fn remembers_topics_in_an_old_file_from_now_on() {
    let mut disk = read("fixture-v2");
    assert_eq!(superseded(&disk.read(all_of(1))), []);
    disk.commit(Fill::new().topics(1, 5, &["hall/4/state", "hall/9"]).done());
    assert_eq!(superseded(&disk.read(all_of(1))), [2]);
}

#[test]
fn migrates_although_somebody_reads() {
    let directory = copy("fixture-v1");
    let database = directory.path().join("larder.db");
    let somebody = rusqlite::Connection::open(&database).unwrap();
    somebody
        .execute_batch("BEGIN; SELECT * FROM session")
        .unwrap();
    let (mut disk, recovered) = OnDisk::at(directory, 1 << 30);
    assert_eq!(recovered.sessions.len(), 2);
    disk.commit(Fill::new().hold(1, 7).done());
    let image = disk.crash_image();
    assert_eq!(version(&image.path().join("larder.db")), 1);
    // The version in the file and that in the log differ; the next start finds both.
    let (threads, _, recovered) = open(image.path(), 1 << 30).unwrap();
    assert_eq!(recovered.sessions[0].held.len(), 1);
    assert_eq!(version(&image.path().join("larder.db")), 3);
    drop(threads);
    drop(somebody);
}

/// What cannot be migrated because it is damaged is salvaged into the new schema.
#[test]
fn salvages_a_file_of_schema_1() {
    let directory = copy("fixture-v1");
    let database = directory.path().join("larder.db");
    let mut bytes = fs::read(&database).unwrap();
    // The first page of the table of subscriptions: where its kind stands, which no page may have.
    let root = rusqlite::Connection::open(&database)
        .unwrap()
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'subscription'",
            [],
            |row| row.get::<_, usize>(0),
        )
        .unwrap();
    bytes[(root - 1) * 1024] = 0xee;
    fs::write(&database, bytes).unwrap();
    let (mut disk, recovered) = OnDisk::at(directory, 1 << 30);
    let told = recovered.salvaged.unwrap();
    assert!(
        told.contains("2 sessions, 3 queued messages and 0 retained messages"),
        "{told}"
    );
    assert_eq!(version(&disk.database()), 3);
    disk.commit(Fill::new().received(1, 2).done());
    assert!(in_words(&disk.read(all_of(1)))[1].contains("received"));
}

fn path(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/store/{name}.{extension}"))
}

fn copy(name: &str) -> Directory {
    let directory = Directory::new();
    fs::copy(path(name, "db"), directory.path().join("larder.db")).unwrap();
    directory
}

/// Opens a fixture and compares what is in it with what is expected.
fn read(name: &str) -> OnDisk {
    let (mut disk, _) = OnDisk::at(copy(name), 1 << 30);
    let expected = fs::read_to_string(path(name, "txt")).unwrap();
    let read = in_full(&mut disk);
    assert!(read == expected, "{read}");
    disk
}

/// It is written to as any other.
fn write_on(mut disk: OnDisk) {
    disk.commit(
        Fill::new()
            .settle(1, 1)
            .received(1, 2)
            .settle(40, 7)
            .queue(40, 8..=8, 10)
            .hold(1, 5)
            .will(40, b"late", WillRecord::default())
            .retain("hall/3/state", b"off", Qos::AtLeastOnce)
            .done(),
    );
    let received = r#"2 "" "" "" None ExactlyOnce false "" 17 bytes at"#;
    assert!(in_words(&disk.read(all_of(1)))[0].starts_with(received));
    assert_eq!(disk.read(all_of(40)).rows.len(), 1);
    let recovered = disk.restart();
    assert_eq!(recovered.salvaged, None);
    assert_eq!(recovered.retained.last().unwrap().message.payload, b"off");
    let [press, bridge] = &recovered.sessions[..] else {
        panic!("{recovered:?}")
    };
    assert_eq!(press.held[0].get(), 5);
    assert_eq!(bridge.will.as_ref().unwrap().message.payload, b"late");
}

/// The version in the first bytes of the file.
fn version(database: &Path) -> u8 {
    fs::read(database).unwrap()[63]
}

/// What somebody sees in a shell.
fn sql(disk: &OnDisk, query: &str) -> String {
    rusqlite::Connection::open(disk.database())
        .unwrap()
        .query_row(query, [], |row| row.get(0))
        .unwrap()
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
    let will = WillRecord {
        qos: 1,
        retain: true,
        delay_interval: 300,
        message_expiry_interval: Some(86_400),
    };
    let mut fill = Fill::at(1_000, Some(1_700_000_000))
        .session(1, "press", left)
        .session(40, "$larder/bridge/Süd", bridge)
        .subscribe(1, "hall/+/state", plain)
        .subscribe(40, "#", special)
        .subscribe(40, "hall/#", plain)
        .reserve(1, 1_024)
        .reserve(40, 2_048)
        .hold(1, 65_535)
        .hold(1, 258)
        .will(1, b"gone", will)
        .retain("hall/3/state", b"on", Qos::AtLeastOnce)
        .retain("attic", b"", Qos::ExactlyOnce);
    let shared = fill.message("hall/3/state", b"on");
    fill.owe(shared, 1, 1);
    fill.owe(shared, 40, 7);
    let single = fill.message("hall/4/state", b"off");
    fill.owe(single, 1, 2);
    let alarm = LaneRecord {
        number: 1,
        start: 5,
    };
    let mut fill = fill
        .queue(1, 4..=4, 20)
        .received(1, 4)
        .lane(41, 1, alarm, "alarms")
        .reserve(41, 512)
        .lane(42, 1, LaneRecord { number: 3, ..alarm }, "Störungen");
    let alarm = fill.message("alarm/fire", b"smoke");
    fill.owe(alarm, 41, 3);
    fill.topics(42, 1, &["pump/1", "pump/2", "pump/1"]).done()
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
        for lane in &session.lanes {
            text += &format!("class {:?}:\n", lane.name);
            for row in in_words(&disk.read(all_of(lane.key.0))) {
                text += &format!("  {row}\n");
            }
        }
    }
    text
}
