//! Larder is an MQTT broker for the edge: one process on a Linux gateway that serves the clients around it over MQTT
//! 3.1.1 and 5.0. What it acknowledges is on disk, or acknowledged already by every subscriber that outlives its
//! connection; what waits for an absent subscriber waits on disk, and costs no memory. A bridge passes chosen topics to
//! a broker elsewhere when that can be reached.
//!
//! This page is the architecture. It uses some [words of our own](#words).
//!
//! # The turn
//!
//! One thread does everything that is MQTT. It runs a loop whose every round is a *turn*,
//! [`Server::turn`](server::Server::turn):
//!
//! ```text
//! net.wait(broker.poll_timeout())       the only place that sleeps
//! now = clock.now()                     the only clock read
//! broker.handle_store(events)           committed, page read, stalled
//! broker.resume_parked                  room was made: what did not fit may fit now
//! net events -> broker.receive          bytes to packets; one read per link and turn, so that none starves another
//! broker.handle_timeout                 after receiving: our own stall must not expire a client
//! broker.deliver                        acknowledgements and messages into outboxes, as far as there is room
//! store.read(broker.poll_read)          pages of queues that are wanted, and large retained messages
//! store.submit(broker.poll_batch)       if the writer is free and the batch is due
//! net.write(broker.outbox)              one write per link and turn
//! ```
//!
//! Nothing in it blocks. Committing and reading are done by two threads of the [`store`], which answer with events and
//! wake the loop; log lines go through a ring to a third ([`observe::log`]). Each bridge is a thread too, and an
//! ordinary client: it comes in through a socket.
//!
//! [`Server`](server::Server) is generic over the network ([`net::Net`]) and the store ([`record::Store`]), and is
//! handed its clock ([`time::Clock`]). With a fake network, a disk that can crash and virtual time in their places, the
//! same turn and the same core run in a simulator, where one seed replays one life.
//!
//! # The layers
//!
//! Who may know whom; `tests/house` checks every path that the source names.
//!
//! | | what it is | whom it knows |
//! | --- | --- | --- |
//! | [`limits`] | every capacity, by name | nobody |
//! | [`time`] | what the clocks say, as an argument | nobody |
//! | [`larder_packet`] | bytes to packets and back; a crate of its own | nobody |
//! | [`record`] | what is durable, as plain data; the store as a trait | `time`, `larder_packet` |
//! | [`clock`] | the machine's clocks, the only file that reads them | `time` |
//! | [`observe`] | the log | nobody |
//! | [`larder_bridge`] | a client of this broker, a client of the cloud, and a relay between them; a crate of its own | `larder_packet` |
//! | [`config`] | `larder.toml`, checked once | `larder_packet`, `larder_bridge` |
//! | [`net`] | sockets as bytes, no MQTT | `time` |
//! | [`store`] | SQLite, its two threads, and a store in memory | `record`, `time`, `larder_packet` |
//! | [`broker`] | the core: MQTT without I/O | `limits`, `time`, `record`, `larder_packet`, and two names of `net` |
//! | [`server`] | the turn | `limits`, `time`, `record`, `net`, `broker` |
//! | [`budget`] | the sum of the capacities | whatever has a capacity |
//! | [`cli`] | the commands; `run` assembles the parts | all |
//!
//! The core is *pure*: it names no socket, file, thread, clock or source of randomness. Of `net` it knows
//! [`LinkId`](net::LinkId) and [`Origin`](net::Origin), which name a link and say where it came from, and do nothing.
//! Time and the outcome of I/O come in as arguments (`handle_…`), randomness as a seed; what is to be done goes out
//! through `poll_…`.
//!
//! # One PUBLISH, from the socket to its PUBACK
//!
//! A sensor publishes at QoS 1; a stored session has subscribed.
//!
//! 1. `net/sockets.rs` tells that the link is readable, and the turn reads up to
//!    [`LINK_READ_BYTES`](limits::LINK_READ_BYTES) of it into its one buffer.
//! 2. `broker/receive.rs` finds whole packets in the bytes, at most [`LINK_PACKETS`](limits::LINK_PACKETS) in a turn,
//!    and hands each to its handler. Half a packet stays in the link's inbox.
//! 3. `broker/route.rs` asks `router.rs` who has subscribed. A session is met once, however many of its filters
//!    match; of each group that shares a filter, `broker/share.rs` chooses a member, which gets a copy of its own.
//! 4. `broker/admit.rs` decides, for all receivers or none, whether there is room on disk and in the journal. If not,
//!    the link is *parked*: this packet and what follows it stay in the inbox, and the socket is not read.
//! 5. `broker/journal.rs` copies the message once into the filling batch; `queue.rs` gives it the session's next
//!    sequence number and appends a row that owes it. The PUBACK goes into the link's FIFO (`acks.rs`) together with
//!    what it rests on: that message.
//! 6. `broker/deliver.rs`, in the same turn: if the session has a link and room in its window, the message is encoded
//!    from the journal into that link's outbox. The disk has not been asked.
//! 7. The batch is *due* when something in it is urgent: here, if the row could not be sent. If it was sent, the batch
//!    may wait `settle_wait` for the subscriber. When it is due and the writer is free, it becomes the committing
//!    batch; `store/writer.rs` makes it one transaction with one fsync (`store/sqlite/apply.rs`), says
//!    [`Committed`](record::Event::Committed) and wakes the loop.
//! 8. Either that event comes (`Broker::handle_store`), or before it the subscriber's PUBACK (`broker/acknowledge.rs`),
//!    which settles the row. Both make what our PUBACK rests on true. `release_acks`, beside it, moves it
//!    from the FIFO into the outbox, and at the end of the turn it leaves.
//!
//! # What always holds
//!
//! - **Acknowledged is durable.** An acknowledgement gets into an outbox in one way: `Acks` takes it with a `RestsOn`,
//!   and gives it out as `Ready`, which nothing else can make, once that is done. A reply rests on all that it reports,
//!   also on what an earlier packet changed: a repeated SUBSCRIBE, or Session Present, waits for the ticket of the
//!   session's last change.
//! - **Acknowledgements keep their order**, and the CONNACK is first. A link has *one* FIFO for all of them, from CONNACK
//!   to PUBCOMP. The standard asks for order among those of one kind only [MQTT-4.6.0-2]; several FIFOs would let none
//!   leave earlier that matters, because a commit completes everything recorded before it. The price is that a message
//!   which is settled early waits behind an acknowledgement that needs the disk. The FIFO is a capacity: when it is
//!   full, the link is not read.
//! - **Exactly once rests on what is on disk** (`broker/qos2.rs`). A publisher's Packet Identifier is *held* from the
//!   PUBREC to the PUBREL, in one batch with its message. A subscriber is sent a message of QoS 2 when its row is on disk,
//!   so that it never comes under a second number; its PUBREC turns what is owed into the PUBREL, and PUBREC, PUBREL and
//!   PUBCOMP each rest on the record of what they answer.
//! - **A queue is \[on disk\]\[committing\]\[filling\]**, in the order of sequence numbers. A window is fed from disk
//!   while its head is there, then from the journal. At a commit the rows change their place, and nothing else.
//! - **No sequence number is used for two messages, and a Packet Identifier follows from it.** So a message that is
//!   sent again, also after a crash, has the identifier that it had [MQTT-4.4.0-1], and nothing is written at delivery.
//!   A session's record holds `seq_reserved`, raised in blocks of [`SEQ_RESERVE`](limits::SEQ_RESERVE); a number above
//!   the committed reserve is never sent, and recovery continues there. Numbers in flight lie less than 65,535 apart, and
//!   so do all that may be on disk still: an identifier is not used again before the settlement of its last message is
//!   committed.
//! - **A class of messages has a lane**: a queue of its own beside the session's, on disk under a key of its own
//!   (`lanes.rs`). A lane is as every queue, so what holds of one holds of it, and all messages of a topic are in one lane
//!   and keep their order. Its Packet Identifiers are a part of all (`packet_ids.rs`), so they still follow from sequence
//!   numbers, and nothing is written at delivery. A session that is given its first class while it has a queue goes on with
//!   undivided identifiers until all that has one is settled. Lanes take turns (`turns.rs`): in the order of the classes, but
//!   each gets its share of the messages that leave ([`LANE_SHARE`](limits::LANE_SHARE)) while it has something. What a class has reserved on disk is
//!   left out by `admit.rs` for all others.
//! - **An order of one's own is made of lanes that each keep theirs** (`lanes.rs`, `recall.rs`). Where what is live goes before
//!   a backlog, it has a lane of its own while the client keeps up. Where the newest of a backlog go first, nothing is sent
//!   from the backlog, but its last rows are owed by another lane instead, in one batch: so identifiers follow from sequence
//!   numbers there too, and no hole is left in what is counted from a queue's two ends.
//! - **What is settled before it is written is never written** (*elision*). A settlement that meets its row in the
//!   filling batch cancels both; one that meets it in the committing batch frees the PUBACK at once. A batch in which
//!   nothing is left costs no write.
//! - **A commit that fails is tried again.** A batch is plain data, kept until it commits. Tickets stay open meanwhile,
//!   state is never rolled back, and room is decided at admission, so that the database's own ceiling is not met from
//!   inside.
//! - **Parking comes before refusing.** A passing shortage is back-pressure on the one link that met it, its Keep Alive
//!   suspended. A PUBLISH that has been parked for `park_max` is refused, for 0x97 is final [MQTT-4.4.0-2].
//! - **Read pages are dropped rather than held.** A page of a queue that could not be sent whole is read again later: a
//!   session without room in its window holds no page, so [`PAGES`](limits::PAGES) of them are enough for all. The
//!   same holds for a retained message that is not held in memory because it is large.
//! - **After a start, what may have been sent says so.** The first rows of each queue, as many as may have been sent
//!   without that a settlement of theirs was committed, carry DUP; as many as the window stay, whatever is dropped. Of QoS
//!   2 as many as the window stay besides, and do not expire: their receivers hold the Packet Identifiers until the PUBREL.
//! - **A Will is published once.** A stored session's stands on disk, and goes from there in the batch that owes it. For a
//!   start all links have ended: the Wills that it finds are due, or will be after their delay. A session that is to end
//!   while the journal has no room for its Will waits for that.
//! - **A subscription is recorded behind what it brings.** A new subscription *walks* through the retained messages that
//!   match (`broker/walk.rs`), as far as there is room and then further. What a stored session is owed of them is recorded
//!   before its subscription, and the SUBACK rests on that: a crash leaves no subscription without them.
//! - **Start is recovery**, always, and a backlog does not lengthen it: a queue's length comes from its first and last
//!   rows, without counting.
//! - **What a group shares is owed to one member at a time.** A row goes from one queue to another in one batch, so that a
//!   crash finds it in one of them, and is not sent from the old one meanwhile (`broker/handover.rs`).
//! - **Every table, buffer, queue and pool has a capacity**, named in [`limits`] or where it lives, and [`budget`] sums
//!   them before the start.
//!
//! # Words
//!
//! From the standard: Client Identifier, Session, Session Present, Application Message, Topic Name, Topic Filter,
//! Subscription, Packet Identifier, Keep Alive, Session Expiry Interval, Receive Maximum, Reason Code. Our own:
//!
//! - **link**: one connection of a client, from its first byte to its last. Its name has a generation, so that what
//!   waits for it dies with it.
//! - **turn**: one round of the loop.
//! - **stored** session: one that outlives its link (Session Expiry Interval above 0; 3.1.1: Clean Session 0).
//! - **volatile** session: one that ends with its link.
//! - **owe**: a message is owed to a stored session from its admission until it is settled. A volatile session is owed
//!   nothing.
//! - **settle**: to end that: the receiver has acknowledged the message, or it expired, is larger than its receiver
//!   takes, or was given up under a policy.
//! - **batch**: what one transaction makes durable: messages and changes, as plain data ([`record::Batch`]).
//! - **journal**: the two batches, one that fills while the other is committed.
//! - **ticket**: a batch's number, as what waits for its commit holds it ([`record::Ticket`]).
//! - **queue**: all that a stored session is owed, in its order.
//! - **lane**: a queue that a session has beside its own, for a class of messages that the configuration tells apart.
//! - **window**: the part of it that is in flight: sent, and not acknowledged.
//! - **group**: those who share the messages of one filter under one ShareName, its *members*.
//! - **hand over**: to owe other members what a member was owed, because its link or its session has ended.
//! - **inbox**: bytes of a link that are not whole packets, or are parked.
//! - **outbox**: bytes of a link on their way to its socket.
//! - **budget**: the sum of all capacities, which must not be above `limits.memory_max`.
//!
//! # Absent on purpose
//!
//! - An async runtime, and locks, in the broker: there is one loop, and the core has one owner. (rumqttc brings tokio
//!   into the bridges' threads.)
//! - A switch that acknowledges earlier. Speed comes from batches and elision.
//! - A second protocol. Bridges speak MQTT over the private socket, and so will administration.
//! - The word "bridge" in the core. What a bridge needs is a session that the configuration names
//!   ([`ConfiguredSession`](broker::ConfiguredSession)).
//! - A queue in the bridge. It acknowledges to one side after the other has, so both queues are sessions.
//! - Timers and ages by the wall clock. Ages on disk count [seconds of service](time::ServiceSeconds); of the wall
//!   clock only the time switched off is taken, if it was synchronised before and is now.
//! - A clean shutdown that anything rests on. [`Server::shut_down`](server::Server::shut_down) says goodbye and saves
//!   some work.
//! - A switch that leaves a cloud unverified.
//! - `unsafe`, but in the crates that Larder uses.
//!
//! # Where it departs from the standard
//!
//! `docs/conformance.md` names, for each numbered statement of both standards, the file that obeys it and a conversation
//! that shows it. Not followed to the letter:
//!
//! - 3.1.1 [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-4.5.0-1], 5.0 [MQTT-4.5.0-1]: flash and memory end. A stored session loses
//!   its oldest unsent messages above `store.session_disk_max`, or what its `[[queue]]` says, a volatile one what does not
//!   fit into memory while its client reads too slowly; all are counted. A session of 3.1.1 ends when its client was away
//!   for `limits.session_expiry_max`, which 3.1.1 has no word for.
//! - 3.1.1 [MQTT-3.1.2-8], 5.0 [MQTT-3.1.2-8]: a Will that finds no room on disk, and whose session has ended, waits in
//!   memory. There it gives way, the oldest first and counted, to the Wills of clients that connect.
//! - 3.1.1 [MQTT-3.1.2-24], 5.0 [MQTT-3.1.2-22]: Keep Alive stands still while a link is parked. What is not read for want
//!   of room is not the client's silence.
//! - 3.1.1 [MQTT-3.8.4-1] [MQTT-3.10.4-4], 5.0 [MQTT-3.8.4-1] [MQTT-3.10.4-4]: a SUBSCRIBE or UNSUBSCRIBE with more than
//!   [`SUBSCRIBE_FILTERS`](limits::SUBSCRIBE_FILTERS) filters, or whose acknowledgement its client could not take, closes
//!   the link before anything is changed. (The latter must not be sent, 3.1.2-24.)
//! - 3.1.1 [MQTT-4.6.0-5] [MQTT-4.6.0-6], 5.0 [MQTT-4.6.0-5] [MQTT-4.6.0-6]: where a `[[queue]]` asks for `live-first` or
//!   `newest-first`, messages of a topic that waited for their subscriber leave behind newer ones, with RETAIN 0 unless they
//!   still are what it retains.
//! - 5.0 [MQTT-3.3.1-5]: a retained message of QoS 0 for which there is no room is delivered and not retained, nor is the
//!   one before it kept. (3.1.1 allows that; QoS 1 and 2 are refused.)
//! - 5.0 [MQTT-3.3.2-12]: the aliases of all links share a pool. When it is nearly full, clients are told none; if it
//!   becomes full all the same, who sets one more is disconnected (0x97).
//! - 3.1.1 [MQTT-7.0.0-1]: a bridge is a client that begins anew with each connection. What was not acknowledged it sends
//!   again as a new message, without DUP and under another Packet Identifier, because its client library keeps none.
//!
//! What the standard does not number: who sends more than the Receive Maximum is not disconnected (5.0, 3.3.4) but not
//! read until it might have sent. Where a `[[queue]]` asks for `qos0`, what it has queued of QoS 0 may come again after a
//! crash (4.3.1), because nobody acknowledges it.
//!
//! # Not in this version
//!
//! Enhanced authentication, user names and passwords, TLS, WebSocket. A CONNACK says what is not there; README.md says what
//! becomes of whoever asks for it all the same. The codec knows all packets and properties.

pub mod broker;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
pub mod limits;
pub mod net;
pub mod observe;
pub mod record;
pub mod server;
pub mod store;
pub mod time;
