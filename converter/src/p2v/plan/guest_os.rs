//! A system by VMX's name for it.

use crate::p2v::inventory::model::Os;

/// Returns the VMX name of a system; of one that has none, of a Linux or of anything.
pub fn guest_os(os: &Os) -> String {
    let bits = match os.architecture.as_str() {
        "i386" | "i486" | "i586" | "i686" => "",
        _ => "-64",
    };
    let name = match os.family.as_str() {
        "windows" => windows(&os.name).to_owned(),
        "linux" => linux(os),
        _ => "other".to_owned(),
    };
    format!("{name}{bits}")
}

fn linux(os: &Os) -> String {
    let major: u32 = os
        .version
        .split('.')
        .next()
        .map_or(0, |text| text.parse().unwrap_or(0));
    let numbered = |word: &str, from: u32, to: u32, other: &str| match major {
        0 => other.to_owned(),
        major if major < from => other.to_owned(),
        major => format!("{word}{}", major.min(to)),
    };
    let ids = std::iter::once(&os.id).chain(&os.like);
    let known = ids.map(String::as_str).find_map(|id| {
        Some(match id {
            "debian" => numbered("debian", 4, 12, "debian12"),
            "ubuntu" => "ubuntu".to_owned(),
            "rhel" => numbered("rhel", 2, 9, "rhel9"),
            "centos" => match major {
                7.. => format!("centos{}", major.min(9)),
                _ => "centos".to_owned(),
            },
            "ol" => match major {
                7.. => format!("oraclelinux{}", major.min(9)),
                _ => "oraclelinux".to_owned(),
            },
            "rocky" => "rockylinux".to_owned(),
            "almalinux" => "almalinux".to_owned(),
            "fedora" => "fedora".to_owned(),
            "sles" | "sle_hpc" => numbered("sles", 10, 16, "sles"),
            "sled" => numbered("sled", 10, 16, "sled"),
            "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" | "suse" => "opensuse".to_owned(),
            "amzn" => match major {
                2023 => "amazonlinux3".to_owned(),
                _ => "amazonlinux2".to_owned(),
            },
            _ => return None,
        })
    });
    known.unwrap_or_else(|| "other5xlinux".to_owned())
}

/// By what Windows calls itself: its version number is the same from 10 to Server 2025.
fn windows(name: &str) -> &'static str {
    const NAMES: [(&str, &str); 12] = [
        ("2025", "windows2022srvNext"),
        ("2022", "windows2019srvNext"),
        ("2019", "windows2019srv"),
        ("2016", "windows9srv"),
        ("2012", "windows8srv"),
        ("2008 R2", "windows7srv"),
        ("2008", "longhorn"),
        ("2003", "winNetStandard"),
        ("Windows 11", "windows11"),
        ("Windows 10", "windows9"),
        ("Windows 8", "windows8"),
        ("Windows 7", "windows7"),
    ];
    let mut names = NAMES.iter();
    let found = names.find(|(part, _)| name.contains(part));
    found.map_or("windows9srv", |(_, guest_os)| guest_os)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_have_the_names_that_vmware_knows() {
        for (family, id, version, name, expected) in [
            ("linux", "debian", "12", "", "debian12-64"),
            ("linux", "debian", "13", "", "debian12-64"),
            ("linux", "debian", "", "", "debian12-64"),
            ("linux", "ubuntu", "24.04", "", "ubuntu-64"),
            ("linux", "rhel", "9.4", "", "rhel9-64"),
            ("linux", "rhel", "10.0", "", "rhel9-64"),
            ("linux", "centos", "6", "", "centos-64"),
            ("linux", "centos", "7", "", "centos7-64"),
            ("linux", "sles", "15.5", "", "sles15-64"),
            ("linux", "arch", "", "", "other5xlinux-64"),
            (
                "windows",
                "",
                "10.0",
                "Windows Server 2019 Standard",
                "windows2019srv-64",
            ),
            (
                "windows",
                "",
                "6.1",
                "Windows Server 2008 R2",
                "windows7srv-64",
            ),
            ("", "", "", "", "other-64"),
        ] {
            let os = Os {
                family: family.to_owned(),
                id: id.to_owned(),
                version: version.to_owned(),
                name: name.to_owned(),
                ..Os::default()
            };
            assert_eq!(guest_os(&os), expected, "{id} {version} {name}");
        }
        let like = Os {
            family: "linux".to_owned(),
            id: "linuxmint".to_owned(),
            like: vec!["ubuntu".to_owned(), "debian".to_owned()],
            architecture: "i686".to_owned(),
            ..Os::default()
        };
        assert_eq!(guest_os(&like), "ubuntu");
    }
}
