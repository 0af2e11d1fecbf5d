//! Configurations that want to keep the reader busy, and damaged ones.

use super::*;

fn read(config: impl AsRef<[u8]>) -> Menu {
    let root = system("ext4", "r", "")
        .file("/boot/grub/grub.cfg", config)
        .file(
            "/boot/grub/grubenv",
            "# GRUB Environment Block\nsaved_entry=1\\",
        )
        .file("/k", "kernel");
    menu_of(vec![(None, root.build())])
}

#[test]
fn what_would_never_end_is_given_up() {
    let deep = format!(
        "{}true{}",
        "if true; then ".repeat(5000),
        "; fi".repeat(5000)
    );
    let menus = format!("{}{}", "submenu s {\n".repeat(5000), "}\n".repeat(5000));
    for script in [
        "while true; do x=1; done",
        "while true; do true\ndone",
        "until false; do done",
        "function f { f; f; }\nf",
        "configfile /boot/grub/grub.cfg",
        "source /boot/grub/grub.cfg\nsource /boot/grub/grub.cfg",
        "x=aaaaaaaa\nwhile true; do x=$x$x$x$x; done",
        "x='a a a a a a a a'\nwhile true; do set y=\"$x $x\"; x=\"$y $y $y\"; echo $x $x $x $x; done",
        "for a in 1 2 3 4 5 6 7 8 9; do for b in 1 2 3 4 5 6 7 8 9; do for c in 1 2 3 4 5 6 7 8 9; do for d in 1 2 3 4 5 6 7 8 9; do for e in 1 2 3 4 5 6 7 8 9; do for f in 1 2 3 4 5 6 7 8 9; do true; done; done; done; done; done; done",
        "while true; do menuentry a { linux /k }; done",
        "function g { submenu s { g; } }\ng",
        "eval 'eval \"$x\"'",
        &deep,
        &menus,
    ] {
        let menu = read(script);
        assert!(menu.entries.len() <= MOST_ENTRIES);
    }
    assert!(!read("while true; do x=1; done").remarks.is_empty());
    assert!(!read(&deep).remarks.is_empty());
}

#[test]
fn damaged_configurations_never_make_a_panic() {
    let config = "set default=\"1>0\"\nfunction f { x=${1}; }\nif [ a = b ]; then f 'a'; elif [ -f $prefix/x -o ! ( b ) ]; then\nfor i in 1 2; do true; done; fi\nmenuentry 'a' --id \"b\" { search --set=root --fs-uuid r\nlinux /k $x root=\"${y}\"; initrd /i }\nsubmenu 's' { menuentry x --class y { linux /k } }\n";
    let mut rng = hako_block::testkit::Rng::new(6);
    for _ in 0..400 {
        let mut bytes = config.as_bytes().to_vec();
        for _ in 0..rng.below(1..6) {
            let at = rng.below(0..bytes.len() as u64) as usize;
            match rng.below(0..4) {
                0 => bytes[at] = b"{}[]()'\"$\\;\n!#>="[rng.below(0..16) as usize],
                1 => drop(bytes.remove(at)),
                2 => bytes.truncate(at.max(1)),
                _ => bytes[at] = rng.next_u64() as u8,
            }
        }
        read(bytes);
    }
    for text in [
        "menuentry",
        "menuentry a",
        "menuentry {",
        "}",
        "if",
        "for",
        "function",
        "$",
        "${",
        "\\",
        "'",
        "\"",
        "linux",
        "search",
        "load_env -f",
        "[",
        "[ !",
        "! !",
    ] {
        read(text);
    }
}

#[test]
fn damaged_entries_and_labels_never_make_a_panic() {
    for text in [
        "title",
        "linux",
        "\u{0}",
        "linux /k\nlinux /k\ninitrd",
        "options $",
        "options ${x",
        "options ${}$",
        "initrd  , ,",
    ] {
        let esp = MemoryFs::new("vfat")
            .any_case()
            .file("/loader/loader.conf", text)
            .file("/loader/entries/+.conf", text)
            .file("/loader/entries/a+x-1.conf", text)
            .file("/loader/entries/.conf", text)
            .file("/extlinux.conf", text);
        let root = system("ext4", "r", "").file("/boot/extlinux.conf", text);
        menu_of(vec![(Some(ESP), esp.build()), (None, root.build())]);
    }
}
