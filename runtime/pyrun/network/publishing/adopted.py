"""What the host's own rules make of published ports that lead to an adopted bridge: for `pyrun port`.

Into other bridges of ours whatever is published is let past chains of others that drop (firewall/openings.py). Into an
adopted one the rules that were made with it go on deciding, of what is forwarded; so these are asked as well. Cold.
"""

from __future__ import annotations

from pyrun.network import endpoint, messages, records
from pyrun.network.endpoint import Wire
from pyrun.network.publishing import host_firewall
from pyrun.network.publishing.host_rules import judge, reading

Row = dict[str, object]


def correct(rows: list[Row], wires: list[Wire]) -> None:
    """Say in the rows of reach.py which ports the host does not forward from the outside."""
    wanted = [(row, wire) for row in rows if row["lan"] and (wire := _leads(row, wires))]
    if not wanted or not _suspected():
        return
    hooks, uplinks = reading.hooks("forward"), reading.uplinks()
    for row, wire in wanted:
        six = ":" in str(row["host"])
        packets = [
            judge.Packet(
                protocol=str(row["protocol"]),
                port=int(str(row["inside"])),
                six=six,
                interface=uplink,
                address=str(wire["address6" if six else "address"]),
                outgoing=str(wire["bridge"]),
            )
            for uplink in uplinks
        ]
        reason = host_firewall.strictest(packets, hooks)
        if reason:
            row["firewall"] = f"{reason}: `network adopt` leaves that to it"
            if all(host_firewall.strictest([packet], hooks) for packet in packets):
                row["lan"] = []


def _leads(row: Row, wires: list[Wire]) -> Wire | None:
    """The interface on an adopted bridge that a port leads to."""
    wire = endpoint.first_for(wires, "gateway6" if ":" in str(row["host"]) else "gateway")
    network = records.load(str(wire["network"])) if wire else None
    return wire if network and network["adopted"] else None


def _suspected() -> bool:
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        return host_firewall.suspected(sock, host_firewall.FORWARD)
    finally:
        sock.close()
