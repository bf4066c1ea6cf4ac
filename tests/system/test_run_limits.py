"""`pyrun run`: capabilities, seccomp, --privileged, resource limits, and what happens beyond a limit."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from command import Pyrun

NONE = "--network=none"
# chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw ...
DOCKERS = 0xA80425FB
CHOWN, NET_ADMIN, NET_RAW, SYS_RESOURCE, SYS_TIME = 0, 12, 13, 24, 25


def inside(pyrun: Pyrun, script: str, *options: str) -> str:
    return pyrun.ok("run", "--rm", NONE, *options, "busybox", "sh", "-c", script)


def bounding_of_this_host() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapBnd")), 16)


def sets(pyrun: Pyrun, *options: str) -> list[int]:
    """Inheritable, permitted, effective, bounding and ambient."""
    lines = inside(pyrun, "grep Cap /proc/self/status", *options).splitlines()
    return [int(line.split()[1], 16) for line in lines]


def test_default_capabilities(pyrun: Pyrun) -> None:
    assert sets(pyrun) == [0, DOCKERS, DOCKERS, DOCKERS, 0]


def test_adding_and_dropping(pyrun: Pyrun) -> None:
    assert sets(pyrun, "--cap-drop", "ALL") == [0] * 5
    two = 1 << NET_ADMIN | 1 << CHOWN
    options = ["--cap-drop", "all", "--cap-add", "NET_ADMIN", "--cap-add", "cap_chown"]
    assert sets(pyrun, *options) == [0, two, two, two, 0]
    more = DOCKERS & ~(1 << NET_RAW) | 1 << SYS_TIME
    assert sets(pyrun, "--cap-add", "CAP_SYS_TIME", "--cap-drop", "NET_RAW") == [0, more, more, more, 0]
    assert "unknown capability" in pyrun.fails(125, "run", NONE, "--cap-add", "FLY", "busybox", "true")


def test_all_means_what_this_host_has(pyrun: Pyrun) -> None:
    every = bounding_of_this_host() & ~(1 << NET_RAW)
    assert sets(pyrun, "--cap-add", "ALL", "--cap-drop", "NET_RAW") == [0, every, every, every, 0]


def test_a_capability_is_felt(pyrun: Pyrun) -> None:
    script = "chown 5 /etc/passwd 2>&- && echo yes || echo no"
    assert inside(pyrun, script) == "yes"
    assert inside(pyrun, script, "--cap-drop", "CHOWN") == "no"
    assert inside(pyrun, "ip link set lo mtu 9000 2>&- && echo yes || echo no") == "no"
    assert inside(pyrun, "ip link set lo mtu 9000 && echo yes", "--cap-add", "NET_ADMIN") == "yes"


def test_privileged(pyrun: Pyrun) -> None:
    script = (
        "grep -E 'CapEff|Seccomp:' /proc/self/status; stat -c '%n %t:%T' /dev/kmsg /dev/loop0; test -e /dev/console"
        " && echo console; grep -cE ' (/proc/keys|/proc/sys|/proc/timer_list|/sys/firmware) ' /proc/self/mountinfo;"
        " grep -E ' (/sys|/sys/fs/cgroup) ' /proc/self/mountinfo | cut -d' ' -f6 | cut -c1-2"
    )
    *rest, masked, sys_, cgroup = inside(pyrun, script, "--privileged").split()
    assert rest[1] == f"{bounding_of_this_host():016x}" and rest[3] == "0"
    assert rest[4:6] == ["/dev/kmsg", "1:b"] and "console" not in rest
    assert (masked, sys_, cgroup) == ("0", "rw", "rw")


def test_privileged_reads_a_device_that_others_may_not(pyrun: Pyrun) -> None:
    script = "mknod /tmp/kmsg c 1 11 && head -c0 /tmp/kmsg && echo open"
    assert inside(
        pyrun, "dd if=/dev/kmsg bs=4k count=1 2>&- | wc -l | grep -q 1 && echo open", "--privileged"
    )
    done = pyrun("run", "--rm", NONE, "busybox", "sh", "-c", script)
    assert "Operation not permitted" in done.stderr and "open" not in done.stdout.split()


def test_seccomp_profiles(pyrun: Pyrun, tmp_path: Path) -> None:
    state = "grep Seccomp: /proc/self/status | cut -f2"
    refuses = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 61}]}  # fmt: skip
    (tmp_path / "profile.json").write_text(json.dumps(refuses))
    assert inside(pyrun, state) == "2"
    assert inside(pyrun, state, "--security-opt", "seccomp=unconfined") == "0"
    made = f"{state}; mkdir /new 2>&1 || true"
    mine = ["--security-opt", f"seccomp={tmp_path}/profile.json"]
    assert inside(pyrun, made, *mine).splitlines() == [
        "2", "mkdir: can't create directory '/new': No data available",
    ]  # fmt: skip
    assert inside(pyrun, made, *mine, "--security-opt", "no-new-privileges").splitlines()[0] == "2"
    missing = pyrun.fails(125, "run", NONE, "--security-opt", "seccomp=/nosuch.json", "busybox", "true")
    assert "/nosuch.json" in missing


def test_system_paths_unconfined(pyrun: Pyrun) -> None:
    """As Docker's: nothing of /proc is hidden or read-only, /sys stays as it is."""
    script = "grep -c ' /proc/' /proc/self/mountinfo; grep -c ' /sys ro,' /proc/self/mountinfo"
    assert inside(pyrun, script, "--security-opt", "systempaths=unconfined").split() == ["0", "1"]
    assert inside(pyrun, script).split()[0] not in ("0", "1")


def test_the_default_profile_refuses(pyrun: Pyrun) -> None:
    script = "unshare -U true 2>&1; mount -t tmpfs t /mnt 2>&1; true"
    assert inside(pyrun, script).count("ermi") == 2


def test_no_new_privileges(pyrun: Pyrun) -> None:
    script = "grep NoNewPrivs /proc/self/status | cut -f2"
    assert inside(pyrun, script) == "0"
    assert inside(pyrun, script, "--security-opt", "no-new-privileges") == "1"
    assert inside(pyrun, script, "--security-opt", "no-new-privileges:true") == "1"
    assert "unknown --security-opt" in pyrun.fails(
        125, "run", NONE, "--security-opt", "x=y", "busybox", "true"
    )


def test_ulimit(pyrun: Pyrun) -> None:
    script = (
        'ulimit -n; ulimit -Hn; ulimit -c; for i in 3 4 5 6 7 8; do eval "exec $i</dev/null" || exit 9; done'
    )
    assert inside(pyrun, script, "--ulimit", "nofile=99:200", "--ulimit", "core=0").split() == [
        "99",
        "200",
        "0",
    ]
    assert pyrun("run", "--rm", NONE, "--ulimit", "nofile=6", "busybox", "sh", "-c", script).returncode != 0
    assert "invalid --ulimit" in pyrun.fails(125, "run", NONE, "--ulimit", "files=9", "busybox", "true")


@pytest.mark.needs("cgroup1")
def test_limits_in_cgroup_v1(pyrun: Pyrun) -> None:
    names = "memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max"
    options = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"]
    assert inside(pyrun, f"cd /sys/fs/cgroup; cat {names}", *options).split() == [
        "67108864", "50000", "100000", "20",
    ]  # fmt: skip


@pytest.mark.needs("cgroup2")
def test_limits_in_cgroup_v2(pyrun: Pyrun) -> None:
    options = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"]
    script = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max"
    assert inside(pyrun, script, *options).split() == ["67108864", "50000", "100000", "20"]


def test_beyond_the_pids_limit_fork_fails(pyrun: Pyrun) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all"
    done = pyrun("run", "--rm", NONE, "--pids-limit", "6", "busybox", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (2, "")
    assert "can't fork: Resource temporarily unavailable" in done.stderr


def test_beyond_the_memory_limit_the_process_is_killed(pyrun: Pyrun) -> None:
    assert pyrun("run", "--rm", NONE, "-m", "16m", "busybox", "tail", "/dev/zero").returncode == 137
    for text in ("5m", "much", "-1k", ""):
        if text:
            assert "--memory" in pyrun.fails(125, "run", NONE, f"-m={text}", "busybox", "true")


def test_cpus_are_throttled(pyrun: Pyrun) -> None:
    """A tenth of a processor: the same work takes several times as long."""
    script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
    spent = []
    for options in ([], ["--cpus", "0.1"]):
        began = time.monotonic()
        inside(pyrun, script, *options)
        spent.append(time.monotonic() - began)
    assert spent[1] > 2.5 * spent[0], spent


def test_what_init_forwards_and_stop_signal(pyrun: Pyrun) -> None:
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    process = pyrun.start("run", "--rm", NONE, "--init", "busybox", "sh", "-c", script)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert (process.wait(10), process.stdout.read()) == (3, "got it\n")
    assert "unknown signal 'FOO'" in pyrun.fails(125, "run", NONE, "--stop-signal", "FOO", "busybox", "true")


def test_no_root(pyrun: Pyrun) -> None:
    """A user who has nowhere to keep things: one line, and not a word about modules that cannot be read."""
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(pyrun.binary), "run", "busybox", "true"],
        env={"PATH": "/usr/bin:/bin", "PYRUN_RUNROOT": "/nonexistent/run"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (125, 126), done
    assert len(done.stderr.splitlines()) <= 2 and "Traceback" not in done.stderr
