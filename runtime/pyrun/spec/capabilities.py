"""Linux capabilities: names, numbers, masks, and Docker's rules for --cap-add and --cap-drop.

A set of capabilities is an int here, bit n for capability n (`man 7 capabilities`); names appear where a
user or an OCI config needs them. Not here: applying a set (csrc/init.c) and reading a process's sets for
display (pyrun/host.py).
"""

from __future__ import annotations

from pyrun.errors import UsageError
from pyrun.store import paths

# linux/capability.h: the position is the number. Linux 5.9 added the last one.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
ALL = (1 << len(NAMES)) - 1

# Docker's fourteen, in its order (moby/moby daemon/pkg/oci/caps/defaults.go, c74ba9558305, 2025-07-24).
DEFAULT_NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
DEFAULT = 0x00000000A80425FB  # mask_of(DEFAULT_NAMES); a test compares


def mask_of(names: list[str] | tuple[str, ...]) -> int:
    """The mask of full names as an OCI config has them (`CAP_KILL`). Raises UsageError for an unknown one."""
    mask = 0
    for name in names:
        if name not in NUMBERS:
            raise _unknown(name, "CAP_")
        mask |= 1 << NUMBERS[name]
    return mask


def mask_of_known(names: list[str] | tuple[str, ...], unknown: set[str]) -> int:
    """The same, but a name this table does not know goes into *unknown*: a config may ask for more than there is."""
    mask = 0
    for name in names:
        if name in NUMBERS:
            mask |= 1 << NUMBERS[name]
        else:
            unknown.add(name)
    return mask


def names_of(mask: int) -> list[str]:
    """The full names of a mask, by number; bits this table does not know are left out."""
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def available(status: bytes | None = None) -> int:
    """The mask this process can hand out: its effective set. *status* replaces /proc/self/status in tests.

    A set that cannot be read counts as full: the kernel refuses later, with the stage's name.
    """
    if status is None:
        try:
            status = paths.read("/proc/self/status")
        except OSError:
            return ALL
    _, found, rest = status.partition(b"\nCapEff:\t")
    return int(rest[:16], 16) & ALL if found else ALL


def parse_add_drop(add: list[str], drop: list[str], privileged: bool, held: int | None = None) -> int:
    """The mask of a container started with --cap-add, --cap-drop and --privileged, by Docker's rules.

    Names are case-blind, with or without `CAP_`; `ALL` is every capability pyrun itself has. --privileged
    beats both lists; add ALL beats drop ALL; drop ALL leaves the added ones. *held* replaces `available()`.
    Raises UsageError: unknown name, or one to be added that pyrun does not have. (Docker also refuses to
    drop what it does not have; here that is no error, since the wish is fulfilled.)
    """
    if not privileged and not add and not drop:
        return DEFAULT
    if held is None:
        held = available()
    if privileged:
        return held
    add_all, added = _parse(add)
    drop_all, dropped = _parse(drop)
    if missing := added & ~held:
        raise UsageError(
            f"capability not available here: {names_of(missing)[0]}",
            "pyrun does not have it itself: run as root, or outside of the container it runs in",
        )
    if add_all:
        return held & ~dropped
    if drop_all:
        return added
    return DEFAULT & ~dropped | added


def _parse(words: list[str]) -> tuple[bool, int]:
    """(whether ALL is among them, the mask of the others)."""
    everything = False
    mask = 0
    for word in words:
        name = word.upper()
        if name == "ALL":
            everything = True
            continue
        if name[:4] != "CAP_":
            name = "CAP_" + name
        if name not in NUMBERS:
            raise _unknown(word)
        mask |= 1 << NUMBERS[name]
    return everything, mask


def _unknown(word: str, prefix: str = "") -> UsageError:
    """The error for a name that is no capability; the nearest one, with *prefix*, is looked up only now."""
    import difflib

    bare = word.upper().removeprefix("CAP_")
    near = difflib.get_close_matches(bare, [name[4:] for name in NAMES], n=1)
    return UsageError(f"unknown capability: {word!r}", f"did you mean {prefix}{near[0]}?" if near else "")
