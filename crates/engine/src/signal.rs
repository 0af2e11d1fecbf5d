//! What devices and processors ask of the machine they are in.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
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
pub struct Signals(Arc<(Mutex<Vec<Request>>, Condvar)>);

impl Signals {
    /// Asks for something. Never waits for it to be done.
    pub fn ask(&self, request: Request) {
        let (requests, came) = &*self.0;
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        // A guest that asks a thousand times has asked once.
        if !requests.contains(&request) && requests.len() < 16 {
            requests.push(request);
        }
        came.notify_all();
    }

    /// Forgets what has been asked for: whoever asked is gone.
    pub fn clear(&self) {
        let (requests, _) = &*self.0;
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.clear();
    }

    /// Waits for the next request; none if none came in time.
    pub fn wait(&self, limit: Duration) -> Option<Request> {
        let (requests, came) = &*self.0;
        let end = Instant::now() + limit;
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if !requests.is_empty() {
                return Some(requests.remove(0));
            }
            let left = end.checked_duration_since(Instant::now())?;
            requests = came
                .wait_timeout(requests, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
