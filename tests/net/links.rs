//! Links: what they are told, and when.

use crate::harness::{
    PATIENCE, QUIET, directory, opened, options, readable, receive, tcp, turn, until,
};
use larder::net::{Listen, Moved, Net, NetEvent, Sockets};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn connect(sockets: &Sockets) -> TcpStream {
    let stream = TcpStream::connect(sockets.address(0).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One Unix listener: what a peer has written there has arrived when its write returns.
fn unix(links: usize, directory: &Path) -> (Sockets, PathBuf) {
    let path = directory.join("larder.sock");
    (
        Sockets::bind(&[Listen::Unix(path.clone())], None, options(links)).unwrap(),
        path,
    )
}

#[test]
fn bytes_go_both_ways() {
    let mut sockets = tcp(4);
    let mut peer = connect(&sockets);
    let (link, origin) = opened(&mut sockets);
    assert_eq!((origin.listener, origin.private), (0, false));

    let sent: Vec<u8> = (0..=255).cycle().take(1000).collect();
    peer.write_all(&sent).unwrap();
    let received = receive(&mut sockets, link, sent.len());
    assert_eq!(received, sent);
    assert_eq!(sockets.write(link, &received), Moved::Bytes(received.len()));
    let mut echo = vec![0; sent.len()];
    peer.read_exact(&mut echo).unwrap();
    assert_eq!(echo, sent);
}

#[test]
fn a_link_that_was_read_empty_lets_the_turn_sleep() {
    let mut sockets = tcp(1);
    let mut peer = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    peer.write_all(b"one").unwrap();
    receive(&mut sockets, link, 3);
    assert_eq!(turn(&mut sockets, QUIET), []);
    peer.write_all(b"two").unwrap();
    assert_eq!(receive(&mut sockets, link, 3), b"two");
}

#[test]
fn a_flooding_link_does_not_starve_another() {
    let dir = directory("flood");
    let (mut sockets, path) = unix(2, &dir);
    let flood = UnixStream::connect(&path).unwrap();
    let (flooding, _) = opened(&mut sockets);
    let mut peer = UnixStream::connect(&path).unwrap();
    let (quiet, _) = opened(&mut sockets);
    flood.set_write_timeout(Some(PATIENCE)).unwrap();
    let flooder = std::thread::spawn(move || while (&flood).write_all(&[0; 4096]).is_ok() {});
    readable(&mut sockets, flooding);

    let mut buffer = [0; 64];
    for round in 0..100 {
        while sockets.read(flooding, &mut buffer) == Moved::Blocked {
            readable(&mut sockets, flooding);
        }
        peer.write_all(&[round]).unwrap();
        let events = turn(&mut sockets, PATIENCE);
        assert!(
            events.contains(&NetEvent::Readable(quiet)),
            "the quiet link waits"
        );
        assert_eq!(sockets.read(quiet, &mut buffer), Moved::Bytes(1));
        let told = |event: &&NetEvent| **event == NetEvent::Readable(flooding);
        match events.iter().filter(told).count() {
            0 => readable(&mut sockets, flooding),
            count => assert_eq!(count, 1, "one read a turn"),
        }
    }
    sockets.close(flooding);
    flooder.join().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn links_with_more_to_read_take_turns() {
    let mut sockets = tcp(3);
    let mut peers: Vec<_> = (0..3).map(|_| connect(&sockets)).collect();
    let links: Vec<_> = (0..3).map(|_| opened(&mut sockets).0).collect();
    for (peer, link) in peers.iter_mut().zip(&links) {
        peer.write_all(&[7; 100]).unwrap();
        readable(&mut sockets, *link);
    }
    let mut buffer = [0; 10];
    for link in &links {
        assert_eq!(sockets.read(*link, &mut buffer), Moved::Bytes(10));
    }
    for _ in 1..10 {
        let events = turn(&mut sockets, PATIENCE);
        assert_eq!(
            events,
            links
                .iter()
                .map(|link| NetEvent::Readable(*link))
                .collect::<Vec<_>>()
        );
        for link in &links {
            assert_eq!(sockets.read(*link, &mut buffer), Moved::Bytes(10));
        }
    }
}

#[test]
fn a_parked_link_is_not_told_of_until_it_is_rearmed() {
    let mut sockets = tcp(1);
    let mut peer = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    peer.write_all(b"first").unwrap();
    readable(&mut sockets, link);

    assert_eq!(turn(&mut sockets, QUIET), []);
    peer.write_all(b"second").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        turn(&mut sockets, QUIET),
        [],
        "neither more bytes nor the end wake the turn"
    );

    sockets.rearm(link);
    assert_eq!(turn(&mut sockets, PATIENCE), [NetEvent::Readable(link)]);
    assert_eq!(turn(&mut sockets, QUIET), [], "rearmed once, told once");
    let mut buffer = [0; 64];
    assert_eq!(sockets.read(link, &mut buffer), Moved::Bytes(11));
    assert_eq!(turn(&mut sockets, PATIENCE), [NetEvent::Readable(link)]);
    assert_eq!(sockets.read(link, &mut buffer), Moved::Gone);
    assert_eq!(turn(&mut sockets, QUIET), []);
}

#[test]
fn a_link_left_unread_after_bytes_is_told_of_once_more_only() {
    let mut sockets = tcp(1);
    let mut peer = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    peer.write_all(&[1; 100]).unwrap();
    readable(&mut sockets, link);
    assert_eq!(sockets.read(link, &mut [0; 10]), Moved::Bytes(10));
    assert_eq!(turn(&mut sockets, PATIENCE), [NetEvent::Readable(link)]);
    assert_eq!(turn(&mut sockets, QUIET), []);
    // Reading needs no leave.
    assert_eq!(sockets.read(link, &mut [0; 90]), Moved::Bytes(90));
}

#[test]
fn writable_follows_a_write_that_was_not_taken_whole_and_nothing_else() {
    let mut sockets = tcp(1);
    let mut peer = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    assert_eq!(sockets.write(link, b"fits"), Moved::Bytes(4));
    assert_eq!(turn(&mut sockets, QUIET), []);

    // Fills the system's buffers on both sides: what the peer's takes makes room here for a while.
    let chunk = [9; 8192];
    let mut written = 4;
    loop {
        match sockets.write(link, &chunk) {
            Moved::Bytes(count) => written += count,
            Moved::Blocked if turn(&mut sockets, QUIET).is_empty() => break,
            Moved::Blocked => {}
            Moved::Gone => panic!("the peer is there"),
        }
        assert!(written < 4 << 20, "the send buffer has its limit");
    }
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; written];
        peer.read_exact(&mut bytes).unwrap();
        peer
    });
    until(&mut sockets, |_, event| {
        (event == NetEvent::Writable(link)).then_some(())
    });
    assert_eq!(sockets.write(link, b"x"), Moved::Bytes(1));
    let _peer = reader.join().unwrap();
    assert_eq!(turn(&mut sockets, QUIET), [], "told once");
}

#[test]
fn an_ended_a_half_closed_and_a_reset_link_are_gone() {
    let mut sockets = tcp(3);
    let mut buffer = [0; 16];

    let ended = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    drop(ended);
    readable(&mut sockets, link);
    assert_eq!(sockets.read(link, &mut buffer), Moved::Gone);

    let half = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    (&half).write_all(b"last words").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(receive(&mut sockets, link, 10), b"last words");
    readable(&mut sockets, link);
    assert_eq!(sockets.read(link, &mut buffer), Moved::Gone);

    // To close with bytes unread sends a reset.
    let reset = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    sockets.write(link, b"unread");
    reset.peek(&mut buffer).unwrap();
    drop(reset);
    readable(&mut sockets, link);
    assert_eq!(sockets.read(link, &mut buffer), Moved::Gone);
    assert_eq!(sockets.write(link, b"more"), Moved::Gone);
}

#[test]
fn a_closed_link_is_not_mixed_up_with_the_next_in_its_place() {
    let mut sockets = tcp(1);
    let mut first = connect(&sockets);
    let (old, _) = opened(&mut sockets);
    first.write_all(&[1; 100]).unwrap();
    readable(&mut sockets, old);
    // Due for the next turn, and closed before.
    assert_eq!(sockets.read(old, &mut [0; 10]), Moved::Bytes(10));
    sockets.close(old);
    sockets.close(old);

    let _second = connect(&sockets);
    let (new, _) = opened(&mut sockets);
    assert_eq!((new.index, new.generation), (old.index, old.generation + 1));
    assert_eq!(
        turn(&mut sockets, QUIET),
        [],
        "the new link has sent nothing"
    );
    assert_eq!(sockets.read(old, &mut [0; 10]), Moved::Gone);
    assert_eq!(sockets.write(old, b"x"), Moved::Gone);
    sockets.rearm(old);
    sockets.close(old);
    assert_eq!(turn(&mut sockets, QUIET), []);
    assert_eq!(
        sockets.write(new, b"x"),
        Moved::Bytes(1),
        "closing the old one again left the new one alone"
    );
}

#[test]
fn what_was_written_before_a_close_arrives_although_bytes_were_unread() {
    let mut sockets = tcp(1);
    let mut peer = connect(&sockets);
    let (link, _) = opened(&mut sockets);
    peer.write_all(&[5; 8000]).unwrap();
    readable(&mut sockets, link);
    assert_eq!(sockets.write(link, b"the reason"), Moved::Bytes(10));
    sockets.close(link);
    let mut last = Vec::new();
    peer.read_to_end(&mut last).unwrap();
    assert_eq!(last, b"the reason");
}

#[test]
fn when_all_places_are_taken_a_peer_is_turned_away_at_once() {
    let mut sockets = tcp(2);
    let _peers = [connect(&sockets), connect(&sockets)];
    let (first, _) = opened(&mut sockets);
    opened(&mut sockets);

    let mut third = connect(&sockets);
    until(&mut sockets, |_, event| {
        (event == NetEvent::Refused).then_some(())
    });
    match third.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("expected a closed connection, got {other:?}"),
    }
    sockets.close(first);
    let _fourth = connect(&sockets);
    assert_eq!(opened(&mut sockets).0.index, first.index);
}

#[test]
fn a_crowd_is_taken_in_over_several_turns_without_a_sleep() {
    let dir = directory("crowd");
    let (mut sockets, path) = unix(100, &dir);
    let _crowd: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let opened = |event: &NetEvent| matches!(event, NetEvent::Opened(..));
    let mut taken_in = || {
        turn(&mut sockets, PATIENCE)
            .iter()
            .filter(|event| opened(event))
            .count()
    };
    let start = Instant::now();
    assert_eq!((taken_in(), taken_in()), (64, 36));
    assert!(start.elapsed() < PATIENCE / 2);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_waker_ends_the_sleep_from_another_thread_and_the_next_one_beforehand() {
    let mut sockets = tcp(1);
    let wake = sockets.waker();
    let other = wake.clone();
    let start = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        other();
    });
    assert_eq!(turn(&mut sockets, PATIENCE), []);
    thread.join().unwrap();
    wake();
    assert_eq!(turn(&mut sockets, PATIENCE), []);
    assert!(start.elapsed() < PATIENCE / 2);
}
