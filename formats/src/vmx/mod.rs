//! VMX, the text that describes a VMware virtual machine: what its keys mean, and changes of what
//! they mean, over the lossless text of [`Dictionary`].
//!
//! VMware has published no specification. The keys and their defaults are those that VMware's
//! products write, and that libvirt (`src/vmx/vmx.c`), virt-v2v and Packer read and write. What is
//! not read here stays in the text.

mod create;
mod drives;
mod nics;
mod read;
mod settings;
#[cfg(test)]
mod tests;

use hako_block::{Error, Result};

use crate::dictionary::Dictionary;
use crate::machine::Machine;
use read::Reader;

pub use create::{DEFAULT_GUEST_OS, DEFAULT_HARDWARE_VERSION};

/// A VMX.
#[derive(Debug, Clone)]
pub struct Vmx {
    dictionary: Dictionary,
    oddities: Vec<String>,
}

/// How much of a VMX is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing.
    None,
    /// The secrets of a virtual TPM; disks and hardware are plain.
    Partial,
    /// Everything but the name: the hardware is not known.
    Full,
}

impl Vmx {
    /// Reads a VMX. Errors: those of [`Dictionary::parse`], and
    /// [`hako_block::ErrorKind::Corrupt`] for a text without any key.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let dictionary = Dictionary::parse(bytes)?;
        if dictionary.entries().next().is_none() {
            return Err(Error::corrupt("VMX", "no line has a key and a value"));
        }
        let mut vmx = Self {
            oddities: dictionary.oddities().to_vec(),
            dictionary,
        };
        vmx.oddities.extend(read::machine(&vmx.dictionary).1);
        if vmx.encryption() == Encryption::Full {
            let what = "the configuration is encrypted: what the machine is made of is not known";
            vmx.oddities.push(what.to_owned());
        }
        Ok(vmx)
    }

    /// Returns the text: byte for byte what was read, but for what was changed.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.dictionary.to_bytes()
    }

    /// Returns the keys and values.
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// Returns what the machine is made of. What the text does not say is VMware's default: one
    /// processor, 32 MiB, BIOS.
    pub fn machine(&self) -> Machine {
        read::machine(&self.dictionary).0
    }

    /// Returns what was odd about the text when it was read, one sentence each.
    pub fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// Returns how much of the text is encrypted.
    pub fn encryption(&self) -> Encryption {
        let has = |key: &str| self.dictionary.value(key).is_some();
        let says_partial = ["encryption.type", "vmx.encryptionType"].iter().any(|key| {
            let value = self.dictionary.value(key);
            value.is_some_and(|value| value.trim().eq_ignore_ascii_case("partial"))
        });
        if !["data", "keySafe", "bundle"]
            .iter()
            .any(|key| has(&format!("encryption.{key}")))
        {
            Encryption::None
        } else if says_partial {
            Encryption::Partial
        } else {
            Encryption::Full
        }
    }

    /// Returns the file that holds the firmware's settings (`nvram`), as the text names it.
    pub fn nvram(&self) -> Option<String> {
        self.named_file("nvram")
    }

    /// Returns the file of further settings (`extendedConfigFile`, .vmxf), as the text names it.
    pub fn extended_config(&self) -> Option<String> {
        self.named_file("extendedConfigFile")
    }

    /// Returns the file that holds the state of a suspended machine (`checkpoint.vmState`, .vmss),
    /// as the text names it.
    pub fn suspended(&self) -> Option<String> {
        self.named_file("checkpoint.vmState")
    }

    fn named_file(&self, key: &str) -> Option<String> {
        let value = Reader::new(&self.dictionary).value(key);
        value.filter(|file| !file.is_empty())
    }

    /// Gives a key a value, whatever it means. Errors: those of [`Dictionary::set`], and
    /// [`hako_block::ErrorKind::Unsupported`] for what encryption does not let change.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.refuse_encrypted(key)?;
        self.dictionary.set(key, value)
    }

    /// Removes a key, whatever it means, and returns whether it was there. Errors:
    /// [`hako_block::ErrorKind::Unsupported`] for what encryption does not let change.
    pub fn remove(&mut self, key: &str) -> Result<bool> {
        self.refuse_encrypted(key)?;
        Ok(self.dictionary.remove(key))
    }

    /// Refuses a change of a key that would make encrypted content useless or untrue.
    fn refuse_encrypted(&self, key: &str) -> Result<()> {
        const SECRET: [&str; 4] = ["encryption.", "vtpm.", "vmx.encryptiontype", "cryptedvm."];
        let key = key.to_ascii_lowercase();
        let is_secret = SECRET.iter().any(|secret| key.starts_with(secret));
        match self.encryption() {
            Encryption::None => Ok(()),
            Encryption::Partial if !is_secret => Ok(()),
            Encryption::Partial => Err(Error::unsupported(format!(
                "{key} belongs to what is encrypted in this VMX"
            ))
            .hint("change it with the product that encrypted it")),
            Encryption::Full => Err(Error::unsupported("the VMX is encrypted")
                .hint("remove the encryption with the product that encrypted it")),
        }
    }

    /// Makes several changes of the text, all or none.
    fn edit(&mut self, change: impl FnOnce(&mut Dictionary) -> Result<()>) -> Result<()> {
        self.refuse_encrypted("")?;
        let mut dictionary = self.dictionary.clone();
        change(&mut dictionary)?;
        self.dictionary = dictionary;
        Ok(())
    }
}

/// Returns VMware's word for a truth.
fn truth(is_true: bool) -> &'static str {
    if is_true { "TRUE" } else { "FALSE" }
}

/// Gives a key a value, but adds no line to say what goes without saying.
fn put(dictionary: &mut Dictionary, key: &str, value: &str, default: &str) -> Result<()> {
    if value == default && dictionary.value(key).is_none() {
        return Ok(());
    }
    dictionary.set(key, value)
}

/// Gives a key a value, or removes it.
fn put_or_remove(dictionary: &mut Dictionary, key: &str, value: Option<&str>) -> Result<()> {
    match value {
        Some(value) => dictionary.set(key, value),
        None => {
            dictionary.remove(key);
            Ok(())
        }
    }
}
