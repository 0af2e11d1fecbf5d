//! The engine: a plan cut into slots, worked on in parallel, delivered in the plan's order.
//!
//! A slot is one item of work with its buffers. There is a fixed number of them: a worker takes a
//! free one before it plans the next item into it, so the item that delivery waits for always has
//! one, and neither memory nor the reorder window can grow.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use hako_block::{Error, Result};

/// Bytes that the buffers of all slots may take together.
const MAX_SLOT_BYTES: usize = 40 << 20;
/// Workers beyond this would only wait for storage.
const MAX_WORKERS: usize = 32;

/// How many workers and slots to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crew {
    pub(crate) n_workers: usize,
    pub(crate) n_slots: usize,
}

impl Crew {
    /// Returns a crew for `threads` wanted by the user and slots of `slot_bytes` each. A worker
    /// may hold another buffer of that size.
    pub(crate) fn new(threads: usize, slot_bytes: usize) -> Self {
        let affordable = (MAX_SLOT_BYTES / slot_bytes.max(1)).max(2);
        let n_workers = threads.clamp(1, MAX_WORKERS.min(affordable));
        Self {
            n_workers,
            n_slots: (2 * n_workers + 4).min(affordable.max(n_workers + 1)),
        }
    }
}

/// Runs `plan` (in order, one at a time) and a `worker` (in parallel, one per thread) on slots and
/// hands each to `deliver`, on the calling thread, in the order of the plan. `plan` returns false
/// when there is no more. Stops at the first error in that order, or when `deliver` breaks.
pub(crate) fn ordered<S, W>(
    crew: Crew,
    new_slot: impl Fn() -> S,
    plan: impl FnMut(&mut S) -> Result<bool> + Send,
    worker: impl Fn() -> W,
    deliver: impl FnMut(&mut S) -> Result<ControlFlow<()>>,
) -> Result<()>
where
    S: Send,
    W: FnMut(&mut S) -> Result<()> + Send,
{
    let (free_sender, free) = bounded(crew.n_slots);
    let (done, done_receiver) = bounded(crew.n_slots);
    for _ in 0..crew.n_slots {
        // Never fails: the channel has room and its receiver is here.
        let _ = free_sender.send(new_slot());
    }
    let queue = Mutex::new(Queue {
        plan,
        n_planned: 0,
        ended: false,
    });
    let queue = &queue;
    std::thread::scope(move |scope| {
        for _ in 0..crew.n_workers {
            let (free, done, work) = (free.clone(), done.clone(), worker());
            std::thread::Builder::new()
                .name("hako-worker".to_owned())
                .spawn_scoped(scope, move || run_worker(queue, &free, &done, work))
                .map_err(|error| Error::io("start a thread", error))?;
        }
        drop((free, done));
        deliver_in_order(&done_receiver, &free_sender, deliver)
    })
}

struct Queue<P> {
    plan: P,
    n_planned: u64,
    ended: bool,
}

type Done<S> = (u64, Result<S>);

fn run_worker<S, P>(
    queue: &Mutex<Queue<P>>,
    free: &Receiver<S>,
    done: &Sender<Done<S>>,
    mut work: impl FnMut(&mut S) -> Result<()>,
) where
    P: FnMut(&mut S) -> Result<bool>,
{
    // Ends when delivery has ended, and with it the channels.
    while let Ok(mut slot) = free.recv() {
        let (number, planned) = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.ended {
                return;
            }
            let planned = (queue.plan)(&mut slot);
            queue.ended = !matches!(planned, Ok(true));
            queue.n_planned += 1;
            (queue.n_planned - 1, planned)
        };
        let guard = PanicGuard { number, done };
        let result = match planned {
            Ok(false) => return,
            Ok(true) => work(&mut slot).map(|()| slot),
            Err(error) => Err(error),
        };
        if guard.done.send((number, result)).is_err() {
            return;
        }
    }
}

/// Tells delivery that an item will never come, so that it does not wait for it forever; the
/// panic itself is passed on when the threads are joined.
struct PanicGuard<'a, S> {
    number: u64,
    done: &'a Sender<Done<S>>,
}

impl<S> Drop for PanicGuard<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Error::invalid("a worker thread panicked");
            let _ = self.done.send((self.number, Err(error)));
        }
    }
}

fn deliver_in_order<S>(
    done: &Receiver<Done<S>>,
    free: &Sender<S>,
    mut deliver: impl FnMut(&mut S) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (number, result) in done {
        early.insert(number, result);
        while let Some(result) = early.remove(&next) {
            let mut slot = result?;
            if deliver(&mut slot)?.is_break() {
                return Ok(());
            }
            let _ = free.send(slot);
            next += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        n_items: u64,
        n_workers: usize,
        work: impl Fn(u64) -> Result<()> + Sync,
        mut deliver: impl FnMut(u64) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut position = 0;
        ordered(
            Crew {
                n_workers,
                n_slots: n_workers + 2,
            },
            || 0u64,
            |slot| {
                *slot = position;
                position += 1;
                Ok(*slot < n_items)
            },
            || |slot: &mut u64| work(*slot),
            |slot| deliver(*slot),
        )
    }

    #[test]
    fn items_arrive_in_order_and_none_is_lost() {
        for n_workers in [1, 2, 7] {
            let mut seen = Vec::new();
            run(
                1000,
                n_workers,
                |_| Ok(()),
                |item| {
                    seen.push(item);
                    Ok(ControlFlow::Continue(()))
                },
            )
            .unwrap();
            assert!(seen.iter().copied().eq(0..1000));
        }
    }

    #[test]
    fn first_error_in_order_is_the_one_reported() {
        let mut n_delivered = 0;
        let error = run(
            1000,
            4,
            |item| match item {
                40.. => Err(Error::invalid(format!("item {item}"))),
                _ => Ok(()),
            },
            |_| {
                n_delivered += 1;
                Ok(ControlFlow::Continue(()))
            },
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "item 40");
        assert_eq!(n_delivered, 40);
    }

    #[test]
    fn break_and_error_in_delivery_stop_the_workers() {
        run(u64::MAX, 3, |_| Ok(()), |_| Ok(ControlFlow::Break(()))).unwrap();
        let refuse = |_| Err(Error::invalid("full"));
        run(u64::MAX, 3, |_| Ok(()), refuse).unwrap_err();
    }

    #[test]
    fn crew_keeps_within_the_memory_limit() {
        assert_eq!(Crew::new(2, 1 << 20).n_slots, 8);
        for threads in [0, 1, 2, 16, 1000] {
            for slot_bytes in [1 << 20, 2 << 20, 4 << 20] {
                let crew = Crew::new(threads, slot_bytes);
                assert!(crew.n_workers >= 1 && crew.n_slots > crew.n_workers);
                assert!((crew.n_slots - 1) * slot_bytes <= MAX_SLOT_BYTES);
            }
        }
    }
}
