//! Looking at a system: `/proc`, and `/sys` for which devices are hardware. Documented in proc(5) and
//! in the kernel's `admin-guide/iostats.rst` and `accounting/psi.rst`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hako_block::{Error, ErrorKind, Result};

use super::record::{CpuTicks, Device, DeviceKind, MemoryKib, Paging, Pressure, Sample, Stall};

/// Most bytes of one file that are looked at; `/proc/stat` of the largest machines has one.
const MAX_BYTES: u64 = 16 << 20;
/// `/proc/diskstats` counts in these, whatever the disk's sectors are.
const SECTOR_BYTES: u64 = 512;
/// Disks that are software, or hold nothing that stays.
const NO_DISKS: [&str; 9] = [
    "loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "bcache",
];

/// Whether a block device is a disk by its name: hardware that holds what stays.
pub(crate) fn is_disk(name: &str) -> bool {
    let mut prefixes = NO_DISKS.iter();
    !prefixes.any(|prefix| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// A system to look at.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
}

impl System {
    /// Returns the system whose `/proc` and `/sys` are below `root`.
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// Returns its name; empty if it does not say.
    pub fn host(&self) -> Result<String> {
        let name = self.read("proc/sys/kernel/hostname")?.unwrap_or_default();
        Ok(name.trim().to_owned())
    }

    /// Looks at it. Errors: a file that every Linux has is missing, or is not as it should be.
    pub fn look(&self) -> Result<Sample> {
        let uptime_ms = uptime_ms(&self.needed("proc/uptime")?);
        let (cpu, n_cpus) = ticks(&self.needed("proc/stat")?)?;
        let memory = memory(&self.needed("proc/meminfo")?)?;
        let paging = self.read("proc/vmstat")?.unwrap_or_default();
        let mut devices = self.disks()?;
        devices.extend(self.nics()?);
        Ok(Sample {
            number: 0,
            time_ms: now_ms(),
            uptime_ms: uptime_ms.ok_or_else(|| self.strange("proc/uptime"))?,
            boot_id: self.boot_id()?,
            n_cpus,
            cpu,
            memory,
            paging: self::paging(&paging),
            pressure: self.pressure()?,
            devices,
            n_left_out: 0,
        })
    }

    fn boot_id(&self) -> Result<[u8; 16]> {
        let text = self.read("proc/sys/kernel/random/boot_id")?;
        let digits: String = text.unwrap_or_default().trim().replace('-', "");
        let number = u128::from_str_radix(&digits, 16).unwrap_or(0);
        Ok(number.to_be_bytes())
    }

    fn pressure(&self) -> Result<Option<Pressure>> {
        let read = |what: &str| {
            let text = self.read(&format!("proc/pressure/{what}"))?;
            Ok::<_, Error>(text.map(|text| (stall(&text, "some"), stall(&text, "full"))))
        };
        let all = (read("cpu")?, read("memory")?, read("io")?);
        let (Some((cpu_some, _)), Some(memory), Some(io)) = all else {
            return Ok(None);
        };
        Ok(Some(Pressure {
            cpu_some: cpu_some.unwrap_or_default(),
            memory_some: memory.0.unwrap_or_default(),
            memory_full: memory.1.unwrap_or_default(),
            io_some: io.0.unwrap_or_default(),
            io_full: io.1.unwrap_or_default(),
        }))
    }

    /// Returns the disks, not their partitions.
    fn disks(&self) -> Result<Vec<Device>> {
        let text = self.read("proc/diskstats")?.unwrap_or_default();
        let all = text.lines().filter_map(disk);
        let is_hardware = |disk: &Device| {
            let name = disk.name.replace('/', "!");
            is_disk(&disk.name) && self.root.join("sys/block").join(name).exists()
        };
        Ok(all.filter(is_hardware).collect())
    }

    /// Returns the network cards that are hardware: what bridges, bonds and containers have passes
    /// through them.
    fn nics(&self) -> Result<Vec<Device>> {
        let text = self.read("proc/net/dev")?.unwrap_or_default();
        let all = text.lines().filter_map(nic);
        let is_hardware = |nic: &Device| {
            let folder = self.root.join("sys/class/net").join(&nic.name);
            folder.join("device").exists()
        };
        Ok(all.filter(is_hardware).collect())
    }

    fn needed(&self, name: &str) -> Result<String> {
        let missing = || {
            Error::new(ErrorKind::NotFound, "is not there; is this a Linux?")
                .in_file(self.root.join(name))
        };
        self.read(name)?.ok_or_else(missing)
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.root.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", error).in_file(path)),
        };
        let mut bytes = Vec::new();
        match file.take(MAX_BYTES).read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            // /proc/pressure without psi=1 is there, and cannot be read.
            Err(error) if error.raw_os_error() == Some(95) => Ok(None),
            Err(error) => Err(Error::io("read", error).in_file(path)),
        }
    }

    fn strange(&self, name: &str) -> Error {
        Error::corrupt("first line", "is not as Linux writes it").in_file(self.root.join(name))
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
}

/// Returns the milliseconds of `/proc/uptime`, which are seconds with two digits behind the point.
fn uptime_ms(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = fraction.get(..2)?.parse().ok()?;
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1000)?.checked_add(hundredths * 10)
}

/// Returns what all processors did, and how many are online.
fn ticks(text: &str) -> Result<(CpuTicks, u32)> {
    let mut ticks = None;
    let mut n_cpus = 0u32;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("cpu") else {
            continue;
        };
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            n_cpus = n_cpus.saturating_add(1);
        } else if ticks.is_none() {
            ticks = Some(CpuTicks::of(numbers(rest)));
        }
    }
    let none = || Error::corrupt("/proc/stat", "it has no line of all processors");
    Ok((ticks.ok_or_else(none)?, n_cpus.max(1)))
}

fn memory(text: &str) -> Result<MemoryKib> {
    let field = |name: &str| value(text, name, ':');
    let huge_kib = field("Hugepagesize").unwrap_or(0);
    let huge = |name: &str| field(name).unwrap_or(0).saturating_mul(huge_kib);
    let or_0 = |name: &str| field(name).unwrap_or(0);
    let no_total = || Error::corrupt("/proc/meminfo", "it has no MemTotal");
    Ok(MemoryKib {
        total: field("MemTotal").ok_or_else(no_total)?,
        free: or_0("MemFree"),
        available: field("MemAvailable"),
        buffers: or_0("Buffers"),
        cached: or_0("Cached"),
        reclaimable: or_0("SReclaimable"),
        shared: or_0("Shmem"),
        anonymous: or_0("AnonPages"),
        committed: or_0("Committed_AS"),
        swap: or_0("SwapTotal"),
        swap_free: or_0("SwapFree"),
        huge: huge("HugePages_Total"),
        huge_free: huge("HugePages_Free"),
    })
}

fn paging(text: &str) -> Paging {
    let field = |name: &str| value(text, name, ' ').unwrap_or(0);
    Paging {
        swapped_in: field("pswpin"),
        swapped_out: field("pswpout"),
        major_faults: field("pgmajfault"),
        killed: field("oom_kill"),
    }
}

/// Returns the number in the line that begins with `name` and `after`.
fn value(text: &str, name: &str, after: char) -> Option<u64> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(after))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Reads `some avg10=0.00 avg60=0.00 avg300=4.73 total=38595628235`.
fn stall(text: &str, word: &str) -> Option<Stall> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    let field = |name: &str| {
        let mut fields = line.split_whitespace();
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    let percent: f64 = field("avg300")?.parse().ok()?;
    Some(Stall {
        total_us: field("total")?.parse().ok()?,
        // At most 10000: what is more, or no number, becomes an edge of the type.
        avg300: (percent * 100.0).round() as u16,
    })
}

/// Reads a line of `/proc/diskstats`.
fn disk(line: &str) -> Option<Device> {
    let mut words = line.split_whitespace();
    let name = words.nth(2)?;
    let rest: Vec<&str> = words.collect();
    let [reads, _, read, _, writes, _, written, _, _, busy, waited] = numbers(&rest.join(" "));
    Some(Device {
        kind: DeviceKind::Disk,
        name: name.to_owned(),
        reads,
        read_bytes: read.saturating_mul(SECTOR_BYTES),
        writes,
        written_bytes: written.saturating_mul(SECTOR_BYTES),
        busy,
        waited,
    })
}

/// Reads a line of `/proc/net/dev`.
fn nic(line: &str) -> Option<Device> {
    let (name, rest) = line.split_once(':')?;
    let [read_bytes, reads, e1, d1, .., written_bytes, writes, e2, d2] = numbers::<12>(rest);
    Some(Device {
        kind: DeviceKind::Nic,
        name: name.trim().to_owned(),
        reads,
        read_bytes,
        writes,
        written_bytes,
        busy: [e1, d1, e2, d2].into_iter().fold(0, u64::saturating_add),
        waited: 0,
    })
}

/// Returns the first numbers of a line; those that are missing are 0.
fn numbers<const N: usize>(text: &str) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(text.split_whitespace()) {
        *number = word.parse().unwrap_or(0);
    }
    numbers
}
