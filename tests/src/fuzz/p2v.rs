//! What P2V reads besides disks: recordings of what a server used, and plans that people edit.

use std::sync::Arc;

use hako_block::{Crc32c, MemoryStorage};
use hako_converter::p2v::inventory::model::Inventory;
use hako_converter::p2v::plan::history::from_text;
use hako_converter::p2v::plan::model::Target;
use hako_converter::p2v::plan::{PlanRequest, Size, check, from_toml, plan, to_json, to_toml};
use hako_converter::p2v::sample::{Ring, Sample};

/// A text of sysstat, atop or collectl: what it says makes a plan that reads back.
pub fn p2v_recording(bytes: &[u8]) {
    let Ok(recording) = from_text(bytes) else {
        return;
    };
    let request = PlanRequest {
        name: None,
        target: Target::Vmware,
        size: Size::Measured,
        keep_mirrors: false,
        networks: Vec::new(),
    };
    let recordings = vec![("recording".to_owned(), recording)];
    let plan = plan(&Inventory::default(), recordings, &request).expect("an inventory of nothing");
    let again = from_toml(&to_toml(&plan)).expect("our own text is read");
    assert_eq!(plan, again);
}

/// A ring file of samples. Checksums are made right, or nothing behind them would ever be looked at.
pub fn p2v_samples(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for slot in bytes
        .get_mut(4096..)
        .unwrap_or_default()
        .chunks_exact_mut(512)
    {
        let crc = checksum(&slot[4..]);
        slot[..4].copy_from_slice(&crc.to_le_bytes());
        let _ = Sample::decode(slot);
    }
    if let Ok(ring) = Ring::open(Arc::new(MemoryStorage::new("ring", bytes))) {
        ring.samples().for_each(|sample| {
            sample.expect("it is in memory");
        });
    }
}

/// A plan.
pub fn p2v_plan(bytes: &[u8]) {
    let Ok(mut plan) = from_toml(&String::from_utf8_lossy(bytes)) else {
        return;
    };
    let _ = check(&mut plan, Some(&Inventory::default()));
    let _ = (plan.blockers().len(), to_toml(&plan), to_json(&plan));
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.value()
}
