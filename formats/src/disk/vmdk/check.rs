//! The check of a whole VMDK: the descriptor, how the extents fit it, and each extent by itself.

use hako_block::{Access, BlockImage, ErrorKind, Result};

use super::hosted::{self, HostedArgs};
use super::image::VmdkImage;
use super::layout::{Layout, Source};
use super::stream::{self, StreamArgs};
use super::{cowd, sesparse};
use crate::disk::{CheckArgs, Findings, Severity};

/// Checks one layer. Nothing is changed, whatever the access.
pub fn check(args: &CheckArgs) -> Result<Findings> {
    let args = CheckArgs {
        access: Access::ReadOnly,
        ..args.clone()
    };
    let file = args.storage.name();
    let mut findings = Findings::default();
    let layout = match Layout::find(&args) {
        Ok(layout) => layout,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            findings.add_error(file, &error);
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    let has_parent = matches!(layout.descriptor.parent_content_id(), Ok(Some(_)));
    for part in &layout.parts {
        check_source(&part.source, has_parent, &mut findings)?;
    }
    match VmdkImage::from_layout(layout, &args) {
        Ok(image) => {
            for oddity in &image.info().oddities {
                let known = findings.list.iter().any(|finding| {
                    finding.severity == Severity::Oddity && oddity.contains(&finding.text)
                });
                if !known {
                    findings.add(Severity::Oddity, file, oddity, None);
                }
            }
        }
        // What the extents' own checks found already need not be said again.
        Err(_) if findings.n_corruptions > 0 => {}
        Err(error) if error.kind() == ErrorKind::Corrupt => findings.add_error(file, &error),
        Err(error) => return Err(error),
    }
    Ok(findings)
}

fn check_source(source: &Source, has_parent: bool, findings: &mut Findings) -> Result<()> {
    match source {
        Source::Hosted(storage, header) => hosted::check(
            HostedArgs {
                storage: storage.clone(),
                header: header.clone(),
                access: Access::ReadOnly,
                has_parent,
            },
            findings,
        ),
        Source::Stream(storage, header) => stream::check(
            StreamArgs {
                storage: storage.clone(),
                header: header.clone(),
                salvage: false,
            },
            findings,
        ),
        Source::Cowd(storage) => cowd::check(storage.clone(), findings),
        Source::SeSparse(storage) => sesparse::check(storage.clone(), findings),
        Source::Flat { .. } | Source::Zeros => Ok(()),
    }
}
