//! The transmission phase with one client: a reader, and workers that share its requests.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::export::Export;
use crate::handshake::Session;
use crate::incoming::Incoming;
use crate::outbox::Outbox;
use crate::protocol::{MAX_PAYLOAD, Request, SHUTTING_DOWN, command};
use crate::reply::Replies;
use crate::server::{Event, Parting};
use crate::stop::Stop;
use crate::work::{Job, PIECE_BYTES, Piece, Work, Write, refusal};

/// Requests of one client that are worked on at the same time.
const N_WORKERS: usize = 4;

/// Requests that may wait for a worker; a client that sends more is not read from meanwhile.
const N_WAITING: usize = 16;

/// Buffers for what a client writes.
const N_BUFFERS: usize = 4;

/// One client after the handshake.
pub struct Connection<'a> {
    /// What is served.
    pub export: &'a Export,
    /// What was agreed on.
    pub session: Session,
    /// The way to the client.
    pub outbox: &'a Outbox<'a>,
    /// Set once the server ends.
    pub stop: &'a Stop,
    /// Told of what the image fails at.
    pub watch: &'a (dyn Fn(&Event) + Sync),
}

impl Connection<'_> {
    /// Serves the client until it is gone. Everything that was asked for is done then, and what
    /// it wrote is on stable storage if the image is able to.
    pub fn serve(&self, incoming: &mut Incoming<'_>) -> Parting {
        let work = Work {
            export: self.export,
            replies: Replies::new(self.outbox, self.session),
            stop: self.stop,
            is_dirty: AtomicBool::new(false),
            watch: self.watch,
        };
        let (jobs, next_job) = sync_channel(N_WAITING);
        let (pool, buffers) = sync_channel(N_BUFFERS);
        for _ in 0..N_BUFFERS {
            // There is room: the pool is as large.
            let _ = pool.send(Vec::new());
        }
        let next_job = Mutex::new(next_job);
        let parting = thread::scope(|scope| {
            for _ in 0..N_WORKERS {
                let (work, next_job, pool) = (&work, &next_job, pool.clone());
                let started = thread::Builder::new()
                    .name("hako-nbd-worker".to_owned())
                    .spawn_scoped(scope, move || run_worker(work, next_job, &pool));
                if let Err(error) = started {
                    drop(jobs);
                    return Parting::Broken(error);
                }
            }
            drop(pool);
            let reader = Reader {
                work: &work,
                jobs,
                buffers,
            };
            match reader.read_requests(incoming) {
                Ok(parting) | Err(parting) => parting,
            }
        });
        if work.is_dirty.load(Ordering::SeqCst)
            && let Err(error) = work.flush()
        {
            (self.watch)(&Event::Failed {
                doing: "flush",
                offset: 0,
                len: 0,
                error: &error,
            });
        }
        parting
    }
}

/// Does jobs until there are no more to come.
fn run_worker(work: &Work<'_>, next_job: &Mutex<Receiver<Job>>, pool: &SyncSender<Vec<u8>>) {
    let mut buffer = Vec::new();
    loop {
        let job = next_job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        match job {
            Ok(job) => work.run(job, &mut buffer, pool),
            Err(_) => return,
        }
    }
}

/// Reads requests and hands them to the workers.
struct Reader<'a> {
    work: &'a Work<'a>,
    jobs: SyncSender<Job>,
    buffers: Receiver<Vec<u8>>,
}

impl Reader<'_> {
    fn read_requests(&self, incoming: &mut Incoming<'_>) -> Result<Parting, Parting> {
        while incoming.next_request()? {
            let Some(request) = Request::decode(&incoming.array()?) else {
                return Ok(Parting::Violation("a request without its magic number"));
            };
            if request.kind == command::DISC {
                return Ok(Parting::Left);
            }
            self.take(&request, incoming)?;
        }
        Ok(Parting::Stopped)
    }

    fn take(&self, request: &Request, incoming: &mut Incoming<'_>) -> Result<(), Parting> {
        let work = self.work;
        let refused = match work.stop.is_set() {
            true => Some(SHUTTING_DOWN),
            false => refusal(request, work.export, work.replies.session().block_status),
        };
        let has_payload = request.kind == command::WRITE;
        if let Some(failure) = refused {
            let too_long = has_payload && request.len > MAX_PAYLOAD;
            if has_payload && !too_long {
                incoming.skip(request.len)?;
            }
            work.replies.failed(request, failure);
            return match too_long {
                true => Err(Parting::Violation("a write that is too long")),
                false => Ok(()),
            };
        }
        if !has_payload || request.len == 0 {
            return self.hand_on(Job::Request(*request));
        }
        let n_pieces = (request.len as usize).div_ceil(PIECE_BYTES);
        let write = Arc::new(Write::new(*request, n_pieces));
        let mut offset = request.offset;
        while offset < request.end() {
            let len = (request.end() - offset).min(PIECE_BYTES as u64) as usize;
            let mut buffer = self.buffers.recv().map_err(|_| no_workers())?;
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            incoming.read(&mut buffer[..len])?;
            self.hand_on(Job::Piece(Piece {
                write: Arc::clone(&write),
                offset,
                buffer,
                len,
            }))?;
            offset += len as u64;
        }
        Ok(())
    }

    fn hand_on(&self, job: Job) -> Result<(), Parting> {
        self.jobs.send(job).map_err(|_| no_workers())
    }
}

fn no_workers() -> Parting {
    Parting::Broken(io::Error::other("the workers ended"))
}
