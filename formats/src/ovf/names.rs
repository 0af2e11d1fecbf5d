//! The namespaces that an envelope's names come from, whatever their prefixes are called.

/// What a namespace is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// No namespace: attributes without a prefix, and the elements of OVF 0.9 and oVirt.
    None,
    /// OVF before it was a standard: VMware's 0.9.
    Ovf09,
    /// OVF 1.x.
    Ovf1,
    /// OVF 2.x.
    Ovf2,
    /// What an item says: CIM's settings of resources, of storage and of network ports.
    Resource,
    /// What a system says of itself: CIM's settings of virtual systems.
    System,
    /// VMware's additions.
    Vmware,
    /// XML Schema's `xsi:type`.
    Instance,
    /// `xml:lang`.
    Xml,
    /// Any other.
    Other,
}

impl Space {
    /// Returns what the namespace of this URI is for. oVirt ends OVF's with a slash.
    pub fn of(uri: &str) -> Self {
        let uri = uri.trim().trim_end_matches('/');
        match uri {
            "" => Space::None,
            "http://www.vmware.com/schema/ovf/1/envelope" => Space::Ovf09,
            "http://schemas.dmtf.org/ovf/envelope/1" | "http://schemas.dmtf.org/ovf/1/envelope" => {
                Space::Ovf1
            }
            "http://schemas.dmtf.org/ovf/envelope/2" => Space::Ovf2,
            "http://www.vmware.com/schema/ovf" => Space::Vmware,
            "http://www.w3.org/2001/XMLSchema-instance" => Space::Instance,
            "http://www.w3.org/XML/1998/namespace" => Space::Xml,
            _ => Self::of_cim(uri),
        }
    }

    /// CIM's namespaces differ between releases in what is before and after the class.
    fn of_cim(uri: &str) -> Self {
        let class = uri.rsplit('/').next().unwrap_or_default();
        match class.strip_suffix(".xsd").unwrap_or(class) {
            "CIM_ResourceAllocationSettingData"
            | "CIM_StorageAllocationSettingData"
            | "CIM_EthernetPortAllocationSettingData" => Space::Resource,
            "CIM_VirtualSystemSettingData" => Space::System,
            _ => Space::Other,
        }
    }

    /// Returns whether it is OVF's own, of whatever version. Texts of OVF 0.9 and of oVirt have the
    /// elements in no namespace and only the root in OVF's.
    pub fn is_ovf(self) -> bool {
        matches!(self, Space::None | Space::Ovf09 | Space::Ovf1 | Space::Ovf2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_known_in_all_their_spellings() {
        for (uri, space) in [
            ("http://schemas.dmtf.org/ovf/envelope/1", Space::Ovf1),
            ("http://schemas.dmtf.org/ovf/envelope/1/", Space::Ovf1),
            ("http://schemas.dmtf.org/ovf/envelope/2", Space::Ovf2),
            ("http://www.nosuchlocation.com/ovf/envelope/1", Space::Other),
            (
                "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd",
                Space::Resource,
            ),
            ("", Space::None),
        ] {
            assert_eq!(Space::of(uri), space, "{uri}");
        }
    }
}
