//! Sizes as people write and read them: powers of 1024.

use hako_block::SECTOR_BYTES;
use hako_block::words::UNITS;
pub use hako_block::words::human;

/// Reads `512`, `512M`, `20G`, `1.5TiB`. A fraction is rounded up to a whole sector, so that
/// `1.1G` is the size of a disk.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let number_len = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let multiplier = multiplier(unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err("write it like 512, 512M, 20G or 1.5T".to_owned());
    }
    let too_large = || "too large".to_owned();
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let whole = whole.checked_mul(multiplier).ok_or_else(too_large)?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        return Ok(whole);
    }
    let part = part_of(fraction, multiplier)?;
    whole.checked_add(part).ok_or_else(too_large)
}

fn multiplier(unit: &str) -> Result<u64, String> {
    if unit.is_empty() {
        return Ok(1);
    }
    for (power, name) in (1u32..).zip(UNITS) {
        if unit.eq_ignore_ascii_case(name) || unit.eq_ignore_ascii_case(&name[..1]) {
            return Ok(1 << (10 * power));
        }
    }
    Err(format!(
        "unknown unit {unit:?}: one of K, M, G, T, P, E (powers of 1024; KiB, MiB … too)"
    ))
}

/// Returns `0.fraction` of a unit, rounded up to a sector.
fn part_of(fraction: &str, multiplier: u64) -> Result<u64, String> {
    if multiplier == 1 {
        return Err("a fraction of a byte".to_owned());
    }
    let digits: u128 = match fraction.parse() {
        Ok(digits) if fraction.len() <= 15 => digits,
        _ => return Err("too many digits after the point".to_owned()),
    };
    let scale = 10u128.pow(fraction.len() as u32) * u128::from(SECTOR_BYTES);
    let sectors = (digits * u128::from(multiplier)).div_ceil(scale);
    let sectors = u64::try_from(sectors).map_err(|_| "too large".to_owned())?;
    Ok(sectors * SECTOR_BYTES)
}

/// Returns the size for people with the exact bytes: `20 GiB (21474836480 bytes)`.
pub fn human_and_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        human(bytes)
    } else {
        format!("{} ({bytes} bytes)", human(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512M", 512 << 20),
            ("20g", 20 << 30),
            ("1T", 1 << 40),
            ("64KiB", 65536),
            ("64 kib", 65536),
            ("1.5G", 3 << 29),
            ("1.50G", 3 << 29),
            ("0.5K", 512),
            ("1.1G", 1_181_116_416),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "G",
            "-1",
            "+1",
            "1X",
            "1KB",
            "1.5",
            "1.",
            ".5G",
            "1.2.3G",
            "16E",
            "1e9",
            "99999999999999999999",
            "0x10",
            "1.0000000000000000001G",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(0), "0 bytes");
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(65536), "64 KiB");
        assert_eq!(human(3 << 29), "1.5 GiB");
        assert_eq!(human((1 << 30) + 1), "1 GiB");
        assert_eq!(human_and_bytes(1024), "1 KiB (1024 bytes)");
        assert_eq!(human(u64::MAX), "15.9 EiB");
    }
}
