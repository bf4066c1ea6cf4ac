"""/run/netns: the names of network namespaces, as `ip netns` keeps them.

`ip netns add` makes the directory a shared mount of itself, so that names appear in every mount namespace; we
do the same when we are first. A container's name is claimed before its file is made, and the undo list asks
for that claim before it removes the file: what somebody else named is never removed.
"""

from __future__ import annotations

import posix

from pyrun import linux
from pyrun.errors import Conflict
from pyrun.network import claims
from pyrun.safe import shell_word
from pyrun.store import paths


def path(name: str) -> str:
    """The file of a network namespace's name."""
    return f"{paths.NETNS_DIR}/{name}"


def claim_path(name: str) -> str:
    """Our note that the name is a container's."""
    return f"{paths.run()}/netns/{name}"


def refuse_foreign(name: str) -> None:
    """Raises: Conflict when a namespace of that name exists already."""
    try:
        posix.lstat(path(name))
    except FileNotFoundError:
        return
    raise _foreign(name)


def claim(name: str, record: str) -> None:
    """Take the name for the owner of *record*. Raises: Conflict."""
    refuse_foreign(name)
    if not claims.take_over(record, claim_path(name)):
        raise Conflict(
            f"the network namespace name {name!r} is held by container {claims.name_of(claim_path(name))}",
            "choose another --name",
        )


def make_file(name: str, owner_line: str) -> None:
    """Make the file the namespace is mounted on. Raises: Conflict if somebody was faster, the claim given up."""
    try:
        posix.close(
            posix.open(path(name), posix.O_RDONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0)
        )
    except FileExistsError:
        claims.release(claim_path(name), owner_line)
        raise _foreign(name) from None


def sweep() -> list[str]:
    """Free the names whose owner died before its undo list existed; returns them. It cannot have made the file yet: one
    of that name is somebody else's."""
    return claims.sweep(claim_path("").rstrip("/"))


def directory_ready() -> bool:
    """Whether /run/netns is a mount of its own."""
    try:
        above = linux.mount_id(linux.AT_FDCWD, paths.NETNS_DIR.rpartition("/")[0])
        return linux.mount_id(linux.AT_FDCWD, paths.NETNS_DIR) != above
    except FileNotFoundError:
        return False


def undo(name: str, owner_line: str) -> list[str]:
    """The lines of the undo list that take the name back."""
    return [
        f"guard\t{claim_path(name)}\t{owner_line}",
        f"umount\t{path(name)}",
        f"unlink\t{path(name)}",
        f"unlink-if\t{claim_path(name)}\t{owner_line}",
        "end",
    ]


def _foreign(name: str) -> Conflict:
    return Conflict(
        f"a network namespace named {name!r} exists already in {paths.NETNS_DIR}",
        f"choose another --name, or remove it with `ip netns delete {shell_word(name)}`",
    )
