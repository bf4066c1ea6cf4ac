"""A policy's part of a start: checked, added to the plan, carried out; and the same for a container that runs.

The container's addresses are put under the rules before it does anything. What it says to its neighbours in the
same network is only seen by the rules if the kernel shows them bridged frames (br_netfilter): that is switched on
for its bridges alone where it is not on for all; where the kernel cannot, the container exchanges no frames with its
neighbours at all.
"""

from __future__ import annotations

from _socket import socket
from collections.abc import Sequence
from typing import Any

from pyrun import boot, notice
from pyrun import undo as lists
from pyrun.errors import UsageError
from pyrun.network import attach, claims, endpoint, later, leases, messages
from pyrun.network.egress import elements, policy
from pyrun.network.egress.parse import parse, spelled
from pyrun.plan.operations import Operation
from pyrun.store import paths

# A line of the undo list has room for some three hundred messages of IPv4, and each is in it twice.
_A_LINE = 60
SWITCHES = ("iptables", "ip6tables")


def check(request: dict[str, Any]) -> None:
    """Whether what is asked can be read and done. Raises UsageError."""
    parse(str(request["egress"]))
    if request["mode"] != "bridge":
        raise UsageError(
            f"--egress {request['egress']!r:.80}: has no meaning with --network {request['mode']}",
            "it works on bridges of pyrun: the default network, or one of `pyrun network create`",
        )


def added(request: dict[str, Any], planned: dict[str, Any]) -> dict[str, Any]:
    """The plan of a container's network with its policy. Raises UsageError, its claims given up."""
    asked = parse(str(request["egress"]))
    if asked is None:
        return planned
    attach.PERFORM.update(PERFORM)
    wires = planned["wires"]
    for wire in wires:
        if not str(wire["link"]).startswith(messages.HOST_LINK_PREFIX):
            endpoint.release(planned["claims"], planned["owner"])
            raise UsageError(
                f"--egress: network {wire['network']} does not pass the rules of this host",
                "it works on bridges of pyrun",
            )
    identifier = str(request["id"])
    asked.addresses = addresses(wires)
    todo = Operation("EGRESS", identifier, spelled(asked), " ".join(asked.addresses), *_joined(wires))
    undone = [] if request["dry_run"] else undo(identifier, asked, wires, str(planned["owner"]))
    place = next(number for number, each in enumerate(planned["outside"]) if each.kind == "COMMIT") + 1
    outside = [*planned["outside"][:place], todo, *planned["outside"][place:]]
    return {**planned, "outside": outside, "undo": later.inserted(planned["undo"], undone)}


def addresses(wires: list[endpoint.Wire]) -> list[str]:
    """Every address of a container."""
    return [str(wire[key]) for wire in wires for key in ("address", "address6") if wire[key]]


def _joined(wires: list[endpoint.Wire]) -> tuple[str, str]:
    return " ".join(str(wire["bridge"]) for wire in wires), " ".join(str(wire["link"]) for wire in wires)


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
    `covering.finish`, as long as the policy's file is there."""
    return [f"finish\t{boot.binary()}\t{policy.path(identifier)}"] if asked.domains else []


def undo_of(asked: policy.Policy, wire: endpoint.Wire, owner: str = "") -> list[str]:
    """Undo lines of one interface: the policy's elements, while the address is still the container's.

    owner: who claimed the addresses; "": whoever holds them now, of a container that runs and was connected by others
    than who started it. Each element is added before it is deleted, so that a line succeeds however many are there.
    """
    template = elements.words()
    lines = []
    mute = [tuple(muting(template, word, str(wire["link"])) for word in ("mute", "unmute"))]
    for address in addresses([wire]):
        one = policy.at(asked, [address])
        pairs: list[tuple[bytes, ...]] = []
        for made in (elements.policed, elements.standing):
            pairs += zip(made(template, one), made(template, one, delete=True), strict=True)
        lease = leases.path(str(wire["network"]), address)
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
    """Whether frames pass the rules; switched on for that bridge if for no other. place: it, or LINK/brport/bridge."""
    try:
        if paths.read(f"/proc/sys/net/bridge/bridge-nf-call-{switch}")[:1] == b"1":
            return True
        own = f"/sys/class/net/{place}/bridge/nf_call_{switch}"
        paths.write(own, b"1")
        return paths.read(own)[:1] == b"1"
    except OSError:
        return False


PERFORM = {"EGRESS": (egress, "set the egress policy")}
