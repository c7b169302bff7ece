use super::*;

fn queued(t: &T) -> (u64, u64) {
    let g = t.s.broker().gauges();
    (g.queued_messages, g.queued_bytes)
}
fn first_bytes(v: &[u8]) -> Vec<u8> {
    // first byte of each packet
    let mut r = vec![];
    let mut i = 0;
    while i < v.len() {
        r.push(v[i]);
        let mut n = 0usize;
        let mut sh = 0;
        i += 1;
        loop {
            let b = v[i];
            i += 1;
            n |= ((b & 127) as usize) << sh;
            sh += 7;
            if b & 128 == 0 {
                break;
            }
        }
        i += n;
    }
    r
}
fn publishes(v: &[u8]) -> Vec<(u8, Vec<u8>)> {
    // v3.1.1: (first, body)
    let mut r = vec![];
    let mut i = 0;
    while i < v.len() {
        let f = v[i];
        let mut n = 0usize;
        let mut sh = 0;
        i += 1;
        loop {
            let b = v[i];
            i += 1;
            n |= ((b & 127) as usize) << sh;
            sh += 7;
            if b & 128 == 0 {
                break;
            }
        }
        if f >> 4 == 3 {
            r.push((f, v[i..i + n].to_vec()))
        }
        i += n;
    }
    r
}

#[test]
fn a_queue_that_dropped_its_oldest_keeps_the_rest_over_a_restart() {
    let l = Limits {
        session_disk_max: 100_000,
        window: 4,
        receive_maximum: 64,
        ..Limits::default()
    };
    let mut t = T::new(l.clone());
    let c = t.connect(&connect4("sub", false, 0));
    t.send(c, &sub(false, 1, &["t".into()], 1));
    t.turns(4);
    let p = t.connect(&connect4("pub", true, 0));
    // connected, and never acknowledges: 4 stand in flight, as a bridge whose cloud is away
    for i in 0..500u16 {
        t.send(p, &publish(false, "t", 1, i + 1, &[], &[b'x'; 999]));
        t.turns(6);
    }
    let acks = first_bytes(&t.out(p)).len();
    eprintln!(
        "acks {acks}; queued before crash: {:?}; dropped {:?}",
        queued(&t),
        t.s.broker().counters().drops.queue_full
    );
    let mut t = t.crash(l);
    eprintln!("queued after restart: {:?}", queued(&t));
    let p = t.connect(&connect4("pub", true, 0));
    for i in 0..3u16 {
        t.send(p, &publish(false, "t", 1, i + 1, &[], &[b'y'; 999]));
        t.turns(6);
    }
    eprintln!(
        "after 3 publishes: {:?}; dropped {:?}",
        queued(&t),
        t.s.broker().counters().drops.queue_full
    );
    let c = t.connect(&connect4("sub", false, 0));
    let mut got = 0;
    for _ in 0..400 {
        let o = t.out(c);
        for (_, b) in publishes(&o) {
            got += 1;
            t.send(c, &puback(u16::from_be_bytes([b[3], b[4]])));
        }
        t.turns(3);
    }
    eprintln!("delivered in all: {got}");
    assert!(got > 80, "only {got} left of about 94 + 3");
}

#[test]
fn a_few_header_bytes_do_not_take_the_whole_pool() {
    let l = Limits::default();
    let mut t = T::new(l);
    let good = t.connect(&connect4("good", true, 0));
    t.send(good, &sub(false, 1, &["t".into()], 0));
    t.turns(3);
    t.out(good);
    for _ in 0..16 {
        let a = t.open();
        t.send(a, &[0x10, 0xf0, 0xff, 0x0f]);
        t.turns(2);
    } // CONNECT of 262,128 bytes
    eprintln!("lent {}", t.s.broker().gauges().buffers_lent);
    let p = t.connect(&connect4("pub", true, 0));
    eprintln!("CONNACK for a newcomer: {:?}", t.out(p));
    t.send(good, &[0xc0, 0]);
    t.turns(3);
    eprintln!("PINGRESP for a connected one: {:?}", t.out(good));
    t.send(good, &publish(false, "t", 0, 0, &[], b"x")[..3]);
    t.turns(3);
    eprintln!(
        "half a packet of an innocent: closed = {}, shed = {}",
        t.closed(good),
        t.s.broker().counters().links_shed
    );
    assert!(!t.closed(good));
}

#[test]
fn what_was_refused_memory_is_woken_when_there_is_some() {
    let l = Limits::default();
    let mut t = T::new(l);
    let good = t.connect(&connect4("good", true, 0));
    t.send(good, &sub(false, 1, &["t".into()], 0));
    t.turns(3);
    t.out(good);
    let p = t.connect(&connect4("pub", true, 0));
    t.out(p);
    let mut bad = vec![];
    for _ in 0..16 {
        let a = t.open();
        t.send(a, &[0x10, 0xf0, 0xff, 0x0f]);
        t.turns(2);
        bad.push(a);
    }
    t.send(p, &publish(false, "t", 0, 0, &[], b"x"));
    t.send(p, &publish(false, "nobody", 1, 1, &[], b"x"));
    t.send(good, &[0xc0, 0]);
    t.turns(3);
    for a in bad {
        t.lose(a);
    }
    eprintln!("lent {}", t.s.broker().gauges().buffers_lent);
    for _ in 0..100 {
        t.pass(1000);
        t.turn();
    }
    let (g, p) = (t.out(good), t.out(p));
    eprintln!("100 s after the pool is free again: subscriber got {g:?}, publisher got {p:?}");
    assert!(!g.is_empty() && !p.is_empty());
}

#[test]
fn a_message_that_the_next_link_cannot_take_does_not_block_the_session() {
    let l = Limits {
        window: 4,
        ..Limits::default()
    };
    let mut t = T::new(l);
    let c = t.connect(&connect5("sub", false, 0, NEVER));
    t.send(c, &sub(true, 1, &["t".into()], 1));
    t.turns(4);
    let p = t.connect(&connect4("pub", true, 0));
    t.send(p, &publish(false, "t", 1, 1, &[], &[b'x'; 500]));
    t.turns(5);
    t.lose(c);
    let mut props = NEVER.to_vec();
    props.extend([0x27, 0, 0, 0, 200]);
    let c = t.connect(&connect5("sub", false, 0, &props));
    t.out(c);
    let mut got = 0;
    for i in 0..20u16 {
        t.send(p, &publish(false, "t", 1, 10 + i, &[], b"small"));
        t.turns(6);
        for (_, b) in publishes(&t.out(c)) {
            got += 1;
            t.send(c, &puback(u16::from_be_bytes([b[3], b[4]])));
        }
        t.turns(4);
    }
    eprintln!(
        "of 20 small messages {got} were delivered; queued {:?}; counters too_large {}",
        queued(&t),
        t.s.broker().counters().drops.too_large
    );
    assert_eq!(got, 20);
}

#[test]
fn nothing_follows_a_disconnect() {
    let mut t = T::new(Limits::default());
    let c = t.connect(&connect5("c", true, 0, &[]));
    t.out(c);
    let mut b = publish(true, "nobody", 1, 1, &[], b"x");
    b.extend([0x62, 2, 0, 1]);
    t.send(c, &b);
    t.turns(3);
    let o = t.out(c);
    eprintln!("{o:02x?}");
    assert_eq!(first_bytes(&o).last(), Some(&0xe0));
}

#[test]
fn a_session_ages_over_boots() {
    let day = 86_400_000u64;
    let l = Limits::default();
    let mut t = T::with(l.clone(), MemoryStore::new(), None, 40 * day);
    let c = t.connect(&connect4("sub", false, 0));
    t.lose(c);
    t.pass(3_601_000);
    t.turns(4); // its departure is noted
    let mut service = t.c.0.service.0;
    let mut lived = 0;
    for boot in 0..60 {
        // the board boots every day; service time goes on
        let (_, store) = t.s.into_parts();
        let (store, rec) = MemoryStore::recover(store.crash());
        if rec.sessions.is_empty() {
            break;
        }
        lived = boot;
        let mut n = now(20_000);
        n.service.0 = service;
        let mut b = Broker::new(l.clone(), 7, n);
        b.recover(&rec, n);
        t = T {
            s: Server::new(Fake::default(), store, b, n),
            c: Clk(n),
            auto: true,
        };
        t.turns(3);
        t.c.0.mono.0 += day;
        t.c.0.service.0 += 86_400;
        t.turns(4);
        service = t.c.0.service.0;
    }
    eprintln!("with session_expiry_max of 30 days it lived {lived} days");
    assert!(lived <= 31);
}

#[test]
fn a_subscribe_of_many_filters_is_answered_however_few_sessions_there_are() {
    let l = Limits {
        sessions: 100,
        links: 50,
        ..Limits::default()
    };
    let mut t = T::new(l);
    let c = t.connect(&connect4("c", true, 10));
    t.out(c);
    let f: Vec<String> = (0..900).map(|i| format!("t/{i}")).collect();
    t.send(c, &sub(false, 1, &f, 0));
    t.turns(5);
    for _ in 0..60 {
        t.pass(1000);
        t.turn();
        t.send(c, &[0xc0, 0]);
    }
    let o = t.out(c);
    eprintln!(
        "after a minute: closed {}, got {} bytes",
        t.closed(c),
        o.len()
    );
    assert!(!o.is_empty());
}

#[test]
fn the_expiry_given_with_disconnect_is_stored() {
    let l = Limits::default();
    let mut t = T::new(l.clone());
    let c = t.connect(&connect5("sub", false, 0, &[0x11, 0, 0, 0, 60]));
    t.send(c, &sub(true, 1, &["t".into()], 1));
    t.turns(4);
    t.send(c, &packet(0xe0, &[0, 5, 0x11, 0, 1, 0x51, 0x80]));
    t.turns(4); // 86,400 s
    let p = t.connect(&connect4("pub", true, 0));
    t.out(p);
    t.send(p, &publish(false, "t", 1, 1, &[], b"x"));
    t.turns(5);
    assert_eq!(first_bytes(&t.out(p)), [0x40]);
    let mut t = t.crash(l);
    t.turns(2);
    t.pass(61_000);
    t.turns(4);
    eprintln!(
        "sessions 61 s after a crash: {}, queued {:?}",
        t.s.broker().gauges().sessions,
        queued(&t)
    );
    assert_eq!(t.s.broker().gauges().sessions, 1);
}

#[test]
fn a_reader_that_stops_is_closed() {
    let mut t = T::new(Limits::default());
    let c = t.connect(&connect4("c", true, 10));
    t.send(c, &sub(false, 1, &["t".into()], 0));
    t.turns(3);
    t.out(c);
    t.s.net().peers.get_mut(&c).unwrap().accepts = 0;
    let p = t.connect(&connect4("pub", true, 0));
    t.send(p, &publish(false, "t", 0, 0, &[], &vec![b'x'; 200_000]));
    t.turns(20);
    for _ in 0..3600 {
        t.pass(1000);
        t.turn();
    }
    eprintln!(
        "an hour with Keep Alive 10 s: closed {}, lent {}",
        t.closed(c),
        t.s.broker().gauges().buffers_lent
    );
    assert!(t.closed(c));
}

#[test]
fn a_backlog_of_expired_messages_does_not_stop_delivery() {
    let l = Limits {
        sessions: 10,
        links: 20,
        ..Limits::default()
    };
    let mut t = T::new(l);
    let c = t.connect(&connect4("sub", false, 0));
    t.send(c, &sub(false, 1, &["t".into()], 1));
    t.turns(4);
    t.lose(c);
    let p = t.connect(&connect5("pub", true, 0, &[]));
    for i in 0..14000u32 {
        t.send(
            p,
            &publish(true, "t", 1, (i % 60000) as u16 + 1, &[2, 0, 0, 0, 1], b"x"),
        );
        if i % 50 == 49 {
            t.turns(4);
        }
    }
    t.turns(10);
    t.send(p, &publish(true, "t", 1, 65000, &[], b"good"));
    t.turns(5);
    eprintln!("queued {:?}", queued(&t));
    t.pass(10_000);
    t.turns(3);
    // the flash is slow: reads are answered, commits are not, for a while
    let c = t.connect(&connect4("sub", false, 0));
    t.out(c);
    t.auto = false;
    for _ in 0..5000 {
        t.turn();
        t.s.store().step_reads();
    }
    t.auto = true;
    for _ in 0..600 {
        t.pass(1000);
        t.turns(5);
    }
    let o = t.out(c);
    eprintln!(
        "ten minutes later: delivered {}, queued {:?}, counted expired {}",
        publishes(&o).len(),
        queued(&t),
        t.s.broker().counters().drops.expired
    );
    assert_eq!(publishes(&o).len(), 1);
}

#[test]
fn messages_in_memory_are_counted_with_what_they_take() {
    let l = Limits {
        transient_pool_bytes: 1 << 20,
        buffer_pool_bytes: 64 << 20,
        ..Limits::default()
    };
    let mut t = T::new(l);
    for i in 0..1000 {
        let c = t.connect(&connect4(&format!("s{i}"), true, 0));
        if i > 998 {
            break;
        }
        t.send(c, &sub(false, 1, &["#".into()], 0));
        t.turn();
        t.s.net().peers.get_mut(&c).unwrap().accepts = 0;
    }
    let rss = || {
        std::fs::read_to_string("/proc/self/statm")
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 4096
    };
    let p = LinkId {
        index: 999,
        generation: 1,
    };
    t.send(p, &publish(false, "a", 0, 0, &[], &vec![b'x'; 32_755]));
    t.turns(4);
    let before = rss();
    for _ in 0..1200 {
        t.send(p, &publish(false, "a", 0, 0, &[], b""));
        t.turn();
    }
    eprintln!(
        "999 readers that stopped, transient pool of 1 MiB: RSS grew by {} KiB; overflow {}",
        (rss() - before) / 1024,
        t.s.broker().counters().drops.overflow
    );
    assert!(rss() - before < 4 << 20);
}

#[test]
fn what_was_sent_before_a_crash_comes_again_with_dup() {
    let l = Limits {
        window: 4,
        ..Limits::default()
    };
    let mut t = T::new(l.clone());
    let c = t.connect(&connect4("sub", false, 0));
    t.send(c, &sub(false, 1, &["t".into()], 1));
    t.turns(4);
    t.lose(c);
    let p = t.connect(&connect4("pub", true, 0));
    for i in 0..20u16 {
        t.send(p, &publish(false, "t", 1, i + 1, &[], b"x"));
        t.turns(3);
    }
    let c = t.connect(&connect4("sub", false, 0));
    let mut got = 0;
    for _ in 0..30 {
        let o = t.out(c);
        for (_, b) in publishes(&o) {
            got += 1;
            if got < 18 {
                t.send(c, &puback(u16::from_be_bytes([b[3], b[4]])));
            }
        }
        t.turns(2);
    }
    eprintln!("delivered before the crash: {got}");
    let mut t = t.crash(l);
    let c = t.connect(&connect4("sub", false, 0));
    let mut dups = vec![];
    for _ in 0..40 {
        let o = t.out(c);
        for (f, b) in publishes(&o) {
            dups.push(f & 8 != 0);
            t.send(c, &puback(u16::from_be_bytes([b[3], b[4]])));
        }
        t.turns(3);
    }
    eprintln!("DUP after the crash: {dups:?}");
    assert!(dups.iter().all(|d| *d));
}

#[test]
fn buffers_kept_for_use_again_are_part_of_the_pool() {
    let mut t = T::new(Limits {
        buffer_pool_bytes: 4 << 20,
        links: 2000,
        ..Limits::default()
    });
    let rss = || {
        std::fs::read_to_string("/proc/self/statm")
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 4096
    };
    let before = rss();
    for size in [60_000u32, 30_000, 15_000, 7_000, 3_000] {
        let mut ls = vec![];
        for _ in 0..32 {
            let a = t.open();
            let body = vec![0u8; size as usize];
            let mut b = packet(0x10, &body);
            b.truncate(b.len() - 10);
            b.splice(if size > 16383 { 4..4 } else { 3..3 }, []);
            t.send(a, &b);
            ls.push(a);
            t.turns(6);
        }
        for a in ls {
            t.lose(a);
        }
    }
    eprintln!(
        "lent {}, RSS grew {} KiB",
        t.s.broker().gauges().buffers_lent,
        (rss() - before) / 1024
    );
}

#[test]
fn a_keep_alive_of_3_1_1_is_not_shortened_in_silence() {
    let mut t = T::new(Limits {
        keep_alive_max: Some(60),
        ..Limits::default()
    });
    let c = t.connect(&connect4("c", true, 300));
    for _ in 0..200 {
        t.pass(1000);
        t.turn();
    }
    eprintln!(
        "3.1.1, Keep Alive 300 s, keep_alive_max 60 s: closed after 200 s = {}",
        t.closed(c)
    );
    assert!(!t.closed(c));
}

#[test]
fn live_traffic_stays_off_the_disk_after_an_acknowledgement_out_of_order() {
    let l = Limits {
        ..Limits::default()
    };
    let mut t = T::new(l);
    let c = t.connect(&connect4("sub", false, 0));
    t.send(c, &sub(false, 1, &["t".into()], 1));
    t.turns(4);
    t.out(c);
    let p = t.connect(&connect4("pub", true, 0));
    let ack = |t: &mut T, skip: Option<u16>| {
        let o = t.out(c);
        let mut n = 0;
        for (_, b) in publishes(&o) {
            n += 1;
            let pid = u16::from_be_bytes([b[3], b[4]]);
            if Some(pid) != skip {
                t.send(c, &puback(pid));
            }
        }
        t.turns(2);
        n
    };
    t.auto = false;
    t.send(p, &publish(false, "t", 1, 1, &[], b"1"));
    t.turns(2);
    ack(&mut t, Some(1));
    t.auto = true;
    t.auto = false;
    t.pass(25);
    t.turns(1); // batch with row 1 is committing
    t.send(p, &publish(false, "t", 1, 2, &[], b"2"));
    t.turns(2);
    ack(&mut t, Some(1)); // row 2 cancelled in the filling batch
    let _ = t.out(c);
    t.lose(c);
    let c = t.connect(&connect4("sub", false, 0));
    t.s.store().step();
    t.turns(3);
    t.auto = true;
    t.turns(5);
    let o = t.out(c);
    for (_, b) in publishes(&o) {
        let pid = u16::from_be_bytes([b[3], b[4]]);
        t.send(c, &puback(pid));
    }
    t.turns(3);
    t.pass(2000);
    t.turns(6);
    let before = t.s.broker().gauges().disk_written;
    let mut got = 0;
    for i in 0..50u16 {
        t.send(p, &publish(false, "t", 1, 10 + i, &[], b"0123456789"));
        for _ in 0..6 {
            t.turn();
            let o = t.out(c);
            for (_, b) in publishes(&o) {
                got += 1;
                t.send(c, &puback(u16::from_be_bytes([b[3], b[4]])));
            }
        }
        t.pass(100);
    }
    t.pass(2000);
    t.turns(5);
    eprintln!(
        "live: got {got}; written {} bytes for 50 messages that were acknowledged at once",
        t.s.broker().gauges().disk_written - before
    );
    assert_eq!(t.s.broker().gauges().disk_written - before, 0);
}

#[test]
fn nothing_leaves_before_the_connack() {
    let mut t = T::new(Limits::default());
    let c = t.open();
    let mut bad = vec![];
    for _ in 0..16 {
        let a = t.open();
        t.send(a, &[0x10, 0xf0, 0xff, 0x0f]);
        t.turns(2);
        bad.push(a);
    }
    t.send(c, &connect4("c", true, 0));
    t.turns(3);
    t.lose(bad.pop().unwrap());
    t.send(c, &[0xc0, 0]);
    t.turns(3);
    let o = t.out(c);
    eprintln!("first bytes sent to the client: {o:02x?}");
    assert_eq!(o.first(), Some(&0x20));
}

#[test]
fn room_on_the_disk_is_noticed() {
    // cannot be shown with the store in memory
}

#[test]
fn an_absent_session_rests_on_its_recorded_end() {
    let l = Limits::default();
    let mut t = T::new(l.clone());
    let c = t.connect(&connect5("x", false, 0, NEVER));
    t.send(c, &sub(true, 1, &["t".into()], 1));
    t.turns(4);
    t.auto = false;
    t.turns(3);
    t.s.store().step();
    t.turns(3);
    t.send(c, &packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 0]));
    t.turns(2);
    let c = t.connect(&connect5("x", false, 0, &[]));
    let o = t.out(c);
    eprintln!(
        "CONNACK before the commit of the end: {:02x?}",
        &o[..o.len().min(4)]
    );
    let mut t = t.crash(l);
    let c = t.connect(&connect5("x", false, 0, NEVER));
    let o2 = t.out(c);
    eprintln!("after the crash: {:02x?}", &o2[..4]);
    assert!(o.is_empty() || o2[2] == 0);
}

#[test]
fn a_subscribe_of_too_many_filters_closes_its_link() {
    let mut t = T::new(Limits::default());
    let c = t.connect(&connect4("x", false, 0));
    t.out(c);
    let many: Vec<String> = (0..65_000).map(|_| "a".into()).collect();
    t.send(c, &sub(false, 2, &many, 1));
    t.turns(40);
    assert!(t.closed(c));
    assert!(t.out(c).is_empty());
}
