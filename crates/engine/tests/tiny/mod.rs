//! The guest of `guest.c`, built. Tests of other packages have this file, too.

use std::io::Write;
use std::process::{Command, Stdio};

/// Returns an ELF file that is entered in 64-bit mode; what it does is what its command line says.
pub fn guest() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("guest");
    let flags = "-O1 -ffreestanding -nostdlib -static -no-pie -fno-pie -mno-red-zone \
                 -mgeneral-regs-only -fno-stack-protector -fcf-protection=none \
                 -Wl,-Ttext-segment=0x1000000 -Wl,--build-id=none -x c -";
    let mut compiler = Command::new("cc")
        .args(flags.split_whitespace())
        .arg("-o")
        .arg(&output)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let source = include_bytes!("../guest.c");
    compiler.stdin.take().unwrap().write_all(source).unwrap();
    assert!(compiler.wait().unwrap().success());
    std::fs::read(output).unwrap()
}
