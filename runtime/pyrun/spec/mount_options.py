"""The option strings of a mount, and what each is to the kernel; where nothing may be mounted.

Three kinds of attributes, which mount(8) writes in one list: those of the mount (MOUNT_ATTR_*, set and cleared by
mount_setattr), those of the file system's superblock (fsconfig, by their own names), and how events of mounts spread
(propagation). What no table knows is the file system's own business and goes to it unchanged.
Access times are one mode of three, and "nodiratime" beside it. `atime` and `nostrictatime` ask for the kernel's
default, which is relatime; `norelatime` only takes back a relatime before it, since Linux has no name for more.
Source: runtime-spec config.md#linux-mount-options; man 8 mount, man 2 mount_setattr. Next: stages/mounts.py.
"""

from __future__ import annotations

from pyrun import linux
from pyrun.errors import UsageError

RDONLY, NOSUID, NODEV, NOEXEC = 0x01, 0x02, 0x04, 0x08
ATIME, RELATIME, NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW = 0x70, 0x00, 0x10, 0x20, 0x80, 0x200000
# What a mount has beside access times: given one of the attributes, a bind mount has no others (mount(8), runc).
PLAIN = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW

# name -> (the bits it decides, their value)
ATTRIBUTES = {
    "ro": (RDONLY, RDONLY), "rw": (RDONLY, 0), "nosuid": (NOSUID, NOSUID), "suid": (NOSUID, 0),
    "nodev": (NODEV, NODEV), "dev": (NODEV, 0), "noexec": (NOEXEC, NOEXEC), "exec": (NOEXEC, 0),
    "noatime": (ATIME, NOATIME), "atime": (ATIME, RELATIME), "relatime": (ATIME, RELATIME),
    "strictatime": (ATIME, STRICTATIME), "nostrictatime": (ATIME, RELATIME), "norelatime": (0, 0),
    "nodiratime": (NODIRATIME, NODIRATIME), "diratime": (NODIRATIME, 0),
    "nosymfollow": (NOSYMFOLLOW, NOSYMFOLLOW), "symfollow": (NOSYMFOLLOW, 0),
}  # fmt: skip
# The same for a mount and all below it; `rnorelatime` has a meaning there, the default.
TREE = {"r" + name: pair for name, pair in ATTRIBUTES.items()} | {"rnorelatime": (ATIME, RELATIME)}

PROPAGATION = {
    "private": linux.MS_PRIVATE, "slave": linux.MS_SLAVE, "shared": linux.MS_SHARED, "unbindable": linux.MS_UNBINDABLE,
}  # fmt: skip
PROPAGATION |= {"r" + name: flag | linux.MS_REC for name, flag in PROPAGATION.items()}

# Of the superblock, with the flag mount(2) has for it: fsconfig knows the names of these ...
SUPERBLOCK = {
    "sync": (0x10, 0x10), "async": (0x10, 0), "dirsync": (0x80, 0x80), "mand": (0x40, 0x40), "nomand": (0x40, 0),
    "lazytime": (1 << 25, 1 << 25), "nolazytime": (1 << 25, 0),
}  # fmt: skip
# ... and not of these: whether the kernel logs what it thinks of the options, and a counter of a file's changes.
OLD_ONLY = {
    "silent": (0x8000, 0x8000), "loud": (0x8000, 0), "iversion": (1 << 23, 1 << 23), "noiversion": (1 << 23, 0),
}  # fmt: skip

OTHERS = ("bind", "rbind", "defaults", "remount", "tmpcopyup", "idmap", "ridmap")
# Of mount(8) itself, for /etc/fstab: nothing to the kernel.
_FSTAB = ("auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev")

# fsconfig takes values of 255 bytes.
_LONGEST_VALUE = 255


class Options:
    """What the options of one mount ask for.

    named: the attributes one of them decides; set: their values; tree_*: the same for all mounts below; flags: of the
    superblock, for mount(2); data: for the file system, one option an item, without quotes; owners: "", "idmap" or
    "ridmap"; old: whether only mount(2) can do it.
    """

    __slots__ = (
        "bind", "copy_up", "data", "flags", "named", "old", "owners", "propagation", "remount", "set", "tree",
        "tree_named", "tree_set",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bind = self.copy_up = self.old = self.remount = self.tree = False
        self.flags = self.named = self.set = self.tree_named = self.tree_set = 0
        self.data: list[str] = []
        self.owners = ""
        self.propagation: list[int] = []

    def cleared(self) -> int:
        """What a bind mount loses: as soon as one attribute is named, all that are not."""
        named = self.named
        if not named:
            return 0
        if named & ATIME or self.set & NODIRATIME:
            return PLAIN | ATIME | NODIRATIME
        return PLAIN | named & NODIRATIME


def parse(words: list[str]) -> Options:
    """The options of a mount; of two that contradict each other the later one counts."""
    found = Options()
    for word in words:
        if word in ATTRIBUTES:
            mask, value = ATTRIBUTES[word]
            found.named |= mask
            found.set = found.set & ~mask | value
            if word == "norelatime" and not found.set & ATIME:
                found.named &= ~ATIME
        elif word in PROPAGATION:
            found.propagation.append(PROPAGATION[word])
        elif word in TREE:
            mask, value = TREE[word]
            found.tree_named |= mask
            found.tree_set = found.tree_set & ~mask | value
        elif word in OTHERS:
            _other(found, word)
        elif word in SUPERBLOCK or word in OLD_ONLY:
            mask, value = SUPERBLOCK.get(word) or OLD_ONLY[word]
            found.flags = found.flags & ~mask | value
            if word in SUPERBLOCK:
                found.data.append(word)
        elif word not in _FSTAB and word[:2] not in ("x-", "X-"):
            found.data += pieces(word)
    long = [item for item in found.data if len(item) - item.find("=") - 1 > _LONGEST_VALUE]
    found.old = bool(long) or bool(found.flags & OLD_ONLY["iversion"][0])
    return found


def _other(found: Options, word: str) -> None:
    if word in ("bind", "rbind"):
        found.bind, found.tree = True, found.tree or word == "rbind"
    elif word in ("idmap", "ridmap"):
        found.owners = word
    elif word == "tmpcopyup":
        found.copy_up = True
    elif word == "remount":
        found.remount = True


def pieces(text: str) -> list[str]:
    """An option as the file system takes it, one at a time: `mode=755,size=1m` are two, `context="a:b,c"` is one and
    loses its quotes, which only separate options from one another."""
    if "," not in text and '"' not in text:
        return [text] if text else []
    found, start, quoted = [], 0, False
    for index, letter in enumerate(text + ","):
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            found.append(text[start:index].replace('"', ""))
            start = index + 1
    if quoted:
        found.append(text[start:].replace('"', ""))
    return [item for item in found if item]


def known() -> list[str]:
    """Every option with a meaning here, sorted: `features` lists them."""
    return sorted({*ATTRIBUTES, *PROPAGATION, *TREE, *SUPERBLOCK, *OLD_ONLY, *OTHERS})


# Files of /proc that something else may stand for, as runc has them: those lxcfs emulates, and two switches.
PROC_FILES = (
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
    "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
)  # fmt: skip


def check_target(target: str, kind: str, *, bind: bool, path: str) -> None:
    """Raise UsageError for a place nothing may be mounted on. target: normal; path: of the mount in the config.

    The runtime and the programs in the container trust what /proc says (CVE-2019-16884). init makes sure that no link
    leads there, and that what is bound on /proc is a procfs.
    """
    if target == "/proc" and not bind and kind != "proc":
        raise UsageError(f'{path}: "/proc" cannot be mounted because it is not of type proc', "use type proc")
    if target[:6] == "/proc/" and target not in PROC_FILES:
        hint = f"of /proc only these may be replaced: {' '.join([name[6:] for name in PROC_FILES])}"
        raise UsageError(f"{path}.destination: {target!r} cannot be mounted because it is inside /proc", hint)


def map_text(mappings: object) -> str:
    """[{containerID, hostID, size}] as uid_map and gid_map take them. Source: man 7 user_namespaces."""
    lines = mappings if isinstance(mappings, list) else []
    return "".join(
        [f"{item.get('containerID', 0)} {item.get('hostID', 0)} {item['size']}\n" for item in lines]
    )
