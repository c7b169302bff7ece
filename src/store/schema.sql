-- Larder's database: stored sessions with their lanes, subscriptions and Wills, the messages that they are owed, and retained
-- messages.
--
-- Look at it with the sqlite3 shell while Larder runs (sqlite3 -readonly larder.db); do not write to it: rows carry
-- checksums. `SELECT * FROM backlog` and `SELECT * FROM queued LIMIT 20` are good starts.
--
-- Every `record` is: 1 byte format number (1; in queue 2 and 3), a postcard encoding (varints, little end first; byte
-- strings with their length before them), 4 bytes CRC-32C, little end first. The checksum covers the columns named at
-- each table as 8-byte little-endian integers (NULL as 0) in that order, then the text column if one is named, then the
-- record up to the checksum. A row that fails it is skipped and reported, never guessed at.
--
-- PRAGMA application_id is 'LRDR', PRAGMA user_version is the version of this schema: 3. A database of version 1 or 2
-- becomes one of version 3 when all of this is executed on it; its tables stay as they are, and so does what .schema says of
-- them.

-- Stored sessions.
CREATE TABLE IF NOT EXISTS session (
  key          INTEGER PRIMARY KEY,     -- never used again for another session
  slot         INTEGER NOT NULL UNIQUE, -- 0 to 1,048,575: the session's place in queue.key; used again once its rows are gone
  client_id    TEXT NOT NULL,           -- Client Identifier
  seq_reserved INTEGER NOT NULL,        -- no sequence number above this was ever sent
  record       BLOB NOT NULL            -- expiry_interval u32 (seconds), left_at option<u64> (service seconds), configured bool;
                                        -- checksum over key, slot, seq_reserved, client_id
);

-- Lanes: queues that a stored session has beside its own, one for each class of messages. Keys and slots are of the same
-- kind as those of sessions, and no session has the same.
CREATE TABLE IF NOT EXISTS lane (
  key          INTEGER PRIMARY KEY,     -- never used again for another lane or session
  slot         INTEGER NOT NULL UNIQUE, -- its place in queue.key
  session      INTEGER NOT NULL,        -- session.key
  number       INTEGER NOT NULL,        -- 1 to 7: which part of the Packet Identifiers is its
  start        INTEGER NOT NULL,        -- messages of the session's own queue keep to their part from this number on
  seq_reserved INTEGER NOT NULL,        -- no sequence number above this was ever sent
  name         TEXT NOT NULL,           -- of the class
  record       BLOB NOT NULL            -- nothing but the format number and the checksum over key, slot, session, number,
                                        -- start, seq_reserved, name
);

-- Subscriptions of stored sessions.
CREATE TABLE IF NOT EXISTS subscription (
  session INTEGER NOT NULL,             -- session.key
  filter  TEXT NOT NULL,                -- Topic Filter
  record  BLOB NOT NULL,                -- qos u8, no_local bool, retain_as_published bool, retain_handling u8, identifier
                                        -- option<u32>; checksum over session, filter
  PRIMARY KEY (session, filter)
) WITHOUT ROWID;

-- Messages of QoS 2 that the client of a stored session has sent and not yet released (PUBREL): until then the Packet
-- Identifier stands for no other.
CREATE TABLE IF NOT EXISTS held (
  session   INTEGER NOT NULL,           -- session.key
  packet_id INTEGER NOT NULL,           -- Packet Identifier, 1 to 65,535
  record    BLOB NOT NULL,              -- nothing but the format number and the checksum over session, packet_id
  PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;

-- Wills of stored sessions.
CREATE TABLE IF NOT EXISTS will (
  session INTEGER PRIMARY KEY,          -- session.key
  record  BLOB NOT NULL                 -- qos u8, retain bool, delay_interval u32 (seconds), message_expiry_interval
                                        -- option<u32> (seconds from its publication), message as in message.record;
                                        -- checksum over session
);

-- Retained messages.
CREATE TABLE IF NOT EXISTS retained (
  topic  TEXT NOT NULL UNIQUE,          -- Topic Name
  record BLOB NOT NULL                  -- qos u8, expires_at option<u64> (service seconds), properties, payload (bytes
                                        -- each); checksum over topic
);

-- What is owed: one row per message and session. The key is one integer, slot * 2^43 + seq, because a table by rowid
-- takes half the pages of one WITHOUT ROWID with the key (session, seq): its rows may fill a page, and its inner pages
-- hold integers.
CREATE TABLE IF NOT EXISTS queue (
  key             INTEGER PRIMARY KEY,  -- session.slot or lane.slot << 43 | sequence number
  size            INTEGER NOT NULL,     -- bytes of topic, properties and payload together
  messages_before INTEGER NOT NULL,     -- messages ever queued in this session, or lane, before this one
  bytes_before    INTEGER NOT NULL,     -- their sizes together
  message         INTEGER,              -- message.id, or NULL if the message stands in this record or has been received
  record          BLOB NOT NULL         -- flags u8 (bits 0-1 granted QoS, bit 2 RETAIN, bit 3 received: the message, of
                                        -- QoS 2, is gone, and only its PUBREL is owed), queued_at u64 (service seconds;
                                        -- not in format 1), subscription identifiers (bytes, encoded properties),
                                        -- option<message as in message.record>, and in format 3 the u32 FNV-1a of the
                                        -- Shared Subscription's filter by which it is owed;
                                        -- checksum over key, size, messages_before, bytes_before, message
);

-- Messages owed to more than one session, once each.
CREATE TABLE IF NOT EXISTS message (
  id     INTEGER PRIMARY KEY,
  owed   INTEGER NOT NULL,              -- rows of queue that name it; it goes with the last
  record BLOB NOT NULL                  -- expires_at option<u64> (service seconds), topic, properties, payload (bytes each);
                                        -- checksum over id
);

-- The latest row of each topic of a queue, of queues that keep no more than that when they are full; of at most 16,384
-- topics each. It only says where to look: a row counts as superseded if the row that is named here is there, is newer and
-- has the same topic. An entry whose row is gone goes later.
CREATE TABLE IF NOT EXISTS latest (
  slot INTEGER NOT NULL,                -- session.slot or lane.slot
  hash INTEGER NOT NULL,                -- FNV-1a of the Topic Name, 64 bits
  seq  INTEGER NOT NULL,                -- sequence number of the row
  PRIMARY KEY (slot, hash)
) WITHOUT ROWID;

-- Slots of ended sessions and lanes whose rows are still being removed, piece by piece.
CREATE TABLE IF NOT EXISTS ended (
  slot INTEGER PRIMARY KEY
);

-- One row: the service's own clock. Written about once a minute of service, and when a session is created.
CREATE TABLE IF NOT EXISTS service (
  id           INTEGER PRIMARY KEY CHECK (id = 1),
  seconds      INTEGER NOT NULL,        -- seconds of service, over all starts
  wall         INTEGER,                 -- seconds since 1970 at that time or earlier, if the clock has ever been synchronised
  last_session INTEGER NOT NULL,        -- the highest session.key or lane.key ever given
  record       BLOB NOT NULL            -- nothing but the format number and the checksum over seconds, wall, last_session
);

-- For people: the queues of sessions, by class; the session's own is that of the class ''.
DROP VIEW IF EXISTS queues;
CREATE VIEW queues AS
  SELECT client_id, '' AS class, slot << 43 AS first, (slot << 43) + 8796093022207 AS last FROM session
  UNION ALL
  SELECT client_id, name, lane.slot << 43, (lane.slot << 43) + 8796093022207
  FROM lane JOIN session ON session.key = lane.session;

-- For people: the rows of queue with their session.
DROP VIEW IF EXISTS queued;
CREATE VIEW queued AS
  SELECT client_id, class, queue.key & 8796093022207 AS seq, queue.size, queue.message IS NOT NULL AS shared,
         hex(substr(queue.record, 2, 1)) >= '08' AS received
  FROM queues JOIN queue ON queue.key BETWEEN queues.first AND queues.last;

-- For people: the length of each queue, from its first and last row.
DROP VIEW IF EXISTS backlog;
CREATE VIEW backlog AS
  SELECT client_id, class,
         newest.messages_before + 1 - oldest.messages_before AS messages_at_most,
         newest.bytes_before + newest.size - oldest.bytes_before AS bytes_at_most
  FROM queues
  JOIN queue AS oldest ON oldest.key =
       (SELECT min(key) FROM queue WHERE key BETWEEN queues.first AND queues.last)
  JOIN queue AS newest ON newest.key =
       (SELECT max(key) FROM queue WHERE key BETWEEN queues.first AND queues.last);
