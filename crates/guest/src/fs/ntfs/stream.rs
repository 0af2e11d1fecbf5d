//! The attributes of a file, which may be spread over several records, and the bytes in them.

use std::sync::Arc;

use hako_block::{Error, Result};

use super::lznt1;
use super::record::{ATTRIBUTE_LIST, Attribute, Extent, Form, Record, Reference, is_name};
use super::runs::{self, Run};
use super::table::{Table, read_run, run_of};
use crate::bytes::{array_at, le};

/// The longest list of attributes, as Windows has it.
const LONGEST_LIST: u64 = 256 << 10;

/// Most bytes that are compressed together; 64 KiB is usual.
const MOST_UNIT_BYTES: u64 = 1 << 20;

/// Attribute flags: how it is compressed, and whether it is encrypted.
const COMPRESSION: u16 = 0xff;
const LZNT1: u16 = 1;
const ENCRYPTED: u16 = 0x4000;

/// A file: its first record, and the list of the attributes that are in others.
pub struct File {
    /// Which it is.
    pub reference: Reference,
    /// Its first record.
    pub record: Arc<Record>,
    /// All its attributes, if some are in other records.
    list: Option<Vec<Listed>>,
}

/// An entry of the list: kind 0, length 4, length of the name 6, where that is 7, first VCN 8,
/// record 0x10.
struct Listed {
    kind: u32,
    name: Vec<u8>,
    part: Part,
}

/// A part of an attribute: its first cluster and the record it is in.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The first cluster, as the attribute counts.
    pub first: u64,
    record: Reference,
}

impl File {
    /// Opens the file of that number.
    pub fn open(table: &Table, reference: Reference) -> Result<Self> {
        let record = table.record(reference)?;
        if record.base().0 != 0 {
            return Err(super::bad("a part of another file").place(place(reference)));
        }
        Self::of(table, reference, record).map_err(|error| error.place(place(reference)))
    }

    /// Returns the file with that first record.
    pub fn of(table: &Table, reference: Reference, record: Arc<Record>) -> Result<Self> {
        let mut file = Self {
            reference,
            record,
            list: None,
        };
        if let Some(list) = file.stream(table, ATTRIBUTE_LIST, "")? {
            if list.len > LONGEST_LIST {
                return Err(super::bad(format!("{} bytes of attributes", list.len)));
            }
            let mut bytes = vec![0; usize::try_from(list.len).unwrap_or_default()];
            list.read(table, 0, &mut bytes)?;
            file.list = Some(decode_list(&bytes)?);
        }
        Ok(file)
    }

    /// Calls `each` for every attribute that is a whole, in whichever record.
    pub fn each_attribute(
        &self,
        table: &Table,
        mut each: impl FnMut(&Attribute<'_>),
    ) -> Result<()> {
        let mut records: Vec<Reference> = self
            .list
            .iter()
            .flatten()
            .map(|listed| listed.part.record)
            .collect();
        records.sort();
        records.dedup();
        for attribute in self.record.attributes() {
            each(&attribute?);
        }
        for reference in records {
            if reference.record() != self.reference.record() {
                for attribute in self.part_record(table, reference)?.attributes() {
                    each(&attribute?);
                }
            }
        }
        Ok(())
    }

    /// Returns the value of an attribute, if that is in a record.
    pub fn value(&self, table: &Table, kind: u32, name: &str) -> Result<Option<Vec<u8>>> {
        let stream = self.stream(table, kind, name)?;
        Ok(stream.and_then(|stream| match stream.body {
            Body::Resident(value) => Some(value),
            Body::Clusters { .. } => None,
        }))
    }

    /// Returns an attribute's bytes; none if there is no such attribute.
    pub fn stream(&self, table: &Table, kind: u32, name: &str) -> Result<Option<Stream>> {
        let mut parts = self.parts(kind, name);
        parts.sort_by_key(|part| part.first);
        let Some(first) = parts.first().filter(|part| part.first == 0) else {
            return Ok(None);
        };
        let record = self.part_record(table, first.record)?;
        match find(&record, kind, name, 0)? {
            None => Ok(None),
            Some(attribute) => Stream::of(&attribute, &parts).map(Some),
        }
    }

    /// Returns the parts of an attribute, the first of each record that has one.
    pub fn parts(&self, kind: u32, name: &str) -> Vec<Part> {
        match &self.list {
            None => vec![Part {
                first: 0,
                record: self.reference,
            }],
            Some(list) => {
                let listed = list
                    .iter()
                    .filter(|listed| listed.kind == kind && is_name(&listed.name, name));
                listed.map(|listed| listed.part).collect()
            }
        }
    }

    /// Returns the runs of a part.
    pub fn runs_of(&self, table: &Table, kind: u32, name: &str, part: &Part) -> Result<Vec<Run>> {
        let record = self.part_record(table, part.record)?;
        let attribute = find(&record, kind, name, part.first)?;
        match attribute.map(|attribute| attribute.form) {
            Some(Form::Clusters(extent)) => runs::decode(extent.runs, extent.first),
            _ => Err(super::bad(
                "a part of an attribute is not where it should be",
            )),
        }
    }

    /// Returns a record that holds attributes of this file.
    fn part_record(&self, table: &Table, reference: Reference) -> Result<Arc<Record>> {
        if reference.record() == self.reference.record() {
            return Ok(Arc::clone(&self.record));
        }
        let record = table.record(reference)?;
        match record.base().record() == self.reference.record() {
            true => Ok(record),
            false => Err(super::bad("not a part of the file that says so").place(place(reference))),
        }
    }
}

fn decode_list(mut bytes: &[u8]) -> Result<Vec<Listed>> {
    const HEAD_BYTES: usize = 0x1a;
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(le::u16_at(bytes, 4));
        let entry = bytes.get(..len).filter(|entry| entry.len() >= HEAD_BYTES);
        let entry =
            entry.ok_or_else(|| super::bad(format!("{len} bytes of a listed attribute")))?;
        let [name_len, name_at] = array_at(entry, 6).map(usize::from);
        let name = entry.get(name_at..name_at + 2 * name_len);
        list.push(Listed {
            kind: le::u32_at(entry, 0),
            name: name.unwrap_or_default().to_vec(),
            part: Part {
                first: le::u64_at(entry, 8),
                record: Reference(le::u64_at(entry, 0x10)),
            },
        });
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(list)
}

/// Returns the attribute of a record that begins at that cluster.
fn find<'a>(
    record: &'a Record,
    kind: u32,
    name: &str,
    first: u64,
) -> Result<Option<Attribute<'a>>> {
    for attribute in record.attributes() {
        let attribute = attribute?;
        let start = match attribute.form {
            Form::Resident(_) => 0,
            Form::Clusters(extent) => extent.first,
        };
        if start == first && attribute.is(kind, name) {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

/// The bytes of an attribute.
pub struct Stream {
    /// How many there are.
    pub len: u64,
    flags: u16,
    body: Body,
}

enum Body {
    Resident(Vec<u8>),
    Clusters {
        kind: u32,
        name: Vec<u8>,
        /// Sorted by their first clusters.
        parts: Vec<(u64, Source)>,
        initialized: u64,
        unit_shift: u8,
    },
}

/// Where the runs of a part are.
enum Source {
    Known(Vec<Run>),
    Record(Reference),
}

impl Stream {
    fn of(attribute: &Attribute<'_>, parts: &[Part]) -> Result<Self> {
        let (len, body) = match attribute.form {
            Form::Resident(value) => (value.len() as u64, Body::Resident(value.to_vec())),
            Form::Clusters(extent) => (extent.len, clusters(attribute, &extent, parts)?),
        };
        if i64::try_from(len).is_err() {
            return Err(super::bad(format!("{len} bytes long")));
        }
        Ok(Self {
            len,
            flags: attribute.flags,
            body,
        })
    }

    /// Returns whether it is encrypted, and so cannot be read.
    pub fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// Returns whether its bytes are stored as they are.
    pub fn is_plain(&self) -> bool {
        self.flags & (COMPRESSION | ENCRYPTED) == 0
    }

    /// Returns all its runs, at most `most`; none if it has more, or its bytes are in a record.
    pub fn all_runs(&self, table: &Table, most: usize) -> Result<Option<Vec<Run>>> {
        let Body::Clusters { parts, .. } = &self.body else {
            return Ok(None);
        };
        let mut all = Vec::new();
        for (first, _) in parts {
            all.extend(self.runs_at(table, *first)?);
            if all.len() > most {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// Reads from `offset`; returns how many bytes were there.
    pub fn read(&self, table: &Table, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if self.is_encrypted() {
            return Err(Error::unsupported("a file that is encrypted (EFS)"));
        }
        let left = self.len.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..len).unwrap_or_default();
        let (initialized, unit_shift) = match &self.body {
            Body::Resident(value) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let there = value.get(start..).and_then(|rest| rest.get(..len));
                buf.copy_from_slice(there.ok_or_else(|| super::bad("too short"))?);
                return Ok(len);
            }
            Body::Clusters {
                initialized,
                unit_shift,
                ..
            } => (*initialized, *unit_shift),
        };
        let written = initialized.saturating_sub(offset);
        let written = usize::try_from(written).unwrap_or(usize::MAX).min(len);
        let (written, never_written) = buf.split_at_mut(written);
        never_written.fill(0);
        match self.flags & COMPRESSION {
            0 => self.read_plain(table, offset, written)?,
            LZNT1 => self.read_packed(table, offset, written, unit_shift)?,
            other => return Err(Error::unsupported(format!("NTFS compression {other}"))),
        }
        Ok(len)
    }

    fn read_plain(&self, table: &Table, offset: u64, buf: &mut [u8]) -> Result<()> {
        let cluster_bytes = table.boot().cluster_bytes;
        let mut runs = Vec::new();
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let cluster = at / cluster_bytes;
            if run_of(&runs, cluster).is_none() {
                runs = self.runs_at(table, cluster)?;
            }
            let run = run_of(&runs, cluster).ok_or_else(|| in_no_run(cluster))?;
            done += read_run(table, run, at, rest)?;
        }
        Ok(())
    }

    fn read_packed(&self, table: &Table, offset: u64, buf: &mut [u8], shift: u8) -> Result<()> {
        let cluster_bytes = table.boot().cluster_bytes;
        let unit_bytes = cluster_bytes
            .checked_shl(u32::from(shift))
            .filter(|bytes| shift > 0 && shift < 16 && *bytes <= MOST_UNIT_BYTES);
        let unit_bytes =
            unit_bytes.ok_or_else(|| super::bad(format!("units of 2^{shift} clusters")))?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let unit = self.unit(table, at / unit_bytes * unit_bytes, unit_bytes)?;
            let skip = usize::try_from(at % unit_bytes).unwrap_or_default();
            let there = unit.get(skip..).unwrap_or_default();
            let len = there.len().min(rest.len());
            let (rest, there) = (rest.get_mut(..len), there.get(..len));
            rest.unwrap_or_default()
                .copy_from_slice(there.unwrap_or_default());
            done += len.max(1);
        }
        Ok(())
    }

    /// Returns what a unit holds: nothing if it has no clusters, as it is if it has all of them, else
    /// what its first clusters give when decompressed.
    fn unit(&self, table: &Table, start: u64, unit_bytes: u64) -> Result<Vec<u8>> {
        let cluster_bytes = table.boot().cluster_bytes;
        let len = usize::try_from(unit_bytes).unwrap_or_default();
        let mut bytes = vec![0; len];
        let mut runs = Vec::new();
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = start + done as u64;
            let cluster = at / cluster_bytes;
            if run_of(&runs, cluster).is_none() {
                runs = match self.runs_at(table, cluster) {
                    // The last unit need not be there as a whole.
                    Err(_) if at >= self.len => break,
                    runs => runs?,
                };
            }
            match run_of(&runs, cluster) {
                Some(run) if run.cluster.is_none() => break,
                Some(run) => done += read_run(table, run, at, rest)?,
                None if at >= self.len => break,
                None => return Err(in_no_run(cluster)),
            }
        }
        if done == 0 || done == len {
            return Ok(bytes);
        }
        bytes.truncate(done);
        let place = format!("NTFS compression unit at {start}");
        lznt1::unpack(&bytes, len).ok_or_else(|| Error::corrupt(place, "it is damaged"))
    }

    /// Returns the runs of the part in which a cluster should be.
    fn runs_at(&self, table: &Table, cluster: u64) -> Result<Vec<Run>> {
        let Body::Clusters {
            kind, name, parts, ..
        } = &self.body
        else {
            return Ok(Vec::new());
        };
        let index = parts.partition_point(|(first, _)| *first <= cluster);
        let part = index.checked_sub(1).and_then(|index| parts.get(index));
        match part {
            None => Err(in_no_run(cluster)),
            Some((_, Source::Known(runs))) => Ok(runs.clone()),
            Some((first, Source::Record(reference))) => {
                let record = table.record(*reference)?;
                for attribute in record.attributes() {
                    let attribute = attribute?;
                    if let Form::Clusters(extent) = attribute.form
                        && attribute.kind == *kind
                        && attribute.name == name
                        && extent.first == *first
                    {
                        return runs::decode(extent.runs, extent.first);
                    }
                }
                Err(in_no_run(cluster))
            }
        }
    }
}

fn clusters(attribute: &Attribute<'_>, extent: &Extent<'_>, parts: &[Part]) -> Result<Body> {
    let parts = parts.iter().map(|part| {
        let source = match part.first {
            0 => Source::Known(runs::decode(extent.runs, 0)?),
            _ => Source::Record(part.record),
        };
        Ok((part.first, source))
    });
    Ok(Body::Clusters {
        kind: attribute.kind,
        name: attribute.name.to_vec(),
        parts: parts.collect::<Result<_>>()?,
        initialized: extent.initialized,
        unit_shift: extent.unit_shift,
    })
}

fn place(reference: Reference) -> String {
    format!("NTFS record {}", reference.record())
}

fn in_no_run(cluster: u64) -> Error {
    super::bad(format!("cluster {cluster} of it is in no run"))
}
