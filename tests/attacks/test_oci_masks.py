"""What of the kernel's files stays out of reach, by `pyrun-oci`; and sizes that are too much.

Each attack returns what shows that it worked, nothing if it did not; see test_oci_links.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
from pyrun import linux

VERBS = ("run", "create", "exec")
CGROUPS = Path("/sys/fs/cgroup")
OP_DOMAINNAME = linux.lib.OP_DOMAINNAME

# What is taken out of the weakened builds.
NOTHING_IS_MASKED = (
    "init_mounts.c",
    r"if \(mount_fd >= 0\) return attach_for\(plan, path, mount_fd, target_fd\);\n    close\(target_fd\);\n"
    r"    return status;\n\}\n\n/\* A directory or file mounted",
    "if (mount_fd >= 0) close(mount_fd);\n    close(target_fd);\n    return 0;\n}\n\n/* A directory or file mounted",
)

READ_ONLY_NOT = (
    "stages/mounts.py",
    r"attributes = asked\.set\n    own =",
    "attributes = asked.set & ~options.RDONLY\n    own =",
)
NOBODYS_OWN = ("stages/mounts.py", r"if not own and \(job\.rootless[^\n]*", "if False:")
NUL_IN_TEXTS = (
    "spec/check_rules.py",
    r'if type\(value\) is not str or "\\0" in value:\n        raise wrong\(path, "must be a string without NUL"',
    'if type(value) is not str:\n        raise wrong(path, "must be a string without NUL"',
)
NUL_IN_PLANS = ("plan/plan.py", r'if text\.count\("\\0"\) != [^\n]*', "if False:")


def unmasked(arena: Any, verb: str) -> list[str]:
    """CVE-2018-10892, GHSA-7ww5-4wqc-m92c: what linux.maskedPaths and readonlyPaths name, and `spec` by default."""
    box = arena.box()
    masked, locked = box.linux["maskedPaths"], box.linux["readonlyPaths"]
    script = (
        f'for p in {" ".join(masked)}; do [ -e $p ] || continue; if [ -d $p ]; then [ -z "$(ls $p)" ] || echo seen $p;'
        f" else [ -c $p ] && [ $(wc -c <$p) = 0 ] || echo seen $p; fi; done; for p in {' '.join(locked)}; do"
        ' grep -q " $p ro," /proc/self/mountinfo || [ ! -e $p ] || echo writable $p; done; echo end'
    )
    shown = arena.shown(box, verb, "sh", "-c", script)
    assert "end" in shown, shown
    return [line for line in shown.splitlines() if line != "end"]


@pytest.mark.parametrize("verb", VERBS)
def test_masked_and_read_only_paths(arena: Any, verb: str) -> None:
    assert not unmasked(arena, verb)


def test_masks_are_nobodys_to_change(arena: Any) -> None:
    """A masked file shows the host's /dev/null, whose owner is root: its mode, owner and times are not the container's.
    Everything is set to what it is, so that nothing happens to the host should it work."""
    box = arena.box()
    each = "for c in 'chmod 666' 'chown 0:0' 'touch -r /proc/keys'; do $c /proc/keys && echo changed; done"
    script = f"(ls /proc/keys && {each}) 2>&1; echo x >/proc/keys && echo end"
    shown = arena.shown(box, "run", "sh", "-c", script)
    assert "changed" not in shown and "Read-only" in shown and "end" in shown, shown


def test_paths_that_are_not_masked(weak: Callable[..., Any]) -> None:
    assert any(line.startswith("seen") for line in unmasked(weak(NOTHING_IS_MASKED), "run"))


@pytest.mark.parametrize("script", [
    ": >>$(ls /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent 2>/dev/null | head -1)",
    "mkdir /sys/fs/cgroup/x",
    "mkdir /sys/fs/cgroup/*/x", "touch /sys/fs/cgroup/x", "mount -o remount,rw /sys/fs/cgroup",
    "unshare -UrmC sh -c 'mount -t cgroup -o memory none /mnt && : >>/mnt/release_agent'",
])  # fmt: skip
@pytest.mark.parametrize("rootless", [False, True])
def test_the_hosts_cgroups_cannot_be_written(arena: Any, script: str, rootless: bool) -> None:
    """CVE-2022-0492, CVE-2023-25809: by root of the container, and by root of a user namespace without a cgroup one.

    None of these would harm the host if it worked: files are opened, and nothing is written to them.
    """
    box = arena.box()
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro", "relatime")
    if rootless:
        box.map_ids()
        box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] != "/dev/mqueue"]
    done = arena.go(box, "create", "sh", "-c", f"(echo began); {script}; echo status $?")
    assert "began" in done.out and "status 0" not in done.out, done
    assert not (CGROUPS / "x").exists() and not list(CGROUPS.glob("*/x"))


def cgroups_written(arena: Any, *, rootless: bool) -> list[str]:
    """Where a cgroup can be made below the container's own, whose files are its root's. rootless: in a user namespace,
    without a cgroup namespace, and by a config that does not say "ro"."""
    box = arena.box()
    box.mount(
        "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", *([] if rootless else ["ro"])
    )
    if rootless:
        box.map_ids()
        box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] != "/dev/mqueue"]
    box.create(
        "sh",
        "-c",
        "for d in /sys/fs/cgroup/*; do mkdir $d/x && rmdir $d/x && echo $d; done 2>/dev/null; echo end",
    )
    if rootless:
        for directory in CGROUPS.glob(f"*/**/{box.id}"):
            os.chown(directory, 100000, 100000)
    box.start()
    *written, _ = box.output(lambda text: text.endswith("end\n")).splitlines()
    return written


@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize("rootless", [False, True])
def test_its_own_cgroup_neither(arena: Any, rootless: bool) -> None:
    assert not cgroups_written(arena, rootless=rootless)


@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize("rootless", [False, True])
def test_it_could_be_written_if_it_were_not_read_only(weak: Callable[..., Any], rootless: bool) -> None:
    assert "/sys/fs/cgroup/memory" in cgroups_written(weak(READ_ONLY_NOT, NOBODYS_OWN), rootless=rootless)


def smuggled(arena: Any) -> str:
    """CVE-2021-43784, whose lists went over into other messages: a text of the config goes over into another operation
    (csrc/ops.h), which sets the domain name here. Refused, or one text."""
    box = arena.box()
    box.config["hostname"] = f"a\0{OP_DOMAINNAME}\0001\0smuggled"
    done = arena.go(box, "run", "cat", "/proc/sys/kernel/domainname")
    assert "Traceback" not in done.err, done
    return done.out.strip()


def test_no_text_goes_over_into_the_next_operation(arena: Any) -> None:
    assert not smuggled(arena)


def test_a_text_would_go_over(weak: Callable[..., Any]) -> None:
    assert smuggled(weak(NUL_IN_TEXTS, NUL_IN_PLANS)) == "smuggled"


def test_very_many_and_very_long_mounts(arena: Any) -> None:
    """CVE-2021-43784: lists longer than a netlink attribute can say, as runc sent them for user namespaces."""
    for count, length in ((1, 3900), (40, 1900), (400, 60), (1, 5000)):
        box = arena.box()
        box.map_ids()
        source = box.directory / "source"
        deep = source
        while len(str(deep)) + 201 < length:
            deep = deep / ("d" * 200)
        if length < 4096:
            deep.mkdir(parents=True)
        for number in range(count):
            box.bind(f"/mnt/{number}", deep, "ro")
        done = arena.go(box, "run", "sh", "-c", "grep -c ' /mnt/' /proc/self/mountinfo")
        assert "Traceback" not in done.err, done
        assert (done.status == 0 and done.out.strip() == str(count)) or (
            done.status and len(done.err) < 9000
        ), done


def test_the_state_is_roots(arena: Any) -> None:
    """Environment and arguments of a container are in its state: nobody else reads them."""
    with hostile.without_umask():
        box = arena.box()
        box.create("sleep", "10")
    directory = box.root / box.id
    assert not directory.stat().st_mode & 0o077
    for path in directory.rglob("*"):
        assert path.is_socket() or not path.lstat().st_mode & 0o022, path
