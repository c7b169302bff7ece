//! What stands in the database: a record with any bytes whose checksum is right, or a file with any bytes changed. The
//! store opens it, or says why not; what it had to mend it mends once; what it reads it can be asked for.

use crate::harness::{Directory, Fill, Kept, OnDisk, ROOM, all_of, open, session};
use crc::{CRC_32_ISCSI, Crc};
use larder::record::{LaneRecord, Recovered, SessionRecord, SubscriptionRecord, WillRecord};
use larder_packet::Qos;
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Every table with records: the columns that a checksum covers, and the text after them.
const TABLES: [(&str, &[&str], Option<&str>); 9] = [
    (
        "session",
        &["key", "slot", "seq_reserved"],
        Some("client_id"),
    ),
    (
        "lane",
        &["key", "slot", "session", "number", "start", "seq_reserved"],
        Some("name"),
    ),
    ("subscription", &["session"], Some("filter")),
    ("held", &["session", "packet_id"], None),
    ("will", &["session"], None),
    ("retained", &[], Some("topic")),
    (
        "queue",
        &["key", "size", "messages_before", "bytes_before", "message"],
        None,
    ),
    ("message", &["id"], None),
    ("service", &["seconds", "wall", "last_session"], None),
];
/// A first byte from here on: places in the file, and what is put there.
const FILE: u8 = 0x80;
const CHECKSUM_BYTES: usize = 4;

static CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The first byte says which table, the second which row; the rest is its record without its checksum.
pub(crate) fn stored(input: &[u8]) {
    let [first, second, rest @ ..] = input else {
        return;
    };
    let directory = Directory::within(&place());
    let path = directory.path().join("larder.db");
    let mut bytes = whole().clone();
    if *first >= FILE {
        for patch in input[1..].chunks_exact(4) {
            let at =
                usize::from(u16::from_be_bytes([patch[0], patch[1]])) * 256 + usize::from(patch[2]);
            let at = at % bytes.len();
            bytes[at] = patch[3];
        }
        fs::write(&path, bytes).unwrap();
    } else {
        fs::write(&path, bytes).unwrap();
        put(&path, usize::from(*first), usize::from(*second), rest);
    }
    let Ok((threads, bell, recovered)) = open(directory.path(), ROOM) else {
        // Of another program's, or of a newer Larder's, by its first bytes.
        assert!(*first >= FILE, "it is not opened");
        return;
    };
    let mut disk = OnDisk::running(directory, ROOM, threads, bell);
    ask(&mut disk, &recovered);
    disk.stop();
    if *first < FILE {
        let recovered = disk.restart();
        assert_eq!(recovered.salvaged, None, "it was mended before");
        ask(&mut disk, &recovered);
    }
}

/// Everything that can be asked for.
fn ask(disk: &mut OnDisk, recovered: &Recovered) {
    for session in &recovered.sessions {
        let lanes = session.lanes.iter().map(|lane| lane.key);
        for key in lanes.chain([session.key]) {
            // A page may be found damaged, and is mended then.
            let _ = disk.try_read(all_of(key.0));
        }
    }
    for retained in &recovered.retained {
        if retained.left_out.is_some() {
            let _ = disk.read_retained(&retained.message.topic);
        }
    }
}

/// Puts a record into a row of a table, with the checksum that it should have.
fn put(path: &Path, table: usize, row: usize, record: &[u8]) {
    let (table, columns, text) = TABLES[table % TABLES.len()];
    let database = Connection::open(path).unwrap();
    database.execute_batch("PRAGMA synchronous = OFF").unwrap();
    let covered = columns.iter().map(|column| format!("ifnull({column}, 0)"));
    let text = text.unwrap_or("''");
    let asked = covered
        .chain([text.to_owned()])
        .collect::<Vec<_>>()
        .join(", ");
    let rows: i64 = database
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
        .unwrap();
    let offset = i64::try_from(row).unwrap() % rows;
    let order = key(table);
    let mut digest = CRC_32C.digest();
    database
        .query_row(
            &format!("SELECT {asked} FROM {table} ORDER BY {order} LIMIT 1 OFFSET {offset}"),
            [],
            |row| {
                for column in 0..columns.len() {
                    digest.update(&row.get::<_, i64>(column)?.to_le_bytes());
                }
                digest.update(row.get::<_, String>(columns.len())?.as_bytes());
                Ok(())
            },
        )
        .unwrap();
    digest.update(record);
    let sealed = [record, &digest.finalize().to_le_bytes()].concat();
    let changed = database
        .execute(
            &format!(
                "UPDATE {table} SET record = ?1 WHERE ({order}) =
                     (SELECT {order} FROM {table} ORDER BY {order} LIMIT 1 OFFSET {offset})"
            ),
            [sealed],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

fn key(table: &str) -> &'static str {
    match table {
        "subscription" => "session, filter",
        "held" => "session, packet_id",
        "will" => "session",
        "retained" => "rowid",
        "message" | "service" => "id",
        _ => "key",
    }
}

/// The corpus: every record of the database, and changes of its file.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let directory = Directory::within(&place());
    let path = directory.path().join("larder.db");
    fs::write(&path, whole()).unwrap();
    let database = Connection::open(&path).unwrap();
    let mut inputs = Vec::new();
    for (table, (name, _, _)) in TABLES.iter().enumerate() {
        let order = key(name);
        let mut statement = database
            .prepare(&format!("SELECT record FROM {name} ORDER BY {order}"))
            .unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, Vec<u8>>(0))
            .unwrap();
        for (row, record) in rows.enumerate() {
            let mut record = record.unwrap();
            record.truncate(record.len() - CHECKSUM_BYTES);
            let head = [u8::try_from(table).unwrap(), u8::try_from(row).unwrap()];
            inputs.push([&head[..], &record].concat());
        }
    }
    for page in 0..u8::try_from(whole().len() / 1024).unwrap() {
        let at = u16::from(page) * 4;
        let [high, low] = at.to_be_bytes();
        inputs.push(vec![FILE, high, low, 0, 0x0d, high, low, 5, 1]);
    }
    inputs
}

/// A database with some of everything, as it lies on disk.
fn whole() -> &'static Vec<u8> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let mut disk = OnDisk::at(Directory::within(&place()), ROOM).0;
        let lane = LaneRecord {
            number: 1,
            start: 3,
        };
        let mut fill = session(1)
            .session(2, "client 2", SessionRecord::default())
            .lane(3, 2, lane, "class")
            .subscribe(1, "a/#", SubscriptionRecord::default())
            .hold(1, 7)
            .will(1, b"<will>", WillRecord::default())
            .retain("hall/a", b"<retained>", Qos::AtLeastOnce)
            .retain("hall/b", &[b'.'; 2000], Qos::ExactlyOnce);
        for seq in 1..=5 {
            let shared = fill.message("t", b"<shared>");
            fill.owe(shared, 1, seq);
            fill.owe(shared, 2, seq);
            fill.owe(shared, 3, seq);
        }
        disk.commit(fill.queue(1, 6..=9, 40).received(1, 2).done());
        disk.commit(Fill::new().settle(2, 1).done());
        disk.stop();
        fs::read(disk.database()).unwrap()
    })
}

/// In memory, if there is such a place.
pub(crate) fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}
