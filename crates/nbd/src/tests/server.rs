//! Several clients, limits, and the end.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hako_block::{BlockImage, Cancel, ErrorKind, Result};

use super::client::{Client, disk, no_watch, quick};
use super::disk::Disk;
use crate::protocol::command;
use crate::server::Limits;
use crate::{Export, Listener, Server};

/// Runs a server on a Unix socket while `act` runs, and then ends it.
fn run(
    disk: &Arc<Disk>,
    limits: Limits,
    path: &Path,
    act: impl FnOnce(&Cancel) + Send,
) -> Result<()> {
    let image: Arc<dyn BlockImage> = Arc::clone(disk) as _;
    let server = Server::new(Export::new(image, "", true)?, limits, &no_watch)?;
    let listener = Listener::unix(path)?;
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let server = scope.spawn(|| server.run(listener, &cancel));
        act(&cancel);
        cancel.cancel();
        server.join().unwrap()
    })
}

fn connect(path: &Path) -> Client {
    Client::new(UnixStream::connect(path).unwrap())
}

#[test]
fn clients_see_what_others_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    run(&disk(true), quick(), &path, |_| {
        let mut clients: Vec<_> = (0..5).map(|_| connect(&path)).collect();
        clients.iter_mut().for_each(|client| client.enter(true));
        for (number, client) in (0u8..).zip(&mut clients) {
            assert_eq!(client.write(0, u64::from(number) * 100, &[number; 100]), 0);
        }
        for client in &mut clients {
            let (bytes, ..) = client.read(0, 0, 500);
            assert!(
                bytes
                    .chunks(100)
                    .zip(0u8..)
                    .all(|(part, number)| part == [number; 100])
            );
        }
    })
    .unwrap();
    assert!(!path.exists(), "the socket's file is removed");
}

#[test]
fn one_client_too_many_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let limits = Limits {
        max_clients: 2,
        ..quick()
    };
    run(&disk(true), limits, &path, |_| {
        let mut clients = [connect(&path), connect(&path)];
        clients.iter_mut().for_each(|client| client.enter(false));
        assert!(connect(&path).is_cut_off());
        let [first, mut second] = clients;
        drop(first);
        thread::sleep(Duration::from_millis(100));
        connect(&path).enter(false);
        assert_eq!(second.errno(command::FLUSH, 0, 0, 0), 0);
    })
    .unwrap();
}

#[test]
fn once_ends_when_the_last_client_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let limits = Limits {
        once: true,
        ..quick()
    };
    run(&disk(true), limits, &path, |_| {
        drop(connect(&path));
        thread::sleep(Duration::from_millis(300));
        let (mut first, mut second) = (connect(&path), connect(&path));
        first.enter(true);
        second.enter(true);
        drop(first);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(second.errno(command::FLUSH, 0, 0, 0), 0);
        drop(second);
        let start = Instant::now();
        while path.exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    })
    .unwrap();
}

#[test]
fn ending_flushes_and_tells_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let disk = disk(true);
    run(&disk, quick(), &path, |cancel| {
        let (mut idle, mut haggling, mut busy) = (connect(&path), connect(&path), connect(&path));
        idle.enter(true);
        busy.enter(true);
        haggling.greet(3);
        assert_eq!(busy.write(0, 0, b"x"), 0);
        let sent = busy.request(command::WRITE, 0, 0, 2);
        thread::sleep(Duration::from_millis(50));
        cancel.cancel();
        assert!(idle.is_cut_off() && haggling.is_cut_off());
        busy.send(b"yz");
        assert_eq!(busy.errno_of(sent), 0, "what was begun is finished");
        assert!(busy.is_cut_off());
    })
    .unwrap();
    assert_eq!(disk.bytes.to_vec()[..2], *b"yz");
    assert!(disk.n_flushes.load(std::sync::atomic::Ordering::SeqCst) > 0);
}

#[test]
fn clients_that_do_not_leave_are_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let start = Instant::now();
    let limits = Limits {
        stall: Duration::from_secs(60),
        ..quick()
    };
    run(&disk(true), limits, &path, |cancel| {
        let mut client = connect(&path);
        client.enter(true);
        client.request(command::WRITE, 0, 0, 1000);
        thread::sleep(Duration::from_millis(50));
        cancel.cancel();
        assert!(client.is_cut_off());
    })
    .unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn sockets_of_dead_servers_are_replaced_and_of_living_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let living = Listener::unix(&path).unwrap();
    let error = Listener::unix(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    drop(living);
    assert!(!path.exists());
    std::fs::write(&path, b"precious").unwrap();
    let error = Listener::unix(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_socket_that_was_replaced_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = Listener::unix(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"another").unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_port_in_use_is_refused() {
    let first = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Listener::tcp(first.address().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
}
