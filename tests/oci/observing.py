"""The catalogue: what an entry is, what is compared, and how a difference is declared.

An entry prepares and observes a box; what it returns are facts by name, in words that no runtime chooses freely: exit
status, what the container and the kernel say, and whether an error has the key word that scripts look for. Times and
wording are promised by none of them. The entries are in bundles.py and lines.py; test_catalogue.py compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from oci.box import Box

Facts = dict[str, object]
Observe = Callable[[Box], Facts]


class Difference(NamedTuple):
    """With *peer* these facts are others, and *why* (* in a fact: any text). unwanted: ours is not what we want."""

    peer: str
    facts: tuple[str, ...]
    why: str
    unwanted: bool = False


class Entry(NamedTuple):
    """One bundle or command line."""

    name: str
    observe: Observe
    differences: tuple[Difference, ...]


# The versions that the differences are declared of.
VERSIONS = {"runc": (1, 1, 5), "crun": (1, 8, 1)}
ENTRIES: list[Entry] = []


def entry(*differences: Difference) -> Callable[[Observe], Observe]:
    """Put a function into the table."""

    def add(observe: Observe) -> Observe:
        ENTRIES.append(Entry(observe.__name__.replace("_", " "), observe, differences))
        return observe

    return add


def _declare(peer: str) -> Callable[..., Difference]:
    return lambda why, *facts, unwanted=False: Difference(peer, facts, why, unwanted)


runc, crun = _declare("runc"), _declare("crun")


# ── observing ──────────────────────────────────────────────────────────────────────────────────────


def ran(box: Box, script: str, *words: str, options: tuple[str, ...] = ()) -> Facts:
    """`run` of a shell script: its status, its lines, and which of these words an error has."""
    return ended(box, ["sh", "-c", script], *words, options=options)


def ended(box: Box, args: list[str], *words: str, options: tuple[str, ...] = ()) -> Facts:
    """The same of any program."""
    box.process["args"] = args
    box.write()
    return called(box, "run", *options, "--bundle", str(box.bundle), box.id, words=words)


def called(box: Box, *line: str, words: tuple[str, ...] = (), **keywords: Any) -> Facts:
    """A call of the runtime."""
    done = box.call(*line, **keywords)
    said = done.err.lower()
    return {"status": done.status, "out": done.out.splitlines()} | {
        f"says {word}": word in said for word in words
    }


def named(name: str, facts: Facts) -> Facts:
    """Of one step among others."""
    return {f"{name}: {fact}": value for fact, value in facts.items()}


SECTIONS = {
    "ids": "grep -E '^(Uid|Gid|Groups):' /proc/self/status",
    "capabilities": "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
    "mounts": "cat /proc/self/mountinfo",
    "limits": "cat /proc/self/limits",
    "cgroups": "cat /proc/self/cgroup",
    "oom_score_adj": "cat /proc/self/oom_score_adj",
    "umask": "umask",
    "cwd": "pwd",
    "environment": "env",
    "descriptors": "ls /proc/self/fd",
    "dev": "stat -c '%n %A %u:%g %t:%T %N' /dev/*",
    "dev/pts": "ls /dev/pts /dev/shm",
    "names": "hostname; cat /proc/sys/kernel/domainname",
    "links": "ip -o link | cut -d: -f2,3 | cut -d' ' -f2,3",
    "pid 1": "cat /proc/1/comm; grep -E '^(NSpid|NSsid|SigIgn|SigBlk|Threads|THP)' /proc/1/status",
    "session": "cut -d' ' -f5,6,7,8 /proc/1/stat",
    "keyring": "grep -c _ses /proc/keys",
    "dumpable": "stat -c %u:%g /proc/1/environ",
}
_MARK = "════ "


def everything(box: Box) -> Facts:
    """`run`: what a process can see of itself and its surroundings, one fact a section."""
    script = "".join(f"echo '{_MARK}{name}'; ({line}) 2>&1\n" for name, line in SECTIONS.items())
    done = ran(box, script)
    out = done["out"]
    assert isinstance(out, list)
    facts: Facts = {"status": done["status"]}
    lines: list[str] = []
    for line in out:
        if line.startswith(_MARK):
            facts[line.removeprefix(_MARK)] = lines = []
        else:
            lines.append(line)
    for line in facts.pop("mounts"):  # type: ignore[attr-defined]
        place, shown = _mount(line)
        facts[f"mount {place}"] = shown
    for line in facts.pop("dev"):  # type: ignore[attr-defined]
        name, _, shown = line.partition(" ")
        facts[f"node {name}"] = shown
    # crun is called where the unified hierarchy is not (runtime.py)
    facts["cgroups"] = sorted(
        line.partition(":")[2]
        for line in facts["cgroups"]
        if line[:3] != "0::"  # type: ignore[attr-defined]
    )
    # Whether the C library's own signals 32 and 33 are ignored is as whoever started the tests had it
    facts["pid 1"] = [_without_own_signals(line) for line in facts["pid 1"]]  # type: ignore[attr-defined]
    for name in ("environment", "dev/pts"):
        facts[name] = sorted(facts[name])  # type: ignore[call-overload]
    return facts


def _without_own_signals(line: str) -> str:
    name, _, mask = line.partition(":\t")
    return f"{name}:\t{int(mask, 16) & ~(3 << 31):016x}" if name == "SigIgn" else line


def _mount(line: str) -> tuple[str, str]:
    """Place; options, propagation, type and source, without numbers that are each mount's own."""
    head, _, tail = line.partition(" - ")
    _, _, _, root, place, options, *optional = head.split()
    kind, source, superblock = tail.split(" ", 2)
    flags = ",".join(sorted(options.split(",")))
    own = sorted(each for each in superblock.split(",") if not each.startswith(("inode", "nr_inodes")))
    spread = ",".join(each.partition(":")[0] for each in optional)
    shown = root if kind in ("proc", "sysfs") else ""
    return place, f"{flags} {spread or '-'} {kind} {source} {shown} {','.join(own)}"


def running(box: Box, *args: str) -> None:
    box.detach(*(args or ("sleep", "1000")))


def namespaces(box: Box) -> Facts:
    """Which of them are others than the caller's."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    return {"namespaces": [kind for kind in kinds if os.readlink(f"/proc/{box.pid}/ns/{kind}") != own[kind]]}


# Of many a difference.
YOUNGER = "this version does not know it yet"
