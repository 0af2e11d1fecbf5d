//! Envelopes that contradict themselves, each with its reason.

use super::{envelope, envelope_of, hardware_section, item, refusal};

const FILE: &str = r#"<References><File ovf:id="f" ovf:href="a.vmdk" ovf:size="9"/></References>"#;

fn disk(attributes: &str) -> String {
    format!("{FILE}<DiskSection><Info/><Disk {attributes}/></DiskSection>")
}

#[test]
fn references_and_disks_must_be_whole() {
    let file = |attributes: &str| format!("<References><File {attributes}/></References>");
    for (before, what) in [
        (file(r#"ovf:href="a""#), "has no id"),
        (file(r#"ovf:id="f""#), "has no href"),
        (file(r#"ovf:id="f" ovf:href="""#), "has no href"),
        (
            file(r#"ovf:id="f" ovf:href="a" ovf:size="abcd""#),
            "a size of \"abcd\"",
        ),
        (
            file(r#"ovf:id="f" ovf:href="a" ovf:chunkSize="0""#),
            "pieces of 0 bytes",
        ),
        (
            file(r#"ovf:id="f" ovf:href="a" ovf:compression="lzma""#),
            "\"lzma\" cannot be read",
        ),
        (disk(r#"ovf:capacity="1""#), "has no diskId"),
        (disk(r#"ovf:diskId="d""#), "has no capacity"),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="0""#),
            "a capacity of 0",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="-1""#),
            "which is no number",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="9223372036854775808""#),
            "more than 2^63",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^63""#),
            "more than 2^63",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="1" ovf:capacityAllocationUnits="furlong""#),
            "neither unit nor number",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="1" ovf:fileRef="x""#),
            "which References lacks",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="1" ovf:populatedSize="2""#),
            "has 2 bytes in use of a capacity of 1",
        ),
        (
            disk(r#"ovf:diskId="d" ovf:capacity="1" ovf:parentRef="d""#),
            "has more than 32 parents",
        ),
    ] {
        let error = refusal(&envelope(&before, ""));
        assert!(error.contains(what), "{before}: {error}");
    }
}

#[test]
fn names_that_must_be_there_once_are() {
    let files = |second: &str| {
        format!(r#"<References><File ovf:id="f" ovf:href="a"/>{second}</References>"#)
    };
    let disks = r#"<DiskSection><Info/><Disk ovf:diskId="d" ovf:capacity="1" ovf:fileRef="f"/><Disk ovf:diskId="e" ovf:capacity="1" ovf:fileRef="f"/></DiskSection>"#;
    let cpu = item(1, 3, "<VirtualQuantity>1</VirtualQuantity>");
    for (text, what) in [
        (
            envelope(&files(r#"<File ovf:id="f" ovf:href="b"/>"#), ""),
            "the file \"f\" is there twice",
        ),
        (
            envelope(&files(r#"<File ovf:id="g" ovf:href="a"/>"#), ""),
            "the href \"a\" is there twice",
        ),
        (
            envelope(&format!("{FILE}{disks}"), ""),
            "the file \"f\" belongs to two disks",
        ),
        (
            envelope(&format!("{FILE}{}", disks.replace("\"e\"", "\"d\"")), ""),
            "the disk \"d\" is there twice",
        ),
        (
            envelope("", &format!("{cpu}{cpu}")),
            "the InstanceID \"1\" is that of line 1 too",
        ),
    ] {
        let error = refusal(&text);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn sections_must_be_where_they_belong() {
    let hardware = hardware_section("");
    for (text, what) in [
        (envelope_of("", ""), "has no VirtualHardwareSection"),
        (
            envelope_of("", &format!("{hardware}<DiskSection/>")),
            "belongs into the Envelope",
        ),
        (
            envelope_of("", &format!("{hardware}<NetworkSection/>")),
            "belongs into the Envelope",
        ),
        (
            envelope_of("", &format!("{hardware}<ResourceAllocationSection/>")),
            "into a collection",
        ),
        (
            envelope("<AnnotationSection/>", ""),
            "belongs into a machine",
        ),
        (
            envelope("<VirtualHardwareSection/>", ""),
            "belongs into a machine",
        ),
        (
            envelope_of("", &hardware.replace("<Info/>", "")),
            "VirtualHardwareSection: has no Info",
        ),
        (
            envelope(
                "<DiskSection><New ovf:required=\"true\"/></DiskSection>",
                "",
            ),
            "New must be known",
        ),
        (
            envelope("<DiskSection><New/></DiskSection>", ""),
            "New must be known",
        ),
        (
            envelope("", "").replace(" ovf:id=\"vm\"", ""),
            "VirtualSystem: has no id",
        ),
        (
            envelope("", "").replace("<References/>", ""),
            "has no References",
        ),
        (
            envelope("", "").replace("VirtualSystem", "Nothing"),
            "describes no machine",
        ),
    ] {
        let error = refusal(&text);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn items_must_make_sense() {
    for (items, what) in [
        (
            item(1, 3, "").replace("1</rasd:InstanceID>", "</rasd:InstanceID>"),
            "has no InstanceID",
        ),
        (
            "<Item><rasd:InstanceID>1</rasd:InstanceID></Item>".to_owned(),
            "has no ResourceType",
        ),
        (
            item(1, 3, "<VirtualQuantity>two</VirtualQuantity>"),
            "is \"two\", which is no number",
        ),
        (
            item(1, 10, "<Connection>net</Connection>"),
            "which NetworkSection lacks",
        ),
        (
            item(1, 17, "<HostResource>ovf:/disk/x</HostResource>"),
            "which DiskSection lacks",
        ),
        (
            item(1, 15, "<HostResource>/file/x</HostResource>"),
            "which References lacks",
        ),
        (item(1, 17, "<Parent>9</Parent>"), "hangs on the item \"9\""),
        (item(1, 6, "<Unheard>1</Unheard>"), "Unheard must be known"),
        (
            item(1, 3, "").replace("<Item>", "<Item ovf:bound=\"max\">"),
            "the bound of an item",
        ),
        (
            item(1, 3, "").replace("<Item>", "<Item ovf:bound=\"most\">"),
            "has the bound \"most\"",
        ),
        (
            format!(
                "{}{}",
                item(1, 4, ""),
                item(2, 4, "<VirtualQuantity>1</VirtualQuantity>")
            ),
            "says no VirtualQuantity",
        ),
        (
            item(1, 99, "").replace(">99<", ">70000<"),
            "the ResourceType 70000",
        ),
    ] {
        let error = refusal(&envelope("", &items));
        assert!(error.contains(what), "{items}: {error}");
    }
}

#[test]
fn properties_must_be_told_apart() {
    let section = |properties: &str| {
        let product = format!("<ProductSection><Info/>{properties}</ProductSection>");
        envelope_of("", &format!("{}{product}", hardware_section("")))
    };
    let twice =
        r#"<Property ovf:key="a" ovf:type="string"/><Property ovf:key="a" ovf:type="int"/>"#;
    for (text, what) in [
        (section(twice), "the key \"a\", which another has too"),
        (section(r#"<Property ovf:type="string"/>"#), "has no key"),
        (section(r#"<Property ovf:key="a"/>"#), "has no type"),
        (
            section(r#"<Property ovf:key="a" ovf:type="thing"/>"#),
            "the type \"thing\"",
        ),
        (
            section(r#"<Property ovf:key="a.b" ovf:type="int"/>"#)
                .replace("<ProductSection><Info/>", "<ProductSection>"),
            "key \"a.b\" has a dot",
        ),
        (
            section("</ProductSection><ProductSection><Info/>")
                .replace("<ProductSection>", "<ProductSection ovf:class=\"c\">"),
            "two ProductSections have the class \"c\"",
        ),
    ] {
        let error = refusal(&text);
        assert!(error.contains(what), "{error}");
    }
}
