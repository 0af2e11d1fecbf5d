//! What the witness in a guest has said.

/// What a guest is like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Testimony {
    /// What systemd says of all of it: `running`, `degraded`, `maintenance`.
    pub state: String,
    /// The kernel's version.
    pub kernel: String,
    /// Units that failed.
    pub failed: Vec<String>,
    /// Units at which somebody can log in.
    pub logins: Vec<String>,
    /// What is mounted.
    pub mounts: Vec<Mounted>,
    /// What is swapped to: `partition` or `file`, and which.
    pub swaps: Vec<(String, String)>,
    /// Devices by the UUIDs of what is in them.
    pub uuids: Vec<(String, String)>,
    /// Its network interfaces.
    pub links: Vec<Link>,
    /// Addresses with the lengths of their networks, by interface.
    pub addresses: Vec<(String, String)>,
}

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mounted {
    /// Where.
    pub path: String,
    /// Its kind.
    pub kind: String,
    /// The device, links followed.
    pub device: String,
    /// How.
    pub options: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// Its driver; empty if it is made of software.
    pub driver: String,
}

impl Testimony {
    /// Returns what was said between the marks with this nonce; none if that is not all there.
    pub fn read(heard: &[u8], nonce: &str) -> Option<Self> {
        let text = String::from_utf8_lossy(heard).replace('\r', "");
        let (_, rest) = text.split_once(&format!("HAKO-{nonce} begin\n"))?;
        let (said, _) = rest.split_once(&format!("HAKO-{nonce} end\n"))?;
        let mut testimony = Self::default();
        for line in said.lines() {
            testimony.add(line);
        }
        Some(testimony)
    }

    fn add(&mut self, line: &str) {
        let Some((what, rest)) = line.split_once(' ') else {
            return;
        };
        let mut words = rest.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        match what {
            "state" => self.state = rest.to_owned(),
            "kernel" => self.kernel = rest.to_owned(),
            "failed" => self.failed.push(word()),
            "login" => self.logins.push(word()),
            "mount" => {
                // What comes last covers what was there.
                let mounted = Mounted {
                    path: unescaped(&word()),
                    kind: word(),
                    device: word(),
                    options: word(),
                };
                self.mounts.retain(|known| known.path != mounted.path);
                self.mounts.push(mounted);
            }
            "swap" => self.swaps.push((word(), word())),
            "uuid" => self.uuids.push((word(), word())),
            "nic" => self.links.push(Link {
                name: word(),
                mac: word().to_lowercase(),
                driver: word(),
            }),
            "address" => self.addresses.push((word(), word())),
            _ => {}
        }
    }

    /// Returns the identity of what is in a device.
    pub fn uuid_of(&self, device: &str) -> Option<&str> {
        let mut uuids = self.uuids.iter();
        uuids
            .find(|(_, of)| of == device)
            .map(|(uuid, _)| uuid.as_str())
    }
}

/// The kernel writes odd letters of paths as octal numbers (proc_pid_mounts(5)).
fn unescaped(path: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (code, letter)| {
        path.replace(code, letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_between_the_marks_is_read() {
        let said = "HAKO-m begin\nstate no\nHAKO-n begin\r\nstate degraded\nfailed a.service\n\
                    mount /mnt/a\\040b ext4 /dev/dm-0 rw,relatime\nuuid 12-34 /dev/dm-0\n\
                    mount / rootfs none rw\nmount / xfs /dev/sda2 rw\nswap partition /dev/dm-1\n\
                    nic ens192 00:50:56:AA:BB:CC vmxnet3\naddress ens192 192.0.2.5/24\nodd\n\
                    HAKO-n end\n";
        let heard = Testimony::read(said.as_bytes(), "n").unwrap();
        assert_eq!(heard.state, "degraded");
        assert_eq!(heard.failed, ["a.service"]);
        assert_eq!(heard.mounts[0].path, "/mnt/a b");
        assert_eq!(heard.mounts[1].kind, "xfs");
        assert_eq!(heard.uuid_of("/dev/dm-0"), Some("12-34"));
        assert_eq!(heard.links[0].mac, "00:50:56:aa:bb:cc");
        assert_eq!(heard.addresses, [("ens192".into(), "192.0.2.5/24".into())]);
        for nothing in ["", "HAKO-n begin\nstate running\n", "state x\nHAKO-n end\n"] {
            assert_eq!(Testimony::read(nothing.as_bytes(), "n"), None, "{nothing}");
        }
    }
}
