//! Linux MD: arrays of metadata 0.90, 1.0, 1.1 and 1.2. Mirrors (RAID1), linear arrays and RAID0 of
//! members of one size are read; other levels are named.
//!
//! A mirror is read from one member, the first that is in sync: one that fell out keeps its
//! superblock, but others have counted more events since.

mod superblock;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hako_block::{Error, Result};

use crate::mapped::{Mapped, Segment, Share, Stripes};
use crate::volume::Volume;
pub(crate) use superblock::{Superblock, read};

/// A member that was found.
pub(crate) struct Member {
    pub(crate) superblock: Superblock,
    pub(crate) volume: Arc<dyn Volume>,
    /// How the user knows it.
    pub(crate) name: String,
    /// Its place in the list of all volumes.
    pub(crate) place: usize,
}

/// An array to be listed.
pub(crate) struct Array {
    /// Its short name: "md0", "md/data".
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) level: String,
    pub(crate) metadata: &'static str,
    /// How many members it should have, and how many of them are not there or not in sync.
    pub(crate) n_members: u32,
    pub(crate) n_missing: u32,
    /// Places of all members that are there, whatever their state.
    pub(crate) members: Vec<usize>,
    pub(crate) volume: Result<Arc<dyn Volume>>,
    /// What of which member is a part of it, by the members' places; none if it is not read.
    pub(crate) parts: Vec<(usize, Share)>,
    pub(crate) remarks: Vec<String>,
}

/// Puts the arrays together that these members are of.
pub(crate) fn assemble(members: &[Member]) -> Vec<Array> {
    let mut uuids: Vec<&str> = Vec::new();
    for member in members {
        if !uuids.contains(&member.superblock.array.as_str()) {
            uuids.push(&member.superblock.array);
        }
    }
    let of = |uuid: &str| -> Vec<&Member> {
        let members = members.iter();
        members
            .filter(|member| member.superblock.array == uuid)
            .collect()
    };
    uuids
        .into_iter()
        .filter_map(|uuid| array(of(uuid)))
        .collect()
}

/// Puts one array together. The newest superblock says what it is.
fn array(members: Vec<&Member>) -> Option<Array> {
    let newest = members
        .iter()
        .max_by_key(|member| member.superblock.events)?;
    let newest = &newest.superblock;
    let mut remarks = Vec::new();
    let mut current: Vec<&Member> = Vec::new();
    for member in &members {
        let what = match &member.superblock {
            own if own.events < newest.events => "it is older than the others",
            own if own.role.is_none() => "it is a spare, or was taken for faulty",
            own if own.is_recovering => "it was not wholly copied yet",
            own if current
                .iter()
                .any(|other| other.superblock.role == own.role) =>
            {
                "another member has its place"
            }
            _ => {
                current.push(member);
                continue;
            }
        };
        remarks.push(format!("{} is not read: {what}", member.name));
    }
    current.sort_by_key(|member| member.superblock.role);
    let n_current = current.len();
    if n_current < newest.n_disks as usize {
        remarks.push(format!(
            "{n_current} of its {} members are there",
            newest.n_disks
        ));
    }
    let volume = volume(newest, &current);
    Some(Array {
        name: short_name(newest),
        uuid: newest.array.clone(),
        level: level_name(newest.level),
        metadata: newest.metadata,
        n_members: newest.n_disks,
        n_missing: newest
            .n_disks
            .saturating_sub(u32::try_from(n_current).unwrap_or(u32::MAX)),
        members: members.iter().map(|member| member.place).collect(),
        parts: match &volume {
            Ok(_) => parts(newest, &current),
            Err(_) => Vec::new(),
        },
        volume,
        remarks,
    })
}

fn volume(newest: &Superblock, members: &[&Member]) -> Result<Arc<dyn Volume>> {
    if newest.is_reshaping {
        return Err(Error::unsupported("the array was being reshaped"));
    }
    match newest.level {
        1 => mirror(newest, members),
        -1 => joined(newest, members),
        0 => striped(newest, members),
        level => Err(Error::unsupported(format!(
            "MD's {} is not read",
            level_name(level)
        ))),
    }
}

fn mirror(newest: &Superblock, members: &[&Member]) -> Result<Arc<dyn Volume>> {
    // Blocks that a member lost are only good on another one.
    let whole = members
        .iter()
        .find(|member| !member.superblock.has_bad_blocks);
    let Some(member) = whole else {
        let what = match members.is_empty() {
            true => "no member that is in sync is there",
            false => "every member that is in sync has bad blocks",
        };
        return Err(Error::unsupported(what));
    };
    let at = member.superblock.data_at;
    let segment = Segment::linear(Arc::clone(&member.volume), at, newest.size_bytes)?;
    let segment = match members.len() {
        1 => segment,
        _ => segment.with_copies(),
    };
    Ok(Arc::new(Mapped::new(vec![segment])?))
}

/// Returns the bytes of a member that count: whole chunks.
fn share(member: &Member) -> u64 {
    let Superblock {
        chunk_bytes,
        data_bytes,
        ..
    } = member.superblock;
    match chunk_bytes {
        0 => data_bytes,
        chunk_bytes => data_bytes - data_bytes % chunk_bytes,
    }
}

fn joined(newest: &Superblock, members: &[&Member]) -> Result<Arc<dyn Volume>> {
    all_there(newest, members)?;
    let parts = members.iter().map(|member| {
        let (volume, at) = (Arc::clone(&member.volume), member.superblock.data_at);
        Segment::linear(volume, at, share(member))
    });
    Ok(Arc::new(Mapped::new(parts.collect::<Result<_>>()?)?))
}

fn striped(newest: &Superblock, members: &[&Member]) -> Result<Arc<dyn Volume>> {
    all_there(newest, members)?;
    let shares: Vec<u64> = members.iter().map(|member| share(member)).collect();
    let first = shares.first().copied().unwrap_or(0);
    if shares.iter().any(|share| *share != first) {
        return Err(Error::unsupported(
            "RAID0 of members of different sizes is not read",
        ));
    }
    let stripes = members.iter().map(|member| {
        let (volume, at) = (Arc::clone(&member.volume), member.superblock.data_at);
        (volume, at)
    });
    let len = first.checked_mul(members.len() as u64);
    let len = len.ok_or_else(|| Error::corrupt("MD superblock", "the array is too long"))?;
    let segment = Segment::striped(stripes.collect(), len, newest.chunk_bytes)?;
    Ok(Arc::new(Mapped::new(vec![segment])?))
}

/// Returns what of the members an array that is read is made of.
fn parts(newest: &Superblock, members: &[&Member]) -> Vec<(usize, Share)> {
    let mut at: u64 = 0;
    let mut parts = Vec::new();
    for (member, which) in members.iter().zip(0..) {
        let stripes = Stripes {
            bytes: newest.chunk_bytes,
            n: members.len() as u64,
            which,
        };
        let own = &member.superblock;
        let (len, stripes) = match newest.level {
            1 if own.has_bad_blocks => continue,
            1 => (newest.size_bytes, None),
            0 => (share(member), Some(stripes)),
            _ => (share(member), None),
        };
        let start = own.data_at;
        parts.push((
            member.place,
            Share {
                start,
                len,
                at,
                stripes,
            },
        ));
        if newest.level == -1 {
            at = at.saturating_add(len);
        }
    }
    parts
}

fn all_there(newest: &Superblock, members: &[&Member]) -> Result<()> {
    let roles = members.iter().map(|member| member.superblock.role);
    match roles.eq((0..newest.n_disks).map(Some)) {
        true => Ok(()),
        false => Err(Error::unsupported("members of the array are missing")),
    }
}

fn level_name(level: i32) -> String {
    match level {
        -1 => "linear".to_owned(),
        -4 => "multipath".to_owned(),
        -5 => "faulty".to_owned(),
        level => format!("raid{level}"),
    }
}

/// The name as a machine would have it: the number that is kept, or the name without its host.
fn short_name(superblock: &Superblock) -> String {
    if let Some(minor) = superblock.minor {
        return format!("md{minor}");
    }
    let name = superblock.name.as_str();
    let name = name.split_once(':').map_or(name, |(_, name)| name);
    match name {
        "" => "md127".to_owned(),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("md{number}"),
        name => format!("md/{name}"),
    }
}
