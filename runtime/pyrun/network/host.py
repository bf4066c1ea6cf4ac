"""What pyrun changes on the host itself, noted before it is changed and put back by the last `network prune`.

run/networks/before.json holds the former values. Each is changed only where it must be:

    forwarding      ip_forward; of IPv6, once a network has it; and what the kernel changes together with them
                    put back with the last container already (forwarding.py)
    accept_ra       2 on links that have routes from router advertisements: a router (forwarding) ignores those else
    neigh gc_thresh, nf_conntrack_max      only when the tables of the whole host get full
    /run/netns      a directory and a shared mount, as `ip netns` makes them

rp_filter may be anything: nothing here is routed asymmetrically. route_localnet and nf_call_iptables are switched on
for bridges of ours alone, and go with them; adopted ones get theirs back (adopt.py). Cold: first start, healing, prune.
"""

from __future__ import annotations

import errno
import fcntl
import posix

from pyrun import jsonlite, linux, notice
from pyrun.errors import UsageError
from pyrun.network import claims, events, netns, tags
from pyrun.store import paths

FORWARD, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
# family, key of its note in before.json, name
_SWITCHES = ((4, "sysctls", FORWARD), (6, "sysctls6", FORWARD6))
POLICY = "PYRUN_FORWARD"
# Writing ip_forward resets these of every interface (inet_forward_change in the kernel); IPv6 has the first alone.
_SWEPT_ALONG = ("forwarding", "accept_redirects")

_ROUTES6 = "/proc/net/ipv6_route"
_FROM_ADVERTISEMENT = 0x00040000  # RTF_ADDRCONF

_NEIGHBOURS = [
    f"net/ipv{version}/neigh/default/gc_thresh{number}" for version in (4, 6) for number in (1, 2, 3)
]
_FLOWS, _FLOWS_MAX = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


class locked:
    """One process at a time makes, heals or removes networks. Source: man 2 flock."""

    __slots__ = ("host_fd", "lock_fd")

    def __enter__(self) -> None:
        directory = f"{paths.run()}/networks"
        paths.make(directory)
        self.lock_fd = posix.open(
            f"{directory}/.lock", posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600
        )
        # Other run directories on this host lock its network namespace as well.
        self.host_fd = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
            fcntl.flock(self.host_fd, fcntl.LOCK_EX)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        posix.close(self.host_fd)
        posix.close(self.lock_fd)


def read_sysctl(name: str) -> str:
    """The value of /proc/sys/<name>; "" if this kernel has none."""
    try:
        return paths.read(f"/proc/sys/{name}").decode().strip()
    except FileNotFoundError:
        return ""


def write_sysctl(name: str, value: str) -> None:
    """Set /proc/sys/<name>; one this kernel lacks is passed over."""
    try:
        fd = posix.open(f"/proc/sys/{name}", posix.O_WRONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        posix.write(fd, value.encode())
    finally:
        posix.close(fd)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6: not after a boot with ipv6.disable=1."""
    return paths.exists("/proc/sys/net/ipv6/conf")


def note_forwarding(*, ipv6: bool) -> list[str]:
    """Note what `enable_forwarding` will change, so that rules can be there before; what will be switched on."""
    found = [FORWARD] if read_sysctl(FORWARD) != "1" else []
    found += [FORWARD6] if ipv6 and read_sysctl(FORWARD6) not in ("", "1") else []
    if found:
        _remember("bridges", _bridges())
        note_policy()
    if FORWARD in found:
        every = [f"net/ipv4/conf/{interface}/{key}" for interface in _interfaces(4) for key in _SWEPT_ALONG]
        _remember("sysctls", {name: read_sysctl(name) for name in (FORWARD, *every)})
    if FORWARD6 in found:
        every = [f"net/ipv6/conf/{interface}/forwarding" for interface in _interfaces(6)]
        every += [
            name for name in map(_accept_ra, advertised_links(_lines(_ROUTES6))) if read_sysctl(name) == "1"
        ]
        _remember("sysctls6", {name: read_sysctl(name) for name in (FORWARD6, *every)})
    return found


def enable_forwarding(*, ipv6: bool) -> bool:
    """Let the host forward packets, and say so the first time; whether it did not."""
    found = note_forwarding(ipv6=ipv6)
    for forward in found:
        if forward == FORWARD6:
            _keep_advertised_routes()
        write_sysctl(forward, "1")
        _tell(forward)
    return bool(found)


def _keep_advertised_routes() -> None:
    """Before forwarding: the moment it is on, the routes of links that do not say 2 are dropped."""
    for link in advertised_links(_lines(_ROUTES6)):
        if read_sysctl(_accept_ra(link)) == "1":
            write_sysctl(_accept_ra(link), "2")
            notice.say(f"net.ipv6.conf.{link}.accept_ra is now 2, so that its routes stay")


def switched() -> list[int]:
    """The families (4, 6) whose forwarding pyrun has switched on."""
    before = _before()
    return [family for family, key, _ in _SWITCHES if key in before]


def shut_to_others() -> list[int]:
    """Those of which the administrator has not said that this host may be a router for others meanwhile."""
    return [] if _before().get("forward") == "accept" else switched()


def note_policy() -> None:
    """Keep what $PYRUN_FORWARD says now, if it says anything, until `restore`. Raises UsageError."""
    said = posix.environ.get(POLICY.encode(), b"").decode("utf-8", "surrogateescape")
    if said not in ("", "drop", "accept"):
        raise UsageError(f"{POLICY}: {said!r:.40} is neither drop nor accept", "unset it, or say which")
    if said:
        _remember("forward", said, again=True)


def rest_forwarding() -> bool:
    """Put forwarding back, and forget that it was ours; whether anything was put back."""
    before = _before()
    done = [
        key
        for _, key, forward in _SWITCHES
        if _restore_sysctls(before.get(key), forward, before.get("bridges"), quiet=True)
    ]
    _forget(done)
    return bool(done)


def forget_unswitched() -> None:
    """Forget the notes of what was to be switched on and is not."""
    _forget([key for _, key, forward in _SWITCHES if read_sysctl(forward) != "1"])


def _forget(keys: list[str]) -> None:
    before = {key: value for key, value in _before().items() if key not in keys}
    if not any(key in before for _, key, _ in _SWITCHES):
        before.pop("bridges", None)
    if before != _before():
        _write(_path(), before)


def advertised_links(lines: list[str]) -> list[str]:
    """The links that have routes from router advertisements. lines: /proc/net/ipv6_route."""
    rows = [line.split() for line in lines]
    return sorted({row[9] for row in rows if len(row) == 10 and int(row[8], 16) & _FROM_ADVERTISEMENT})


def make_room(containers: int | None = None) -> None:
    """Enlarge the host's tables of neighbours and of flows, which all of its containers share, if they get full.

    Every container takes two entries among the neighbours: the host's for it, and its own for the gateway.
    containers: how many addresses are leased, if it is known. Call under `locked`.
    """
    needed = 2 * (_leases() if containers is None else containers)
    for name in _NEIGHBOURS:
        value = read_sysctl(name)
        share = {"1": 4, "2": 2, "3": 1}[name[-1]]  # the first is where cleaning begins, the third is the end
        if value.isdigit() and int(value) * share < 2 * needed:
            _enlarge(name, value, 4 * needed // share)
    flows, most = read_sysctl(_FLOWS), read_sysctl(_FLOWS_MAX)
    if flows.isdigit() and most.isdigit() and int(most) and 4 * int(flows) > 3 * int(most):
        _enlarge(_FLOWS_MAX, most, 2 * int(most))


def _leases() -> int:
    base = f"{paths.run()}/networks"
    return sum(len(claims.names(f"{base}/{name}/leases")) for name in claims.names(base))


def _enlarge(name: str, before: str, value: int) -> None:
    known = _before().get("room")
    noted = known if isinstance(known, dict) else {}
    _remember("room", {name: before, **noted}, again=True)
    try:
        write_sysctl(name, str(value))
    except OSError as error:
        notice.say(
            f"{_dotted(name)} = {before} is little for so many containers, and cannot be set: {error.strerror}"
        )
        return
    notice.say(f"{_dotted(name)} is now {value} (it was {before}); `pyrun network prune` restores it")


def _interfaces(version: int) -> list[str]:
    return posix.listdir(f"/proc/sys/net/ipv{version}/conf")


def _accept_ra(interface: str) -> str:
    return f"net/ipv6/conf/{interface}/accept_ra"


def _lines(path: str) -> list[str]:
    try:
        return paths.read(path).decode().splitlines()
    except OSError:
        return []


def _tell(name: str) -> None:
    """Once a boot: it is put back whenever no container is left, and switched on again by the next one."""
    text = (
        f"{_dotted(name)} is now 1, so that containers reach the outside; `pyrun network prune` restores it"
    )
    if events.first_time(text):
        notice.say(text)


def _dotted(name: str) -> str:
    return name.replace("/", ".")


def make_netns_directory() -> None:
    """Make /run/netns what `ip netns` expects: a directory that is a shared mount of itself."""
    try:
        posix.mkdir(paths.NETNS_DIR, 0o755)
        _remember("netns_directory", True)
    except FileExistsError:
        pass
    if netns.directory_ready():
        return
    _remember("netns_mount", True)
    linux.mount(paths.NETNS_DIR, paths.NETNS_DIR, None, linux.MS_BIND)
    linux.mount("", paths.NETNS_DIR, None, linux.MS_SHARED)


def hand_over(others: list[str]) -> bool:
    """Where other run directories have networks on this host: leave what was changed as it is, and its former state to
    the first of them that is there, whose last prune puts it back. Call under `locked`. False: there is none."""
    for run in others:
        path = f"{run}/networks/before.json"
        if not paths.exists(f"{run}/networks"):
            continue
        before = _before()
        if before:
            # what it noted itself was after our changes
            _write(path, {**_read(path), **before})
            _unlink()
            notice.say(
                f"the settings of this host stay: the run directory {run} has networks, and restores them"
            )
        return True
    return False


def restore() -> list[str]:
    """Put everything back; returns what was put back, for the user."""
    before = _before()
    told = []
    for _, key, forward in _SWITCHES:
        told += _restore_sysctls(before.get(key), forward, before.get("bridges"))
    told += _restore_room(before.get("room"))
    in_use = posix.listdir(paths.NETNS_DIR) if paths.exists(paths.NETNS_DIR) else []
    if in_use:
        # A name of a container without a network, or of others: the mount stays, and so does the note of it.
        kept = {key: before[key] for key in ("netns_mount", "netns_directory") if key in before}
        if kept:
            _write(_path(), kept)
        else:
            _unlink()
        return told
    if before.get("netns_mount"):
        try:
            linux.umount2(paths.NETNS_DIR, 0)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        told.append(f"mount {paths.NETNS_DIR}")
    if before.get("netns_directory"):
        try:
            posix.rmdir(paths.NETNS_DIR)
        except OSError:
            pass
    _unlink()
    return told


def _restore_sysctls(values: object, forward: str, bridges: object, *, quiet: bool = False) -> list[str]:
    if not isinstance(values, dict):
        return []
    newcomers = set(_bridges()).difference(bridges) if isinstance(bridges, list) else set()
    if newcomers:
        # A Docker daemon, say, that found forwarding switched on and would be cut off without it.
        if not quiet:
            notice.say(
                f"{_dotted(forward)} stays 1: {' and '.join(sorted(newcomers))} came after pyrun switched it "
                f"on, and may need it (before, it was {values[forward]})"
            )
        return []
    write_sysctl(forward, values[forward])
    for name, value in values.items():
        if value and read_sysctl(name) not in ("", value):
            write_sysctl(name, value)
    return [f"{_dotted(forward)} = {values[forward]}"]


def _restore_room(values: object) -> list[str]:
    if not isinstance(values, dict):
        return []
    for name, value in values.items():
        write_sysctl(name, value)
    return [f"{_dotted(name)} = {value}" for name, value in values.items()]


def _bridges() -> list[str]:
    """The bridges of this host, those that this run directory made left out."""
    links = "/sys/class/net"
    return sorted(
        link for link in posix.listdir(links) if paths.exists(f"{links}/{link}/bridge") and not _is_own(link)
    )


def _is_own(bridge: str) -> bool:
    """By its name and its alias (ownership.py); one of an older version has no alias."""
    try:
        alias = paths.read(f"/sys/class/net/{bridge}/ifalias").decode("utf-8", "replace").strip()
    except OSError:  # it went this moment
        return True
    return bridge.startswith("pyr") and (not alias or alias.startswith(tags.alias("")))


def _path() -> str:
    return f"{paths.run()}/networks/before.json"


def _write(path: str, before: object) -> None:
    paths.replace(path, f"{jsonlite.dumps(before)}\n".encode())


def _unlink() -> None:
    try:
        posix.unlink(_path())
    except FileNotFoundError:
        pass


def _before() -> dict[str, object]:
    return _read(_path())


def _read(path: str) -> dict[str, object]:
    try:
        value = jsonlite.loads(paths.read(path))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(key: str, value: object, *, again: bool = False) -> None:
    """Note a former state; the first note stays, since the later ones are our own doing, unless it is said *again*."""
    before = _before()
    if again or key not in before:
        before[key] = value
        _write(_path(), before)
