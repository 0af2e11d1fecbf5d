//! The QEMU engine with a real QEMU: what it makes of a VMX, and what a guest finds.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod guest;
mod script;
mod world;

use hako_vm::run::{Boot, End, Event};

use guest::Guest;
use world::{World, machine_of};

/// Everything that QEMU has a model for, in one machine.
const MUCH: &str = r#"displayName = "much, of it"
virtualHW.version = "19"
guestOS = "debian12-64"
memsize = "256"
numvcpus = "2"
uuid.bios = "56 4d 96 af e6 46 bd 86-5c 4d 65 4e 77 36 ef 31"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "a.vmdk"
scsi0:12.present = "TRUE"
scsi0:12.fileName = "b.qcow2"
hako.scsi0:12.format = "qcow2"
scsi1.present = "TRUE"
scsi1.virtualDev = "lsisas1068"
scsi1:9.present = "TRUE"
scsi1:9.fileName = "c.raw"
hako.scsi1:9.format = "raw"
sata0.present = "TRUE"
sata0:7.present = "TRUE"
sata0:7.fileName = "d.vdi"
hako.sata0:7.format = "vdi"
sata0:1.present = "TRUE"
sata0:1.deviceType = "atapi-cdrom"
sata0:1.fileName = "emptyBackingString"
nvme0.present = "TRUE"
nvme0:0.present = "TRUE"
nvme0:0.fileName = "e.vmdk"
nvme0:3.present = "TRUE"
nvme0:3.fileName = "f.vhdx"
hako.nvme0:3.format = "vhdx"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.connectionType = "nat"
ethernet0.pciSlotNumber = "192"
ethernet1.present = "TRUE"
ethernet1.virtualDev = "e1000"
ethernet1.connectionType = "nat"
ethernet1.pciSlotNumber = "33"
ethernet1.startConnected = "FALSE"
usb_xhci.present = "TRUE"
sound.present = "TRUE"
sound.virtualDev = "hdaudio"
"#;

#[test]
fn a_guest_finds_what_its_vmx_says() {
    let Some(guest) = Guest::new() else { return };
    let world = World::new("much", MUCH);
    guest.put(&world, "");
    let mut run = world.start().unwrap();
    assert_eq!(run.notes(), ["the guest runs without KVM"]);
    let said = run.wait_for("GUEST ready");
    let found = |what: &str| said.iter().any(|line| line == what);
    for device in [
        "GUEST pci 00:03.0 15ad:07c0",
        "GUEST pci 00:04.1 1000:0054",
        "GUEST pci 00:07.1 8086:2922",
        "GUEST pci 00:0b.0 1b36:0010",
        "GUEST pci 01:00.0 15ad:07b0",
        "GUEST pci 02:00.0 8086:100f",
        "GUEST slot 192 01:00",
        "GUEST slot 33 02:00",
        "GUEST uuid af964d56-46e6-86bd-5c4d-654e7736ef31",
        "GUEST serial VMware-56 4d 96 af e6 46 bd 86-5c 4d 65 4e 77 36 ef 31",
        "GUEST cpus 2",
        "GUEST disk nvme0n1 16384",
        "GUEST disk nvme0n2 16384",
    ] {
        assert!(found(device), "{device}\n{}", said.join("\n"));
    }
    // The console in both directions, and a pause in between.
    run.machine().pause().unwrap();
    assert_eq!(run.event(), Event::Paused { why: None });
    run.machine().pause().unwrap();
    run.machine().resume().unwrap();
    assert_eq!(run.event(), Event::Resumed);
    run.say("hello");
    run.wait_for("GUEST heard hello");
    // What the guest wrote to disks that QEMU has no safe writer for is there.
    run.say("write nvme0n1");
    run.wait_for("GUEST wrote nvme0n1");
    run.say("write nvme0n2");
    run.wait_for("GUEST wrote nvme0n2");
    let stats = run.machine().io_stats().unwrap().disks;
    let of = |node: &str| stats.iter().find(|disk| disk.node == node).unwrap();
    assert!(of("nvme0:0").written_bytes >= 512, "{stats:?}");
    assert_eq!(of("scsi0:0").written_bytes, 0);
    run.say("off");
    assert_eq!(run.event(), Event::Off(End::Guest));
    drop(run);
    for file in ["e.vmdk", "f.vhdx"] {
        assert_eq!(
            world.read(file, 12345, 20),
            b"written by the guest",
            "{file}"
        );
    }
    assert_eq!(world.read("a.vmdk", 12345, 20), [0; 20]);
}

#[test]
fn what_is_to_be_discarded_leaves_the_images_as_they_were() {
    let Some(guest) = Guest::new() else { return };
    let vmx = "displayName = \"web\"\nmemsize = \"256\"\nguestOS = \"debian12-64\"\n\
               nvme0.present = \"TRUE\"\nnvme0:0.present = \"TRUE\"\nnvme0:0.fileName = \"a.vmdk\"\n\
               nvme0:1.present = \"TRUE\"\nnvme0:1.fileName = \"b.raw\"\n\
               hako.nvme0:1.format = \"raw\"\nnvme0:1.mode = \"independent-nonpersistent\"\n\
               nvme0:2.present = \"TRUE\"\nnvme0:2.fileName = \"stream.vmdk\"\n";
    let mut world = World::new("web", vmx);
    guest.put(&world, "");
    let before = world.bytes();
    // Nothing writes a streamOptimized disk.
    let error = world.start().err().unwrap();
    assert!(
        error.hint_text().unwrap().contains("--discard-writes"),
        "{error}"
    );
    assert_eq!(world.bytes(), before);
    world.options.discard_writes = true;
    let mut run = world.start().unwrap();
    run.wait_for("GUEST ready");
    for disk in ["nvme0n1", "nvme0n2", "nvme0n3"] {
        run.say(&format!("write {disk}"));
        run.wait_for(&format!("GUEST wrote {disk}"));
    }
    // Over a reset, what it wrote is there.
    run.machine().reset().unwrap();
    assert_eq!(run.event(), Event::Reset);
    run.wait_for("GUEST ready");
    for disk in ["nvme0n1", "nvme0n2", "nvme0n3"] {
        run.say(&format!("read {disk}"));
        run.wait_for(&format!("GUEST read {disk} written by the guest"));
    }
    run.machine().quit().unwrap();
    // SeaBIOS resets once more when it finds that it has run before.
    let end = std::iter::repeat_with(|| run.event()).find(|event| *event != Event::Reset);
    assert_eq!(end, Some(Event::Off(End::Quit)));
    drop(run);
    assert_eq!(world.bytes(), before);
}

#[test]
fn a_kernel_is_booted_out_of_the_guest_s_own_disk() {
    let Some(guest) = Guest::new() else { return };
    let vmx = "displayName = \"web\"\nmemsize = \"256\"\nguestOS = \"debian12-64\"\n\
               firmware = \"efi\"\nnvme0.present = \"TRUE\"\nnvme0:0.present = \"TRUE\"\n\
               nvme0:0.fileName = \"a.raw\"\nhako.nvme0:0.format = \"raw\"\n";
    let mut world = World::new("web", vmx);
    guest.install(&world.path("a.raw"));
    world.options.boot = Boot::Direct { entry: Some(7) };
    assert!(
        world
            .start()
            .err()
            .unwrap()
            .to_string()
            .contains("no boot entry 7")
    );
    world.options.boot = Boot::Direct { entry: None };
    let mut run = world.start().unwrap();
    assert!(
        run.notes().contains(&"boots \"own\" without firmware"),
        "{:?}",
        run.notes()
    );
    run.wait_for("GUEST ready");
    run.say("cmdline");
    run.wait_for("GUEST cmdline quiet own no_timer_check console=ttyS0");
    drop(run);
    // Neither firmware nor kernel leave anything.
    assert!(!world.path("web.hako-efivars.fd").exists());
}

#[test]
fn the_address_that_a_guest_uses_is_told() {
    let Some(guest) = Guest::new() else { return };
    let vmx = "displayName = \"net\"\nmemsize = \"128\"\nguestOS = \"debian12-64\"\n\
               ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"nat\"\n\
               hako.ethernet0.virtualDev = \"virtio-net\"\n";
    let world = World::new("net", vmx);
    guest.put(&world, "");
    let mut run = world.start().unwrap();
    run.wait_for("GUEST ready");
    run.say("net 10.0.2.77");
    let told = Event::Address {
        node: "ethernet0".to_owned(),
        address: "10.0.2.77".parse().unwrap(),
    };
    run.wait_for("GUEST pinged");
    assert_eq!(run.event(), told);
    // Nobody listens any more, and the card works on.
    run.say("net 10.0.2.77");
    run.wait_for("GUEST pinged");
}

#[test]
fn a_machine_that_is_dropped_is_off() {
    let Some(_) = Guest::new() else { return };
    let vmx = "displayName = \"web\"\nmemsize = \"64\"\nscsi0.present = \"TRUE\"\n\
               scsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\n\
               scsi0:0.fileName = \"a.qcow2\"\nhako.scsi0:0.format = \"qcow2\"\n";
    let world = World::new("web", vmx);
    let run = world.start().unwrap();
    let pid = run.pid();
    // QEMU holds the image itself.
    assert!(world.start().is_err());
    drop(run);
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    drop(world.start().unwrap());
}

#[test]
fn a_qemu_that_does_not_start_says_why_and_leaves_nothing() {
    let vmx = "displayName = \"web\"\nmemsize = \"64\"\nscsi0.present = \"TRUE\"\n\
               scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n";
    let mut world = World::new("web", vmx);
    world.qemu.programs = vec!["/nowhere/qemu".into()];
    let error = world.start().err().unwrap();
    assert!(
        error.hint_text().unwrap().contains("qemu-system-x86"),
        "{error}"
    );
    for (script, told) in [
        (
            "echo 'out of luck' >&2; exit 1",
            "QEMU has ended: out of luck",
        ),
        ("exec sleep 0.1", "QEMU has ended"),
    ] {
        world.fake_qemu(script);
        let error = world.start().err().unwrap();
        assert!(error.to_string().contains(told), "{error}");
        // The image is free again.
        assert_eq!(world.read("a.vmdk", 0, 4), [0; 4]);
    }
    world.fake_qemu("exec sleep 60");
    world.cancel.cancel();
    assert_eq!(
        world.start().err().unwrap().kind(),
        hako_block::ErrorKind::Cancelled
    );
}

#[test]
fn qemu_takes_every_command_line() {
    let Some(_) = Guest::new() else { return };
    let disks = |bus: &str| {
        format!(
            "{bus}.present = \"TRUE\"\n{bus}:0.present = \"TRUE\"\n{bus}:0.fileName = \"a.vmdk\"\n\
             {bus}:1.present = \"TRUE\"\n{bus}:1.fileName = \"b.raw\"\nhako.{bus}:1.format = \"raw\"\n"
        )
    };
    let bare = "displayName = \"odd, \\\"name\\\" = ü\"\nmemsize = \"64\"\n";
    let mut machines: Vec<String> = [
        disks("ide0") + "guestOS = \"winxppro\"\nethernet0.present = \"TRUE\"\n",
        disks("scsi0") + "guestOS = \"windows7-64\"\nsound.present = \"TRUE\"\n",
        disks("scsi3") + "scsi3.virtualDev = \"buslogic\"\nusb.present = \"TRUE\"\n",
        disks("scsi0") + "hako.scsi0.virtualDev = \"virtio-blk\"\nguestOS = \"ubuntu-64\"\n",
        disks("scsi0") + "hako.scsi0.virtualDev = \"virtio-scsi\"\nhako.ethernet0.virtualDev = \"virtio-net\"\nethernet0.present = \"TRUE\"\n",
        disks("sata3") + "firmware = \"efi\"\nethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000e\"\n",
        disks("nvme3") + "firmware = \"efi\"\nuefi.secureBoot.enabled = \"TRUE\"\n",
        "floppy0.present = \"TRUE\"\nfloppy0.fileType = \"file\"\nfloppy0.fileName = \"floppy.img\"\n".to_owned(),
        "serial0.present = \"TRUE\"\nserial0.fileType = \"file\"\nserial0.fileName = \"a, b.log\"\n\
         serial1.present = \"TRUE\"\nserial1.fileType = \"pipe\"\nserial1.fileName = \"p\"\n\
         RemoteDisplay.vnc.enabled = \"TRUE\"\nRemoteDisplay.vnc.port = \"5971\"\n\
         RemoteDisplay.vnc.password = \"secret\"\n".to_owned(),
        "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"hostonly\"\n\
         ethernet1.present = \"TRUE\"\nethernet1.connectionType = \"nat\"\n\
         hako.ethernet1.forward = \"tcp:28022-:22,udp:127.0.0.1:28053-:53\"\n".to_owned(),
        "numvcpus = \"8\"\ncpuid.coresPerSocket = \"4\"\nrtc.diffFromUTC = \"3600\"\n".to_owned(),
        "guestOS = \"ubuntu-64\"\nfloppy0.present = \"TRUE\"\nfloppy0.fileType = \"file\"\nfloppy0.fileName = \"floppy.img\"\n".to_owned(),
    ]
    .into_iter()
    .map(|rest| format!("{bare}{rest}"))
    .collect();
    machines.extend(machine_of_corpus());
    for vmx in machines {
        let world = World::new("odd, \"name\" = ü", &vmx);
        std::fs::write(world.path("floppy.img"), vec![0; 1440 << 10]).unwrap();
        let mut run = world
            .start()
            .unwrap_or_else(|error| panic!("{error}\n{vmx}"));
        // Every drive is one that QEMU counts.
        let mut found: Vec<String> = run
            .machine()
            .io_stats()
            .unwrap()
            .disks
            .into_iter()
            .map(|disk| disk.node)
            .collect();
        found.sort();
        let mut said: Vec<String> = machine_of(&vmx)
            .disks()
            .map(|(node, _)| node.to_string())
            .collect();
        said.sort();
        assert_eq!(found, said, "{vmx}");
        drop(run);
    }
}

/// Machines that others wrote, their memory made less.
fn machine_of_corpus() -> Vec<String> {
    let Some(folder) = std::env::var_os("HAKO_CORPUS") else {
        return Vec::new();
    };
    let folder = std::path::Path::new(&folder).join("virt-v2v");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = files.map(|file| file.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "vmx"));
    let texts = files.map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .map(|text| text.replace("memSize = \"2048\"", "memSize = \"64\""))
        .collect()
}
