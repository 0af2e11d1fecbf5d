//! One look at a system, and how it is stored.
//!
//! Counters are stored as the kernel counts them, since the system's start: a look means something
//! without the one before it, and two of the same start give what happened between, however many are
//! missing there. A record is as long as the ring's slot, little-endian, without padding:
//!
//! | byte | what |
//! |---|---|
//! | 0 | u32: CRC-32C of the record from byte 4 to the slot's end |
//! | 4 | u32: `RECORD_MAGIC` |
//! | 8 | u64: number of the record, from 0; its slot is this modulo the number of slots |
//! | 16 | u64: time in milliseconds since 1970-01-01 UTC |
//! | 24 | u64: milliseconds since the system's start |
//! | 32 | 16 bytes: which start (`/proc/sys/kernel/random/boot_id`) |
//! | 48 | u32: processors online; u16: devices that follow; u16: devices for which there was no room |
//! | 56 | 8 u64: ticks of all processors: user, nice, system, idle, iowait, irq, softirq, steal |
//! | 120 | 13 u64: KiB of memory: total, free, available (all ones: not known), buffers, cached, reclaimable slab, shared, anonymous, committed, swap, free swap, huge pages, free huge pages |
//! | 224 | 4 u64: pages swapped in, pages swapped out, major faults, processes killed for want of memory |
//! | 256 | 5 u64: microseconds stalled: processor some, memory some, memory full, I/O some, I/O full |
//! | 296 | 5 u16: the same over the last 300 s, in hundredths of a percent |
//! | 306 | u16: 1 if those of 256 and 296 are known (Linux 4.20) |
//! | 308 | 12 bytes: 0 |
//! | 320 | 64 bytes for each device |
//!
//! | byte | what of a device |
//! |---|---|
//! | 0 | u8: 1 a disk, 2 a network card |
//! | 1 | 15 bytes: its name, filled up with 0 |
//! | 16 | 2 u64: reads and bytes read (packets and bytes received) |
//! | 32 | 2 u64: writes and bytes written (packets and bytes sent) |
//! | 48 | u64: milliseconds busy (errors and drops) |
//! | 56 | u64: milliseconds that requests waited, summed up (0) |

use hako_block::Crc32c;

/// Field at byte 4: "SMP1".
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"SMP1");
/// Bytes of a record before its devices.
pub const HEAD_BYTES: usize = 320;
/// Bytes of a device.
pub const DEVICE_BYTES: usize = 64;
/// Longest name of a device.
pub const NAME_BYTES: usize = 15;

/// One look at a system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// The record's number in its ring, from 0.
    pub number: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Milliseconds since the system's start.
    pub uptime_ms: u64,
    /// Which start of the system this is.
    pub boot_id: [u8; 16],
    /// Processors online.
    pub n_cpus: u32,
    /// What all of them did.
    pub cpu: CpuTicks,
    /// Memory.
    pub memory: MemoryKib,
    /// Paging.
    pub paging: Paging,
    /// What waited; none of a kernel that does not say.
    pub pressure: Option<Pressure>,
    /// Disks and network cards.
    pub devices: Vec<Device>,
    /// Devices for which there was no room.
    pub n_left_out: u16,
}

/// What processors did, in ticks since the system's start; guests are part of `user` and `nice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTicks {
    /// Programs.
    pub user: u64,
    /// Programs of low priority.
    pub nice: u64,
    /// The kernel.
    pub system: u64,
    /// Nothing.
    pub idle: u64,
    /// Nothing, while something waited for a disk.
    pub iowait: u64,
    /// Interrupts.
    pub irq: u64,
    /// What interrupts left to do.
    pub softirq: u64,
    /// What a hypervisor kept back.
    pub steal: u64,
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryKib {
    /// What the system has.
    pub total: u64,
    /// What nobody uses.
    pub free: u64,
    /// What programs could get without swapping; none of kernels before 3.14.
    pub available: Option<u64>,
    /// Buffers of block devices.
    pub buffers: u64,
    /// The page cache, what is shared included.
    pub cached: u64,
    /// The part of the kernel's own that can be given back.
    pub reclaimable: u64,
    /// Shared memory and tmpfs.
    pub shared: u64,
    /// Memory of programs.
    pub anonymous: u64,
    /// What programs were promised.
    pub committed: u64,
    /// Swap space.
    pub swap: u64,
    /// What of it is free.
    pub swap_free: u64,
    /// Set aside for huge pages.
    pub huge: u64,
    /// What of that is free.
    pub huge_free: u64,
}

/// Paging since the system's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paging {
    /// Pages swapped in.
    pub swapped_in: u64,
    /// Pages swapped out.
    pub swapped_out: u64,
    /// Faults that had to wait for a disk.
    pub major_faults: u64,
    /// Processes killed for want of memory.
    pub killed: u64,
}

/// What waited for what (`/proc/pressure`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Something waited for a processor.
    pub cpu_some: Stall,
    /// Something waited for memory.
    pub memory_some: Stall,
    /// All waited for memory.
    pub memory_full: Stall,
    /// Something waited for a disk.
    pub io_some: Stall,
    /// All waited for a disk.
    pub io_full: Stall,
}

/// How long something waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stall {
    /// Microseconds since the system's start.
    pub total_us: u64,
    /// Its share of the last 300 s, in hundredths of a percent.
    pub avg300: u16,
}

/// A disk or a network card; counters are those since the system's start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Which of the two.
    pub kind: DeviceKind,
    /// Its name, at most 15 bytes long.
    pub name: String,
    /// Reads; packets received.
    pub reads: u64,
    /// Bytes read; received.
    pub read_bytes: u64,
    /// Writes; packets sent.
    pub writes: u64,
    /// Bytes written; sent.
    pub written_bytes: u64,
    /// Milliseconds in which a disk was busy; errors and drops of a card.
    pub busy: u64,
    /// Milliseconds that requests to a disk waited, summed up.
    pub waited: u64,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// A disk.
    #[default]
    Disk,
    /// A network card.
    Nic,
}

impl Sample {
    /// Leaves out the devices that have no room in a slot, counts them, and returns how many.
    pub fn fit(&mut self, slot_bytes: usize) -> u16 {
        let n_before = self.devices.len();
        let fits = |device: &Device| device.name.len() <= NAME_BYTES;
        self.devices.retain(fits);
        let room = slot_bytes.saturating_sub(HEAD_BYTES) / DEVICE_BYTES;
        self.devices.truncate(room);
        self.n_left_out = short(n_before - self.devices.len());
        self.n_left_out
    }

    /// Returns the record, `slot_bytes` long, of a sample that was made to [`Sample::fit`].
    pub fn encode(&self, slot_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(RECORD_MAGIC.to_le_bytes());
        put(&mut bytes, &[self.number, self.time_ms, self.uptime_ms]);
        bytes.extend(self.boot_id);
        bytes.extend(self.n_cpus.to_le_bytes());
        bytes.extend(short(self.devices.len()).to_le_bytes());
        bytes.extend(self.n_left_out.to_le_bytes());
        put(&mut bytes, &self.cpu.fields());
        put(&mut bytes, &self.memory.fields());
        put(&mut bytes, &self.paging.fields());
        let stalls = self.pressure.unwrap_or_default().stalls();
        put(&mut bytes, &stalls.map(|stall| stall.total_us));
        for stall in stalls {
            bytes.extend(stall.avg300.to_le_bytes());
        }
        bytes.extend(u16::from(self.pressure.is_some()).to_le_bytes());
        bytes.resize(HEAD_BYTES, 0);
        for device in &self.devices {
            device.encode(&mut bytes);
        }
        bytes.resize(slot_bytes, 0);
        let crc = checksum(&bytes).to_le_bytes();
        for (byte, new) in bytes.iter_mut().zip(crc) {
            *byte = new;
        }
        bytes
    }

    /// Returns the sample in a slot; none if there is no whole record.
    pub fn decode(slot: &[u8]) -> Option<Self> {
        let mut fields = Fields(slot);
        if fields.u32()? != checksum(slot) || fields.u32()? != RECORD_MAGIC {
            return None;
        }
        let [number, time_ms, uptime_ms] = fields.u64s()?;
        let boot_id = fields.take()?;
        let n_cpus = fields.u32()?;
        let (n_devices, n_left_out) = (fields.u16()?, fields.u16()?);
        let cpu = CpuTicks::of(fields.u64s()?);
        let memory = MemoryKib::of(fields.u64s()?);
        let paging = Paging::of(fields.u64s()?);
        let (totals, shares) = (fields.u64s::<5>()?, fields.u16s::<5>()?);
        let pressure = (fields.u16()? == 1).then(|| Pressure::of(totals, shares));
        let _: [u8; 12] = fields.take()?;
        let devices = (0..n_devices).map(|_| Device::decode(&mut fields));
        Some(Self {
            number,
            time_ms,
            uptime_ms,
            boot_id,
            n_cpus,
            cpu,
            memory,
            paging,
            pressure,
            devices: devices.collect::<Option<_>>()?,
            n_left_out,
        })
    }
}

impl CpuTicks {
    fn fields(&self) -> [u64; 8] {
        [
            self.user,
            self.nice,
            self.system,
            self.idle,
            self.iowait,
            self.irq,
            self.softirq,
            self.steal,
        ]
    }

    /// Returns the ticks of the numbers of a `cpu` line of `/proc/stat`.
    pub fn of(fields: [u64; 8]) -> Self {
        let [user, nice, system, idle, iowait, irq, softirq, steal] = fields;
        Self {
            user,
            nice,
            system,
            idle,
            iowait,
            irq,
            softirq,
            steal,
        }
    }
}

/// What stands for memory that is not known.
const UNKNOWN: u64 = u64::MAX;

impl MemoryKib {
    fn fields(&self) -> [u64; 13] {
        [
            self.total,
            self.free,
            self.available.unwrap_or(UNKNOWN),
            self.buffers,
            self.cached,
            self.reclaimable,
            self.shared,
            self.anonymous,
            self.committed,
            self.swap,
            self.swap_free,
            self.huge,
            self.huge_free,
        ]
    }

    fn of(fields: [u64; 13]) -> Self {
        let [
            total,
            free,
            available,
            buffers,
            cached,
            reclaimable,
            rest @ ..,
        ] = fields;
        let [
            shared,
            anonymous,
            committed,
            swap,
            swap_free,
            huge,
            huge_free,
        ] = rest;
        Self {
            total,
            free,
            available: (available != UNKNOWN).then_some(available),
            buffers,
            cached,
            reclaimable,
            shared,
            anonymous,
            committed,
            swap,
            swap_free,
            huge,
            huge_free,
        }
    }
}

impl Paging {
    fn fields(&self) -> [u64; 4] {
        [
            self.swapped_in,
            self.swapped_out,
            self.major_faults,
            self.killed,
        ]
    }

    fn of(fields: [u64; 4]) -> Self {
        let [swapped_in, swapped_out, major_faults, killed] = fields;
        Self {
            swapped_in,
            swapped_out,
            major_faults,
            killed,
        }
    }
}

impl Pressure {
    fn stalls(&self) -> [Stall; 5] {
        [
            self.cpu_some,
            self.memory_some,
            self.memory_full,
            self.io_some,
            self.io_full,
        ]
    }

    fn of(totals: [u64; 5], shares: [u16; 5]) -> Self {
        let mut stalls = totals.into_iter().zip(shares);
        let mut next = || {
            let (total_us, avg300) = stalls.next().unwrap_or_default();
            Stall { total_us, avg300 }
        };
        Self {
            cpu_some: next(),
            memory_some: next(),
            memory_full: next(),
            io_some: next(),
            io_full: next(),
        }
    }
}

impl Device {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len() + DEVICE_BYTES;
        bytes.push(match self.kind {
            DeviceKind::Disk => 1,
            DeviceKind::Nic => 2,
        });
        bytes.extend(self.name.as_bytes());
        bytes.resize(end - 48, 0);
        put(bytes, &[self.reads, self.read_bytes]);
        put(bytes, &[self.writes, self.written_bytes]);
        put(bytes, &[self.busy, self.waited]);
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let [kind] = fields.take()?;
        let name: [u8; NAME_BYTES] = fields.take()?;
        let name = name.split(|byte| *byte == 0).next()?;
        let [reads, read_bytes, writes, written_bytes, busy, waited] = fields.u64s()?;
        Some(Self {
            kind: match kind {
                1 => DeviceKind::Disk,
                2 => DeviceKind::Nic,
                _ => return None,
            },
            name: std::str::from_utf8(name).ok()?.to_owned(),
            reads,
            read_bytes,
            writes,
            written_bytes,
            busy,
            waited,
        })
    }
}

/// Returns the checksum of what is after the first four bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes.get(4..).unwrap_or_default());
    crc.value()
}

fn put(bytes: &mut Vec<u8>, numbers: &[u64]) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Little-endian numbers, one after the other.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    /// Returns the next bytes; none if fewer are left.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (next, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*next)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    /// Returns the next number of four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u16s<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.u16()?;
        }
        Some(numbers)
    }

    /// Returns the next numbers of eight bytes.
    pub fn u64s<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.take().map(u64::from_le_bytes)?;
        }
        Some(numbers)
    }
}
