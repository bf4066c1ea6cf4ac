"""`pyrun run` on cgroup v2: the limits in the files of the container's cgroup and felt inside; nothing left."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import urllib.request
from pathlib import Path

from command import Pyrun
from waiting import until

TOP = Path("/sys/fs/cgroup")
NONE = "--net=none"
SLEEP = ("busybox", "sleep", "1000")

# linux/bpf.h, asm/unistd_64.h
SYS_BPF, BPF_PROG_QUERY, BPF_CGROUP_DEVICE = 321, 16, 6


def cgroup_of(pid: int) -> Path:
    """The directory of a process's cgroup, as seen from here."""
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert line.startswith("0::/")
    return TOP / line.removeprefix("0::/")


def pid_of(pyrun: Pyrun, name: str) -> int:
    return int(str(pyrun.state(name)["pid"]))


def device_programs(cgroup: Path) -> int:
    """How many eBPF programs decide about devices in a cgroup: bpf(2), BPF_PROG_QUERY."""
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # target_fd attach_type query_flags attach_flags prog_ids prog_cnt, and what newer kernels add
        attributes = ctypes.create_string_buffer(
            struct.pack("=IIIIQI", fd, BPF_CGROUP_DEVICE, 0, 0, 0, 0), 64
        )
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.syscall(SYS_BPF, BPF_PROG_QUERY, attributes, 64) == 0, os.strerror(ctypes.get_errno())
        count: int = struct.unpack_from("=I", attributes, 24)[0]
        return count
    finally:
        os.close(fd)


def fetched(url: str) -> bytes:
    """What a web server answers; nothing if it does not."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            content: bytes = answer.read()
            return content
    except OSError:
        return b""


def test_limits_are_in_the_files_and_seen_inside(pyrun: Pyrun) -> None:
    options = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"]
    pyrun.ok("run", "-d", "--name", "limited", NONE, *options, *SLEEP)
    cgroup = cgroup_of(pid_of(pyrun, "limited"))
    names = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"]  # swap as Docker has it: as much again
    assert [(cgroup / name).read_text().strip() for name in names] == [
        str(64 << 20), str(64 << 20), "50000 100000", "20",
    ]  # fmt: skip
    inside = pyrun.ok("exec", "limited", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max")
    assert inside.splitlines() == [str(64 << 20), "50000 100000", "20"]
    # the container's own root of cgroups, which it may not write
    assert pyrun.ok("exec", "limited", "cat", "/proc/self/cgroup") == "0::/"
    assert "Read-only" in pyrun("exec", "limited", "mkdir", "/sys/fs/cgroup/mine").stderr


def test_every_process_is_in_the_cgroup(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "whole", NONE, *SLEEP)
    cgroup = cgroup_of(pid_of(pyrun, "whole"))
    pyrun.ok("exec", "-d", "whole", "sleep", "900")
    until(lambda: len((cgroup / "cgroup.procs").read_text().split()) == 2)
    monitor = int(str(pyrun.state("whole")["monitor_pid"]))
    assert cgroup_of(monitor) != cgroup


def test_devices_are_decided_by_a_program(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name", "guarded", NONE, *SLEEP)
    assert device_programs(cgroup_of(pid_of(pyrun, "guarded"))) == 1
    script = "mknod /d b 254 0; head -c1 /d; mknod /k c 1 11; head -c1 /k; head -c1 /dev/zero | wc -c; : >/dev/null"
    done = pyrun("exec", "guarded", "sh", "-c", script)
    assert done.stderr.count("Operation not permitted") == 2, done.stderr
    assert done.stdout.strip() == "1"


def test_a_privileged_container_may_use_every_device(pyrun: Pyrun) -> None:
    major, minor = Path("/sys/block/vda/dev").read_text().strip().split(":")
    script = f"mknod /d b {major} {minor}; head -c1 /d | wc -c"
    assert pyrun.ok("run", "--rm", NONE, "--privileged", "busybox", "sh", "-c", script) == "1"
    done = pyrun("run", "--rm", NONE, "busybox", "sh", "-c", script)
    assert "Operation not permitted" in done.stderr and done.stdout == "0\n"


def test_beyond_the_memory_limit(pyrun: Pyrun) -> None:
    assert pyrun("run", "--rm", NONE, "-m", "16m", "busybox", "tail", "/dev/zero").returncode == 137
    # only the one that asked for too much, where the first process is not it
    script = "tail /dev/zero; echo $?"
    assert pyrun.ok("run", "--rm", NONE, "-m", "16m", "busybox", "sh", "-c", script).splitlines()[-1] == "137"


def test_stop_leaves_no_cgroup(pyrun: Pyrun) -> None:
    pyrun.ok(
        "run",
        "-d",
        "--name",
        "brief",
        NONE,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 4' TERM; while :; do sleep 1; done",
    )
    cgroup = cgroup_of(pid_of(pyrun, "brief"))
    assert cgroup.is_dir()
    pyrun.ok("stop", "-t", "20", "brief")
    until(lambda: not cgroup.exists())


def test_reconcile_after_container_and_monitor_were_killed(pyrun: Pyrun) -> None:
    ident = pyrun.ok("run", "-d", "--name", "orphan", NONE, *SLEEP)
    pids = [int(str(pyrun.state("orphan")[key])) for key in ("monitor_pid", "pid")]
    cgroup = cgroup_of(pids[1])
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: "Exited" in pyrun.ok("ps", "-a"))
    assert cgroup.exists()
    assert pyrun.ok("system", "reconcile") == f"container {ident[:12]}: undid what it had left"
    assert not cgroup.exists()
    assert pyrun.ok("system", "reconcile") == "nothing to clean up"


def test_bridge_and_published_port(pyrun: Pyrun) -> None:
    script = "mkdir /www; echo hello >/www/index.html; exec httpd -f -h /www"
    pyrun.ok("run", "-d", "--name", "web", "--net=bridge", "-p", "8080:80", "busybox", "sh", "-c", script)
    until(lambda: fetched("http://127.0.0.1:8080/") == b"hello\n")
    address = pyrun.ok("exec", "web", "ip", "-4", "addr", "show", "dev", "eth0")
    assert "10.77.0." in address
    gateway = ["run", "--rm", "--net=bridge", "busybox", "ping", "-c1", "-W5", "10.77.0.1"]
    assert "1 packets received" in pyrun.ok(*gateway)
