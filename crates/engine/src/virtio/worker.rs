//! Threads that serve queues. They can be paused, when nothing of them touches the guest any more, go
//! on, and be stopped.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hako_block::{Error, Result};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::pci::msix::event;
use crate::virtio::interrupt::DeviceInterrupts;
use crate::virtio::queue::{Broken, Left};

/// What a thread does.
pub trait Serve: Send {
    /// Serves what there is to be served, for one turn, without waiting for more.
    fn serve(&mut self) -> std::result::Result<Left, Broken>;

    /// Returns the events that a driver writes to. The thread wakes up for them; their count is of no
    /// meaning.
    fn kicks(&self) -> Vec<&EventFd>;

    /// Returns a socket or the like that the thread wakes up for when there is more to read than
    /// before.
    fn source(&self) -> Option<RawFd> {
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    Stop,
}

struct Progress {
    wish: Wish,
    /// The thread touches nothing.
    parked: bool,
}

struct Control {
    progress: Mutex<Progress>,
    changed: Condvar,
    wake: EventFd,
}

impl Control {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, progress: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
        self.changed
            .wait(progress)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish) {
        self.progress().wish = wish;
        self.changed.notify_all();
        // Its count is far from full.
        let _ = self.wake.write(1);
    }

    /// Waits while a pause is wished for. Says whether to go on.
    fn goes_on(&self) -> bool {
        let mut progress = self.progress();
        while progress.wish == Wish::Pause {
            progress.parked = true;
            self.changed.notify_all();
            progress = self.wait(progress);
        }
        progress.parked = false;
        progress.wish == Wish::Run
    }

    fn ended(&self) {
        self.progress().parked = true;
        self.changed.notify_all();
    }
}

struct Worker {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// The threads of a device.
#[derive(Default)]
pub struct Workers(Vec<Worker>);

impl Workers {
    /// Starts a thread called `name` (at most 15 bytes are shown). A queue that breaks ends it, and
    /// the device gives up.
    pub fn start(
        &mut self,
        name: &str,
        mut work: Box<dyn Serve>,
        interrupts: Arc<DeviceInterrupts>,
    ) -> Result<()> {
        let control = Arc::new(Control {
            progress: Mutex::new(Progress {
                wish: Wish::Run,
                parked: false,
            }),
            changed: Condvar::new(),
            wake: event()?,
        });
        let epoll =
            epoll(&control, &*work).map_err(|error| Error::io("wait for a queue", error))?;
        let of_thread = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if run(&of_thread, &epoll, &mut *work).is_err() {
                    interrupts.give_up();
                }
                of_thread.ended();
            })
            .map_err(|error| Error::io("start a thread", error))?;
        self.0.push(Worker {
            control,
            thread: Some(thread),
        });
        Ok(())
    }

    /// Returns once no thread touches the guest any more.
    pub fn pause(&self) {
        self.wish(Wish::Pause);
        for worker in &self.0 {
            let mut progress = worker.control.progress();
            while !progress.parked {
                progress = worker.control.wait(progress);
            }
        }
    }

    /// Lets them go on: they look at their queues first, whatever was missed.
    pub fn resume(&self) {
        self.wish(Wish::Run);
    }

    /// Ends them, and returns when they have ended.
    pub fn stop(&mut self) {
        self.wish(Wish::Stop);
        for mut worker in self.0.drain(..) {
            if let Some(thread) = worker.thread.take() {
                // One that panicked has ended, too.
                let _ = thread.join();
            }
        }
    }

    fn wish(&self, wish: Wish) {
        self.0.iter().for_each(|worker| worker.control.wish(wish));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for each change once: no event has to be read to be quiet, which would be one more call into
/// the kernel for every request. And what is not taken from a source for want of room in the queue does
/// not wake the thread again and again.
fn epoll(control: &Control, work: &dyn Serve) -> std::io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let kicks = work.kicks().into_iter().map(EventFd::as_raw_fd);
    let wake = control.wake.as_raw_fd();
    for fd in kicks.chain([wake]).chain(work.source()) {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, fd, event)?;
    }
    Ok(epoll)
}

fn run(control: &Control, epoll: &Epoll, work: &mut dyn Serve) -> std::result::Result<(), Broken> {
    while control.goes_on() {
        if work.serve()? == Left::More {
            continue;
        }
        // Interrupted: what there is to do is looked for anyway.
        let _ = epoll.wait(-1, &mut [EpollEvent::default(); 4]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::pci::msix::Msix;
    use crate::pci::msix::tests::Remembered;

    /// Work without an end: a ring that refills itself.
    struct Endless(Arc<AtomicU32>);

    impl Serve for Endless {
        fn serve(&mut self) -> std::result::Result<Left, Broken> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Left::More)
        }

        fn kicks(&self) -> Vec<&EventFd> {
            Vec::new()
        }
    }

    #[test]
    fn work_without_an_end_is_paused_and_stopped_all_the_same() {
        let msix = Msix::new(1, Arc::new(Remembered::default())).unwrap();
        let turns = Arc::new(AtomicU32::new(0));
        let work = Box::new(Endless(Arc::clone(&turns)));
        let mut workers = Workers::default();
        workers
            .start("endless", work, DeviceInterrupts::new(msix))
            .unwrap();
        let now = || turns.load(Ordering::SeqCst);
        let goes_on = |before: u32| {
            let begun = Instant::now();
            while now() == before && begun.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            now() > before
        };
        assert!(goes_on(0));
        workers.pause();
        let paused = now();
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(now(), paused);
        workers.resume();
        assert!(goes_on(paused));
        workers.stop();
    }
}
