//! Numbers as people read them.

/// The units of a size: the powers of 1024, from the first on.
pub const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Returns the size for people: `20 GiB`, `1.5 MiB`, `512 bytes`.
pub fn human(bytes: u64) -> String {
    let Some(power) = (1..=UNITS.len())
        .rev()
        .find(|power| bytes >> (10 * power) > 0)
    else {
        return format!("{bytes} bytes");
    };
    let (unit_shift, unit) = (10 * power, UNITS[power - 1]);
    let tenths = (u128::from(bytes) * 10) >> unit_shift;
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}
