//! How large a machine becomes.

use super::super::model::Confidence;
use super::*;

#[test]
fn what_was_measured_becomes_the_size() {
    let inventory = server();
    // 10 % of 32 processors: 3.2 / 0.65 = 4.9, hence 6. 13 GiB / 0.65 = 20 GiB.
    let recordings = vec![recording(1008, 10.0, 13 << 20)];
    let plan = plan(&inventory, recordings, &request(Target::Vmware)).unwrap();
    assert_eq!(
        (plan.cpu.count, plan.cpu.as_is, plan.cpu.measured),
        (6, Some(32), Some(6))
    );
    assert_eq!(
        (plan.memory.mib, plan.memory.as_is_mib),
        (20480, Some(65536))
    );
    let history = plan.history.unwrap();
    assert_eq!(
        (history.samples, history.confidence),
        (1008, Confidence::High)
    );
    assert_eq!(history.coverage_percent, 100.0);
    assert_eq!(history.to - history.from, 1008 * 600);
    assert_eq!(history.recordings, ["sysstat of web01, sa.json"]);
    for (n, confidence) in [(144, Confidence::Medium), (100, Confidence::Low)] {
        let recordings = vec![recording(n, 10.0, 1 << 20)];
        let plan = plan_of(&inventory, recordings, &request(Target::Vmware)).unwrap();
        assert_eq!(plan.history.unwrap().confidence, confidence);
    }
}

#[test]
fn a_database_keeps_its_buffers() {
    let mut inventory = server();
    let service = |kind, running, bytes| inv::Service {
        kind,
        is_running: running,
        reserved_bytes: Some(bytes),
        ..inv::Service::default()
    };
    inventory.services = vec![
        service(inv::ServiceKind::Database, Some(true), 16 << 30),
        service(inv::ServiceKind::Heap, None, 8 << 30),
        service(inv::ServiceKind::Database, Some(false), 99 << 30),
        service(inv::ServiceKind::HardwareAgent, Some(true), 99 << 30),
    ];
    let recordings = vec![recording(1008, 1.0, 1 << 20)];
    let plan = plan(&inventory, recordings, &request(Target::Vmware)).unwrap();
    assert_eq!((plan.cpu.count, plan.memory.mib), (1, 24 * 1024 + 512));
}

#[test]
fn sizes_follow_what_was_asked_for() {
    let inventory = server();
    let sized = |size, recorded: bool| {
        let recordings = match recorded {
            true => vec![recording(1008, 10.0, 13 << 20)],
            false => Vec::new(),
        };
        let request = PlanRequest {
            size,
            ..request(Target::Vmware)
        };
        let plan = plan(&inventory, recordings, &request).unwrap();
        (plan.cpu.count, plan.memory.mib)
    };
    let said = |cpus, memory_mib| Size::Said { cpus, memory_mib };
    assert_eq!(sized(Size::AsIs, true), (32, 65536));
    assert_eq!(sized(Size::Measured, false), (32, 65536));
    assert_eq!(sized(said(Some(3), Some(1024)), true), (3, 1024));
    assert_eq!(sized(said(Some(3), None), true), (3, 20480));
    assert_eq!(sized(said(None, Some(1024)), true), (6, 1024));
    let plan = planned(&inventory);
    assert_eq!(codes(&plan), ["nothing-measured"]);
    // 32 processors are in two sockets, as the server's.
    assert_eq!(plan.cpu.cores_per_socket, 16);
}

#[test]
fn a_server_of_unknown_size_is_a_blocker_until_it_is_said() {
    let mut inventory = server();
    inventory.cpu = inv::Cpu::default();
    inventory.memory = inv::Memory::default();
    inventory.machine = inv::Machine::default();
    let plan = planned(&inventory);
    assert_eq!(plan.blockers().len(), 2);
    let request = PlanRequest {
        size: Size::Said {
            cpus: Some(2),
            memory_mib: Some(2048),
        },
        ..request(Target::Vmware)
    };
    let said = plan_of(&inventory, Vec::new(), &request).unwrap();
    assert_eq!(said.blockers(), Vec::<&model::Finding>::new());
    // Recordings know it, too.
    let recordings = vec![recording(9, 10.0, 13 << 20)];
    let request = super::request(Target::Vmware);
    let recorded = plan_of(&inventory, recordings, &request).unwrap();
    assert_eq!(recorded.cpu.as_is, Some(32));
    assert!(recorded.blockers().is_empty());
}

#[test]
fn recordings_of_another_machine_are_told() {
    let mut inventory = server();
    inventory.hostname = "db01".to_owned();
    inventory.cpu.threads = 8;
    let recordings = vec![recording(9, 1.0, 1 << 20)];
    let plan = plan(&inventory, recordings, &request(Target::Vmware)).unwrap();
    assert!(
        codes(&plan).starts_with(&["other-host", "other-processors"]),
        "{:?}",
        codes(&plan)
    );
}
