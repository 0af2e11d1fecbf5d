//! Whether this host's processor runs guests.

use std::fs::OpenOptions;

/// Returns why KVM cannot run a system here, if it cannot. A /dev/kvm alone says little: one that has
/// no processor behind it boots no Linux.
pub(super) fn kvm_lacks() -> Option<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    missing(&cpuinfo, opened.err().as_ref())
}

/// Returns what KVM lacks here, if anything.
fn missing(cpuinfo: &str, error: Option<&std::io::Error>) -> Option<String> {
    let flags = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"));
    let mut flags = flags.flat_map(str::split_whitespace);
    if !flags.any(|flag| flag == "vmx" || flag == "svm") {
        return Some("the processor offers neither VT-x nor AMD-V here".to_owned());
    }
    error.map(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "/dev/kvm may not be opened: be in its group, usually kvm".to_owned()
        }
        _ => format!("/dev/kvm cannot be opened: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_a_processor_for_it() {
        let with = "processor\t: 0\nflags\t\t: fpu vme svm lm\n";
        let without = "processor\t: 0\nflags\t\t: fpu vme lm\nbugs : svm\n";
        assert_eq!(missing(with, None), None);
        assert!(missing(without, None).unwrap().contains("AMD-V"));
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert!(missing(with, Some(&denied)).unwrap().contains("group"));
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert!(
            missing(with, Some(&gone))
                .unwrap()
                .contains("cannot be opened")
        );
    }
}
