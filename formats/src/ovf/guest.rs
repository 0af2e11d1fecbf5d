//! Names of guest systems: VMX's (`guestOS`), VMware's in an envelope (`vmw:osType`, the vSphere
//! API's VirtualMachineGuestOsIdentifier) and CIM's numbers (`CIM_OperatingSystem.OsType`).

use super::Guest;

/// VMX's name, VMware's without "Guest", CIM's number. The first of a number is what a text means
/// that has nothing but the number.
const GUESTS: &[(&str, &str, u16)] = &[
    ("other", "other", 1),
    ("other-64", "otherGuest64", 102),
    ("dos", "dos", 14),
    ("win31", "win31", 15),
    ("win95", "win95", 16),
    ("win98", "win98", 17),
    ("winme", "winMe", 63),
    ("winnt", "winNT", 18),
    ("win2000pro", "win2000Pro", 58),
    ("win2000serv", "win2000Serv", 58),
    ("win2000advserv", "win2000AdvServ", 58),
    ("winxppro", "winXPPro", 67),
    ("winxphome", "winXPHome", 67),
    ("winxppro-64", "winXPPro64", 71),
    ("winnetstandard", "winNetStandard", 69),
    ("winnetenterprise", "winNetEnterprise", 69),
    ("winnetdatacenter", "winNetDatacenter", 69),
    ("winnetbusiness", "winNetBusiness", 69),
    ("winnetweb", "winNetWeb", 69),
    ("winnetstandard-64", "winNetStandard64", 70),
    ("winnetenterprise-64", "winNetEnterprise64", 70),
    ("winnetdatacenter-64", "winNetDatacenter64", 70),
    ("winvista", "winVista", 73),
    ("winvista-64", "winVista64", 74),
    ("longhorn", "winLonghorn", 76),
    ("longhorn-64", "winLonghorn64", 77),
    ("windows7", "windows7", 105),
    ("windows7-64", "windows7_64", 105),
    ("windows7srv-64", "windows7Server64", 103),
    ("windows8", "windows8", 113),
    ("windows8-64", "windows8_64", 114),
    ("windows8srv-64", "windows8Server64", 112),
    ("windows9", "windows9", 119),
    ("windows9-64", "windows9_64", 120),
    ("windows9srv-64", "windows9Server64", 116),
    ("windows11-64", "windows11_64", 120),
    ("windows12-64", "windows12_64", 120),
    ("windows2019srv-64", "windows2019srv_64", 116),
    ("windows2019srvNext-64", "windows2019srvNext_64", 116),
    ("windows2022srvNext-64", "windows2022srvNext_64", 116),
    ("winhyperv", "windowsHyperV", 103),
    ("freebsd", "freebsd", 42),
    ("freebsd-64", "freebsd64", 78),
    ("freebsd11", "freebsd11", 42),
    ("freebsd11-64", "freebsd11_64", 78),
    ("freebsd12", "freebsd12", 42),
    ("freebsd12-64", "freebsd12_64", 78),
    ("freebsd13", "freebsd13", 42),
    ("freebsd13-64", "freebsd13_64", 78),
    ("freebsd14", "freebsd14", 42),
    ("freebsd14-64", "freebsd14_64", 78),
    ("freebsd15-64", "freebsd15_64", 78),
    ("rhel2", "rhel2", 79),
    ("rhel3", "rhel3", 79),
    ("rhel3-64", "rhel3_64", 80),
    ("rhel4", "rhel4", 79),
    ("rhel4-64", "rhel4_64", 80),
    ("rhel5", "rhel5", 79),
    ("rhel5-64", "rhel5_64", 80),
    ("rhel6", "rhel6", 79),
    ("rhel6-64", "rhel6_64", 80),
    ("rhel7", "rhel7", 79),
    ("rhel7-64", "rhel7_64", 80),
    ("rhel8-64", "rhel8_64", 80),
    ("rhel9-64", "rhel9_64", 80),
    ("rhel10-64", "rhel10_64", 80),
    ("centos", "centos", 106),
    ("centos-64", "centos64", 107),
    ("centos6", "centos6", 106),
    ("centos6-64", "centos6_64", 107),
    ("centos7", "centos7", 106),
    ("centos7-64", "centos7_64", 107),
    ("centos8-64", "centos8_64", 107),
    ("centos9-64", "centos9_64", 107),
    ("rockylinux-64", "rockylinux_64", 101),
    ("almalinux-64", "almalinux_64", 101),
    ("oraclelinux", "oracleLinux", 108),
    ("oraclelinux-64", "oracleLinux64", 109),
    ("oraclelinux6", "oracleLinux6", 108),
    ("oraclelinux6-64", "oracleLinux6_64", 109),
    ("oraclelinux7", "oracleLinux7", 108),
    ("oraclelinux7-64", "oracleLinux7_64", 109),
    ("oraclelinux8-64", "oracleLinux8_64", 109),
    ("oraclelinux9-64", "oracleLinux9_64", 109),
    ("suse", "suse", 82),
    ("suse-64", "suse64", 83),
    ("sles", "sles", 84),
    ("sles-64", "sles64", 85),
    ("sles10", "sles10", 84),
    ("sles10-64", "sles10_64", 85),
    ("sles11", "sles11", 84),
    ("sles11-64", "sles11_64", 85),
    ("sles12", "sles12", 84),
    ("sles12-64", "sles12_64", 85),
    ("sles15-64", "sles15_64", 85),
    ("sles16-64", "sles16_64", 85),
    ("opensuse", "opensuse", 82),
    ("opensuse-64", "opensuse64", 83),
    ("mandriva", "mandriva", 89),
    ("mandriva-64", "mandriva64", 90),
    ("turbolinux", "turboLinux", 91),
    ("turbolinux-64", "turboLinux64", 92),
    ("ubuntu", "ubuntu", 93),
    ("ubuntu-64", "ubuntu64", 94),
    // A text that says only "Debian" is for any release; these are the oldest that VMware names.
    ("debian4", "debian4", 95),
    ("debian4-64", "debian4_64", 96),
    ("debian5", "debian5", 95),
    ("debian5-64", "debian5_64", 96),
    ("debian6", "debian6", 95),
    ("debian6-64", "debian6_64", 96),
    ("debian7", "debian7", 95),
    ("debian7-64", "debian7_64", 96),
    ("debian8", "debian8", 95),
    ("debian8-64", "debian8_64", 96),
    ("debian9", "debian9", 95),
    ("debian9-64", "debian9_64", 96),
    ("debian10", "debian10", 95),
    ("debian10-64", "debian10_64", 96),
    ("debian11", "debian11", 95),
    ("debian11-64", "debian11_64", 96),
    ("debian12", "debian12", 95),
    ("debian12-64", "debian12_64", 96),
    ("debian13-64", "debian13_64", 96),
    ("asianux3", "asianux3", 36),
    ("asianux3-64", "asianux3_64", 101),
    ("asianux4", "asianux4", 36),
    ("asianux4-64", "asianux4_64", 101),
    ("asianux5-64", "asianux5_64", 101),
    ("asianux7-64", "asianux7_64", 101),
    ("asianux8-64", "asianux8_64", 101),
    ("asianux9-64", "asianux9_64", 101),
    ("fedora", "fedora", 36),
    ("fedora-64", "fedora64", 101),
    ("coreos-64", "coreos64", 101),
    ("vmware-photon-64", "vmwarePhoton64", 101),
    ("amazonlinux2-64", "amazonlinux2_64", 101),
    ("amazonlinux3-64", "amazonlinux3_64", 101),
    ("crxpod1", "crxPod1", 101),
    ("crxsys1", "crxSys1", 101),
    ("other24xlinux", "other24xLinux", 97),
    ("other24xlinux-64", "other24xLinux64", 98),
    ("other26xlinux", "other26xLinux", 99),
    ("other26xlinux-64", "other26xLinux64", 100),
    ("other3xlinux", "other3xLinux", 36),
    ("other3xlinux-64", "other3xLinux64", 101),
    ("other4xlinux", "other4xLinux", 36),
    ("other4xlinux-64", "other4xLinux64", 101),
    ("other5xlinux", "other5xLinux", 36),
    ("other5xlinux-64", "other5xLinux64", 101),
    ("other6xlinux", "other6xLinux", 36),
    ("other6xlinux-64", "other6xLinux64", 101),
    ("other7xlinux", "other7xLinux", 36),
    ("other7xlinux-64", "other7xLinux64", 101),
    ("linux", "genericLinux", 36),
    ("otherlinux", "otherLinux", 36),
    ("otherlinux-64", "otherLinux64", 101),
    ("solaris8", "solaris8", 29),
    ("solaris9", "solaris9", 29),
    ("solaris10", "solaris10", 29),
    ("solaris10-64", "solaris10_64", 81),
    ("solaris11-64", "solaris11_64", 81),
    ("netware4", "netware4", 21),
    ("netware5", "netware5", 21),
    ("netware6", "netware6", 21),
    ("os2", "os2", 12),
    ("ecomstation", "eComStation", 110),
    ("ecomstation2", "eComStation2", 110),
    ("unixware7", "unixWare7", 25),
    ("openserver5", "openServer5", 26),
    ("openserver6", "openServer6", 26),
    ("darwin", "darwin", 2),
    ("darwin-64", "darwin64", 2),
    ("vmkernel", "vmkernel", 104),
    ("vmkernel5", "vmkernel5", 104),
    ("vmkernel6", "vmkernel6", 104),
    ("vmkernel65", "vmkernel65", 104),
    ("vmkernel7", "vmkernel7", 104),
    ("vmkernel8", "vmkernel8", 104),
];

/// What CIM's number means where the first of the table above would say too much.
const BY_NUMBER: [(u16, &str); 14] = [
    (36, "otherlinux"),
    (101, "otherlinux-64"),
    (79, "rhel7"),
    (80, "rhel7-64"),
    (84, "sles12"),
    (85, "sles12-64"),
    (95, "debian10"),
    (96, "debian10-64"),
    (29, "solaris10"),
    (81, "solaris11-64"),
    (103, "windows7srv-64"),
    (110, "ecomstation"),
    (115, "windows8srv-64"),
    (117, "windows8"),
];

/// Returns VMX's name of a guest system: by VMware's name, else by CIM's number. A name that the
/// table lacks is turned by the rule that most follow.
pub(super) fn vmx_name(guest: &Guest) -> Option<String> {
    let named = guest.vmware.as_deref().map(vmx_of_vmware);
    named.or_else(|| by_number(guest.id?).map(str::to_owned))
}

fn vmx_of_vmware(name: &str) -> String {
    let bare = bare(name);
    let known = GUESTS
        .iter()
        .find(|(_, vmware, _)| vmware.eq_ignore_ascii_case(bare));
    if let Some((vmx, _, _)) = known {
        return (*vmx).to_owned();
    }
    let lower = bare.to_ascii_lowercase();
    match lower.strip_suffix("64") {
        Some(rest) => format!("{}-64", rest.strip_suffix('_').unwrap_or(rest)),
        None => lower,
    }
}

/// "ubuntu64Guest" is "ubuntu64"; only "otherGuest64" has it inside.
fn bare(name: &str) -> &str {
    name.strip_suffix("Guest").unwrap_or(name)
}

fn by_number(number: u16) -> Option<&'static str> {
    let exact = BY_NUMBER.iter().find(|(other, _)| *other == number);
    let first = || GUESTS.iter().find(|(_, _, other)| *other == number);
    exact
        .map(|(_, vmx)| *vmx)
        .or_else(|| first().map(|(vmx, _, _)| *vmx))
}

/// Returns VMware's name and CIM's number for VMX's name.
pub(super) fn of_vmx(name: &str) -> Option<(String, u16)> {
    let known = GUESTS
        .iter()
        .find(|(vmx, _, _)| vmx.eq_ignore_ascii_case(name));
    let (_, vmware, number) = known?;
    let vmware = match *vmware {
        "otherGuest64" => "otherGuest64".to_owned(),
        bare => format!("{bare}Guest"),
    };
    Some((vmware, *number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmx(vmware: Option<&str>, id: Option<u16>) -> Option<String> {
        vmx_name(&Guest {
            id,
            vmware: vmware.map(str::to_owned),
            description: String::new(),
        })
    }

    #[test]
    fn names_go_to_vmx_and_back() {
        for (name, _, _) in GUESTS {
            let (vmware, number) = of_vmx(name).unwrap();
            assert_eq!(vmx(Some(&vmware), None).as_deref(), Some(*name), "{vmware}");
            assert!(by_number(number).is_some());
        }
    }

    #[test]
    fn names_that_the_table_lacks_follow_the_rule() {
        for (vmware, name) in [
            ("other8xLinux64Guest", "other8xlinux-64"),
            ("debian99_64Guest", "debian99-64"),
            ("darwin23_64Guest", "darwin23-64"),
            ("otherGuest64", "other-64"),
            ("otherGuest", "other"),
        ] {
            assert_eq!(vmx(Some(vmware), Some(1)).as_deref(), Some(name));
        }
    }

    #[test]
    fn numbers_alone_say_a_family() {
        assert_eq!(vmx(None, Some(94)).as_deref(), Some("ubuntu-64"));
        assert_eq!(vmx(None, Some(36)).as_deref(), Some("otherlinux"));
        assert_eq!(vmx(None, Some(9999)), None);
    }
}
