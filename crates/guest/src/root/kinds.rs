//! Where the files are of what is mounted, by the kind of its file system.

/// Where the files of a file system are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On disks of the machine, as far as is known.
    Disk,
    /// Nowhere: the kernel makes them, or shows those of others.
    Kernel,
    /// On another machine, or on the host of a virtual one.
    Network,
}

/// Kinds that the kernel makes, see /proc/filesystems (`nodev`).
const OF_KERNEL: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cpuset",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "usbfs",
];

/// Kinds whose files are elsewhere.
const OF_NETWORK: &[&str] = &[
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "fuse.vmhgfs-fuse",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
    "vmhgfs",
];

impl Place {
    /// Returns that of a kind, as fstab and /proc/self/mountinfo call it.
    pub fn of(kind: &str) -> Self {
        match () {
            () if OF_KERNEL.contains(&kind) => Self::Kernel,
            () if OF_NETWORK.contains(&kind) => Self::Network,
            () => Self::Disk,
        }
    }
}
