//! References to a machine's files in its texts.

use std::path::Path;

use hako_formats::dictionary::Dictionary;
use hako_formats::xml_escaped;

/// Returns the keys whose value is a file in `folder`, by a plain name or an absolute path, that
/// has a new name; with that. What is absolute becomes relative, for the folder may get another
/// name, too.
pub(crate) fn references(
    dictionary: &Dictionary,
    folder: &Path,
    new_name: &dyn Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    const FOR_PEOPLE: [&str; 4] = ["displayname", "annotation", "description", "guestos"];
    let mut changes = Vec::new();
    for (key, value) in dictionary.entries() {
        let lower = key.to_ascii_lowercase();
        let last = lower.rsplit('.').next().unwrap_or_default();
        if FOR_PEOPLE.contains(&last) || lower.starts_with("guestinfo.") {
            continue;
        }
        let inside = Path::new(&value).strip_prefix(folder).ok();
        let name = match inside.and_then(Path::to_str) {
            Some("") => ".", // The folder itself: workingDir.
            Some(inside) => inside,
            None => value.strip_prefix("./").unwrap_or(&value),
        };
        let renamed = new_name(name).or_else(|| inside.map(|_| name.to_owned()));
        if let Some(renamed) = renamed.filter(|renamed| *renamed != value) {
            changes.push((key.to_owned(), renamed));
        }
    }
    changes
}

/// Returns a .vmxf, an XML that names the .vmx in an element of its own, with another one named.
pub(crate) fn vmxf_of(bytes: &[u8], old_stem: &str, new_stem: &str) -> Vec<u8> {
    let element = |stem: &str| format!(">{}.vmx<", xml_escaped(stem)).into_bytes();
    replaced(bytes, &element(old_stem), &element(new_stem))
}

/// Returns bytes in which every `old` is a `new`.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(old) {
            Some(after) => {
                out.extend_from_slice(new);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_of_files_are_references_and_texts_for_people_are_not() {
        let text = b"displayName = \"old.vmdk\"\nannotation = \"old.vmdk\"\n\
                     scsi0:0.fileName = \"old.vmdk\"\nscsi0:1.fileName = \"./old.vmdk\"\n\
                     scsi0:2.fileName = \"/vms/old/old.vmdk\"\nnvram = \"/vms/old/x.nvram\"\n\
                     sata0:0.fileName = \"/iso/old.vmdk\"\nguestinfo.x = \"old.vmdk\"\n\
                     workingDir = \"/vms/old\"\nsnapshot0.displayName = \"old.vmdk\"\n";
        let dictionary = Dictionary::parse(text).unwrap();
        let new_name = |name: &str| (name == "old.vmdk").then(|| "new.vmdk".to_owned());
        let found = references(&dictionary, Path::new("/vms/old"), &new_name);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            found,
            [
                pair("scsi0:0.fileName", "new.vmdk"),
                pair("scsi0:1.fileName", "new.vmdk"),
                pair("scsi0:2.fileName", "new.vmdk"),
                pair("nvram", "x.nvram"),
                pair("workingDir", "."),
            ]
        );
    }

    #[test]
    fn vmxf_names_the_new_vmx_and_keeps_every_other_byte() {
        let text = b"<a>a&amp;b.vmx</a>\xff<b>xa&amp;b.vmx</b>";
        assert_eq!(
            vmxf_of(text, "a&b", "<c>"),
            b"<a>&lt;c&gt;.vmx</a>\xff<b>xa&amp;b.vmx</b>"
        );
    }
}
