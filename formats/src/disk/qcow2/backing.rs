//! The name of a backing file's format: qemu's, which is not always ours.

/// Names that differ: ours and qemu's.
const DIFFERENT: &[(&str, &str)] = &[("vhd", "vpc")];

/// Returns what qemu calls the format that we call `name`.
pub fn to_qemu(name: &str) -> &str {
    let found = DIFFERENT.iter().find(|(ours, _)| *ours == name);
    found.map_or(name, |(_, qemus)| qemus)
}

/// Returns what we call the format that qemu calls `name`.
pub fn from_qemu(name: &str) -> &str {
    let found = DIFFERENT.iter().find(|(_, qemus)| *qemus == name);
    found.map_or(name, |(ours, _)| ours)
}
