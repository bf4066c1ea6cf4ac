"""Whom a name means, and when it is free."""

from __future__ import annotations

import json
import subprocess
import time

from command import Pyrun
from pyrun.store import state


def test_ambiguous_and_unknown_references(pyrun: Pyrun) -> None:
    for start in ("aa0", "aa1"):
        directory = pyrun.root / "containers" / (start + "0" * 61)
        directory.mkdir(parents=True)
        (directory / "container.json").write_text("{}")
    assert "container 'aa' is ambiguous" in pyrun.fails(1, "rm", "aa")
    assert "no such container: ../names" in pyrun.fails(1, "rm", "../names")
    pyrun.ok("rm", "aa0", "aa1")


def test_a_name_of_a_start_that_was_killed_is_free(pyrun: Pyrun) -> None:
    """Whether it had written the name or not, and while it lives its name is its own."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    gone = subprocess.Popen(["true"])
    gone.wait()
    for content in (f"{'ef' * 32}\n{gone.pid} 1\n", ""):
        (pyrun.root / "names" / "lost").write_text(content)
        pyrun.ok("run", "--rm", "--net=none", "--name=lost", "busybox", "true")
    (pyrun.root / "names" / "lost").write_text(f"{'ef' * 32}\n1 {state.start_time(1)}\n")
    assert "being started" in pyrun.fails(125, "run", "--rm", "--net=none", "--name=lost", "busybox", "true")


def test_a_name_of_a_container_that_a_reboot_ended_is_free(pyrun: Pyrun) -> None:
    """With --rm, whose removal nobody came to: so a service that starts with the machine finds its name. Not of one
    that was begun since, which another run directory may know, nor without --rm."""
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    for number, (record, free) in enumerate(
        (({"rm": True, "created": 1.5}, True), ({"rm": True, "created": time.time()}, False),
         ({"rm": False, "created": 1.5}, False))
    ):  # fmt: skip
        ident, name = f"{number}d" * 32, f"lost{number}"
        directory = pyrun.root / "containers" / ident
        directory.mkdir()
        (directory / "container.json").write_text(json.dumps({"id": ident, "name": name, **record}))
        (pyrun.root / "names" / name).write_text(f"{ident}\n")
        done = pyrun("run", "--rm", "--net=none", f"--name={name}", "busybox", "true")
        assert (done.returncode == 0) is free and directory.exists() is not free, done
        assert free or "is in use by container" in done.stderr


def test_a_full_disk_is_no_bug_and_holds_no_name(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--rm", "--net=none", "busybox", "true")
    names = pyrun.root / "names"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", str(names)], check=True)
    try:
        (names / "fill").write_bytes(b"x" * 4096)
        told = pyrun.fails(125, "run", "--rm", "--net=none", "--name=web", "busybox", "true")
        assert f"{names}/web: No space left on device\nhint: the file system is full" in told
        assert [path.name for path in names.iterdir()] == ["fill"]
    finally:
        subprocess.run(["umount", str(names)], check=True)
