//! Volumes as rows and as JSON.

use hako_block::Result;
use hako_guest::{FoundVolume, Origin, Role};
use serde_json::{Value, json};

use crate::output::{Out, print_table};
use crate::size;

/// Prints one row for each volume.
pub fn print(out: &mut Out, list: &[FoundVolume]) -> Result<()> {
    let heading = ["volume", "size", "holds", "label", "UUID", "kind"];
    let rows: Vec<_> = list.iter().map(row).collect();
    print_table(out, &heading, &rows)
}

/// Returns an object for each volume.
pub fn json(list: &[FoundVolume]) -> Vec<Value> {
    list.iter().map(|found| object(found, list)).collect()
}

fn row(found: &FoundVolume) -> [String; 6] {
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    [
        found.name.clone(),
        size::human(found.len_bytes),
        or_dash(found.content.kind),
        or_dash(&found.content.label),
        or_dash(&found.content.uuid),
        kind(found),
    ]
}

/// What a volume is, for people.
fn kind(found: &FoundVolume) -> String {
    match &found.origin {
        Origin::Disk(_) => "disk".to_owned(),
        Origin::Array { level, .. } => level.clone(),
        Origin::Logical { kind, .. } => kind.clone(),
        Origin::Opened { cipher, .. } => format!("opened, {cipher}"),
        Origin::Partition { partition, .. } => {
            let name = partition.kind.name().map(str::to_owned);
            let name = name.unwrap_or_else(|| format!("type {}", partition.kind));
            match partition.label.as_str() {
                "" => name,
                label => format!("{name}, {label}"),
            }
        }
    }
}

fn object(found: &FoundVolume, list: &[FoundVolume]) -> Value {
    let mut value = json!({
        "name": found.name,
        "length": found.len_bytes,
        "type": found.content.kind,
        "role": role(found.content.role),
        "readable": found.file_system().is_some(),
        "label": found.content.label,
        "uuid": found.content.uuid,
        "remarks": found.remarks,
    });
    match &found.origin {
        Origin::Disk(index) => value["disk"] = (*index).into(),
        Origin::Array { level, uuid, .. } => {
            value["array"] = json!({"level": level, "uuid": uuid});
        }
        Origin::Logical {
            group,
            name,
            uuid,
            kind,
        } => {
            value["logical"] = json!({"group": group, "name": name, "uuid": uuid, "kind": kind});
        }
        Origin::Opened { of, cipher, .. } => {
            let of = list.get(*of).map(|below| &below.name);
            value["opened"] = json!({"of": of, "cipher": cipher});
        }
        Origin::Partition {
            of,
            table,
            partition,
        } => {
            value["partition"] = json!({
                "of": list.get(*of).map(|disk| &disk.name),
                "table": table.name(),
                "number": partition.number,
                "start": partition.start,
                "type": partition.kind.to_string(),
                "type_name": partition.kind.name(),
                "uuid": partition.uuid,
                "label": partition.label,
                "bootable": partition.bootable,
            });
        }
    }
    value
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unknown",
        Role::Partitions => "partitions",
        Role::FileSystem => "file-system",
        Role::Swap => "swap",
        Role::Encrypted => "encrypted",
        Role::Member => "member",
    }
}
