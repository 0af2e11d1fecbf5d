//! Listens to the first frames of a guest's network cards, for the addresses that it uses: QEMU's
//! filter-dump writes them into a pipe (in pcap's form) until we have heard enough and hang up.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use hako_block::{Error, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::super::addresses::{FRAME_BYTES, address_in};
use super::super::{Event, Events};

/// The head of a pcap file and that of each frame in it, with its stored length third.
const FILE_HEAD: usize = 24;
const FRAME_HEAD: usize = 16;
/// A pcap file of this machine's byte order begins so.
const MAGIC: [u8; 4] = 0xa1b2_c3d4_u32.to_ne_bytes();

/// A card to be listened to.
pub(super) struct Listener {
    /// Its name in the VMX ("ethernet0").
    node: String,
    mac: [u8; 6],
    pipe: File,
}

impl Listener {
    /// Makes the pipe at `path`, from which the frames of the card `node` will come.
    pub fn new(node: String, mac: [u8; 6], path: &Path) -> Result<Self> {
        let failed = |error: rustix::io::Errno| Error::io("make a pipe", error).in_file(path);
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(failed)?;
        // Opened before QEMU does, who would wait for a reader; and nobody waits for QEMU here.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        rustix::fs::fcntl_setfl(&pipe, OFlags::empty()).map_err(failed)?;
        Ok(Self {
            node,
            mac,
            pipe: pipe.into(),
        })
    }

    /// Listens in a thread of its own, which ends with QEMU or when an address of either kind was
    /// heard. To be called once QEMU has opened the pipe: till then there is nobody to wait for.
    pub fn listen(self, events: Events) -> Result<()> {
        let name = format!("hear-{}", self.node);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                // Without addresses the machine runs as well.
                let _ = self.hear(&events);
            })
            .map(drop)
            .map_err(|error| Error::io("start a thread", error))
    }

    fn hear(mut self, events: &Events) -> std::io::Result<()> {
        let mut head = [0; FILE_HEAD];
        self.pipe.read_exact(&mut head)?;
        if head.first_chunk() != Some(&MAGIC) {
            return Ok(());
        }
        let mut known = BTreeSet::new();
        while !known.iter().any(std::net::IpAddr::is_ipv4) {
            let frame = self.frame()?;
            let Some(address) = address_in(&frame, self.mac) else {
                continue;
            };
            if known.len() < 8 && known.insert(address) {
                events.send(Event::Address {
                    node: self.node.clone(),
                    address,
                });
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> std::io::Result<Vec<u8>> {
        let mut head = [0; FRAME_HEAD];
        self.pipe.read_exact(&mut head)?;
        let len = head.get(8..).and_then(|rest| rest.first_chunk()).copied();
        let len = u32::from_ne_bytes(len.unwrap_or_default());
        if len as usize > FRAME_BYTES {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; len as usize];
        self.pipe.read_exact(&mut frame)?;
        Ok(frame)
    }
}

/// Returns where the frames of a card come from.
pub(super) fn pipe_of(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("{node}.pcap"))
}
