"""Who the process is: `-u` and the image's USER against the image's own /etc/passwd and /etc/group.

No NSS and no `pwd`: those would load the image's libraries as host root (CVE-2019-14271). The files are read
from the image's layers or the running container's root below a descriptor, as plain bytes, with a size limit.
A number is never looked up as a name (CVE-2016-3697), and must fit (CVE-2024-40635). Source: man 5 passwd.
"""

from __future__ import annotations

import posix
from errno import EXDEV

from pyrun import linux
from pyrun.errors import NotFound, UsageError
from pyrun.safe import is_digits
from pyrun.store import distrusted

from .values import normal_path

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any, TypedDict

    class Account(TypedDict):
        """As passwd and group of the container know a user; groups: the primary one is the first."""

        uid: int
        gid: int
        groups: list[int]
        home: str
        name: str


FILE_SIZE_LIMIT_BYTES = 1 << 20
ID_LIMIT = (1 << 31) - 1
# Annotation of a config.json that pyrun has made: whose HOME it is. "default": nobody has given one, it is the user's.
HOME = "pyrun.home"


def read_below(directories: list[str], path: str, mounts: list[Any] | None = None) -> bytes:
    """The file as a container sees it whose root has these layers, the top one first; b"" if there is none.

    mounts: those of a running container's config, whose root the directory then is: a mount that is none of them is the
    container's own doing (a FUSE of its that never answers), and nothing is read through it."""
    for directory in directories:
        try:
            root_fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError:  # --dry-run of an image that is not here; a real run fails when it mounts
            continue
        try:
            place_fd = _place(root_fd, path, mounts)
        except FileNotFoundError:
            continue
        except BlockingIOError:  # it may well be there
            raise
        except OSError:
            return b""
        finally:
            posix.close(root_fd)
        try:
            found = distrusted.content(distrusted.opened(place_fd), FILE_SIZE_LIMIT_BYTES)
        except OSError:  # a whiteout, a directory, a FIFO, of procfs: as good as absent
            return b""
        finally:
            posix.close(place_fd)
        if len(found) > FILE_SIZE_LIMIT_BYTES:
            raise UsageError(f"/{path} of the image is larger than {FILE_SIZE_LIMIT_BYTES} bytes")
        return found
    return b""


def _place(root_fd: int, path: str, mounts: list[Any] | None) -> int:
    if mounts is None:
        return distrusted.place(path, root_fd, distrusted.IN_ROOT)
    try:
        return distrusted.place(path, root_fd, distrusted.IN_ROOT | linux.RESOLVE_NO_XDEV)
    except OSError as error:
        if error.errno != EXDEV:
            raise
    place_fd = distrusted.place(path, root_fd, distrusted.IN_ROOT)
    if _is_on_one_of(mounts, place_fd, root_fd):
        return place_fd
    posix.close(place_fd)
    raise OSError(EXDEV, posix.strerror(EXDEV), path)


def _is_on_one_of(mounts: list[Any], place_fd: int, root_fd: int) -> bool:
    """Whether a place is on what is mounted at the destination of one of *mounts*."""
    found = linux.mount_id(place_fd, "")
    for mount in mounts:
        try:
            fd = distrusted.place("." + normal_path(mount["destination"]), root_fd, distrusted.IN_ROOT)
        except OSError:  # the container has unmounted it, say
            continue
        try:
            if linux.mount_id(fd, "") == found:
                return True
        finally:
            posix.close(fd)
    return False


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
            f"invalid {what}: {text!r:.80}", f"a name of the image, or a number from 0 to {ID_LIMIT}"
        )
    return int(text)


def _is_id(text: str) -> bool:
    return is_digits(text) and len(text) <= 10 and int(text) <= ID_LIMIT


def resolve(user: str, add: list[str], directories: list[str], mounts: list[Any] | None = None) -> Account:
    """Who `user[:group]` is; "" is root, and no group the user's own.

    add: further groups (--group-add); directories, mounts: as read_below has them. Raises NotFound for a name the image
    does not have.
    """
    # "1000:" is what `-u $UID:$GID` comes to, for bash has no $GID
    wanted, _, wanted_group = user.partition(":")
    passwd = _rows(read_below(directories, "etc/passwd", mounts), 4)
    groups = _rows(read_below(directories, "etc/group", mounts), 3)
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
    environment: list[str],
    uid: int,
    root: str,
    mounts: list[Any] | None = None,
    bundle: str = "",
    *,
    running: bool = False,
) -> list[str]:
    """*environment*, and HOME if it has none or an empty one: from the container's /etc/passwd, as runc does. It is
    below *root*, of a running container through its *mounts*, or what one of them is going to show in its place."""
    found = [item for item in environment if item[:5] == "HOME="]
    if found and found[-1] != "HOME=":
        return environment
    if running:
        home = home_of(uid, [root], "etc/passwd", mounts or [])
    else:
        home = home_of(uid, *(passwd_shown(mounts or [], bundle) or ([root], "etc/passwd")))
    return [*[item for item in environment if item[:5] != "HOME="], f"HOME={home}"]


def home_of(uid: int, directories: list[str], path: str, mounts: list[Any] | None = None) -> str:
    """By the passwd file at *path* below *directories*; / if that does not know *uid*, or makes no sense. Links do not
    lead out of them, and nothing there keeps a process from being executed."""
    home = ""
    if uid <= ID_LIMIT:
        try:
            home = _find(str(uid), _rows(read_below(directories, path, mounts), 4))[2]
        except (OSError, UsageError):  # whose /proc/PID/root is not to be had, or no longer
            pass
    return "/" if "\0" in home else home or "/"


def passwd_shown(mounts: list[Any], bundle: str = "") -> tuple[list[str], str] | None:
    """The /etc/passwd that a config's mounts put over the root's own, as home_of takes it; None if there is none."""
    found: tuple[list[str], str] | None = None
    for mount in mounts:
        target, options = normal_path(mount["destination"]), mount.get("options") or []
        if target not in _PASSWD_BELOW:
            continue
        if "remount" in options or "tmpcopyup" in options:
            continue
        if mount.get("type") != "bind" and "bind" not in options and "rbind" not in options:
            found = [], ""
            continue
        source = mount["source"]
        source = source if source[:1] == "/" else f"{bundle}/{source}"
        # a file may be given by a link of the host's; a directory may hold links of somebody else's
        below = _PASSWD_BELOW[target]
        found = ([source], below) if below else (["/"], source[1:])
    return found


# What may be mounted over /etc/passwd, and where that is in it.
_PASSWD_BELOW = {"/": "etc/passwd", "/etc": "passwd", "/etc/passwd": ""}


def _find(wanted: str, passwd: list[list[str]]) -> tuple[int, int, str, str]:
    """(uid, gid, home, name) of a name or number; a number need not be in the file."""
    uid = 0
    if not wanted or is_digits(wanted) or wanted[0] in "-+":
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
    if is_digits(wanted) or wanted[:1] in ("-", "+"):
        return _number(wanted, "group")
    for row in groups:
        if row[0] == wanted and _is_id(row[2]):
            return int(row[2])
    raise NotFound(f"no group {wanted!r} in the image's /etc/group", "use a number, or a name the image has")
