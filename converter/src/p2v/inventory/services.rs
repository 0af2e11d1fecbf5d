//! Services that want care when their machine is moved, by the units that start them and by the
//! processes that run.

use hako_guest::Tree;

use super::model::{Service, ServiceKind};
use super::system::{names, text};

/// What is known of a service: the beginning of its unit's or process's name, what it is called, what
/// it is to a move.
type Known = (&'static str, &'static str, ServiceKind);

/// Services that want care.
const SERVICES: &[Known] = &[
    ("postgres", "postgresql", ServiceKind::Database),
    ("mysql", "mysql", ServiceKind::Database),
    ("mariadb", "mariadb", ServiceKind::Database),
    ("mongod", "mongodb", ServiceKind::Database),
    ("oracle", "oracle", ServiceKind::Database),
    ("ora_pmon", "oracle", ServiceKind::Database),
    ("db2sysc", "db2", ServiceKind::Database),
    ("sqlservr", "mssql", ServiceKind::Database),
    ("mssql-server", "mssql", ServiceKind::Database),
    ("redis", "redis", ServiceKind::Database),
    ("cassandra", "cassandra", ServiceKind::Database),
    ("elasticsearch", "elasticsearch", ServiceKind::Database),
    ("slapd", "openldap", ServiceKind::Database),
    ("java", "java", ServiceKind::Heap),
    ("tomcat", "tomcat", ServiceKind::Heap),
    ("corosync", "corosync", ServiceKind::Cluster),
    ("pacemaker", "pacemaker", ServiceKind::Cluster),
    ("keepalived", "keepalived", ServiceKind::Cluster),
    ("drbd", "drbd", ServiceKind::Cluster),
    ("nfs-server", "nfs-server", ServiceKind::Storage),
    ("nfsd", "nfs-server", ServiceKind::Storage),
    ("smbd", "samba", ServiceKind::Storage),
    ("ceph-osd", "ceph", ServiceKind::Storage),
    ("iscsid", "iscsi-initiator", ServiceKind::Storage),
    ("tgtd", "iscsi-target", ServiceKind::Storage),
    ("libvirtd", "libvirt", ServiceKind::Virtualization),
    ("dockerd", "docker", ServiceKind::Virtualization),
    ("docker.", "docker", ServiceKind::Virtualization),
    ("containerd", "containerd", ServiceKind::Virtualization),
    ("kubelet", "kubelet", ServiceKind::Virtualization),
    ("pvedaemon", "proxmox", ServiceKind::Virtualization),
    ("dsm_sa", "dell-openmanage", ServiceKind::HardwareAgent),
    ("dsm-", "dell-openmanage", ServiceKind::HardwareAgent),
    ("dataeng", "dell-openmanage", ServiceKind::HardwareAgent),
    ("hp-", "hp-agents", ServiceKind::HardwareAgent),
    ("hpasmlited", "hp-agents", ServiceKind::HardwareAgent),
    ("amsd", "hpe-ams", ServiceKind::HardwareAgent),
    ("smartd", "smartd", ServiceKind::HardwareAgent),
    ("smartmontools", "smartd", ServiceKind::HardwareAgent),
    ("ipmievd", "ipmi", ServiceKind::HardwareAgent),
    ("ipmi", "ipmi", ServiceKind::HardwareAgent),
    ("mcelog", "mcelog", ServiceKind::HardwareAgent),
    ("rasdaemon", "rasdaemon", ServiceKind::HardwareAgent),
    ("lm-sensors", "lm-sensors", ServiceKind::HardwareAgent),
    ("lm_sensors", "lm-sensors", ServiceKind::HardwareAgent),
    ("mdmonitor", "mdmonitor", ServiceKind::HardwareAgent),
    ("watchdog", "watchdog", ServiceKind::HardwareAgent),
    ("vmtoolsd", "open-vm-tools", ServiceKind::GuestAgent),
    ("open-vm-tools", "open-vm-tools", ServiceKind::GuestAgent),
    ("qemu-ga", "qemu-guest-agent", ServiceKind::GuestAgent),
    (
        "qemu-guest-agent",
        "qemu-guest-agent",
        ServiceKind::GuestAgent,
    ),
    ("VBoxService", "virtualbox-guest", ServiceKind::GuestAgent),
    ("hypervkvpd", "hyperv-daemons", ServiceKind::GuestAgent),
    ("xe-daemon", "xe-guest-utilities", ServiceKind::GuestAgent),
];

/// Returns the service that a name is of.
fn service_named(name: &str) -> Option<(&'static str, ServiceKind)> {
    let mut services = SERVICES.iter();
    let found = services.find(|(begin, ..)| name.starts_with(begin));
    found.map(|(_, name, kind)| (*name, *kind))
}

/// Returns the services whose units are started at boot, each once.
pub(super) fn installed(tree: &Tree) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let folders = [
        "/etc/systemd/system/multi-user.target.wants",
        "/etc/systemd/system/default.target.wants",
        "/etc/systemd/system/basic.target.wants",
        "/etc/systemd/system/sysinit.target.wants",
        "/etc/rc3.d",
        "/etc/rc.d/rc3.d",
        "/etc/runlevels/default",
    ];
    for folder in folders {
        for unit in names(tree, folder) {
            // S20name of System V.
            let plain = unit.trim_start_matches(|c: char| c == 'S' || c.is_ascii_digit());
            let found = service_named(&unit).or_else(|| service_named(plain));
            if let Some((name, kind)) = found
                && !services.iter().any(|known| known.name == name)
            {
                services.push(Service {
                    name: name.to_owned(),
                    kind,
                    is_running: None,
                    reserved_bytes: buffers(tree, name),
                    found_by: format!("{folder}/{unit}"),
                });
            }
        }
    }
    services
}

/// Processes that are looked at.
const MOST_PROCESSES: usize = 100_000;

/// Returns the services that run by their processes, then those that are started at boot and do not.
pub(super) fn running(tree: &Tree) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    for process in names(tree, "/proc")
        .into_iter()
        .filter(is_number)
        .take(MOST_PROCESSES)
    {
        let command = text(tree, &format!("/proc/{process}/cmdline"));
        let words: Vec<&str> = command.split('\0').collect();
        let program = words
            .first()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default();
        // What runs in the kernel has no command line.
        let program = program.split([':', ' ']).next().unwrap_or_default();
        let Some((name, kind)) = service_named(program) else {
            continue;
        };
        let heap = words
            .iter()
            .filter_map(|word| size(word.strip_prefix("-Xmx")?))
            .next_back();
        match services.iter_mut().find(|known| known.name == name) {
            // Each Java machine has its own.
            Some(known) => known.reserved_bytes = sum(known.reserved_bytes, heap),
            None => services.push(Service {
                name: name.to_owned(),
                kind,
                is_running: Some(true),
                reserved_bytes: heap,
                found_by: format!("process {program}"),
            }),
        }
    }
    for mut service in installed(tree) {
        match services.iter_mut().find(|known| known.name == service.name) {
            Some(known) => known.reserved_bytes = known.reserved_bytes.or(service.reserved_bytes),
            None => {
                service.is_running = Some(false);
                services.push(service);
            }
        }
    }
    services
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

/// Reads `512m`, `8G`, `128MB`, `1073741824`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().trim_matches(['\'', '"']);
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Files with a setting of a database's buffers: its name, folders to look in (`*` is any name), the
/// setting.
const BUFFERS: &[(&str, &[&str], &str)] = &[
    (
        "postgresql",
        &[
            "/etc/postgresql/*/*/postgresql.conf",
            "/var/lib/pgsql/data/postgresql.conf",
            "/var/lib/pgsql/*/data/postgresql.conf",
        ],
        "shared_buffers",
    ),
    (
        "mysql",
        &[
            "/etc/my.cnf",
            "/etc/my.cnf.d/*",
            "/etc/mysql/my.cnf",
            "/etc/mysql/conf.d/*",
            "/etc/mysql/mysql.conf.d/*",
            "/etc/mysql/mariadb.conf.d/*",
        ],
        "innodb_buffer_pool_size",
    ),
];

/// Returns the memory that a database is told to take for its buffers.
fn buffers(tree: &Tree, service: &str) -> Option<u64> {
    let (_, patterns, setting) = BUFFERS.iter().find(|(name, ..)| *name == service)?;
    let files = patterns.iter().flat_map(|pattern| matching(tree, pattern));
    let sizes = files.filter_map(|file| {
        let text = text(tree, &file);
        let mut values = text.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = value.split('#').next().unwrap_or_default();
            (key.trim().replace('-', "_") == *setting)
                .then(|| size(value))
                .flatten()
        });
        values.next_back()
    });
    sizes.max()
}

/// Returns the paths that a pattern means, in which a `*` stands for a whole name.
fn matching(tree: &Tree, pattern: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let below = |path: &String| match part {
            "*" => names(tree, path)
                .into_iter()
                .map(|name| format!("{path}/{name}"))
                .collect(),
            name => vec![format!("{path}/{name}")],
        };
        paths = paths.iter().flat_map(below).take(MOST_FILES).collect();
    }
    paths
}

/// Files that a pattern may mean.
const MOST_FILES: usize = 1000;

#[cfg(test)]
mod tests {
    use hako_guest::testkit::MemoryFs;

    use super::*;

    #[test]
    fn services_tell_what_memory_they_take() {
        let fs = MemoryFs::new("ext4")
            .link(
                "/etc/systemd/system/multi-user.target.wants/postgresql.service",
                "/lib/x",
            )
            .link(
                "/etc/systemd/system/multi-user.target.wants/smartmontools.service",
                "/lib/x",
            )
            .file("/etc/rc3.d/S02mysql", "")
            .file(
                "/etc/postgresql/15/main/postgresql.conf",
                "#shared_buffers = 9GB\nshared_buffers = 128MB # x\n",
            )
            .file(
                "/etc/mysql/conf.d/a.cnf",
                "[mysqld]\ninnodb-buffer-pool-size = 2G\n",
            )
            .file("/proc/7/cmdline", "/usr/bin/java\0-Xmx512m\0-Xmx1g\0")
            .file("/proc/8/cmdline", "java\0-Xmx1g\0")
            .file("/proc/9/cmdline", "postgres: writer\0");
        let tree = Tree::new(fs.build());
        let of = |all: &[Service], name: &str| {
            let found = all.iter().find(|one| one.name == name).unwrap();
            (found.is_running, found.reserved_bytes)
        };
        let installed = installed(&tree);
        assert_eq!(of(&installed, "postgresql"), (None, Some(128 << 20)));
        assert_eq!(of(&installed, "mysql"), (None, Some(2 << 30)));
        assert_eq!(of(&installed, "smartd"), (None, None));
        let running = running(&tree);
        assert_eq!(of(&running, "java"), (Some(true), Some(2 << 30)));
        assert_eq!(of(&running, "postgresql"), (Some(true), Some(128 << 20)));
        assert_eq!(of(&running, "mysql").0, Some(false));
        assert_eq!(size("1PB"), None);
        assert_eq!(size("99999999999T"), None);
    }
}
