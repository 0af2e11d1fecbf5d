//! The runner's side of `control.sock`: a thread that lets clients in, and one for each of them.
//! What is asked is done by the runner's main loop, one thing after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::time::Duration;

use hako_block::{Error, ErrorKind, Result};
use serde_json::Value;

use super::protocol::{MAX_REQUEST_BYTES, Request, answer};
use super::runner::Message;

/// Clients at the same time.
const MAX_CLIENTS: usize = 64;

/// How long a client may take for a line of ours.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Something that a client asks for.
pub(super) struct Ask {
    pub(super) request: Request,
    /// What it is told.
    pub(super) reply: SyncSender<Result<Value>>,
    /// Its connection, if that is for events or the console from then on.
    pub(super) stream: Option<UnixStream>,
}

/// Lets clients in from now on, until the process ends.
pub(super) fn serve(listener: UnixListener, messages: Sender<Message>) -> Result<()> {
    let failed = |error| Error::io("start the control thread", error);
    let n_clients = Arc::new(AtomicUsize::new(0));
    let serve_all = move || {
        for stream in listener.incoming().flatten() {
            let place = Place::take(&n_clients);
            let messages = messages.clone();
            let builder = std::thread::Builder::new().name("client".to_owned());
            // One that finds no place is hung up on.
            if let Some(place) = place {
                let _ = builder.spawn(move || {
                    let _place = place;
                    attend(stream, &messages)
                });
            }
        }
    };
    let builder = std::thread::Builder::new().name("control".to_owned());
    builder.spawn(serve_all).map(drop).map_err(failed)
}

/// One of the clients.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(n_clients: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(n_clients));
        (n_clients.fetch_add(1, Ordering::Relaxed) < MAX_CLIENTS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers a client until it has enough.
fn attend(stream: UnixStream, messages: &Sender<Message>) -> Option<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut out = &stream;
    loop {
        let mut line = Vec::new();
        let mut bounded = reader.by_ref().take(MAX_REQUEST_BYTES);
        let n_read = bounded.read_until(b'\n', &mut line).ok()?;
        if n_read == 0 {
            return None;
        }
        if line.last() != Some(&b'\n') {
            let error = Error::invalid("a line of the protocol is cut off or too long");
            return out.write_all(answer(Err(&error)).as_bytes()).ok();
        }
        let result = match Request::parse(&line) {
            Ok(request @ (Request::Watch | Request::Console { .. })) => {
                let stream = stream.try_clone().ok()?;
                match pass_on(request, Some(stream), messages) {
                    // The answer has gone out before what follows it.
                    Ok(_) => return None,
                    refused => refused,
                }
            }
            Ok(request) => pass_on(request, None, messages),
            Err(error) => Err(error),
        };
        out.write_all(answer(result.as_ref().map(Value::clone)).as_bytes())
            .ok()?;
    }
}

fn pass_on(
    request: Request,
    stream: Option<UnixStream>,
    messages: &Sender<Message>,
) -> Result<Value> {
    let (reply, answered) = sync_channel(1);
    let gone = || Error::new(ErrorKind::NotFound, "the machine is off");
    let ask = Ask {
        request,
        reply,
        stream,
    };
    messages.send(Message::Ask(ask)).map_err(|_| gone())?;
    answered.recv().unwrap_or_else(|_| Err(gone()))
}
