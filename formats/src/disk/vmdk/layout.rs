//! From the file that was named to the parts of the disk: where the descriptor is, what each of
//! its extent lines stands for, and the open files behind them. Nothing of the extents themselves
//! is read but their first sector.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hako_block::{Access, Error, ErrorKind, FileId, Result, SECTOR_BYTES, Storage};

use super::create_type::canonical;
use super::descriptor::{Descriptor, MAX_DESCRIPTOR_BYTES, looks_like_descriptor};
use super::extent_line::{ExtentAccess, ExtentLine, ExtentType};
use super::header::{HEADER_BYTES, MAGIC, SparseHeader};
use super::home::Home;
use super::{cowd, sesparse};
use crate::disk::OpenArgs;
use crate::open::descriptor_name;

/// Most extent lines accepted: a split disk of 64 TiB has fewer.
pub const MAX_EXTENTS: usize = 33_000;

/// A VMDK taken apart.
pub struct Layout {
    /// The descriptor.
    pub descriptor: Descriptor,
    /// Where the descriptor is stored.
    pub home: Home,
    /// The parts in disk order, none of them empty.
    pub parts: Vec<Part>,
    /// What is odd about how they fit.
    pub oddities: Vec<String>,
}

/// One extent line with what is behind it.
pub struct Part {
    /// Which extent line of the descriptor it is.
    pub index: usize,
    /// The line.
    pub line: ExtentLine,
    /// Length in bytes, not 0.
    pub len: u64,
    /// What is behind it.
    pub source: Source,
}

/// What is behind an extent line.
pub enum Source {
    /// Nothing: reads as zeros.
    Zeros,
    /// Plain bytes.
    Flat {
        /// The file or device.
        storage: Arc<dyn Storage>,
        /// Where in it the extent begins, in bytes.
        offset: u64,
    },
    /// A hosted sparse file, uncompressed.
    Hosted(Arc<dyn Storage>, SparseHeader),
    /// A streamOptimized file.
    Stream(Arc<dyn Storage>, SparseHeader),
    /// A COWD file.
    Cowd(Arc<dyn Storage>),
    /// An SESparse file.
    SeSparse(Arc<dyn Storage>),
}

/// The descriptor of a VMDK, and what it is stored in.
pub struct Text {
    /// The descriptor. It has an extent line.
    pub descriptor: Descriptor,
    /// Where it is stored.
    pub home: Home,
    /// The header of the file it is embedded in, if that file is an extent of the disk itself.
    pub own: Option<SparseHeader>,
}

impl Source {
    /// Returns the bytes on whose multiples the extents of an overlay must begin.
    pub fn unit_bytes(&self) -> u64 {
        match self {
            Source::Hosted(_, header) => header.grain_bytes(),
            _ => SECTOR_BYTES,
        }
    }

    /// Returns what cannot be written in place about it, in a few words.
    fn read_only_kind(&self) -> Option<&'static str> {
        match self {
            Source::Zeros | Source::Hosted(..) => None,
            Source::Flat { storage, .. } => storage.is_device().then_some("a raw device"),
            Source::Stream(..) => Some("streamOptimized"),
            Source::Cowd(..) => Some("an ESX delta (COWD)"),
            Source::SeSparse(..) => Some("an ESX delta (SESparse)"),
        }
    }
}

impl Layout {
    /// Takes apart the VMDK that `args` names. Errors: it is to be written and cannot be.
    pub fn find(args: &OpenArgs) -> Result<Self> {
        let layout = Self::take_apart(args)?;
        if args.access == Access::ReadWrite {
            layout.refuse_unwritable()?;
        }
        Ok(layout)
    }

    /// Takes apart the VMDK that `args` names, whether it can be written or not.
    pub fn take_apart(args: &OpenArgs) -> Result<Self> {
        let text = Text::find(args)?;
        let lines = text.descriptor.extents().to_vec();
        let mut oddities = text.descriptor.oddities().to_vec();
        oddities.extend(odd_create_type(&text.descriptor));
        let own_line = text.own_line(&args.name, &mut oddities)?;
        let mut parts = Vec::new();
        let mut files = Files::new(args, &lines);
        for (index, line) in lines.into_iter().enumerate() {
            let len = line.n_sectors.checked_mul(SECTOR_BYTES);
            let len = len.filter(|len| *len <= i64::MAX as u64).ok_or_else(|| {
                let what = format!("{} sectors are too many", line.n_sectors);
                Error::corrupt(format!("extent {}", index + 1), what)
            })?;
            if len == 0 {
                continue;
            }
            let source = match &text.own {
                Some(header) if own_line == Some(index) => {
                    sparse_source(Arc::clone(&args.storage), header.clone())
                }
                _ => files.source(&line).map_err(|error| {
                    let file = line.file.as_deref().unwrap_or_default();
                    explain_missing(error, file)
                })?,
            };
            if line.access == ExtentAccess::NoAccess {
                oddities.push(format!(
                    "extent {} is NOACCESS: {len} bytes read as zeros",
                    index + 1
                ));
            }
            parts.push(Part {
                index,
                line,
                len,
                source,
            });
        }
        Ok(Self {
            descriptor: text.descriptor,
            home: text.home,
            parts,
            oddities,
        })
    }

    fn refuse_unwritable(&self) -> Result<()> {
        refuse_unknown_version(&self.descriptor)?;
        if let Some(kind) = self
            .parts
            .iter()
            .find_map(|part| part.source.read_only_kind())
        {
            return Err(
                Error::unsupported(format!("{kind} cannot be written in place"))
                    .hint("convert it to a format that can: hako disk convert"),
            );
        }
        let writable = |part: &Part| part.line.access == ExtentAccess::ReadWrite;
        if !self.parts.is_empty() && !self.parts.iter().any(writable) {
            let what = "the descriptor has no extent with access RW";
            return Err(Error::new(ErrorKind::ReadOnly, what));
        }
        Ok(())
    }
}

impl Text {
    /// Reads the descriptor of the VMDK that `args` names. Opens no extent file.
    pub fn find(args: &OpenArgs) -> Result<Self> {
        let storage = &args.storage;
        let len = storage.len_bytes()?;
        let mut head = vec![0; len.min(8192) as usize];
        storage.read_at(0, &mut head)?;
        if head.starts_with(&MAGIC) {
            return Self::embedded(args, &head);
        }
        if head.starts_with(&cowd::MAGIC) || head.starts_with(&sesparse::MAGIC) {
            return Err(extent_alone(args));
        }
        if !looks_like_descriptor(&head) {
            let error = Error::unsupported("is neither a VMDK descriptor nor a sparse extent");
            return Err(with_descriptor_hint(error, args));
        }
        let descriptor = Descriptor::parse(&read_text(&**storage, 0, len)?)?;
        let home = Home::File {
            name: args.name.clone(),
            resolver: Arc::clone(&args.resolver),
        };
        Self::checked(descriptor, home, None)
    }

    fn embedded(args: &OpenArgs, head: &[u8]) -> Result<Self> {
        let header = decode_header(head)?;
        if header.descriptor_sector == 0 || header.descriptor_sectors == 0 {
            return Err(extent_alone(args));
        }
        let (offset, len) = (
            header.descriptor_sector.checked_mul(SECTOR_BYTES),
            header.descriptor_sectors.checked_mul(SECTOR_BYTES),
        );
        let (Some(offset), Some(len)) = (offset, len) else {
            return Err(Error::corrupt("header", "descriptor far past end of file").at_byte(28));
        };
        let text = read_text(&*args.storage, offset, len)?;
        let descriptor = Descriptor::parse(&text)?;
        if descriptor.extents().is_empty() && descriptor.value("createtype").is_none() {
            return Err(extent_alone(args));
        }
        let home = Home::Embedded {
            storage: Arc::clone(&args.storage),
            offset,
        };
        let own = (header.capacity_sectors != 0).then_some(header);
        Self::checked(descriptor, home, own)
    }

    fn checked(descriptor: Descriptor, home: Home, own: Option<SparseHeader>) -> Result<Self> {
        refuse_encrypted(&descriptor)?;
        let n_lines = descriptor.extents().len();
        if n_lines == 0 {
            return Err(Error::corrupt("descriptor", "it has no extent line"));
        }
        if n_lines > MAX_EXTENTS {
            let what = format!("{n_lines} extent lines are too many");
            return Err(Error::corrupt("descriptor", what));
        }
        Ok(Self {
            descriptor,
            home,
            own,
        })
    }

    /// Refuses a descriptor whose text may mean what is not known.
    pub fn refuse_unwritable(&self) -> Result<()> {
        refuse_unknown_version(&self.descriptor)
    }

    /// Returns the index of the line that stands for the file with the embedded descriptor, which
    /// is called `name` now. Files are renamed, so the name decides only where there is a choice.
    pub fn own_line(&self, name: &str, oddities: &mut Vec<String>) -> Result<Option<usize>> {
        if self.own.is_none() {
            return Ok(None);
        }
        let sparse = || {
            let lines = self.descriptor.extents().iter().enumerate();
            lines.filter(|(_, line)| line.kind.is_sparse())
        };
        let named = sparse().find(|(_, line)| line.file.as_deref() == Some(name));
        let (index, line) = named.or_else(|| sparse().next()).ok_or_else(|| {
            Error::corrupt(
                "descriptor",
                "embedded in a sparse extent file, but names no sparse extent",
            )
        })?;
        if line.file.as_deref() != Some(name) {
            oddities.push(format!(
                "the file calls itself {:?}: it was renamed",
                line.file.as_deref().unwrap_or_default()
            ));
        }
        Ok(Some(index))
    }
}

/// The extent files of one descriptor, each opened once.
struct Files<'a> {
    args: &'a OpenArgs,
    own_id: Option<FileId>,
    /// The most that any line naming the file may do with it.
    access: HashMap<String, Access>,
    open: HashMap<String, Arc<dyn Storage>>,
    /// Files with tables: two drivers on one of them would destroy it.
    sparse: HashSet<String>,
}

impl<'a> Files<'a> {
    fn new(args: &'a OpenArgs, lines: &[ExtentLine]) -> Self {
        let mut access = HashMap::new();
        for line in lines {
            let Some(name) = &line.file else { continue };
            let wanted = access.entry(name.clone()).or_insert(Access::ReadOnly);
            if line.access == ExtentAccess::ReadWrite {
                *wanted = args.access;
            }
        }
        Self {
            args,
            own_id: args.storage.id(),
            access,
            open: HashMap::new(),
            sparse: HashSet::new(),
        }
    }

    fn source(&mut self, line: &ExtentLine) -> Result<Source> {
        let file = match &line.file {
            Some(file) if line.access != ExtentAccess::NoAccess => file,
            _ => return Ok(Source::Zeros),
        };
        if line.kind == ExtentType::Zero {
            return Ok(Source::Zeros);
        }
        let storage = self.open(file)?;
        if line.kind.is_sparse() {
            if !self.sparse.insert(file.clone()) {
                let what = "two extent lines name the same sparse file";
                return Err(Error::corrupt("descriptor", what).in_file(file));
            }
            return sniff_sparse(storage);
        }
        if matches!(line.kind, ExtentType::VmfsRdm | ExtentType::VmfsRaw) && !storage.is_device() {
            return Err(Error::unsupported(
                "a raw device mapping without its device: the file has none of the disk's content",
            )
            .in_file(file)
            .hint("copy the disk on the ESXi host with vmkfstools -i, or give the device itself"));
        }
        let offset = line.offset_sectors.checked_mul(SECTOR_BYTES);
        let offset = offset.ok_or_else(|| {
            let what = format!("offset of {} sectors is too large", line.offset_sectors);
            Error::corrupt("descriptor", what).in_file(file)
        })?;
        Ok(Source::Flat { storage, offset })
    }

    fn open(&mut self, name: &str) -> Result<Arc<dyn Storage>> {
        if let Some(storage) = self.open.get(name) {
            return Ok(Arc::clone(storage));
        }
        let itself =
            || Error::corrupt("descriptor", "it names its own file as an extent").in_file(name);
        if name == self.args.name {
            return Err(itself());
        }
        let access = self.access.get(name).copied().unwrap_or_default();
        let storage = self.args.resolver.open(name, access)?.storage;
        if self.own_id.is_some() && storage.id() == self.own_id {
            return Err(itself());
        }
        self.open.insert(name.to_owned(), Arc::clone(&storage));
        Ok(storage)
    }
}

fn read_text(storage: &dyn Storage, offset: u64, len: u64) -> Result<Vec<u8>> {
    if len > MAX_DESCRIPTOR_BYTES {
        let what = format!("{len} bytes are too long ({MAX_DESCRIPTOR_BYTES} at most)");
        return Err(Error::corrupt("descriptor", what));
    }
    let mut text = vec![0; len as usize];
    storage
        .read_at(offset, &mut text)
        .map_err(|error| error.place("descriptor"))?;
    Ok(text)
}

fn decode_header(head: &[u8]) -> Result<SparseHeader> {
    let bytes: &[u8; HEADER_BYTES] = head.first_chunk().ok_or_else(|| {
        Error::corrupt("header", format!("the file has only {} bytes", head.len()))
    })?;
    SparseHeader::decode(bytes, "header")
}

fn sniff_sparse(storage: Arc<dyn Storage>) -> Result<Source> {
    let mut head = vec![0; storage.len_bytes()?.min(HEADER_BYTES as u64) as usize];
    storage.read_at(0, &mut head)?;
    if head.starts_with(&cowd::MAGIC) {
        return Ok(Source::Cowd(storage));
    }
    if head.starts_with(&sesparse::MAGIC) {
        return Ok(Source::SeSparse(storage));
    }
    let header = decode_header(&head).map_err(|error| error.in_file(storage.name()))?;
    Ok(sparse_source(storage, header))
}

fn sparse_source(storage: Arc<dyn Storage>, header: SparseHeader) -> Source {
    if header.compressed || header.has_markers() {
        Source::Stream(storage, header)
    } else {
        Source::Hosted(storage, header)
    }
}

fn odd_create_type(descriptor: &Descriptor) -> Option<String> {
    let create_type = descriptor.value("createtype").unwrap_or_default();
    canonical(&create_type)
        .is_none()
        .then(|| format!("createType {create_type:?} is not known"))
}

fn refuse_unknown_version(descriptor: &Descriptor) -> Result<()> {
    match descriptor.known_version() {
        Some(_) => Ok(()),
        None => Err(
            Error::unsupported("a descriptor of unknown version cannot be written")
                .place("descriptor"),
        ),
    }
}

fn refuse_encrypted(descriptor: &Descriptor) -> Result<()> {
    let filters = descriptor.value("ddb.iofilters").unwrap_or_default();
    let encrypted = ["encryptionkeys", "encryption.keysafe", "encryption.data"]
        .iter()
        .any(|key| descriptor.value(key).is_some())
        || filters.to_lowercase().contains("vmcrypt");
    if encrypted {
        return Err(Error::unsupported("the disk is encrypted")
            .hint("decrypt it in the product that encrypted it, then use it here"));
    }
    Ok(())
}

/// The error for an extent file that was named in place of its descriptor.
fn extent_alone(args: &OpenArgs) -> Error {
    let error = Error::unsupported("is an extent file, only a part of an image");
    with_descriptor_hint(error, args)
}

fn with_descriptor_hint(error: Error, args: &OpenArgs) -> Error {
    match descriptor_name(&args.name) {
        Some(name) if args.resolver.open(&name, Access::ReadOnly).is_ok() => {
            error.hint(format!("open its descriptor {name} instead"))
        }
        Some(name) => error.hint(format!(
            "open its descriptor instead: a small text file, usually {name}"
        )),
        None => error.hint("open its descriptor instead: a small text file that names it"),
    }
}

fn explain_missing(error: Error, file: &str) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    if is_windows_path(file) {
        return error.hint(format!(
            "{file:?} is a Windows path: put the file beside the descriptor and correct the line"
        ));
    }
    error.hint("the descriptor names this extent file: all files of the image must be there")
}

/// Returns whether a name is a path of Windows, which means nothing here.
pub fn is_windows_path(name: &str) -> bool {
    let bytes = name.as_bytes();
    let drive = bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    drive || name.contains('\\')
}
