"""The operations on the container's file system, explained: see explain.py.

The shell equivalents are mount(8)'s words for what init does with descriptors; $ROOT is where the root is mounted.
"""

from __future__ import annotations

import os
from shlex import quote

from pyrun import linux
from pyrun.spec import mount_options as options

from .explain_kinds import Explanation, simple
from .operations import Operation

_PROPAGATIONS = {flag: name for name, flag in options.PROPAGATION.items()}
# From outside, with the host's programs: the image may have none, and must not be trusted as root of the host.
_MOUNT = "findmnt -N {pid}"
_ROOT = "/proc/{pid}/root"
_KINDS = {0o020000: "c", 0o060000: "b", 0o010000: "p"}


def _names(bits: int, decided: int = -1, prefix: str = "") -> list[str]:
    """The words for attributes; of those in *decided* that are not set, the words that clear them."""
    names = []
    for mask, bit, name, cleared in _WORDS:
        if bits & mask == bit and bit:
            names.append(prefix + name)
        elif decided >= 0 and decided & mask == mask and bits & mask == 0:
            names.append(prefix + cleared)
    return list(dict.fromkeys(names))


_WORDS = (
    (options.RDONLY, options.RDONLY, "ro", "rw"),
    (options.NOSUID, options.NOSUID, "nosuid", "suid"),
    (options.NODEV, options.NODEV, "nodev", "dev"),
    (options.NOEXEC, options.NOEXEC, "noexec", "exec"),
    (options.ATIME, options.NOATIME, "noatime", "relatime"),
    (options.ATIME, options.STRICTATIME, "strictatime", "relatime"),
    (options.NODIRATIME, options.NODIRATIME, "nodiratime", "diratime"),
    (options.NOSYMFOLLOW, options.NOSYMFOLLOW, "nosymfollow", "symfollow"),
)


def _with(words: list[str]) -> str:
    return f" -o {quote(','.join(words))}" if words else ""


def _texts(values: tuple[object, ...]) -> list[str]:
    return [str(value) for value in values]


def _numbers(values: tuple[object, ...]) -> list[int]:
    return [value for value in values if isinstance(value, int)]


def _made(target: object, file: bool = False) -> str:
    """The words that make a mount point, as init does: it need not be in the image."""
    if not file:
        return f"mkdir -p $ROOT{quote(str(target))}; "
    return f"mkdir -p $ROOT{quote(os.path.dirname(str(target)))}; touch $ROOT{quote(str(target))}; "


def _overlay(operation: Operation) -> Explanation:
    mountpoint, upper, work, how, *lowers = operation.args
    words = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
    for bit, word in ((1, "volatile"), (2, "userxattr")):
        words += f",{word}" if int(how) & bit else ""
    count = f"{len(lowers)} layer{'s' if len(lowers) != 1 else ''}"
    return (
        f"lay a writable directory over the image's {count}: the container's root",
        f"mount -t overlay overlay -o {quote(words)} {quote(str(mountpoint))}",
        f"{_MOUNT} /",
    )


def _propagation(operation: Operation) -> Explanation:
    private = operation.args[0] == linux.MS_PRIVATE
    return (
        f"stop telling the host of mounts made from here on{', and being told' if private else ''}",
        f"mount --make-r{'private' if private else 'slave'} /",
        _MOUNT + " -o TARGET,PROPAGATION",
    )


def _mount(operation: Operation) -> Explanation:
    target, kind, source, attributes, *data = operation.args
    words = _with(_names(int(attributes)) + _texts(tuple(data)))
    return (
        f"mount a {kind} on {target}",
        f"{_made(target)}mount -t {kind}{words} {quote(str(source))} $ROOT{quote(str(target))}",
        f"{_MOUNT} {quote(str(target))}",
    )


def _mount_old(operation: Operation) -> Explanation:
    target, kind, source, flags, *data = operation.args
    words = _with(["iversion"] * bool(int(flags) >> 23 & 1) + _texts(tuple(data)))
    return (
        f"mount a {kind} on {target}",
        f"{_made(target)}mount -t {kind}{words} {quote(str(source))} $ROOT{quote(str(target))}"
        f"  # mount(2) with flags {int(flags):#x}",
        f"{_MOUNT} {quote(str(target))}",
    )


def _tmpfs_copy(operation: Operation) -> Explanation:
    target, attributes, *data = operation.args
    words, place = _with(_names(int(attributes)) + _texts(tuple(data))), f"$ROOT{quote(str(target))}"
    return (
        f"mount a tmpfs on {target} that begins with what is in it",
        f"{_made(target)}NEW=$(mktemp -d); mount -t tmpfs{words} tmpfs $NEW; cp -a {place}/. $NEW; "
        f"mount --move $NEW {place}; rmdir $NEW",
        f"{_MOUNT} {quote(str(target))}",
    )


def _remount(operation: Operation) -> Explanation:
    target, attributes, cleared, *data = operation.args
    words = _names(int(attributes), int(cleared)) + _texts(tuple(data))
    return (
        f"change the mount on {target} ({', '.join(words) or 'as it is'})",
        f"mount{_with(['remount', *words])} $ROOT{quote(str(target))}",
        f"{_MOUNT} {quote(str(target))}",
    )


def _bind(operation: Operation) -> Explanation:
    """target source set how propagation [clear named fd userns-fd tree-set tree-clear propagation...], see ops.h."""
    target, source, *rest = operation.args
    attributes, how, spread, _, named, _, owners, tree, tree_cleared, *more = [
        *_numbers(tuple(rest)), *(0, 0, 0, 0, 0, -1, -1, 0, 0)[len(rest) :],
    ]  # fmt: skip
    words = _names(attributes, named & ~options.NOSYMFOLLOW)
    words += _names(tree, tree_cleared, "r") if tree_cleared else []
    words += ["X-mount.idmap=..."] if owners >= 0 or how & 2 else []
    spreads = [f" --make-{_PROPAGATIONS[each]}" for each in (spread, *more) if each in _PROPAGATIONS]
    shown = f"show the host's {source} at {target}"
    shown += " (read-only)" if (attributes | tree) & options.RDONLY else ""
    path, place = str(source), quote(str(target))
    # hosts and its like are not there before the start; a cgroup, which is not either, is bound without what is below
    file = not os.path.isdir(path) if os.path.exists(path) else bool(how & 1)
    shell = f"{_made(target, file)}mount --{'rbind' if how & 1 else 'bind'}{_with(words)}{''.join(spreads)}"
    return shown, f"{shell} {quote(path)} $ROOT{place}", f"{_MOUNT} {place}"


def _attributes(operation: Operation) -> Explanation:
    target, attributes, cleared, recursive, spread = operation.args
    words = _names(int(attributes), int(cleared) or -1)
    place = quote(str(target))
    see = f"{_MOUNT} -o TARGET,OPTIONS,PROPAGATION {place}"
    if spread:
        name = _PROPAGATIONS.get(int(spread), "?")
        return (
            f"make the mount on {target} {name}",
            f"mount --make-{'r' if recursive else ''}{name} $ROOT{place}",
            see,
        )
    return (
        f"change the mount on {target} ({', '.join(words)})",
        f"mount -o remount,bind,{','.join(words)} $ROOT{place}",
        see,
    )


def _device(operation: Operation) -> Explanation:
    path, mode, major, minor, uid, gid, *_ = operation.args
    kind = _KINDS.get(int(mode) & 0o170000, "c")
    number = "" if kind == "p" else f" {major} {minor}"
    made = _made(os.path.dirname(str(path))) if os.path.dirname(str(path)) != "/dev" else ""
    owner = f"; chown {uid}:{gid} $ROOT{quote(str(path))}" if uid or gid else ""
    return (
        f"make the {'pipe' if kind == 'p' else 'device node'} {path}",
        f"{made}mknod -m {int(mode) & 0o7777:o} $ROOT{quote(str(path))} {kind}{number}{owner}",
        f"ls -l {_ROOT}{quote(str(path))}",
    )


MOUNTS = {
    "PROPAGATION": _propagation,
    "ROOT_PARENT": simple(
        "stop telling the host of what is mounted on the directory {0}",
        "mount --make-private $(findmnt -no TARGET -T {0})",
        _MOUNT + " -o TARGET,PROPAGATION",
    ),
    "ROOT_BIND": simple(
        "make the directory {0} the container's root", "mount --rbind {0} {0}", _MOUNT + " /"
    ),
    "ROOT_OVERLAY": _overlay,
    "MOUNT": _mount,
    "MOUNT_OLD": _mount_old,
    "TMPFS_COPY": _tmpfs_copy,
    "REMOUNT": _remount,
    "BIND": _bind,
    "ATTRIBUTES": _attributes,
    "CGROUP2": simple(
        "mount a cgroup2 on {0}, or where that is not allowed show {1} there",
        "mkdir -p $ROOT{0}; mount -t cgroup2 cgroup $ROOT{0} || mount --bind {1} $ROOT{0}",
        _MOUNT + " {0}",
    ),
    "MOUNT_LABEL": simple(
        "give the mount on {0} the SELinux label {1}", "chcon {1} $ROOT{0}", "ls -Zd " + _ROOT + "{0}"
    ),
    "DEVICE": _device,
    "SYMLINK": simple("make {0} a link to {1}", "ln -s {1} $ROOT{0}", "ls -ld " + _ROOT + "{0}"),
    "DIRECTORY": simple(
        "make the directory {0} if the image has none", "mkdir -p $ROOT{0}", "ls -ld " + _ROOT + "{0}"
    ),
    "MASK": simple(
        "hide {0}, if it is there",
        "if [ -d $ROOT{0} ]; then mount -t tmpfs -o ro tmpfs $ROOT{0}; elif [ -e $ROOT{0} ]; "
        "then mount --bind $ROOT/dev/null $ROOT{0}; mount -o remount,bind,ro $ROOT{0}; fi",
        "ls -ld " + _ROOT + "{0}",
    ),
    "READONLY": simple(
        "make {0} read-only, if it is there",
        "if [ -e $ROOT{0} ]; then mount --bind $ROOT{0} $ROOT{0}; mount -o remount,bind,ro $ROOT{0}; fi",
        _MOUNT + " {0}",
    ),
    "WRITABLE": simple(
        "keep {0} writable, whatever the root becomes", "mount --bind $ROOT{0} $ROOT{0}", _MOUNT + " {0}"
    ),
    "KEEP": simple(
        "keep the root's {0} at hand, which is going to be covered",
        "mkdir -p $ROOT/../kept{0}; mount --bind $ROOT{0} $ROOT/../kept{0}",
        "ls -ld " + _ROOT + "{0}",
    ),
    "SHOW_KEPT": simple(
        "show the root's own {0} there again, over what covers it",
        "mkdir -p $ROOT{0}; mount --move $ROOT/../kept{0} $ROOT{0}",
        _MOUNT + " {0}",
    ),
    "PIVOT": simple(
        "make the container's root the root, and let go of the host's",
        "cd $ROOT; pivot_root . .; umount -l .",
        "ls " + _ROOT + "/",
    ),
    "ROOT_MOVE": lambda operation: (
        "move the container's root over the host's, and change to it",
        "".join(f"umount -l {each}; " for each in operation.args) + "cd $ROOT; mount --move . /; chroot .",
        "ls " + _ROOT + "/",
    ),
    "ROOT_READONLY": simple("make the root read-only", "mount -o remount,bind,ro /", _MOUNT + " /"),
}
