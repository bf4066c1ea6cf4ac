"""Stage network: the container's own network, and its name in /run/netns.

The kernel gives a container an empty network namespace. This stage connects it from outside:

    check             the mode, the interfaces and the ports, pure
    claim             addresses, ports and the namespace's name, each by a file made in one step (network/claims.py); a
                      network that is missing is made first. For --dry-run `look` says what that would give
    plan              operations and undo lines of what was claimed; nothing is touched
    outside           name, links, addresses, routes and published ports, once there is a namespace: network/attach.py

Modes: "bridge", with an interface for every endpoint (network/requests.py), in that order;
"none": only the name in /run/netns; "host", "container", "ns": nothing at all, the namespace is somebody else's; "cni":
the plugins of network/drivers/cni.py. What an ordinary user may have instead is in network/user_mode/.
The undo list is complete when `plan` returns: links down, ports and flows, addresses, name. Next: stages/hooks.py.
"""

from __future__ import annotations

from pyrun import boot, notice
from pyrun.errors import UsageError
from pyrun.network import attach, claims, endpoint, messages, netns, requests, resolver, wiring
from pyrun.network.publishing import ports, publication
from pyrun.network.wiring import Claimed, NetworkPlan

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Protocol

    from pyrun.network.publishing import reservation
    from pyrun.network.requests import Request

    class Way(Protocol):
        """A module that wires containers."""

        def claim(self, request: Request, had: Claimed) -> None: ...
        def look(self, request: Request, had: Claimed) -> None: ...
        def plan(self, request: Request, had: Claimed) -> NetworkPlan: ...


def check(request: Request) -> None:
    """Raises: UsageError."""
    mode = request.mode
    if mode in requests.OF_A_USER and boot.rootless_uid() < 0:
        raise requests.of_ordinary_users(mode)
    if boot.rootless_uid() >= 0 and mode not in (*requests.ALONE, "container"):
        named = [wanted.network for wanted in request.endpoints]
        raise UsageError(
            f"--network={' '.join(named) or mode}: only root can connect a container to a network of the host",
            "an ordinary user has --network=pasta, slirp4netns, host, none or container:NAME",
        )
    if len(request.endpoints) > messages.MOST_LINKS:
        raise UsageError(f"--network is given {len(request.endpoints)} times: {messages.MOST_LINKS} at most")
    ports.check(request.ports)
    if request.net_rate or request.net_fault:
        from pyrun.network import shaping

        shaping.check(request)
    if request.egress is not None:
        from pyrun.network.egress import start

        start.check(request.egress, request.mode)


def claim(request: Request) -> Claimed:
    """Take what is scarce. Raises: NotFound (network), Conflict (port, address, namespace name), NetworkError,
    UsageError; nothing is claimed then."""
    had = Claimed(claims.owner(request.id))
    if _is_wired(request):
        _refuse(request)
        try:
            _way(request).claim(request, had)
        except BaseException:
            had.release()
            raise
    return had


def look(request: Request) -> Claimed:
    """What `claim` would take. Raises as that."""
    had = Claimed(claims.owner(request.id))
    if _is_wired(request):
        _refuse(request)
        _way(request).look(request, had)
    return had


def plan(request: Request, had: Claimed) -> NetworkPlan:
    """Operations and undo lines of what `claim` or `look` gave. Raises NetworkError, UsageError."""
    mode = request.mode
    if mode in (*requests.UNWIRED, *requests.OF_OTHERS) and request.ports:
        notice.say(f"published ports are ignored with --network {mode}")
    if mode in ("host", *requests.OF_OTHERS):
        planned = NetworkPlan()
        planned.resolv = resolver.chosen(request.dns, resolver.same_as_host())
        return planned
    if not _is_wired(request):
        return _of_a_user(request)
    planned = _way(request).plan(request, had)
    if request.egress is not None:
        from pyrun.network.egress import start

        start.add(request.egress, request, planned)
    if request.net_rate or request.net_fault:
        from pyrun.network import shaping

        shaping.add(request, planned)
    return planned


def _is_wired(request: Request) -> bool:
    """Whether the host has something of it, a name in /run/netns at the least: root's doing."""
    return request.mode not in ("host", *requests.OF_OTHERS) and boot.rootless_uid() < 0


def _refuse(request: Request) -> None:
    """Raises Conflict for a namespace's name or a MAC address that somebody has."""
    netns.refuse_foreign(request.name)
    if any(wanted.mac for wanted in request.endpoints):
        from pyrun.network import mac_claims

        mac_claims.refuse_taken(request.endpoints)


def _way(request: Request) -> Way:
    """Who wires it: plugins, the drivers for cards of the host's, or the bridges alone."""
    if request.mode == "cni":
        from pyrun.network.drivers import cni

        return cni
    if wiring.beside_a_card(request.endpoints):
        from pyrun.network import drivers

        return drivers
    return wiring


def _of_a_user(request: Request) -> NetworkPlan:
    """Nothing is wired on the host, nor named in /run/netns, which is root's."""
    if request.mode == "none":
        planned = NetworkPlan()
        planned.resolv = resolver.chosen(request.dns, resolver.reachable(fall_back=False))
        return planned
    from pyrun.network import user_mode

    return user_mode.plan(request)


def outside(planned: NetworkPlan, pid: int) -> None:
    """Connect the network namespace of *pid*, which waits for it. Raises: StageFailed, Conflict."""
    todo, had = planned.outside, planned.claimed
    if not todo:
        return
    if planned.program:
        endpoint.perform(pid, todo)
        return
    link = attach.Attachment(had.templates, pid, had.netfilter)
    try:
        networks = [str(operation.args[0]) for operation in todo if operation.kind == "RESOLVER"]
        attach.tell_guard(link, networks, _to_hold(had))
        endpoint.perform(link, todo)
    finally:
        link.close()


def _to_hold(had: Claimed) -> list[reservation.Held]:
    """The sockets of published ports that the guard has not been given yet."""
    return publication.reserved(had.ports, had.leads) if had.leads else []
