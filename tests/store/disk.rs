//! What only a disk can do: be locked, foreign, cut off, damaged, full.

use crate::harness::{Directory, Fill, Kept, OnDisk, all_of, found, in_words, open, seqs};
use larder::record::{Batch, Event, PageRequest, SessionRecord, SubscriptionRecord};
use larder::store::OpenError;
use std::fs;
use std::time::{Duration, Instant};

const ROOM: u64 = 1 << 30;

fn session(key: u64) -> Fill {
    Fill::new().session(key, &format!("client {key}"), SessionRecord::default())
}

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
                found: 2, known: 1, ..
            } => assert!(newer),
            OpenError::Foreign { .. } => assert!(!newer),
            other => panic!("{other}"),
        }
        assert_eq!(fs::read(disk.database()).unwrap(), other);
        assert!(!disk.directory.path().join("larder.db-wal").exists());
    }
}

#[test]
fn sets_aside_what_is_no_database() {
    let directory = Directory::new();
    let path = directory.path().join("larder.db");
    fs::write(&path, vec![0x5a; 8_192]).unwrap();
    let (mut disk, recovered) = OnDisk::at(directory, ROOM);
    let told = recovered.salvaged.unwrap();
    assert!(told.contains("larder.db.corrupt-1"), "{told}");
    assert_eq!(
        fs::read(disk.directory.path().join("larder.db.corrupt-1")).unwrap(),
        [0x5a; 8_192]
    );
    disk.commit(session(1).done());
    assert_eq!(disk.restart().salvaged, None);
}

/// Fills a queue and returns the file's bytes and where in them the payloads begin.
fn filled() -> (OnDisk, Vec<u8>) {
    let mut disk = OnDisk::new();
    let mut fill = session(1).session(2, "client 2", SessionRecord::default());
    let shared = fill.message("t", b"<shared payload>");
    fill.owe(shared, 1, 1);
    fill.owe(shared, 2, 1);
    disk.commit(fill.queue(1, 2..=2_000, 300).reserve(1, 5_000).done());
    disk.stop();
    let bytes = fs::read(disk.database()).unwrap();
    (disk, bytes)
}

fn position(bytes: &[u8], text: &[u8]) -> usize {
    bytes
        .windows(text.len())
        .position(|window| window == text)
        .unwrap()
}

#[test]
fn skips_and_names_rows_with_a_flipped_bit() {
    let (mut disk, mut bytes) = filled();
    for text in [&b"<payload 3>"[..], b"<payload 7>", b"<shared payload>"] {
        let at = position(&bytes, text);
        bytes[at + 1] ^= 4;
    }
    fs::write(disk.database(), &bytes).unwrap();
    let recovered = disk.restart();
    assert_eq!(recovered.salvaged, None);
    assert_eq!(recovered.sessions[0].extent.unwrap().messages, 2_000);
    let page = disk.read(PageRequest {
        up_to: 10,
        ..all_of(1)
    });
    assert_eq!(
        (seqs(&page), &page.bad[..]),
        (vec![2, 4, 5, 6, 8, 9, 10], &[1, 3, 7][..])
    );
    let page = disk.read(PageRequest {
        rows_max: 3,
        ..all_of(1)
    });
    assert_eq!(
        (seqs(&page), &page.bad[..], page.read_up_to),
        (vec![2], &[1, 3][..], 3)
    );
    disk.commit(Fill::new().settle(1, 1).settle(1, 3).settle(1, 7).done());
    let page = disk.read(PageRequest {
        up_to: 10,
        ..all_of(1)
    });
    assert_eq!((page.rows.len(), page.bad.len()), (7, 0));
}

#[test]
fn takes_the_next_good_row_for_a_bad_last_one() {
    let (mut disk, mut bytes) = filled();
    for text in [&b"<payload 1999>"[..], b"<payload 2000>"] {
        let at = position(&bytes, text);
        bytes[at + 1] ^= 4;
    }
    fs::write(disk.database(), &bytes).unwrap();
    let extent = disk.restart().sessions[0].extent.unwrap();
    assert_eq!(
        (extent.first, extent.last, extent.messages_ever),
        (1, 2_000, 2_000)
    );
    assert_eq!(extent.messages, 2_000);
}

/// A column of a wrong type, too, is a bad row and not a batch that can never be committed.
#[test]
fn settles_and_drops_rows_that_are_damaged() {
    let (mut disk, _) = filled();
    let somebody = rusqlite::Connection::open(disk.database()).unwrap();
    let damage = "UPDATE queue SET size = 'x', message = 'y', record = NULL";
    assert!(
        somebody.execute_batch(damage).is_err(),
        "columns are NOT NULL"
    );
    let damage = "UPDATE queue SET size = -7, message = 'y', record = 1.5, bytes_before = 'z'";
    somebody.execute_batch(damage).unwrap();
    somebody.close().unwrap();
    assert_eq!(disk.restart().sessions[0].extent.unwrap().messages, 2_000);
    assert_eq!(disk.read(all_of(1)).bad.len(), 2_000);
    let fill = Fill::new()
        .settle(1, 1)
        .drop_oldest(1, 0, (0, 2_000), 10, 0)
        .end(2);
    let dropped = disk.commit(fill.done());
    assert_eq!((dropped[0].messages, dropped[0].bytes), (1_999, 0));
    assert!(disk.read(all_of(1)).bad.is_empty());
    disk.commit(Fill::new().end(1).done());
    assert!(disk.restart().sessions.is_empty());
}

#[test]
fn mends_a_bad_session_record() {
    let (mut disk, mut bytes) = filled();
    // Former places of the row, now free, may still have the name.
    while let Some(at) = bytes.windows(8).position(|window| window == b"client 1") {
        bytes[at + 7] = b'7';
    }
    fs::write(disk.database(), &bytes).unwrap();
    let recovered = disk.restart();
    assert!(recovered.salvaged.unwrap().contains("client 7"));
    let session = &recovered.sessions[0];
    assert_eq!(session.record.expiry_interval, u32::MAX);
    assert!(
        session.seq_reserved > 5_000,
        "none that may have been sent is used again"
    );
    assert_eq!(disk.restart().salvaged, None);
}

#[test]
fn salvages_what_it_can_while_it_runs() {
    let (mut disk, mut bytes) = filled();
    let damaged = position(&bytes, b"<payload 1000>") / 1024 * 1024;
    bytes[damaged..damaged + 1024].fill(0xff);
    fs::write(disk.database(), &bytes).unwrap();
    assert_eq!(
        disk.restart().salvaged,
        None,
        "the damage is where recovery does not look"
    );
    let until = Instant::now() + Duration::from_secs(30);
    let page = loop {
        match disk.try_read(all_of(1)) {
            Ok(page) => break page,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    assert!(
        page.rows.len() > 1_990 && page.rows.len() < 2_000,
        "{}",
        page.rows.len()
    );
    assert_eq!(
        (page.rows[0].seq, page.rows[page.rows.len() - 1].seq),
        (1, 2_000)
    );
    assert!(in_words(&disk.read(all_of(2)))[0].contains("<shared payload>"));
    assert!(disk.directory.path().join("larder.db.corrupt-1").exists());
    disk.commit(Fill::new().settle(1, 1).queue(1, 2_001..=2_001, 10).done());
    assert!(in_words(&disk.read(all_of(2)))[0].contains("<shared payload>"));
    assert_eq!(disk.restart().salvaged, None);
    assert_eq!(
        disk.read(PageRequest {
            after: 2_000,
            ..all_of(1)
        })
        .rows
        .len(),
        1
    );
}

#[test]
fn salvages_what_it_can_at_start() {
    let (mut disk, mut bytes) = filled();
    let at = bytes
        .windows(8)
        .rposition(|window| window == b"client 1")
        .unwrap()
        / 1024
        * 1024;
    // The page's kind, which no page may have: the session table cannot be read at all.
    bytes[at] = 0xee;
    fs::write(disk.database(), &bytes).unwrap();
    let recovered = disk.restart();
    assert!(
        recovered
            .salvaged
            .unwrap()
            .contains("0 sessions and 0 queued messages")
    );
    assert!(recovered.sessions.is_empty());
}

/// The power went when the new file was complete and the old one had already been renamed.
#[test]
fn finishes_a_salvage_that_was_cut_off() {
    let (mut disk, _) = filled();
    let new = disk.directory.path().join("larder.db.salvaged");
    fs::rename(disk.database(), new).unwrap();
    assert_eq!(disk.restart().sessions.len(), 2);
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
    assert!(disk.disk_used < full / 4);
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
