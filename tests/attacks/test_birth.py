"""A process of ours that is stopped in the moment it appears in a hostile container's pid namespace.

The attacker may trace (CAP_SYS_PTRACE): there is nothing that such a process has and can hide. So it must have nothing
that the container has not (csrc/init_birth.c). `attacker stop` stops whatever gets the next pid and tells what it has.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
import weakened
from command import Pyrun
from planners import WARM, Planner
from waiting import PATIENCE

TRACING = ["CAP_KILL", "CAP_SYS_PTRACE"]
# Of Docker's capabilities and CAP_SYS_PTRACE.
IMAGE_MASK = 0xA80425FB | 1 << 19
BOX_MASK = 1 << 5 | 1 << 19
# Of an attack: an emulated machine does less in that time.
SECONDS = 4 * min(PATIENCE, 4.0)
# What the child has beside its streams: its connection to the planner.
MOST_DESCRIPTORS = 4

# What is taken out of the weakened builds.
PRIVILEGED_WAIT = (
    "plan/plan.py",
    r"if job\.start_early else \[\]\)",
    "if job.start_fd >= 0 else [])",
)
LINUX_BEFORE_6_18 = ("init_procfs.c", r'"pidns"', '"unknown"')


def too_much(lines: list[str], mask: int) -> list[str]:
    """What was seen of a process and the container has not."""
    host = os.stat("/")
    root = f"{host.st_dev}:{host.st_ino}"
    spaces = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "ipc", "uts", "cgroup", "pid")}
    found = []
    for line in lines:
        word, *rest = line.split()
        wrong = {
            "root": lambda words: words[1] == root,
            "cwd": lambda words: words[1] == root or words[2] != "/",
            "fd": lambda words: not hostile.ALLOWED.fullmatch(words[2]) and words[2][:8] != "socket:[",
            "namespace": lambda words: words[0] in spaces,
            "CapPrm:": lambda words: int(words[0], 16) & ~mask,
            "CapBnd:": lambda words: int(words[0], 16) & ~mask,
            "descriptors": lambda words: int(words[0]) > MOST_DESCRIPTORS,
        }.get(word)
        if wrong and wrong(rest):
            found.append(line)
    return found


def hostile_box(arena: Any, attacker: Path, mode: str, seconds: float) -> Any:
    box = arena.box()
    shutil.copy(attacker, box.rootfs / "attacker")
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), TRACING)
    box.detach("/attacker", mode, str(seconds))
    return box


def while_it_attacks(arena: Any, attacker: Path, come_by: Callable[[Any], object]) -> list[str]:
    """What the attacker saw while *come_by* was called again and again with its box."""
    box = hostile_box(arena, attacker, "stop", SECONDS)
    deadline = time.monotonic() + SECONDS - 0.5
    while time.monotonic() < deadline:
        come_by(box)
    lines: list[str] = box._output.read_text().splitlines()
    box.call("delete", "--force", box.id)
    assert "stopped" in lines, "none was stopped"
    return lines


def by_exec(box: Any) -> None:
    box.call("exec", "--detach", box.id, "sleep", "0.1")


@pytest.mark.parametrize("options", [(), ("--user", "1000:1000"), ("--cap", "CAP_KILL")])
def test_exec_brings_nothing_along(arena: Any, attacker: Path, options: tuple[str, ...]) -> None:
    come_by = lambda box: box.call("exec", "--detach", *options, box.id, "sleep", "0.1")  # noqa: E731
    assert not too_much(while_it_attacks(arena, attacker, come_by), BOX_MASK)


def test_descriptors_that_stay_would_be_seen(weak: Callable[..., Any], attacker: Path) -> None:
    assert too_much(while_it_attacks(weak(weakened.DESCRIPTORS_STAY), attacker, by_exec), BOX_MASK)


@pytest.mark.parametrize("warm", [False, True])
def test_exec_of_an_image_brings_nothing_along(
    pyrun: Pyrun, attacker: Path, tmp_path: Path, warm: bool
) -> None:
    hostile.put_image(pyrun, "evil", lambda root: shutil.copy(attacker, root / "attacker"))
    out = tmp_path / "out"
    out.mkdir()
    attack = "exec /attacker stop 5 >/out/seen"
    options = ("--cap-add=SYS_PTRACE", "--net=none", "-v", f"{out}:/out")
    pyrun.ok("run", "-d", "--name=victim", *options, "evil", "sh", "-c", attack)
    if warm:
        pyrun.env.update(WARM)
        pyrun("exec", "victim", "true")
        Planner(pyrun).ready()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        pyrun("exec", "-d", "victim", "sleep", "0.1")
    lines = (out / "seen").read_text().splitlines()
    if warm:
        Planner(pyrun).end()
    assert "stopped" in lines and not too_much(lines, IMAGE_MASK)


# ── containers that share its pid namespace ────────────────────────────────────────────────────────


def in_its_namespace(arena: Any, box: Any, *args: str) -> Any:
    joining = arena.box()
    joining.namespace("pid", f"/proc/{box.pid}/ns/pid")
    joining.detach(*(args or ("sleep", "0.1")))
    return joining


@pytest.mark.parametrize("changes", [(), (LINUX_BEFORE_6_18,)], ids=["pidns", "from inside"])
def test_a_container_that_joins_brings_nothing_along(
    weak: Callable[..., Any], attacker: Path, changes: tuple[Any, ...]
) -> None:
    arena = weak(*changes)
    lines = while_it_attacks(
        arena,
        attacker,
        lambda box: in_its_namespace(arena, box).call("delete", "--force", arena.boxes[-1].id),
    )
    handed_over = "anon_inode:[fscontext]"
    lines = [line for line in lines if not line.endswith(handed_over)]
    assert not too_much(lines, BOX_MASK | sum(1 << number for number in (29, 10)))


@pytest.mark.parametrize("changes", [(), (LINUX_BEFORE_6_18,)], ids=["pidns", "from inside"])
def test_its_procfs_shows_the_namespace_it_joins(weak: Callable[..., Any], changes: tuple[Any, ...]) -> None:
    arena = weak(*changes)
    box = arena.box()
    box.detach("sleep", "1234")
    joining = in_its_namespace(arena, box, "sh", "-c", "cat /proc/1/cmdline; readlink /proc/self; sleep 100")
    words = joining.output(lambda text: text.count("\n")).replace("\0", " ").split()
    assert words[:2] == ["sleep", "1234"] and 1 < int(words[2]) < 100


def test_a_hook_is_not_seen_in_a_namespace_that_is_joined(arena: Any) -> None:
    """It is a process of the host's: before the pivot, with all capabilities."""
    box = arena.box()
    box.detach("sleep", "1000")
    joining = arena.box()
    look = f"test $(readlink /proc/self/ns/pid) != $(readlink /proc/{box.pid}/ns/pid) || exit 1; echo $PPID"
    joining.config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]}
    joining.namespace("pid", f"/proc/{box.pid}/ns/pid")
    joining.detach("sleep", "1000")
    assert os.readlink(f"/proc/{joining.pid}/ns/pid") == os.readlink(f"/proc/{box.pid}/ns/pid")


# ── a created container, which others may enter ────────────────────────────────────────────────────


def permitted(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapPrm:")[2].split()[0], 16)


@pytest.mark.parametrize("shared", [False, True])
def test_what_waits_for_start_has_no_privileges(arena: Any, shared: bool) -> None:
    other, box = arena.box(), arena.box()
    box.process["noNewPrivileges"] = False
    box.process["oomScoreAdj"] = 5  # written through a procfs of init's own
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    if shared:
        other.detach("sleep", "1000")
        box.namespace("pid", f"/proc/{other.pid}/ns/pid")
    box.create("sleep", "100")
    assert permitted(box.pid) == permitted_by_config(box)
    assert {each.name for each in Path(f"/proc/{box.pid}/fd").iterdir()} <= {"0", "1", "2", "7"}
    box.start()
    assert box.status == "running" and permitted(box.pid) == permitted_by_config(box)


def permitted_by_config(box: Any) -> int:
    numbers = {"CAP_AUDIT_WRITE": 29, "CAP_KILL": 5, "CAP_NET_BIND_SERVICE": 10}
    return sum(1 << numbers[name] for name in box.process["capabilities"]["permitted"])


def test_what_waits_would_have_them(weak: Callable[..., Any]) -> None:
    box = weak(PRIVILEGED_WAIT).box()
    box.create("sleep", "100")
    assert permitted(box.pid) != permitted_by_config(box)


def test_what_waits_would_have_a_procfs_without_masks(weak: Callable[..., Any]) -> None:
    box = weak(weakened.DESCRIPTORS_STAY).box()
    box.process["oomScoreAdj"] = 5  # written through one of init's own
    box.create("sleep", "100")
    kernel = [each for each in Path(f"/proc/{box.pid}/fd").iterdir() if (each / "sys/kernel").exists()]
    assert kernel


def test_exec_is_refused_where_the_filter_makes_it_wait_with_privileges(arena: Any) -> None:
    box = arena.box()
    box.process["noNewPrivileges"] = False
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["accept4"], "action": "SCMP_ACT_ERRNO"}],
    }
    box.create("sleep", "100")
    assert "with all privileges" in box.fails("exec", box.id, "true")
    box.start()
    assert box.exec("echo", "there") == "there"
    other = arena.box()
    other.config = box.config | {"linux": {**box.linux, "cgroupsPath": other.linux["cgroupsPath"]}}
    other.namespace("pid", f"/proc/{box.pid}/ns/pid")
    assert "allow accept4" in other.refuses()


# ── whoever is stopped holds nobody up ─────────────────────────────────────────────────────────────


def held(box: Any) -> subprocess.Popen[bytes]:
    """An `exec` whose process was stopped before it executed the command: most are not in the first try."""
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline:
        entering = subprocess.Popen(
            box.runtime.command(box.root, ("exec", box.id, "true")), stdin=subprocess.DEVNULL
        )
        try:
            entering.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if b"pyrun-monitor" not in Path(f"/proc/{entering.pid}/cmdline").read_bytes():
                return entering
            entering.kill()
            entering.wait()
    raise AssertionError("none was stopped in time")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exec_ends_when_the_container_has_stopped_its_process(
    arena: Any, attacker: Path, number: signal.Signals
) -> None:
    box = hostile_box(arena, attacker, "hold", 60)
    entering = held(box)
    entering.send_signal(number)
    assert entering.wait(timeout=5) != 0
    box.call("delete", "--force", box.id)


def test_exec_into_what_is_frozen_ends_too(arena: Any) -> None:
    """With cgroup v2 the process is born there, and then it is before its first system call."""
    box = arena.box()
    box.detach("sleep", "1000")
    box.ok("pause", box.id)
    entering = subprocess.Popen(
        box.runtime.command(box.root, ("exec", "--ignore-paused", box.id, "true")), stdin=subprocess.DEVNULL
    )
    with pytest.raises(subprocess.TimeoutExpired):
        entering.wait(timeout=0.5)
    entering.send_signal(signal.SIGTERM)
    assert entering.wait(timeout=5) == -signal.SIGTERM
    box.ok("resume", box.id)
    assert box.exec("echo", "there") == "there"
