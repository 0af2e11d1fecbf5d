//! Patterns as of the shell: `*`, `?` and `[…]`.

/// Returns whether `text` is what `pattern` describes. A `[` without its `]` stands for itself.
/// Takes at most as many steps as the product of both lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    // Where to go on when something does not match: behind the last `*`, and one byte further on.
    let mut again: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(here) {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            again = Some((at, here));
        } else if let Some(next) = one(pattern, at, byte) {
            at = next;
            here += 1;
        } else if let Some((behind, from)) = again {
            at = behind;
            here = from + 1;
            again = Some((behind, here));
        } else {
            return false;
        }
    }
    let rest = pattern.get(at..).unwrap_or_default();
    rest.iter().all(|&byte| byte == b'*')
}

/// Returns where the pattern goes on if what it has at `at` is `byte`.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => match class(pattern.get(at + 1..)?, byte) {
            Some((is_in, len)) => is_in.then_some(at + 1 + len),
            None => (byte == b'[').then_some(at + 1),
        },
        literal => (literal == byte).then_some(at + 1),
    }
}

/// Returns whether `byte` is in the class that begins here, and the length of that with its `]`.
fn class(rest: &[u8], byte: u8) -> Option<(bool, usize)> {
    let is_negated = matches!(rest.first(), Some(b'!' | b'^'));
    let begin = usize::from(is_negated);
    // A `]` at the beginning is in the class.
    let body = rest.get(begin..)?;
    let len = 1 + body.get(1..)?.iter().position(|&byte| byte == b']')?;
    let mut members = body.get(..len)?;
    let mut is_in = false;
    while let [first, more @ ..] = members {
        members = more;
        is_in |= match more {
            [b'-', last, after @ ..] => {
                members = after;
                (*first..=*last).contains(&byte)
            }
            _ => *first == byte,
        };
    }
    Some((is_in != is_negated, begin + len + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_the_shell() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*b", "ab", true),
            ("a*b", "axxb", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b", "axx", false),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]", "]", true),
            ("[ab", "[ab", true),
            ("arch-*", "arch-lts", true),
            (
                "pci:v000015ADd000007C0sv*sd*bc*sc*i*",
                "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00",
                true,
            ),
        ] {
            let found = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, expected, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_forever() {
        let pattern = "*a".repeat(1000);
        assert!(!matches(pattern.as_bytes(), "a".repeat(999).as_bytes()));
    }
}
