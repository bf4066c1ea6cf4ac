"""Who the process is: `-u` and the image's USER against the image's own /etc/passwd and /etc/group.

No NSS and no `pwd`: those would load the image's libraries as host root (CVE-2019-14271). The files are read
from the image's layers or the running container's root below a descriptor, as plain bytes, with a size limit.
A number is never looked up as a name (CVE-2016-3697), and must fit (CVE-2024-40635). Source: man 5 passwd.
"""

from __future__ import annotations

import posix

from pyrun import linux
from pyrun.errors import NotFound, UsageError

from .values import is_number, normal_path

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

FILE_SIZE_LIMIT_BYTES = 1 << 20
ID_LIMIT = (1 << 31) - 1
# Annotation of a config.json that pyrun has made: whose HOME it is. "default": nobody has given one, it is the user's.
HOME = "pyrun.home"
_IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
_RETRIES = 1000


def read_below(directories: list[str], path: str) -> bytes:
    """The file as a container sees it whose root has these layers, the top one first; b"" if there is none."""
    for directory in directories:
        try:
            root_fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError:  # --dry-run of an image that is not here; a real run fails when it mounts
            continue
        try:
            # only its place: to open a device or a FIFO would be to use it, and a container may have made one there
            place_fd = _place(root_fd, path)
        except FileNotFoundError:
            continue
        except BlockingIOError:  # it may well be there
            raise
        except OSError:
            return b""
        finally:
            posix.close(root_fd)
        try:
            status = posix.fstat(place_fd)
            if status.st_mode & 0o170000 != 0o100000:  # a whiteout, a directory, a FIFO: as good as absent
                return b""
            if status.st_size > FILE_SIZE_LIMIT_BYTES:
                raise UsageError(f"/{path} of the image is larger than {FILE_SIZE_LIMIT_BYTES} bytes")
            return _content(place_fd)
        finally:
            posix.close(place_fd)
    return b""


def _place(root_fd: int, path: str) -> int:
    """EAGAIN: something was renamed anywhere on this machine while a `..` of a link was walked."""
    for _ in range(_RETRIES):
        try:
            return linux.openat2(root_fd, path, linux.O_PATH, 0, _IN_ROOT)
        except BlockingIOError:
            continue
    return linux.openat2(root_fd, path, linux.O_PATH, 0, _IN_ROOT)


def _content(place_fd: int) -> bytes:
    fd = posix.open(f"/proc/self/fd/{place_fd}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, FILE_SIZE_LIMIT_BYTES)
    finally:
        posix.close(fd)


def _rows(text: bytes, fields: int) -> list[list[str]]:
    """Lines of at least *fields* colon-separated fields; malformed ones do not exist."""
    rows = []
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        row = line.strip().split(":")
        if len(row) >= fields and row[0] and row[0][0] != "#":
            rows.append(row)
    return rows


def _number(text: str, what: str) -> int:
    if not _is_id(text):
        raise UsageError(
            f"invalid {what}: {text!r}", f"a name of the image, or a number from 0 to {ID_LIMIT}"
        )
    return int(text)


def _is_id(text: str) -> bool:
    return is_number(text) and len(text) <= 10 and int(text) <= ID_LIMIT


def resolve(user: str, add: list[str], directories: list[str]) -> dict[str, object]:
    """{"uid", "gid", "groups", "home", "name"} of `user[:group]`; "" is root, and no group the user's own.

    add: further groups (--group-add). Raises NotFound for a name the image does not have.
    """
    # "1000:" is what `-u $UID:$GID` comes to, for bash has no $GID
    wanted, _, wanted_group = user.partition(":")
    passwd = _rows(read_below(directories, "etc/passwd"), 4)
    groups = _rows(read_below(directories, "etc/group"), 3)
    uid, gid, home, name = _find(wanted, passwd)
    extra: list[int] = []
    if wanted_group:
        gid = _group(wanted_group, groups)
    elif name:
        extra = [
            int(row[2]) for row in groups if len(row) > 3 and name in row[3].split(",") and _is_id(row[2])
        ]
    for item in add:
        extra.append(_group(item, groups))
    # the primary group is in the set too: without it a group can be shed (CVE-2022-36109)
    return {
        "uid": uid,
        "gid": gid,
        "groups": list(dict.fromkeys([gid, *extra])),
        "home": home or "/",
        "name": name,
    }


def with_home(
    environment: list[str], uid: int, root: str, mounts: list[Any] | None = None, bundle: str = ""
) -> list[str]:
    """*environment*, and HOME if it has none or an empty one: from the container's /etc/passwd, as runc does. It is
    below *root*, which may be that of a running container, or what one of *mounts* is going to show in its place."""
    found = [item for item in environment if item[:5] == "HOME="]
    if found and found[-1] != "HOME=":
        return environment
    home = home_of(uid, *(passwd_shown(mounts or [], bundle) or ([root], "etc/passwd")))
    return [*[item for item in environment if item[:5] != "HOME="], f"HOME={home}"]


def home_of(uid: int, directories: list[str], path: str) -> str:
    """By the passwd file at *path* below *directories*; / if that does not know *uid*, or makes no sense. Links do not
    lead out of them, and nothing there keeps a process from being executed."""
    home = ""
    if uid <= ID_LIMIT:
        try:
            home = _find(str(uid), _rows(read_below(directories, path), 4))[2]
        except (OSError, UsageError):  # whose /proc/PID/root is not to be had, or no longer
            pass
    return "/" if "\0" in home else home or "/"


def passwd_shown(mounts: list[Any], bundle: str = "") -> tuple[list[str], str] | None:
    """The /etc/passwd that a config's mounts put over the root's own, as home_of takes it; None if there is none."""
    found: tuple[list[str], str] | None = None
    for mount in mounts:
        target, options = str(mount["destination"]), mount.get("options") or []
        if target[:4] != "/etc" or (target := normal_path(target)) not in ("/etc", "/etc/passwd"):
            continue
        if "remount" in options or "tmpcopyup" in options:
            continue
        if mount.get("type") != "bind" and "bind" not in options and "rbind" not in options:
            found = [], ""
            continue
        source = str(mount["source"])
        source = source if source[:1] == "/" else f"{bundle}/{source}"
        # a file may be given by a link of the host's; a directory may hold links of somebody else's
        found = ([source], "passwd") if target == "/etc" else (["/"], source[1:])
    return found


def _find(wanted: str, passwd: list[list[str]]) -> tuple[int, int, str, str]:
    """(uid, gid, home, name) of a name or number; a number need not be in the file."""
    uid = 0
    if not wanted or is_number(wanted) or wanted[0] in "-+":
        uid = _number(wanted or "0", "user")
        matches = [row for row in passwd if _is_id(row[2]) and int(row[2]) == uid and _is_id(row[3])]
    else:
        matches = [row for row in passwd if row[0] == wanted and _is_id(row[2]) and _is_id(row[3])]
        if not matches:
            raise NotFound(
                f"no user {wanted!r} in the image's /etc/passwd", "use a number, or a name the image has"
            )
    if not matches:
        return uid, 0, "", ""
    row = matches[0]
    return int(row[2]), int(row[3]), row[5] if len(row) > 5 else "", row[0]


def _group(wanted: str, groups: list[list[str]]) -> int:
    if is_number(wanted) or wanted[0] in "-+":
        return _number(wanted, "group")
    for row in groups:
        if row[0] == wanted and _is_id(row[2]):
            return int(row[2])
    raise NotFound(f"no group {wanted!r} in the image's /etc/group", "use a number, or a name the image has")
