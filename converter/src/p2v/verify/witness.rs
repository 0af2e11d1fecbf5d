//! Who tells what a guest is like once it is up: a service of systemd that is put into a throw-away copy,
//! and writes to the second serial port. Where the root is not written to, an archive behind the initrd
//! puts it into /run, which the system gets from its initrd.

use hako_block::{Error, Result};
use hako_guest::cpio::Writer;
use hako_guest::initrd::{Contents, Tool};

use crate::p2v::adapt::{Change, Guest, Plan, What};

/// Where the script is in the guest.
const SCRIPT: &str = "/etc/hako-verify";
const UNITS: &str = "/etc/systemd/system";
const UNIT: &str = "hako-verify.service";
/// Seconds for which the script waits until the system is up.
const MOST_SECONDS: u64 = 100_000;

/// What runs it. It is there as early as can be, and stays when systemd gives up, to say why.
const SERVICE: &str = "[Unit]
Description=hako p2v verify
DefaultDependencies=no
IgnoreOnIsolate=yes

[Service]
ExecStart=/bin/sh @SCRIPT@
StandardInput=null
StandardOutput=null
StandardError=null
";

/// What it runs, in any shell and with few tools. What is not there says nothing.
const TEXT: &str = r#"# Of `hako p2v verify`, in a copy that is thrown away.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
exec >/dev/ttyS1 2>/dev/null
stty -F /dev/ttyS1 raw -echo
waited=0
while [ $waited -lt @MOST@ ]; do
    state=$(systemctl is-system-running)
    case $state in running | degraded | maintenance) break ;; esac
    waited=$((waited + 1))
    sleep 1
done
# An address of a network may come last.
for second in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$(ip -o -4 address show scope global)" ] || break
    [ "$state" = maintenance ] && break
    sleep 1
done
echo "HAKO-@NONCE@ begin"
echo "state $state"
echo "kernel $(uname -r)"
systemctl list-units --failed --plain --no-legend --no-pager | while read -r unit rest; do
    echo "failed $unit"
done
systemctl list-units --plain --no-legend --no-pager --state=active '*getty@*' 'console-getty*' \
    'display-manager*' | while read -r unit rest; do
    echo "login $unit"
done
while read -r device where kind options rest; do
    echo "mount $where $kind $(readlink -f "$device" || echo "$device") $options"
done </proc/self/mounts
while read -r device kind rest; do
    [ "$kind" = Type ] || echo "swap $kind $(readlink -f "$device" || echo "$device")"
done </proc/swaps
for link in /dev/disk/by-uuid/*; do
    echo "uuid ${link##*/} $(readlink -f "$link")"
done
for nic in /sys/class/net/*; do
    read -r mac <"$nic/address"
    [ -e "$nic/bonding_slave/perm_hwaddr" ] && read -r mac <"$nic/bonding_slave/perm_hwaddr"
    driver=$(readlink -f "$nic/device/driver")
    echo "nic ${nic##*/} ${mac:--} ${driver##*/}"
done
ip -o address | while read -r number nic kind address rest; do
    echo "address $nic $address"
done
echo "HAKO-@NONCE@ end"
"#;

/// Returns what puts the witness into a guest; none if that has no systemd.
pub fn witness(guest: &Guest<'_>, nonce: &str) -> Option<Plan> {
    let tree = &guest.root.tree;
    let is_there = |path: &str| tree.find(path.as_bytes()).is_ok();
    let programs = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];
    if !programs.into_iter().any(is_there) {
        return None;
    }
    let mut plan = Plan::default();
    let mut add = |path: &str, what: What| {
        plan.changes.push(Change {
            path: path.to_owned(),
            what,
            why: Vec::new(),
        });
    };
    let wants = format!("{UNITS}/sysinit.target.wants");
    for folder in ["/etc/systemd", UNITS, &wants] {
        if !is_there(folder) {
            add(folder, What::Folder { mode: 0o755 });
        }
    }
    let text = script(nonce);
    let file = |text: &str| What::Create {
        bytes: text.as_bytes().to_vec(),
        mode: 0o644,
    };
    add(SCRIPT, file(&text));
    add(&format!("{UNITS}/{UNIT}"), file(&service(SCRIPT)));
    let target = format!("../{UNIT}");
    add(&format!("{wants}/{UNIT}"), What::Link { target });
    Some(plan)
}

/// What puts it into /run, by the shell and the tools of an initrd.
const HOOK: &str = "mkdir -p /run/systemd/system/sysinit.target.wants
cat /hako-verify/script >/run/hako-verify
cat /hako-verify/service >/run/systemd/system/hako-verify.service
ln -s ../hako-verify.service /run/systemd/system/sysinit.target.wants/hako-verify.service
";

/// Returns the archive that puts it into /run, to be behind the initrd; none if that is one of a kind
/// that has no place for it.
pub fn witness_archive(contents: &Contents, nonce: &str) -> Result<Option<Vec<u8>>> {
    let (path, hook) = match contents.tool() {
        Tool::InitramfsTools => (
            contents.resolve(b"scripts/init-bottom/ORDER"),
            format!("{HOOK}{}", others_of(contents)),
        ),
        Tool::Dracut => (
            contents.resolve(b"lib/dracut/hooks/pre-pivot/00-hako-verify.sh"),
            HOOK.to_owned(),
        ),
        _ => return Ok(None),
    };
    let failed = |error| Error::io("write an archive", error);
    let mut writer = Writer::new(Vec::new());
    let folders = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for folder in folders.filter_map(|(end, _)| path.get(..end)) {
        writer.directory(folder).map_err(failed)?;
    }
    writer.file(&path, 0o755, hook.as_bytes()).map_err(failed)?;
    writer.directory(b"hako-verify").map_err(failed)?;
    for (path, text) in [
        ("hako-verify/script", script(nonce)),
        ("hako-verify/service", service("/run/hako-verify")),
    ] {
        let written = writer.file(path.as_bytes(), 0o644, text.as_bytes());
        written.map_err(failed)?;
    }
    writer.finish().map(Some).map_err(failed)
}

/// Returns the calls of the scripts that initramfs-tools has there, whose list is replaced.
fn others_of(contents: &Contents) -> String {
    let folder = contents.resolve(b"scripts/init-bottom");
    let names = contents.members.keys().filter_map(|path| {
        let name = path.strip_prefix(folder.as_slice())?.strip_prefix(b"/")?;
        let name = std::str::from_utf8(name).ok()?;
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (name != "ORDER" && name.bytes().all(is_plain)).then_some(name)
    });
    let calls = names.map(|name| {
        format!(
            "/scripts/init-bottom/{name} \"$@\"\n[ -e /conf/param.conf ] && . /conf/param.conf\n"
        )
    });
    calls.collect()
}

fn script(nonce: &str) -> String {
    TEXT.replace("@NONCE@", nonce)
        .replace("@MOST@", &MOST_SECONDS.to_string())
}

fn service(script: &str) -> String {
    SERVICE.replace("@SCRIPT@", script)
}
