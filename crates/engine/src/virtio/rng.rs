//! The entropy device (virtio 1.2, section 5.4): random bytes from the host's kernel.

use std::io::Write;

use hako_block::Result;
use rustix::rand::{GetRandomFlags, getrandom};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::Memory;
use crate::virtio::queue::{Broken, Chain, Left, ServedQueue};
use crate::virtio::worker::{Serve, Workers};
use crate::virtio::{Activation, VirtioDevice};

/// The most bytes that one request is given.
const MOST_BYTES: usize = 64 << 10;

/// The device.
#[derive(Default)]
pub struct Rng {
    workers: Workers,
}

impl VirtioDevice for Rng {
    fn kind(&self) -> u16 {
        4
    }

    fn class(&self) -> u32 {
        0xff_00_00
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        for queue in activation.queues.into_iter().flatten() {
            let work = Source {
                memory: activation.memory.clone(),
                queue,
            };
            let interrupts = activation.interrupts.clone();
            self.workers.start("rng", Box::new(work), interrupts)?;
        }
        Ok(())
    }

    fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }
}

struct Source {
    memory: Memory,
    queue: ServedQueue,
}

impl Serve for Source {
    fn serve(&mut self) -> std::result::Result<Left, Broken> {
        let memory = &self.memory;
        self.queue.serve_all(memory, |chain| fill(memory, chain))
    }

    fn kicks(&self) -> Vec<&EventFd> {
        vec![&self.queue.kick]
    }
}

fn fill(memory: &Memory, chain: Chain<'_>) -> std::result::Result<u32, Broken> {
    let mut writer = chain.writer(memory)?;
    let mut bytes = vec![0; writer.available_bytes().min(MOST_BYTES)];
    let got = getrandom(&mut bytes, GetRandomFlags::empty()).unwrap_or(0);
    writer
        .write_all(bytes.get(..got).unwrap_or_default())
        .map_err(|_| Broken)?;
    Ok(got as u32)
}
