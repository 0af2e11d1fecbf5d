//! Changes of a descriptor's text that leave every byte alone that they are not about: order,
//! comments, unknown keys, line endings and encoding stay.

use std::ops::Range;

use hako_block::{Error, Result};

use super::{Descriptor, MAX_DESCRIPTOR_BYTES, trimmed};

/// Changes to one descriptor, made together by [`Edits::finish`].
pub struct Edits<'a> {
    descriptor: &'a Descriptor,
    edits: Vec<(Range<usize>, Vec<u8>)>,
}

/// Where the numbers and names of an extent line are, in bytes of the text.
struct ExtentPlaces {
    n_sectors: Range<usize>,
    /// Without quotes; `None` if the line names no file.
    file: Option<Range<usize>>,
}

impl Descriptor {
    /// Returns no changes, to add some.
    pub fn edit(&self) -> Edits<'_> {
        Edits {
            descriptor: self,
            edits: Vec::new(),
        }
    }
}

impl Edits<'_> {
    /// Gives a key a value; one that is not there gets a line where such lines stand. Errors: the
    /// value cannot be written in a descriptor, or in this one's encoding.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let bytes = self.encoded(value)?;
        if let Some(entry) = self.descriptor.entry(key) {
            self.edits.push((entry.value.clone(), bytes));
            return Ok(());
        }
        let line = if key.starts_with("ddb.") {
            [key.as_bytes(), b" = \"", &bytes, b"\""].concat()
        } else if key.eq_ignore_ascii_case("parentCID") {
            [key.as_bytes(), b"=", &bytes].concat()
        } else {
            [key.as_bytes(), b"=\"", &bytes, b"\""].concat()
        };
        self.insert_line(self.end_of_section(key), &line);
        Ok(())
    }

    /// Like [`Edits::set`], but only where the key is there.
    pub fn set_if_there(&mut self, key: &str, value: &str) -> Result<()> {
        match self.descriptor.entry(key) {
            Some(_) => self.set(key, value),
            None => Ok(()),
        }
    }

    /// Removes every line of a key.
    pub fn remove(&mut self, key: &str) {
        let entries = self.descriptor.entries.iter();
        let lines = entries.filter(|entry| entry.key.eq_ignore_ascii_case(key));
        self.edits
            .extend(lines.map(|entry| (entry.line.clone(), Vec::new())));
    }

    /// Gives the extent line `index` another length.
    pub fn set_extent_sectors(&mut self, index: usize, n_sectors: u64) -> Result<()> {
        let places = self.extent(index)?;
        self.edits
            .push((places.n_sectors, n_sectors.to_string().into_bytes()));
        Ok(())
    }

    /// Gives the extent line `index` another file.
    pub fn set_extent_file(&mut self, index: usize, file: &str) -> Result<()> {
        let bytes = self.encoded(file)?;
        let place = self.extent(index)?.file.ok_or_else(no_such_line)?;
        self.edits.push((place, bytes));
        Ok(())
    }

    /// Removes the extent lines from `index` on.
    pub fn remove_extents(&mut self, index: usize) {
        let lines = self.descriptor.extent_lines.get(index..).unwrap_or(&[]);
        self.edits
            .extend(lines.iter().map(|line| (line.clone(), Vec::new())));
    }

    /// Adds extent lines after the last one.
    pub fn add_extents(&mut self, lines: &[String]) -> Result<()> {
        let last = self.descriptor.extent_lines.last();
        let at = last.ok_or_else(no_such_line)?.end;
        for line in lines {
            let (bytes, _, lossy) = self.descriptor.encoding.encode(line);
            if lossy {
                return Err(self.not_in_encoding(line));
            }
            self.insert_line(at, &bytes);
        }
        Ok(())
    }

    /// Makes the changes. Errors: the text is too long, or would not say what it is to say.
    pub fn finish(self) -> Result<Descriptor> {
        let text = self.descriptor.edited(self.edits);
        if text.len() as u64 > MAX_DESCRIPTOR_BYTES {
            let what = format!("a descriptor of {} bytes is too long", text.len());
            return Err(Error::invalid(what));
        }
        let new = Descriptor::parse(&text)?;
        if new.encoding != self.descriptor.encoding {
            return Err(Error::invalid(
                "the new text would be read in another encoding than the old one",
            ));
        }
        Ok(new)
    }

    fn encoded(&self, value: &str) -> Result<Vec<u8>> {
        check_value(value)?;
        let (bytes, _, lossy) = self.descriptor.encoding.encode(value);
        if lossy {
            return Err(self.not_in_encoding(value));
        }
        Ok(bytes.into_owned())
    }

    fn not_in_encoding(&self, value: &str) -> Error {
        Error::invalid(format!(
            "{value:?} cannot be written in the descriptor's encoding, {}",
            self.descriptor.encoding.name()
        ))
    }

    /// Returns where a new line for a key goes: behind those of its kind.
    fn end_of_section(&self, key: &str) -> usize {
        let entries = || self.descriptor.entries.iter();
        let last_of = |matches: &dyn Fn(&str) -> bool| {
            let of_kind = entries().filter(|entry| matches(&entry.key));
            of_kind.map(|entry| entry.line.end).max()
        };
        let place = if key.starts_with("ddb.") {
            last_of(&|key| key.starts_with("ddb."))
        } else {
            last_of(&|key| matches!(key, "cid" | "parentcid" | "createtype"))
        };
        place.unwrap_or(self.descriptor.text.len())
    }

    /// Adds a line at a place where one begins, with the ending of the line before it.
    fn insert_line(&mut self, at: usize, line: &[u8]) {
        let before = &self.descriptor.text[..at];
        let ending: &[u8] = if before.ends_with(b"\r\n") {
            b"\r\n"
        } else if before.ends_with(b"\r") {
            b"\r"
        } else {
            b"\n"
        };
        let is_open = !before.is_empty() && !before.ends_with(b"\n") && !before.ends_with(b"\r");
        let bytes = if is_open {
            [ending, line].concat()
        } else {
            [line, ending].concat()
        };
        self.edits.push((at..at, bytes));
    }

    fn extent(&self, index: usize) -> Result<ExtentPlaces> {
        let line = self.descriptor.extent_lines.get(index);
        let content = trimmed(
            &self.descriptor.text,
            line.ok_or_else(no_such_line)?.clone(),
        );
        let mut words = Words {
            text: &self.descriptor.text,
            rest: content,
        };
        let (_access, n_sectors, _kind) = (words.next(), words.next(), words.next());
        let file = words.file();
        Ok(ExtentPlaces {
            n_sectors,
            file: (!file.is_empty()).then_some(file),
        })
    }
}

/// Refuses what no descriptor has a way to write.
pub fn check_value(value: &str) -> Result<()> {
    if value.contains(['"', '\n', '\r', '\0']) {
        return Err(Error::invalid(format!(
            "{value:?} cannot be written into a VMDK descriptor"
        )));
    }
    Ok(())
}

fn no_such_line() -> Error {
    Error::corrupt("descriptor", "an extent line is not where it was")
}

/// The words of a line, as bytes: every encoding in use has blanks and quotes where ASCII does.
struct Words<'a> {
    text: &'a [u8],
    rest: Range<usize>,
}

impl Words<'_> {
    fn skip_blanks(&mut self) {
        let rest = &self.text[self.rest.clone()];
        self.rest.start += rest.len() - rest.trim_ascii_start().len();
    }

    fn take(&mut self, ends: impl Fn(u8) -> bool) -> Range<usize> {
        let rest = &self.text[self.rest.clone()];
        let len = rest.iter().position(|byte| ends(*byte));
        let word = self.rest.start..self.rest.start + len.unwrap_or(rest.len());
        self.rest.start = word.end;
        word
    }

    fn next(&mut self) -> Range<usize> {
        self.skip_blanks();
        self.take(|byte| byte.is_ascii_whitespace())
    }

    fn file(&mut self) -> Range<usize> {
        self.skip_blanks();
        if self.text[self.rest.clone()].first() != Some(&b'"') {
            return self.take(|byte| byte.is_ascii_whitespace());
        }
        self.rest.start += 1;
        self.take(|byte| byte == b'"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Disk DescriptorFile\r\nversion=1\r\nCID=0000abcd\r\nparentCID=ffffffff\r\ncreateType=\"custom\"\r\n# note\r\nStrange = kept\r\nRW 8 FLAT \"a\" 0\r\n  rw  16 flat b 5 partitionUUID x\r\n#DDB\r\nddb.Comment = \"old\"\r\nddb.x = y\r\n";

    fn edited(text: &str, change: impl Fn(&mut Edits<'_>) -> Result<()>) -> Result<String> {
        let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
        let mut edits = descriptor.edit();
        change(&mut edits)?;
        Ok(String::from_utf8(edits.finish()?.text().to_vec()).unwrap())
    }

    #[test]
    fn keys_are_set_where_they_stand_and_added_behind_their_kind() {
        let text = edited(TEXT, |edits| {
            edits.set("ddb.comment", "new")?;
            edits.set("ddb.uuid", "1")?;
            edits.set("parentFileNameHint", "base.vmdk")?;
            edits.set_if_there("ddb.absent", "1")?;
            edits.set("parentCID", "12345678")
        });
        let wanted = TEXT
            .replace("\"old\"", "\"new\"")
            .replace("y\r\n", "y\r\nddb.uuid = \"1\"\r\n")
            .replace("ffffffff", "12345678")
            .replace(
                "\"custom\"\r\n",
                "\"custom\"\r\nparentFileNameHint=\"base.vmdk\"\r\n",
            );
        assert_eq!(text.unwrap(), wanted);
    }

    #[test]
    fn keys_are_removed_wherever_they_stand() {
        let twice = format!("{TEXT}ddb.COMMENT=\"again\"");
        let text = edited(&twice, |edits| {
            edits.remove("ddb.comment");
            Ok(())
        });
        let wanted = TEXT.replace("ddb.Comment = \"old\"\r\n", "");
        assert_eq!(text.unwrap(), wanted);
    }

    #[test]
    fn extent_lines_change_length_and_file_and_come_and_go() {
        let text = edited(TEXT, |edits| {
            edits.set_extent_sectors(0, 100)?;
            edits.set_extent_file(0, "new-a")?;
            edits.set_extent_sectors(1, 32)?;
            edits.set_extent_file(1, "new-b")?;
            edits.add_extents(&["RW 1 ZERO".to_owned(), "RW 2 ZERO".to_owned()])
        });
        let wanted = TEXT
            .replace("RW 8 FLAT \"a\" 0", "RW 100 FLAT \"new-a\" 0")
            .replace(
                "16 flat b 5 partitionUUID x\r\n",
                "32 flat new-b 5 partitionUUID x\r\nRW 1 ZERO\r\nRW 2 ZERO\r\n",
            );
        assert_eq!(text.unwrap(), wanted);
        let text = edited(TEXT, |edits| {
            edits.remove_extents(1);
            Ok(())
        });
        let wanted = TEXT.replace("  rw  16 flat b 5 partitionUUID x\r\n", "");
        assert_eq!(text.unwrap(), wanted);
    }

    #[test]
    fn last_line_without_an_end_gets_one_before_the_next() {
        let open = TEXT.trim_end();
        let text = edited(open, |edits| edits.set("ddb.uuid", "1")).unwrap();
        assert_eq!(text, format!("{open}\nddb.uuid = \"1\""));
    }

    #[test]
    fn text_stays_in_its_encoding_and_what_that_lacks_is_refused() {
        let text = TEXT.replace("# note", "encoding=\"Shift_JIS\"");
        let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
        let mut edits = descriptor.edit();
        edits.set_extent_file(0, "能").unwrap();
        edits.set("ddb.comment", "ソ").unwrap();
        let new = edits.finish().unwrap();
        assert_eq!(new.extents()[0].file.as_deref(), Some("能"));
        assert_eq!(new.value("ddb.comment").as_deref(), Some("ソ"));
        assert!(new.text().windows(2).any(|two| two == b"\x94\x5c"));
        let error = descriptor.edit().set("ddb.comment", "Ж🙂").unwrap_err();
        assert!(error.to_string().contains("Shift_JIS"), "{error}");
        for bad in ["a\"b", "a\nb", "a\0b"] {
            assert!(descriptor.edit().set("ddb.comment", bad).is_err());
        }
    }
}
