//! Reading an OVA where it lies.

use std::collections::HashMap;
use std::sync::Arc;

use hako_block::{Access, Error, ErrorKind, Opened, Resolver, Result, Storage, Window};

use super::header::{BLOCK_BYTES, sum_is_right};
use super::members::{Member, find};

/// The files of an OVA.
pub struct Ova {
    storage: Arc<dyn Storage>,
    members: Vec<Member>,
    /// Place in `members` by name.
    by_name: HashMap<String, usize>,
    /// The one `.ovf`.
    ovf: usize,
    oddities: Vec<String>,
}

/// How a file begins that is a tar, packed or something else instead of a tar.
const WRAPPINGS: [(&[u8], &str, &str); 6] = [
    (b"\x1f\x8b", "gzip", "unpack it first: gunzip"),
    (b"\xfd7zXZ\0", "xz", "unpack it first: unxz"),
    (b"BZh", "bzip2", "unpack it first: bunzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it first: unzstd"),
    (
        b"PK\x03\x04",
        "zip",
        "unpack it first: unzip, then give the .ovf",
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        "7-Zip",
        "unpack it first, then give the .ovf",
    ),
];

/// Returns whether a file that begins with `head` (512 bytes or more) is a tar.
pub fn looks_like_tar(head: &[u8]) -> bool {
    head.first_chunk::<BLOCK_BYTES>()
        .is_some_and(|block| block[0] != 0 && sum_is_right(block))
}

/// Returns whether a file that begins with `head` is packed by a program that packs any file.
pub fn is_wrapped(head: &[u8]) -> bool {
    WRAPPINGS.iter().any(|(magic, ..)| head.starts_with(magic))
}

impl Ova {
    /// Finds the members. Errors: what is no tar or a damaged one; anything in it but regular
    /// files and folders; a name twice, or one that leads out; not exactly one `.ovf`.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let name = storage.name().to_owned();
        Self::open_unnamed(storage).map_err(|error| error.in_file(name))
    }

    fn open_unnamed(storage: Arc<dyn Storage>) -> Result<Self> {
        check_beginning(&*storage)?;
        let found = find(&*storage)?;
        let mut by_name = HashMap::with_capacity(found.members.len());
        for (index, member) in found.members.iter().enumerate() {
            if by_name.insert(member.name.clone(), index).is_some() {
                return Err(Error::corrupt(
                    "tar",
                    format!("{:?} is in it twice: which one counts?", member.name),
                )
                .at_byte(member.range.start));
            }
        }
        let mut oddities = Vec::new();
        if !found.ended {
            oddities.push("the tar has no end mark: it may have been cut off".to_owned());
        }
        Ok(Self {
            ovf: the_ovf(&found.members)?,
            storage,
            members: found.members,
            by_name,
            oddities,
        })
    }

    /// Returns the files, in the order they lie.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the description of the machine.
    pub fn ovf(&self) -> &Member {
        &self.members[self.ovf]
    }

    /// Returns the manifest: the `.mf` named as the `.ovf` is, beside it.
    pub fn manifest(&self) -> Option<&Member> {
        let name = self.ovf().name.as_str();
        let stem = &name[..name.len().saturating_sub(OVF.len())];
        let named = |extension: &str| self.by_name.get(&format!("{stem}{extension}"));
        let index = named(".mf").or_else(|| named(".MF"))?;
        self.members.get(*index)
    }

    /// Returns what is odd about the tar, one sentence each.
    pub fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// Returns the member that the OVF calls `href`: relative to the OVF's own folder, and if
    /// there is none, by that name from the top (some writers put only the OVF into a folder).
    pub fn find(&self, href: &str) -> Option<&Member> {
        let href = href.strip_prefix("./").unwrap_or(href);
        let folder = self.ovf().name.rsplit_once('/').map(|(folder, _)| folder);
        let beside = folder.and_then(|folder| self.by_name.get(&format!("{folder}/{href}")));
        let index = beside.or_else(|| self.by_name.get(href))?;
        self.members.get(*index)
    }

    /// Returns the bytes of the member that the OVF calls `href`, read where they lie.
    pub fn member(&self, href: &str) -> Result<Arc<dyn Storage>> {
        let member = self
            .find(href)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "is not in the OVA").in_file(href))?;
        self.window(member)
    }

    /// Returns a member's bytes, read where they lie.
    pub fn window(&self, member: &Member) -> Result<Arc<dyn Storage>> {
        let name = format!("{}:{}", self.storage.name(), member.name);
        let window = Window::new(Arc::clone(&self.storage), name, member.range.clone())?;
        Ok(Arc::new(window))
    }
}

/// Opens the files beside a disk in an OVA: there is nothing that a disk may name, for whatever
/// it needs the OVF has to list as its own.
pub struct NothingBeside;

impl Resolver for NothingBeside {
    fn open(&self, name: &str, _access: Access) -> Result<Opened> {
        Err(Error::new(
            ErrorKind::Gate,
            "refused: a disk of an OVF names it, and such a disk is one file by itself",
        )
        .in_file(name))
    }

    fn replace(&self, name: &str, _bytes: &[u8]) -> Result<()> {
        Err(Error::read_only().in_file(name))
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// Looks at the first bytes. Errors: what is no tar.
pub fn check_beginning(storage: &dyn Storage) -> Result<()> {
    let mut head = [0; BLOCK_BYTES];
    let len = storage.len_bytes()?.min(BLOCK_BYTES as u64) as usize;
    storage.read_at(0, &mut head[..len])?;
    let wrapping = WRAPPINGS.iter().find(|(magic, ..)| head.starts_with(magic));
    if let Some((_, name, hint)) = wrapping {
        return Err(Error::unsupported(format!(
            "is packed with {name}: the disks in it could not be read where they lie"
        ))
        .hint(*hint));
    }
    if len == BLOCK_BYTES && looks_like_tar(&head) {
        return Ok(());
    }
    Err(Error::unsupported(
        "is no OVA: it does not begin as a tar does",
    ))
}

const OVF: &str = ".ovf";

fn the_ovf(members: &[Member]) -> Result<usize> {
    let is_ovf = |member: &Member| {
        let bytes = member.name.as_bytes();
        let at = bytes.len().saturating_sub(OVF.len());
        bytes[at..].eq_ignore_ascii_case(OVF.as_bytes())
    };
    let mut all = members.iter().enumerate().filter(|(_, one)| is_ovf(one));
    match (all.next(), all.next()) {
        (Some((index, _)), None) => Ok(index),
        (Some((_, one)), Some((_, other))) => Err(Error::unsupported(format!(
            "has several .ovf files: {:?} and {:?}",
            one.name, other.name
        ))),
        (None, _) => Err(Error::unsupported("is no OVA: the tar has no .ovf file")),
    }
}
