"""The native engine against other machine monitors on the same KVM: in the outer machine of the test
bed (tests/bed/outer builds it), with the same kernel, /init and memory. `round` is what runs there."""

import lzma
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BED = HERE.parent / "bed/run"
OUTER = HERE.parent.parent / ".peers/bed/outer"
DISK_MIB = 256
MEMORY_MIB = 1792


def native_engine(bench, _raw):
    """Starts, memory and random reads of machines on KVM."""
    if not (OUTER / "made-of").exists():
        print("skipped: the outer machine of the test bed is not built: tests/bed/outer does that")
        return
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        Contest(bench, pathlib.Path(folder)).run()


class Contest:
    """Turns of the engines in the outer machine."""

    def __init__(self, bench, folder):
        self.bench, self.folder = bench, folder
        programs = {"hako": bench.hako}
        for name, path in bench.peers.items():
            if path:
                programs[name] = path
            else:
                print(f"skipped: no {name} to compare with (--{name})", flush=True)
        for name, path in programs.items():
            shutil.copy(path, folder / name)
        self.peers = [name for name in programs if name != "hako"]
        cc = ["cc", "-O2", "-static", "-pthread", "-o", folder / "init", HERE / "init.c"]
        subprocess.run(cc, check=True)
        shutil.copy(HERE / "round", folder)
        (folder / "vmlinux").write_bytes(unpacked((OUTER / "vmlinuz").read_bytes()))

    def run(self):
        if self.peers:
            # By the clock a start takes twice as long while the host does something else.
            started = self.rounds("off", ["hako", *self.peers], "--counted")
            self.compare("start, /init, off", started, 1.05)
        self.memory()
        self.reads()

    def memory(self):
        """What the process of a machine takes beside the guest's memory."""
        resident = self.rounds("wait", ["hako", *self.peers])
        mebibytes = statistics.median(resident["hako"]) / 1024
        self.bench.fact(
            "memory of a machine that runs, without the guest's",
            "< 12 MiB",
            f"{mebibytes:.1f} MiB" + self.others(resident),
            mebibytes < 12,
        )

    def reads(self):
        """Random reads: against the peers from raw, and from a sparse VMDK against our own raw."""
        disk = self.make_disks()
        rates = self.rounds("reads", ["hako-raw", "hako-vmdk", *self.peers], "--disk", disk)
        of = lambda name, depth: statistics.median(
            float(line.split()[1]) for line in rates[name] if line.split()[0] == depth
        )
        for depth in ["1", "16"]:
            raw, vmdk = of("hako-raw", depth), of("hako-vmdk", depth)
            task = f"random reads of 4 KiB, {depth} at a time"
            for peer in self.peers:
                theirs = of(peer, depth)
                self.bench.fact(
                    f"{task}: raw, against {peer}",
                    "≥ 1× as many in a second",
                    f"{raw / theirs:.2f}× of {theirs:.0f}",
                    raw >= theirs,
                )
            self.bench.fact(
                f"{task}: monolithicSparse, against our raw",
                "≥ 0.8× as many in a second",
                f"{vmdk / raw:.2f}× of {raw:.0f}",
                vmdk >= 0.8 * raw,
            )

    def rounds(self, task, names, *options):
        """Has them take turns in one outer machine; returns what was said of each."""
        said = {name: [] for name in names}
        script = f"#!/bin/bash\nexec ./round {task} {self.bench.runs} {' '.join(names)}\n"
        (self.folder / "run").write_text(script)
        (self.folder / "run").chmod(0o755)
        bed = [BED, "--seconds", "3600", "--memory", str(MEMORY_MIB), *options, self.folder]
        output = subprocess.run(bed, capture_output=True, text=True)
        if output.returncode:
            sys.exit(f"a round failed:\n{output.stdout}{output.stderr}")
        for line in output.stdout.splitlines():
            words = line.split(maxsplit=2)
            if words[:1] == [task] and words[1] in said:
                value = words[2]
                said[words[1]].append(value if task == "reads" else float(value))
        short = [name for name in names if len(said[name]) < self.bench.runs]
        if short:
            sys.exit(f"{task}: nothing of {short}: {output.stdout}")
        print(f"  {task}: {said}", flush=True)
        return said

    def compare(self, task, figures, factor):
        """Adds a row for each peer, of seconds of CPU time at an instruction in a nanosecond."""
        ours = statistics.median(figures["hako"])
        for peer in self.peers:
            theirs = statistics.median(figures[peer])
            ratio = ours / theirs
            self.bench.rows.append(
                [
                    f"{task}: against {peer}",
                    f"≤ {factor}× its CPU time",
                    f"{ratio:.2f}×",
                    "yes" if ratio <= factor else "**no**",
                    *["", "", f"{ours:.4f}", f"{theirs:.4f}", ""],
                ]
            )
            print(" | ".join(self.bench.rows[-1]), flush=True)

    def others(self, figures):
        said = [f"{peer} {statistics.median(figures[peer]) / 1024:.1f} MiB" for peer in self.peers]
        return f" ({', '.join(said)})" if said else ""

    def make_disks(self):
        """Returns a raw file with an ext4: the same content as raw and as monolithicSparse, each in a
        folder of its own."""
        tree, disk = self.folder / "tree", self.folder / "disk"
        for kind in ["raw", "vmdk"]:
            (tree / kind).mkdir(parents=True)
        raw = tree / "raw/disk.raw"
        with open(raw, "wb") as file:
            for _ in range(DISK_MIB):
                file.write(os.urandom(1 << 20))
        convert = [self.bench.hako, "disk", "convert", raw, tree / "vmdk/disk.vmdk"]
        subprocess.run(convert, check=True)
        size = f"{DISK_MIB * 2 + 64}M"
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, disk, size], check=True)
        shutil.rmtree(tree)
        return str(disk)


def unpacked(image):
    """Returns the ELF file in a bzImage that xz packed, as that of Debian is."""
    at = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
    (size,) = struct.unpack_from("<I", image, 0x24C)
    return lzma.LZMADecompressor().decompress(image[at : at + size])
