//! `hako vm import` of a package that leaves choices: systems, sizes, properties, licences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Run, World};
use serde_json::Value;

/// A home, and `both.ovf` with two systems, each with an empty disk.
struct Vms(World);

impl Vms {
    fn new() -> Self {
        let world = World::new();
        world.write("both.ovf", envelope().as_bytes());
        Self(world)
    }

    fn import(&self, words: &[&str]) -> Run {
        let mut command = self.0.command();
        command.args(["vm", "import", "both.ovf"]).args(words);
        command.output().unwrap().into()
    }

    fn fails(&self, words: &[&str], text: &str) {
        let run = self.import(words);
        assert_eq!(run.code, 2, "{words:?}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words:?}: {}", run.stderr);
        assert!(!self.0.path("home/vms").join("web").exists(), "{words:?}");
    }

    fn info(&self, name: &str) -> Value {
        let mut command = self.0.command();
        let output = command.args(["--json", "vm", "info", name]).output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    }
}

fn envelope() -> String {
    let systems = [system("web", "${size}"), system("db", "")].concat();
    format!(
        r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References/>
  <DiskSection><Info>disks</Info>
    <Disk ovf:diskId="web" ovf:capacity="${{size}}" ovf:capacityAllocationUnits="byte * 2^20"/>
    <Disk ovf:diskId="db" ovf:capacity="3" ovf:capacityAllocationUnits="MegaBytes"/>
  </DiskSection>
  <NetworkSection><Info>networks</Info>
    <Network ovf:name="LAN"><Description>inside</Description></Network>
  </NetworkSection>
  <DeploymentOptionSection><Info>sizes</Info>
    <Configuration ovf:id="small" ovf:default="true">
      <Label>Small</Label><Description>for a few</Description></Configuration>
    <Configuration ovf:id="large"><Label>Large</Label><Description>for many</Description></Configuration>
  </DeploymentOptionSection>
  <VirtualSystemCollection ovf:id="both"><Info>two machines</Info>
    {systems}
  </VirtualSystemCollection>
</Envelope>
"#
    )
}

fn system(id: &str, property: &str) -> String {
    let product = match property {
        "" => "",
        _ => {
            r#"<ProductSection><Info>product</Info>
        <Property ovf:key="size" ovf:type="uint32" ovf:userConfigurable="true" ovf:value="5">
          <Label>Size of the disk</Label></Property>
      </ProductSection>
      <EulaSection><Info>licence</Info><License>be kind</License></EulaSection>"#
        }
    };
    let item = |attributes: &str, parts: &[(&str, &str)]| {
        let parts: String = parts
            .iter()
            .map(|(name, value)| format!("<rasd:{name}>{value}</rasd:{name}>"))
            .collect();
        format!("<Item{attributes}>{parts}</Item>")
    };
    let memory = |attributes: &str, mebibytes: &str| {
        let parts = [
            ("AllocationUnits", "byte * 2^20"),
            ("ElementName", "memory"),
            ("InstanceID", "2"),
            ("ResourceType", "4"),
            ("VirtualQuantity", mebibytes),
        ];
        item(attributes, &parts)
    };
    let disk = format!("ovf:/disk/{id}");
    let items = [
        item(
            "",
            &[
                ("ElementName", "cpus"),
                ("InstanceID", "1"),
                ("ResourceType", "3"),
                ("VirtualQuantity", "2"),
            ],
        ),
        memory("", "512"),
        memory(" ovf:configuration=\"large\"", "2048"),
        item(
            "",
            &[
                ("Address", "0"),
                ("ElementName", "scsi"),
                ("InstanceID", "3"),
                ("ResourceSubType", "lsilogic"),
                ("ResourceType", "6"),
            ],
        ),
        item(
            "",
            &[
                ("AddressOnParent", "0"),
                ("ElementName", "disk"),
                ("HostResource", &disk),
                ("InstanceID", "4"),
                ("Parent", "3"),
                ("ResourceType", "17"),
            ],
        ),
        item(
            "",
            &[
                ("AutomaticAllocation", "true"),
                ("Connection", "LAN"),
                ("ElementName", "card"),
                ("InstanceID", "5"),
                ("ResourceSubType", "E1000"),
                ("ResourceType", "10"),
            ],
        ),
    ]
    .concat();
    format!(
        r#"<VirtualSystem ovf:id="{id}"><Info>{id}</Info><Name>{id}</Name>
      {product}
      <VirtualHardwareSection><Info>hardware</Info>
        <System><vssd:ElementName>family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
          <vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType></System>
        {items}
      </VirtualHardwareSection>
    </VirtualSystem>
"#
    )
}

#[test]
fn what_a_package_leaves_to_choose_is_asked_for_and_taken() {
    let vms = Vms::new();
    vms.fails(&["--accept-eula"], "--system");
    vms.fails(&["--accept-eula", "--system", "mail"], "mail");
    vms.fails(&["--system", "web"], "--accept-eula");
    vms.fails(
        &["--system", "web", "--accept-eula", "--prop", "colour=red"],
        "colour",
    );
    let run = vms.import(&[
        "--system",
        "web",
        "--accept-eula",
        "--deployment",
        "large",
        "--prop",
        "size=7",
        "--network",
        "LAN=hostonly",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let web = vms.info("web");
    assert_eq!(web["cpus"], 2);
    assert_eq!(web["memory"], 2048_u64 << 20);
    assert_eq!(web["nics"][0]["network"], "hostonly");
    assert_eq!(web["drives"][0]["virtual_size"], 7 << 20);
}

#[test]
fn what_nobody_chose_is_what_the_package_says() {
    let vms = Vms::new();
    let run = vms.import(&["--system", "db"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let db = vms.info("db");
    assert_eq!(db["memory"], 512_u64 << 20);
    assert_eq!(db["nics"][0]["network_name"], "LAN");
    assert_eq!(db["drives"][0]["virtual_size"], 3_u64 << 20);
}

#[test]
fn choices_are_listed_before_anything_is_made() {
    let vms = Vms::new();
    let run = vms.import(&["--list", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let listing: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(listing["systems"].as_array().unwrap().len(), 2);
    let text = vms.import(&["--list"]).stdout;
    for shown in ["web", "db", "LAN", "large", "size", "be kind"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!vms.0.path("home/vms").exists());
}
