//! Listeners: addresses, files, modes, and who may come.

use crate::child;
use crate::harness::{PATIENCE, directory, loopback, opened, options, receive, until};
use larder::net::{Listen, Moved, Net, NetEvent, Sockets};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o777
}

fn error(listen: Listen) -> String {
    match Sockets::bind(&[listen], None, options(1)) {
        Ok(_) => panic!("this address must not be had"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn listeners_are_numbered_in_their_order_and_the_private_one_last() {
    let dir = directory("numbered");
    let (public, private) = (dir.join("public.sock"), dir.join("made/private.sock"));
    let listeners = [loopback(), Listen::Unix(public.clone())];
    let mut sockets = Sockets::bind(&listeners, Some(private.clone()), options(4)).unwrap();
    assert_eq!(
        (
            mode(&public),
            mode(&private),
            mode(private.parent().unwrap())
        ),
        (0o660, 0o600, 0o700)
    );

    let mut peer = UnixStream::connect(&public).unwrap();
    let (link, origin) = opened(&mut sockets);
    assert_eq!((origin.listener, origin.private), (1, false));
    peer.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut sockets, link, 5), b"hello");
    assert_eq!(sockets.write(link, b"reply"), Moved::Bytes(5));
    let mut reply = [0; 5];
    peer.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"reply");

    let _own = UnixStream::connect(&private).unwrap();
    let (_, origin) = opened(&mut sockets);
    assert_eq!((origin.listener, origin.private), (2, true));
    assert_eq!(
        (sockets.address(1), sockets.address(2), sockets.address(3)),
        (None, None, None)
    );
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn both_families_of_tcp_serve() {
    let listeners = [loopback(), Listen::Tcp("[::1]:0".parse().unwrap())];
    let mut sockets = Sockets::bind(&listeners, None, options(2)).unwrap();
    for number in 0..2 {
        let _peer = std::net::TcpStream::connect(sockets.address(number).unwrap()).unwrap();
        assert_eq!(opened(&mut sockets).1.listener, number);
    }
}

#[test]
fn a_stale_socket_file_is_replaced() {
    let dir = directory("stale");
    let path = dir.join("larder.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut sockets = Sockets::bind(&[Listen::Unix(path.clone())], None, options(1)).unwrap();
    let _peer = UnixStream::connect(&path).unwrap();
    opened(&mut sockets);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_socket_file_that_is_answered_and_a_file_that_is_no_socket_are_left_alone() {
    let dir = directory("occupied");
    let path = dir.join("answered.sock");
    let _other = UnixListener::bind(&path).unwrap();
    let said = error(Listen::Unix(path.clone()));
    assert!(
        said.contains("answered.sock") && said.contains("another process answers"),
        "{said}"
    );
    UnixStream::connect(&path).unwrap();

    let path = dir.join("notes.txt");
    std::fs::write(&path, "keep me").unwrap();
    let said = error(Listen::Unix(path.clone()));
    assert!(
        said.contains("notes.txt") && said.contains("left alone"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep me");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_error_says_where_why_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = error(Listen::Tcp(address));
    assert!(
        said.contains(&address.to_string()) && said.contains("in use") && said.contains("ss -ltnp"),
        "{said}"
    );

    let said = error(Listen::Tcp("192.0.2.1:1883".parse().unwrap()));
    assert!(said.contains("no interface has this address"), "{said}");
    let said = error(Listen::Unix("/nonexistent/larder.sock".into()));
    assert!(said.contains("directory does not exist"), "{said}");
    let said = error(Listen::Unix(format!("/run/{}", "x".repeat(120)).into()));
    assert!(said.contains("107 bytes"), "{said}");
}

/// Needs root, to become another user.
#[test]
fn another_user_is_turned_away_from_the_private_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can become another user");
        return;
    }
    let dir = directory("foreign");
    let path = dir.join("private.sock");
    let mut sockets = Sockets::bind(&[], Some(path.clone()), options(1)).unwrap();
    // The mode alone would keep them out; the check behind it is what is tested.
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let mut command = child::command("listeners::child_that_connects");
    // A user that may not enter the directory of the test program can still run a copy.
    let program = dir.join("program");
    std::fs::copy(command.get_program(), &program).unwrap();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = std::process::Command::new(&program);
    command
        .args(arguments)
        .env(child::MARK, &path)
        .uid(65_534)
        .gid(65_534)
        .current_dir("/");
    let child = child::spawn(command);
    let event = until(&mut sockets, |_, event| Some(event));
    assert_eq!(event, NetEvent::Refused);
    child.finish();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn child_that_connects() {
    let Some(path) = child::argument() else {
        return;
    };
    let mut peer = UnixStream::connect(path).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    child::done();
}
