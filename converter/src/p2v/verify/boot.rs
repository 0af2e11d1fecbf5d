//! How far a boot got, by what the guest says on its console and its screen.

use hako_vm::run::QUESTIONS;

use super::testimony::Testimony;
use super::{About, Check, Outcome};

/// What a boot has left behind so far.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    /// What the guest wrote to its console.
    pub console: &'a str,
    /// What is on its text screen.
    pub screen: &'a str,
    /// What the witness said.
    pub testimony: Option<&'a Testimony>,
    /// Whether a question for a passphrase was answered: it stands there still, and may be over.
    pub is_answered: bool,
    /// Whether it went off by itself.
    pub is_off: bool,
    /// Why it was given up, if it was.
    pub given_up: Option<&'a str>,
}

/// A place where boots end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadEnd {
    /// What is seen there; any of them.
    seen: &'static [&'static str],
    /// What it is.
    pub name: &'static str,
    /// What may help.
    pub hint: &'static str,
    /// Whether systemd of the system itself runs there: it may still say why.
    pub has_systemd: bool,
    /// Whether somebody who knows the passphrase gets on.
    pub is_question: bool,
}

const ADAPT: &str = "`hako p2v adapt` adds drivers to the initrd and mends names of devices";
const FSTAB: &str =
    "a line of fstab may name what is not there: `hako p2v adapt` mends names of devices";
const LOADER: &str =
    "the boot loader's files are not where it looks: are all disks there, in the right order?";

/// Where boots end, the telling ones first.
const DEAD_ENDS: &[DeadEnd] = &[
    DeadEnd {
        seen: &["Kernel panic - not syncing"],
        name: "the kernel gave up (panic)",
        hint: ADAPT,
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: &["(initramfs)"],
        name: "the initrd (initramfs-tools) did not find the root and stays in its shell",
        hint: ADAPT,
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: &[
            "dracut:/#",
            "Entering emergency mode. Exit the shell to continue",
        ],
        name: "the initrd (dracut) did not find the root and stays in its shell",
        hint: ADAPT,
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: &[
            "You are in emergency mode",
            "Give root password for maintenance",
            "Press Enter for maintenance",
            "Cannot open access to console, the root account is locked",
        ],
        name: "systemd gave up and stays in emergency mode",
        hint: FSTAB,
        has_systemd: true,
        is_question: false,
    },
    DeadEnd {
        seen: &["grub rescue>"],
        name: "GRUB did not find its modules (grub rescue)",
        hint: LOADER,
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: &["grub> ", "Minimal BASH-like line editing"],
        name: "GRUB has no menu",
        hint: LOADER,
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: &[
            "No bootable device",
            "Boot failed: not a bootable disk",
            "Operating system not found",
            "Missing operating system",
            "No bootable option or device was found",
        ],
        name: "the firmware found nothing to boot",
        hint: "is the machine's firmware (bios, efi) that of the server? For UEFI `hako p2v adapt` \
               adds the loader that firmware looks for",
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: &["UEFI Interactive Shell", "Shell> "],
        name: "the firmware found nothing to boot and stays in its shell",
        hint: "`hako p2v adapt` adds the loader that UEFI firmware looks for",
        has_systemd: false,
        is_question: false,
    },
    DeadEnd {
        seen: QUESTIONS,
        name: "it asks for the passphrase of an encrypted disk, and has not been given one that opens it",
        hint: "--key FILE answers it on the serial console (`hako p2v adapt --serial-console` makes it ask \
               there); else start a clone of it, and look yourself",
        has_systemd: false,
        is_question: true,
    },
];

/// Lines that say why a boot ended where it did.
const REASONS: &[&str] = &[
    "Kernel panic - not syncing",
    "ALERT!",
    "does not exist",
    "Unable to mount root fs",
    "Dependency failed for",
    "Timed out waiting for device",
    "error: ",
    "Could not boot",
    "mount: ",
    "Volume group",
];
/// How many of them are told.
const MOST_REASONS: usize = 5;
/// What asks for a name at the end of a line.
const LOGIN: &str = "login:";

/// Returns where a boot has ended, if it has.
pub fn dead_end(signs: &Signs<'_>) -> Option<DeadEnd> {
    let console = tail(signs.console);
    // What was answered is asked again where it says so last.
    let now = [console, signs.screen].map(|text| text.lines().next_back().unwrap_or_default());
    let texts = |end: &DeadEnd| match end.is_question && signs.is_answered {
        true => now,
        false => [console, signs.screen],
    };
    let mut all = DEAD_ENDS.iter();
    all.find(|end| {
        let mut seen = end.seen.iter();
        seen.any(|what| texts(end).iter().any(|text| text.contains(what)))
    })
    .copied()
}

/// Returns whether the console asks for a name.
pub fn asks_for_login(signs: &Signs<'_>) -> bool {
    let asks = |text: &str| {
        let mut lines = text.lines().rev().map(str::trim_end);
        lines.any(|line| line.ends_with(LOGIN) && !line.contains("Last login"))
    };
    asks(signs.console) || asks(signs.screen)
}

/// Says how far a boot got: whether it came up, and whether one can log in.
pub fn judge(signs: &Signs<'_>) -> Vec<Check> {
    let is_up = signs
        .testimony
        .is_some_and(|told| matches!(told.state.as_str(), "running" | "degraded"));
    let asks = asks_for_login(signs);
    let end = dead_end(signs).filter(|_| !is_up && !asks);
    let mut notes = Vec::new();
    let outcome = match (is_up || asks, end) {
        (true, _) => Outcome::Passed,
        (false, Some(end)) => {
            notes.push(end.name.to_owned());
            notes.extend(reasons(signs));
            notes.push(format!("hint: {}", end.hint));
            match end.is_question {
                true => Outcome::Warning,
                false => Outcome::Failed,
            }
        }
        (false, None) => {
            notes.push(why_not(signs));
            notes.extend(reasons(signs));
            Outcome::Failed
        }
    };
    if let Some(told) = signs.testimony {
        notes.push(format!(
            "kernel {}, systemd says {}",
            told.kernel, told.state
        ));
    }
    let boot = Check {
        about: About::Boot,
        name: "boot".to_owned(),
        outcome,
        notes,
    };
    match outcome {
        Outcome::Passed => vec![boot, login(signs, asks)],
        _ => vec![boot],
    }
}

fn login(signs: &Signs<'_>, asks: bool) -> Check {
    let units = signs.testimony.map(|told| told.logins.as_slice());
    let (outcome, note) = match (asks, units) {
        (true, _) => (Outcome::Passed, "the console asks for a login".to_owned()),
        (false, Some(units)) if !units.is_empty() => (
            Outcome::Passed,
            format!(
                "nothing asks on the serial console; there are {}",
                units.join(", ")
            ),
        ),
        (false, Some(_)) => (Outcome::Warning, "nothing asks for a login".to_owned()),
        (false, None) => (Outcome::NotChecked, "nobody could tell".to_owned()),
    };
    Check {
        about: About::Login,
        name: "console".to_owned(),
        outcome,
        notes: vec![note],
    }
}

fn why_not(signs: &Signs<'_>) -> String {
    let what = match (signs.is_off, signs.given_up) {
        (true, _) => "it went off by itself",
        (false, Some(why)) => why,
        (false, None) => "it did not come up",
    };
    let said = |text: &str, who: &str| {
        let line = text
            .lines()
            .rev()
            .map(printable)
            .find(|line| !line.is_empty());
        line.map(|line| format!("{what}; its {who} said last: {line}"))
    };
    said(signs.console, "console")
        .or_else(|| said(signs.screen, "screen"))
        .unwrap_or_else(|| format!("{what}; it said nothing, on its serial console or its screen"))
}

/// Returns lines that say why.
fn reasons(signs: &Signs<'_>) -> Vec<String> {
    let lines = tail(signs.console).lines().chain(signs.screen.lines());
    let mut found: Vec<String> = Vec::new();
    for line in lines.map(printable) {
        let tells = REASONS.iter().any(|reason| line.contains(reason));
        if tells && found.len() < MOST_REASONS && !found.contains(&line) {
            found.push(line);
        }
    }
    found
}

/// Returns the end of a text, where what counts is.
fn tail(text: &str) -> &str {
    const TAIL_BYTES: usize = 16 << 10;
    let from = text.len().saturating_sub(TAIL_BYTES);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at));
    from.and_then(|from| text.get(from..)).unwrap_or(text)
}

/// Returns a line without what steers a terminal.
fn printable(line: &str) -> String {
    const MOST_LETTERS: usize = 200;
    let mut out = String::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            // CSI: up to its last letter.
            '\u{1b}' => {
                if letters.next() == Some('[') {
                    letters.find(|letter| letter.is_ascii_alphabetic());
                }
            }
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out.trim().chars().take(MOST_LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(console: &str) -> Signs<'_> {
        Signs {
            console,
            screen: "",
            testimony: None,
            is_answered: false,
            is_off: false,
            given_up: None,
        }
    }

    #[test]
    fn a_login_is_a_boot_and_shells_of_initrds_are_none() {
        let up = judge(&signs(
            "Debian GNU/Linux 12 guest ttyS0\r\n\r\nguest login: ",
        ));
        assert_eq!(up[0].outcome, Outcome::Passed);
        assert_eq!(up[1].outcome, Outcome::Passed);
        let shell = "Gave up waiting for root file system device.\r\n\
                     ALERT!  /dev/mapper/vg0-root does not exist.  Dropping to a shell!\r\n(initramfs) ";
        let down = judge(&signs(shell));
        assert_eq!(down[0].outcome, Outcome::Failed);
        assert!(down[0].notes[0].contains("initramfs-tools"), "{down:?}");
        assert!(down[0].notes[1].starts_with("ALERT!"), "{down:?}");
        assert!(down[0].notes[2].contains("p2v adapt"), "{down:?}");
        assert_eq!(down.len(), 1);
    }

    #[test]
    fn a_question_is_an_end_until_it_is_answered() {
        let asks = "[ 1.0] sda\r\nPlease unlock disk crypt: ";
        assert!(dead_end(&signs(asks)).unwrap().is_question);
        let later = format!("{asks}\r\ncryptsetup: set up successfully\r\n");
        assert!(dead_end(&signs(&later)).unwrap().is_question);
        let answered = |console| Signs {
            is_answered: true,
            ..signs(console)
        };
        assert_eq!(dead_end(&answered(&later)), None);
        assert!(dead_end(&answered(asks)).unwrap().is_question);
        let checks = judge(&signs(asks));
        assert_eq!(checks[0].outcome, Outcome::Warning);
        assert!(
            checks[0].notes.last().unwrap().contains("--key"),
            "{checks:?}"
        );
    }

    #[test]
    fn screens_tell_and_so_does_silence() {
        let rescue = Signs {
            screen: "error: no such device: 12ab.\ngrub rescue>",
            ..signs("")
        };
        let notes = &judge(&rescue)[0].notes;
        assert!(notes[0].contains("grub rescue"), "{notes:?}");
        assert_eq!(notes[1], "error: no such device: 12ab.");
        let mute = Signs {
            given_up: Some("it did not come up in 60 s"),
            ..signs("")
        };
        assert!(judge(&mute)[0].notes[0].contains("said nothing"));
        let colours = Signs {
            is_off: true,
            ..signs("\u{1b}[1;31mlast words\u{1b}[0m\r\n\r\n")
        };
        let notes = &judge(&colours)[0].notes;
        assert!(notes[0].ends_with("said last: last words"), "{notes:?}");
    }
}
