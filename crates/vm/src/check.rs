//! What a machine must be like for the products that run it.

use hako_block::{Error, Result};
use hako_formats::machine::Cpu;

/// Memory comes in pieces of 4 MiB (VMX key `memsize`, in MiB).
const MEMORY_UNIT_BYTES: u64 = 4 << 20;
/// Most memory: 24 TiB (hardware version 18 and later).
const MAX_MEMORY_BYTES: u64 = 24 << 40;
/// Most processors (hardware version 18 and later).
const MAX_CPUS: u32 = 768;

/// Refuses a name that cannot be that of a machine and its files.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let what = if name.is_empty() {
        "is empty"
    } else if name.len() > 200 {
        "is longer than 200 bytes"
    } else if name.contains('/') || name.starts_with(['.', '-']) {
        "has a / in it, or begins with . or -"
    } else if name.chars().any(char::is_control) {
        "has control characters in it"
    } else if name.to_ascii_lowercase().ends_with(".vmx") || name.trim() != name {
        "ends in .vmx, or has blanks around it"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the name {name:?} {what}")))
}

/// Refuses processors that no product starts.
pub(crate) fn check_cpu(cpu: Cpu) -> Result<()> {
    if cpu.count == 0 || cpu.count > MAX_CPUS || cpu.cores_per_socket == 0 {
        let what = format!("{} processors: 1 to {MAX_CPUS} can be", cpu.count);
        return Err(Error::invalid(what));
    }
    if !cpu.count.is_multiple_of(cpu.cores_per_socket) {
        return Err(Error::invalid(format!(
            "{} processors are no multiple of {} cores per socket",
            cpu.count, cpu.cores_per_socket
        )));
    }
    Ok(())
}

/// Refuses an amount of memory that no product starts.
pub(crate) fn check_memory(bytes: u64) -> Result<()> {
    if bytes == 0 || bytes > MAX_MEMORY_BYTES {
        return Err(Error::invalid(format!(
            "{bytes} bytes of memory: 4 MiB to 24 TiB can be"
        )));
    }
    if !bytes.is_multiple_of(MEMORY_UNIT_BYTES) {
        return Err(Error::invalid(format!(
            "{bytes} bytes of memory are no multiple of 4 MiB"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_product_starts_is_refused() {
        let cpu = |count, cores_per_socket| Cpu {
            count,
            cores_per_socket,
        };
        assert!(check_cpu(cpu(4, 2)).is_ok());
        for wrong in [cpu(0, 1), cpu(4, 3), cpu(2, 4), cpu(4, 0), cpu(1000, 1)] {
            assert!(check_cpu(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_memory(512 << 20).is_ok());
        for wrong in [0, 1, 510 << 20, 4097 << 10, u64::MAX] {
            assert!(check_memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_would_be_no_files_are_refused() {
        for name in ["web", "Web server (2)", "\u{fc}ber", "a.b"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
        let long = "a".repeat(201);
        for name in [
            "", ".", "..", ".web", "-web", "a/b", "a\nb", "web.vmx", " web", &long,
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
