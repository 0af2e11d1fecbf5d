//! The journal's text: keys and values like those of a machine's other texts.
//!
//! ```text
//! hako.journal = "1"
//! verb = "create"
//! made0.file = "web-Snapshot1.vmx"
//! merge0.child.file = "web-000001.vmdk"
//! merge0.child.format = "vmdk"
//! merge0.parent.file = "web.vmdk"
//! …
//! relink0.overlay.file = "…"
//! disk0.node = "scsi0:0"
//! disk0.old = "web.vmdk"
//! disk0.new.file = "web-000001.vmdk"
//! restore0.key = "nvram"
//! restore0.file = "web-Snapshot1.nvram"
//! vmx.before = "(SHA-256)"
//! vmsd.before = "(SHA-256)"
//! vmsd.after = "(the new text, each byte as the letter of that number)"
//! remove0.file = "…"
//! ```

use hako_block::{Error, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::vmsd::{FIRMWARE_KEYS, FirmwareFile};

use super::journal::{DiskChange, Journal, Merge, Relink, Verb};
use super::name::ImageName;

/// The key that says how the text is to be read, and what it says.
const VERSION: (&str, &str) = ("hako.journal", "1");
/// Most items of each kind.
const MAX_ITEMS: usize = 1 << 13;

impl Journal {
    /// Returns the text.
    pub(super) fn to_text(&self) -> Result<Dictionary> {
        let mut text = Dictionary::new();
        text.set(VERSION.0, VERSION.1)?;
        text.set("verb", self.verb.name())?;
        text.set("vmx.before", &self.vmx_before)?;
        text.set("vmsd.before", &self.vmsd_before)?;
        text.set("vmsd.after", &letters(&self.vmsd))?;
        put_names(&mut text, "made", &self.made)?;
        for (number, merge) in self.merges.iter().enumerate() {
            put_image(&mut text, &format!("merge{number}.child"), &merge.child)?;
            put_image(&mut text, &format!("merge{number}.parent"), &merge.parent)?;
        }
        for (number, relink) in self.relinks.iter().enumerate() {
            put_image(
                &mut text,
                &format!("relink{number}.overlay"),
                &relink.overlay,
            )?;
            put_image(&mut text, &format!("relink{number}.parent"), &relink.parent)?;
        }
        for (number, change) in self.disks.iter().enumerate() {
            text.set(&format!("disk{number}.node"), &change.node.to_string())?;
            if let Some(old) = &change.old {
                text.set(&format!("disk{number}.old"), old)?;
            }
            if let Some(new) = &change.new {
                put_image(&mut text, &format!("disk{number}.new"), new)?;
            }
        }
        for (number, kept) in self.restores.iter().enumerate() {
            text.set(&format!("restore{number}.key"), kept.key)?;
            text.set(&format!("restore{number}.file"), &kept.file)?;
        }
        put_names(&mut text, "remove", &self.remove)?;
        Ok(text)
    }

    /// Reads the text. Errors: [`hako_block::ErrorKind::Corrupt`] for what is no journal,
    /// [`hako_block::ErrorKind::Unsupported`] for one of a later version.
    pub(super) fn parse(text: &Dictionary) -> Result<Self> {
        match text.value(VERSION.0).as_deref() {
            Some(version) if version == VERSION.1 => {}
            Some(version) => {
                let what = format!("is a journal of version {version:?}, which is not known");
                return Err(
                    Error::unsupported(what).hint("complete it with the hako that wrote it")
                );
            }
            None => return Err(wrong(VERSION.0)),
        }
        let value = |key: &str| text.value(key).ok_or_else(|| wrong(key));
        let verb = value("verb")?;
        let verb = Verb::ALL.into_iter().find(|known| known.name() == verb);
        Ok(Self {
            verb: verb.ok_or_else(|| wrong("verb"))?,
            made: names(text, "made")?,
            merges: items(text, "merge", "child.file", |item| {
                Ok(Merge {
                    child: image(text, &format!("{item}.child"))?,
                    parent: image(text, &format!("{item}.parent"))?,
                })
            })?,
            relinks: items(text, "relink", "overlay.file", |item| {
                Ok(Relink {
                    overlay: image(text, &format!("{item}.overlay"))?,
                    parent: image(text, &format!("{item}.parent"))?,
                })
            })?,
            disks: items(text, "disk", "node", |item| disk(text, item))?,
            restores: items(text, "restore", "key", |item| firmware(text, item))?,
            vmx_before: value("vmx.before")?,
            vmsd_before: value("vmsd.before")?,
            vmsd: bytes(&value("vmsd.after")?).ok_or_else(|| wrong("vmsd.after"))?,
            remove: names(text, "remove")?,
        })
    }
}

fn wrong(key: &str) -> Error {
    Error::corrupt("journal", format!("{key} is missing or not understood"))
}

fn put_names(text: &mut Dictionary, kind: &str, names: &[String]) -> Result<()> {
    for (number, name) in names.iter().enumerate() {
        text.set(&format!("{kind}{number}.file"), name)?;
    }
    Ok(())
}

fn put_image(text: &mut Dictionary, prefix: &str, image: &ImageName) -> Result<()> {
    text.set(&format!("{prefix}.file"), &image.file)?;
    text.set(&format!("{prefix}.format"), &image.format)
}

/// Reads the items `KIND0`, `KIND1` and so on, as long as they have the key `first`.
fn items<T>(
    text: &Dictionary,
    kind: &str,
    first: &str,
    read: impl Fn(&str) -> Result<T>,
) -> Result<Vec<T>> {
    let names = (0..MAX_ITEMS).map(|number| format!("{kind}{number}"));
    let there = names.take_while(|item| text.value(&format!("{item}.{first}")).is_some());
    there.map(|item| read(&item)).collect()
}

fn names(text: &Dictionary, kind: &str) -> Result<Vec<String>> {
    items(text, kind, "file", |item| {
        let key = format!("{item}.file");
        text.value(&key).ok_or_else(|| wrong(&key))
    })
}

fn image(text: &Dictionary, prefix: &str) -> Result<ImageName> {
    let value = |name: &str| {
        let key = format!("{prefix}.{name}");
        let value = text.value(&key).filter(|value| !value.is_empty());
        value.ok_or_else(|| wrong(&key))
    };
    Ok(ImageName {
        file: value("file")?,
        format: value("format")?,
    })
}

fn firmware(text: &Dictionary, item: &str) -> Result<FirmwareFile> {
    let (key, file) = (format!("{item}.key"), format!("{item}.file"));
    let found = text.value(&key);
    let known = FIRMWARE_KEYS
        .into_iter()
        .find(|known| Some(*known) == found.as_deref());
    Ok(FirmwareFile {
        key: known.ok_or_else(|| wrong(&key))?,
        file: text.value(&file).ok_or_else(|| wrong(&file))?,
    })
}

fn disk(text: &Dictionary, item: &str) -> Result<DiskChange> {
    let key = format!("{item}.node");
    let node = text.value(&key).and_then(|node| node.parse().ok());
    let new = format!("{item}.new");
    let has_new = text.value(&format!("{new}.file")).is_some();
    Ok(DiskChange {
        node: node.ok_or_else(|| wrong(&key))?,
        old: text.value(&format!("{item}.old")),
        new: has_new.then(|| image(text, &new)).transpose()?,
    })
}

/// Returns bytes of any code page as letters, each byte as the letter of its number.
fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn bytes(letters: &str) -> Option<Vec<u8>> {
    letters
        .chars()
        .map(|letter| u8::try_from(letter).ok())
        .collect()
}
