//! A queue that is being served: its ring in the guest's memory, the event that says that something
//! was put there, and the interrupt that says that it is done.

use virtio_queue::{DescriptorChain, Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::Memory;
use crate::virtio::QueueInterrupt;

/// The guest has written something into a queue that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Whether there is more to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Not until the driver, or the other side, says so.
    Nothing,
    /// There may be: the turn was over. Whoever wishes for a pause or an end gets it in between,
    /// even from a ring that refills itself (a guest can have a device write into its own rings).
    More,
}

impl Left {
    /// Returns whether either has more.
    pub fn or(self, other: Self) -> Self {
        match self {
            Left::More => Left::More,
            Left::Nothing => other,
        }
    }
}

impl From<virtio_queue::Error> for Broken {
    fn from(_: virtio_queue::Error) -> Self {
        Broken
    }
}

/// A request: the descriptors that belong together.
pub type Chain<'a> = DescriptorChain<&'a Memory>;

/// A queue that its driver has made ready.
pub struct ServedQueue {
    /// The ring.
    pub ring: Queue,
    /// Written to by the driver.
    pub kick: EventFd,
    /// Sent to the driver.
    pub interrupt: QueueInterrupt,
}

impl ServedQueue {
    /// Calls `serve` for every request that is there, as many as the ring holds. It returns how many
    /// bytes it has written for the driver. Errors: [`Broken`] if the ring makes no sense.
    pub fn serve_all(
        &mut self,
        memory: &Memory,
        mut serve: impl FnMut(Chain<'_>) -> Result<u32, Broken>,
    ) -> Result<Left, Broken> {
        self.ring.disable_notification(memory)?;
        for _ in 0..self.ring.size() {
            let Some(chain) = self.next(memory)? else {
                if !self.ring.enable_notification(memory)? {
                    return Ok(Left::Nothing);
                }
                self.ring.disable_notification(memory)?;
                continue;
            };
            let head = chain.head_index();
            let written = serve(chain)?;
            self.done(memory, head, written)?;
        }
        Ok(Left::More)
    }

    /// Returns the next request, if there is one. Errors: [`Broken`] if the driver is further ahead
    /// than the ring is long, or if the descriptors of the request have no end.
    pub fn next<'a>(&mut self, memory: &'a Memory) -> Result<Option<Chain<'a>>, Broken> {
        let Some(chain) = virtio_queue::QueueOwnedT::iter(&mut self.ring, memory)?.next() else {
            return Ok(None);
        };
        // The walk ends by itself, at the latest after as many as the ring holds.
        match chain.clone().last() {
            Some(last) if !last.has_next() => Ok(Some(chain)),
            _ => Err(Broken),
        }
    }

    /// Puts the request that [`ServedQueue::next`] gave last back: it comes again.
    pub fn put_back(&mut self) {
        virtio_queue::QueueOwnedT::go_to_previous_position(&mut self.ring);
    }

    /// Asks to be told when the driver puts something there. Says whether it has done so meanwhile.
    pub fn listen(&mut self, memory: &Memory) -> Result<bool, Broken> {
        Ok(self.ring.enable_notification(memory)?)
    }

    /// Gives a request back, and tells the driver if it wants to be told.
    pub fn done(&mut self, memory: &Memory, head: u16, written: u32) -> Result<(), Broken> {
        self.ring.add_used(memory, head, written)?;
        if self.ring.needs_notification(memory)? {
            self.interrupt.send();
        }
        Ok(())
    }
}
