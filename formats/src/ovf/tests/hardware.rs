//! Which machine an envelope is.

use super::{envelope, envelope_of, hardware_section, item, machine, machine_with, read};
use crate::machine::{
    BootDevice, Bus, Cpu, DiskMode, Firmware, Medium, Network, SerialPort, Weight,
};
use crate::ovf::{Capacity, Choices, Envelope, Version};

const DISKS: &str = r#"<References><File ovf:id="f" ovf:href="a.vmdk"/><File ovf:id="iso" ovf:href="a.iso"/></References><DiskSection><Info/><Disk ovf:diskId="d" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^30" ovf:fileRef="f"/><Disk ovf:diskId="e" ovf:capacity="512"/></DiskSection><NetworkSection><Info/><Network ovf:name="VM Network"/><Network ovf:name="nat"/></NetworkSection>"#;

fn nodes(text: &str) -> Vec<String> {
    let (machine, _) = machine(text);
    machine
        .drives
        .iter()
        .map(|drive| drive.node.to_string())
        .collect()
}

#[test]
fn drives_hang_where_their_parents_and_addresses_say() {
    let items = [
        item(
            3,
            6,
            "<Address>1</Address><ResourceSubType>VirtualSCSI</ResourceSubType>",
        ),
        item(
            4,
            6,
            "<ResourceSubType>someother, lsilogic</ResourceSubType>",
        ),
        item(
            5,
            20,
            "<Address>0</Address><ResourceSubType>vmware.sata.ahci</ResourceSubType>",
        ),
        item(
            6,
            20,
            "<ResourceSubType>vmware.nvme.controller</ResourceSubType>",
        ),
        item(
            7,
            5,
            "<Address>0</Address><ResourceSubType>PIIX4</ResourceSubType>",
        ),
        item(
            8,
            17,
            "<HostResource>ovf:/disk/d</HostResource><Parent>3</Parent><AddressOnParent>8</AddressOnParent>",
        ),
        item(
            9,
            17,
            "<HostResource>/disk/e</HostResource><Parent>6</Parent>",
        ),
        item(
            10,
            15,
            "<HostResource>ovf:/file/iso</HostResource><Parent>5</Parent><AddressOnParent>2</AddressOnParent>",
        ),
        item(
            11,
            15,
            "<Parent>7</Parent><AddressOnParent>3</AddressOnParent><AutomaticAllocation>false</AutomaticAllocation>",
        ),
    ];
    let (machine, lost) = machine(&envelope(DISKS, &items.concat()));
    let drives: Vec<_> = machine
        .drives
        .iter()
        .map(|drive| match &drive.medium {
            Medium::Disk(disk) => format!("{} disk {}", drive.node, disk.file),
            Medium::CdImage { file } => format!("{} cd {file}", drive.node),
            _ => format!("{} empty {}", drive.node, drive.connected),
        })
        .collect();
    assert_eq!(
        drives,
        [
            "ide1:1 empty false",
            "sata0:2 cd iso",
            "scsi1:8 disk d",
            "nvme0:0 disk e"
        ]
    );
    let controllers: Vec<_> = machine
        .controllers
        .iter()
        .map(|own| (own.bus, own.number, own.model.as_deref()))
        .collect();
    assert_eq!(
        controllers,
        [
            (Bus::Ide, 0, None),
            (Bus::Ide, 1, None),
            (Bus::Sata, 0, None),
            (Bus::Scsi, 0, Some("lsilogic")),
            (Bus::Scsi, 1, Some("pvscsi")),
            (Bus::Nvme, 0, None),
        ]
    );
    assert_eq!(
        lost,
        [
            "no processor is described: it gets one",
            "no memory is described"
        ]
    );
}

#[test]
fn an_item_may_say_the_size_of_an_empty_disk() {
    let parts = "<ElementName>D</ElementName><AllocationUnits>byte*1024*1024</AllocationUnits><VirtualQuantity>10</VirtualQuantity>";
    let text = envelope("", &item(1, 17, parts));
    let envelope = read(&text);
    assert_eq!(envelope.disks[0].capacity, Capacity::Bytes(10 << 20));
    assert_eq!(nodes(&text), ["scsi0:0"]);
    let (without, lost) = machine(&super::envelope(
        "",
        &item(1, 17, "<ElementName>D</ElementName>"),
    ));
    assert!(without.drives.is_empty());
    assert!(
        lost.contains(&"disk \"D\", which has no content".to_owned()),
        "{lost:?}"
    );
}

#[test]
fn drives_that_cannot_be_where_they_say_are_moved_and_told() {
    let disk = |id, address| {
        let parts = format!(
            "<ElementName>D{id}</ElementName><HostResource>ovf:/disk/d</HostResource><Parent>3</Parent><AddressOnParent>{address}</AddressOnParent>"
        );
        item(id, 17, &parts)
    };
    let controller = item(3, 6, "<Address>0</Address>");
    let items = [controller, disk(4, 7), disk(5, 0), disk(6, 0), disk(7, 99)].concat();
    let text = envelope(DISKS, &items);
    assert_eq!(nodes(&text), ["scsi0:0", "scsi0:1", "scsi0:2", "scsi0:3"]);
    let (_, lost) = machine(&text);
    for name in ["D4", "D6", "D7"] {
        assert!(
            lost.iter().any(|line| line.contains(name)),
            "{name}: {lost:?}"
        );
    }
    assert!(!lost.iter().any(|line| line.contains("D5")), "{lost:?}");
}

#[test]
fn a_drive_beyond_what_a_machine_has_is_refused_not_dropped() {
    let controllers: String = (10..15).map(|id| item(id, 6, "")).collect();
    let disk = item(
        1,
        17,
        "<HostResource>ovf:/disk/d</HostResource><Parent>14</Parent>",
    );
    let envelope = read(&envelope(DISKS, &format!("{controllers}{disk}")));
    let error = envelope.systems[0]
        .machine(&envelope, &Choices::default())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("beyond those that a machine has"),
        "{error}"
    );
}

#[test]
fn processors_memory_and_their_shares_are_read() {
    let cores = "<vmw:CoresPerSocket>2</vmw:CoresPerSocket>";
    let cpu = item(1, 3, "<AllocationUnits>hertz * 10^6</AllocationUnits><VirtualQuantity>4</VirtualQuantity><Reservation>234</Reservation><Limit>345</Limit><Weight>123</Weight>")
        .replace("</Item>", &format!("{cores}</Item>"));
    let memory = item(
        2,
        4,
        "<AllocationUnits>byte * 2^20</AllocationUnits><VirtualQuantity>64</VirtualQuantity><Limit>-1</Limit><Reservation>32</Reservation>",
    );
    let (machine, lost) = machine(&envelope("", &format!("{cpu}{memory}")));
    let expected = Cpu {
        count: 4,
        cores_per_socket: 2,
    };
    assert_eq!(machine.cpu, expected);
    assert_eq!(machine.memory_bytes, 64 << 20);
    assert_eq!(
        (machine.cpu_share.reservation, machine.cpu_share.limit),
        (Some(234), Some(345))
    );
    assert_eq!(machine.cpu_share.weight, Some(Weight::Custom(123)));
    assert_eq!(
        (machine.memory_share.reservation, machine.memory_share.limit),
        (Some(32), None)
    );
    assert_eq!(machine.hardware_version, Some(13));
    assert_eq!(lost, Vec::<String>::new());
}

#[test]
fn too_many_processors_are_refused() {
    for count in ["0", "5000", "4294967297"] {
        let cpu = item(1, 3, &format!("<VirtualQuantity>{count}</VirtualQuantity>"));
        let envelope = read(&envelope("", &cpu));
        assert!(
            envelope.systems[0]
                .machine(&envelope, &Choices::default())
                .is_err()
        );
    }
}

#[test]
fn network_cards_are_read_in_order() {
    let nic = |id, model: &str, network: &str| {
        let parts = format!(
            "<ElementName>N{id}</ElementName><ResourceSubType>{model}</ResourceSubType><Connection>{network}</Connection>"
        );
        item(id, 10, &parts)
    };
    let items = [
        nic(1, "VmxNet3", "VM Network"),
        nic(2, "PCNet32", "nat"),
        nic(3, "VirtioNet", "nat"),
        nic(4, "E1000e", "nat").replace(
            "</Item>",
            "<rasd:Address>00:50:56:00:00:01</rasd:Address></Item>",
        ),
    ];
    let (machine, lost) = machine(&envelope(DISKS, &items.concat()));
    let models: Vec<_> = machine
        .nics
        .iter()
        .map(|nic| nic.model.as_deref())
        .collect();
    assert_eq!(
        models,
        [Some("vmxnet3"), Some("vlance"), None, Some("e1000e")]
    );
    assert_eq!(
        machine.nics[0].network,
        Network::PortGroup("VM Network".to_owned())
    );
    assert_eq!(machine.nics[1].network, Network::Nat);
    assert_eq!(
        machine.nics[3].mac.unwrap().to_string(),
        "00:50:56:00:00:01"
    );
    assert!(
        lost.iter().any(|line| line.contains("VirtioNet")),
        "{lost:?}"
    );
}

#[test]
fn settings_of_vmware_are_carried_or_told() {
    let setting = |key: &str, value: &str| {
        format!(r#"<vmw:Config ovf:required="false" vmw:key="{key}" vmw:value="{value}"/>"#)
    };
    let items = [
        setting("firmware", "efi"),
        setting("bootOptions.efiSecureBootEnabled", "true"),
        setting("nestedHVEnabled", "true"),
        item(
            9,
            21,
            "<ResourceSubType>vmware.serialport.file</ResourceSubType><HostResource>log.txt</HostResource>",
        ),
        item(10, 23, "<ElementName>usb</ElementName>"),
    ];
    let boot = r#"<vmw:BootOrderSection vmw:type="cdrom" vmw:instanceId="1"/><vmw:BootOrderSection vmw:type="disk" vmw:instanceId="2"/>"#;
    let system = r#"<OperatingSystemSection ovf:id="94" vmw:osType="debian12_64Guest"><Info/></OperatingSystemSection><AnnotationSection><Info/><Annotation>one
two</Annotation></AnnotationSection><x:More xmlns:x="urn:x"/>"#;
    let text = envelope_of(
        "",
        &format!(
            "<Name>web 1</Name>{}{boot}{system}",
            hardware_section(&items.concat())
        ),
    );
    let (machine, lost) = machine(&text);
    assert_eq!(
        (machine.name.as_str(), machine.annotation.as_str()),
        ("web 1", "one\ntwo")
    );
    assert_eq!(
        (machine.firmware, machine.secure_boot),
        (Firmware::Efi, true)
    );
    assert_eq!(machine.guest_os.as_deref(), Some("debian12-64"));
    assert_eq!(machine.boot_order, [BootDevice::Cdrom, BootDevice::Disk]);
    let port = SerialPort {
        number: 0,
        kind: "file".to_owned(),
        target: "log.txt".to_owned(),
    };
    assert_eq!(machine.serial_ports, [port]);
    for what in [
        "nestedHVEnabled",
        "USB controller \"usb\"",
        "the section More",
    ] {
        assert!(
            lost.iter().any(|line| line.contains(what)),
            "{what}: {lost:?}"
        );
    }
}

#[test]
fn the_mode_of_a_disk_is_read() {
    let disk = item(1, 17, "<HostResource>ovf:/disk/d</HostResource>").replace(
        "</Item>",
        r#"<vmw:Config vmw:key="backing.diskMode" vmw:value="independent_persistent"/></Item>"#,
    );
    let (machine, _) = machine(&envelope(DISKS, &disk));
    let Medium::Disk(medium) = &machine.drives[0].medium else {
        panic!("no disk");
    };
    assert_eq!(medium.mode, DiskMode::IndependentPersistent);
}

const OPTIONS: &str = r#"<References/><DiskSection><Info/><Disk ovf:diskId="d" ovf:capacity="${size}" ovf:capacityAllocationUnits="byte * 2^30"/></DiskSection><DeploymentOptionSection><Info/><Configuration ovf:id="small"><Label>Small</Label></Configuration><Configuration ovf:id="large" ovf:default="true"/></DeploymentOptionSection>"#;

fn choice(deployment: Option<&str>, properties: &[(&str, &str)]) -> Choices {
    Choices {
        deployment: deployment.map(str::to_owned),
        properties: properties
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

#[test]
fn deployment_options_choose_among_items() {
    let memory = |configuration: &str, mib: u32| {
        let parts = format!(
            "<AllocationUnits>MegaBytes</AllocationUnits><VirtualQuantity>{mib}</VirtualQuantity>"
        );
        let attribute = match configuration {
            "" => "<Item>".to_owned(),
            names => format!("<Item ovf:configuration=\"{names}\">"),
        };
        item(2, 4, &parts).replace("<Item>", &attribute)
    };
    let bound = memory("", 1).replace("<Item>", "<Item ovf:bound=\"min\">");
    let items = [
        memory("", 256),
        bound,
        memory("small large", 512),
        memory("large", 1024),
    ];
    let text = envelope(OPTIONS, &items.concat());
    for (option, mib) in [(Some("small"), 512), (Some("large"), 1024), (None, 1024)] {
        let (machine, _) = machine_with(&text, &choice(option, &[]));
        assert_eq!(machine.memory_bytes, mib << 20, "{option:?}");
    }
    let envelope = read(&text);
    let error = envelope.systems[0]
        .machine(&envelope, &choice(Some("huge"), &[]))
        .unwrap_err();
    assert_eq!(error.hint_text(), Some("it has small, large"));
}

#[test]
fn the_size_of_a_disk_may_be_a_property() {
    let product = r#"<ProductSection ovf:class="app"><Info/><Property ovf:key="size" ovf:type="uint32" ovf:value="5" ovf:userConfigurable="true"><Label>Size</Label><Value ovf:configuration="small" ovf:value="3"/></Property></ProductSection>"#;
    let hardware = hardware_section(&item(1, 24, ""));
    let envelope = read(&envelope_of(OPTIONS, &format!("{hardware}{product}")));
    let bytes = |choices: &Choices| {
        envelope.capacity_bytes(&envelope.disks[0], &envelope.systems[0], choices)
    };
    assert_eq!(bytes(&choice(None, &[])).unwrap(), 5 << 30);
    assert_eq!(bytes(&choice(Some("small"), &[])).unwrap(), 3 << 30);
    assert_eq!(bytes(&choice(None, &[("size", "7")])).unwrap(), 7 << 30);
    assert_eq!(bytes(&choice(None, &[("app.size", "8")])).unwrap(), 8 << 30);
    for value in ["", "0", "x", "-1", "99999999999999999999", "9999999999"] {
        assert!(bytes(&choice(None, &[("size", value)])).is_err(), "{value}");
    }
    let bare = read(&envelope_of(OPTIONS, &hardware));
    let error = bare.capacity_bytes(&bare.disks[0], &bare.systems[0], &Choices::default());
    assert!(error.unwrap_err().to_string().contains("that has no value"));
}

#[test]
fn collections_have_several_machines_or_none() {
    let one = envelope("", "");
    let start = one.find("<VirtualSystem ").unwrap();
    let end = one.find("</Envelope>").unwrap();
    let system = |id: &str| one[start..end].replace("\"vm\"", &format!("\"{id}\""));
    let collection = |inside: &str| {
        format!(
            "{}<VirtualSystemCollection ovf:id=\"all\"><Info/>{inside}</VirtualSystemCollection></Envelope>",
            &one[..start]
        )
    };
    let inner = format!(
        "<VirtualSystemCollection ovf:id=\"in\"><Info/>{}</VirtualSystemCollection>",
        system("b")
    );
    let both = read(&collection(&format!("{}{inner}", system("a"))));
    let ids: Vec<_> = both
        .systems
        .iter()
        .map(|system| system.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(read(&collection("")).systems.is_empty());
    let twice = collection(&system("a").repeat(2));
    assert!(Envelope::parse(twice.as_bytes()).is_err());
}

#[test]
fn the_hardware_for_vmware_is_taken_and_the_other_told() {
    let other = hardware_section(&item(1, 4, "<VirtualQuantity>1</VirtualQuantity>"))
        .replace("vmx-13", "xen3");
    let own = hardware_section(&item(1, 4, "<VirtualQuantity>2</VirtualQuantity>"))
        .replace("vmx-13", "foobar, vmx-04 vmx-07");
    let (machine, lost) = machine(&envelope_of("", &format!("{other}{own}")));
    assert_eq!(machine.memory_bytes, 2 << 20);
    assert_eq!(machine.hardware_version, Some(7));
    assert!(
        lost.contains(&"other hardware, for xen3".to_owned()),
        "{lost:?}"
    );
}

#[test]
fn messages_stand_in_for_texts() {
    let strings = r#"<Strings xml:lang="de-DE"><Msg ovf:msgid="n">Netz</Msg></Strings><Strings xml:lang="en-US"><Msg ovf:msgid="n">Net</Msg></Strings>"#;
    let network = r#"<NetworkSection><Info/><Network ovf:name="n"><Description ovf:msgid="n"/></Network></NetworkSection>"#;
    let text = envelope(network, "").replace("</Envelope>", &format!("{strings}</Envelope>"));
    assert_eq!(read(&text).networks[0].description, "Net");
}

#[test]
fn items_of_ovf_2_are_read() {
    let text = r#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/2" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/2" xmlns:s="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd" xmlns:e="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd"><References><File ovf:id="f" ovf:href="a.vmdk"/></References><DiskSection><Info/><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="1048576"/></DiskSection><NetworkSection><Info/><Network ovf:name="n"/></NetworkSection><VirtualSystem ovf:id="v"><Info/><VirtualHardwareSection><Info/><StorageItem><s:HostResource>ovf:/disk/d</s:HostResource><s:InstanceID>1</s:InstanceID><s:ResourceType>31</s:ResourceType></StorageItem><EthernetPortItem><e:Address>00:16:8B:DB:00:5E</e:Address><e:Connection>n</e:Connection><e:InstanceID>2</e:InstanceID><e:ResourceType>10</e:ResourceType></EthernetPortItem></VirtualHardwareSection></VirtualSystem></Envelope>"#;
    let envelope = read(text);
    assert_eq!(envelope.version, Version::V2);
    let (machine, _) = machine(text);
    assert_eq!(machine.drives.len(), 1);
    assert_eq!(
        machine.nics[0].mac.unwrap().to_string(),
        "00:16:8b:db:00:5e"
    );
}

#[test]
fn ovirts_dialect_is_read() {
    let text = r#"<?xml version="1.0" encoding="utf-8"?><ovf:Envelope xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" ovf:version="0.9"><References><File ovf:href="g/v" ovf:id="v" ovf:size="5" ovf:description="x"/></References><Section xsi:type="ovf:NetworkSection_Type"><Info>Networks</Info><Network ovf:name="ovirtmgmt"/></Section><Section xsi:type="ovf:DiskSection_Type"><Info>Disks</Info><Disk ovf:diskId="v" ovf:size="10" ovf:fileRef="g/v" ovf:parentRef="" ovf:volume-format="COW" ovf:disk-interface="VirtIO" ovf:boot="True"/></Section><Content ovf:id="out" xsi:type="ovf:VirtualSystem_Type"><Name>rhv</Name><TemplateId>0</TemplateId><Section ovf:id="1" ovf:required="false" xsi:type="ovf:OperatingSystemSection_Type"><Info>Guest</Info><Description>rhel_7x64</Description></Section><Section xsi:type="ovf:VirtualHardwareSection_Type"><Info>2 CPU, 2048 MB</Info><Item><rasd:Caption>2 virtual cpu</rasd:Caption><rasd:InstanceId>1</rasd:InstanceId><rasd:ResourceType>3</rasd:ResourceType><rasd:num_of_sockets>2</rasd:num_of_sockets><rasd:cpu_per_socket>3</rasd:cpu_per_socket></Item><Item><rasd:InstanceId>2</rasd:InstanceId><rasd:ResourceType>4</rasd:ResourceType><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:VirtualQuantity>2048</rasd:VirtualQuantity></Item><Item><rasd:Caption>Drive 1</rasd:Caption><rasd:InstanceId>v</rasd:InstanceId><rasd:ResourceType>17</rasd:ResourceType><Type>disk</Type><rasd:HostResource>g/v</rasd:HostResource><rasd:Parent>00000000-0000-0000-0000-000000000000</rasd:Parent><rasd:StorageId>00000000</rasd:StorageId></Item><Item><rasd:InstanceId>3</rasd:InstanceId><rasd:ResourceType>10</rasd:ResourceType><rasd:ResourceSubType>3</rasd:ResourceSubType><rasd:Connection>ovirtmgmt</rasd:Connection></Item></Section></Content></ovf:Envelope>"#;
    let envelope = read(text);
    let disk = envelope.disk("v").unwrap();
    assert_eq!(disk.file.as_ref().unwrap().href, "g/v");
    let (machine, _) = machine(text);
    assert_eq!((machine.cpu.count, machine.cpu.cores_per_socket), (6, 3));
    assert_eq!(machine.memory_bytes, 2 << 30);
    assert_eq!(nodes(text), ["scsi0:0"]);
    let bytes = envelope.capacity_bytes(disk, &envelope.systems[0], &Choices::default());
    assert_eq!(bytes.unwrap(), 10 << 30);
}

#[test]
fn xenservers_disks_without_controllers_are_read() {
    let parts = |unit| {
        format!("<AddressOnParent>{unit}</AddressOnParent><HostResource>/disk/d</HostResource>")
    };
    let items = [
        item(1, 19, &parts(0)),
        item(2, 19, &parts(1)),
        item(3, 15, ""),
    ];
    let text = envelope(DISKS, &items.concat()).replace("vmx-13", "hvm-3.0-unknown");
    assert_eq!(nodes(&text), ["ide0:0", "scsi0:0", "scsi0:1"]);
}
