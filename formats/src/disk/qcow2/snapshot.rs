//! The table of internal snapshots.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 8 | L1 table |
//! | 8 | 4 | its entries |
//! | 12 | 2 | length of the ID |
//! | 14 | 2 | length of the name |
//! | 16 | 8 | date: seconds, nanoseconds |
//! | 24 | 8 | clock of the VM |
//! | 32 | 4 | size of the VM state |
//! | 36 | 4 | length of the extra data |
//! | 40 | | extra data (VM state size, disk size), ID, name, padding to 8 |

use hako_block::{Error, ErrorKind, Result, Storage, Value};

use super::header::{Header, MAX_L1_BYTES, u16_at, u32_at, u64_at};
use super::map::Map;

/// Most snapshots, as in qemu.
const MAX_SNAPSHOTS: u32 = 65536;
const MAX_EXTRA_BYTES: u32 = 1024;
/// Longest table accepted; qemu's limit of 64 MiB is never reached by names people type.
const MAX_TABLE_BYTES: u64 = 16 << 20;
const ENTRY_BYTES: usize = 40;

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// ID, unique.
    pub id: String,
    /// Name, as the user gave it.
    pub name: String,
    /// When it was taken: seconds since 1970.
    pub date_seconds: u64,
    /// Size of the saved VM state in bytes.
    pub vm_state_bytes: u64,
    /// Virtual size of the disk then.
    pub virtual_size: u64,
    /// Whether the image records that size, rather than leaving it to be that of the disk now.
    pub has_size: bool,
    /// Its L1 table.
    pub map: Map,
}

/// All snapshots of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// The snapshots, oldest first.
    pub list: Vec<Snapshot>,
    /// Bytes that their table takes.
    pub table_bytes: u64,
}

impl Snapshots {
    /// Reads the snapshot table.
    pub fn read(storage: &dyn Storage, header: &Header) -> Result<Self> {
        if header.n_snapshots > MAX_SNAPSHOTS {
            return Err(bad(60, format!("{} snapshots", header.n_snapshots)));
        }
        let start = header.snapshots_offset;
        let mut snapshots = Snapshots::default();
        for index in 0..header.n_snapshots {
            let at = start + snapshots.table_bytes;
            let (snapshot, len) = entry(storage, header, at)
                .map_err(|error| error.place(format!("snapshot {index}")).at_byte(at))?;
            snapshots.list.push(snapshot);
            snapshots.table_bytes += len;
            if snapshots.table_bytes > MAX_TABLE_BYTES {
                return Err(bad(
                    at,
                    format!("snapshot table of more than {MAX_TABLE_BYTES} bytes"),
                ));
            }
        }
        Ok(snapshots)
    }

    /// Returns the snapshot with that ID, else the one with that name.
    pub fn find(&self, wanted: &str) -> Result<&Snapshot> {
        let by_id = self.list.iter().find(|snapshot| snapshot.id == wanted);
        by_id
            .or_else(|| self.list.iter().find(|snapshot| snapshot.name == wanted))
            .ok_or_else(|| {
                let error = Error::new(
                    ErrorKind::NotFound,
                    format!("no internal snapshot {wanted:?}"),
                );
                match self.list.as_slice() {
                    [] => error.hint("the image has no internal snapshots"),
                    list => {
                        let names: Vec<_> = list
                            .iter()
                            .map(|one| format!("{} ({:?})", one.id, one.name))
                            .collect();
                        error.hint(format!("it has {}", names.join(", ")))
                    }
                }
            })
    }
}

impl Snapshot {
    /// Returns what `info` shows of it.
    pub fn value(&self) -> Value {
        Value::Map(vec![
            ("id".to_owned(), self.id.clone().into()),
            ("name".to_owned(), self.name.clone().into()),
            ("virtual_size".to_owned(), self.virtual_size.into()),
            ("date_seconds".to_owned(), self.date_seconds.into()),
            ("vm_state_bytes".to_owned(), self.vm_state_bytes.into()),
        ])
    }
}

/// Reads one entry; returns it with its padded length.
fn entry(storage: &dyn Storage, header: &Header, at: u64) -> Result<(Snapshot, u64)> {
    let mut head = [0; ENTRY_BYTES];
    storage.read_at(at, &mut head)?;
    let (id_len, name_len) = (
        usize::from(u16_at(&head, 12)?),
        usize::from(u16_at(&head, 14)?),
    );
    let extra_len = u32_at(&head, 36)?;
    if extra_len > MAX_EXTRA_BYTES {
        return Err(bad(at, format!("extra data of {extra_len} bytes")));
    }
    let extra_len = extra_len as usize;
    let mut rest = vec![0; extra_len + id_len + name_len];
    storage.read_at(at + ENTRY_BYTES as u64, &mut rest)?;
    let (extra, names) = rest.split_at(extra_len);
    let (id, name) = names.split_at(id_len);
    let vm_state_bytes = if extra_len >= 8 {
        u64_at(extra, 0)?
    } else {
        u64::from(u32_at(&head, 32)?)
    };
    let virtual_size = if extra_len >= 16 {
        u64_at(extra, 8)?
    } else {
        header.virtual_size
    };
    let snapshot = Snapshot {
        id: String::from_utf8_lossy(id).into_owned(),
        name: String::from_utf8_lossy(name).into_owned(),
        date_seconds: u64::from(u32_at(&head, 16)?),
        vm_state_bytes,
        virtual_size,
        has_size: extra_len >= 16,
        map: map(header, u64_at(&head, 0)?, u32_at(&head, 8)?, virtual_size)?,
    };
    Ok((
        snapshot,
        (ENTRY_BYTES + rest.len()).next_multiple_of(8) as u64,
    ))
}

fn map(header: &Header, l1_offset: u64, n_l1: u32, virtual_size: u64) -> Result<Map> {
    let layout = header.layout();
    let n_l1 = u64::from(n_l1);
    if layout.in_cluster(l1_offset) != 0 || l1_offset >> 56 != 0 || n_l1 * 8 > MAX_L1_BYTES {
        return Err(bad(
            l1_offset,
            format!("L1 table of {n_l1} entries at {l1_offset:#x}"),
        ));
    }
    if n_l1 < layout.n_l1(virtual_size) {
        return Err(bad(
            l1_offset,
            format!("L1 table of {n_l1} entries is too small for {virtual_size} bytes"),
        ));
    }
    Ok(Map {
        layout,
        l1_offset,
        n_l1,
    })
}

fn bad(at: u64, what: String) -> Error {
    Error::new(ErrorKind::Corrupt, what).at_byte(at)
}
