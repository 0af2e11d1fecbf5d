//! Guests of the native engine, with a real KVM: `hako vm start --engine kvm` within the outer machine of
//! the test bed.

use std::fs::File;
use std::path::Path;

use crate::bed::Bed;
use crate::guests::disk as disk_of;
use crate::{hako, run_program};

/// What every script begins with: `vm` is `hako vm`, and machines are in the folder that is shared.
const PRELUDE: &str = "
    export HAKO_HOME=/work/home HAKO_RUN=/run/hako PATH=/work:$PATH
    vm() { hako vm \"$@\"; }
    create() { vm create web --guest-os debian12-64 --memory 384M --nic none --folder vm \"$@\"; }
    line() { vm wait web --timeout 900 --for-line \"$1\" >/dev/null && echo \"seen: $1\"; }
    guest() { vm console --log web | tr -d '\\r' | grep '^GUEST'; }
";

/// Returns a run of `script` with hako.
pub fn bare(script: &str) -> Option<Bed> {
    let bed = Bed::new(&format!("{PRELUDE}\n{script}"))?.seconds(4000);
    std::fs::copy(hako(), bed.path("hako")).unwrap();
    Some(bed)
}

/// Returns a run of `script` with hako, and with the guest's disk as an image of a format beside it.
pub fn bed(guest: &str, disk: &str, options: &[&str], script: &str) -> Option<Bed> {
    let raw = disk_of(guest)?;
    let bed = bare(&format!("mkdir vm && mv disk.* vm/\n{script}"))?;
    let target = bed.path(disk);
    let words = ["disk", "convert", "--from", "raw"].map(Path::new);
    let options = options.iter().map(Path::new);
    let words: Vec<&Path> = words
        .into_iter()
        .chain(options)
        .chain([&*raw, &*target])
        .collect();
    run_program(hako(), &words).ok();
    Some(bed)
}

/// Puts a disk into the run, `vm/disk.script`, that has the guest run a script for sh instead of
/// starting its system, and then go off. Files are beside the script: /run/hako-guest/NAME.
pub fn put_script(bed: &Bed, script: &str, files: &[&Path]) {
    let folder = bed.path("hako-guest");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("run"), script).unwrap();
    for file in files {
        std::fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let tar = bed.path("disk.script");
    let words = ["-c", "-f", tar.to_str().unwrap(), "-C"];
    let above = folder.parent().unwrap().to_str().unwrap();
    run_program("tar", &[&words[..], &[above, "hako-guest"]].concat()).ok();
    File::options()
        .write(true)
        .open(tar)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// Checks that `said` has all these lines, in this order.
#[track_caller]
pub fn has_in_order(said: &str, lines: &[&str]) {
    let mut rest = said.lines();
    for line in lines {
        assert!(
            rest.any(|one| one.trim() == *line),
            "no {line:?} (here) in\n{said}"
        );
    }
}
