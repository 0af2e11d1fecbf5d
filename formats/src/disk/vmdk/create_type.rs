//! The variants of VMDK: the value of createType.

use crate::disk::Subformat;

/// Every variant, the default for creation first.
pub static CREATE_TYPES: &[Subformat] = &[
    Subformat {
        repair: true,
        ..writable(
            "monolithicSparse",
            true,
            "one file with its descriptor; zeroed grains, overlays",
        )
    },
    Subformat {
        repair: true,
        ..writable(
            "twoGbMaxExtentSparse",
            true,
            "split every 2047 MiB as VMware does; overlays",
        )
    },
    writable("monolithicFlat", true, "a descriptor and NAME-flat.vmdk"),
    writable(
        "twoGbMaxExtentFlat",
        true,
        "split every 2047 MiB as VMware does",
    ),
    writable(
        "vmfs",
        true,
        "a descriptor and NAME-flat.vmdk: what ESXi takes",
    ),
    Subformat {
        create: true,
        pipe: true,
        repair: true,
        ..read_only("streamOptimized", "compressed; what goes into an OVA")
    },
    writable("vmfsThin", false, ""),
    writable("vmfsThick", false, ""),
    writable("vmfsPreallocated", false, ""),
    writable("vmfsEagerZeroedThick", false, ""),
    Subformat {
        repair: true,
        ..writable(
            "custom",
            false,
            "any extents, also ZERO, RDONLY and NOACCESS",
        )
    },
    read_only("vmfsSparse", "ESX delta (COWD)"),
    read_only("seSparse", "ESX delta, space-efficient"),
    read_only("fullDevice", DEVICE),
    read_only("partitionedDevice", DEVICE),
    read_only("vmfsRDM", DEVICE),
    read_only("vmfsRDMP", DEVICE),
    read_only("vmfsRaw", DEVICE),
    read_only("vmfsRawDeviceMap", DEVICE),
    read_only("vmfsPassthroughRawDeviceMap", DEVICE),
];

const DEVICE: &str = "only with --allow-devices";

/// Other spellings seen.
const ALIASES: &[(&str, &str)] = &[
    ("2GbMaxExtentSparse", "twoGbMaxExtentSparse"),
    ("2GbMaxExtentFlat", "twoGbMaxExtentFlat"),
    ("vmfsSeSparse", "seSparse"),
];

const fn read_only(name: &'static str, notes: &'static str) -> Subformat {
    Subformat {
        name,
        read: true,
        notes,
        ..Subformat::NONE
    }
}

const fn writable(name: &'static str, create: bool, notes: &'static str) -> Subformat {
    Subformat {
        create,
        write: true,
        resize: true,
        compact: true,
        ..read_only(name, notes)
    }
}

/// Returns the usual spelling of a createType written in any case, if it is known.
pub fn canonical(text: &str) -> Option<&'static str> {
    let alias = ALIASES
        .iter()
        .find(|(alias, _)| alias.eq_ignore_ascii_case(text));
    let name = alias.map_or(text, |(_, name)| name);
    CREATE_TYPES
        .iter()
        .map(|row| row.name)
        .find(|known| known.eq_ignore_ascii_case(name))
}
