"""Links that an image, a bundle or another container plants where a start makes, mounts or masks something.

Against them stand one descriptor of the root (RESOLVE_IN_ROOT) and a private procfs. Every test has a canary outside.
CVE-2019-19921, CVE-2019-18837, CVE-2021-30465, CVE-2024-45310, CVE-2025-31133, CVE-2025-52565, CVE-2026-41579.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from pyrun.spec.defaults import MASKED_PATHS, READONLY_PATHS
from weakened import BY_PATH_ALONE, RESOLVES_ANYWHERE

PLACES = (
    "/dev",
    "/proc",
    "/sys",
    "/etc",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/tmp",
    "/work/dir",
)
SHOW = "cat /proc/self/mountinfo; cat /etc/hosts; head -c1 /dev/zero | wc -c"


def targets(canary: hostile.Canary, name: str) -> list[str]:
    """The canary as an absolute link, and as one that climbs out of the root; a file of it where a file is expected."""
    outside = canary.directory / "hosts" if name.startswith("/etc/") else canary.directory
    return [str(outside), "../../../../../../../../../../../.." + str(outside)]


def planted(name: str, target: str, *, inside: bool, outside: Path) -> hostile.Change:
    """The link, and if *inside* a directory of the same path within the image, so that the start succeeds there."""

    def change(root: Path) -> None:
        if inside:  # first: from now on the link is in the way
            (root / str(outside).strip("/")).mkdir(parents=True)
            (root / str(outside).strip("/") / "hosts").write_text("inside\n")
        hostile.link(name, target)(root)

    return change


@pytest.mark.parametrize("name", PLACES)
def test_links_of_an_image_do_not_lead_outside(pyrun: Pyrun, canary: hostile.Canary, name: str) -> None:
    for number, target in enumerate(targets(canary, name)):
        for inside in (False, True) if name != "/tmp" else (False,):
            image = f"evil{number}{inside:d}"
            hostile.put_image(pyrun, image, planted(name, target, inside=inside, outside=canary.directory))
            options = ["--rm", "--net=none", "-w", "/work/dir/made", "--tmpfs=/tmp/made"]
            done = pyrun(
                "run",
                *options,
                "-v",
                f"{canary.directory}/below:/tmp/mounted/here:ro",
                image,
                "sh",
                "-c",
                SHOW,
            )
            assert canary.unchanged(), (name, target, inside)
            assert done.returncode == 0 or done.stderr.startswith("pyrun: "), done
            if name in ("/proc", "/sys"):  # never through a link, wherever it leads (CVE-2019-19921)
                assert "must be mounted on ordinary directory" in done.stderr
            else:
                assert done.returncode == 0 or not inside, done
            assert "alive" not in done.stdout, done.stdout
    assert not any((pyrun.root / "containers").iterdir())


def test_links_of_an_image_would_lead_outside(
    pyrun: Pyrun, canary: hostile.Canary, weak_installation: Callable[..., Path]
) -> None:
    """CVE-2025-24965: the files that are shown in /etc are made where its link leads."""
    pyrun.binary = weak_installation(RESOLVES_ANYWHERE).with_name("pyrun")
    hostile.put_image(
        pyrun, "evil", planted("/etc", f"{canary.directory}/below", inside=False, outside=canary.directory)
    )
    pyrun("run", "--rm", "--net=none", "evil", "true")
    assert {path.name for path in (canary.directory / "below").iterdir()} >= {"hosts", "resolv.conf"}


@pytest.mark.parametrize("name", ["/dev", "/dev/pts", "/dev/null", "/dev/console", "/proc", "/sys", "/mnt"])
def test_links_of_a_bundle_do_not_lead_outside(
    pyrun: Pyrun, canary: hostile.Canary, tmp_path: Path, name: str
) -> None:
    """Without a tmpfs on /dev, so that the bundle's own /dev is what devices, terminal and masks meet."""
    mounts = [each for each in hostile.BUNDLE_MOUNTS if each["destination"] != "/dev"]
    volume = {
        "destination": "/mnt/here",
        "type": "bind",
        "source": str(canary.directory / "below"),
        "options": ["ro"],
    }
    linux = {"maskedPaths": ["/proc/timer_list", "/proc/kcore", "/sys/firmware"], "readonlyPaths": ["/proc/sys"],
             "sysctl": {"net.ipv4.ip_forward": "1"}}  # fmt: skip
    for number, target in enumerate(targets(canary, name)):
        change = planted(
            name, target + ("/null" if name == "/dev/null" else ""), inside=False, outside=canary.directory
        )
        bundle = hostile.put_bundle(pyrun, tmp_path / f"bundle{number}", change, args=["sh", "-c", SHOW],
                                    mounts=[*mounts, volume], linux=linux)  # fmt: skip
        done = pyrun("run", "--bundle", str(bundle))
        assert canary.unchanged(), (name, target)
        assert done.returncode == 0 or done.stderr.startswith("pyrun: "), done


def test_a_planted_null_device_masks_nothing(pyrun: Pyrun, tmp_path: Path) -> None:
    """CVE-2025-31133: masks come from the host's /dev/null, not from what the root calls so."""
    bound = {"destination": "/dev", "type": "bind", "source": "rootfs/planted", "options": ["bind"]}
    mounts = [bound if each["destination"] == "/dev" else each for each in hostile.BUNDLE_MOUNTS]
    script = "stat -c '%F %t:%T' /proc/timer_list /proc/kcore; wc -c </proc/timer_list; cat /proc/mounts"
    bundle = hostile.put_bundle(
        pyrun, tmp_path / "bundle", hostile.link("/planted/null", "/proc/sys/kernel/hostname"), mounts=mounts,
        args=["sh", "-c", script], linux={"maskedPaths": ["/proc/timer_list", "/proc/kcore"]},
    )  # fmt: skip
    shown = pyrun.ok("run", "--bundle", str(bundle)).splitlines()
    kind = "character special file 1:3"
    assert shown[:3] in ([kind, kind, "0"], [kind, "0", shown[2]]), shown[:4]


@pytest.mark.parametrize("name", ["/dev/pts", "/dev/ptmx", "/dev/console", "/dev"])
def test_a_planted_terminal(pyrun: Pyrun, canary: hostile.Canary, tmp_path: Path, name: str) -> None:
    """CVE-2025-52565: the terminal and /dev/console are a pseudo-terminal of the container's own devpts, or none."""
    for with_dev in (True, False):
        mounts = [each for each in hostile.BUNDLE_MOUNTS if with_dev or each["destination"] != "/dev"]
        bundle = hostile.put_bundle(
            pyrun, tmp_path / f"bundle{with_dev}", hostile.link(name, canary.directory), terminal=True, mounts=mounts,
            args=["sh", "-c", "stat -c 'console %F %t' /dev/console; readlink /proc/self/fd/0"],
        )  # fmt: skip
        shown = hostile.on_a_terminal([str(pyrun.binary), "run", "--bundle", str(bundle)], pyrun.env)
        assert canary.unchanged()
        # a link inside the image leads to a place inside the image, whatever its name on the host
        terminal = any(
            f"{place}/0" in shown for place in ("/dev/pts", canary.directory, f"{canary.directory}/pts")
        )
        assert ("console character special file 88" in shown and terminal) or "pyrun: " in shown, shown
        assert not with_dev or name == "/dev" or "console" in shown, shown


# ── races ──────────────────────────────────────────────────────────────────────────────────────────


def race(attacker: Path, a: Path, b: Path, act: Callable[[], object], seconds: float) -> int:
    """Repeat *act* while *a* and *b* change places as fast as the machine can; how often it was done.

    For *seconds*, and on a busy machine until it was done twenty times, but never for more than half a minute.
    """
    count = 0
    with subprocess.Popen([str(attacker), "exchange", str(a), str(b), "40"]) as swapping:
        began = time.monotonic()
        while (spent := time.monotonic() - began) < seconds or (count < 20 and spent < 30):
            act()
            count += 1
        swapping.kill()
    return count


def test_a_mount_target_that_is_swapped_for_a_link(
    pyrun: Pyrun, canary: hostile.Canary, attacker: Path, tmp_path: Path
) -> None:
    """CVE-2021-30465 and CVE-2024-45310: a second container, which has the volume too, swaps the target's parent."""
    volume = tmp_path / "volume"
    for name in ("real", "other"):
        (volume / name).mkdir(parents=True)
    (volume / "link").symlink_to("../../../../../../../../../.." + str(canary.directory))
    statuses: list[int] = []
    seen: set[bool] = set()

    def start() -> None:
        seen.add((volume / "real").is_symlink())
        options = [
            "--rm",
            "--net=none",
            "-v",
            f"{volume}:/volume",
            "-v",
            f"{tmp_path}/volume/other:/volume/real/deep/er",
        ]
        done = pyrun("run", *options, "busybox", "sh", "-c", "cat /proc/mounts; ls /volume/real/hosts")
        assert "alive" not in done.stdout and "/volume/real/hosts\n" not in done.stdout, done
        assert done.returncode in (1, 125) and "Traceback" not in done.stderr, done
        statuses.append(done.returncode)

    race(attacker, volume / "real", volume / "link", start, 4)
    assert canary.unchanged()
    # How a start ends (1: its target was made, and the listing fails; 125: it changed under the start) is the
    # scheduler's choice. That there was a race shows in both faces of the target, that it can be lost in the control.
    assert len(statuses) > 15 and set(statuses) <= {1, 125}, statuses
    assert seen == {True, False}
    assert not any(str(tmp_path) in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def swapped_mount(pyrun: Pyrun, attacker: Path, directory: Path, seconds: float) -> list[str]:
    """Who can write a bundle's root from outside swaps the directory of init's /proc with a link to an empty one: what
    is masked there would seem not to be there."""
    linux = {"maskedPaths": MASKED_PATHS, "readonlyPaths": READONLY_PATHS}
    script = hostile.while_it_is_swapped("proc")
    link = hostile.link("/link", "/tmp")
    bundle = hostile.put_bundle(pyrun, directory, link, args=["sh", "-c", script], linux=linux)
    found: list[str] = []
    shown = 0

    def start() -> None:
        nonlocal shown
        done = pyrun("run", "--bundle", str(bundle))
        assert "Traceback" not in done.stderr, done
        if "end" in done.stdout:
            shown += 1
            found.extend(hostile.unprotected("proc", done.stdout))

    race(attacker, bundle / "rootfs/proc", bundle / "rootfs/link", start, seconds)
    assert shown > 3
    return found


def test_a_mount_that_is_swapped_for_a_link_is_masked(pyrun: Pyrun, attacker: Path, tmp_path: Path) -> None:
    assert not swapped_mount(pyrun, attacker, tmp_path / "bundle", 4)


def test_that_race_is_lost_by_path_alone(
    pyrun: Pyrun, attacker: Path, tmp_path: Path, weak_installation: Callable[..., Path]
) -> None:
    pyrun.binary = weak_installation(BY_PATH_ALONE).with_name("pyrun")
    for number in range(4):
        if swapped_mount(pyrun, attacker, tmp_path / f"bundle{number}", 4):
            return
    pytest.fail("the attacker was too slow to prove anything")


def test_the_race_is_one(canary: hostile.Canary, attacker: Path, tmp_path: Path) -> None:
    """The control: who looks first and makes directories by path afterwards, makes them in the canary."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(canary.directory)

    def careless() -> None:
        place = tmp_path / "real"
        if not place.is_symlink():
            try:
                os.makedirs(place / "deep", exist_ok=True)
            except OSError:
                return

    for _ in range(4):
        race(attacker, tmp_path / "real", tmp_path / "link", careless, 1)
        if (canary.directory / "deep").exists():
            return
    pytest.fail("the attacker was too slow to prove anything")
