//! The first serial port: what the guest writes goes into a socket, what comes out of that is typed.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use hako_block::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long is waited for a guest that does not read, before it is offered more.
const GUEST_BUSY: Duration = Duration::from_millis(20);

/// Types what comes out of a socket, until it is dropped.
pub(super) struct Typist {
    /// The end of it ends the thread.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Typist {
    /// Hands what comes out of `port` to `type_in`, which says how much of it was taken; none once
    /// there is nobody to take it.
    pub fn start(
        port: UnixStream,
        type_in: impl Fn(&[u8]) -> Option<usize> + Send + 'static,
    ) -> Result<Self> {
        let failed = |error| Error::io("start the console", error);
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        let builder = std::thread::Builder::new().name("typist".to_owned());
        let work = move || drop(pass_on(port, &woken, &type_in));
        let thread = builder.spawn(work).map_err(failed)?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
        })
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns when there is nothing to come any more, or nobody to take it.
fn pass_on(
    mut port: UnixStream,
    woken: &UnixStream,
    type_in: &dyn Fn(&[u8]) -> Option<usize>,
) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        if is_over(woken, Some(&port), None)? {
            return Ok(());
        }
        let n_bytes = match port.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = bytes.get(..n_bytes).unwrap_or_default();
        while !rest.is_empty() {
            let Some(taken) = type_in(rest) else {
                return Ok(());
            };
            rest = rest.get(taken..).unwrap_or_default();
            if !rest.is_empty() && is_over(woken, None, Some(GUEST_BUSY))? {
                return Ok(());
            }
        }
    }
}

/// Waits until there is something to read, or time is up. Says whether this is the end.
fn is_over(
    woken: &UnixStream,
    port: Option<&UnixStream>,
    limit: Option<Duration>,
) -> std::io::Result<bool> {
    let mut fds = vec![PollFd::new(woken, PollFlags::IN)];
    fds.extend(port.map(|port| PollFd::new(port, PollFlags::IN)));
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    while let Err(error) = poll(&mut fds, limit.as_ref()) {
        if error != rustix::io::Errno::INTR {
            return Err(error.into());
        }
    }
    Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_a_guest_does_not_take_at_once_comes_again() {
        let (mut keyboard, port) = UnixStream::pair().unwrap();
        let (send, typed) = channel();
        let typist = Typist::start(port, move |bytes| {
            let taken = bytes.len().min(3);
            send.send(bytes[..taken].to_vec()).ok()?;
            Some(taken)
        });
        keyboard.write_all(b"0123456789").unwrap();
        let mut all = Vec::new();
        while all.len() < 10 {
            all.extend(typed.recv_timeout(Duration::from_secs(30)).unwrap());
        }
        assert_eq!(all, b"0123456789");
        // It ends though the keyboard is still there.
        drop(typist);
    }
}
