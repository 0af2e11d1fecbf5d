//! Machines to export and import.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{BlockImage, Cancel, Error, NoProgress, Result};
use hako_formats::digest::{Algorithm, digest};
use hako_formats::machine::{
    Bus, Controller, Cpu, DiskMedium, Drive, Firmware, Machine, Medium, Network, Nic, Node,
};
use hako_formats::vmx::Vmx;
use hako_formats::{CreateArgs, CreateOptions, OpenOptions, format_named, open_chain};
use hako_vm::{
    ExportReport, ExportRequest, ExportTarget, Home, ImportReport, ImportRequest, ImportSource,
    PackageChoices, Vm, export, import,
};

pub const MIB: usize = 1 << 20;

/// A home, and a folder for the rest.
pub struct World {
    folder: tempfile::TempDir,
    pub home: Home,
    pub cancel: Cancel,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("home"));
        Self {
            folder,
            home,
            cancel: Cancel::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names in a folder, hidden ones too, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        names(&self.path(folder))
    }

    /// A machine with these disks on pvscsi, in a folder of its name.
    pub fn machine(&self, name: &str, disks: &[&[u8]]) -> Vm {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut machine = Machine {
            name: name.to_owned(),
            guest_os: Some("ubuntu-64".to_owned()),
            hardware_version: Some(19),
            firmware: Firmware::Efi,
            cpu: Cpu {
                count: 4,
                cores_per_socket: 2,
            },
            memory_bytes: 2 << 30,
            annotation: "kept <with> care".to_owned(),
            controllers: vec![Controller {
                bus: Bus::Scsi,
                number: 0,
                model: Some("pvscsi".to_owned()),
            }],
            nics: vec![Nic {
                number: 0,
                model: Some("vmxnet3".to_owned()),
                network: Network::Nat,
                mac: None,
                mac_is_static: false,
                connected: true,
            }],
            ..Machine::default()
        };
        for (unit, content) in (0_u8..).zip(disks) {
            let file = format!("{name}-{unit}.vmdk");
            write_disk(&folder.join(&file), content);
            machine.drives.push(Drive {
                node: Node {
                    bus: Bus::Scsi,
                    controller: 0,
                    unit,
                },
                medium: Medium::Disk(DiskMedium {
                    file,
                    ..DiskMedium::default()
                }),
                connected: true,
            });
        }
        let path = folder.join(format!("{name}.vmx"));
        std::fs::write(&path, Vmx::new(&machine).unwrap().to_bytes()).unwrap();
        Vm::at(&path, &[]).unwrap()
    }

    pub fn request(&self) -> ExportRequest {
        ExportRequest {
            snapshot: None,
            manifest: Some(Algorithm::Sha256),
            level: None,
            record_contents: false,
            verify: false,
            force: false,
            open: OpenOptions::default(),
            time: 1_795_339_815,
            threads: None,
            rate: None,
        }
    }

    pub fn export(
        &self,
        vm: &Vm,
        target: ExportTarget,
        request: &ExportRequest,
    ) -> Result<ExportReport> {
        export(vm, target, request, &NoProgress, &self.cancel)
    }

    /// Exports a machine as this OVA.
    pub fn ova(&self, vm: &Vm, name: &str) -> PathBuf {
        let path = self.path(name);
        self.export(vm, ExportTarget::Ova(path.clone()), &self.request())
            .unwrap();
        path
    }

    pub fn import_request(&self, path: &Path, name: &str) -> ImportRequest {
        ImportRequest {
            source: ImportSource::Path(path.to_path_buf()),
            open: OpenOptions::default(),
            choices: PackageChoices::default(),
            guest_os: None,
            name: Some(name.to_owned()),
            to: None,
            format: format_named("vmdk").unwrap(),
            create: CreateOptions::default(),
            verify: false,
            threads: None,
            rate: None,
            temp_folder: self.folder.path().to_path_buf(),
        }
    }

    pub fn import_by(&self, request: ImportRequest) -> Result<ImportReport> {
        import(&self.home, request, &NoProgress, &self.cancel)
    }

    pub fn import(&self, path: &Path, name: &str) -> Result<ImportReport> {
        self.import_by(self.import_request(path, name))
    }

    /// Imports, which must fail and leave nothing behind; returns why.
    #[track_caller]
    pub fn refused(&self, request: ImportRequest) -> Error {
        let error = self.import_by(request).expect_err("refused");
        let vms = self.home.vms();
        if vms.exists() {
            assert_eq!(names(&vms), [""; 0], "{error}");
        }
        error
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes a monolithic sparse VMDK.
pub fn write_disk(path: &Path, content: &[u8]) {
    let file = std::fs::File::create_new(path).unwrap();
    let storage =
        hako_block::FileStorage::from_file(file.try_clone().unwrap(), path, true).unwrap();
    drop(file);
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    drop(storage);
    let storage = hako_block::FileStorage::from_file(file, path, true).unwrap();
    let mut sink = format_named("vmdk")
        .unwrap()
        .stream(CreateArgs {
            storage: Arc::new(storage),
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            outputs: &hako_block::MemoryFolder::default(),
            virtual_size: content.len() as u64,
            parent: None,
            options: CreateOptions::default(),
        })
        .unwrap();
    let unit = sink.unit_bytes() as usize;
    for (index, bytes) in content.chunks(unit).enumerate() {
        if !hako_block::is_zero(bytes) {
            sink.data((index * unit) as u64, bytes).unwrap();
        }
    }
    sink.finish().unwrap();
}

/// What a guest may have on a disk: data that compresses and data that does not, zeros.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = hako_block::testkit::Rng::new(seed);
    let mut bytes = vec![0; len];
    for piece in bytes.chunks_mut(100_000) {
        match rng.next_u64() % 4 {
            0 => {}
            1 => piece.fill(rng.next_u64() as u8),
            _ => piece
                .chunks_mut(8)
                .for_each(|word| word.copy_from_slice(&rng.next_u64().to_le_bytes()[..word.len()])),
        }
    }
    bytes
}

/// What the disks of a machine hold.
pub fn contents(vmx: &Path) -> Vec<Vec<u8>> {
    let vm = Vm::at(vmx, &[]).unwrap();
    let drives = vm.vmx.machine().drives.into_iter();
    drives
        .filter_map(|drive| match drive.medium {
            Medium::Disk(disk) => Some(vm.open_disk(&disk, &OpenOptions::default()).unwrap()),
            _ => None,
        })
        .map(|opened| read(&opened.chain))
        .collect()
}

/// What an image holds.
pub fn image_content(path: &Path) -> Vec<u8> {
    read(&open_chain(path, &OpenOptions::default()).unwrap().chain)
}

fn read(image: &dyn BlockImage) -> Vec<u8> {
    let mut bytes = vec![0; image.info().virtual_size as usize];
    image.read_at(0, &mut bytes).unwrap();
    bytes
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(Algorithm::Sha256, bytes)
}

/// Runs a peer, which must succeed; `None`, told loudly, where it is not installed.
pub fn peer(folder: &Path, program: &str, args: &[&str]) -> Option<String> {
    let run = std::process::Command::new(program)
        .args(args)
        .current_dir(folder)
        .output();
    let Ok(output) = run else {
        assert!(std::env::var_os("CI").is_none(), "no {program} here");
        eprintln!("skipped: no {program} here");
        return None;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    Some(String::from_utf8(output.stdout).unwrap())
}
