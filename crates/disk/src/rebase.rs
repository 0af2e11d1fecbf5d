//! Giving an overlay another parent, or none.

use std::ops::Range;
use std::path::{Path, PathBuf};

use hako_block::{
    BlockImage, Cancel, Chain, Error, ErrorKind, Extent, ExtentKind, ImageInfo, Progress, Result,
    SECTOR_BYTES, Sink, is_zero,
};
use hako_formats::{OpenOptions, OpenedChain, open_chain};
use hako_pipeline::{CopyOptions, copy};

use crate::change::Subject;
use crate::parent::Parent;
use crate::stored::stored_at;
use crate::target::is_same;

/// What to rebase, and onto what.
#[derive(Debug, Clone)]
pub struct RebaseRequest {
    /// The overlay.
    pub subject: Subject,
    /// Its new parent; `None` makes it stand alone.
    pub parent: Option<PathBuf>,
    /// The new parent's format, if the user said it.
    pub parent_from: Option<String>,
    /// Only rewrite the link: the user says that the new parent's content is the old one's.
    pub link_only: bool,
    /// How many threads read; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
}

/// What was rebased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebaseReport {
    /// Bytes of the old parents that the overlay now stores itself.
    pub data_bytes: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Makes an image an overlay on another parent, its content staying the same: where the parents
/// differ, it stores the old content itself. Cut off anywhere, it stands on one of them and has
/// all its content.
pub fn rebase(
    request: &RebaseRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RebaseReport> {
    let subject = &request.subject;
    let options = OpenOptions {
        top_only: request.link_only,
        ..subject.writable()
    };
    let opened = open_chain(&subject.path, &options)?;
    let parent = match &request.parent {
        Some(path) => Some(open_parent(path, request, &opened)?),
        None => None,
    };
    let data_bytes = if request.link_only {
        0
    } else {
        progress.phase("rebase");
        let copy_options = CopyOptions {
            keep_holes: true,
            ..CopyOptions::new(progress, cancel).with_threads(request.threads)
        };
        let new = parent.as_ref().map(|parent| &parent.chain.chain);
        store_differences(&opened, new, &copy_options)?
    };
    let link = parent.as_ref().map(|parent| &parent.link);
    drop(opened);
    // Opened anew: writing may have replaced the file.
    let top = subject.open_top()?;
    top.format
        .relink(top.args, link)
        .map_err(|error| error.in_file(&subject.path))?;
    Ok(RebaseReport {
        data_bytes,
        warnings: parent.map(|parent| parent.warnings).unwrap_or_default(),
    })
}

fn open_parent(path: &Path, request: &RebaseRequest, overlay: &OpenedChain) -> Result<Parent> {
    let subject = &request.subject;
    let options = OpenOptions {
        from: request.parent_from.clone(),
        rules: subject.open.rules.clone(),
        ..OpenOptions::default()
    };
    let top = overlay.layers[0].args.storage.id();
    // Opening the overlay again would meet the lock that this command holds on it.
    if is_same(path, &subject.path) {
        return Err(Error::new(ErrorKind::Invalid, "cannot be its own parent").in_file(path));
    }
    let parent = Parent::open(path, &subject.path, &options)?;
    let layers = &parent.chain.layers;
    if layers
        .iter()
        .any(|layer| top.is_some() && layer.args.storage.id() == top)
    {
        return Err(Error::new(
            ErrorKind::Invalid,
            "stands on the overlay itself: the chain would be a loop",
        )
        .in_file(path));
    }
    Ok(parent)
}

/// Stores in the overlay what it shows now and would not show over `new`. Returns how many bytes.
fn store_differences(
    opened: &OpenedChain,
    new: Option<&Chain>,
    options: &CopyOptions<'_>,
) -> Result<u64> {
    let whole = &opened.chain;
    let below = whole.from_layer(1);
    let source = Inherited {
        overlay: &*whole.layers()[0],
        whole,
        old: below.as_ref(),
        new,
    };
    let mut stored = 0;
    let sink = StoreDifferent {
        whole,
        new,
        buffer: Vec::new(),
        stored: &mut stored,
    };
    copy(&source, Box::new(sink), source.info().virtual_size, options)?;
    Ok(stored)
}

/// What an overlay shows of its parents, where either they or the new parent store something:
/// data there, a hole elsewhere.
struct Inherited<'a> {
    overlay: &'a dyn BlockImage,
    whole: &'a Chain,
    old: Option<&'a Chain>,
    new: Option<&'a Chain>,
}

impl BlockImage for Inherited<'_> {
    fn info(&self) -> &ImageInfo {
        self.whole.info()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.whole.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        let own = self.overlay.next_extent(offset)?;
        let (mut end, mut kind) = (own.end(), ExtentKind::Hole);
        if own.kind == ExtentKind::Hole {
            for parent in [self.old, self.new].into_iter().flatten() {
                let (parent_end, has_data) = stored_at(parent, offset, end)?;
                end = parent_end;
                if has_data {
                    kind = ExtentKind::Data;
                }
            }
        }
        Ok(Extent::new(offset, end - offset, kind))
    }
}

/// Writes into the overlay what differs from the new parent.
struct StoreDifferent<'a> {
    whole: &'a Chain,
    new: Option<&'a Chain>,
    buffer: Vec<u8>,
    stored: &'a mut u64,
}

/// How much is compared, and stored if it differs.
const PIECE_BYTES: u64 = 64 << 10;

impl StoreDifferent<'_> {
    /// Reads what the new parent has at `offset` into the buffer.
    fn read_new(&mut self, offset: u64, len: usize) -> Result<()> {
        self.buffer.clear();
        self.buffer.resize(len, 0);
        let Some(new) = self.new else { return Ok(()) };
        let inside = new.info().virtual_size.saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(len);
        if inside == 0 {
            return Ok(());
        }
        new.read_at(offset, &mut self.buffer[..inside])
    }
}

impl Sink for StoreDifferent<'_> {
    fn unit_bytes(&self) -> u64 {
        SECTOR_BYTES
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for (index, piece) in bytes.chunks(PIECE_BYTES as usize).enumerate() {
            let offset = offset + index as u64 * PIECE_BYTES;
            self.read_new(offset, piece.len())?;
            if self.buffer != piece {
                self.whole.write_at(offset, piece)?;
                *self.stored += piece.len() as u64;
            }
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let mut end = range.end.min(offset + PIECE_BYTES);
            match self.new {
                None => return Ok(()),
                Some(new) => {
                    let (run_end, has_data) = stored_at(new, offset, range.end)?;
                    if !has_data {
                        offset = run_end;
                        continue;
                    }
                    end = end.min(run_end);
                }
            }
            self.read_new(offset, (end - offset) as usize)?;
            if !is_zero(&self.buffer) {
                self.whole.write_zeroes(offset..end)?;
                *self.stored += end - offset;
            }
            offset = end;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.whole.flush()
    }
}
