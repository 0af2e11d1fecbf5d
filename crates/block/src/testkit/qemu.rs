//! What qemu, the peer of most formats, calls them.

/// Returns qemu's name of the format that we call `format`.
pub fn qemu_name(format: &str) -> &str {
    match format {
        "vhd" => "vpc",
        other => other,
    }
}

/// Returns whether `qemu-img check` knows how to check the format that we call `format`.
pub fn qemu_checks(format: &str) -> bool {
    !matches!(format, "raw" | "vhd")
}
