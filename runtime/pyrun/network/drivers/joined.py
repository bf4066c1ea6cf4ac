"""Containers without a network namespace of their own: `container:NAME`, `ns:NAME`, `ns:/path` or a path.

    container:web    that of a running container of pyrun; /etc/hosts, /etc/hostname and /etc/resolv.conf are its files,
                     the very same ones, so that what it learns later is seen here as well
    ns:blue          one made by `ip netns add blue`; hosts and resolv.conf in /etc/netns/blue are honoured, as
                     `ip netns exec` honours them
    /run/netns/blue  any file that is a network namespace, and is verified to be one

Whoever made the namespace decides about it: nothing in it is changed, and it is left as it was. Options that would
change it are refused. Pure system calls: no netlink. Source: man 8 ip-netns, man 2 ioctl_nsfs; Docker's
`--network container:`.
"""

from __future__ import annotations

import posix
from fcntl import ioctl

from pyrun import linux
from pyrun.errors import NotFound, UsageError
from pyrun.store import paths, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options
    from pyrun.store.record import Record

_NS_GET_NSTYPE = 0xB703
_KINDS = {
    linux.CLONE_NEWNS: "mount", linux.CLONE_NEWPID: "pid", linux.CLONE_NEWUTS: "uts", linux.CLONE_NEWIPC: "ipc",
    linux.CLONE_NEWCGROUP: "cgroup", linux.CLONE_NEWUSER: "user", linux.CLONE_NEWTIME: "time",
}  # fmt: skip

# Options of `run` that would change a namespace which is somebody else's, and those that would change its files.
_OF_A_NAMESPACE = {
    "publish": "--publish", "publish_all": "--publish-all", "expose": "--expose", "ip": "--ip", "ip6": "--ip6",
    "mac_address": "--mac-address", "network_alias": "--network-alias", "net_rate": "--net-rate",
    "net_fault": "--net-fault", "egress": "--egress",
}  # fmt: skip
_OF_THE_FILES = {
    "hostname": "--hostname", "dns": "--dns", "dns_search": "--dns-search", "dns_option": "--dns-option",
    "add_host": "--add-host",
}  # fmt: skip
_SHARED = ("hosts", "hostname", "resolv.conf")
_BESIDE = "/etc/netns"


def resolve(mode: str, target: str) -> tuple[str, Record | None, bool]:
    """(path of the network namespace, the container it is of or None, whether it is the host's: the one we are in) for
    mode "container" or "ns".

    Raises: NotFound, UsageError (no network namespace; the container does not run).
    """
    if mode == "container":
        return _of_container(target)
    option = f"--network {target}" if target.startswith("/") else f"--network ns:{target}"
    if not target.startswith("/") and ("/" in target or target in (".", "..")):
        raise UsageError(
            f"{option}: is neither a name in {paths.NETNS_DIR} nor a whole path",
            "ns:NAME of `ip netns list`, or ns:/proc/PID/ns/net",
        )
    path = target if target.startswith("/") else f"{paths.NETNS_DIR}/{target}"
    return path, None, _verify(path, option)


def refuse(options: Options, mode: str, target: str) -> None:
    """Raises UsageError for an option that would change what is somebody else's."""
    word = target if target.startswith("/") else f"{mode}:{target}"
    for table in (_OF_A_NAMESPACE, _OF_THE_FILES if mode == "container" else {}):
        for key, option in table.items():
            if options.get(key):
                whose = f"container {target}" if mode == "container" else f"the namespace {target}"
                raise UsageError(
                    f"{option} is refused with --network {word}: it would change {whose}",
                    f"say it where {whose} is made",
                )


def shared_files(record: Record | None, target: str = "") -> dict[str, str]:
    """{file below /etc: the host's path} that the container gets instead of its own: those of *record*, a container, or
    those in /etc/netns/TARGET that are there."""
    if record is not None:
        keep = f"{paths.root()}/containers/{record['id']}"
        return {name: path for name in _SHARED if paths.exists(path := f"{keep}/{name}")}
    if target.startswith(f"{paths.NETNS_DIR}/"):
        target = target.rpartition("/")[2]
    if not target or "/" in target:
        return {}
    places = {name: f"{_BESIDE}/{target}/{name}" for name in ("hosts", "resolv.conf")}
    return {name: path for name, path in places.items() if paths.exists(path)}


def _of_container(reference: str) -> tuple[str, Record, bool]:
    option = f"--network container:{reference}"
    try:
        record = state.load(state.resolve(reference))
    except NotFound:
        raise NotFound(f"{option}: no such container", "`pyrun ps` lists those that run") from None
    if not state.process_alive(record):
        raise UsageError(f"{option}: the container does not run", f"its status is {state.status(record)}")
    path = f"/proc/{record['pid']}/ns/net"
    named = f"{paths.NETNS_DIR}/{record.get('name')}"
    try:
        inode = posix.stat(path).st_ino
        if record.get("name") and posix.stat(named).st_ino == inode:
            path = named  # stays what it is, should the process end in this moment
    except OSError:
        pass
    return path, record, _verify(path, option)


def _verify(path: str, option: str) -> bool:
    """Whether *path* is the network namespace we are in. Raises UsageError unless it is one."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(f"{option}: there is no {path}", "`ip netns list` shows the names there are") from None
    except OSError as error:
        raise UsageError(
            f"{option}: {path}: {posix.strerror(error.errno or 0)}",
            "`ip netns list` shows the names there are",
        ) from None
    try:
        kind, inode = ioctl(fd, _NS_GET_NSTYPE), posix.fstat(fd).st_ino
    except OSError:
        raise UsageError(
            f"{option}: {path} is no network namespace",
            "left over from a reboot? `ip netns delete` removes the name",
        ) from None
    finally:
        posix.close(fd)
    if kind != linux.CLONE_NEWNET:
        raise UsageError(
            f"{option}: {path} is a {_KINDS.get(kind, 'different')} namespace, not a network namespace",
            "one of `ip netns list`, or /proc/PID/ns/net",
        )
    return inode == posix.stat("/proc/self/ns/net").st_ino
