//! Numbers as people read them.

const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// Returns a length: `447.1 GiB`.
pub fn human(bytes: u64) -> String {
    let mut shown = format!("{bytes} bytes");
    for (power, unit) in (1u32..).zip(UNITS) {
        if bytes >> (10 * power) == 0 {
            break;
        }
        let tenths = (u128::from(bytes) * 10) >> (10 * power);
        shown = match tenths % 10 {
            0 => format!("{} {unit}", tenths / 10),
            tenth => format!("{}.{tenth} {unit}", tenths / 10),
        };
    }
    shown
}
