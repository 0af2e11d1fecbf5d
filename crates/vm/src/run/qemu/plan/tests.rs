use std::collections::BTreeMap;

use hako_formats::vmx::Vmx;

use super::super::super::disks::name_of;
use super::*;

/// A machine with a disk at every node that is one, on a socket of its name.
fn line_of(vmx: &str, change: impl FnOnce(&mut Wanted<'_>)) -> Result<CommandLine> {
    let vmx = Vmx::parse(vmx.as_bytes())?;
    let machine = vmx.machine();
    let disks = machine.disks().map(|(node, _)| {
        let source = Source::Nbd {
            socket: format!("/run/{}", name_of(node)).into(),
            writable: true,
        };
        (
            node,
            Loaded {
                source,
                serial: None,
            },
        )
    });
    let media: BTreeMap<Node, Loaded> = disks.collect();
    let types = MachineTypes {
        pc: "pc-i440fx-7.2".to_owned(),
        q35: "pc-q35-7.2".to_owned(),
    };
    let mut wanted = Wanted {
        machine: &machine,
        keys: vmx.dictionary(),
        accelerator: Accelerator::Tcg,
        types: &types,
        media: &media,
        floppy: None,
        serial: BTreeMap::new(),
        flash: None,
        kernel: None,
        sockets: Sockets {
            qmp: "/run/qmp".into(),
            console: "/run/console".into(),
            frames: "/run/frames".into(),
            vnc: "/run/vnc".into(),
        },
        now: 1_000_000_000,
        seed: [1, 2, 3],
        is_isolated: false,
    };
    change(&mut wanted);
    command_line(&wanted)
}

/// The arguments, an option with its value a line.
fn text_of(line: &CommandLine) -> String {
    let mut text = String::new();
    for arg in &line.args {
        let arg = arg.to_str().unwrap();
        let is_option = arg.starts_with('-');
        text += if text.is_empty() || !is_option {
            ""
        } else {
            "\n"
        };
        text += if is_option { "" } else { " " };
        text += arg;
    }
    text
}

fn text(vmx: &str) -> String {
    text_of(&line_of(vmx, |_| {}).unwrap())
}

fn warnings(vmx: &str) -> String {
    line_of(vmx, |_| {}).unwrap().warnings.join("\n")
}

const BASE: &str = "displayName = \"web\"\nmemsize = \"512\"\nnumvcpus = \"4\"\n\
                    cpuid.coresPerSocket = \"2\"\n";

fn with(rest: &str) -> String {
    format!("{BASE}{rest}")
}

/// As a hosted product writes a Linux: hardware version 19, pvscsi, vmxnet3.
const LINUX: &str = r#"displayName = "web, the one"
virtualHW.version = "19"
guestOS = "debian12-64"
memsize = "2048"
numvcpus = "2"
uuid.bios = "56 4d 96 af e6 46 bd 86-5c 4d 65 4e 77 36 ef 31"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web.vmdk"
scsi0:12.present = "TRUE"
scsi0:12.fileName = "data.vmdk"
sata0.present = "TRUE"
sata0:1.present = "TRUE"
sata0:1.deviceType = "atapi-cdrom"
sata0:1.fileName = "emptyBackingString"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.connectionType = "nat"
ethernet0.pciSlotNumber = "160"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:36:ef:31"
"#;

#[test]
fn a_linux_from_vmware_keeps_its_hardware() {
    let line = line_of(LINUX, |_| {}).unwrap();
    let expected = r#"-nodefaults
-no-user-config
-S
-name guest=web,, the one
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine pc-q35-7.2,usb=off,vmport=off,dump-guest-core=off
-accel tcg,thread=multi
-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
-cpu max,la57=off
-smp cpus=2,sockets=2,cores=1,threads=1
-m 2048M
-uuid af964d56-46e6-86bd-5c4d-654e7736ef31
-smbios type=1,serial=VMware-56 4d 96 af e6 46 bd 86-5c 4d 65 4e 77 36 ef 31
-rtc base=utc
-device {"driver":"pvscsi","id":"scsi0","bus":"pcie.0","addr":"3.0"}
-device {"driver":"ich9-ahci","id":"sata0","bus":"pcie.0","addr":"7.0"}
-device {"driver":"ide-cd","model":"VMware Virtual SATA CDROM Drive","serial":"10000000000000000002","bus":"sata0.1","id":"drive-sata0-1","bootindex":3}
-blockdev {"driver":"nbd","export":"","read-only":false,"discard":"unmap","server":{"type":"unix","path":"/run/scsi0-0"},"node-name":"scsi0-0"}
-device {"driver":"scsi-hd","bus":"scsi0.0","channel":0,"scsi-id":0,"lun":0,"vendor":"VMware","product":"Virtual disk","id":"drive-scsi0-0","drive":"scsi0-0","bootindex":1,"werror":"stop","rerror":"report"}
-blockdev {"driver":"nbd","export":"","read-only":false,"discard":"unmap","server":{"type":"unix","path":"/run/scsi0-12"},"node-name":"scsi0-12"}
-device {"driver":"scsi-hd","bus":"scsi0.0","channel":0,"scsi-id":12,"lun":0,"vendor":"VMware","product":"Virtual disk","id":"drive-scsi0-12","drive":"scsi0-12","bootindex":2,"werror":"stop","rerror":"report"}
-netdev {"type":"user","id":"net0"}
-device {"driver":"pcie-root-port","id":"port-ethernet0","bus":"pcie.0","addr":"10.0","chassis":1,"slot":160}
-object {"qom-type":"filter-dump","id":"hear-ethernet0","netdev":"net0","file":"/run/frames/ethernet0.pcap","maxlen":512}
-device {"driver":"vmxnet3","id":"ethernet0","netdev":"net0","bus":"port-ethernet0","addr":"0.0","mac":"00:0c:29:36:ef:31","bootindex":4}
-chardev socket,id=serial0,path=/run/console,server=off
-device {"driver":"isa-serial","chardev":"serial0","index":0}
-chardev socket,id=qmp,path=/run/qmp,server=off
-mon chardev=qmp,mode=control
-display none
-device {"driver":"VGA","id":"screen","bus":"pcie.0","addr":"2.0"}
-vnc unix:/run/vnc"#;
    assert_eq!(text_of(&line), expected);
    assert_eq!(line.warnings, Vec::<String>::new());
    assert_eq!(line.console, Some(0));
    assert_eq!(line.drives.len(), 3);
}

#[test]
fn controllers_are_those_of_the_vmx() {
    let disk = |node: &str| format!("{node}.present = \"TRUE\"\n{node}.fileName = \"a.vmdk\"\n");
    for (vmx, expected) in [
        (
            "scsi1.present = \"TRUE\"\nscsi1.virtualDev = \"lsisas1068\"\n".to_owned()
                + &disk("scsi1:9"),
            r#"{"driver":"mptsas1068","id":"scsi1f1","bus":"pci.0","addr":"4.1"}"#,
        ),
        (
            "scsi1.present = \"TRUE\"\nscsi1.virtualDev = \"lsisas1068\"\n".to_owned()
                + &disk("scsi1:9"),
            r#""bus":"scsi1f1.0","channel":0,"scsi-id":1,"#,
        ),
        (
            "sata2.present = \"TRUE\"\n".to_owned() + &disk("sata2:29"),
            r#"{"driver":"ich9-ahci","id":"sata2f4","bus":"pci.0","addr":"9.4"}"#,
        ),
        (
            "sata2.present = \"TRUE\"\n".to_owned() + &disk("sata2:29"),
            r#""serial":"00000000000000000030","bus":"sata2f4.5""#,
        ),
        (
            "nvme0.present = \"TRUE\"\n".to_owned() + &disk("nvme0:3"),
            r#"{"driver":"nvme-ns","bus":"nvme0","nsid":4,"id":"drive-nvme0-3""#,
        ),
        (
            disk("ide1:1"),
            r#"{"driver":"ide-hd","model":"VMware Virtual IDE Hard Drive","serial":"00000000000000000004","bus":"ide.1","unit":1,"#,
        ),
        (
            "hako.scsi0.virtualDev = \"virtio-blk\"\nscsi0.present = \"TRUE\"\n".to_owned()
                + &disk("scsi0:0")
                + &disk("scsi0:4"),
            r#"{"driver":"virtio-blk-pci","bus":"pci.0","addr":"3.1","multifunction":false,"#,
        ),
        (
            "hako.scsi0.virtualDev = \"virtio-scsi\"\nscsi0.present = \"TRUE\"\n".to_owned()
                + &disk("scsi0:4"),
            r#"{"driver":"virtio-scsi-pci","id":"scsi0","bus":"pci.0","addr":"3.0"}"#,
        ),
    ] {
        let text = text(&with(&vmx));
        assert!(text.contains(expected), "{vmx}\n{text}");
    }
}

#[test]
fn what_qemu_has_not_got_is_replaced_and_told() {
    let lsi = "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsilogic\"\n\
               scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n";
    for (vmx, driver, told) in [
        (format!("guestOS = \"ubuntu-64\"\n{lsi}"), "pvscsi", "scsi0 is a pvscsi"),
        (format!("guestOS = \"freebsd-64\"\n{lsi}"), "mptsas1068", "scsi0 is a lsisas1068"),
        (lsi.replace("lsilogic", "buslogic"), "mptsas1068", "QEMU has no buslogic"),
        ("ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vrdma\"\n".to_owned(), "e1000-82545em", "QEMU has no \"vrdma\""),
        ("ethernet0.present = \"TRUE\"\n".to_owned(), "pcnet", "not bridged"),
        ("ethernet0.present = \"TRUE\"\nethernet0.networkName = \"VM Network\"\n".to_owned(), "\"type\":\"user\",\"id\":\"net0\"}", "port group \"VM Network\""),
        ("ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"custom\"\nethernet0.vnet = \"VMnet3\"\n".to_owned(), "\"restrict\":true", "no way out, not on \"VMnet3\""),
        ("ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"hostonly\"\n".to_owned(), "\"restrict\":true", "no way out"),
        ("vtpm.present = \"TRUE\"\n".to_owned(), "VGA", "has not got a TPM"),
        ("parallel0.present = \"TRUE\"\nparallel1.present = \"FALSE\"\n".to_owned(), "VGA", "parallel0 is left out"),
        ("sound.present = \"TRUE\"\nsound.virtualDev = \"sb16\"\n".to_owned(), "VGA", "sound is left out"),
        ("scsi0.present = \"TRUE\"\nscsi0:1.present = \"TRUE\"\nscsi0:1.deviceType = \"scsi-passthru\"\n".to_owned(), "mptsas1068", "scsi0:1 is left out"),
        ("ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-raw\"\nide1:0.fileName = \"auto detect\"\n".to_owned(), "ide-cd", "ide1:0 is empty"),
        ("rtc.diffFromUTC = \"x\"\n".to_owned(), "-rtc base=utc", "rtc.diffFromUTC is \"x\""),
        ("firmware = \"efi\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n".to_owned(), "\"bus\":\"ide.0\"", "must have a driver for AHCI"),
    ] {
        let vmx = with(&vmx);
        assert!(text(&vmx).contains(driver), "{vmx}\n{}", text(&vmx));
        assert!(warnings(&vmx).contains(told), "{vmx}\n{}", warnings(&vmx));
    }
}

#[test]
fn firmware_processors_and_clock_follow_the_vmx() {
    let efi = with("firmware = \"efi\"\nguestOS = \"windows9-64\"\nrtc.diffFromUTC = \"3600\"\n");
    let line = line_of(&efi, |wanted| {
        wanted.accelerator = Accelerator::Kvm;
        wanted.flash = Some(Flash {
            code: "/fw/code.fd".into(),
            variables: "/vms/a, b/web.hako-efivars.fd".into(),
            needs_smm: true,
        });
    });
    let text = text_of(&line.unwrap());
    for expected in [
        "-machine pc-q35-7.2,usb=off,vmport=off,dump-guest-core=off,smm=on,\
         pflash0=firmware-code,pflash1=firmware-variables\n",
        "-accel kvm\n",
        "-cpu host,hv-relaxed,",
        "-smp cpus=4,sockets=2,cores=2,threads=1\n",
        "-rtc base=2001-09-09T02:46:40,driftfix=slew\n",
        r#"{"driver":"raw","node-name":"firmware-code","read-only":true,"file":{"driver":"file","filename":"/fw/code.fd","read-only":true}}"#,
        r#""filename":"/vms/a, b/web.hako-efivars.fd","read-only":false}"#,
        "-global driver=cfi.pflash01,property=secure,value=on\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let bios = super::tests::text(&with("guestOS = \"windows7-64\"\n"));
    assert!(
        bios.contains("-machine pc-i440fx-7.2,") && bios.contains("-cpu max,"),
        "{bios}"
    );
    assert!(bios.contains("-rtc base=localtime\n"), "{bios}");
    for wrong in ["memsize = \"511\"\n", "numvcpus = \"1000\"\n"] {
        assert!(line_of(wrong, |_| {}).is_err());
    }
}

#[test]
fn firmware_for_uefi_gets_controllers_that_it_can_start_from() {
    let flash = |wanted: &mut Wanted<'_>| {
        wanted.flash = Some(Flash {
            code: "/fw/code.fd".into(),
            variables: "/v/vars.fd".into(),
            needs_smm: false,
        });
    };
    let disk = "firmware = \"efi\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n\
                scsi0:8.present = \"TRUE\"\nscsi0:8.fileName = \"a.vmdk\"\n";
    for (rest, driver, drive) in [
        (
            "guestOS = \"debian12-64\"\n",
            "virtio-scsi-pci",
            "\"scsi-id\":8,",
        ),
        (
            "guestOS = \"windows9-64\"\n",
            "ich9-ahci",
            "\"bus\":\"scsi0f1.2\"",
        ),
        (
            "hako.scsi0.virtualDev = \"pvscsi\"\n",
            "\"pvscsi\"",
            "\"scsi-id\":8,",
        ),
    ] {
        let line = line_of(&with(&format!("{disk}{rest}")), flash).unwrap();
        let text = text_of(&line);
        assert!(
            text.contains(driver) && text.contains(drive),
            "{rest}\n{text}"
        );
        let is_told = line
            .warnings
            .iter()
            .any(|line| line.contains("no driver for pvscsi"));
        assert_eq!(is_told, !rest.contains("hako"), "{:?}", line.warnings);
    }
}

#[test]
fn the_guest_starts_from_what_the_vmx_says() {
    let drives = "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n\
                  scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n\
                  scsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"b.vmdk\"\n\
                  ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"atapi-cdrom\"\n\
                  ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"\n";
    let order_of = |rest: &str| {
        let text = text(&with(&format!("{drives}{rest}")));
        let place = |id: &str| {
            let device = text
                .lines()
                .find(|line| line.contains(&format!("\"id\":\"{id}\"")));
            let (_, rest) = device.unwrap().split_once("\"bootindex\":").unwrap();
            rest.split([',', '}'])
                .next()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        };
        let mut names = [
            "drive-scsi0-0",
            "drive-scsi0-1",
            "drive-ide1-0",
            "ethernet0",
        ];
        names.sort_by_key(|name| place(name));
        names.join(" ")
    };
    let usual = "drive-scsi0-0 drive-scsi0-1 drive-ide1-0 ethernet0";
    assert_eq!(order_of(""), usual);
    assert_eq!(
        order_of("bios.hddOrder = \"scsi0:1,scsi0:9,nonsense\"\n"),
        "drive-scsi0-1 drive-scsi0-0 drive-ide1-0 ethernet0"
    );
    assert_eq!(
        order_of("bios.bootOrder = \"ethernet0,cdrom\"\n"),
        "ethernet0 drive-ide1-0 drive-scsi0-0 drive-scsi0-1"
    );
}

#[test]
fn formats_are_said_and_parents_given() {
    let vmx = with(
        "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n\
                    scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.qcow2\"\n",
    );
    let layer = |path: &str, format| Layer {
        path: path.into(),
        format,
    };
    let source = Source::Files {
        layers: vec![
            layer("/v/a\",.qcow2", LayerFormat::Qcow2),
            layer("/v/b.qcow2", LayerFormat::Qcow2),
            layer("/v/c.raw", LayerFormat::Raw),
        ],
        writable: true,
    };
    let serial = Some("6000c29f".to_owned());
    let media = BTreeMap::from([("scsi0:0".parse().unwrap(), Loaded { source, serial })]);
    let parsed = Vmx::parse(vmx.as_bytes()).unwrap();
    let machine = parsed.machine();
    let mut text = String::new();
    line_of(&vmx, |wanted| {
        let wanted = Wanted {
            machine: &machine,
            keys: parsed.dictionary(),
            media: &media,
            types: wanted.types,
            serial: BTreeMap::new(),
            floppy: None,
            flash: None,
            kernel: None,
            sockets: wanted.sockets.clone(),
            ..*wanted
        };
        text = text_of(&command_line(&wanted).unwrap());
    })
    .unwrap();
    let expected = r#"-blockdev {"driver":"qcow2","read-only":false,"discard":"unmap","file":{"driver":"file","filename":"/v/a\",.qcow2","read-only":false,"discard":"unmap"},"backing":{"driver":"qcow2","read-only":true,"discard":"unmap","file":{"driver":"file","filename":"/v/b.qcow2","read-only":true,"discard":"unmap"},"backing":{"driver":"raw","read-only":true,"discard":"unmap","file":{"driver":"file","filename":"/v/c.raw","read-only":true,"discard":"unmap"}}},"node-name":"scsi0-0"}"#;
    assert!(text.contains(expected), "{text}");
    assert!(text.contains(r#""serial":"6000c29f""#), "{text}");
}

#[test]
fn the_console_gives_way_to_what_the_vmx_connects() {
    let file = BTreeMap::from([(0, Backend::File("/v/a,b.log".into()))]);
    let line = line_of(BASE, |wanted| wanted.serial = file).unwrap();
    let text = text_of(&line);
    let expected =
        "socket,id=serial0,path=/run/console,server=off,logfile=/v/a,,b.log,logappend=on";
    assert!(text.contains(expected), "{text}");
    let pipe = Backend::Pipe {
        path: "/v/p".into(),
        server: true,
    };
    let tcp = Backend::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 2001,
        server: false,
        telnet: true,
    };
    let ports = BTreeMap::from([(0, pipe.clone()), (2, tcp), (7, pipe.clone())]);
    let line = line_of(BASE, |wanted| wanted.serial = ports).unwrap();
    let text = text_of(&line);
    for expected in [
        "socket,path=/v/p,server=on,wait=off,id=serial0\n",
        "socket,id=serial1,path=/run/console,server=off\n",
        "socket,host=127.0.0.1,port=2001,server=off,telnet=on,id=serial2\n",
        r#"{"driver":"isa-serial","chardev":"serial2","index":2}"#,
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(line.console, Some(1));
    assert!(
        line.warnings
            .iter()
            .any(|line| line.contains("COM2 (ttyS1)"))
    );
    assert!(
        line.warnings
            .iter()
            .any(|line| line.contains("serial7 is left out"))
    );
    let all = (0..4).map(|port| (port, pipe.clone())).collect();
    assert_eq!(
        line_of(BASE, |wanted| wanted.serial = all).unwrap().console,
        None
    );
}

#[test]
fn a_screen_on_a_port_is_on_loopback_and_its_password_is_not_on_the_command_line() {
    let on = with("RemoteDisplay.vnc.enabled = \"TRUE\"\nRemoteDisplay.vnc.port = \"5907\"\n");
    let line = line_of(
        &format!("{on}RemoteDisplay.vnc.password = \"secret\"\n"),
        |_| {},
    )
    .unwrap();
    let text = text_of(&line);
    assert!(text.contains("-vnc 127.0.0.1:7,password=on") && !text.contains("secret"));
    assert_eq!(
        (line.vnc.as_str(), line.vnc_password.as_deref()),
        ("127.0.0.1:7", Some("secret"))
    );
    assert!(warnings(&on).contains("there is no password"));
    for refused in [
        "RemoteDisplay.vnc.key = \"abc\"\n",
        "RemoteDisplay.vnc.port = \"80\"\n",
    ] {
        let vmx = format!("RemoteDisplay.vnc.enabled = \"TRUE\"\n{refused}");
        assert!(super::tests::text(&with(&vmx)).contains("-vnc unix:/run/vnc"));
        assert!(warnings(&with(&vmx)).contains("on a socket only"));
    }
}

#[test]
fn ports_of_the_host_lead_to_the_guest_only_as_said() {
    let vmx = |forward: &str| {
        with(&format!(
            "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"nat\"\n\
             ethernet0.virtualDev = \"vmxnet3\"\nhako.ethernet0.forward = \"{forward}\"\n"
        ))
    };
    let good = text(&vmx("tcp:2222-:22, udp:0.0.0.0:53-10.0.2.15:53"));
    let expected =
        r#""hostfwd":[{"str":"tcp:127.0.0.1:2222-:22"},{"str":"udp:0.0.0.0:53-10.0.2.15:53"}]"#;
    assert!(good.contains(expected), "{good}");
    for wrong in [
        "tcp:2222",
        "icmp:1-:2",
        "tcp:/tmp/x-:22",
        "tcp:0-:22",
        "tcp:1-:x,guestfwd=y",
    ] {
        assert!(!text(&vmx(wrong)).contains("hostfwd"), "{wrong}");
        assert!(warnings(&vmx(wrong)).contains("left out"), "{wrong}");
    }
}

#[test]
fn what_finds_no_room_waits_or_is_reported_as_said() {
    let on_write = |said: &str| {
        let key = match said {
            "" => String::new(),
            said => format!("hako.onNoSpace = \"{said}\"\n"),
        };
        let line = line_of(&(LINUX.to_owned() + &key), |_| {}).map_err(|e| e.to_string())?;
        let text = text_of(&line);
        let words = ["stop", "report"];
        let has = |word: &&str| text.contains(&format!("\"werror\":\"{word}\""));
        Ok::<_, String>(words.into_iter().filter(has).collect::<Vec<_>>())
    };
    assert_eq!(on_write("").unwrap(), ["stop"]);
    assert_eq!(on_write("pause").unwrap(), ["stop"]);
    assert_eq!(on_write("Report").unwrap(), ["report"]);
    assert!(on_write("ignore").unwrap_err().contains("hako.onNoSpace"));
}

#[test]
fn a_card_that_is_meant_for_a_socket_does_not_get_to_the_world() {
    let vmx = with(
        "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"nat\"\n\
         hako.ethernet0.socket = \"stream:switch.sock\"\n",
    );
    assert!(text(&vmx).contains(r#""restrict":true"#));
    assert!(warnings(&vmx).contains("for --engine kvm only"));
}

#[test]
fn cards_without_an_address_get_one_that_stays() {
    let cards = "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"\n\
                 ethernet3.present = \"TRUE\"\nethernet3.virtualDev = \"e1000e\"\n";
    let text = text(&with(cards));
    assert!(
        text.contains("\"addr\":\"10.0\",\"mac\":\"00:0c:29:01:02:03\""),
        "{text}"
    );
    assert!(
        text.contains("\"addr\":\"13.0\",\"mac\":\"00:0c:29:01:02:21\""),
        "{text}"
    );
}

#[test]
fn a_kernel_is_started_without_firmware() {
    let efi = with("firmware = \"efi\"\nethernet0.present = \"TRUE\"\n");
    let line = line_of(&efi, |wanted| {
        wanted.flash = Some(Flash {
            code: "/fw/code.fd".into(),
            variables: "/v/vars.fd".into(),
            needs_smm: true,
        });
        wanted.kernel = Some(Kernel {
            kernel: "/run/a,kernel".into(),
            initrd: Some("/run/initrd".into()),
            cmdline: "root=/dev/sda1 ro, quiet".to_owned(),
        });
    });
    let text = text_of(&line.unwrap());
    assert!(text.contains(
        "-kernel /run/a,kernel\n-initrd /run/initrd\n-append root=/dev/sda1 ro, quiet\n"
    ));
    assert!(
        !text.contains("pflash") && text.contains("\"romfile\":\"\""),
        "{text}"
    );
}

#[test]
fn odd_names_stay_within_their_option() {
    let line = line_of(
        "displayName = \"a,b|0A|00-incoming=x\"\nmemsize = \"64\"\n",
        |_| {},
    )
    .unwrap();
    assert!(text_of(&line).contains("-name guest=a,,b-incoming=x\n"));
}

#[test]
fn nothing_leads_in_or_out_of_a_machine_that_is_isolated() {
    let vmx = "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n\
        hako.ethernet0.forward = \"tcp:2222-:22\"\nethernet1.present = \"TRUE\"\n\
        ethernet1.connectionType = \"bridged\"\nRemoteDisplay.vnc.enabled = \"TRUE\"\n\
        RemoteDisplay.vnc.password = \"secret\"\n";
    let text = text_of(&line_of(vmx, |wanted| wanted.is_isolated = true).unwrap());
    assert_eq!(text.matches("\"restrict\":true").count(), 2, "{text}");
    assert_eq!(text.matches("-netdev").count(), 2, "{text}");
    assert!(
        !text.contains("hostfwd") && text.contains("-vnc unix:"),
        "{text}"
    );
}
