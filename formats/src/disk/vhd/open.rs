//! Opening: which of the footers to believe, the header, the sizes that follow.

use hako_block::{Access, Error, ImageInfo, Result, Storage, Value};

use super::footer::{DiskType, FOOTER_BYTES, Footer, OLD_FOOTER_BYTES};
use super::header::{HEADER_BYTES, Header};
use super::layout::Layout;
use super::parent::ParentNames;
use crate::disk::OpenArgs;

/// What the footers of a file say.
pub struct Found {
    /// The footer to believe.
    pub footer: Footer,
    /// Where the footer at the file's end begins, if it is sound and the same as `footer`.
    pub tail: Option<u64>,
    /// Where a footer begins at the file's end that is not sound, or not the same.
    pub damaged_tail: Option<u64>,
    /// Whether the copy at the beginning (of a dynamic disk) is sound and the same as `footer`.
    pub front_ok: bool,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// What is odd about the footers.
    pub oddities: Vec<String>,
}

impl Found {
    /// Reads the footers and chooses. The one at the end says whether the disk is fixed: then the
    /// beginning is the guest's, whatever it looks like. In a dynamic disk the copy at the
    /// beginning is what points to the header, and what changes first. Errors: neither is sound;
    /// with `salvage` one with a wrong checksum will do.
    pub fn read(storage: &dyn Storage, salvage: bool) -> Result<Self> {
        let file_len = storage.len_bytes()?;
        let tail = read_tail(storage, file_len)?;
        let front = read_front(storage, file_len)?;
        let is_sound = |copy: &&(u64, Footer)| copy.1.checksum_ok;
        let good_tail = tail.as_ref().filter(is_sound);
        let good_front = front.as_ref().filter(is_sound);
        let mut oddities = Vec::new();
        let is_fixed = good_tail.is_some_and(|(_, footer)| footer.disk_type == DiskType::Fixed);
        let footer = match (good_tail, good_front) {
            (Some((_, footer)), _) if is_fixed => footer,
            (Some((_, tail)), Some((_, front))) => {
                if tail.encode() != front.encode() {
                    oddities.push(differ(tail, front));
                }
                front
            }
            (Some((_, footer)), None) => {
                oddities.push("the copy of the footer at the beginning is damaged".to_owned());
                footer
            }
            (None, Some((_, footer))) => {
                oddities.push(
                    "the footer at the end is missing or damaged: its copy at the beginning is used"
                        .to_owned(),
                );
                footer
            }
            (None, None) => match tail.as_ref().or(front.as_ref()) {
                Some((_, footer)) if salvage => {
                    oddities.push("the footer's checksum is wrong".to_owned());
                    footer
                }
                Some((at, _)) => {
                    return Err(Error::corrupt("footer", "its checksum is wrong")
                        .at_byte(*at)
                        .hint("--salvage opens it as it is"));
                }
                None => return Err(Error::corrupt("footer", "at neither end of the file")),
            },
        };
        let same = |copy: &Option<(u64, Footer)>| {
            copy.as_ref()
                .filter(|(_, copy)| copy.checksum_ok && copy.encode() == footer.encode())
                .map(|(at, _)| *at)
        };
        let sound_tail = same(&tail);
        Ok(Self {
            tail: sound_tail,
            damaged_tail: tail
                .as_ref()
                .map(|(at, _)| *at)
                .filter(|_| sound_tail.is_none()),
            front_ok: same(&front).is_some(),
            footer: footer.clone(),
            file_len,
            oddities,
        })
    }

    /// Returns the file offset behind which no block may reach.
    pub fn blocks_end(&self) -> u64 {
        self.tail.unwrap_or(self.file_len)
    }

    /// Reads the header that the footer points to. Errors: it is no header; its checksum is wrong,
    /// unless `salvage`.
    pub fn header(&mut self, storage: &dyn Storage, salvage: bool) -> Result<Header> {
        let at = self.footer.data_offset;
        if at
            .checked_add(HEADER_BYTES)
            .is_none_or(|end| end > self.file_len)
        {
            return Err(Error::corrupt(
                "footer",
                format!("the dynamic header at {at:#x} is not in the file"),
            ));
        }
        let mut bytes = vec![0; HEADER_BYTES as usize];
        storage.read_at(at, &mut bytes)?;
        let header = Header::decode(&bytes).map_err(|error| error.at_byte(at))?;
        if header.checksum_ok {
            return Ok(header);
        }
        if !salvage {
            return Err(Error::corrupt("dynamic header", "its checksum is wrong")
                .at_byte(at)
                .hint("--salvage opens it as it is"));
        }
        self.oddities
            .push("the checksum of the dynamic header is wrong".to_owned());
        Ok(header)
    }

    /// Refuses a disk in the middle of being resized.
    pub fn refuse_resizing(&self) -> Result<()> {
        let Some(resizing) = self.footer.resizing else {
            return Ok(());
        };
        Err(Error::corrupt(
            "footer",
            format!(
                "the disk was being resized from {} to {} bytes when the power went",
                resizing.from, resizing.to
            ),
        )
        .hint("hako disk check --repair all finishes that"))
    }

    /// Checks the size of a fixed disk against the file.
    pub fn check_fixed(&self) -> Result<()> {
        let stored = self
            .tail
            .unwrap_or(self.file_len.saturating_sub(FOOTER_BYTES));
        let size = self.footer.virtual_size();
        if size <= stored {
            return Ok(());
        }
        Err(Error::corrupt(
            "footer",
            format!("a fixed disk of {size} bytes, of which the file holds {stored}"),
        ))
    }

    /// Returns what there is to know of the image, but for its parent.
    pub fn info(&self, args: &OpenArgs, unit_bytes: u64) -> Result<ImageInfo> {
        let footer = &self.footer;
        let chs = footer.chs;
        let geometry = format!("{}/{}/{}", chs.cylinders, chs.heads, chs.sectors);
        let mut info = ImageInfo {
            format: "vhd",
            subformat: Some(footer.disk_type.name().to_owned()),
            virtual_size: footer.virtual_size(),
            unit_bytes,
            writable: args.access == Access::ReadWrite,
            identity: Some(footer.uuid),
            files: vec![args.storage.name().to_owned()],
            allocated_size: args.storage.allocated_bytes()?,
            details: vec![
                ("creator", footer.creator_text().into()),
                ("created_unix", footer.unix_time().into()),
                ("uuid", footer.uuid.to_string().into()),
                ("geometry", geometry.into()),
                ("current_size_bytes", footer.current_size.into()),
                ("original_size_bytes", footer.original_size.into()),
            ],
            oddities: self.oddities.clone(),
            ..ImageInfo::default()
        };
        if footer.virtual_size() != footer.current_size {
            info.oddities.push(format!(
                "{} bytes by the geometry, as {} means it, {} by the footer's current size",
                footer.virtual_size(),
                footer.creator_text(),
                footer.current_size
            ));
        }
        if footer.saved_state() {
            info.oddities
                .push("the virtual machine was saved while it ran".to_owned());
        }
        Ok(info)
    }
}

/// A dynamic or differencing disk, before its blocks are looked at.
pub struct Dynamic {
    /// The footers.
    pub found: Found,
    /// The header.
    pub header: Header,
    /// The sizes.
    pub layout: Layout,
    /// The parent's names, of a differencing disk.
    pub parent: Option<ParentNames>,
}

impl Dynamic {
    /// Reads the header that `found` points to.
    pub fn read(mut found: Found, storage: &dyn Storage, salvage: bool) -> Result<Self> {
        let header = found.header(storage, salvage)?;
        let layout = Layout::of(&found.footer, &header, found.file_len)?;
        let parent = match found.footer.disk_type {
            DiskType::Differencing => Some(ParentNames::read(storage, &header)?),
            _ => None,
        };
        Ok(Self {
            found,
            header,
            layout,
            parent,
        })
    }

    /// Returns what there is to know of the image.
    pub fn info(&self, args: &OpenArgs) -> Result<ImageInfo> {
        let mut info = self.found.info(args, self.layout.block_bytes())?;
        info.details
            .push(("block_size_bytes", self.layout.block_bytes().into()));
        let Some(parent) = &self.parent else {
            return Ok(info);
        };
        info.parent = Some(parent.link(&self.header));
        let names = parent.recorded.iter();
        let names = names.map(|(kind, name)| (kind.clone(), name.as_str().into()));
        info.details
            .push(("parent_names", Value::Map(names.collect())));
        info.oddities.extend(parent.oddities.iter().cloned());
        Ok(info)
    }
}

/// Returns the footer at the end of the file and where it begins, if there is one, sound or not.
fn read_tail(storage: &dyn Storage, file_len: u64) -> Result<Option<(u64, Footer)>> {
    for len in [FOOTER_BYTES, OLD_FOOTER_BYTES] {
        let Some(at) = file_len.checked_sub(len) else {
            continue;
        };
        let mut bytes = vec![0; len as usize];
        storage.read_at(at, &mut bytes)?;
        if let Ok(footer) = Footer::decode(&bytes) {
            return Ok(Some((at, footer)));
        }
    }
    Ok(None)
}

/// Returns the copy of the footer at the beginning, if there is one that says dynamic.
fn read_front(storage: &dyn Storage, file_len: u64) -> Result<Option<(u64, Footer)>> {
    if file_len < FOOTER_BYTES {
        return Ok(None);
    }
    let mut bytes = [0; FOOTER_BYTES as usize];
    storage.read_at(0, &mut bytes)?;
    let footer = Footer::decode(&bytes).ok();
    Ok(footer
        .filter(|footer| footer.disk_type != DiskType::Fixed)
        .map(|footer| (0, footer)))
}

fn differ(tail: &Footer, front: &Footer) -> String {
    if tail.current_size == front.current_size {
        "the footer and its copy at the beginning differ: the copy is used".to_owned()
    } else {
        format!(
            "the footer says {} bytes, its copy at the beginning {}: the copy is used",
            tail.current_size, front.current_size
        )
    }
}
