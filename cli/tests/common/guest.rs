//! A machine with a guest of 300 bytes in its disk's first sector: it is up in a second under TCG.
//! It says `guest ready> ` on its serial port and echoes what is typed; `w` writes its own sector
//! over the next one and says so, `q` switches it off, and the power button makes it say `bye` and
//! switch itself off.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::vms::Vms;

/// ```text
/// .code16                             write: mov $0x0301, %ax      # BIOS: write sector 2
/// xor %ax, %ax                               mov $2, %cx
/// mov %ax, %ds; %es; %ss                     mov $0x80, %dx
/// mov $0x7c00, %sp                           mov $0x7c00, %bx
/// outb 3 -> 0x3fb     # 8n1                  int $0x13
/// outw 0x100 -> 0x602 # PM1 enable:          print "written\r\n"
/// print ready         #   power button       jmp loop
/// loop: sti; hlt                      bye:   print "\r\nbye\r\n"
///       inw 0x600     # PM1 status:   off:   outw 0x2000 -> 0x604 # PM1 control: S5
///       bit 8: bye    #   was pressed        hlt; jmp off
/// more: inb 0x3fd; bit 0 clear: loop
///       inb 0x3f8; 'q': off; 'w': write
///       outb it -> 0x3f8; jmp more
/// ```
const BOOT_SECTOR: &str = "\
    31c08ed88ec08ed0bc007cbafb03b003eeba0206b80001efbe7e7ce84800fbf4\
    ba0006edf6c401752dbafd03eca80174edbaf803ec3c7174233c777403eeebe9\
    b80103b90200ba8000bb007ccd13be8c7ce81200ebc8be967ce80a00ba0406b8\
    0020eff4ebf6ac84c0741288c4bafd03eca82074f888e0baf803eeebe9c36775\
    6573742072656164793e20007772697474656e0d0a000d0a6279650d0a00";

/// What it says when it is up.
pub const READY: &str = "guest ready>";

pub fn boot_sector() -> Vec<u8> {
    let digits = BOOT_SECTOR.as_bytes().chunks(2);
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16);
    let mut sector: Vec<u8> = digits.map(|digits| byte(digits).unwrap()).collect();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

impl Vms {
    /// Makes the machine "web" with that guest.
    pub fn with_guest() -> Self {
        let vms = Self::new();
        vms.world.raw("boot.raw", 1 << 20, &[(0, &boot_sector())]);
        vms.done(&[
            "create",
            "web",
            "--from-disk",
            "boot.raw",
            "--memory",
            "64M",
            "--nic",
            "none",
        ]);
        vms
    }

    /// Starts "web", which must succeed; that it is slow may be told.
    #[track_caller]
    pub fn start(&self, flags: &[&str]) -> Value {
        let run = self.run(&[&["start", "web", "--json"], flags].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Starts "web", and waits until its guest is up.
    #[track_caller]
    pub fn start_guest(&self, flags: &[&str]) -> Value {
        let status = self.start(flags);
        self.done(&["wait", "web", "--for-line", READY, "--timeout", "120"]);
        status
    }

    /// The folder of the run of "web".
    pub fn run_folder(&self) -> PathBuf {
        let names = self.world.names_in("run");
        assert_eq!(names.len(), 1, "{names:?}");
        self.world.path("run").join(&names[0])
    }

    pub fn runner_log(&self) -> String {
        std::fs::read_to_string(self.run_folder().join("runner.log")).unwrap()
    }
}

/// Switches off what a failed test leaves.
impl Drop for Vms {
    fn drop(&mut self) {
        if self.world.path("run").exists() {
            self.run(&["stop", "--force", "web"]);
        }
    }
}

/// Waits for what must come within a minute.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn is_alive(pid: &Value) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    // What is dead and not waited for is none; the first thread may be dead before the others, which
    // keep files and locks.
    let is_dead = |stat: &str| stat.contains(") Z ") || stat.contains(") X ");
    let lives = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        stat.is_ok_and(|stat| !is_dead(&stat))
    };
    threads.is_ok_and(|threads| threads.flatten().any(lives))
}

pub fn send(signal: &str, pid: &Value) {
    let sent = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}
