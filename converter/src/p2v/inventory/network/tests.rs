use hako_guest::testkit::MemoryFs;

use super::*;

/// Returns what the files make of a machine without interfaces.
fn of(files: &[(&str, &str)]) -> Inventory {
    let fs = files
        .iter()
        .fold(MemoryFs::new("ext4"), |fs, (path, text)| {
            fs.file(path, text)
        });
    let mut inventory = Inventory::default();
    add(&mut inventory, &Tree::new(fs.build()), Known::Nothing);
    inventory
}

#[track_caller]
fn nic<'a>(inventory: &'a Inventory, name: &str) -> &'a Nic {
    let mut nics = inventory.nics.iter();
    nics.find(|nic| nic.name == name)
        .unwrap_or_else(|| panic!("{:?}", inventory.nics))
}

#[test]
fn stanzas_of_ifupdown_are_interfaces() {
    let inventory = of(&[
        (
            "/etc/network/interfaces",
            "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\nauto eno1\niface eno1 inet static\n  \
             address 192.0.2.5\n  netmask 255.255.255.0\n  gateway 192.0.2.1\n  dns-nameservers 192.0.2.2 192.0.2.3\n\
             iface eno1 inet6 auto\niface eno1:1 inet static\n  address 192.0.2.6/24\n",
        ),
        (
            "/etc/network/interfaces.d/more",
            "iface bond0 inet manual\n  bond-slaves eno2 eno3\n  mtu 9000\niface bond0.10 inet dhcp\n\
             iface vmbr0 inet manual\n bridge_ports none\n",
        ),
    ]);
    let first = nic(&inventory, "eno1");
    assert_eq!(first.addresses, ["192.0.2.5/24", "192.0.2.6/24"]);
    assert_eq!(
        (first.method, first.kind),
        (AddressMethod::Static, NicKind::Physical)
    );
    assert_eq!(first.configured_in, ["/etc/network/interfaces"]);
    let bond = nic(&inventory, "bond0");
    assert_eq!((bond.kind, bond.mtu), (NicKind::Bond, Some(9000)));
    assert_eq!(bond.ports, ["eno2", "eno3"]);
    let vlan = nic(&inventory, "bond0.10");
    assert_eq!(
        (vlan.kind, vlan.vlan, vlan.method),
        (NicKind::Vlan, Some(10), AddressMethod::Dhcp)
    );
    assert_eq!(vlan.ports, ["bond0"]);
    assert_eq!(nic(&inventory, "vmbr0").kind, NicKind::Bridge);
    assert_eq!(inventory.routes[0].gateway, "192.0.2.1");
    assert_eq!(inventory.name_servers, ["192.0.2.2", "192.0.2.3"]);
    assert!(inventory.nics.iter().all(|nic| nic.name != "lo"));
}

#[test]
fn units_of_networkd_and_links_name_their_cards() {
    let inventory = of(&[
        (
            "/etc/systemd/network/10-lan.link",
            "[Match]\nMACAddress=52:54:00:AA:BB:CC\n[Link]\nName=lan0\n",
        ),
        (
            "/etc/systemd/network/20-lan.network",
            "[Match]\nMACAddress=52:54:00:aa:bb:cc\n[Network]\nAddress=192.0.2.5/24\nGateway=192.0.2.1\nDNS=192.0.2.2\nVLAN=lan10\n",
        ),
        (
            "/etc/systemd/network/lan10.netdev",
            "[NetDev]\nName=lan10\nKind=vlan\n[VLAN]\nId=10\n",
        ),
        (
            "/etc/systemd/network/99-any.network",
            "[Match]\nName=lan*\n[Network]\nDHCP=yes\n",
        ),
    ]);
    let lan = nic(&inventory, "lan0");
    assert_eq!(lan.permanent_mac, "52:54:00:aa:bb:cc");
    assert_eq!(lan.addresses, ["192.0.2.5/24"]);
    assert_eq!(lan.method, AddressMethod::Static);
    let vlan = nic(&inventory, "lan10");
    assert_eq!((vlan.kind, vlan.vlan), (NicKind::Vlan, Some(10)));
    assert_eq!(inventory.routes[0].nic, "lan0");
    assert_eq!(inventory.nics.len(), 2, "{:?}", inventory.nics);
}

#[test]
fn netplan_and_keyfiles_say_who_is_a_port_of_whom() {
    let inventory = of(&[(
        "/etc/netplan/50-cloud-init.yaml",
        "network:\n  version: 2\n  ethernets:\n    a:\n      match: {macaddress: \"52:54:00:aa:bb:01\"}\n      \
         set-name: ens1\n      dhcp4: true\n    ens2: {}\n  bonds:\n    bond0:\n      interfaces: [ens1, ens2]\n      \
         addresses: [192.0.2.5/24]\n      routes: [{to: default, via: 192.0.2.1}]\n  vlans:\n    v7: {id: 7, link: bond0}\n",
    )]);
    assert_eq!(nic(&inventory, "ens1").permanent_mac, "52:54:00:aa:bb:01");
    assert_eq!(nic(&inventory, "bond0").ports, ["ens1", "ens2"]);
    assert_eq!(nic(&inventory, "v7").vlan, Some(7));
    let inventory = of(&[
        (
            "/etc/NetworkManager/system-connections/bond.nmconnection",
            "[connection]\nid=b\nuuid=u-1\ntype=bond\ninterface-name=bond0\n[ipv4]\nmethod=manual\n\
             address1=192.0.2.5/24,192.0.2.1\ndns=192.0.2.2;\n[ipv6]\nmethod=disabled\n",
        ),
        (
            "/etc/NetworkManager/system-connections/port",
            "[connection]\nid=p\ntype=ethernet\ninterface-name=ens1\nmaster=u-1\nslave-type=bond\n[ethernet]\n\
             mac-address=52:54:00:AA:BB:01\n",
        ),
        (
            "/etc/NetworkManager/system-connections/vpn",
            "[connection]\ntype=vpn\n",
        ),
        ("/etc/netplan/bad.yaml", "a: &b\n"),
    ]);
    let bond = nic(&inventory, "bond0");
    assert_eq!(bond.ports, ["ens1"]);
    assert_eq!(
        (bond.kind, bond.method),
        (NicKind::Bond, AddressMethod::Static)
    );
    assert_eq!(bond.addresses, ["192.0.2.5/24"]);
    assert_eq!(inventory.routes[0].gateway, "192.0.2.1");
    assert_eq!(nic(&inventory, "ens1").permanent_mac, "52:54:00:aa:bb:01");
    assert_eq!(inventory.nics.len(), 2);
    assert_eq!(
        inventory.remarks,
        ["/etc/netplan/bad.yaml is not understood"]
    );
}

#[test]
fn ifcfg_of_red_hat_and_of_suse_are_read() {
    let red_hat = "/etc/sysconfig/network-scripts";
    let inventory = of(&[
        (
            &format!("{red_hat}/ifcfg-eth0"),
            "DEVICE=eth0\nHWADDR=\"52:54:00:AA:BB:01\"\nBOOTPROTO=none\nIPADDR=192.0.2.5\nPREFIX=24\n\
             GATEWAY=192.0.2.1\nDNS1=192.0.2.2\n",
        ),
        (
            &format!("{red_hat}/ifcfg-eth1"),
            "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n",
        ),
        (
            &format!("{red_hat}/ifcfg-bond0"),
            "DEVICE=bond0\nBONDING_OPTS=\"mode=1\"\nBOOTPROTO=dhcp\n",
        ),
        (&format!("{red_hat}/ifcfg-eth0.bak"), "DEVICE=eth9\n"),
        (
            &format!("{red_hat}/ifcfg-lo"),
            "DEVICE=lo\nIPADDR=127.0.0.1\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-eth2",
            "BOOTPROTO='static'\nIPADDR='198.51.100.5/24'\nIPADDR_1='198.51.100.6'\nPREFIXLEN_1='24'\n",
        ),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "SUBSYSTEM==\"net\", ATTR{address}==\"52:54:00:aa:bb:02\", NAME=\"eth1\"\n",
        ),
    ]);
    let first = nic(&inventory, "eth0");
    assert_eq!(first.permanent_mac, "52:54:00:aa:bb:01");
    assert_eq!(first.addresses, ["192.0.2.5/24"]);
    assert_eq!(nic(&inventory, "eth1").permanent_mac, "52:54:00:aa:bb:02");
    assert_eq!(nic(&inventory, "bond0").ports, ["eth1"]);
    assert_eq!(
        nic(&inventory, "eth2").addresses,
        ["198.51.100.5/24", "198.51.100.6/24"]
    );
    assert_eq!(inventory.nics.len(), 4, "{:?}", inventory.nics);
}

#[test]
fn masks_are_lengths() {
    assert_eq!(prefix_of_mask("255.255.255.0"), Some(24));
    assert_eq!(prefix_of_mask("0.0.0.0"), Some(0));
    assert_eq!(prefix_of_mask("255.255.255.255"), Some(32));
    assert_eq!(prefix_of_mask("24"), Some(24));
    assert_eq!(prefix_of_mask("255.0.255.0"), None);
    assert_eq!(prefix_of_mask(""), None);
}

#[test]
fn damaged_files_are_no_trouble() {
    let texts = [
        (
            "/etc/netplan/a.yaml",
            "network:\n  ethernets:\n    a: {match: {macaddress: \"52:54:00:aa:bb:01\"}, dhcp4: true}\n    b:\n      - addresses: [192.0.2.5/24,\n        x]\n",
        ),
        (
            "/etc/network/interfaces",
            "iface eno1 inet static\n  address 192.0.2.5\n  netmask 255.0.0.0\n  bond_slaves a b\n",
        ),
        (
            "/etc/systemd/network/a.network",
            "[Match]\nName=a b\n[Network]\nAddress=192.0.2.5/24\nBond=c\n[Route]\nGateway=x\n",
        ),
        (
            "/etc/NetworkManager/system-connections/a",
            "[connection]\ntype=vlan\nmaster=x\n[ipv4]\naddress1=192.0.2.5/24,192.0.2.1\nroute1=a,b\n",
        ),
        (
            "/etc/sysconfig/network/ifcfg-a",
            "IPADDR_1='192.0.2.5'\nNETMASK_1=255.0.0.0\nVLAN=yes\nDNS1=x\n",
        ),
        (
            "/etc/udev/rules.d/70-persistent-net.rules",
            "ATTR{address}==\"x\", NAME=\"y\"\n",
        ),
    ];
    let mut rng = hako_block::testkit::Rng::new(3);
    for _ in 0..300 {
        let damaged = texts.map(|(path, text)| {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..rng.below(1..6) {
                let at = rng.below(0..bytes.len() as u64) as usize;
                match rng.below(0..3) {
                    0 => bytes[at] = b"[]{}:-,\"'=\n #*"[rng.below(0..14) as usize],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, rng.next_u64() as u8),
                }
            }
            (path, String::from_utf8_lossy(&bytes).into_owned())
        });
        let damaged: Vec<(&str, &str)> = damaged
            .iter()
            .map(|(path, text)| (*path, text.as_str()))
            .collect();
        assert!(of(&damaged).nics.len() < 30);
    }
}
