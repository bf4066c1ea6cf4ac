"""Mounts that one side makes and the other sees: propagation of volumes and of the root.

"The host" is the mount namespace of a forked child; see mounted.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mounted import Run, bind, sh, tmpfs


def shared(directory: Path) -> Callable[[], None]:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(directory))
        sh("mount", "--make-shared", str(directory))
        (directory / "in").mkdir()
        (directory / "out").mkdir()

    return host


@pytest.mark.parametrize(
    ("root_word", "word", "events"),
    [
        (None, "", "from"), (None, "rslave", "from"), (None, "slave", "from"), (None, "rprivate", ""),
        (None, "private", ""),
        ("shared", "rshared", "from to"), ("shared", "shared", "from to"), ("shared", "rslave", "from"),
        ("rslave", "rslave", "from"), ("private", "rslave", ""), ("private", "shared", ""), (None, "rshared", "from"),
        ("shared", "rprivate", ""), ("shared", "unbindable", ""),
    ],
)  # fmt: skip
def test_mounts_of_one_side_seen_from_the_other(
    run: Run, source: Path, root_word: str | None, word: str, events: str
) -> None:
    """from: a mount the host makes in a volume appears in the container; to: the other way."""

    def meanwhile(pid: int) -> bool:
        sh("mount", "-t", "tmpfs", "tmpfs", str(source / "in"))
        (source / "in/seen").touch()
        return f" {source}/out " in Path("/proc/self/mountinfo").read_text()

    script = "mount -t tmpfs tmpfs /t/out; echo ready; read x; ls /t/in"
    linux_section = {"rootfsPropagation": root_word} if root_word else {}
    seen = run(
        bind(source, "rbind", *word.split()),
        host=shared(source),
        meanwhile=meanwhile,
        script=script,
        linux=linux_section,
    )
    assert seen.lines() == (["seen"] if "from" in events else [])
    assert seen.told is ("to" in events)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (None, {"master"}),
        ("slave", {"master"}),
        ("private", set()),
        ("unbindable", {"unbindable"}),
        ("shared", {"shared"}),
    ],
)
def test_propagation_of_the_root_itself(run: Run, root: Path, word: str | None, expected: set[str]) -> None:
    """On a host where everything is shared, as systemd makes it; nothing of the container's gets out."""

    def host() -> None:
        sh("mount", "--make-rshared", "/")

    def meanwhile(pid: int) -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]

    script = "mount -t tmpfs inner /t; echo ready; read x; cat /proc/self/mountinfo"
    (root / "t").mkdir()
    before = len(Path("/proc/self/mountinfo").read_text().splitlines())
    linux_section = {"rootfsPropagation": word} if word else {}
    seen = run(host=host, meanwhile=meanwhile, script=script, linux=linux_section)
    assert seen.mounts()["/"]["propagation"] == expected
    assert seen.told == []
    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == before


def test_letting_go_of_a_shared_host_takes_nothing_away_from_it(run: Run, source: Path) -> None:
    def host() -> None:
        sh("mount", "-t", "tmpfs", "tmpfs", str(source))
        sh("mount", "--make-rshared", "/")
        (source / "below").mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", str(source / "below"))

    def meanwhile(pid: int) -> bool:
        return f" {source}/below " in Path("/proc/self/mountinfo").read_text()

    assert (
        run(
            host=host, meanwhile=meanwhile, script="echo ready; read x", linux={"rootfsPropagation": "shared"}
        ).told
        is True
    )


@pytest.mark.parametrize("word", ["shared", "slave", "private", "unbindable"])
def test_propagation_of_a_file_system(run: Run, word: str) -> None:
    seen = run(tmpfs(word), tmpfs("r" + word, target="/u")).mounts()
    expected = {"private": set(), "slave": set()}.get(word, {word})
    assert seen["/t"]["propagation"] == seen["/u"]["propagation"] == expected
