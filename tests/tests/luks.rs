//! LUKS that others made, opened by its key: QEMU makes version 1 with any cipher, cryptsetup and the
//! kernel's dm-crypt write the rest (see `volumes`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hako_tests::peers::QemuImg;
use hako_tests::{Run, hako, run, run_command, run_program};

const PASSPHRASE: &str = "open sesame";

/// An ext4 with some files, most of it free, in a folder with files to open it by.
struct Bench {
    folder: tempfile::TempDir,
    qemu: QemuImg,
}

impl Bench {
    fn new() -> Option<Self> {
        let qemu = QemuImg::any()?;
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder, qemu };
        std::fs::create_dir_all(bench.path("tree/etc")).unwrap();
        std::fs::write(bench.path("tree/etc/name"), "here\n").unwrap();
        let noise: Vec<u8> = (0..3_000_000_u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        std::fs::write(bench.path("tree/noise"), noise).unwrap();
        std::fs::write(bench.path("key"), PASSPHRASE).unwrap();
        std::fs::write(bench.path("line"), format!("{PASSPHRASE}\n")).unwrap();
        std::fs::write(bench.path("wrong"), "open barley").unwrap();
        let raw = bench.text("plain.raw");
        std::fs::File::create(&raw)
            .unwrap()
            .set_len(40 << 20)
            .unwrap();
        let tree = bench.text("tree");
        run_program("mkfs.ext4", &["-q", "-d", &tree, &raw]).ok();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn secret() -> String {
        format!("secret,id=key,data={PASSPHRASE}")
    }

    /// Encrypts the ext4 as these options of QEMU say.
    fn encrypt(&self, options: &str) -> PathBuf {
        let luks = self.path("luks.img");
        let options = format!("key-secret=key,iter-time=10,{options}");
        self.qemu.ok(&[
            "convert",
            "--object",
            &Self::secret(),
            "-f",
            "raw",
            "-O",
            "luks",
            "-o",
            &options,
            &self.text("plain.raw"),
            &self.text("luks.img"),
        ]);
        luks
    }
}

fn words<'a>(verb: &[&'a str], key: &'a str) -> Vec<&'a str> {
    [verb, &["--key", key]].concat()
}

/// Runs `hako` with something on its standard input.
fn run_with_input(words: &[&str], input: &str) -> Run {
    let hako = hako().display().to_string();
    let line = format!("printf '{input}' | {hako} {}", words.join(" "));
    run_program("sh", &["-c", &line])
}

#[test]
fn luks1_that_qemu_made_is_opened_and_copied_by_what_is_in_use_inside() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let key = bench.text("key");
    for options in [
        "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256",
        "cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha512",
        "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1",
        "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha256",
    ] {
        let luks = bench.encrypt(options);
        let luks = luks.to_str().unwrap();
        assert_eq!(
            run(&words(&["disk", "cat", luks, "/etc/name"], &key)).ok(),
            "here\n",
            "{options}"
        );
        let copy = bench.text("copy.raw");
        let capture = ["p2v", "capture", "--json", "--force", luks, "-o", &copy];
        let whole = run(&capture).expect_code(0).json();
        assert_eq!(whole["skipped_bytes"], 0);
        let report = run(&words(&capture, &key)).expect_code(0).json();
        assert_eq!(report["volumes"][1]["name"], "disk/luks");
        assert_eq!(report["volumes"][1]["type"], "ext4");
        assert!(
            report["skipped_bytes"].as_u64() > Some(20 << 20),
            "{report:#}"
        );
        same_where_used(Path::new(luks), Path::new(&copy));
        // QEMU opens the copy, and finds in it what was there.
        let image = format!("driver=luks,key-secret=key,file.filename={copy}");
        let back = bench.text("back.raw");
        bench.qemu.ok(&[
            "convert",
            "--object",
            &Bench::secret(),
            "--image-opts",
            "-O",
            "raw",
            &image,
            &back,
        ]);
        run_program("e2fsck", &["-fn", &back]).expect_code(0);
        assert_eq!(run(&["disk", "cat", &back, "/etc/name"]).ok(), "here\n");
        let noise = std::fs::read(bench.path("tree/noise")).unwrap();
        let out = bench.text("noise");
        let _ = std::fs::remove_file(&out);
        run(&["disk", "cp", &back, "/noise", &out]).ok();
        assert!(std::fs::read(&out).unwrap() == noise, "{options}");
    }
}

/// Every block of the copy is that of the disk, or zeros.
#[track_caller]
fn same_where_used(disk: &Path, copy: &Path) {
    let [disk, copy] = [disk, copy].map(|path| std::fs::read(path).unwrap());
    assert_eq!(disk.len(), copy.len());
    let is_zeros = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let pairs = disk.chunks(512).zip(copy.chunks(512));
    assert!(
        pairs
            .into_iter()
            .all(|(disk, copy)| disk == copy || is_zeros(copy))
    );
}

#[test]
fn a_key_is_read_from_a_file_from_standard_input_and_from_a_terminal() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let luks = bench.encrypt("cipher-alg=aes-256,cipher-mode=xts");
    let luks = luks.to_str().unwrap();
    let cat = ["disk", "cat", luks, "/etc/name"];
    let (key, line, wrong) = (bench.text("key"), bench.text("line"), bench.text("wrong"));
    for key in [&key, &line] {
        assert_eq!(run(&words(&cat, key)).ok(), "here\n");
    }
    for input in [PASSPHRASE.to_owned(), format!("{PASSPHRASE}\\n")] {
        assert_eq!(run_with_input(&words(&cat, "-"), &input).ok(), "here\n");
    }
    // On a terminal it is asked for, and not shown.
    let command = format!("{} disk cat {luks} /etc/name --key -", hako().display());
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = script.stdin.take().unwrap();
    keyboard
        .write_all(format!("{PASSPHRASE}\n").as_bytes())
        .unwrap();
    let output = script.wait_with_output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{screen}");
    assert!(
        screen.contains("Passphrase: ") && screen.contains("here"),
        "{screen}"
    );

    let refused = run(&words(&cat, &wrong)).expect_code(7);
    assert!(
        refused.stderr.contains("the key does not open disk"),
        "{}",
        refused.stderr
    );
    let copy = bench.text("copy.qcow2");
    let capture = ["p2v", "capture", luks, "-o", &copy];
    run(&words(&capture, &wrong)).expect_code(7);
    assert!(!Path::new(&copy).exists());
    // One of two keys is of no use.
    let both = [&words(&capture, &key)[..], &["--key", &wrong]].concat();
    run(&both).expect_code(0);
    let plain = bench.text("plain.raw");
    run(&words(&["disk", "ls", &plain], &key)).expect_code(2);
    run(&words(&cat, &bench.text("nowhere"))).expect_code(1);
    std::fs::write(bench.path("empty"), "").unwrap();
    run(&words(&cat, &bench.text("empty"))).expect_code(2);
    let inventory = run(&["p2v", "inventory", "--json", "--key", &key, luks]).json();
    let volume = &inventory["volumes"][0];
    assert_eq!(
        (&volume["kind"], &volume["name"]),
        (&"crypt".into(), &"disk/luks".into())
    );
}

#[test]
fn verify_looks_into_luks_that_a_key_opens_and_says_what_it_could_not_see() {
    let Some(bench) = Bench::new() else { return };
    let key = bench.text("key");
    let home = bench.text("home");
    let hako =
        |words: &[&str]| run_command(Command::new(hako()).args(words).env("HAKO_HOME", &home));
    let outcome = |run: &Run| -> String {
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let all = report["checks"].as_array().unwrap().iter();
        let checks = all.filter(|check| check["about"] == "file-system");
        let said = checks.map(|check| format!("{}: {}", check["name"], check["outcome"]));
        said.collect::<Vec<_>>().join(", ").replace('"', "")
    };
    let verify = |name: &str, words: &[&str]| {
        let verb = ["p2v", "verify", name, "--no-boot", "--json"];
        hako(&[&verb, words].concat())
    };
    for (name, damage) in [("good", ""), ("bad", "freei <12>")] {
        if !damage.is_empty() {
            run_program("debugfs", &["-w", "-R", damage, &bench.text("plain.raw")]);
        }
        let luks = bench.encrypt("cipher-alg=aes-256,cipher-mode=xts");
        let create = [
            "vm",
            "create",
            name,
            "--guest-os",
            "debian12-64",
            "--from-disk",
        ];
        hako(&[&create[..], &[luks.to_str().unwrap()]].concat()).ok();
    }
    let shut = verify("bad", &[]);
    assert_eq!(outcome(&shut), "disk: not-checked", "{}", shut.stdout);
    for (name, code, expected) in [("good", 0, "passed"), ("bad", 4, "failed")] {
        let run = verify(name, &["--key", &key]);
        assert_eq!(run.code, Some(code), "{}{}", run.stdout, run.stderr);
        assert_eq!(
            outcome(&run),
            format!("disk: not-checked, disk/luks: {expected}")
        );
    }
    verify("good", &["--key", &bench.text("wrong")]).expect_code(7);
}
