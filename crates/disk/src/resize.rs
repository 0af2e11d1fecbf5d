//! Changing the virtual size of an image.

use hako_block::{
    BlockImage, Cancel, Error, ErrorKind, ExtentKind, Progress, Result, SECTOR_BYTES, is_zero,
};

use crate::change::Subject;

/// A new virtual size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSize {
    /// So many bytes.
    To(u64),
    /// So many bytes more.
    By(u64),
    /// So many bytes less.
    Less(u64),
}

impl NewSize {
    fn of(self, old: u64) -> Option<u64> {
        match self {
            NewSize::To(size) => Some(size),
            NewSize::By(more) => old.checked_add(more),
            NewSize::Less(less) => old.checked_sub(less),
        }
    }
}

/// What to resize, and what may be lost.
#[derive(Debug, Clone)]
pub struct ResizeRequest {
    /// The image.
    pub subject: Subject,
    /// Its new size.
    pub size: NewSize,
    /// It may become smaller, if nothing but zeros is cut.
    pub shrink: bool,
    /// Cut data, too.
    pub cut_data: bool,
    /// Do it though other images stand on this one.
    pub force: bool,
}

/// What was resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizeReport {
    /// Virtual size before, in bytes.
    pub old_size: u64,
    /// Virtual size now, in bytes.
    pub new_size: u64,
}

/// Changes the virtual size. New space reads as zeros.
pub fn resize(
    request: &ResizeRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ResizeReport> {
    let subject = &request.subject;
    let opened = subject.open_chain()?;
    let old_size = opened.chain.info().virtual_size;
    let new_size = request
        .size
        .of(old_size)
        .filter(|size| *size > 0)
        .ok_or_else(|| Error::invalid(format!("no such size: the disk has {old_size} bytes")))?;
    if !new_size.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::invalid(format!(
            "size {new_size} is no multiple of 512 bytes"
        )));
    }
    let report = ResizeReport { old_size, new_size };
    if new_size == old_size {
        return Ok(report);
    }
    if !request.force {
        subject.refuse_overlays(None, "it would no longer fit")?;
    }
    progress.phase("look at what changes");
    if new_size < old_size {
        if !request.shrink {
            return Err(Error::invalid(format!(
                "{new_size} bytes is less than the {old_size} that the disk has"
            ))
            .in_file(&subject.path)
            .hint("if it shall become smaller: --shrink"));
        }
        if !request.cut_data
            && let Some(offset) = first_data(&opened.chain, new_size, old_size, cancel)?
        {
            return Err(Error::invalid(format!(
                "the disk stores data at guest offset {offset}, beyond its new size of {new_size}"
            ))
            .in_file(&subject.path)
            .hint("shrink partitions and file systems first; if it may be lost: --cut-data"));
        }
    } else if let Some(below) = opened.chain.from_layer(1) {
        let end = new_size.min(below.info().virtual_size);
        if let Some(offset) = first_data(&below, old_size, end, cancel)? {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the parent has data at guest offset {offset}, which would show in the new space"),
            )
            .in_file(&subject.path)
            .hint("convert the overlay to an image without a parent first"));
        }
    }
    let (format, args) = (opened.layers[0].format, opened.layers[0].args.clone());
    drop(opened);
    format
        .resize(args, new_size)
        .map_err(|error| error.in_file(&subject.path))?;
    Ok(report)
}

/// Returns where between two guest offsets the first byte is that is not zero.
fn first_data(
    image: &dyn BlockImage,
    start: u64,
    end: u64,
    cancel: &Cancel,
) -> Result<Option<u64>> {
    const CHUNK: u64 = 1 << 20;
    let mut buffer = vec![0; CHUNK as usize];
    let mut offset = start;
    while offset < end {
        cancel.check()?;
        let extent = image.next_extent(offset)?.clipped(end);
        if extent.kind == ExtentKind::Data {
            let len = extent.len.min(CHUNK) as usize;
            image.read_at(offset, &mut buffer[..len])?;
            if !is_zero(&buffer[..len]) {
                let at = buffer[..len].iter().position(|byte| *byte != 0);
                return Ok(Some(offset + at.unwrap_or(0) as u64));
            }
            offset += len as u64;
        } else {
            offset = extent.end();
        }
    }
    Ok(None)
}
