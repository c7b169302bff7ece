//! A damaged disk: what of it is found bad, what is mended, and what is salvaged.

use crate::harness::{
    Directory, Fill, Kept, OnDisk, ROOM, all_of, in_words, payload, seqs, session, superseded,
};
use larder::record::{End, Event, PageRequest, Recovered, SessionRecord, WillRecord};
use larder_packet::Qos;
use std::fs;
use std::time::{Duration, Instant};

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
    fill = fill
        .hold(1, 7)
        .hold(1, 300)
        .hold(2, 9)
        .will(1, b"<will 1>", WillRecord::default())
        .will(2, b"<will 2>", WillRecord::default())
        .retain("hall/a", b"<retained a>", Qos::AtLeastOnce)
        .retain("hall/b", b"<retained b>", Qos::AtLeastOnce)
        .retain("hall/c", b"<retained c>", Qos::AtLeastOnce);
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
    let page = disk.read(PageRequest {
        from: End::Newest,
        up_to: 8,
        rows_max: 2,
        ..all_of(1)
    });
    assert_eq!(
        (seqs(&page), &page.bad[..], page.read_up_to),
        (vec![8], &[7][..], 7)
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
    let recovered = disk.restart();
    assert_eq!(recovered.salvaged, None);
    assert_eq!(in_short(&recovered), WHOLE);
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
            .as_ref()
            .unwrap()
            .contains("0 sessions, 0 queued messages and 3 retained messages")
    );
    assert_eq!(in_short(&recovered), "hall/a hall/b hall/c");
}

/// The power went when the new file was complete and the old one had already been renamed.
#[test]
fn finishes_a_salvage_that_was_cut_off() {
    let (mut disk, _) = filled();
    let new = disk.directory.path().join("larder.db.salvaged");
    fs::rename(disk.database(), new).unwrap();
    assert_eq!(disk.restart().sessions.len(), 2);
}

/// What recovery found of the small tables.
fn in_short(recovered: &Recovered) -> String {
    let sessions = recovered.sessions.iter().map(|session| {
        let will = session.will.as_ref().map(|will| &will.message.payload);
        let will = will.map_or("no will".into(), |payload| String::from_utf8_lossy(payload));
        format!("{} {:?} {will}", session.key.0, session.held)
    });
    let topics = recovered.retained.iter();
    let topics = topics.map(|retained| retained.message.topic.clone());
    sessions.chain(topics).collect::<Vec<_>>().join(" ")
}

const WHOLE: &str = "1 [7, 300] <will 1> 2 [9] <will 2> hall/a hall/b hall/c";

fn damage(disk: &OnDisk, statements: &str) {
    let somebody = rusqlite::Connection::open(disk.database()).unwrap();
    somebody.execute_batch(statements).unwrap();
}

#[test]
fn removes_bad_records_of_the_small_tables_and_says_so() {
    let (mut disk, mut bytes) = filled();
    for text in [&b"<will 1>"[..], b"<retained b>"] {
        let at = position(&bytes, text);
        bytes[at + 1] ^= 4;
    }
    fs::write(disk.database(), &bytes).unwrap();
    damage(
        &disk,
        "UPDATE held SET record = x'0100000000' WHERE packet_id = 300",
    );
    let recovered = disk.restart();
    assert_eq!(
        in_short(&recovered),
        "1 [7] no will 2 [9] <will 2> hall/a hall/c"
    );
    assert_eq!(
        recovered.salvaged.unwrap(),
        "1 records of unreleased Packet Identifiers were bad and were removed; the Will of session \"client 1\" was bad \
         and was removed; 1 retained messages were bad and were removed"
    );
    let recovered = disk.restart();
    assert_eq!(recovered.salvaged, None);
    assert_eq!(
        in_short(&recovered),
        "1 [7] no will 2 [9] <will 2> hall/a hall/c"
    );
}

/// What is remembered of topics is never trusted alone.
#[test]
fn drops_nothing_for_what_a_damaged_index_says() {
    let topics = ["a", "b", "a", "c", "a", "b"];
    for damaged in [
        "UPDATE latest SET seq = 6 WHERE seq = 5",
        "UPDATE latest SET seq = 7",
        "UPDATE latest SET seq = -1",
        "UPDATE latest SET seq = 'x'",
        "UPDATE latest SET seq = x'05'",
        "UPDATE latest SET hash = hash + 1",
        "UPDATE latest SET slot = 7",
        "UPDATE queue SET record = x'02' WHERE key & 7 > 4",
        "DELETE FROM latest",
    ] {
        let mut disk = OnDisk::new();
        disk.commit(session(1).topics(1, 1, &topics).done());
        assert_eq!(superseded(&disk.read(all_of(1))), [1, 2, 3]);
        damage(&disk, damaged);
        let left = superseded(&disk.read(all_of(1)));
        assert!(left.is_empty() || left == [2], "{damaged}: {left:?}");
        disk.commit(Fill::new().topics(1, 7, &["a", "b"]).done());
        let page = disk.read(all_of(1));
        let good = page.rows.iter().map(|row| row.seq);
        let expected: Vec<_> = good.filter(|seq| ![4, 7, 8].contains(seq)).collect();
        let left = superseded(&page);
        // A row of the index whose key is damaged may stand beside a new one.
        assert!(left == expected, "{damaged}: {left:?}");
        assert_eq!(disk.restart().salvaged, None);
    }
}

/// An index that cannot be read is left behind.
#[test]
fn salvages_a_queue_without_what_it_remembers_of_topics() {
    let mut disk = OnDisk::new();
    disk.commit(session(1).topics(1, 1, &["a", "b", "a"]).done());
    disk.stop();
    let root = rusqlite::Connection::open(disk.database())
        .unwrap()
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'latest'",
            [],
            |row| row.get::<_, usize>(0),
        )
        .unwrap();
    let mut bytes = fs::read(disk.database()).unwrap();
    bytes[(root - 1) * 1024] = 0xee;
    fs::write(disk.database(), &bytes).unwrap();
    disk.restart();
    disk.submit(Fill::new().topics(1, 4, &["b"]).done());
    while !matches!(disk.next_event(), Event::Committed { .. }) {}
    disk.commit(Fill::new().topics(1, 5, &["b"]).done());
    let page = disk.read(all_of(1));
    assert_eq!(
        (seqs(&page), superseded(&page)),
        (vec![1, 2, 3, 4, 5], vec![2, 4])
    );
    assert!(disk.directory.path().join("larder.db.corrupt-1").exists());
}

/// Columns of another type or another session, too.
#[test]
fn removes_records_whose_columns_are_damaged() {
    let (mut disk, _) = filled();
    damage(
        &disk,
        "UPDATE held SET packet_id = 'x' WHERE packet_id = 7;
         UPDATE held SET session = 77 WHERE packet_id = 300;
         UPDATE held SET packet_id = 65536 WHERE packet_id = 9;
         UPDATE will SET session = 77 WHERE session = 1;
         UPDATE will SET record = 1.5 WHERE session = 2;
         UPDATE retained SET topic = x'ff' WHERE topic = 'hall/a';
         UPDATE retained SET record = 'y' WHERE topic = 'hall/b';
         UPDATE retained SET topic = 'hall/d' WHERE topic = 'hall/c'",
    );
    let recovered = disk.restart();
    assert_eq!(in_short(&recovered), "1 [] no will 2 [] no will");
    assert!(recovered.salvaged.is_some());
    let recovered = disk.restart();
    assert_eq!(in_short(&recovered), "1 [] no will 2 [] no will");
    assert_eq!(recovered.salvaged, None);
}

/// A topic stands in the table and in its index. Wherever it is damaged, no message is retained twice afterwards, and
/// none that was removed comes back.
#[test]
fn keeps_one_retained_message_of_a_topic_whose_index_is_damaged() {
    let (mut disk, bytes) = filled();
    let topic = b"hall/b";
    let places: Vec<usize> = (0..bytes.len() - topic.len())
        .filter(|&at| bytes[at..].starts_with(topic))
        .collect();
    assert!(places.len() >= 2, "the table and the index");
    for at in places {
        disk.stop();
        let mut flipped = bytes.clone();
        flipped[at + 5] ^= 4;
        fs::write(disk.database(), &flipped).unwrap();
        let recovered = disk.restart();
        let found = in_short(&recovered);
        assert_eq!(
            found.contains("hall/b"),
            recovered.salvaged.is_none(),
            "{found}"
        );
        disk.commit(
            Fill::new()
                .retain("hall/b", b"<new>", Qos::AtLeastOnce)
                .done(),
        );
        let recovered = disk.restart();
        assert_eq!(recovered.salvaged, None);
        assert_eq!(in_short(&recovered), WHOLE);
        assert_eq!(recovered.retained[1].message.payload, b"<new>");
        disk.commit(Fill::new().unretain("hall/b").done());
        assert!(!in_short(&disk.restart()).contains("hall/b"));
    }
}

/// The index was damaged while Larder ran: the message that was to replace another stands beside it.
#[test]
fn takes_the_later_of_two_retained_messages_with_one_topic() {
    let (mut disk, bytes) = filled();
    let record = |disk: &OnDisk| -> Vec<u8> {
        rusqlite::Connection::open(disk.database())
            .unwrap()
            .query_row(
                "SELECT record FROM retained WHERE topic = 'hall/b'",
                [],
                |row| row.get(0),
            )
            .unwrap()
    };
    let earlier = record(&disk);
    disk.restart();
    disk.commit(
        Fill::new()
            .retain("hall/b", b"<new>", Qos::AtLeastOnce)
            .done(),
    );
    disk.stop();
    let later = record(&disk);
    assert_ne!(earlier, later);
    fs::write(disk.database(), bytes).unwrap();
    let somebody = rusqlite::Connection::open(disk.database()).unwrap();
    somebody
        .execute_batch("UPDATE retained SET topic = 'hall/d' WHERE topic = 'hall/b'")
        .unwrap();
    somebody
        .execute("INSERT INTO retained VALUES ('hall/b', ?1)", [later])
        .unwrap();
    somebody.close().unwrap();
    let mut bytes = fs::read(disk.database()).unwrap();
    let table = position(&bytes, &earlier) - b"hall/d".len();
    assert!(bytes[table..].starts_with(b"hall/d"));
    bytes[table + 5] = b'b';
    fs::write(disk.database(), bytes).unwrap();
    for _ in 0..2 {
        let recovered = disk.restart();
        assert_eq!(
            (in_short(&recovered).as_str(), recovered.salvaged),
            (WHOLE, None)
        );
        assert_eq!(recovered.retained[1].message.payload, b"<new>");
    }
}

/// A page is lost with what stands in it, and nothing else is.
#[test]
fn salvages_retained_messages_on_both_sides_of_a_damaged_page() {
    let mut disk = OnDisk::new();
    let mut fill = session(1).hold(1, 7);
    for number in 1..=200 {
        fill = fill.retain(
            &format!("hall/{number:03}"),
            &payload(number, 300),
            Qos::AtLeastOnce,
        );
    }
    disk.commit(fill.done());
    disk.stop();
    let mut bytes = fs::read(disk.database()).unwrap();
    let page = position(&bytes, b"<payload 100>") / 1024 * 1024;
    bytes[page..page + 1024].fill(0xff);
    fs::write(disk.database(), &bytes).unwrap();
    let recovered = disk.restart();
    let kept = recovered.retained.len();
    assert!((195..200).contains(&kept), "{kept}");
    let told = recovered.salvaged.unwrap();
    assert!(
        told.contains(&format!(
            "1 sessions, 0 queued messages and {kept} retained"
        )),
        "{told}"
    );
    assert_eq!(recovered.retained[kept - 1].message.topic, "hall/200");
    assert_eq!(recovered.sessions[0].held[0].get(), 7);
    assert_eq!(disk.restart().salvaged, None);
}
