"""The container's file system.

The shell equivalents are mount(8)'s words for what init does with descriptors; $ROOT is where the root is mounted.
"""

from __future__ import annotations

import os

from pyrun import linux
from pyrun.safe import shell_word
from pyrun.spec import mount_options as options

from .rows import Explanation, Row

_PROPAGATIONS = {flag: name for name, flag in options.PROPAGATION.items()}
# From outside, with the host's programs: the image may have none, and must not be trusted as root of the host.
_MOUNT = "findmnt -N {pid}"
_ROOT = "/proc/{pid}/root"
_KINDS = {0o020000: "c", 0o060000: "b", 0o010000: "p"}
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


def _names(bits: int, decided: int = -1, prefix: str = "") -> list[str]:
    """The words for attributes; of those in *decided* that are not set, the words that clear them."""
    names = []
    for mask, bit, name, cleared in _WORDS:
        if bits & mask == bit and bit:
            names.append(prefix + name)
        elif decided >= 0 and decided & mask == mask and bits & mask == 0:
            names.append(prefix + cleared)
    return list(dict.fromkeys(names))


def _with(words: list[str]) -> str:
    return f" -o {shell_word(','.join(words))}" if words else ""


def _made(target: str, file: bool = False) -> str:
    """The words that make a mount point, as init does: it need not be in the image."""
    if not file:
        return f"mkdir -p $ROOT{shell_word(target)}; "
    return f"mkdir -p $ROOT{shell_word(os.path.dirname(target))}; touch $ROOT{shell_word(target)}; "


def _overlay(mountpoint: str, upper: str, work: str, how: int, *lowers: str) -> Explanation:
    words = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    for bit, word in ((1, "volatile"), (2, "userxattr")):
        words += f",{word}" if how & bit else ""
    count = f"{len(lowers)} layer{'s' if len(lowers) != 1 else ''}"
    return (
        f"lay a writable directory over the image's {count}: the container's root",
        f"mount -t overlay overlay -o {shell_word(words)} {shell_word(mountpoint)}",
        f"{_MOUNT} /",
    )


def _propagation(flags: int) -> Explanation:
    private = flags == linux.MS_PRIVATE
    return (
        f"stop telling the host of mounts made from here on{', and being told' if private else ''}",
        f"mount --make-r{'private' if private else 'slave'} /",
        _MOUNT + " -o TARGET,PROPAGATION",
    )


def _mounted(target: str, kind: str, source: str, words: list[str], note: str = "") -> Explanation:
    # what is mounted is no option of mount(8), whatever it begins with
    what = ("-- " if source[:1] == "-" else "") + shell_word(source)
    place = shell_word(target)
    return (
        f"mount a {kind} on {target}",
        f"{_made(target)}mount -t {shell_word(kind)}{_with(words)} {what} $ROOT{place}{note}",
        f"{_MOUNT} {place}",
    )


def _mount(target: str, kind: str, source: str, attributes: int, *data: str) -> Explanation:
    return _mounted(target, kind, source, [*_names(attributes), *data])


def _mount_old(target: str, kind: str, source: str, flags: int, *data: str) -> Explanation:
    words = ["iversion"] * bool(flags >> 23 & 1)
    return _mounted(target, kind, source, [*words, *data], f"  # mount(2) with flags {flags:#x}")


def _tmpfs_copy(target: str, attributes: int, *data: str) -> Explanation:
    words, place = _with([*_names(attributes), *data]), f"$ROOT{shell_word(target)}"
    return (
        f"mount a tmpfs on {target} that begins with what is in it",
        f"{_made(target)}NEW=$(mktemp -d); mount -t tmpfs{words} tmpfs $NEW; cp -a {place}/. $NEW; "
        f"mount --move $NEW {place}; rmdir $NEW",
        f"{_MOUNT} {shell_word(target)}",
    )


def _remount(target: str, attributes: int, cleared: int, *data: str) -> Explanation:
    words = [*_names(attributes, cleared), *data]
    return (
        f"change the mount on {target} ({', '.join(words) or 'as it is'})",
        f"mount{_with(['remount', *words])} $ROOT{shell_word(target)}",
        f"{_MOUNT} {shell_word(target)}",
    )


def _bind(
    target: str,
    source: str,
    attributes: int,
    how: int,
    spread: int,
    _clear: int = 0,
    named: int = 0,
    _fd: int = -1,
    owners: int = -1,
    tree: int = 0,
    tree_cleared: int = 0,
    *more: int,
) -> Explanation:
    words = _names(attributes, named & ~options.NOSYMFOLLOW)
    words += _names(tree, tree_cleared, "r") if tree_cleared else []
    words += ["X-mount.idmap=..."] if owners >= 0 or how & 2 else []
    spreads = [f" --make-{_PROPAGATIONS[each]}" for each in (spread, *more) if each in _PROPAGATIONS]
    shown = f"show the host's {source} at {target}"
    shown += " (read-only)" if (attributes | tree) & options.RDONLY else ""
    # hosts and its like are not there before the start; a cgroup, which is not either, is bound without what is below
    file = not os.path.isdir(source) if os.path.exists(source) else bool(how & 1)
    shell = f"{_made(target, file)}mount --{'rbind' if how & 1 else 'bind'}{_with(words)}{''.join(spreads)}"
    place = shell_word(target)
    return shown, f"{shell} {shell_word(source)} $ROOT{place}", f"{_MOUNT} {place}"


def _attributes(target: str, attributes: int, cleared: int, recursive: int, spread: int) -> Explanation:
    place = shell_word(target)
    see = f"{_MOUNT} -o TARGET,OPTIONS,PROPAGATION {place}"
    if spread:
        name = _PROPAGATIONS.get(spread, "?")
        return (
            f"make the mount on {target} {name}",
            f"mount --make-{'r' if recursive else ''}{name} $ROOT{place}",
            see,
        )
    words = _names(attributes, cleared or -1)
    return (
        f"change the mount on {target} ({', '.join(words)})",
        f"mount -o remount,bind,{','.join(words)} $ROOT{place}",
        see,
    )


def _device(path: str, mode: int, major: int, minor: int, uid: int, gid: int, *_: str) -> Explanation:
    kind = _KINDS.get(mode & 0o170000, "c")
    number = "" if kind == "p" else f" {major} {minor}"
    made = _made(os.path.dirname(path)) if os.path.dirname(path) != "/dev" else ""
    owner = f"; chown {uid}:{gid} $ROOT{shell_word(path)}" if uid or gid else ""
    return (
        f"make the {'pipe' if kind == 'p' else 'device node'} {path}",
        f"{made}mknod -m {mode & 0o7777:o} $ROOT{shell_word(path)} {kind}{number}{owner}",
        f"ls -l {_ROOT}{shell_word(path)}",
    )


def _root_move(*mounts: str) -> Explanation:
    return (
        "move the container's root over the host's, and change to it",
        "".join(f"umount -l {shell_word(each)}; " for each in mounts)
        + "cd $ROOT; mount --move . /; chroot .",
        f"ls {_ROOT}/",
    )


def _row(arguments: str, words: str, shell: str, see: str) -> Row:
    return Row("rootfs", arguments, words, shell, see)


ROWS = {
    "PROPAGATION": Row("rootfs", _propagation),
    "ROOT_PARENT": _row("path flags", "stop telling the host of what is mounted on the directory {path}",
        "mount --make-private $(findmnt -no TARGET -T {path})", f"{_MOUNT} -o TARGET,PROPAGATION"),
    "ROOT_BIND": _row("path fd...", "make the directory {path} the container's root",
        "mount --rbind {path} {path}", f"{_MOUNT} /"),
    "ROOT_SHOWN": _row("path place",
        "show the directory {path} at {place}, in the mount namespace of the caller: the container's root",
        "mkdir {place}; mount --rbind {path} {place}; mount --make-rslave {place}", "findmnt -R {place}"),
    "ROOT_OVERLAY": Row("rootfs", _overlay),
    "MOUNT": Row("rootfs", _mount),
    "MOUNT_OLD": Row("rootfs", _mount_old),
    "TMPFS_COPY": Row("rootfs", _tmpfs_copy),
    "REMOUNT": Row("rootfs", _remount),
    "BIND": Row("rootfs", _bind),
    "ATTRIBUTES": Row("rootfs", _attributes),
    "CGROUP2": _row("target path attributes",
        "mount a cgroup2 on {target}, or where that is not allowed show {path} there",
        "mkdir -p $ROOT{target}; mount -t cgroup2 cgroup $ROOT{target} || mount --bind {path} $ROOT{target}",
        f"{_MOUNT} {{target}}"),
    "MOUNT_LABEL": _row("target label", "give the mount on {target} the SELinux label {label}",
        "chcon {label} $ROOT{target}", f"ls -Zd {_ROOT}{{target}}"),
    "DEVICE": Row("rootfs", _device),
    "SYMLINK": _row("path to replaces...", "make {path} a link to {to}", "ln -s {to} $ROOT{path}",
        f"ls -ld {_ROOT}{{path}}"),
    "DIRECTORY": _row("path mode uid gid", "make the directory {path} if the image has none",
        "mkdir -p $ROOT{path}", f"ls -ld {_ROOT}{{path}}"),
    "MASK": _row("path data...", "hide {path}, if it is there",
        "if [ -d $ROOT{path} ]; then mount -t tmpfs -o ro tmpfs $ROOT{path}; elif [ -e $ROOT{path} ]; "
        "then mount --bind $ROOT/dev/null $ROOT{path}; mount -o remount,bind,ro $ROOT{path}; fi",
        f"ls -ld {_ROOT}{{path}}"),
    "READONLY": _row("path", "make {path} read-only, if it is there",
        "if [ -e $ROOT{path} ]; then mount --bind $ROOT{path} $ROOT{path}; "
        "mount -o remount,bind,ro $ROOT{path}; fi", f"{_MOUNT} {{path}}"),
    "WRITABLE": _row("path", "keep {path} writable, whatever the root becomes",
        "mount --bind $ROOT{path} $ROOT{path}", f"{_MOUNT} {{path}}"),
    "KEEP": _row("path", "keep the root's {path} at hand, which is going to be covered",
        "mkdir -p $ROOT/../kept{path}; mount --bind $ROOT{path} $ROOT/../kept{path}", f"ls -ld {_ROOT}{{path}}"),
    "SHOW_KEPT": _row("path", "show the root's own {path} there again, over what covers it",
        "mkdir -p $ROOT{path}; mount --move $ROOT/../kept{path} $ROOT{path}", f"{_MOUNT} {{path}}"),
    "PIVOT": _row("shared...", "make the container's root the root, and let go of the host's",
        "cd $ROOT; pivot_root . .; umount -l .", f"ls {_ROOT}/"),
    "CHROOT": _row("place", "change the root to {place}", "cd {place}; chroot .", f"ls {_ROOT}/"),
    "ROOT_MOVE": Row("rootfs", _root_move),
    "ROOT_READONLY": _row("", "make the root read-only", "mount -o remount,bind,ro /", f"{_MOUNT} /"),
}  # fmt: skip
