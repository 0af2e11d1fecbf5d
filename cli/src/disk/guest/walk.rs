//! Directories of a guest: their names in order, none twice, never in a circle.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use hako_block::{Cancel, Error, Result};
use hako_guest::{Entry, FileSystem, NodeId};

/// Names that are held at the same time to be sorted. Directories with more are walked in the order
/// in which they are stored.
const MOST_NAMES: usize = 1 << 18;

/// How deep directories are followed.
const DEEPEST: usize = 512;

/// Walks directories of one file system.
pub struct Walk<'a> {
    fs: &'a Arc<dyn FileSystem>,
    cancel: &'a Cancel,
    entered: HashSet<NodeId>,
    depth: usize,
    room: usize,
}

impl<'a> Walk<'a> {
    /// Returns a walk that stops when `cancel` says so.
    pub fn new(fs: &'a Arc<dyn FileSystem>, cancel: &'a Cancel) -> Self {
        Self {
            fs,
            cancel,
            entered: HashSet::new(),
            depth: 0,
            room: MOST_NAMES,
        }
    }

    /// Calls `each` with the names in a directory, in which it may enter others. Errors: those of
    /// `each`; corrupt if the directory was entered before, unsupported if it lies too deep.
    pub fn enter(
        &mut self,
        directory: NodeId,
        each: &mut dyn FnMut(&mut Self, Entry) -> Result<()>,
    ) -> Result<()> {
        if !self.entered.insert(directory) {
            return Err(Error::corrupt(
                "directory",
                "it was met before, by another name",
            ));
        }
        if self.depth == DEEPEST {
            return Err(Error::unsupported(format!(
                "more than {DEEPEST} directories deep"
            )));
        }
        self.depth += 1;
        let result = match self.sorted(directory)? {
            Some(entries) => self.each_of(entries, each),
            None => self.each_stored(directory, each),
        };
        self.depth -= 1;
        result
    }

    fn each_of(
        &mut self,
        entries: Vec<Entry>,
        each: &mut dyn FnMut(&mut Self, Entry) -> Result<()>,
    ) -> Result<()> {
        let n_entries = entries.len();
        self.room -= n_entries;
        for entry in entries {
            self.cancel.check()?;
            each(self, entry)?;
        }
        self.room += n_entries;
        Ok(())
    }

    /// Returns the names in order; none if there are too many.
    fn sorted(&self, directory: NodeId) -> Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        self.fs.visit(directory, &mut |entry| {
            entries.push(entry);
            match entries.len() > self.room {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((entries.len() <= self.room).then_some(entries))
    }

    fn each_stored(
        &mut self,
        directory: NodeId,
        each: &mut dyn FnMut(&mut Self, Entry) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        let fs = Arc::clone(self.fs);
        fs.visit(directory, &mut |entry| {
            result = self.cancel.check().and_then(|()| each(self, entry));
            match result.is_err() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_more_names_than_are_held_is_walked_as_stored() {
        let memory = hako_guest::testkit::MemoryFs::new("ext4");
        let fs = memory.file("b/2", "").file("b/1", "").file("a", "").build();
        let cancel = Cancel::default();
        for (room, expected) in [
            (MOST_NAMES, ["a", "b", "1", "2"]),
            (1, ["b", "2", "1", "a"]),
        ] {
            let mut walk = Walk::new(&fs, &cancel);
            walk.room = room;
            let names = std::cell::RefCell::new(Vec::new());
            let push = |entry: &Entry| {
                names
                    .borrow_mut()
                    .push(String::from_utf8(entry.name.clone()).unwrap());
            };
            walk.enter(fs.root(), &mut |walk, entry| {
                push(&entry);
                if entry.name == b"b" {
                    walk.enter(entry.node, &mut |_, inner| {
                        push(&inner);
                        Ok(())
                    })?;
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(names.into_inner(), expected);
            assert!(walk.enter(fs.root(), &mut |_, _| Ok(())).is_err());
        }
    }
}
