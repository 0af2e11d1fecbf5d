//! Services about a server's own hardware, which in a virtual machine only fail or wait.

use super::{Guest, Plan, What};

/// Units, without `.service`.
const AGENTS: &[&str] = &[
    "amsd",
    "dataeng",
    "dsm_om_connsvc",
    "dsm_om_shrsvc",
    "dsm_sa_datamgrd",
    "dsm_sa_eventmgrd",
    "edac",
    "fancontrol",
    "hp-asrd",
    "hp-health",
    "hp-snmp-agents",
    "hpsmhd",
    "ilo-connect",
    "instsvcdrv",
    "ipmi",
    "ipmidetectd",
    "ipmievd",
    "ipmiseld",
    "lm-sensors",
    "lm_sensors",
    "lsi_mrdsnmpd",
    "mcelog",
    "mdmonitor-oneshot",
    "megaraid",
    "MegaSNMP",
    "openipmi",
    "rasdaemon",
    "smad",
    "smartd",
    "smartmontools",
    "srvadmin",
    "thermald",
    "tlp",
    "vivaldiframeworkd",
];

const UNITS: &[&str] = &["/usr/lib/systemd/system", "/lib/systemd/system"];
const OWN: &str = "/etc/systemd/system";

/// Adds a mask for each of them that the guest has.
pub(super) fn add(guest: &Guest<'_>, plan: &mut Plan) {
    let has = |path: &str| guest.tree().find_no_follow(path.as_bytes()).is_ok();
    let mut masked = 0;
    for agent in AGENTS {
        let unit = format!("{agent}.service");
        let is_there = UNITS.iter().any(|folder| has(&format!("{folder}/{unit}")));
        let own = format!("{OWN}/{unit}");
        match (is_there, has(&own)) {
            (true, false) => {
                let target = "/dev/null".to_owned();
                let why = "it is about the hardware of a server";
                plan.add(own, What::Link { target }, why);
                masked += 1;
            }
            (true, true) => {
                let path = guest.tree().find_no_follow(own.as_bytes());
                let target = path.and_then(|link| link.read_link());
                if target.is_ok_and(|target| target == b"/dev/null") {
                    continue;
                }
                plan.remarks
                    .push(format!("{own} is the guest's own, and stays"));
            }
            _ => {}
        }
    }
    if masked == 0 && !has(OWN) {
        let what = "services are not masked: the guest has no systemd";
        plan.remarks.push(what.into());
    }
}
