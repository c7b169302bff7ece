-- Larder's database: stored sessions, their subscriptions, and the messages that they are owed.
--
-- Look at it with the sqlite3 shell while Larder runs (sqlite3 -readonly larder.db); do not write to it: rows carry
-- checksums. `SELECT * FROM backlog` and `SELECT * FROM queued LIMIT 20` are good starts.
--
-- Every `record` is: 1 byte format number (1), a postcard encoding (varints, little end first; byte strings with their
-- length before them), 4 bytes CRC-32C, little end first. The checksum covers the columns named at each table as 8-byte
-- little-endian integers (NULL as 0) in that order, then the text column if one is named, then the record up to the
-- checksum. A row that fails it is skipped and reported, never guessed at.
--
-- PRAGMA application_id is 'LRDR', PRAGMA user_version is the version of this schema: 1.

-- Stored sessions.
CREATE TABLE session (
  key          INTEGER PRIMARY KEY,     -- never used again for another session
  slot         INTEGER NOT NULL UNIQUE, -- 0 to 1,048,575: the session's place in queue.key; used again once its rows are gone
  client_id    TEXT NOT NULL,           -- Client Identifier
  seq_reserved INTEGER NOT NULL,        -- no sequence number above this was ever sent
  record       BLOB NOT NULL            -- expiry_interval u32 (seconds), left_at option<u64> (service seconds), configured bool;
                                        -- checksum over key, slot, seq_reserved, client_id
);

-- Subscriptions of stored sessions.
CREATE TABLE subscription (
  session INTEGER NOT NULL,             -- session.key
  filter  TEXT NOT NULL,                -- Topic Filter
  record  BLOB NOT NULL,                -- qos u8, no_local bool, retain_as_published bool, retain_handling u8, identifier
                                        -- option<u32>; checksum over session, filter
  PRIMARY KEY (session, filter)
) WITHOUT ROWID;

-- What is owed: one row per message and session. The key is one integer, slot * 2^43 + seq, because a table by rowid
-- takes half the pages of one WITHOUT ROWID with the key (session, seq): its rows may fill a page, and its inner pages
-- hold integers.
CREATE TABLE queue (
  key             INTEGER PRIMARY KEY,  -- session.slot << 43 | sequence number
  size            INTEGER NOT NULL,     -- bytes of topic, properties and payload together
  messages_before INTEGER NOT NULL,     -- messages ever queued in this session before this one
  bytes_before    INTEGER NOT NULL,     -- their sizes together
  message         INTEGER,              -- message.id, or NULL if the message stands in this record
  record          BLOB NOT NULL         -- flags u8 (bits 0-1 granted QoS, bit 2 RETAIN), subscription identifiers (bytes, encoded
                                        -- properties), option<message as in message.record>;
                                        -- checksum over key, size, messages_before, bytes_before, message
);

-- Messages owed to more than one session, once each.
CREATE TABLE message (
  id     INTEGER PRIMARY KEY,
  owed   INTEGER NOT NULL,              -- rows of queue that name it; it goes with the last
  record BLOB NOT NULL                  -- expires_at option<u64> (service seconds), topic, properties, payload (bytes each);
                                        -- checksum over id
);

-- Slots of ended sessions whose rows are still being removed, piece by piece.
CREATE TABLE ended (
  slot INTEGER PRIMARY KEY
);

-- One row: the service's own clock. Written about once a minute of service, and when a session is created.
CREATE TABLE service (
  id           INTEGER PRIMARY KEY CHECK (id = 1),
  seconds      INTEGER NOT NULL,        -- seconds of service, over all starts
  wall         INTEGER,                 -- seconds since 1970 at that time, if the clock was synchronised
  last_session INTEGER NOT NULL,        -- the highest session.key ever given
  record       BLOB NOT NULL            -- nothing but the format number and the checksum over seconds, wall, last_session
);

-- For people: the rows of queue with their session.
CREATE VIEW queued AS
  SELECT session.client_id, queue.key & 8796093022207 AS seq, queue.size, queue.message IS NOT NULL AS shared
  FROM session JOIN queue ON queue.key BETWEEN session.slot << 43 AND (session.slot << 43) + 8796093022207;

-- For people: the length of each queue, from its first and last row.
CREATE VIEW backlog AS
  SELECT session.client_id,
         last.messages_before + 1 - first.messages_before AS messages_at_most,
         last.bytes_before + last.size - first.bytes_before AS bytes_at_most
  FROM session
  JOIN queue AS first ON first.key =
       (SELECT min(key) FROM queue WHERE key BETWEEN session.slot << 43 AND (session.slot << 43) + 8796093022207)
  JOIN queue AS last ON last.key =
       (SELECT max(key) FROM queue WHERE key BETWEEN session.slot << 43 AND (session.slot << 43) + 8796093022207);
