"""`pyrun network create | ls | rm | prune | reload`: the networks and what pyrun changed on the host for them.

`prune` is the way back: without any network left, links, firewall, sysctls and mounts are as before the first
start. A network somebody flushed is healed by the next start; see network/bridge.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyrun import boot
from pyrun.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.network import claims, leases, netns
from pyrun.spec import values
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import TypedDict

    from pyrun.spec.oci import Object
    from pyrun.spec.values import Options

    class Row(TypedDict):
        """A network. "" and 0.0: it has none, as a built-in one; containers: name -> address."""

        name: str
        id: str
        driver: str
        subnet: str
        subnet6: str
        gateway: str
        bridge: str
        mtu: int | str
        internal: bool
        ipv6: bool
        labels: dict[str, str]
        created: float
        scope: str
        containers: dict[str, str]

    class Removed(TypedDict, total=False):
        """A network, or what was put back of the host's settings."""

        name: str
        bridge: str
        subnet: str
        restored: list[str]


def ls() -> list[Row]:
    """One row a network, by name.

    The three built-in ones are always there; "bridge" has no subnet before its first container.
    """
    from pyrun.network import design, records

    rows: dict[str, Row] = {name: _row(name, {"driver": name}) for name in design.built_in()}
    rows["none"]["driver"] = "null"
    for name, row in rows.items():
        row["id"] = records.built_in_id(name)
    for network in _networks():
        rows[network["name"]] = _row(network["name"], network)
    return [rows[name] for name in sorted(rows)]


def create(name: str, options: Options) -> str:
    """Make a network; returns its id. options: as the command line has them.

    Raises: UsageError, Conflict (name, subnet), NetworkError.
    """
    from pyrun.network import bridge, design
    from pyrun.network.drivers import driver_options

    if boot.rootless_uid() >= 0:
        raise UsageError(
            "network create: only root can make a network of the host", "--network=pasta needs none"
        )
    wanted = design.Wanted(name, str(options["driver"]))
    wanted.subnets, wanted.gateways, wanted.ranges = (
        values.texts(options[key]) for key in ("subnets", "gateways", "ranges")
    )
    wanted.internal, wanted.ipv6, wanted.isolate, wanted.icc = (
        bool(options[key]) for key in ("internal", "ipv6", "isolate", "icc")
    )
    pairs = [text.partition("=") for text in values.texts(options["opt"])]
    wanted.options = {key: value for key, _, value in pairs}
    wanted.labels, wanted.parent = (
        values.labels(values.texts(options["label"])),
        wanted.options.get("parent", ""),
    )
    if isinstance(options["mtu"], int):
        wanted.mtu = options["mtu"]
    driver_options.settle(wanted)
    identifier = bridge.create(wanted).id
    driver_options.say_ignored(wanted)
    return identifier


def resolve(reference: str) -> str:
    """The name of the network *reference* means, by name or by the beginning of its id; else the reference itself.

    Raises: UsageError when several ids begin so.
    """
    from pyrun.network import records

    return records.named(reference)


def refuse_taken_mac(name: str, mac: str) -> None:
    """Raises: Conflict when somebody on the network has that MAC address, UsageError when it is none."""
    from pyrun.network import mac_claims, requests

    mac_claims.refuse(name, requests.mac(mac, f"--mac-address {mac:.40}"), "--mac-address")


def reload(*, counted: bool = True) -> tuple[list[str], list[str]]:
    """Restore what others removed of the networks, and judge published ports anew: what was done, and what failed; a
    line for each thing.

    counted: look for missing elements of containers as well; the guard, which calls while containers come and go, does
    not. With none left, it has forwarding put back, and the rest waits for the next start.
    """
    from pyrun.network import forwarding, host

    sweep()
    needed = forwarding.needed()
    if not needed and not counted:
        rest()
        return [], []
    with host.locked():
        host.note_policy()
    from pyrun.network import events, guard_start, rebuilding, reloading
    from pyrun.network.publishing import shutting

    told, failed = list[str](), list[str]()
    steps: tuple[Callable[[], list[str] | None], ...] = (
        lambda: reloading.reload(failed, counted=counted),
        rebuilding.forget_strays,
        shutting.anew,
        lambda: ["pyrun-guard was missing and has been started"] if guard_start.resume() else [],
        # the last container may have gone meanwhile, with no guard to see it
        lambda: rest() if needed else None,
    )
    for step in steps:
        try:
            told += step() or []
        except (PyrunError, OSError) as error:
            failed.append(str(error))
    events.note(told)
    return told, failed


def rest() -> None:
    """Put forwarding back when no container needs it any more. Raises OSError."""
    from pyrun.network import forwarding

    forwarding.rest()


def forget_strays() -> list[str]:
    """Remove egress policies of containers that are gone; a line each. Raises OSError."""
    from pyrun.network.egress import elements

    if not elements.in_use():
        return []
    from pyrun.network import rebuilding

    return rebuilding.forget_strays()


def rm(name: str, *, force: bool = False) -> str:
    """Remove a network nobody uses, told by name or id; returns its name. force: no error if there is none.

    Raises: NotFound, Conflict (in use, or not removable), UsageError (several ids begin so).
    """
    name = resolve(name)
    from pyrun.network import bridge, design

    if name in design.built_in():
        raise Conflict(
            f"network {name} is built in and cannot be removed",
            "`pyrun network prune` takes its bridge and rules away; only networks of `network create` are removed",
        )

    if force and name not in [network["name"] for network in _networks()]:
        return name
    bridge.remove(name)
    if not _built():
        _restore_host()
    return name


def prune() -> list[Removed]:
    """Remove every network without containers; with the last one, restore the host. One row each; what was put back at
    the end, when there is no network left."""
    sweep()
    removed: list[Removed] = []
    for network in _networks():
        from pyrun.network import bridge

        try:
            bridge.remove(network["name"])
        except (Conflict, NotFound):  # in use, or another prune was quicker
            continue
        removed.append({"name": network["name"], "bridge": network["bridge"], "subnet": network["subnet"]})
    if not _built():
        told = _restore_host()
        if told:
            removed.append({"restored": told})
    return removed


def sweep() -> list[str]:
    """Free what starts claimed that died before their undo list existed; what was freed, a line each."""
    base = f"{paths.run()}/networks"
    freed = []
    for name in _names():
        freed += [f"address {address} of network {name}" for address in claims.sweep(f"{base}/{name}/leases")]
    freed += [f"port {port}" for port in claims.sweep(f"{paths.run()}/ports")]
    freed += [f"MAC address {each}" for each in claims.sweep(f"{paths.run()}/macs")]
    freed += [f"network namespace name {name}" for name in netns.sweep()]
    if paths.exists(f"{paths.run()}/resolvers"):
        from pyrun.network.drivers import naming

        freed += [f"resolver of container {identifier[:12]}" for identifier in naming.sweep()]
    claims.sweep_records()
    return freed


def _row(name: str, network: Object) -> Row:
    # of two addresses the one of IPv4, which comes last
    users = sorted(leases.held(name).items(), key=lambda lease: (":" not in lease[0], lease[0]))
    nowhere = {claims.name_in(lines): "" for lines in leases.members(name).values()}
    return {
        "name": name,
        "id": network.get("id", ""),
        "driver": network.get("driver", ""),
        "subnet": network.get("subnet", ""),
        "gateway": network.get("gateway", ""),
        "bridge": network.get("bridge", ""),
        "mtu": network.get("mtu", ""),
        "subnet6": network.get("subnet6", ""),
        "internal": bool(network.get("internal")),
        "ipv6": bool(network.get("subnets6")),
        "labels": network.get("labels", {}),
        "created": network.get("created", 0.0),
        "scope": "local",
        "containers": nowhere | {claims.name_in(lines): address for address, lines in users},
    }


def _names() -> list[str]:
    """The directories of networks; other things lie beside them."""
    base = f"{paths.run()}/networks"
    below = ("network.json", "leases")
    return sorted(
        name for name in claims.names(base) if any(paths.exists(f"{base}/{name}/{each}") for each in below)
    )


def _networks() -> list[Object]:
    """Every network, built or only defined, without the libraries that make one."""
    from pyrun import jsonlite

    found: dict[str, Object] = {}
    defined = [name for name in claims.names(f"{paths.root()}/networks") if name.endswith(".json")]
    files = [f"{paths.root()}/networks/{name}" for name in defined]
    for file in [*files, *[f"{paths.run()}/networks/{name}/network.json" for name in _names()]]:
        try:
            network = jsonlite.loads(paths.read(file))
        except (OSError, ValueError):
            continue
        if isinstance(network, dict):
            found[str(network["name"])] = network
    return [found[name] for name in sorted(found)]


def _built() -> list[str]:
    return [name for name in _names() if paths.exists(f"{paths.run()}/networks/{name}/network.json")]


def _restore_host() -> list[str]:
    from pyrun.network import host, ownership

    try:
        with host.locked():
            if _built():
                return []
            for name in ("events", "reload.errors", "resolver.errors", "tag"):
                Path(paths.run(), "networks", name).unlink(missing_ok=True)
            return [] if host.hand_over(ownership.others()) else host.restore()
    except OSError as error:
        raise PyrunError(
            f"the host's settings cannot be restored: {error}", "see run/networks/before.json"
        ) from None


# ── a bridge made by hand ──────────────────────────────────────────────────────────────────────────


def adopt(bridge: str, options: Options) -> str:
    """Take the bridge over; returns the network's name. Raises: NotFound, UsageError, Conflict, NetworkError."""
    if boot.rootless_uid() >= 0:
        raise UsageError(
            "network adopt: only root can take over a bridge of the host", "sudo pyrun network adopt ..."
        )
    from pyrun.network import adopt as adoption

    return adoption.adopt(bridge, str(options["name"] or "")).name
