"""A policy's part of a start: checked, added to the plan, carried out; and the same for a container that runs.

The container's addresses are put under the rules before it does anything. What it says to its neighbours in the
same network is only seen by the rules if the kernel shows them bridged frames (br_netfilter): that is switched on
for each of its bridges, whatever is said for all bridges together, which is another's to change; where the kernel
cannot, the container exchanges no frames with its neighbours at all.
"""

from __future__ import annotations

from _socket import socket
from collections.abc import Sequence

from pyrun import boot, notice
from pyrun import undo as lists
from pyrun.errors import UsageError
from pyrun.network import attach, claims, endpoint, leases, live_undo, messages, tags
from pyrun.network.egress import elements, policy
from pyrun.network.egress.parse import parse, spelled
from pyrun.network.requests import Request
from pyrun.network.wiring import NetworkPlan
from pyrun.plan.operations import Operation
from pyrun.store import paths

# A line of the undo list has room for some three hundred messages of IPv4, and each is in it twice.
_A_LINE = 60
SWITCHES = ("iptables", "ip6tables")


def check(text: str, mode: str) -> None:
    """Whether what is asked can be read and done. mode: of the network. Raises UsageError."""
    parse(text)
    if mode != "bridge":
        raise UsageError(
            f"--egress {text!r:.80}: has no meaning with --network {mode}",
            "it works on bridges of pyrun: the default network, or one of `pyrun network create`",
        )


def add(text: str, request: Request, planned: NetworkPlan) -> None:
    """Add its policy to the plan of a container's network. Raises UsageError."""
    asked = parse(text)
    if asked is None:
        return
    wires = planned.wires
    for wire in wires:
        if not tags.is_host_link(wire.link):
            raise UsageError(
                f"--egress: network {wire.network} does not pass the rules of this host",
                "it works on bridges of pyrun",
            )
    asked.addresses = addresses(wires)
    todo = Operation("EGRESS", request.id, spelled(asked), " ".join(asked.addresses), *_joined(wires))
    had = planned.claimed  # to undo lines belong messages, which are encoded, and kept, with the first policy
    undone = undo(request.id, asked, wires, had.owner) if had.paths else []
    place = next(number for number, each in enumerate(planned.outside) if each.kind == "COMMIT") + 1
    planned.outside.insert(place, todo)
    planned.undo = live_undo.inserted(planned.undo, undone)


def addresses(wires: list[endpoint.Wire]) -> list[str]:
    """Every address of a container."""
    return [address for wire in wires for address in wire.addresses()]


def _joined(wires: list[endpoint.Wire]) -> tuple[str, str]:
    return " ".join(wire.bridge for wire in wires), " ".join(wire.link for wire in wires)


def undo(identifier: str, asked: policy.Policy, wires: list[endpoint.Wire], owner: str = "") -> list[str]:
    """Undo lines: what names resolved to, the policy's file, then what `undo_of` says of each interface. The links are
    down already.

    The file before them, since whoever makes the tables anew goes by it: what he put there before is deleted after.
    """
    lines = [*finishing(identifier, asked), f"unlink\t{policy.path(identifier)}"]
    for wire in wires:
        lines += undo_of(asked, wire, owner)
    return lines


def finishing(identifier: str, asked: policy.Policy) -> list[str]:
    """The undo line that deletes what the answers of names added, which nobody knows beforehand: it comes to
    `interfaces.finish`, as long as the policy's file is there."""
    return [f"finish\t{boot.binary()}\t{policy.path(identifier)}"] if asked.domains else []


def undo_of(asked: policy.Policy, wire: endpoint.Wire, owner: str = "") -> list[str]:
    """Undo lines of one interface: the policy's elements, while the address is still the container's.

    owner: who claimed the addresses; "": whoever holds them now, of a container that runs and was connected by others
    than who started it. Each element is added before it is deleted, so that a line succeeds however many are there.
    """
    template = elements.words()
    lines = []
    mute = [tuple(muting(template, word, wire.link) for word in ("mute", "unmute"))]
    for address in wire.addresses():
        one = policy.at(asked, [address])
        pairs: list[tuple[bytes, ...]] = []
        for made in (elements.policed, elements.standing):
            pairs += zip(made(template, one), made(template, one, delete=True), strict=True)
        lease = leases.path(wire.network, address)
        lines.append(f"guard\t{lease}\t{owner or claims.holder(lease)}")
        lines += [_batch(template, pairs[at : at + _A_LINE]) for at in range(0, len(pairs), _A_LINE)]
        lines += [_batch(template, mute), "end"]
    return lines


def _batch(template: messages.Template, pairs: Sequence[tuple[bytes, ...]]) -> str:
    changes = [message for pair in pairs for message in pair]
    return f"netlink\t{messages.NETLINK_NETFILTER}\t{messages.transaction(template, changes).hex()}"


def apply(sock: socket, identifier: str, wanted: policy.Policy | None, addresses: list[str]) -> None:
    """Make *wanted* the policy of the container with *addresses*, whatever it was; None: it has none any more.

    Raises OSError.
    """
    # The file first: whoever makes the rules anew meanwhile goes by it.
    if wanted is not None:
        wanted.addresses = addresses
        policy.save(identifier, wanted)
        enforce(sock, wanted, addresses)
    else:
        template, before = elements.words(), policy.load(identifier)
        policy.forget(identifier)
        changes = elements.leftovers(sock, template, addresses)
        if before is not None:
            changes += elements.policed(template, before, delete=True)
        _judge_anew(sock, template, changes, addresses)


def enforce(sock: socket, wanted: policy.Policy, addresses: list[str]) -> None:
    """Put *wanted* in the place of whatever the sets hold for *addresses*, which are all of its own. Raises OSError."""
    template = elements.words()
    changes = elements.leftovers(sock, template, addresses)
    changes += elements.policed(template, wanted) + elements.standing(template, wanted)
    _judge_anew(sock, template, changes, addresses)


def _judge_anew(
    sock: socket, template: messages.Template, changes: list[bytes], addresses: list[str]
) -> None:
    if changes:
        messages.transact(sock, template, changes)
    forget_flows(sock, template, addresses)


def forget_flows(sock: socket, template: messages.Template, addresses: list[str]) -> None:
    """Have what the container began judged anew."""
    flows, lines = elements.forget_flows(template, addresses)
    if flows:
        messages.answers(sock, flows, len(flows))
    for complaint in lists.replay_lines(lines) if lines else ():
        notice.say(complaint)


def egress(
    link: attach.Attachment, identifier: str, text: str, addresses: str, bridges: str, links: str
) -> None:
    """Carry out the operation."""
    assert link.netfilter is not None
    try:
        apply(link.netfilter, identifier, parse(text), addresses.split(" "))
    except FileNotFoundError:  # somebody flushed the rules a moment ago; the file is there now
        from pyrun.network import rebuilding

        rebuilding.rebuild()
    set_apart(link.netfilter, bridges.split(" "), links.split(" "))


def set_apart(sock: socket, bridges: list[str], links: list[str]) -> None:
    """See to it that what the container says to its neighbours meets the rules, or is not said."""
    for bridge, link in zip(bridges, links, strict=True):
        if not all(shown(f"{link}/brport/bridge", switch) for switch in SWITCHES):
            _change_mute(sock, link, ("mute",))
            notice.say(
                f"this kernel shows no bridged frames to the rules (br_netfilter): {link} is cut off from its "
                f"neighbours on {bridge}"
            )


def let_join(sock: socket, links: list[str]) -> None:
    """Undo `set_apart`, for a container that has no policy any more."""
    for link in links:
        try:
            _change_mute(sock, link, ("mute", "unmute"))
        except OSError:  # no table, no set: nothing keeps it apart
            pass


def _change_mute(sock: socket, link: str, words: Sequence[str]) -> None:
    template = elements.words()
    messages.transact(sock, template, [muting(template, word, link) for word in words])


def muting(template: messages.Template, word: str, link: str) -> bytes:
    """The message that keeps a link from its neighbours ("mute"), or lets it join them ("unmute")."""
    return messages.filled(template, word, key=link.encode().ljust(16, b"\0"))


def shown(place: str, switch: str) -> bool:
    """Whether a bridge's frames pass the rules by its own switch, turned on. place: it, or LINK/brport/bridge."""
    own = switch_of(place, switch)
    try:
        # There with br_netfilter alone, while a bridge has its own in any case.
        paths.read(f"/proc/sys/net/bridge/bridge-nf-call-{switch}")
        if paths.read(own)[:1] != b"1":
            paths.write(own, b"1")
        return paths.read(own)[:1] == b"1"
    except OSError:
        return False


def switch_of(place: str, switch: str) -> str:
    """The file of a bridge's own switch."""
    return f"/sys/class/net/{place}/bridge/nf_call_{switch}"
