"""The interfaces of a running container, as its record (container.json) tells of them: read, and noted anew.

What engine/connect.py works on.
"""

from __future__ import annotations

from _socket import socket

from pyrun import boot
from pyrun.engine import name_files
from pyrun.errors import Conflict, UsageError
from pyrun.network import attach, endpoint, live_undo, messages
from pyrun.network.requests import Dns, Endpoint, Request
from pyrun.spec.values import texts
from pyrun.store import state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.record import Record


def wires_of(container: Record) -> list[endpoint.Wire]:
    """The interfaces a container's record tells of, as network/endpoint.py made them."""
    found = container.get("networks")
    return [endpoint.recorded(wire) for wire in found] if isinstance(found, list) else []


def dns_of(container: Record) -> Dns:
    """--dns, --dns-search and --dns-option of its start."""
    return Dns(*[texts(container.get(key)) for key in ("dns", "dns_search", "dns_option")])


def request_of(container: Record) -> Request:
    """Who asks, when it is to be connected to one network more."""
    request = Request(str(container["id"]), str(container["name"]))
    request.hostname, request.dns = str(container["hostname"]), dns_of(container)
    request.net_rate, request.net_fault = (str(container.get(key) or "") for key in ("net_rate", "net_fault"))
    return request


def pid_of(container: Record) -> int:
    """Its first process."""
    return container["pid"]


def refuse_a_user() -> None:
    """Raises UsageError for an ordinary user."""
    if boot.rootless_uid() >= 0:
        raise UsageError(
            "only root can connect a container to a network of the host, or disconnect it",
            "a user's network is chosen when the container starts: pyrun run --network",
        )


def mode_of(container: Record, reference: str) -> str:
    """The mode of its network (stages/network.py). Raises Conflict for a bundle's that got no network from us."""
    mode = container.get("mode")
    if mode is None:
        raise Conflict(
            f"container {reference} is of a bundle, and was started without a network of pyrun's",
            "pyrun run --bundle DIR --network bridge, or none to be connected later",
        )
    return str(mode)


def attached(
    container: Record, templates: dict[str, messages.Template], netfilter: socket | None
) -> attach.Attachment:
    """A way to its network namespace. Raises NotFound when the container has ended."""
    try:
        return attach.Attachment(templates, pid_of(container), netfilter)
    except FileNotFoundError:  # its namespace went with it, a moment ago
        raise live_undo.ended(str(container["id"])) from None


def note(container: Record, wires: list[endpoint.Wire]) -> None:
    """Note the interfaces in the record. Raises NotFound when the container has ended: its undo list may have been
    executed before our lines were in it."""
    live_undo.change_record(str(container["id"]), lambda record: change(record, wires))
    if not state.process_alive(container):
        raise live_undo.ended(str(container["id"]))


def change(record: Record, wires: list[endpoint.Wire]) -> None:
    """Let *record* name the interfaces *wires*, and what the container's files are to say of them."""
    name_files.expect(record, wires)
    first = endpoint.first_for(wires, False) or (wires[0] if wires else endpoint.Wire())
    record["networks"] = [wire.record() for wire in wires]
    record["network"] = ",".join([wire.network for wire in wires]) or "none"
    record["address"], record["mac"] = first.address, first.mac


def place(wires: list[endpoint.Wire], wanted: Endpoint, identifier: str) -> tuple[int, str]:
    """The number of the new link and its name inside: the first that are free."""
    links = {wire.link for wire in wires}
    names = {wire.ifname for wire in wires}
    number = next(
        (n for n in range(messages.MOST_LINKS) if messages.host_link(identifier, n) not in links), -1
    )
    if number < 0:
        raise Conflict(
            f"the container has {len(wires)} networks, more than it may have",
            "`pyrun network disconnect` makes room",
        )
    inside = wanted.ifname or next(f"eth{n}" for n in range(len(wires) + 1) if f"eth{n}" not in names)
    if inside in names:
        raise Conflict(
            f"--ifname {inside}: the container has an interface of that name",
            "another name, or none: the next ethN is taken",
        )
    return number, inside
