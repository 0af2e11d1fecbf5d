//! GRUB's language.

use super::*;

/// Returns the command line of the entry that a configuration boots.
fn options(config: &str) -> String {
    let root = system("ext4", "r", "")
        .label("my disk")
        .file("/boot/grub/grub.cfg", config)
        .file("/boot/grub/empty", "")
        .file("/k", "kernel");
    let menu = menu_of(vec![(None, root.build())]);
    assert_eq!(menu.remarks, [""; 0], "{config}");
    default(&menu).options.clone()
}

/// Returns what a script made of the variable `x`.
fn x(script: &str) -> String {
    options(&format!("{script}\nmenuentry a {{\nlinux /k \"$x\"\n}}\n"))
}

#[test]
fn quotes_and_variables_are_as_in_grub() {
    for (script, expected) in [
        ("x=a", "a"),
        ("set x='$a \\b'", "$a \\b"),
        ("a=1; x=\"$a${a}\\$a\"", "11$a"),
        ("set x=\"a  b\"", "a  b"),
        ("set x=a\\ b", "a b"),
        ("set x='a'\"b\"c", "abc"),
        ("set x=a\\\nb", "ab"),
        ("x=a # b", "a"),
        ("x=a#b", "a#b"),
        ("x=1\nunset x", ""),
        ("set x=${none}", ""),
        ("set x=a; set y=b", "a"),
    ] {
        assert_eq!(x(script), expected, "{script}");
    }
    assert_eq!(
        options("v='a  b'\nmenuentry a { linux /k $v \"$v\" $none '' }"),
        "a b a  b "
    );
}

#[test]
fn conditions_are_as_in_grub() {
    for (condition, expected) in [
        ("[ a = a ]", true),
        ("[ a != a ]", false),
        ("[ 10 -gt 9 ]", true),
        ("[ 1 -eq 01 ]", true),
        ("[ -z '' ]", true),
        ("[ -n \"$none\" ]", false),
        ("[ \"$none\" ]", false),
        ("[ x$none = x ]", true),
        ("[ -f /boot/grub/grub.cfg ]", true),
        ("[ -s $prefix/empty ]", false),
        ("[ -e ($root)/boot/grub/empty ]", true),
        ("[ -d /boot/grub ]", true),
        ("[ -e (hd7)/x ]", false),
        ("[ ! -e /none -a -d /boot ]", true),
        ("[ a = b -o c = c ]", true),
        ("[ ( a = b -o c = c ) -a d = e ]", false),
        ("test a = a", true),
        ("! test a = a", false),
        ("true", true),
        ("false", false),
        ("search --no-floppy --label --set=root 'my disk'", true),
        ("search -f /k --set=y", true),
        ("search --fs-uuid nowhere --set=y", false),
    ] {
        let script = format!("if {condition}; then x=yes; else x=no; fi");
        let expected = if expected { "yes" } else { "no" };
        assert_eq!(x(&script), expected, "{condition}");
    }
}

#[test]
fn loops_functions_and_files_work() {
    for (script, expected) in [
        ("for i in 1 2 3; do x=$x$i; done", "123"),
        ("for i in a b\ndo\nif [ $i = b ]; then x=$i; fi\ndone", "b"),
        (
            "i=0; while [ $i -lt 3 ]; do increment i; x=$x$i; done",
            "123",
        ),
        ("i=0; until [ $i -ge 2 ]; do increment i; done; x=$i", "2"),
        ("function f {\n  x=\"$1-$2-$#\"\n}\nf a b", "a-b-2"),
        ("if false; then x=1; elif true; then x=2; else x=3; fi", "2"),
        ("probe --set=x --fs-uuid ($root)", "r"),
        ("eval 'x=e'", "e"),
        ("source $prefix/empty; x=s", "s"),
    ] {
        assert_eq!(x(script), expected, "{script}");
    }
}

#[test]
fn only_what_is_exported_is_seen_in_submenus() {
    let config = "a=1; b=2; export b\nset default=0\n\
        submenu s {\nmenuentry t {\nlinux /k a=$a b=$b\n}\n}\n";
    assert_eq!(options(config), "a= b=2");
}

#[test]
fn entries_of_old_kernels_load_several_initrds() {
    let root = system("ext4", "r", "")
        .file("/boot/grub/grub.cfg", "menuentry a {\nlinux16 /k a\ninitrd16 /i1 /i2\n}\nmenuentry b {\nlinuxefi /k b\ninitrdefi (hd0,gpt1)/i1\n}\nmenuentry c {\nlinux (hd9,1)/k\n}\n")
        .file("/k", "kernel")
        .file("/i1", "1")
        .file("/i2", "2");
    let menu = menu_of(vec![(None, root.build())]);
    assert_eq!(menu.entries[0].initrds.len(), 2);
    assert_eq!(menu.entries[1].initrds[0].path, "p1:/i1");
    assert!(menu.entries[2].trouble.is_some());
}

#[test]
fn logical_volumes_and_arrays_have_grubs_names() {
    let menuentry = |device: &str| format!("menuentry '{device}' {{ linux ({device})/k }}\n");
    let devices = [
        "lvm/vg0-root",
        "lvmid/aaaa-bbbb/cccc-dddd",
        "md/0",
        "mduuid/00112233445566778899aabbccddeeff",
    ];
    let gone = [
        "lvm/vg0-x",
        "lvmid/aaaa-bbbb/x",
        "md/7",
        "mduuid/00",
        "lvmid/",
        "hd",
    ];
    let config: String = devices.into_iter().chain(gone).map(menuentry).collect();
    let root = system(
        "ext4",
        "r",
        "/dev/md0 /data ext4\n/dev/vg0/home /home ext4\n",
    )
    .file("/boot/grub/grub.cfg", config)
    .file("/k", "root's")
    .dir("/data")
    .dir("/home");
    let volumes = Volumes::in_memory()
        .disk(Vec::new())
        .logical("root", "cccc-dddd", root.build())
        .logical("home", "x-y", MemoryFs::new("ext4").file("/me", "").build())
        .array(
            0,
            "00112233:44556677:8899aabb:ccddeeff",
            MemoryFs::new("ext4").file("/k", "array's").build(),
        );
    let root = Root::mount(&volumes, &installations(&volumes)[0]).unwrap();
    assert_eq!(root.remarks, [""; 0]);
    assert!(root.tree.find(b"/data/k").is_ok() && root.tree.find(b"/home/me").is_ok());
    let menu = Menu::read(&volumes, Some(&root));
    let kernels: Vec<_> = menu
        .entries
        .iter()
        .map(|entry| entry.kernel.as_ref().map(content))
        .collect();
    let expected = ["root's", "root's", "array's", "array's"].map(|text| Some(text.to_owned()));
    assert_eq!(kernels[..4], expected);
    assert!(kernels[4..].iter().all(Option::is_none));
}
