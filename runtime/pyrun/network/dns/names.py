"""Who is called what: the leases of all networks, read again when a directory of them changed.

A lease is a file named by its address; its first word is its container, its lines tell the names (network/claims.py).
On a card of the host nothing but its leases is known of a network: no address of this host asks or is asked there.
It never changes, it comes and goes; so a directory's time says whether anything did. That time may be as coarse as
a tick of the kernel's clock: while it is young, what was listed within the same tick may not be all. At the end:
answers from names, of containers that share a network with whoever asks.
"""

from __future__ import annotations

import posix
import time
from _socket import AF_INET, AF_INET6, inet_pton

from pyrun.jsonlite import loads
from pyrun.network.dns import wire

# A directory that changed so recently is listed again, but not more often than the second says.
_YOUNG_NS = 20_000_000
_BETWEEN_NS = 2_000_000
# How often all networks are looked at: for a source or a name that is not known.
_ALL_BETWEEN_NS = 5_000_000
_TEMPLATE_BYTES = 2048
_NETWORK_BYTES = 1 << 18
SHORT_ID = 12
# Where a container is answered inside its own namespace.
INSIDE = "127.0.0.11"


class Lease:
    """One address of a container: owner is the container's id, called its names there, dns its own servers."""

    __slots__ = ("address", "called", "dns", "inode", "internal", "name", "owner")

    def __init__(self, address: str, inode: int, lines: list[str]) -> None:
        self.address, self.inode = address, inode
        self.owner = lines[0].partition(" ")[0] if lines else ""
        told = [line.partition(" ") for line in lines[1:]]
        self.name = next((value for key, _, value in told if key == "name"), self.owner[:SHORT_ID])
        names = [value for key, _, value in told if key in ("name", "hostname", "alias")]
        self.called = {name.lower().rstrip(".") for name in [*names, self.owner[:SHORT_ID]] if name}
        self.dns = tuple(value for key, _, value in told if key == "dns")
        self.internal = any(key == "internal" for key, _, _ in told)


class Network:
    """One network: where its leases are, and what is known of them."""

    __slots__ = (
        "changed_ns", "checked_ns", "directory", "gateways", "internal", "leases", "listed_ns", "name", "on_a_card",
        "owners", "settled", "subnets", "table",
    )  # fmt: skip

    def __init__(self, run: str, name: str, *, on_a_card: bool = False) -> None:
        self.name, self.directory = name, f"{run}/networks/{name}/leases"
        self.on_a_card = on_a_card
        told = _template(f"{run}/networks/{name}/template")
        # nothing leaves a network that tells nothing; of a card's, the leases tell
        self.internal = not on_a_card and told.get("internal") != "False"
        self.subnets = [_span(told.get(f"gateway{v}", ""), told.get(f"prefix{v}", "")) for v in ("", "6")]
        further = [] if on_a_card else _subnets(f"{run}/networks/{name}/network.json")
        self.subnets += [_span(*subnet.partition("/")[::2]) for subnet, _ in further]
        self.gateways = [gateway for _, gateway in further]
        self.leases: dict[str, Lease] = {}
        self.table: dict[str, list[Lease]] = {}
        self.owners: set[str] = set()
        self.changed_ns = self.checked_ns = self.listed_ns = 0
        self.settled = False

    def holds(self, address: str) -> bool:
        """Whether the address is of this network's subnets, leased or not."""
        try:
            packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
        except OSError:
            return False
        value = int.from_bytes(packed, "big")
        return any(size == len(packed) and first <= value <= last for size, first, last in self.subnets)

    def confines(self, owner: str) -> bool:
        """Whether nothing may be asked outside for a container because it is here."""
        if not self.on_a_card:
            return self.internal
        return all(lease.internal for lease in self.leases.values() if lease.owner == owner)

    def refresh(self, now_ns: int) -> bool:
        """Look whether leases came or went; True if so. Once for one *now_ns*, of time.monotonic_ns()."""
        if now_ns == self.checked_ns:
            return False
        self.checked_ns = now_ns
        try:
            changed_ns = posix.stat(self.directory).st_mtime_ns
        except OSError:
            changed_ns = -1
        if changed_ns == self.changed_ns and (self.settled or now_ns - self.listed_ns < _BETWEEN_NS):
            return False
        if changed_ns != self.changed_ns and now_ns - self.listed_ns < _BETWEEN_NS // 4:
            return False  # a storm of starts: so often and no oftener
        self.settled = time.time_ns() - changed_ns > _YOUNG_NS
        self.changed_ns, self.listed_ns = changed_ns, now_ns
        return self._list()

    def _list(self) -> bool:
        try:
            with posix.scandir(self.directory) as entries:
                there = {entry.name: entry.inode() for entry in entries if entry.name[0] != "."}
        except OSError:
            there = {}
        known = {address: lease.inode for address, lease in self.leases.items()}
        if there == known:
            return False
        for address in known.keys() - there.keys():
            del self.leases[address]
        for address, inode in there.items():
            if known.get(address) != inode:
                self.leases[address] = Lease(address, inode, _lines(f"{self.directory}/{address}"))
        self.table = {}
        self.owners = {lease.owner for lease in self.leases.values()}
        for lease in self.leases.values():
            for name in lease.called:
                self.table.setdefault(name, []).append(lease)
        return True


class View:
    """What one container sees: its networks, that of the socket it asks first, and answers that were made for it."""

    __slots__ = ("answers", "dns", "inside", "internal", "networks", "owner")

    def __init__(self, owner: str, networks: list[Network], dns: tuple[str, ...], inside: str = "") -> None:
        self.owner, self.networks, self.dns, self.inside = owner, networks, dns, inside
        self.internal = not owner or all(network.confines(owner) for network in networks)
        self.answers: dict[bytes, list[bytes]] = {}

    def find(self, name: str) -> list[Lease]:
        """The leases a name means: on the first network that knows it, or on the one that it ends with."""
        for network in self.networks:
            if found := network.table.get(name):
                return found
        for network in self.networks:
            if name.endswith("." + network.name.lower()) and (
                found := network.table.get(name[: -len(network.name) - 1])
            ):
                return found
        return []


class Names:
    """All networks the guard told of, and a view for every address that asks."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.networks: dict[str, Network] = {}
        self.containers: set[str] = set()  # those answered inside
        self.gateways: dict[str, str] = {}
        self.views: dict[tuple[str, str], View] = {}
        self._looked_ns = 0

    def add(self, name: str, gateways: list[str]) -> None:
        """A network; *gateways* are the host's own addresses there, of the first subnets."""
        self.forget(name)
        network = self.networks[name] = Network(self.run, name, on_a_card=not any(gateways))
        self.gateways.update({gateway: name for gateway in [*gateways, *network.gateways] if gateway})
        self._looked_ns = 0

    def add_container(self, identifier: str) -> None:
        """A container that asks inside its own namespace: what is asked there, it asks."""
        self.forget(identifier)
        self.containers.add(identifier)

    def alone(self, asked: str) -> str:
        """*asked*, where only the container of that id asks, else ""."""
        return asked if asked in self.containers else ""

    def forget(self, name: str) -> None:
        """The network, or the container that was answered inside, is gone."""
        self.networks.pop(name, None)
        self.containers.discard(name)
        self.gateways = {gateway: each for gateway, each in self.gateways.items() if each != name}
        self.views.clear()

    def view(self, source: str, asked: str, now_ns: int) -> View | None:
        """What the container with the address *source* sees, asking on the network *asked*; None: nobody's address."""
        view = self.views.get((source, asked))
        if view is not None:
            changed = False
            for network in view.networks:
                changed |= network.refresh(now_ns)
            if not changed:
                return view
            self.views.clear()
        else:
            self.look(now_ns)
            if asked in self.networks:
                self.networks[asked].refresh(now_ns)
        return self._made(source, asked)

    def look(self, now_ns: int) -> bool:
        """Look at all networks, but not all the time; True if something changed."""
        if now_ns - self._looked_ns < _ALL_BETWEEN_NS:
            return False
        self._looked_ns = now_ns
        changed = [network for network in self.networks.values() if network.refresh(now_ns)]
        if changed:
            self.views.clear()
        return bool(changed)

    def _made(self, source: str, asked: str) -> View | None:
        if asked in self.containers:
            return self._made_inside(asked)
        network = self.networks.get(asked)
        if network is None:
            return None
        lease = network.leases.get(source)
        if lease is not None and lease.owner:
            others = [
                each for each in self.networks.values() if each is not network and lease.owner in each.owners
            ]
            view = View(lease.owner, [network, *others], lease.dns)
        elif self.gateways.get(source) == asked:
            view = View("", [network], ())
        else:
            return None
        self.views[(source, asked)] = view
        return view

    def _made_inside(self, owner: str) -> View | None:
        networks = [each for each in self.networks.values() if owner in each.owners]
        if not networks:
            return None
        own = [lease for each in networks for lease in each.leases.values() if lease.owner == owner]
        dns = next((lease.dns for lease in own if lease.dns), ())
        view = self.views[(owner, owner)] = View(owner, networks, dns, inside=owner)
        return view

    def alive(self, leases: list[Lease]) -> list[Lease]:
        """Those whose container is still there, where several go by one name: a start that was killed may have
        left its lease behind."""
        if len(leases) < 2:
            return leases
        return [lease for lease in leases if _exists(f"{self.run}/containers/{lease.owner}")] or leases


def _lines(path: str) -> list[str]:
    return _read(path, 65536).decode("utf-8", "replace").splitlines()


def _template(path: str) -> dict[str, str]:
    """The first lines of a network's template, which say where it is (network/messages.py); of older versions too, with
    a blank in the place of the tab."""
    text = _read(path, _TEMPLATE_BYTES).decode("ascii", "replace")
    rows = [line.replace("\t", " ", 1).partition(" ") for line in text.splitlines()]
    return {key: value for key, _, value in rows if key != "message"}


def _subnets(path: str) -> list[tuple[str, str]]:
    """(subnet, its gateway) of all in a network.json, which is there before the template; [] when it tells of none."""
    try:
        found = loads(_read(path, _NETWORK_BYTES))
        every = [*found["subnets4"], *found["subnets6"]]  # type: ignore[index]
        return [(str(each["subnet"]), str(each["gateway"])) for each in every]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _read(path: str, most: int) -> bytes:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return posix.read(fd, most)
    except OSError:  # no file
        return b""
    finally:
        posix.close(fd)


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def _span(gateway: str, prefix: str) -> tuple[int, int, int]:
    """(bytes of an address, the first and the last of the subnet); nothing is in (0, 1, 0)."""
    try:
        packed = inet_pton(AF_INET6 if ":" in gateway else AF_INET, gateway)
        size = 1 << (8 * len(packed) - int(prefix))
    except (OSError, ValueError):
        return 0, 1, 0
    first = int.from_bytes(packed, "big") & ~(size - 1)
    return len(packed), first, first + size - 1


# ── answers from names ─────────────────────────────────────────────────────────────────────────────


# A container that starts again may get another address: nobody should remember for long.
TTL_S = 1


def answers(asked: wire.Question, view: View, known: Names) -> list[bytes]:
    """The messages to answer with, in turn; [] when the name is none of ours."""
    if asked.name.endswith(".arpa"):
        return _reverse(asked, view, known)
    leases = known.alive(view.find(asked.name))
    if not leases:
        return []
    six = asked.kind == wire.TYPE_AAAA
    if not six and asked.kind not in (wire.TYPE_A, wire.TYPE_ANY):
        return [wire.empty(asked, wire.NOERROR)]
    addresses = [lease.address for lease in leases if (":" in lease.address) == six]
    if not addresses:
        # the name is there, it has no address of that kind: asking elsewhere would only deny it
        return [wire.empty(asked, wire.NOERROR)]
    return wire.answers(asked, addresses, TTL_S)


def _reverse(asked: wire.Question, view: View, known: Names) -> list[bytes]:
    address = wire.addressed(asked.name)
    if not address:
        return []
    for network in view.networks:
        lease = network.leases.get(address)
        if lease is not None:
            if asked.kind not in (wire.TYPE_PTR, wire.TYPE_ANY):
                return [wire.empty(asked, wire.NOERROR)]
            return [_pointer(asked, lease, network)]
    # addresses of ours are nobody's business outside, and nobody there knows them
    if any(network.holds(address) for network in known.networks.values()):
        return [wire.empty(asked, wire.NXDOMAIN)]
    return []


def _pointer(asked: wire.Question, lease: Lease, network: Network) -> bytes:
    """The name of whoever has the address. Names of ours may have 128 characters, and dots side by side, which no name
    in DNS has: then it is the short id, by which it is found as well."""
    short = lease.owner[:SHORT_ID]
    for name in (f"{lease.name}.{network.name}", f"{short}.{network.name}", short):
        if wire.is_name(name):
            return wire.pointer(asked, name, TTL_S)
    return wire.empty(asked, wire.NXDOMAIN)
