//! What devices and processors ask of the machine they are in.

use std::mem::discriminant;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something that has to be done outside of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The guest has switched itself off.
    Off,
    /// The guest restarts.
    Reset,
    /// A disk cannot take what the guest writes for want of space: the guest waits.
    NoSpace {
        /// What the disk said.
        error: String,
    },
    /// A processor cannot go on.
    Failed {
        /// Why.
        error: String,
    },
}

/// Requests, in the order in which they came. Clones are the same.
#[derive(Clone, Default)]
pub struct Signals(Arc<Shared>);

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    came: Condvar,
    /// Nothing of this guest is to go on.
    is_over: AtomicBool,
}

impl Signals {
    /// Asks for something. Never waits for it to be done. Who asks a thousand times has asked once:
    /// there is no more than one request of a kind.
    pub fn ask(&self, request: Request) {
        if matches!(request, Request::Off | Request::Reset) {
            self.0.is_over.store(true, Ordering::SeqCst);
        }
        let mut requests = self.requests();
        let kind = discriminant(&request);
        if !requests.iter().any(|asked| discriminant(asked) == kind) {
            requests.push(request);
        }
        self.0.came.notify_all();
    }

    /// Says whether the machine was asked to be off or to begin anew: its processors go no further.
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::SeqCst)
    }

    /// Forgets what has been asked for: whoever asked is gone.
    pub fn clear(&self) {
        self.requests().clear();
        self.0.is_over.store(false, Ordering::SeqCst);
    }

    /// Forgets that there was no room for something: what waits for it is paused, and asks again if there
    /// is none when it goes on.
    pub fn forget_no_space(&self) {
        self.requests()
            .retain(|request| !matches!(request, Request::NoSpace { .. }));
    }

    /// Waits for the next request; none if none came in time.
    pub fn wait(&self, limit: Duration) -> Option<Request> {
        let end = Instant::now() + limit;
        let mut requests = self.requests();
        loop {
            if !requests.is_empty() {
                return Some(requests.remove(0));
            }
            let left = end.checked_duration_since(Instant::now())?;
            requests = self
                .0
                .came
                .wait_timeout(requests, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.0
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_asks_much_does_not_drown_what_else_is_asked() {
        let signals = Signals::default();
        for number in 0..1000 {
            let error = format!("no room for {number}");
            signals.ask(Request::NoSpace { error });
        }
        assert!(!signals.is_over());
        signals.ask(Request::Off);
        assert!(signals.is_over());
        let next = || signals.wait(Duration::ZERO);
        assert!(matches!(next(), Some(Request::NoSpace { error }) if error == "no room for 0"));
        assert_eq!(next(), Some(Request::Off));
        assert_eq!(next(), None);
        signals.ask(Request::NoSpace {
            error: String::new(),
        });
        signals.ask(Request::Reset);
        signals.forget_no_space();
        assert_eq!(next(), Some(Request::Reset));
        signals.ask(Request::Reset);
        signals.clear();
        assert!(!signals.is_over() && next().is_none());
    }
}
