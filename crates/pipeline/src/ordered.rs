//! The engine: a plan cut into slots, worked on in parallel, delivered in the plan's order.
//!
//! A slot is one item of work with its buffers. There is a fixed number of them: a worker takes a
//! free one before it plans the next item into it, so the item that delivery waits for always has
//! one, and neither memory nor the reorder window can grow.
//!
//! No thread only delivers: the worker that finishes the item whose turn it is delivers it while
//! it is warm in the cache, and then whatever the others have finished meanwhile.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

/// Runs `plan` (in order, one at a time) and a `worker` (in parallel, one per thread, the calling
/// one among them) on slots and hands each to `deliver` in the order of the plan, one at a time.
/// `plan` returns false when there is no more. Stops at the first error in that order, or when
/// `deliver` breaks.
pub(crate) fn ordered<S, W>(
    crew: Crew,
    new_slot: impl Fn() -> S,
    plan: impl FnMut(&mut S) -> Result<bool> + Send,
    worker: impl Fn() -> W,
    deliver: impl FnMut(&mut S) -> Result<ControlFlow<()>> + Send,
) -> Result<()>
where
    S: Send,
    W: FnMut(&mut S) -> Result<()> + Send,
{
    let engine = Engine {
        queue: Mutex::new(Queue {
            plan,
            n_planned: 0,
            ended: false,
        }),
        deliver: Mutex::new(deliver),
        state: Mutex::new(State {
            free: (0..crew.n_slots).map(|_| new_slot()).collect(),
            done: BTreeMap::new(),
            next: 0,
            delivering: false,
            stopped: None,
        }),
        freed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 1..crew.n_workers {
            let (engine, work) = (&engine, worker());
            let spawned = std::thread::Builder::new()
                .name("hako-worker".to_owned())
                .spawn_scoped(scope, move || engine.run(work));
            if let Err(error) = spawned {
                engine.stop(Err(Error::io("start a thread", error)));
            }
        }
        engine.run(worker());
    });
    let state = engine.state.into_inner();
    let stopped = state.unwrap_or_else(PoisonError::into_inner).stopped;
    stopped.unwrap_or(Ok(()))
}

struct Engine<S, P, D> {
    queue: Mutex<Queue<P>>,
    /// Locked only by the worker that delivers.
    deliver: Mutex<D>,
    state: Mutex<State<S>>,
    /// A slot became free, or the work has stopped.
    freed: Condvar,
}

struct Queue<P> {
    plan: P,
    n_planned: u64,
    ended: bool,
}

struct State<S> {
    free: Vec<S>,
    /// Finished items whose turn has not come.
    done: BTreeMap<u64, Result<S>>,
    /// The item whose turn it is.
    next: u64,
    /// Whether a worker is delivering; it will see what is added to `done` meanwhile.
    delivering: bool,
    /// Set once, when nothing more is to be done.
    stopped: Option<Result<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S, P, D> Engine<S, P, D>
where
    P: FnMut(&mut S) -> Result<bool>,
    D: FnMut(&mut S) -> Result<ControlFlow<()>>,
{
    /// One worker's life.
    fn run(&self, mut work: impl FnMut(&mut S) -> Result<()>) {
        let _guard = PanicGuard(self);
        while let Some(mut slot) = self.take_free() {
            let Some((number, planned)) = self.plan(&mut slot) else {
                return self.give_back(slot);
            };
            let result = planned.and_then(|()| work(&mut slot)).map(|()| slot);
            self.finish(number, result);
        }
    }

    /// Waits for a free slot; returns none once the work has stopped.
    fn take_free(&self) -> Option<S> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped.is_some() {
                return None;
            }
            if let Some(slot) = state.free.pop() {
                return Some(slot);
            }
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Plans the next item into the slot; returns its number, or none at the end.
    fn plan(&self, slot: &mut S) -> Option<(u64, Result<()>)> {
        let mut queue = lock(&self.queue);
        if queue.ended {
            return None;
        }
        let planned = (queue.plan)(slot);
        queue.ended = !matches!(planned, Ok(true));
        if matches!(planned, Ok(false)) {
            return None;
        }
        queue.n_planned += 1;
        Some((queue.n_planned - 1, planned.map(|_| ())))
    }

    /// Hands in a finished item, and delivers all whose turn has come unless another worker does.
    fn finish(&self, number: u64, result: Result<S>) {
        let mut state = lock(&self.state);
        state.done.insert(number, result);
        if state.delivering {
            return;
        }
        state.delivering = true;
        while state.stopped.is_none() {
            let next = state.next;
            let Some(result) = state.done.remove(&next) else {
                break;
            };
            drop(state);
            let delivered = result.and_then(|mut slot| {
                let flow = (*lock(&self.deliver))(&mut slot)?;
                Ok((slot, flow))
            });
            match delivered {
                Ok((slot, ControlFlow::Continue(()))) => self.give_back(slot),
                Ok((_, ControlFlow::Break(()))) => self.stop(Ok(())),
                Err(error) => self.stop(Err(error)),
            }
            state = lock(&self.state);
            state.next += 1;
        }
        state.delivering = false;
    }

    fn give_back(&self, slot: S) {
        lock(&self.state).free.push(slot);
        self.freed.notify_one();
    }
}

impl<S, P, D> Engine<S, P, D> {
    fn stop(&self, result: Result<()>) {
        lock(&self.state).stopped.get_or_insert(result);
        self.freed.notify_all();
    }
}

/// Stops the others when a worker panics, so that they do not wait for its slots forever; the
/// panic itself is passed on when the threads are joined.
struct PanicGuard<'a, S, P, D>(&'a Engine<S, P, D>);

impl<S, P, D> Drop for PanicGuard<'_, S, P, D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(Err(Error::invalid("a worker thread panicked")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        n_items: u64,
        n_workers: usize,
        work: impl Fn(u64) -> Result<()> + Sync,
        mut deliver: impl FnMut(u64) -> Result<ControlFlow<()>> + Send,
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
    fn panicking_worker_does_not_leave_the_others_waiting() {
        let panic = |item| match item {
            5 => panic!("on purpose"),
            _ => Ok(()),
        };
        let run = || run(1000, 3, panic, |_| Ok(ControlFlow::Continue(())));
        assert!(std::panic::catch_unwind(run).is_err());
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
