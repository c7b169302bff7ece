//! What only a disk can do: be locked, foreign, cut off, full.

use crate::harness::{
    Directory, Fill, Kept, OnDisk, ROOM, all_of, found, in_words, open, payload, seqs, session,
};
use larder::record::{Batch, Event, SessionRecord, SubscriptionRecord, WillRecord};
use larder::store::OpenError;
use larder_packet::Qos;
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn finds_everything_committed_after_a_kill() {
    let mut disk = OnDisk::new();
    disk.commit(session(1).ticket(1).queue(1, 1..=5, 300).done());
    let fill = session(2)
        .ticket(2)
        .subscribe(2, "f", SubscriptionRecord::default());
    disk.commit(fill.queue(1, 6..=8, 3_000).settle(1, 1).done());
    let image = disk.crash_image();
    assert!(image.path().join("larder.db-wal").exists());
    let (mut cut, recovered) = OnDisk::at(image, ROOM);
    assert_eq!(
        in_words(&cut.read(all_of(1))),
        in_words(&disk.read(all_of(1)))
    );
    assert_eq!(found(&recovered), found(&disk.restart()));
}

#[test]
fn goes_on_ending_a_session_after_a_kill() {
    let mut disk = OnDisk::new();
    disk.commit(session(1).queue(1, 1..=5_000, 200).done());
    let used = disk.disk_used;
    disk.commit(Fill::new().end(1).done());
    let (mut cut, recovered) = OnDisk::at(disk.crash_image(), ROOM);
    assert!(recovered.sessions.is_empty());
    // Each commit is followed by a piece of purging, and between commits it goes on.
    let until = Instant::now() + Duration::from_secs(30);
    while cut.disk_used == 0 || cut.disk_used > used / 20 {
        assert!(
            Instant::now() < until,
            "{} of {used} bytes are still in use",
            cut.disk_used
        );
        cut.commit(Batch::default());
    }
}

#[test]
fn one_process_has_the_directory() {
    let mut disk = OnDisk::new();
    let refused = open(disk.directory.path(), ROOM).err().unwrap();
    let OpenError::Locked { holder, path } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(*holder, std::process::id().to_string());
    assert_eq!(*path, disk.directory.path().join("larder.lock"));
    disk.stop();
    // The file of a process that was killed is no lock.
    fs::write(disk.directory.path().join("larder.lock"), "1\n").unwrap();
    disk.restart();
}

#[test]
fn says_which_directory_is_missing() {
    let directory = Directory::new();
    let missing = directory.path().join("not there");
    let error = open(&missing, ROOM).err().unwrap().to_string();
    assert!(
        error.contains(&*missing.to_string_lossy()) && error.contains("create"),
        "{error}"
    );
}

#[test]
fn leaves_the_databases_of_others_alone() {
    let mut disk = OnDisk::new();
    disk.commit(session(1).done());
    disk.stop();
    let database = fs::read(disk.database()).unwrap();
    // Bytes 60 to 63 are user_version, 68 to 71 application_id.
    for (offset, newer) in [(63, true), (68, false)] {
        let mut other = database.clone();
        other[offset] += 1;
        fs::write(disk.database(), &other).unwrap();
        let error = open(disk.directory.path(), ROOM).err().unwrap();
        match error {
            OpenError::Newer {
                found: 4, known: 3, ..
            } => assert!(newer),
            OpenError::Foreign { .. } => assert!(!newer),
            other => panic!("{other}"),
        }
        assert_eq!(fs::read(disk.database()).unwrap(), other);
        assert!(!disk.directory.path().join("larder.db-wal").exists());
    }
}

#[test]
fn settles_although_the_disk_is_full() {
    let mut disk = OnDisk::with_room(100_000);
    disk.commit(session(1).done());
    let mut last = 0;
    while disk.disk_used <= 100_000 {
        disk.commit(Fill::new().queue(1, last + 1..=last + 10, 1_000).done());
        last += 10;
    }
    let full = disk.disk_used;
    // One more batch of any reasonable size fits, as it may have been on its way.
    disk.commit(Fill::new().queue(1, last + 1..=last + 1_000, 1_000).done());
    disk.restart();
    for seq in 1..=last + 1_000 {
        disk.commit(Fill::new().settle(1, seq).done());
    }
    assert!(disk.disk_used < full / 3);
    disk.commit(Fill::new().queue(1, 9_000..=9_010, 1_000).done());
    assert_eq!(disk.read(all_of(1)).rows.len(), 11);
}

#[test]
fn keeps_a_batch_that_does_not_fit_and_can_be_ended_meanwhile() {
    let mut disk = OnDisk::with_room(100_000);
    disk.commit(session(1).queue(1, 1..=10, 1_000).done());
    disk.submit(Fill::new().queue(1, 11..=9_000, 1_000).done());
    let Event::Stalled { error } = disk.next_event() else {
        panic!("it cannot fit")
    };
    assert!(error.contains("full"), "{error}");
    assert_eq!(disk.read(all_of(1)).rows.len(), 10, "reading goes on");
    disk.stop();
    assert_eq!(disk.restart().sessions[0].extent.unwrap().last, 10);
}

#[test]
fn tries_again_until_it_commits_and_complains_once() {
    let mut disk = OnDisk::new();
    disk.commit(session(1).queue(1, 1..=3, 10).done());
    let somebody = rusqlite::Connection::open(disk.database()).unwrap();
    somebody.execute_batch("BEGIN IMMEDIATE").unwrap();
    disk.submit(
        Fill::new()
            .ticket(7)
            .settle(1, 1)
            .queue(1, 4..=4, 10)
            .done(),
    );
    let Event::Stalled { error } = disk.next_event() else {
        panic!("it is locked")
    };
    assert!(error.contains("locked"), "{error}");
    assert_eq!(seqs(&disk.read(all_of(1))), [1, 2, 3], "reading goes on");
    // Long enough for a second attempt to fail, which is not told again.
    std::thread::sleep(Duration::from_millis(1_200));
    somebody.execute_batch("ROLLBACK").unwrap();
    let Event::Committed { batch, .. } = disk.next_event() else {
        panic!("it is free")
    };
    assert_eq!(batch.ticket.0, 7);
    assert_eq!(seqs(&disk.read(all_of(1))), [2, 3, 4]);
}

/// What nobody can read any more takes no room either.
#[test]
fn leaves_nothing_behind_of_what_is_gone() {
    let mut disk = OnDisk::new();
    let mut fill = session(1).session(2, "client 2", SessionRecord::default());
    for seq in 1..=4 {
        let shared = fill.message("t", b"shared");
        fill.owe(shared, 1, seq);
        fill.owe(shared, 2, seq);
    }
    let fill = fill
        .hold(1, 7)
        .will(1, b"will", WillRecord::default())
        .retain("t", b"retained", Qos::AtLeastOnce)
        .received(1, 1);
    disk.commit(fill.done());
    let fill = Fill::new().received(2, 1).received(1, 2).settle(2, 2);
    disk.commit(fill.received(1, 3).settle(1, 3).unretain("t").done());
    disk.commit(Fill::new().settle(2, 3).settle(2, 4).end(1).done());
    disk.commit(Fill::new().settle(2, 1).done());
    // The rows of the ended session went between the last two commits.
    disk.stop();
    let left: String = rusqlite::Connection::open(disk.database())
        .unwrap()
        .query_row(
            "SELECT (SELECT count(*) FROM queue) || (SELECT count(*) FROM message) || (SELECT count(*) FROM held)
                 || (SELECT count(*) FROM will) || (SELECT count(*) FROM retained) || (SELECT count(*) FROM ended)
                 || (SELECT count(*) FROM latest WHERE slot = 1)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, "0000000");
}

/// A retained message is replaced in its place: one page, not a new place for it and an index of topics that changes.
#[test]
fn replaces_a_retained_message_with_one_page() {
    let mut disk = OnDisk::new();
    let payload = |number: u64| payload(number, 300 + usize::try_from(number % 10).unwrap());
    let mut fill = Fill::new();
    for number in 0..100 {
        fill = fill.retain(
            &format!("hall/{number}"),
            &payload(number),
            Qos::AtLeastOnce,
        );
    }
    disk.commit(fill.done());
    let before = disk.written;
    for number in 0..100 {
        let topic = format!("hall/{}", number * 7 % 100);
        let fill = Fill::new().retain(&topic, &payload(number), Qos::AtLeastOnce);
        disk.commit(fill.done());
    }
    let bytes = (disk.written - before) / 100;
    assert!(bytes < 1_500, "{bytes} bytes for each");
}

#[test]
fn starts_at_once_whatever_the_backlog() {
    long_backlog(30_000);
}

/// The promise itself; takes a minute to fill.
#[test]
#[ignore = "writes 300 MB"]
fn starts_at_once_with_a_million_messages() {
    long_backlog(1_000_000);
}

fn long_backlog(messages: u64) {
    let mut disk = OnDisk::with_room(4 << 30);
    disk.commit(session(1).done());
    for first in (1..=messages).step_by(5_000) {
        disk.commit(Fill::new().queue(1, first..=first + 4_999, 200).done());
    }
    let image = disk.crash_image();
    let started = Instant::now();
    let (threads, _, recovered) = open(image.path(), 4 << 30).unwrap();
    let took = started.elapsed();
    assert_eq!(recovered.sessions[0].extent.unwrap().messages, messages);
    assert!(took < Duration::from_millis(200), "{took:?}");
    drop(threads);
}
