"""Links that a bundle, or another container, plants where `pyrun-oci` makes, mounts or masks something.

Each attack is a function that returns what shows that it worked, nothing if it did not. It is made on pyrun-oci, where
it must not work, and on a build without the protection, or on an old peer, where it must: else it proves nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
from oci.box import Box
from weakened import BY_PATH_ALONE, RESOLVES_ANYWHERE

NO_DEV = ("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
VERBS = ("run", "create")
SHOW = "cat /proc/self/mountinfo; head -c1 /dev/zero | wc -c"

# What is taken out of the weakened builds.
NULL_OF_THE_CONTAINER = (
    "init_mounts.c", r": host_null\(\)",
    ': clone_tree(open_in_root(plan, "dev/null", O_PATH), "", AT_EMPTY_PATH)')  # fmt: skip
PROC_ANYWHERE = ("init_mounts.c", r"!plan->through_link && fstat\(fd, &kind\)", "fstat(fd, &kind)")
ANY_NODE_WILL_DO = ("init_nodes.c", r"if \(is_node\(&there, mode, number\)\)", "if (1)")


def without_dev(box: Box) -> None:
    """No tmpfs on /dev, so that the bundle's own /dev is what devices, terminal and masks meet."""
    box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] not in NO_DEV]


def planted(arena: Any, name: str, target: str) -> Box:
    box: Box = arena.box()
    hostile.link(name, target)(box.rootfs)
    return box


# ── links that are there from the beginning ────────────────────────────────────────────────────────

PLACES = (
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/null",
    "/dev/console",
    "/proc",
    "/sys",
    "/etc",
    "/mnt",
    "/tmp",
)


def planted_link(arena: Any, verb: str, name: str) -> list[str]:
    """CVE-2019-18837, CVE-2019-19921, CVE-2026-41579, CVE-2026-47766: devices, mounts and masks behind it."""
    outside = str(arena.canary.directory / ("hosts" if name in ("/dev/null", "/dev/console") else "below"))
    for target in (outside, "../../../../../../../../../../.." + outside):
        box = planted(arena, name, target)
        if name.startswith("/dev"):
            without_dev(box)
        box.bind("/mnt/here/too", arena.canary.directory / "below", "ro")
        box.bind("/etc/hosts", arena.canary.directory / "hosts", "ro")
        box.mount("/tmp/made", "tmpfs", "tmpfs")
        box.linux["devices"] = [{"path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 438}]
        box.linux["maskedPaths"] += ["/mnt/here", "/dev/made"]
        done = arena.go(box, verb, "sh", "-c", SHOW)
        assert "Traceback" not in done.err, done
        if arena.harm():
            return arena.harm()
    return []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", PLACES)
def test_planted_links_lead_nowhere(arena: Any, name: str, verb: str) -> None:
    assert not planted_link(arena, verb, name)


@pytest.mark.parametrize("name", ["/dev", "/etc", "/mnt", "/tmp"])
def test_planted_links_lead_outside_without_resolve_in_root(weak: Callable[..., Any], name: str) -> None:
    assert planted_link(weak(RESOLVES_ANYWHERE), "create", name)


@pytest.mark.parametrize(("name", "newest"), [("runc", (1, 1, 5)), ("crun", (1, 8, 1))])
def test_a_link_for_dev_leads_an_old_peer_outside(
    old: Callable[..., Any], name: str, newest: tuple[int, ...]
) -> None:
    assert planted_link(old(name, newest), "run", "/dev")


def false_proc(arena: Any, verb: str, name: str) -> str:
    """CVE-2019-19921: proc or sysfs behind a link of the image, where the image has what it likes around it."""
    box = planted(arena, name, "/tmp/elsewhere")
    (box.rootfs / "tmp/elsewhere").mkdir()
    done = arena.go(box, verb, "true")
    return "" if "must be mounted on ordinary directory" in done.err and done.status else f"{done}"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["/proc", "/sys"])
def test_proc_and_sys_are_ordinary_directories(arena: Any, name: str, verb: str) -> None:
    assert not false_proc(arena, verb, name)


def test_without_that_check_they_need_not_be(weak: Callable[..., Any]) -> None:
    assert false_proc(weak(PROC_ANYWHERE), "create", "/sys")


FALSE_FILES = (
    "/proc",
    "/proc/self",
    "/proc/self/attr",
    "/proc/sys",
    "/proc/sys/net",
    "/proc/1/attr",
    "/proc/thread-self",
)


def false_files(arena: Any, verb: str, name: str, kind: str) -> str:
    """CVE-2019-16884, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881: something is put over what is written to."""
    box = arena.box()
    files = box.directory / "files"
    (files / "net/ipv4").mkdir(parents=True)
    (files / "net/ipv4/ip_default_ttl").write_text("lie\n")
    (files / "ipv4").symlink_to("net/ipv4")
    if kind == "bind":
        box.bind(name, files)
    else:
        box.mount(name, "tmpfs", "tmpfs")
    box.linux["sysctl"] = {"net.ipv4.ip_default_ttl": "77"}
    done = arena.go(box, verb, "cat", "/proc/sys/net/ipv4/ip_default_ttl", "/proc/self/attr/current")
    return "" if done.status and not done.out.strip("\0") else f"{done}"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("name", FALSE_FILES)
def test_nothing_is_mounted_over_what_is_written_to(arena: Any, name: str, kind: str, verb: str) -> None:
    assert not false_files(arena, verb, name, kind)


@pytest.mark.parametrize("verb", VERBS)
def test_links_into_proc_are_no_way_there(arena: Any, verb: str) -> None:
    """CVE-2025-52881: the mount's destination says nothing of /proc, a link of the image leads there."""
    for target in ("/proc", "/proc/sys/net", "../proc/self/attr"):
        box = planted(arena, "/mnt", target)
        box.mount("/mnt", "tmpfs", "tmpfs")
        done = arena.go(box, verb, "true")
        assert done.status and "/proc" in done.err, (target, done)


# ── devices, masks and the terminal ────────────────────────────────────────────────────────────────


def masked_by_a_link(arena: Any, verb: str) -> str:
    """CVE-2025-31133: what the bundle calls /dev/null is laid over the masked files."""
    box = planted(arena, "/dev/null", "/proc/sys/kernel/hostname")
    without_dev(box)
    box.linux["maskedPaths"] = ["/proc/timer_list", "/proc/sysrq-trigger"]
    box.linux["devices"] = []
    done = arena.go(
        box, verb, "sh", "-c", "cat /proc/timer_list /proc/sysrq-trigger; stat -c %F:%t:%T /proc/timer_list"
    )
    if done.status and not done.out:
        return ""  # refused
    return "" if "character special file:1:3" in done.out and "box" not in done.out else done.out or done.err


@pytest.mark.parametrize("verb", VERBS)
def test_a_planted_null_device_masks_nothing(arena: Any, verb: str) -> None:
    assert not masked_by_a_link(arena, verb)


def test_it_would_mask_with_the_containers_null(weak: Callable[..., Any]) -> None:
    assert "box" in masked_by_a_link(weak(NULL_OF_THE_CONTAINER, ANY_NODE_WILL_DO), "create")


def console(arena: Any, name: str, target: str) -> str:
    """CVE-2025-52565: /dev/console is a pseudo-terminal of the container's own devpts, whatever lies in the way."""
    for with_dev in (True, False):
        box = planted(arena, name, target)
        if not with_dev:
            without_dev(box)
        shown = arena.on_a_terminal(box, "sh", "-c", "stat -c 'console %F %t' /dev/console; echo is /dev/*")
        if arena.harm():
            return f"{arena.harm()}"
        if "console " in shown and "console character special file 88" not in shown:
            return shown
    return ""


@pytest.mark.parametrize("name", ["/dev", "/dev/pts", "/dev/ptmx", "/dev/console", "/dev/pts/0"])
def test_a_planted_terminal(arena: Any, name: str) -> None:
    assert not console(
        arena, name, str(arena.canary.directory / ("hosts" if name == "/dev/console" else "below"))
    )


def test_a_planted_terminal_without_resolve_in_root(weak: Callable[..., Any]) -> None:
    arena = weak(RESOLVES_ANYWHERE)
    assert console(arena, "/dev", str(arena.canary.directory / "below"))


# ── races: another container, which has the volume too, changes the place ──────────────────────────


def race(attacker: Path, a: Path, b: Path, act: Callable[[], object], seconds: float) -> int:
    """Repeat *act* while *a* and *b* change places as fast as the machine can; until it is true or the time is over."""
    count = 0
    with subprocess.Popen([str(attacker), "exchange", str(a), str(b), str(seconds + 2)]) as swapping:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            count += 1
            if act():
                break
        swapping.kill()
    return count


def swapped_target(arena: Any, attacker: Path, seconds: float) -> list[str]:
    """CVE-2021-30465, CVE-2024-45310: the parent of a mount's target is a directory, then a link ..."""
    volume = arena.directory / "volume"
    for name in ("real", "other"):
        (volume / name).mkdir(parents=True)
    (volume / "link").symlink_to("../../../../../../../../../.." + str(arena.canary.directory))
    box = arena.box()
    box.bind("/mnt", volume)
    box.bind("/mnt/real/deep/er", volume / "other")
    box.bind("/mnt/real/file", box.bundle / "config.json")
    box.write("sh", "-c", "cat /mnt/real/hosts")
    ends: set[int] = set()

    def start() -> bool:
        done = box.call("run", "--bundle", str(box.bundle), box.id)
        assert "alive" not in done.out and "Traceback" not in done.err, done
        ends.add(done.status)
        return bool(arena.harm())

    count = race(attacker, volume / "real", volume / "link", start, seconds)
    assert count > 5 or arena.harm(), f"only {count} attempts"
    return arena.harm()


def test_a_mount_target_that_is_swapped_for_a_link(arena: Any, attacker: Path) -> None:
    assert not swapped_target(arena, attacker, 4)


def test_that_race_is_lost_without_resolve_in_root(weak: Callable[..., Any], attacker: Path) -> None:
    assert swapped_target(weak(RESOLVES_ANYWHERE), attacker, 20)


def swapped_null(arena: Any, attacker: Path, seconds: float) -> str:
    """CVE-2025-31133 with a /dev that two containers share: null is a device, then a link, then a device ..."""
    shared = arena.directory / "dev"
    shared.mkdir()
    subprocess.run(["cp", "-a", "/dev/null", str(shared / "null")], check=True)
    (shared / "evil").symlink_to("/proc/sys/kernel/hostname")
    found = ""

    def start() -> bool:
        nonlocal found
        box = arena.box()
        without_dev(box)
        box.bind("/dev", shared)
        box.linux["maskedPaths"] = ["/proc/timer_list"]
        done = arena.go(box, "run", "sh", "-c", "stat -c '%F %t:%T' /proc/timer_list; cat /proc/timer_list")
        if done.out and done.out.splitlines() != ["character special file 1:3"]:
            found = done.out
        shutil.rmtree(box.rootfs)
        return bool(found)

    race(attacker, shared / "null", shared / "evil", start, seconds)
    return found


def test_a_null_device_that_is_swapped_for_a_link(arena: Any, attacker: Path) -> None:
    assert not swapped_null(arena, attacker, 3)


def test_that_race_is_lost_with_the_containers_null(weak: Callable[..., Any], attacker: Path) -> None:
    assert "box" in swapped_null(weak(NULL_OF_THE_CONTAINER), attacker, 20)


def swapped_mount(arena: Any, attacker: Path, verb: str, name: str, seconds: float) -> list[str]:
    """Who can write the root from outside swaps the directory of init's /proc or /sys with a link to an empty one: what
    is masked there would seem not to be there."""
    box = arena.box()
    (box.rootfs / "link").symlink_to("/tmp")
    found: list[str] = []
    shown = 0

    def start() -> bool:
        nonlocal shown
        done = arena.go(box, verb, "sh", "-c", hostile.while_it_is_swapped(name))
        assert "Traceback" not in done.err, done
        if "end" in done.out:
            shown += 1
            found.extend(hostile.unprotected(name, done.out))
        return bool(found)

    count = race(attacker, box.rootfs / name, box.rootfs / "link", start, seconds)
    assert shown > 3 or found, f"{shown} of {count} starts came so far"
    return found


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_mount_that_is_swapped_for_a_link_is_masked(
    arena: Any, attacker: Path, verb: str, name: str
) -> None:
    assert not swapped_mount(arena, attacker, verb, name, 4)


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_that_race_is_lost_by_path_alone(weak: Callable[..., Any], attacker: Path, name: str) -> None:
    assert swapped_mount(weak(BY_PATH_ALONE), attacker, "run", name, 20)
