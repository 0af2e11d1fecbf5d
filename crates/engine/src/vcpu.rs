//! The threads that run processors. A processor's thread does nothing but enter the guest and answer
//! what it reads and writes; it never waits for a disk or a network.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hako_block::{Error, Result};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::kvm::PortAccess;
use crate::signal::{Request, Signals};

/// What a processor reads and writes.
#[derive(Clone, Default)]
pub struct Buses {
    /// By I/O port.
    pub ports: Bus,
    /// By physical address.
    pub memory: Bus,
    /// Held by the processor that takes what the kernel has kept of writes to ports.
    posted: Arc<Mutex<()>>,
}

impl Buses {
    /// Carries out what the kernel has kept of writes to ports, in the order in which they came.
    fn take_posted(&self, vcpu: &mut VcpuFd) {
        let _one_at_a_time = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((port, bytes, len)) = crate::kvm::posted(vcpu) {
            self.ports.write(port, bytes.get(..len).unwrap_or(&bytes));
        }
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
    /// How many processors are out of the guest, and stay so.
    parked: usize,
}

struct Control {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Control {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a pause is wished for. Says whether to go on.
    fn goes_on(&self) -> bool {
        let mut progress = self.progress();
        if progress.wish == Wish::Pause {
            progress.parked += 1;
            self.changed.notify_all();
            while progress.wish == Wish::Pause {
                progress = self
                    .changed
                    .wait(progress)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            progress.parked -= 1;
        }
        progress.wish == Wish::Run
    }

    /// Has all processors stay where they are, unless something else is wished for by now: who stops
    /// them waits for their end.
    fn halt(&self) {
        let mut progress = self.progress();
        if progress.wish == Wish::Run {
            progress.wish = Wish::Pause;
        }
    }

    fn ended(&self) {
        self.progress().parked += 1;
        self.changed.notify_all();
    }
}

/// The processors of a machine.
pub struct Vcpus {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

/// How long is waited for a processor to come out of the guest before it is called again: the call
/// may have come just before it went in.
const CALL_AGAIN: Duration = Duration::from_millis(1);

impl Vcpus {
    /// Starts `vcpus`, which have been set up, paused: the first [`Vcpus::resume`] lets them go.
    pub fn start(vcpus: Vec<VcpuFd>, buses: &Buses, signals: &Signals) -> Result<Self> {
        take_calls();
        let mut all = Self {
            control: Arc::new(Control {
                progress: Mutex::new(Progress {
                    wish: Wish::Pause,
                    parked: 0,
                }),
                changed: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let control = Arc::clone(&all.control);
            let (buses, signals) = (buses.clone(), signals.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || {
                    run(vcpu, &control, &buses, &signals);
                    control.ended();
                })
                .map_err(|error| Error::io("start a processor's thread", error))?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// Returns once no processor is in the guest any more.
    pub fn pause(&self) {
        self.control.progress().wish = Wish::Pause;
        self.call_until(|progress| progress.parked == self.threads.len());
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.control.progress().wish = Wish::Run;
        self.control.changed.notify_all();
    }

    /// Ends them.
    pub fn stop(&mut self) {
        self.control.progress().wish = Wish::Stop;
        self.control.changed.notify_all();
        self.call_until(|_| self.threads.iter().all(JoinHandle::is_finished));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// Calls processors out of the guest until `done`.
    fn call_until(&self, done: impl Fn(&Progress) -> bool) {
        let mut progress = self.control.progress();
        while !done(&progress) {
            for thread in &self.threads {
                // One that has ended cannot be called.
                let _ = thread.kill(SIGRTMIN());
            }
            progress = self
                .control
                .changed
                .wait_timeout(progress, CALL_AGAIN)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the signal that calls processors out of the guest do nothing else.
fn take_calls() {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails for numbers that are no signals only.
        let _ = register_signal_handler(SIGRTMIN(), nothing);
    });
}

fn run(mut vcpu: VcpuFd, control: &Control, buses: &Buses, signals: &Signals) {
    while control.goes_on() {
        match enter(&mut vcpu, buses) {
            Ok(None) if signals.is_over() => control.halt(),
            Ok(None) => {}
            Ok(Some(request)) => {
                signals.ask(request);
                // What comes next is not this processor's to say.
                control.halt();
            }
            Err(error) => {
                signals.ask(Request::Failed {
                    error: error.to_string(),
                });
                control.halt();
            }
        }
    }
}

/// Runs the guest until it needs something, and gives it that.
fn enter(vcpu: &mut VcpuFd, buses: &Buses) -> Result<Option<Request>> {
    let failed = |what: String| Ok(Some(Request::Failed { error: what }));
    match vcpu.run() {
        Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => {
            buses.take_posted(vcpu);
            for_port(crate::kvm::port_access(vcpu), &buses.ports);
        }
        Ok(VcpuExit::MmioRead(address, data)) => buses.memory.read(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => buses.memory.write(address, data),
        Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {}
        // A triple fault: a PC's processor resets then.
        Ok(VcpuExit::Shutdown) => return Ok(Some(Request::Reset)),
        Ok(VcpuExit::SystemEvent(kind, _)) => {
            return Ok(Some(match kind {
                kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Request::Off,
                _ => Request::Reset,
            }));
        }
        Ok(VcpuExit::FailEntry(reason, _)) => {
            return failed(format!("the processor cannot enter the guest: {reason:#x}"));
        }
        Ok(exit) => return failed(format!("the processor came out of the guest: {exit:?}")),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
        Err(error) => return Err(crate::kvm::failed("run a processor", error)),
    }
    Ok(None)
}

/// Carries out what the guest does at a port, each access by itself.
fn for_port(access: Option<PortAccess<'_>>, ports: &Bus) {
    let Some(access) = access else { return };
    for item in access.items {
        match access.is_read {
            true => ports.read(access.port, item),
            false => ports.write(access.port, item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(wish: Wish) -> Control {
        Control {
            progress: Mutex::new(Progress { wish, parked: 0 }),
            changed: Condvar::new(),
        }
    }

    #[test]
    fn a_processor_that_fails_while_all_are_stopped_keeps_nobody_waiting() {
        let running = control(Wish::Run);
        running.halt();
        assert!(running.progress().wish == Wish::Pause);
        let stopping = control(Wish::Stop);
        stopping.halt();
        assert!(stopping.progress().wish == Wish::Stop);
        assert!(!stopping.goes_on());
    }
}
