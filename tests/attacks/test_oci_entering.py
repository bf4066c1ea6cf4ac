"""CVE-2019-5736 and CVE-2016-9962: who enters a container, as a hostile one sees it, by `pyrun-oci`; and where they get
to in a container that has no mount namespace.

Each attack returns what shows that it worked, nothing if it did not; see test_oci_links.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile

# What is taken out of the weakened builds.
BINARY_NOT_SEALED = (
    "sealing.py",
    r"linux\.mount_setattr\(fd, \"\", linux\.AT_EMPTY_PATH, _ATTRIBUTES\)",
    "pass",
)
DUMPABLE = ("init_security.c", r"failure\(prctl\(PR_SET_DUMPABLE, 0, 0, 0, 0\)\)", "0")
DUMPABLE_TOO = ("init_process.c", r"prctl\(PR_SET_DUMPABLE, 0, 0, 0, 0\) < 0", "0")
IN_THE_HOSTS_ROOT = (
    "engine/entering.py",
    r"\[\*entered, Operation\(\"CHROOT\", chroot\)\] if chroot else",
    "",
)
A_MOMENT_LONGER = (
    "init_command.c",
    r"    return execute\(plan->detail",
    "    usleep(20000);\n    return execute(plan->detail",
)


def attacked(arena: Any, attacker: Path, *words: str, enough: str = "\0") -> list[str]:
    """Lines of the attacker, the container's first process, while `exec` comes by again and again."""
    box = arena.box()
    shutil.copy(attacker, box.rootfs / "attacker")
    box.detach("/attacker", *words)
    deadline = time.monotonic() + float(words[-1]) - 0.5
    command = ["/proc/self/exe"] if words[0] == "overwrite" else ["sleep", "0.1"]
    while time.monotonic() < deadline and enough not in box._output.read_text():
        box.call("exec", "--detach", box.id, *command)
    lines = box._output.read_text().splitlines()
    box.call("delete", "--force", box.id)
    return lines


def test_programs_of_the_host_cannot_be_written_to(weak: Callable[..., Any], attacker: Path) -> None:
    """With a binary that nobody else executes meanwhile (then it would be busy), and nothing taken out."""
    refused = f"refused {errno.EROFS}"
    seen = attacked(weak(), attacker, "overwrite", "6", enough=refused)
    assert refused in seen and not [line for line in seen if line.startswith("COULD")], seen


def test_they_could_be_if_they_were_not_sealed(weak: Callable[..., Any], attacker: Path) -> None:
    seen = attacked(weak(BINARY_NOT_SEALED), attacker, "overwrite", "8", enough="COULD WRITE")
    assert [line for line in seen if line.startswith("COULD WRITE")], seen


def foreign_places(lines: list[str]) -> list[str]:
    """What `attacker look` saw of others' directories and files, but for the container's own."""
    own = {"/", "/bin/busybox", "/attacker"}
    found = [line.split(" ", 3) for line in lines]
    host = os.stat("/")
    root = f"{host.st_dev}:{host.st_ino}"
    foreign = [words for words in found if words[3] not in own or words[2] == root]
    return [" ".join(words) for words in foreign if not hostile.ALLOWED.fullmatch(words[3])]


def test_a_hostile_container_sees_nothing_of_those_who_enter(arena: Any, attacker: Path) -> None:
    lines = attacked(arena, attacker, "look", "4")
    assert any(line.startswith("root ") for line in lines), "nobody was seen at all"
    assert not foreign_places(lines)


def test_it_would_see_those_who_are_dumpable(weak: Callable[..., Any], attacker: Path) -> None:
    """The time between the last privilege and execve, made longer, so that seconds are enough to be seen in it."""
    arena = weak(DUMPABLE, DUMPABLE_TOO, A_MOMENT_LONGER)
    lines = attacked(arena, attacker, "look", "5")
    assert foreign_places(lines), lines


# ── a container without a mount namespace ──────────────────────────────────────────────────────────


def entered(arena: Any, climber: Path | None = None) -> list[str]:
    """What of the host `exec` shows in such a container; *climber*: the attacker's program, its first process."""
    box = arena.box()
    box.without_namespace("mount")
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    if climber:
        box.capabilities("CAP_SYS_CHROOT")
        shutil.copy(climber, box.rootfs / "attacker")
    box.detach(*(("/attacker", "climb") if climber else ()))
    if climber:
        assert (
            box.output(lambda text: "\n" in text) == "OUTSIDE"
        )  # that chroot is no wall is said in docs/security.md
    places = [str(arena.canary.directory), f"../../../../..{arena.canary.directory}"]
    done = box.call("exec", box.id, "/bin/busybox", "ls", *places)
    assert box.exec("/bin/busybox", "echo", "executed") == "executed"
    box.call("delete", "--force", box.id)
    return done.out.split()


def test_who_enters_a_chroot_is_in_it(arena: Any) -> None:
    assert not entered(arena)


def test_wherever_its_first_process_has_climbed_to(arena: Any, attacker: Path) -> None:
    assert not entered(arena, attacker)


def test_in_the_hosts_root_they_would_see_the_host(weak: Callable[..., Any]) -> None:
    assert entered(weak(IN_THE_HOSTS_ROOT))
