//! Addresses of network cards in texts: where one names a card of the server by its address, and the
//! card in the machine has another, it is named by that.
//!
//! Only whole addresses are looked at, never a part of a longer number (a DUID, an address of IPv6), and
//! nothing in comments. All of them change at once: cards may have swapped their addresses.

use std::collections::BTreeMap;

use hako_formats::machine::Mac;

use super::words::with_lines;
use super::{Guest, NicName, Plan, boot};
use crate::p2v::inventory::KnownBy;

/// Folders and endings of texts that name cards by their addresses, or give them addresses.
const FOLDERS: &[(&str, &str)] = &[
    ("/etc/systemd/network", ""),
    ("/etc/udev/rules.d", ".rules"),
    ("/etc/netplan", ".yaml"),
    ("/etc/cloud/cloud.cfg.d", ".cfg"),
    ("/etc/sysconfig/network-scripts", ""),
    ("/etc/sysconfig/network", ""),
    ("/etc/NetworkManager/system-connections", ""),
    ("/etc/NetworkManager/conf.d", ".conf"),
    ("/etc/network", "interfaces"),
    ("/etc/network/interfaces.d", ""),
];

/// How long an address is, written.
const MAC_CHARS: usize = 17;

/// Which address takes the place of which, and the name of its card.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<Mac, (Mac, String)>);

impl Moves {
    /// Returns those of cards that have other addresses than on the server: than the guest's texts know
    /// them by, and than `were` says.
    pub(super) fn of(
        known: &[KnownBy],
        nics: &[NicName],
        were: &[NicName],
        plan: &mut Plan,
    ) -> Self {
        let mut moves = BTreeMap::new();
        for nic in nics {
            let known = known.iter().map(|known| &known.nic).chain(were);
            for was in known.filter(|was| was.name == nic.name && was.mac != nic.mac) {
                let new = (nic.mac, nic.name.clone());
                match moves.insert(was.mac, new) {
                    Some((other, name)) if other != nic.mac => {
                        moves.remove(&was.mac);
                        plan.remarks.push(format!(
                            "{} was the address of {name} and of {}: it stays where texts have it",
                            was.mac, nic.name
                        ));
                    }
                    _ => {}
                }
            }
        }
        Self(moves)
    }

    /// Returns the address that a card has now whose address this was.
    pub(super) fn now(&self, mac: Mac) -> Mac {
        self.0.get(&mac).map_or(mac, |(now, _)| *now)
    }

    /// Adds what changes in texts.
    pub(super) fn add(&self, guest: &Guest<'_>, plan: &mut Plan) {
        if self.0.is_empty() {
            return;
        }
        let mut paths = boot::command_lines(guest);
        for (folder, ending) in FOLDERS {
            paths.extend(guest.files_in(folder, ending));
        }
        for path in paths {
            if let (Some(old), Some(planned)) = (guest.text(&path), plan.text(guest, &path)) {
                let (new, why) = self.in_text(&planned);
                if new != planned {
                    plan.replace(&path, &old, new, why);
                }
            }
        }
    }

    /// Returns a text with the addresses that are there now, and what changed.
    pub(super) fn in_text(&self, text: &str) -> (String, Vec<String>) {
        let mut why = Vec::new();
        let new = with_lines(text, |line| {
            let (body, comment) = line.split_at(comment_at(line));
            let body = with_macs(body, |mac| {
                let (new, name) = self.0.get(&mac)?;
                let name = match name.parse::<Mac>() {
                    Ok(_) => "the only card",
                    Err(_) => name,
                };
                let reason = format!("{name} has the address {new} now, not {mac}");
                if !why.contains(&reason) {
                    why.push(reason);
                }
                Some(*new)
            })?;
            Some(body + comment)
        });
        (new, why)
    }
}

/// Returns where the comment of a line begins; its end if it has none.
fn comment_at(line: &str) -> usize {
    if line.trim_start().starts_with([';', '#']) {
        return 0;
    }
    let mut hashes = line.match_indices('#');
    let found = hashes.find(|(at, _)| {
        let before = line.get(..*at).unwrap_or_default();
        before.ends_with([' ', '\t'])
    });
    found.map_or(line.len(), |(at, _)| at)
}

/// Changes the addresses in a text, written as they were: with colons or dashes, in capitals or not.
/// None if none changes.
fn with_macs(text: &str, mut change: impl FnMut(Mac) -> Option<Mac>) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = 0;
    let mut at = 0;
    while at < text.len() {
        let new = mac_at(text, at).and_then(|(mac, written)| Some((change(mac)?, written)));
        let Some((new, written)) = new else {
            at += 1;
            continue;
        };
        out.push_str(text.get(rest..at).unwrap_or_default());
        out.push_str(&like(new, written));
        at += MAC_CHARS;
        rest = at;
    }
    out.push_str(text.get(rest..).unwrap_or_default());
    (rest > 0).then_some(out)
}

/// Returns the address that stands at a place, and how it is written.
fn mac_at(text: &str, at: usize) -> Option<(Mac, &str)> {
    let separator = text.as_bytes().get(at + 2)?;
    if !matches!(separator, b':' | b'-') {
        return None;
    }
    let written = text.get(at..at + MAC_CHARS)?;
    let mac = written.parse().ok()?;
    let (before, after) = (text.get(..at)?, text.get(at + MAC_CHARS..)?);
    let is_separator = |c: char| c == ':' || c == '-';
    let is_alone = match after.strip_prefix(is_separator) {
        Some(more) => !more.starts_with(|c: char| c.is_ascii_hexdigit()),
        None => !after.starts_with(|c: char| c.is_ascii_alphanumeric()),
    };
    // `eth0:` may stand before it (`ifname=`), but not a number more.
    let is_first = match before.strip_suffix(is_separator) {
        Some(less) => {
            let word = less.rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
            !word.chars().all(|c| c.is_ascii_hexdigit())
        }
        None => !before.ends_with(|c: char| c.is_ascii_alphanumeric()),
    };
    (is_alone && is_first).then_some((mac, written))
}

fn like(mac: Mac, written: &str) -> String {
    let text = mac.to_string();
    let text = match written.contains('-') {
        true => text.replace(':', "-"),
        false => text,
    };
    match written.chars().any(|c| c.is_ascii_uppercase()) {
        true => text.to_ascii_uppercase(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_addresses_outside_comments_change_and_keep_their_look() {
        let (a, b) = ("24:6e:96:aa:bb:01", "24:6e:96:aa:bb:02");
        let mac = |text: &str| text.parse::<Mac>().unwrap();
        let pairs = [
            (mac(a), (mac(b), "x".into())),
            (mac(b), (mac(a), "y".into())),
        ];
        let moves = Moves(BTreeMap::from(pairs));
        for (old, new) in [
            (
                "HWADDR=24:6E:96:AA:BB:01\r\n",
                "HWADDR=24:6E:96:AA:BB:02\r\n",
            ),
            (
                "ATTR{address}==\"24:6e:96:aa:bb:02\"",
                "ATTR{address}==\"24:6e:96:aa:bb:01\"",
            ),
            (
                "MACAddress=24-6e-96-aa-bb-01",
                "MACAddress=24-6e-96-aa-bb-02",
            ),
            (
                "ifname=ens10:24:6e:96:aa:bb:01 ro",
                "ifname=ens10:24:6e:96:aa:bb:02 ro",
            ),
            (
                "MACAddress=24:6e:96:aa:bb:01 24:6e:96:aa:bb:02 # 24:6e:96:aa:bb:01",
                "MACAddress=24:6e:96:aa:bb:02 24:6e:96:aa:bb:01 # 24:6e:96:aa:bb:01",
            ),
        ] {
            assert_eq!(moves.in_text(old).0, new);
        }
        for stays in [
            "# HWADDR=24:6e:96:aa:bb:01",
            " ; 24:6e:96:aa:bb:01",
            "DUID=00:01:24:6e:96:aa:bb:01",
            "x=24:6e:96:aa:bb:01:02",
            "x=24:6e:96:aa:bb:012",
            "x=a24:6e:96:aa:bb:01",
            "x=24:6e:96:aa:bb:03",
            "über 24:6e:96:aa:bb",
        ] {
            assert_eq!(moves.in_text(stays), (stays.to_owned(), Vec::new()));
        }
    }
}
