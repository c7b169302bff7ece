//! Stores that can be restarted, and a short way to write batches.

use larder::record::{
    Batch, Change, DropOldest, Dropped, End, Event, LaneRecord, Message, Owe, Page, PageRequest,
    Recency, Recovered, RecoveredRetained, Seq, SessionKey, SessionRecord, ShareKey, Span, Store,
    SubscriptionRecord, Ticket, Will, WillRecord,
};
use larder::store::{self, MemoryStore, OpenError, Options, Threads};
use larder::time::ServiceSeconds;
use larder_packet::{PacketId, Qos};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A store with which a test can talk one sentence at a time.
pub(crate) trait Kept {
    fn commit(&mut self, batch: Batch) -> Vec<Dropped>;
    fn read(&mut self, request: PageRequest) -> Page;
    fn read_retained(&mut self, topic: &str) -> Option<RecoveredRetained>;
    /// Ends it and starts it again on what it left behind.
    fn restart(&mut self) -> Recovered;
}

pub(crate) struct InMemory(MemoryStore);

impl InMemory {
    pub(crate) fn new() -> InMemory {
        InMemory(MemoryStore::new())
    }
}

impl Kept for InMemory {
    fn commit(&mut self, batch: Batch) -> Vec<Dropped> {
        self.0.submit(Arc::new(batch));
        assert!(!self.0.is_idle());
        self.0.step();
        match self.0.poll_event() {
            Some(Event::Committed { dropped, .. }) => dropped,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, request: PageRequest) -> Page {
        self.0.read(request);
        self.0.step_reads();
        match self.0.poll_event() {
            Some(Event::PageRead { page, .. }) => page.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn read_retained(&mut self, topic: &str) -> Option<RecoveredRetained> {
        self.0.read_retained(topic.to_owned());
        self.0.step_reads();
        match self.0.poll_event() {
            Some(Event::RetainedRead { message, .. }) => message.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn restart(&mut self) -> Recovered {
        let (store, recovered) = MemoryStore::recover(std::mem::take(&mut self.0).crash());
        self.0 = store;
        recovered
    }
}

pub(crate) struct OnDisk {
    pub(crate) directory: Directory,
    disk_max: u64,
    running: Option<(Threads, Receiver<()>)>,
    pub(crate) disk_used: u64,
    pub(crate) written: u64,
}

impl OnDisk {
    pub(crate) fn new() -> OnDisk {
        OnDisk::with_room(1 << 30)
    }

    pub(crate) fn with_room(disk_max: u64) -> OnDisk {
        OnDisk::at(Directory::new(), disk_max).0
    }

    pub(crate) fn at(directory: Directory, disk_max: u64) -> (OnDisk, Recovered) {
        let (threads, bell, recovered) = open(directory.path(), disk_max).unwrap();
        let disk = OnDisk::running(directory, disk_max, threads, bell);
        (disk, recovered)
    }

    /// One that has been opened already.
    pub(crate) fn running(
        directory: Directory,
        disk_max: u64,
        threads: Threads,
        bell: Receiver<()>,
    ) -> OnDisk {
        OnDisk {
            directory,
            disk_max,
            running: Some((threads, bell)),
            disk_used: 0,
            written: 0,
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("larder.db")
    }

    pub(crate) fn stop(&mut self) {
        if let Some((threads, _)) = self.running.take() {
            threads.shutdown();
        }
    }

    pub(crate) fn next_event(&mut self) -> Event {
        let (threads, bell) = self.running.as_mut().unwrap();
        bell.recv_timeout(Duration::from_secs(60))
            .expect("an event within a minute");
        threads
            .poll_event()
            .expect("an event for each ring of the bell")
    }

    pub(crate) fn submit(&mut self, batch: Batch) {
        self.running.as_mut().unwrap().0.submit(Arc::new(batch));
    }

    pub(crate) fn try_read(&mut self, request: PageRequest) -> Result<Page, String> {
        self.running.as_mut().unwrap().0.read(request);
        match self.next_event() {
            Event::PageRead {
                request: answered,
                page,
            } => {
                assert_eq!(answered, request);
                page
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a power cut would leave at this moment.
    pub(crate) fn crash_image(&self) -> Directory {
        let image = Directory::new();
        for name in ["larder.db", "larder.db-wal"] {
            let from = self.directory.path().join(name);
            if from.exists() {
                fs::copy(from, image.path().join(name)).unwrap();
            }
        }
        image
    }
}

impl Kept for OnDisk {
    fn commit(&mut self, batch: Batch) -> Vec<Dropped> {
        let ticket = batch.ticket;
        self.submit(batch);
        assert!(!self.running.as_ref().unwrap().0.is_idle());
        match self.next_event() {
            Event::Committed {
                batch,
                dropped,
                disk_used,
                written,
            } => {
                assert_eq!(batch.ticket, ticket);
                assert!(
                    Arc::into_inner(batch).is_some(),
                    "the batch comes back for good"
                );
                assert!(self.running.as_ref().unwrap().0.is_idle());
                self.disk_used = disk_used;
                self.written = written;
                dropped
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, request: PageRequest) -> Page {
        self.try_read(request).unwrap()
    }

    fn read_retained(&mut self, topic: &str) -> Option<RecoveredRetained> {
        let threads = &mut self.running.as_mut().unwrap().0;
        threads.read_retained(topic.to_owned());
        match self.next_event() {
            Event::RetainedRead {
                topic: answered,
                message,
            } => {
                assert_eq!(answered, topic);
                message.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    fn restart(&mut self) -> Recovered {
        self.stop();
        let (threads, bell, recovered) = open(self.directory.path(), self.disk_max).unwrap();
        self.running = Some((threads, bell));
        recovered
    }
}

pub(crate) fn open(
    data_dir: &Path,
    disk_max: u64,
) -> Result<(Threads, Receiver<()>, Recovered), OpenError> {
    let (ring, bell) = channel();
    let options = Options {
        data_dir: data_dir.to_owned(),
        disk_max,
    };
    let wake = move || {
        let _ = ring.send(());
    };
    store::open(&options, wake).map(|(threads, recovered)| (threads, bell, recovered))
}

/// A directory that goes with its value.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        Directory::within(&std::env::temp_dir())
    }

    pub(crate) fn within(place: &Path) -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = place.join(format!("larder-store-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    /// One that is there, with what is in it.
    pub(crate) fn of(path: PathBuf) -> Directory {
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A batch being written.
#[derive(Default)]
pub(crate) struct Fill(Batch);

impl Fill {
    pub(crate) fn new() -> Fill {
        Fill::default()
    }

    pub(crate) fn at(service: u64, wall: Option<u64>) -> Fill {
        Fill(Batch {
            service: ServiceSeconds(service),
            wall,
            ..Batch::default()
        })
    }

    pub(crate) fn done(self) -> Batch {
        self.0
    }

    pub(crate) fn ticket(mut self, ticket: u64) -> Fill {
        self.0.ticket = Ticket(ticket);
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Span {
        let start = u32::try_from(self.0.bytes.len()).unwrap();
        self.0.bytes.extend_from_slice(bytes);
        Span {
            start,
            len: u32::try_from(bytes.len()).unwrap(),
        }
    }

    pub(crate) fn session(mut self, key: u64, client_id: &str, record: SessionRecord) -> Fill {
        let client_id = self.bytes(client_id.as_bytes());
        self.change(Change::SaveSession {
            session: SessionKey(key),
            client_id,
            record,
        })
    }

    pub(crate) fn lane(mut self, lane: u64, session: u64, record: LaneRecord, name: &str) -> Fill {
        let name = self.bytes(name.as_bytes());
        self.change(Change::SaveLane {
            lane: SessionKey(lane),
            session: SessionKey(session),
            record,
            name,
        })
    }

    pub(crate) fn end_lane(self, lane: u64) -> Fill {
        self.change(Change::DropLane {
            lane: SessionKey(lane),
        })
    }

    pub(crate) fn end(self, key: u64) -> Fill {
        self.change(Change::DropSession {
            session: SessionKey(key),
        })
    }

    pub(crate) fn reserve(self, key: u64, seq_reserved: Seq) -> Fill {
        self.change(Change::Reserve {
            session: SessionKey(key),
            seq_reserved,
        })
    }

    pub(crate) fn subscribe(mut self, key: u64, filter: &str, record: SubscriptionRecord) -> Fill {
        let filter = self.bytes(filter.as_bytes());
        self.change(Change::Subscribe {
            session: SessionKey(key),
            filter,
            record,
        })
    }

    pub(crate) fn unsubscribe(mut self, key: u64, filter: &str) -> Fill {
        let filter = self.bytes(filter.as_bytes());
        self.change(Change::Unsubscribe {
            session: SessionKey(key),
            filter,
        })
    }

    pub(crate) fn message(&mut self, topic: &str, payload: &[u8]) -> u32 {
        let topic = self.bytes(topic.as_bytes());
        let properties = self.bytes(b"\x01\x01");
        let payload = self.bytes(payload);
        let expires_at = Some(ServiceSeconds(9_000));
        self.0.messages.push(Message {
            topic,
            properties,
            payload,
            expires_at,
        });
        u32::try_from(self.0.messages.len() - 1).unwrap()
    }

    pub(crate) fn peek(&self, message: u32) -> Message {
        self.0.messages[message as usize]
    }

    /// Owes a message to `key` as its `seq`th; all messages of that queue are taken to be equally long.
    pub(crate) fn owe(&mut self, message: u32, key: u64, seq: Seq) {
        let size = u64::from(self.0.messages[message as usize].len());
        self.owe_after(message, key, seq, seq - 1, (seq - 1) * size);
    }

    pub(crate) fn owe_after(
        &mut self,
        message: u32,
        key: u64,
        seq: Seq,
        messages_before: u64,
        bytes_before: u64,
    ) {
        let subscription_ids = self.bytes(&[0x0b, 5]);
        self.0.changes.push(Change::Owe(Owe {
            session: SessionKey(key),
            seq,
            message,
            qos: if seq % 2 == 0 {
                Qos::ExactlyOnce
            } else {
                Qos::AtLeastOnce
            },
            retain: seq % 3 == 0,
            subscription_ids,
            share: (seq % 5 == 0).then_some(ShareKey(u32::MAX - seq as u32)),
            queued_at: ServiceSeconds(1_000 + seq),
            messages_before,
            bytes_before,
            indexed: true,
        }));
    }

    /// The row that was owed last is not remembered as the latest of its topic.
    pub(crate) fn not_indexed(&mut self) {
        if let Some(Change::Owe(owe)) = self.0.changes.last_mut() {
            owe.indexed = false;
        }
    }

    /// A message on each of these topics, owed to `key` with the numbers from `seq` on.
    pub(crate) fn topics(mut self, key: u64, seq: Seq, topics: &[&str]) -> Fill {
        for (topic, seq) in topics.iter().zip(seq..) {
            let message = self.message(topic, &payload(seq, 10));
            self.owe(message, key, seq);
        }
        self
    }

    /// A message of its own for each of `seqs`, owed to `key`.
    pub(crate) fn queue(
        mut self,
        key: u64,
        seqs: std::ops::RangeInclusive<Seq>,
        size: usize,
    ) -> Fill {
        for seq in seqs {
            let message = self.message("t", &payload(seq, size));
            self.owe(message, key, seq);
        }
        self
    }

    pub(crate) fn settle(self, key: u64, seq: Seq) -> Fill {
        self.change(Change::Settle {
            session: SessionKey(key),
            seq,
        })
    }

    pub(crate) fn received(self, key: u64, seq: Seq) -> Fill {
        self.change(Change::Received {
            session: SessionKey(key),
            seq,
        })
    }

    pub(crate) fn hold(self, key: u64, packet_id: u16) -> Fill {
        self.change(Change::Hold {
            session: SessionKey(key),
            packet_id: PacketId::new(packet_id).unwrap(),
        })
    }

    pub(crate) fn release(self, key: u64, packet_id: u16) -> Fill {
        self.change(Change::Release {
            session: SessionKey(key),
            packet_id: PacketId::new(packet_id).unwrap(),
        })
    }

    pub(crate) fn retain(mut self, topic: &str, payload: &[u8], qos: Qos) -> Fill {
        let message = self.message(topic, payload);
        self.change(Change::Retain { message, qos })
    }

    pub(crate) fn unretain(mut self, topic: &str) -> Fill {
        let topic = self.bytes(topic.as_bytes());
        self.change(Change::Unretain { topic })
    }

    pub(crate) fn will(mut self, key: u64, payload: &[u8], record: WillRecord) -> Fill {
        let message = self.message(&format!("will/{key}"), payload);
        self.0.messages[message as usize].expires_at = None;
        self.change(Change::SaveWill {
            session: SessionKey(key),
            will: Some(Will { message, record }),
        })
    }

    pub(crate) fn no_will(self, key: u64) -> Fill {
        self.change(Change::SaveWill {
            session: SessionKey(key),
            will: None,
        })
    }

    /// Drops from the range, but for the first `keep`, until the newest `bytes_keep` of `bytes_ever` bytes are left.
    pub(crate) fn drop_oldest(
        self,
        key: u64,
        keep: u32,
        range: (Seq, Seq),
        bytes_ever: u64,
        bytes_keep: u64,
    ) -> Fill {
        self.drop_sent(key, (keep, keep), range, bytes_ever, bytes_keep)
    }

    /// The same, but for those of the first `sent.0` that may be in flight: `sent.1` at most.
    pub(crate) fn drop_sent(
        self,
        key: u64,
        sent: (u32, u32),
        range: (Seq, Seq),
        bytes_ever: u64,
        bytes_keep: u64,
    ) -> Fill {
        let (maybe_sent, keep) = sent;
        let (after, up_to) = range;
        self.change(Change::DropOldest(DropOldest {
            after,
            maybe_sent,
            keep,
            keep_up_to: up_to,
            bytes_ever,
            bytes_keep,
            ..everything(key, up_to)
        }))
    }

    /// Drops the oldest rows up to number `up_to` until so many of `messages_ever` messages are left.
    pub(crate) fn drop_to(self, key: u64, up_to: Seq, messages_ever: u64, keep: u64) -> Fill {
        self.change(Change::DropOldest(DropOldest {
            messages_ever,
            messages_keep: keep,
            ..everything(key, up_to)
        }))
    }

    /// Drops the rows up to number `up_to` that were queued before `time`.
    pub(crate) fn drop_aged(self, key: u64, up_to: Seq, time: u64) -> Fill {
        self.change(Change::DropOldest(DropOldest {
            queued_before: Some(ServiceSeconds(time)),
            ..everything(key, up_to)
        }))
    }

    pub(crate) fn change(mut self, change: Change) -> Fill {
        self.0.changes.push(change);
        self
    }
}

/// More than is needed.
pub(crate) const ROOM: u64 = 1 << 30;

pub(crate) fn session(key: u64) -> Fill {
    Fill::new().session(key, &format!("client {key}"), SessionRecord::default())
}

/// Different for each number, and found again in a file.
pub(crate) fn payload(seq: Seq, size: usize) -> Vec<u8> {
    let mut payload = format!("<payload {seq}>").into_bytes();
    payload.resize(size.max(payload.len()), b'.');
    payload
}

/// The whole queue, as far as one page goes.
pub(crate) fn all_of(key: u64) -> PageRequest {
    PageRequest {
        session: SessionKey(key),
        from: End::Oldest,
        after: 0,
        up_to: 1 << 40,
        rows_max: 10_000,
        bytes_max: 64 << 20,
        recency: true,
    }
}

pub(crate) fn seqs(page: &Page) -> Vec<Seq> {
    page.rows.iter().map(|row| row.seq).collect()
}

/// Of a page, the rows that are superseded.
pub(crate) fn superseded(page: &Page) -> Vec<Seq> {
    with(page, Recency::Superseded)
}

/// Of a page, the rows that are the latest of their topics.
pub(crate) fn latest(page: &Page) -> Vec<Seq> {
    with(page, Recency::Latest)
}

fn with(page: &Page, recency: Recency) -> Vec<Seq> {
    let rows = page.rows.iter().filter(|row| row.recency == recency);
    rows.map(|row| row.seq).collect()
}

/// A page in words, so that two can be compared.
pub(crate) fn in_words(page: &Page) -> Vec<String> {
    let text = |span: Span| String::from_utf8_lossy(span.of(&page.bytes)).into_owned();
    let rows = page.rows.iter().map(|row| {
        format!(
            "{} {:?} {:?} {:?} {:?} {:?} {} {:?} {} bytes at {}{}{}{}",
            row.seq,
            text(row.message.topic),
            text(row.message.properties),
            text(row.message.payload),
            row.message.expires_at.map(|at| at.0),
            row.qos,
            row.retain,
            text(row.subscription_ids),
            row.size,
            row.queued_at.0,
            if row.received { " received" } else { "" },
            row.share
                .map_or(String::new(), |share| format!(" by {}", share.0)),
            match row.recency {
                Recency::Unknown => "",
                Recency::Superseded => " superseded",
                Recency::Latest => " latest",
            }
        )
    });
    rows.chain([format!(
        "read up to {}, bad {:?}",
        page.read_up_to, page.bad
    )])
    .collect()
}

/// What recovery found, in words, but for how it is stored.
pub(crate) fn found(recovered: &Recovered) -> String {
    format!(
        "{:#?}",
        Recovered {
            disk_used: 0,
            ..recovered.clone()
        }
    )
}

/// A drop that lets everything stay.
fn everything(key: u64, up_to: Seq) -> DropOldest {
    DropOldest {
        session: SessionKey(key),
        after: 0,
        maybe_sent: 0,
        keep: 0,
        keep_up_to: 0,
        up_to,
        bytes_ever: 0,
        bytes_keep: u64::MAX,
        messages_ever: 0,
        messages_keep: u64::MAX,
        queued_before: None,
    }
}
