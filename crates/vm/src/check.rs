//! What a machine may be called.

use hako_block::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

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
