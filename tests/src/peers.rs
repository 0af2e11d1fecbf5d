//! Other implementations, to compare with. `tests/run` puts them in place.

use std::path::{Path, PathBuf};

use hako_block::testkit::qemu_name;

use crate::{Run, root, run_program, skip};

/// One qemu-img.
#[derive(Debug, Clone)]
pub struct QemuImg {
    /// What it says of itself ("7.2.22").
    pub version: String,
    path: PathBuf,
}

impl QemuImg {
    /// Returns every qemu-img there is: those that `tests/run` unpacked, else the system's.
    pub fn every() -> Vec<Self> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join(".peers"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("qemu-img"))
            .filter(|path| path.exists())
            .collect();
        paths.sort();
        if paths.len() < 2 {
            skip("qemu-img 7.2 and 10 are not both unpacked: tests/run does that");
            paths = vec![PathBuf::from("qemu-img")];
        }
        paths.into_iter().filter_map(Self::at).collect()
    }

    /// Returns one of them, for making images.
    pub fn any() -> Option<Self> {
        Self::every().pop()
    }

    fn at(path: PathBuf) -> Option<Self> {
        let Ok(output) = std::process::Command::new(&path).arg("--version").output() else {
            skip("qemu-img is not installed: tests/run does that");
            return None;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .split_whitespace()
            .skip_while(|word| *word != "version")
            .nth(1)
            .unwrap_or("unknown")
            .to_owned();
        Some(Self { version, path })
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Run {
        run_program(&self.path, args)
    }

    /// Runs it, which must succeed. Returns standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// Returns the SHA-256 of the disk, of the format that hako calls so, as it reads it.
    #[track_caller]
    pub fn hash(&self, image: &Path, format: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("disk.raw");
        let (from, to) = (image.to_str().unwrap(), raw.to_str().unwrap());
        self.ok(&["convert", "-f", qemu_name(format), "-O", "raw", from, to]);
        crate::disk::sha256(&raw)
    }
}

/// A Python reader of disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// libvmdk's Python binding.
    Pyvmdk,
    /// libvhdi's Python binding.
    Pyvhdi,
    /// dissect.hypervisor.
    Dissect,
}

impl Reader {
    /// All of them.
    pub const ALL: [Reader; 3] = [Reader::Pyvmdk, Reader::Pyvhdi, Reader::Dissect];

    /// Returns the SHA-256 of the disk as it reads it; `None` if it is not installed.
    #[track_caller]
    pub fn hash(self, image: &Path) -> Option<String> {
        self.hash_chain(&[image])
    }

    /// Returns the SHA-256 of the disk that these layers make, the top first.
    #[track_caller]
    pub fn hash_chain(self, layers: &[&Path]) -> Option<String> {
        let python = root().join(".venv/bin/python3");
        if !python.exists() {
            skip("no .venv with pyvmdk, pyvhdi and dissect.hypervisor: tests/run makes it");
            return None;
        }
        let script = root().join("tests/peers/read_disk.py");
        let name = match self {
            Reader::Pyvmdk => "pyvmdk",
            Reader::Pyvhdi => "pyvhdi",
            Reader::Dissect => "dissect",
        };
        let layers = layers.iter().map(|layer| layer.as_os_str());
        let args: Vec<_> = [script.as_os_str(), name.as_ref()]
            .into_iter()
            .chain(layers)
            .collect();
        Some(run_program(&python, &args).ok().trim().to_owned())
    }
}

/// Returns the keys and disks of a VMX as dissect.hypervisor reads them; `None` if it is not
/// installed.
#[track_caller]
pub fn dissect_vmx(vmx: &Path) -> Option<serde_json::Value> {
    let python = root().join(".venv/bin/python3");
    if !python.exists() {
        skip("no .venv with dissect.hypervisor: tests/run makes it");
        return None;
    }
    let script = root().join("tests/peers/read_vmx.py");
    let printed = run_program(&python, &[script.as_os_str(), vmx.as_os_str()]).ok();
    Some(serde_json::from_str(&printed).expect("JSON"))
}
