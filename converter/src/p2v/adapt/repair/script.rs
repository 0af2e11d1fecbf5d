//! A plan as a script for the shell of the guest, whatever that is and whichever tools it has: those of
//! coreutils or busybox, and mount.

use std::collections::BTreeMap;
use std::sync::Arc;

use hako_block::{Error, Result};
use hako_guest::FoundVolume;
use hako_guest::root::Mounted;

use super::super::verify::in_volume;
use super::super::{Change, Guest, What};

/// What the script says when files have no label.
pub(super) const RELABELS: &str = "hako: files have no label";

/// Every command has to succeed. An array is not resynchronized: what that writes is not ours.
const BEGIN: &str = r#"set -eu
umask 077
files=/run/hako/files
for action in /sys/block/md*/md/sync_action; do
    [ ! -e "$action" ] || echo frozen >"$action"
done
fail() {
    echo "hako: $1"
    exit 1
}
# is_mounted WHERE
is_mounted() {
    while read -r _ where _; do
        [ "$where" != "$1" ] || return 0
    done </proc/mounts
    return 1
}
mounted=
writable=
# mount_at WHERE KIND OPTIONS WHAT
mount_at() {
    if is_mounted "$1"; then
        mount -o remount,rw "$1"
        writable="$1 $writable"
    else
        modprobe -q "$2" || :
        mount -t "$2" -o "$3" "$4" "$1"
        mounted="$1 $mounted"
    fi
}
is_new() {
    [ ! -e "$1" ] && [ ! -L "$1" ] || fail "$1 is there already"
}
unlabelled=
# label WHAT LIKE
label() {
    chcon -h --reference="$2" "$1" 2>/dev/null || unlabelled=yes
}
"#;

const END: &str = r#"sync
for where in $mounted; do umount "$where"; done
for where in $writable; do mount -o remount,ro "$where"; done
"#;

/// A script, and the files that it takes.
pub(super) struct Script<'a> {
    pub text: String,
    /// Their names, and what is in them.
    pub files: Vec<(String, &'a [u8])>,
}

impl<'a> Script<'a> {
    /// Returns what carries changes out. Errors: [`hako_block::ErrorKind::Unsupported`] for a file
    /// system that has no UUID to be mounted by.
    pub fn of(guest: &Guest<'_>, changes: &'a [Change]) -> Result<Self> {
        let mut script = Self {
            text: BEGIN.to_owned(),
            files: Vec::new(),
        };
        script.mount_needed(guest, changes)?;
        let others = script.mount_others(guest, changes)?;
        let uses_labels = uses_selinux(guest);
        for change in changes {
            let (path, is_fat) = match in_volume(guest.volumes, &change.path)? {
                Some((volume, inner)) => {
                    let top = others.get(&volume.name).map_or("", String::as_str);
                    (format!("{top}/{inner}"), volume.content.kind == "vfat")
                }
                None => (change.path.clone(), is_on_fat(guest, &change.path)),
            };
            script.change(&path, &change.what);
            let is_new = matches!(
                change.what,
                What::Create { .. } | What::Folder { .. } | What::Link { .. }
            );
            if is_new && !is_fat {
                script.look(&path, &change.what, uses_labels);
            }
        }
        if uses_labels {
            let relabel = format!("{{ : >/.autorelabel; echo {RELABELS:?}; }}");
            script.line(&format!("[ -z \"$unlabelled\" ] || {relabel}"));
        }
        script.text.push_str(END);
        Ok(script)
    }

    /// Returns the bytes of all its files.
    pub fn n_bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Mounts what of the guest's own has to be: where changes are.
    fn mount_needed(&mut self, guest: &Guest<'_>, changes: &[Change]) -> Result<()> {
        for mount in guest.root.mounts.iter().skip(1) {
            let mut volumes = guest.volumes.list().iter();
            let volume = volumes.find(|found| found.name == mount.volume);
            let volume = volume.ok_or_else(|| Error::invalid("a volume that is not there"))?;
            let is_in_it = |change: &Change| {
                is_below(&change.path, &mount.path) || leads_to(guest, &change.path, volume)
            };
            if !changes.iter().any(is_in_it) {
                continue;
            }
            let subvolume = match mount.subvolume.as_deref() {
                Some(id) if id.bytes().all(|byte| byte.is_ascii_digit()) => {
                    format!(",subvolid={id}")
                }
                Some(path) => format!(",subvol={path}"),
                None => String::new(),
            };
            self.mount(&mount.path, volume, &subvolume)?;
        }
        Ok(())
    }

    /// Mounts volumes that the guest does not; returns where each is.
    fn mount_others(
        &mut self,
        guest: &Guest<'_>,
        changes: &[Change],
    ) -> Result<BTreeMap<String, String>> {
        let mut others: BTreeMap<String, String> = BTreeMap::new();
        for change in changes {
            let Some((volume, _)) = in_volume(guest.volumes, &change.path)? else {
                continue;
            };
            if !others.contains_key(&volume.name) {
                let place = format!("/run/hako-volume-{}", others.len());
                self.line(&format!("mkdir {place}"));
                self.mount(&place, volume, "")?;
                others.insert(volume.name.clone(), place);
            }
        }
        Ok(others)
    }

    fn mount(&mut self, place: &str, volume: &FoundVolume, options: &str) -> Result<()> {
        let (kind, uuid) = (volume.content.kind, volume.content.uuid.as_str());
        if uuid.is_empty() || place.contains(char::is_whitespace) {
            let what = format!("{}: a script cannot mount it at {place:?}", volume.name);
            return Err(Error::unsupported(what));
        }
        if kind == "vfat" {
            self.line("modprobe -q -a nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 || :");
        }
        let place = quoted(place);
        let options = quoted(&format!("rw{options}"));
        self.line(&format!(
            "mount_at {place} {kind} {options} UUID={}",
            quoted(uuid)
        ));
        Ok(())
    }

    /// Adds a file; returns where the script finds it.
    fn file(&mut self, bytes: &'a [u8]) -> String {
        let name = format!("file-{}", self.files.len());
        let path = format!("\"$files\"/{name}");
        self.files.push((name, bytes));
        path
    }

    fn change(&mut self, path: &str, what: &'a What) {
        let path = quoted(path);
        match what {
            // What leads to the file, and all that is known of it, stays.
            What::Replace { new, .. } => {
                self.line(&format!("[ -f {path} ] || fail {path}' is no file'"));
                let file = self.file(new);
                self.line(&format!("cat {file} >{path}"));
            }
            What::Append { len, bytes } => {
                let is_right = format!("[ \"$(wc -c <{path})\" -eq {len} ]");
                self.line(&format!("{is_right} || fail {path}' is of another length'"));
                let file = self.file(bytes);
                self.line(&format!("cat {file} >>{path}"));
            }
            What::Cut { len } => {
                self.line(&format!("[ -f {path} ] || fail {path}' is no file'"));
                let cut = format!("dd if=/dev/null of={path} bs=1 seek={len} count=0 2>/dev/null");
                self.line(&cut);
            }
            What::Create { bytes, .. } => {
                let file = self.file(bytes);
                self.line(&format!("is_new {path}\ncat {file} >{path}"));
            }
            What::Folder { .. } => self.line(&format!("is_new {path}\nmkdir {path}")),
            What::Link { target } => {
                let target = quoted(target);
                self.line(&format!("is_new {path}\nln -s {target} {path}"));
            }
            What::Remove { .. } => {
                let is_folder = format!("[ -d {path} ] && [ ! -L {path} ]");
                self.line(&format!(
                    "if {is_folder}; then rmdir {path}; else rm {path}; fi"
                ));
            }
        }
    }

    /// Gives what is new its permissions, and the label of the folder that it is in.
    fn look(&mut self, path: &str, what: &What, has_label: bool) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (path, folder) = (quoted(path), quoted(&format!("{folder}/")));
        if let What::Create { mode, .. } | What::Folder { mode } = what {
            self.line(&format!("chmod {mode:o} {path}"));
        }
        if has_label {
            self.line(&format!("label {path} {folder}"));
        }
    }
}

/// Returns whether the guest has labels of SELinux on its files.
fn uses_selinux(guest: &Guest<'_>) -> bool {
    let config = guest.text("/etc/selinux/config").unwrap_or_default();
    let mut said = config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("SELINUX="));
    said.next_back()
        .is_some_and(|state| state.trim() != "disabled")
}

fn is_below(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Returns what is mounted above a path.
fn mount_above<'a>(guest: &Guest<'a>, path: &str) -> Option<&'a Mounted> {
    let mounts = guest.root.mounts.iter();
    let above = mounts.filter(|mount| is_below(path, &mount.path));
    above.max_by_key(|mount| mount.path.len())
}

fn is_on_fat(guest: &Guest<'_>, path: &str) -> bool {
    mount_above(guest, path).is_some_and(|mount| mount.kind == "vfat")
}

/// Returns whether a link leads from where a path is to what is in another volume.
fn leads_to(guest: &Guest<'_>, path: &str, volume: &FoundVolume) -> bool {
    let is_own = mount_above(guest, path).is_some_and(|mount| mount.volume == volume.name);
    let found = guest.tree().find(path.as_bytes());
    let fs = volume.file_system();
    !is_own && found.is_ok_and(|found| fs.is_some_and(|fs| Arc::ptr_eq(found.fs(), fs)))
}

/// Returns a word as the shell takes it literally.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use hako_guest::boot::Menu;
    use hako_guest::root::{Root, installations};
    use hako_guest::testkit::MemoryFs;
    use hako_guest::{FileSystem, Volumes};

    use super::*;

    /// Returns the script for a guest whose root this is, with a boot of its own and an ESP.
    fn script(root: MemoryFs, changes: &[Change]) -> (String, Vec<(String, Vec<u8>)>) {
        const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let root = root
            .file("/etc/os-release", "ID=x\n")
            .dir("/usr")
            .dir("/boot");
        let fstab = "UUID=boot-uuid /boot xfs defaults 0 0\n";
        let root: Arc<dyn FileSystem> = root.uuid("root-uuid").file("/etc/fstab", fstab).build();
        let boot = MemoryFs::new("xfs").uuid("boot-uuid").build();
        let esp = MemoryFs::new("vfat").uuid("12AB-34CD").dir("/EFI").build();
        let volumes = Volumes::in_memory().disk(vec![(None, root), (None, boot), (Some(ESP), esp)]);
        let root = Root::mount(&volumes, &installations(&volumes)[0]).unwrap();
        let menu = Menu::read(&volumes, Some(&root));
        let guest = Guest {
            volumes: &volumes,
            root: &root,
            menu: &menu,
        };
        let script = Script::of(&guest, changes).unwrap();
        let files = script.files.iter();
        let files = files.map(|(name, bytes)| (name.clone(), bytes.to_vec()));
        (script.text.clone(), files.collect())
    }

    fn change(path: &str, what: What) -> Change {
        Change {
            path: path.to_owned(),
            what,
            why: Vec::new(),
        }
    }

    fn run(shell: &[&str], folder: &Path, changes: &[Change]) -> (bool, String) {
        let (text, files) = script(MemoryFs::new("xfs"), changes);
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        let text = text.replace("/run/hako/files", folder.to_str().unwrap());
        let mut command = Command::new(shell[0]);
        let done = command
            .args(&shell[1..])
            .args(["-c", &text])
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    #[test]
    fn a_shell_does_what_the_plan_says_and_stops_at_what_is_otherwise() {
        let busybox = Command::new("busybox").arg("true").output().is_ok();
        let shells: &[&[&str]] = &[&["sh"], &["bash"], &["busybox", "sh"]];
        for shell in shells.iter().filter(|shell| shell.len() == 1 || busybox) {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name).display().to_string();
            let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
            for (name, text) in [("it's $x", "old"), ("long", "0123"), ("gone", "x")] {
                std::fs::write(path(name), text).unwrap();
            }
            std::fs::create_dir(path("empty")).unwrap();
            std::os::unix::fs::symlink("/nowhere", path("dead")).unwrap();
            let (new, mode) = (b"new `true`\n".to_vec(), 0o751);
            let changes = [
                change(
                    &path("it's $x"),
                    What::Replace {
                        old: Vec::new(),
                        new: new.clone(),
                    },
                ),
                change(
                    &path("long"),
                    What::Append {
                        len: 4,
                        bytes: b"45".to_vec(),
                    },
                ),
                change(&path("long"), What::Cut { len: 5 }),
                change(&path("made"), What::Folder { mode }),
                change(
                    &path("made/-n"),
                    What::Create {
                        bytes: new,
                        mode: 0o600,
                    },
                ),
                change(
                    &path("made/link"),
                    What::Link {
                        target: "a b".to_owned(),
                    },
                ),
                change(&path("gone"), What::Remove { old: None }),
                change(&path("empty"), What::Remove { old: None }),
                change(&path("dead"), What::Remove { old: None }),
            ];
            let (is_good, said) = run(shell, folder.path(), &changes);
            assert!(is_good, "{shell:?}: {said}");
            assert_eq!(read("it's $x"), "new `true`\n");
            assert_eq!(read("long"), "01234");
            assert_eq!(read("made/-n"), "new `true`\n");
            let mode_of = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode();
            assert_eq!(
                (mode_of("made") & 0o7777, mode_of("made/-n") & 0o7777),
                (mode.into(), 0o600)
            );
            assert_eq!(
                std::fs::read_link(path("made/link")).unwrap(),
                Path::new("a b")
            );
            for name in ["gone", "empty", "dead"] {
                assert!(std::fs::symlink_metadata(path(name)).is_err(), "{name}");
            }
            for wrong in [
                change(
                    &path("long"),
                    What::Append {
                        len: 4,
                        bytes: Vec::new(),
                    },
                ),
                change(&path("made"), What::Folder { mode }),
                change(
                    &path("made/link"),
                    What::Create {
                        bytes: Vec::new(),
                        mode,
                    },
                ),
                change(&path("missing"), What::Cut { len: 1 }),
                change(&path("missing"), What::Remove { old: None }),
                change(&path("made"), What::Remove { old: None }),
            ] {
                let (is_good, said) = run(shell, folder.path(), std::slice::from_ref(&wrong));
                assert!(!is_good, "{shell:?}: {wrong:?}: {said}");
            }
            assert_eq!(read("long"), "01234");
        }
    }

    #[test]
    fn what_changes_are_in_is_mounted_and_new_files_are_labelled_where_labels_are_used() {
        let create = || What::Create {
            bytes: Vec::new(),
            mode: 0o644,
        };
        let changes = [
            change("/etc/a", create()),
            change("/boot/b", create()),
            change("UUID=12AB-34CD:/EFI/c", create()),
        ];
        let config = |state: &str| {
            let text = format!("# SELINUX=x\nSELINUX={state}\n");
            MemoryFs::new("xfs").file("/etc/selinux/config", &text)
        };
        let (text, _) = script(config("enforcing"), &changes);
        assert!(
            text.contains("mount_at '/boot' xfs 'rw' UUID='boot-uuid'\n"),
            "{text}"
        );
        assert!(
            text.contains("mount_at '/run/hako-volume-0' vfat 'rw' UUID='12AB-34CD'\n"),
            "{text}"
        );
        assert!(text.contains(">'/run/hako-volume-0/EFI/c'\n"), "{text}");
        assert!(!text.contains("chmod 644 '/run"), "{text}");
        assert_eq!(text.matches("\nlabel ").count(), 2, "{text}");
        assert!(text.contains("label '/boot/b' '/boot/'\n"), "{text}");
        let (text, _) = script(config("disabled"), &changes[..1]);
        assert!(
            !text.contains("\nlabel ") && !text.contains("\nmount_at "),
            "{text}"
        );
    }
}
