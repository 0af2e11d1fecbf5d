"""Sizes by what a server used, computed anew from the recordings: nothing of hako's is used.

  p2v_sizes.py expect CPUS MEMORY_MIB FLOOR_MIB FILE...   what a plan should say, as JSON
  p2v_sizes.py make SEED FOLDER                           a made-up week, as each program records it
"""
import json
import math
import random
import struct
import sys
import time

MIB = 1 << 20


# --- reading -----------------------------------------------------------------------------------

def read(path):
    """Returns lists of (seconds, value) by metric."""
    data = open(path, "rb").read()
    if data.startswith(b"HAKOSMPL"):
        return read_ring(data)
    text = data.decode()
    if text.lstrip().startswith("{"):
        return read_sysstat(json.loads(text))
    if text.startswith("#"):
        return read_collectl(text.splitlines())
    return read_atop(text.splitlines())


def read_sysstat(document):
    out = {}
    for host in document["sysstat"]["hosts"]:
        for s in host["statistics"]:
            def put(metric, value):
                out.setdefault(metric, []).append((s["timestamp"]["interval"], value))
            load = next(l for l in s["cpu-load"] if l["cpu"] == "all")
            busy = 100 - load["idle"] - load["iowait"]
            put("busy", busy / 100 * host["number-of-cpus"])
            m = s["memory"]
            # In these recordings all of the slab is told, and this is the sum.
            total = sum(m[k] for k in ("memfree", "memused", "buffers", "cached", "slab"))
            put("used", (total - m["avail"]) * 1024)
            put("swap_in", s["swap-pages"]["pswpin"])
            if "psi" in s:
                put("cpu_pressure", s["psi"]["psi-cpu"]["some_avg300"])
                put("memory_pressure", s["psi"]["psi-mem"]["some_avg300"])
                put("io_pressure", s["psi"]["psi-io"]["some_avg300"])
            for d in s.get("disk", []):
                put("disk " + d["disk-device"], d["tps"])
            for n in s.get("network", {}).get("net-dev", []):
                put("nic " + n["iface"], (n["rxkB"] + n["txkB"]) * 1024)
    return out


def read_atop(lines):
    out, skip = {}, False
    for line in lines:
        words = line.split()
        if words == ["RESET"]:
            skip = True
        if words == ["SEP"]:
            skip = False
        if skip or len(words) < 7:
            continue
        label, seconds, f = words[0], int(words[5]), words[6:]

        def put(metric, value):
            out.setdefault(metric, []).append((seconds, value))
        if label == "CPU":
            ticks = [int(x) for x in f[2:10]]
            idle = ticks[3] + ticks[4]
            put("busy", (sum(ticks) - idle) / sum(ticks) * int(f[1]))
        if label == "MEM":
            page, total, free, cache, buffers = (int(x) for x in f[:5])
            reclaimable, shared = int(f[7]), int(f[9])
            put("used", (total - free - buffers - reclaimable - (cache - shared)) * page)
        if label == "PAG":
            put("swap_in", int(f[4]) / seconds)
        if label == "PSI" and f[0] == "y":
            put("cpu_pressure", float(f[3]))
            put("memory_pressure", float(f[7]))
            put("io_pressure", float(f[15]))
        if label == "DSK":
            put("disk " + f[0], (int(f[2]) + int(f[4])) / seconds)
        if label == "NET" and f[0] != "upper":
            put("nic " + f[0], (int(f[2]) + int(f[4])) / seconds)
    return out


def read_collectl(lines):
    out, names, cpus, interval = {}, None, 0, 1
    for line in lines:
        words = line.split(" ")
        if line.startswith("#Date"):
            names = words
        elif line.startswith("#"):
            words = line.split()
            if "NumCPUs:" in words:
                cpus = int(words[words.index("NumCPUs:") + 1])
            if "Interval:" in words:
                interval = int(words[words.index("Interval:") + 1])
        elif line:
            row = dict(zip(names, words))

            def put(metric, value):
                out.setdefault(metric, []).append((interval, value))
            if "[CPU]Idle%" in row:
                busy = 100 - int(row["[CPU]Idle%"]) - int(row["[CPU]Wait%"])
                put("busy", busy / 100 * cpus)
                m = {k: int(row["[MEM]" + k]) for k in
                     ("Tot", "Free", "Buf", "Cached", "Shared", "Slab", "SUnreclaim")}
                free = m["Free"] + m["Buf"] + m["Cached"] - m["Shared"] + m["Slab"] - m["SUnreclaim"]
                put("used", (m["Tot"] - free) * 1024)
                put("swap_in", int(row["[MEM]SwapIn"]))
            for name in row:
                if name.endswith("]Reads"):
                    disk = name[5:-6]
                    put("disk " + disk, int(row[name]) + int(row["[DSK:%s]Writes" % disk]))
                if name.startswith("[NET:") and name.endswith("]RxKB"):
                    nic = name[5:-5]
                    put("nic " + nic, (int(row[name]) + int(row["[NET:%s]TxKB" % nic])) * 1024)
    return out


def read_ring(data):
    slot, = struct.unpack_from("<I", data, 12)
    records = []
    for at in range(4096, len(data), slot):
        record = data[at:at + slot]
        if struct.unpack_from("<I", record)[0] == crc32c(record[4:]):
            records.append(record)
    records.sort(key=lambda r: struct.unpack_from("<Q", r, 8))
    out = {}
    for a, b in zip(records, records[1:]):
        seconds = (struct.unpack_from("<Q", b, 24)[0] - struct.unpack_from("<Q", a, 24)[0]) / 1000
        if a[32:48] != b[32:48] or seconds <= 0:
            continue

        def put(metric, value):
            out.setdefault(metric, []).append((seconds, value))
        then, now = struct.unpack_from("<8Q", a, 56), struct.unpack_from("<8Q", b, 56)
        ticks = [y - x for x, y in zip(then, now)]
        put("busy", (sum(ticks) - ticks[3] - ticks[4]) / sum(ticks) * struct.unpack_from("<I", b, 48)[0])
        total, _, available = struct.unpack_from("<3Q", b, 120)
        put("used", (total - available) * 1024)
        swapped = struct.unpack_from("<Q", b, 224)[0] - struct.unpack_from("<Q", a, 224)[0]
        put("swap_in", swapped / seconds)
        cpu, memory, _, io, _, known = struct.unpack_from("<6H", b, 296)
        if known:
            put("cpu_pressure", cpu / 100)
            put("memory_pressure", memory / 100)
            put("io_pressure", io / 100)
        for k in range(struct.unpack_from("<H", b, 52)[0]):
            at = 320 + 64 * k
            name = b[at + 1:at + 16].rstrip(b"\0").decode()
            x, y = struct.unpack_from("<4Q", a, at + 16), struct.unpack_from("<4Q", b, at + 16)
            d = [q - p for p, q in zip(x, y)]
            if b[at] == 1:
                put("disk " + name, (d[0] + d[2]) / seconds)
            else:
                put("nic " + name, (d[1] + d[3]) / seconds)
    return out


# --- the rule ----------------------------------------------------------------------------------

def percentile(values, percent):
    """Nearest rank, each value as often as it lasted seconds (tenths, for the ring)."""
    if not values:
        return None
    spread = []
    for seconds, value in values:
        spread.extend([value] * max(1, round(seconds)))
    spread.sort()
    return spread[max(0, math.ceil(len(spread) * percent / 100 - 1e-9) - 1)]


def up(number):
    return math.ceil(number - 1e-9)


def expect(cpus, memory_mib, floor_mib, paths):
    metrics = {}
    for path in paths:
        for metric, values in read(path).items():
            metrics.setdefault(metric, []).extend(values)
    p = {name: percentile(metrics.get(metric, []), percent) for name, metric, percent in [
        ("busy_cores_p95", "busy", 95), ("busy_cores_p995", "busy", 99.5),
        ("memory_used_p99_mib", "used", 99), ("memory_used_max_mib", "used", 100),
        ("swap_in_p99", "swap_in", 99), ("cpu_pressure_p95", "cpu_pressure", 95),
        ("memory_pressure_p95", "memory_pressure", 95), ("io_pressure_p95", "io_pressure", 95)]}
    for name in ("memory_used_p99_mib", "memory_used_max_mib"):
        p[name] = p[name] and p[name] / MIB
    for metric, values in metrics.items():
        if metric.startswith(("disk ", "nic ")):
            p[metric] = percentile(values, 95)
    need = max(1, up(p["busy_cores_p95"] / 0.65), up(p["busy_cores_p995"] / 0.95))
    need += need % 2 if need > 1 else 0
    if (p["cpu_pressure_p95"] or 0) > 10:
        need = max(need, cpus)
    p["cpus"] = min(need, cpus)
    need = max(p["memory_used_p99_mib"] / 0.65, p["memory_used_max_mib"] / 0.90, floor_mib, 512)
    need = up(need / 256) * 256
    if (p["memory_pressure_p95"] or 0) > 5 or (p["swap_in_p99"] or 0) > 0:
        need = max(need, memory_mib)
    p["memory_mib"] = min(need, memory_mib)
    return p


# --- a made-up week ----------------------------------------------------------------------------

TABLE = []
for n in range(256):
    for _ in range(8):
        n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


CPUS, TOTAL_KIB, STEP = 16, 64 << 20, 600


def week(seed):
    """1008 intervals of ten minutes: hundredths of busy share, pages of 4 KiB available."""
    rng = random.Random(seed)
    level = rng.randrange(5, 60)
    used = rng.randrange(2, 50) << 18
    for k in range(1008):
        day = 0.5 + 0.5 * math.sin(k / 144 * 2 * math.pi)
        busy = min(10000, max(0, int(100 * level * day + rng.randrange(0, 1000))))
        # Whole percents, which is all that collectl has.
        yield busy // 100 * 100, TOTAL_KIB // 4 - min(used + rng.randrange(0, 1 << 18), 63 << 18)


def make(seed, folder):
    rows = list(week(seed))
    start = 1795305600
    stamps = [start + STEP * (k + 1) for k in range(len(rows))]
    zone = [time.gmtime(t) for t in stamps]
    with open(folder + "/sysstat.json", "w") as out:
        stats = []
        for (busy, pages), t in zip(rows, zone):
            used = TOTAL_KIB - pages * 4
            stats.append({
                "timestamp": {"date": time.strftime("%Y-%m-%d", t), "time": time.strftime("%H:%M:%S", t),
                              "utc": 1, "interval": STEP},
                "cpu-load": [{"cpu": "all", "user": busy / 100, "nice": 0.0, "system": 0.0,
                              "iowait": 0.0, "steal": 0.0, "idle": 100 - busy / 100}],
                "swap-pages": {"pswpin": 0.0, "pswpout": 0.0},
                "memory": {"memfree": 4 * pages, "avail": 4 * pages, "memused": used,
                           "memused-percent": round(used / TOTAL_KIB * 100, 2),
                           "buffers": 0, "cached": 0, "slab": 0}})
        json.dump({"sysstat": {"hosts": [{"nodename": "web01", "number-of-cpus": CPUS,
                                          "statistics": stats}]}}, out)
    with open(folder + "/atop.txt", "w") as out:
        out.write("RESET\nCPU web01 1 2026/11/22 00:00:00 9 100 16 9 9 9 9 9 9 9 9 9\nSEP\n")
        for (busy, pages), t, stamp in zip(rows, zone, stamps):
            head = "web01 %d %s %d" % (stamp, time.strftime("%Y/%m/%d %H:%M:%S", t), STEP)
            out.write("CPU %s 100 %d 0 %d 0 %d 0 0 0 0 0 1 1 1 1\n" % (head, CPUS, busy, 10000 - busy))
            out.write("MEM %s 4096 %d %d 0 0 0 0 0 0 0 0\n" % (head, TOTAL_KIB // 4, pages))
            out.write("PAG %s 4096 0 0 0 0 0 0\nSEP\n" % head)
    with open(folder + "/collectl.tab", "w") as out:
        out.write("# Host:       web01  DaemonOpts: \n# Date: x TZ: +0000\n")
        out.write("# SubSys: cm Options: Interval: %d NumCPUs: %d  NumBud: 0\n" % (STEP, CPUS))
        names = ["Tot", "Free", "Buf", "Cached", "Shared", "Slab", "SUnreclaim", "SwapIn"]
        out.write("#Date Time [CPU]Wait% [CPU]Idle% " + " ".join("[MEM]" + n for n in names) + "\n")
        for (busy, pages), t in zip(rows, zone):
            out.write("%s 0 %d %d %d 0 0 0 0 0 0\n" % (
                time.strftime("%Y%m%d %H:%M:%S", t), 100 - busy // 100, TOTAL_KIB, 4 * pages))
    make_ring(folder + "/web01.samples", [(start, (0, 1))] + list(zip(stamps, rows)))


def make_ring(path, rows):
    slot = 512
    head = b"HAKOSMPL" + struct.pack("<IIQQQ", 1, slot, len(rows), STEP * 1000, STEP * 1000 * len(rows))
    host = b"web01".ljust(64, b"\0")
    data = (head + struct.pack("<I", crc32c(host + head)) + host).ljust(4096, b"\0")
    busy_ticks = idle_ticks = 0
    for number, (stamp, (busy, pages)) in enumerate(rows):
        busy_ticks += busy
        idle_ticks += 10000 - busy
        body = struct.pack("<4sQQQ16sIHH", b"SMP1", number, stamp * 1000, (stamp - rows[0][0] + 60) * 1000,
                           b"b" * 16, CPUS, 0, 0)
        body += struct.pack("<8Q", busy_ticks, 0, 0, idle_ticks, 0, 0, 0, 0)
        body += struct.pack("<13Q", TOTAL_KIB, 4 * pages, 4 * pages, *[0] * 10)
        body = body.ljust(slot - 4, b"\0")
        data += struct.pack("<I", crc32c(body)) + body
    open(path, "wb").write(data)


if sys.argv[1] == "make":
    make(int(sys.argv[2]), sys.argv[3])
else:
    cpus, memory, floor = map(int, sys.argv[2:5])
    print(json.dumps(expect(cpus, memory, floor, sys.argv[5:])))
