#!/usr/bin/env python3
"""Where the CPU goes while one storage node ingests: `make bench-profile`.

Runs the ingest bench under `perf record`, on all cores, only while records travel, and adds up the samples by part, as
milliseconds of CPU per MiB ingested. A sample of the kernel is named by what its call chain was for; a sample of the program
by the function it fell into. What else runs on the machine is told too: with more than a few per cent of it, the bench's own
rates mean nothing, and the parts still do.
"""

import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROUNDS = 5
# What one round of the bench sends.
ROUND_MIB = 384
HERTZ = 1499

# The first that matches counts. Kernel: any frame of the chain. Program: the innermost function.
KERNEL = [
    ("idle", r"do_idle|cpuidle|default_idle|pv_native_safe_halt"),
    ("file write and sync", r"ext4|xfs|btrfs|vfs_fsync|do_fsync|fdatasync|writeback|generic_perform_write|submit_bio|blk_|virtblk|iomap_"),
    ("socket", r"tcp_|sock_|inet_|skb_|__sys_sendto|__sys_recvfrom|net_rx|ip_rcv|loopback|vfs_writev|vfs_readv"),
    ("page faults, memory of the process", r"page_fault|do_anonymous_page|clear_page|madvise|munmap|mmap|zap_|exit_mm"),
    ("waking and switching threads", r"futex|schedule|try_to_wake_up|epoll|eventfd|nanosleep"),
]
PROGRAM = [
    ("TLS: AES-GCM", r"aes|gcm|ghash|aead"),
    ("BLAKE3", r"blake3"),
    ("CRC32C", r"crc32c"),
    ("copies in memory", r"memcpy|memmove|__mem|memset|copy_from_slice"),
    ("TLS: records", r"rustls"),
    ("HTTP/2, gRPC, protobuf", r"h2::|hyper|tonic|prost|http_body|bytes::|tower"),
    ("scheduling", r"tokio::|mio::|futures|parking_lot"),
    ("allocator", r"malloc|mi_|_mi|free|realloc"),
]


def named(rules, frames):
    for name, pattern in rules:
        if any(re.search(pattern, frame) for frame in frames):
            return name
    return "other"


def record(bench, out):
    folder = pathlib.Path(out).parent
    fifos = [str(folder / name) for name in ("control", "ack")]
    for fifo in fifos:
        os.mkfifo(fifo)
    command = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", str(HERTZ), "-g", "-D", "-1"]
    command += ["--control", "fifo:" + ",".join(fifos), "-o", out, "--", str(bench), "--bench", str(ROUNDS)]
    environment = {**os.environ, "PERF_CONTROL": fifos[0], "PERF_ACK": fifos[1]}
    subprocess.run(command, check=True, env=environment)


def samples(data):
    """Yields (process, is kernel, frames from the innermost on)."""
    text = subprocess.run(
        ["perf", "script", "-i", data, "-F", "comm,pid,ip,sym,dso"], check=True, capture_output=True, text=True
    ).stdout
    chains, owner = [], {}
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if len(lines) < 2:
            continue
        pid = re.search(r"\s(\d+)\s*$", lines[0])
        pid = int(pid.group(1)) if pid else -1
        frames = lines[1:]
        for frame in frames:
            if re.search(r"/ingest-[0-9a-f]+\)", frame):
                owner[pid] = "worker"
            elif re.search(r"/holdfast\)", frame):
                owner[pid] = "node"
        chains.append((pid, frames))
    for pid, frames in chains:
        kernel = "[kernel" in frames[0]
        inside = [frame for frame in frames if "[kernel" in frame] if kernel else frames[:1]
        yield owner.get(pid, "idle" if pid == 0 else "system"), kernel, inside


def main():
    bench = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=bench.parent) as folder:
        data = str(pathlib.Path(folder) / "perf.data")
        record(bench, data)
        counts, unnamed = collections.Counter(), collections.Counter()
        for process, kernel, frames in samples(data):
            rules = KERNEL if kernel else PROGRAM
            part = named(rules, frames)
            counts[process, ("kernel: " if kernel else "") + part] += 1
            if part == "other":
                unnamed[process, frames[0].split(None, 1)[-1][:80]] += 1
    total, mib = sum(counts.values()), ROUNDS * ROUND_MIB

    def shown(n):
        return f"{n / HERTZ * 1000 / mib:6.3f} ms/MiB {100 * n / total:5.1f} %"

    print(f"\nprofile: {total} samples of all cores while {mib} MiB travelled")
    for process in ("worker", "node", "system", "idle"):
        own = {part: n for (whose, part), n in counts.items() if whose == process}
        print(f"profile/{process}: {shown(sum(own.values()))} in all")
        for part, n in sorted(own.items(), key=lambda item: -item[1]):
            if process in ("worker", "node") and n * 500 >= total:
                print(f"profile/{process}: {shown(n)}  {part}")
    for (process, frame), n in unnamed.most_common(8):
        if process in ("worker", "node") and n * 500 >= total:
            print(f"profile/{process}: {shown(n)}  of other: {frame}")


if __name__ == "__main__":
    main()
