//! The first serial port as a console, for machines that have no other screen than a log.

use super::boot::command_lines;
use super::words::with_lines;
use super::{Guest, Plan};

const CONSOLE: &str = "console=tty0 console=ttyS0,115200n8";

/// Adds the console to every command line that does not have it.
pub(super) fn add(guest: &Guest<'_>, plan: &mut Plan) {
    let mut found = false;
    for path in command_lines(guest) {
        let Some(old) = plan.text(guest, &path) else {
            continue;
        };
        let new = match path.as_str() {
            "/etc/kernel/cmdline" => with_lines(&old, |line| appended(line, "")),
            _ => with_lines(&old, |line| with_console(&path, line)),
        };
        found |= new != old || new.contains("console=ttyS0");
        let original = guest.text(&path).unwrap_or_default();
        if new != old {
            let why = vec!["the first serial port is a console".to_owned()];
            plan.replace(&path, &original, new, why);
        }
    }
    if !found {
        let what = "no command line was found that a serial console could be added to";
        plan.remarks.push(what.into());
    }
}

fn with_console(path: &str, line: &str) -> Option<String> {
    if path.starts_with("/etc/default/") {
        let value = line.trim_start().strip_prefix("GRUB_CMDLINE_LINUX=")?;
        let quote = value
            .chars()
            .next()
            .filter(|quote| matches!(quote, '"' | '\''))?;
        let (head, tail) = line.rsplit_once(quote)?;
        return appended(head, &format!("{quote}{tail}"));
    }
    let word = line.split_ascii_whitespace().next()?;
    // Other loaders than GRUB have a kernel's path, and nothing else, where GRUB has its options, too.
    let words: &[&str] = match path {
        _ if path.contains("/loader/entries/") => &["options"],
        _ if path.ends_with("linux.conf") || path.ends_with("linux.cfg") => &["append"],
        _ => &["linux", "linux16", "linuxefi", "kernel"],
    };
    let mut words = words.iter();
    match words.any(|known| known.eq_ignore_ascii_case(word)) {
        true => appended(line, ""),
        false => None,
    }
}

fn appended(line: &str, tail: &str) -> Option<String> {
    let has = line.contains("console=ttyS0") || line.trim().is_empty();
    let blank = if line.ends_with(['"', '\'', ' ']) {
        ""
    } else {
        " "
    };
    (!has).then(|| format!("{line}{blank}{CONSOLE}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_every_loader_get_the_console_once() {
        let with = |path: &str, line: &str| with_console(path, line);
        let console = |line: &str| Some(format!("{line} {CONSOLE}"));
        assert_eq!(
            with("/boot/grub/grub.cfg", "\tlinux /v ro"),
            console("\tlinux /v ro")
        );
        assert_eq!(
            with("/boot/loader/entries/a.conf", "options ro"),
            console("options ro")
        );
        assert_eq!(with("/boot/loader/entries/a.conf", "linux /vmlinuz"), None);
        let extlinux = "/boot/extlinux/extlinux.conf";
        assert_eq!(with(extlinux, "  APPEND ro"), console("  APPEND ro"));
        for line in ["  LINUX /vmlinuz", "kernel /vmlinuz"] {
            assert_eq!(with(extlinux, line), None);
        }
        assert_eq!(
            with("/boot/grub/menu.lst", "kernel /vmlinuz ro"),
            console("kernel /vmlinuz ro")
        );
        assert_eq!(with("/boot/grub/grub.cfg", "linux /v console=ttyS0"), None);
        assert_eq!(with("/boot/grub/grub.cfg", "initrd /i"), None);
        let default = |line: &str| with("/etc/default/grub", line);
        let empty = Some(format!("GRUB_CMDLINE_LINUX=\"{CONSOLE}\""));
        assert_eq!(default("GRUB_CMDLINE_LINUX=\"\""), empty);
        let more = Some(format!("GRUB_CMDLINE_LINUX='a {CONSOLE}'"));
        assert_eq!(default("GRUB_CMDLINE_LINUX='a'"), more);
        assert_eq!(default("GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\""), None);
    }
}
