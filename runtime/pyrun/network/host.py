"""What pyrun changes on the host itself, noted before it is changed and put back by the last `network prune`.

run/networks/before.json holds the former values. Each is changed only where it must be:

    forwarding      ip_forward; of IPv6, once a network has it; and what the kernel changes together with them
    accept_ra       2 on links that have routes from router advertisements: a router (forwarding) ignores those else
    neigh gc_thresh, nf_conntrack_max      only when the tables of the whole host get full
    /run/netns      a directory and a shared mount, as `ip netns` makes them

rp_filter may be anything: nothing here is routed asymmetrically. route_localnet and nf_call_iptables are switched on
bridges of ours alone, and go with them. Cold: first start, healing, prune.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrun import linux, notice
from pyrun.network import netns
from pyrun.store import paths

FORWARD, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
# Writing ip_forward resets these of every interface (inet_forward_change in the kernel); IPv6 has the first alone.
_SWEPT_ALONG = ("forwarding", "accept_redirects")

_ROUTES6 = "/proc/net/ipv6_route"
_FROM_ADVERTISEMENT = 0x00040000  # RTF_ADDRCONF

_NEIGHBOURS = [
    f"net/ipv{version}/neigh/default/gc_thresh{number}" for version in (4, 6) for number in (1, 2, 3)
]
_FLOWS, _FLOWS_MAX = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


@contextmanager
def locked() -> Iterator[None]:
    """One process at a time makes, heals or removes networks. Source: man 2 flock."""
    directory = Path(paths.run(), "networks")
    paths.make(str(directory))
    with open(directory / ".lock", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_sysctl(name: str) -> str:
    """The value of /proc/sys/<name>; "" if this kernel has none."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except FileNotFoundError:
        return ""


def write_sysctl(name: str, value: str) -> None:
    """Set /proc/sys/<name>; one this kernel lacks is passed over."""
    try:
        Path("/proc/sys", name).write_text(value)
    except FileNotFoundError:
        pass


def has_ipv6() -> bool:
    """Whether this kernel has IPv6: not after a boot with ipv6.disable=1."""
    return Path("/proc/sys/net/ipv6/conf").is_dir()


def enable_forwarding(*, ipv6: bool) -> bool:
    """Let the host forward packets, and say so; whether it did not."""
    was_off = read_sysctl(FORWARD) != "1" or (ipv6 and read_sysctl(FORWARD6) not in ("", "1"))
    if read_sysctl(FORWARD) != "1":
        values = {FORWARD: read_sysctl(FORWARD)}
        for interface in _interfaces(4):
            for key in _SWEPT_ALONG:
                name = f"net/ipv4/conf/{interface}/{key}"
                values[name] = read_sysctl(name)
        _remember("bridges", _bridges())
        _remember("sysctls", values)
        write_sysctl(FORWARD, "1")
        _tell(FORWARD)
    if ipv6 and read_sysctl(FORWARD6) not in ("", "1"):
        _enable_ipv6()
    return was_off


def _enable_ipv6() -> None:
    values = {FORWARD6: read_sysctl(FORWARD6)}
    for interface in _interfaces(6):
        name = f"net/ipv6/conf/{interface}/forwarding"
        values[name] = read_sysctl(name)
    told = [name for name in advertised_links(_lines(_ROUTES6)) if read_sysctl(_accept_ra(name)) == "1"]
    values.update({_accept_ra(name): "1" for name in told})
    _remember("bridges", _bridges())
    _remember("sysctls6", values)
    # before forwarding: the moment it is on, the routes of those that do not say 2 are dropped
    for name in told:
        write_sysctl(_accept_ra(name), "2")
        notice.say(f"net.ipv6.conf.{name}.accept_ra is now 2, so that its routes stay")
    write_sysctl(FORWARD6, "1")
    _tell(FORWARD6)


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
    return sum(len(os.listdir(path)) for path in Path(paths.run(), "networks").glob("*/leases"))


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
    return os.listdir(f"/proc/sys/net/ipv{version}/conf")


def _accept_ra(interface: str) -> str:
    return f"net/ipv6/conf/{interface}/accept_ra"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _tell(name: str) -> None:
    notice.say(
        f"{_dotted(name)} is now 1, so that containers reach the outside; `pyrun network prune` restores it"
    )


def _dotted(name: str) -> str:
    return name.replace("/", ".")


def make_netns_directory() -> None:
    """Make /run/netns what `ip netns` expects: a directory that is a shared mount of itself."""
    try:
        os.mkdir(paths.NETNS_DIR, 0o755)
        _remember("netns_directory", True)
    except FileExistsError:
        pass
    if netns.directory_ready():
        return
    _remember("netns_mount", True)
    linux.mount(paths.NETNS_DIR, paths.NETNS_DIR, None, linux.MS_BIND)
    linux.mount("", paths.NETNS_DIR, None, linux.MS_SHARED)


def restore() -> list[str]:
    """Put everything back; returns what was put back, for the user."""
    before = _before()
    told = []
    for key, forward in (("sysctls", FORWARD), ("sysctls6", FORWARD6)):
        told += _restore_sysctls(before.get(key), forward, before.get("bridges"))
    told += _restore_room(before.get("room"))
    in_use = os.listdir(paths.NETNS_DIR) if os.path.isdir(paths.NETNS_DIR) else []
    if in_use:
        # A name of a container without a network, or of others: the mount stays, and so does the note of it.
        kept = {key: before[key] for key in ("netns_mount", "netns_directory") if key in before}
        if kept:
            paths.replace(str(_path()), json.dumps(kept, indent=1).encode())
        else:
            _path().unlink(missing_ok=True)
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
            os.rmdir(paths.NETNS_DIR)
        except OSError:
            pass
    _path().unlink(missing_ok=True)
    return told


def _restore_sysctls(values: object, forward: str, bridges: object) -> list[str]:
    if not isinstance(values, dict):
        return []
    newcomers = set(_bridges()).difference(bridges) if isinstance(bridges, list) else set()
    if newcomers:
        # A Docker daemon, say, that found forwarding switched on and would be cut off without it.
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
    """The bridges of this host, ours left out."""
    links = Path("/sys/class/net")
    return sorted(
        link.name
        for link in links.iterdir()
        if (link / "bridge").is_dir() and not link.name.startswith("pyr")
    )


def _path() -> Path:
    return Path(paths.run(), "networks", "before.json")


def _before() -> dict[str, object]:
    try:
        value = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(key: str, value: object, *, again: bool = False) -> None:
    """Note a former state; the first note stays, since the later ones are our own doing, unless it is said *again*."""
    before = _before()
    if again or key not in before:
        before[key] = value
        paths.replace(str(_path()), json.dumps(before, indent=1).encode())
