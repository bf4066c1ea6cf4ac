"""What a test left behind on the (lab) host: a picture before, a picture after, and the difference.

`picture()` is a dict: kind of thing -> set of strings. Everything that pyrun can change is in it: links,
nftables, mounts, cgroups, sysctls, named network namespaces, processes of pyrun.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import emptied

SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/default/forwarding",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/bridge/bridge-nf-call-iptables",
    "kernel/hostname",
)

Picture = dict[str, set[str]]


def picture() -> Picture:
    """The state of this host, as far as a container runtime could change it."""
    views: dict[str, Callable[[], set[str]]] = {
        "link": links,
        "nft": rules,
        "mount": mounts,
        "cgroup": cgroups,
        "sysctl": sysctls,
        "netns": named_namespaces,
        "process": processes,
    }
    return {kind: view() for kind, view in views.items()}


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def rules() -> set[str]:
    if not shutil.which("nft"):
        return set()
    words = ["nft", "--stateless", "list", "ruleset"]  # without counters, which a peer's packets move
    return set(subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines())


def mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join(line.split()[3:5]) for line in lines}


def cgroups() -> set[str]:
    top = Path("/sys/fs/cgroup")
    return {str(path) for path in top.rglob("*") if path.is_dir() and not path.is_symlink()}


def sysctls() -> set[str]:
    found = set()
    for name in SYSCTLS:
        path = Path("/proc/sys", name)
        if path.exists():
            found.add(f"{name} = {path.read_text().strip()}")
    return found


def named_namespaces() -> set[str]:
    directory = Path("/run/netns")
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def processes() -> set[str]:
    """Processes of pyrun in this pid namespace, as "pid name"."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
        except OSError:  # gone
            continue
        if name.startswith("pyrun"):
            found.add(f"{path.parent.name} {name}")
    return found


def difference(before: Picture, after: Picture) -> list[str]:
    """One line a thing: "+ link pyrun0" was left, "- sysctl ..." was taken away."""
    lines = []
    for kind in before:
        lines += [f"+ {kind}: {each}" for each in sorted(after[kind] - before[kind])]
        lines += [f"- {kind}: {each}" for each in sorted(before[kind] - after[kind])]
    return lines


def settle(before: Picture, timeout_s: float = 5.0) -> list[str]:
    """The difference to now, once it is empty or *timeout_s* has passed: the kernel removes some things later."""
    return emptied(lambda: difference(before, picture()), timeout_s)


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """Fails when the host is not afterwards what it was before."""
    before = picture()
    yield
    left = settle(before)
    assert not left, "left on the host:\n" + "\n".join(left)
