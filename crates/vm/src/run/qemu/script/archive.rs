//! The archive behind the initrd: a hook, what it runs, and the script.

use hako_block::{Error, Result};
use hako_guest::cpio::Writer;
use hako_guest::initrd::{Contents, Tool};

use super::GuestScript;

/// Most bytes of the script and its files.
const MAX_BYTES: usize = 256 << 20;

/// What the hook runs, in whatever shell and with whatever tools the initrd has: klibc's know few
/// options, and dracut's have no chroot: what is missing is taken from the root. `@NONCE@` tells our
/// lines from those of the script.
const RUNNER: &str = r#"#!/bin/sh
root=$1
exec </dev/null >/dev/ttyS1 2>&1
echo "HAKO-@NONCE@ begin"
tool() {
    for there in "" "$root/usr/sbin/" "$root/usr/bin/" "$root/sbin/" "$root/bin/"; do
        if command -v "$there$1" >/dev/null 2>&1; then
            echo "$there$1"
            return
        fi
    done
    echo "hako-has-no-$1"
}
status=125
if mount -o remount,rw "$root" || mount -o remount,rw none "$root"; then
    for name in dev proc sys run; do
        mount -o bind "/$name" "$root/$name" || echo "hako: $name is not there"
    done
    mkdir -p "$root/run/hako"
    mount -o bind /hako "$root/run/hako"
    $(tool chroot) "$root" /bin/sh /run/hako/begin
    status=$?
else
    echo "hako: the root cannot be written to"
fi
$(tool sync)
list=
while read -r device where rest; do
    case $where in "$root"/*) list="$where $list" ;; esac
done </proc/mounts
for where in $list; do umount "$where"; done
state=dirty
if mount -o remount,ro "$root" || mount -o remount,ro none "$root"; then state=clean; fi
$(tool sync)
echo
echo "HAKO-@NONCE@ end $status $state"
exec >/dev/null 2>&1
$(tool sync)
echo o >/proc/sysrq-trigger
sleep 600
"#;

/// What runs in the root: the script, once the volumes are there that it may mount. LVM writes nothing
/// down of that in the root.
const BEGIN: &str = r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
LC_ALL=C
export PATH HOME LC_ALL
vgchange -ay --config 'backup { backup = 0 archive = 0 }' >/dev/null 2>&1
cd /
exec /bin/sh /run/hako/script
"#;

/// Returns the archive. Errors: [`hako_block::ErrorKind::Unsupported`] for an initrd of another
/// kind, [`hako_block::ErrorKind::Invalid`] for a file's name that is none.
pub(super) fn build(script: &GuestScript<'_>, contents: &Contents, nonce: &str) -> Result<Vec<u8>> {
    let (path, hook) = hook(contents)?;
    let mut total = script.script.len();
    let mut writer = Writer::new(Vec::new());
    let failed = |error| Error::io("write an archive", error);
    for folder in folders_of(&path) {
        writer.directory(folder).map_err(failed)?;
    }
    writer.file(&path, 0o755, hook.as_bytes()).map_err(failed)?;
    writer.directory(b"hako").map_err(failed)?;
    writer.directory(b"hako/files").map_err(failed)?;
    let runner = RUNNER.replace("@NONCE@", nonce);
    for (name, content) in [
        ("run", runner.as_str()),
        ("begin", BEGIN),
        ("script", script.script),
    ] {
        let path = format!("hako/{name}");
        writer
            .file(path.as_bytes(), 0o700, content.as_bytes())
            .map_err(failed)?;
    }
    for (name, content) in script.files {
        if name.is_empty() || name.contains(['/', '\0']) || matches!(*name, "." | "..") {
            return Err(Error::invalid(format!("{name:?} is no name of a file")));
        }
        total = total.saturating_add(content.len());
        let path = format!("hako/files/{name}");
        writer
            .file(path.as_bytes(), 0o700, content)
            .map_err(failed)?;
    }
    if total > MAX_BYTES {
        return Err(Error::invalid(format!(
            "a script and files of more than {MAX_BYTES} bytes"
        )));
    }
    writer.finish().map_err(failed)
}

/// Returns where an initrd has what it calls with its root mounted, and what is to be there.
fn hook(contents: &Contents) -> Result<(Vec<u8>, &'static str)> {
    match contents.tool() {
        // The list of what is called, instead of the one that is there: nothing comes after us.
        Tool::InitramfsTools => Ok((
            contents.resolve(b"scripts/init-bottom/ORDER"),
            "sh /hako/run \"${rootmnt:-/root}\"\n",
        )),
        Tool::Dracut => Ok((
            contents.resolve(b"lib/dracut/hooks/pre-pivot/00-hako.sh"),
            "sh /hako/run \"${NEWROOT:-/sysroot}\"\n",
        )),
        other => Err(Error::unsupported(format!(
            "an initrd of {} has no place for a script",
            other.name()
        ))
        .hint("initrds of initramfs-tools and dracut have one")),
    }
}

/// Returns the folders on the way to a path, the outermost first.
fn folders_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.filter_map(|(end, _)| path.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(names: &[&str]) -> Contents {
        let mut writer = Writer::new(Vec::new());
        for name in names {
            match name.split_once("->") {
                Some((link, target)) => writer.link(link.as_bytes(), target.as_bytes()).unwrap(),
                None if name.ends_with('/') => writer
                    .directory(name.trim_end_matches('/').as_bytes())
                    .unwrap(),
                None => writer.file(name.as_bytes(), 0o644, b"x").unwrap(),
            }
        }
        let bytes = writer.finish().unwrap();
        Contents::read(&mut &*bytes, &Default::default()).unwrap()
    }

    #[test]
    fn the_hook_is_where_the_initrd_looks() {
        let tools = contents(&[
            "conf/",
            "conf/initramfs.conf",
            "scripts/",
            "scripts/functions",
        ]);
        assert_eq!(hook(&tools).unwrap().0, b"scripts/init-bottom/ORDER");
        let dracut = contents(&[
            "usr/",
            "usr/lib/",
            "lib->usr/lib",
            "usr/lib/dracut/",
            "usr/lib/dracut/hooks/",
        ]);
        assert_eq!(
            hook(&dracut).unwrap().0,
            b"usr/lib/dracut/hooks/pre-pivot/00-hako.sh"
        );
        let arch = contents(&["init_functions", "usr/", "usr/lib/", "usr/lib/initcpio/"]);
        assert!(hook(&arch).unwrap_err().to_string().contains("mkinitcpio"));
        let folders: Vec<&[u8]> = folders_of(b"a/b/c").collect();
        assert_eq!(folders, [b"a".as_slice(), b"a/b"]);
    }
}
