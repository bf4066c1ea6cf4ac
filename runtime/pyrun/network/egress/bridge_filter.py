"""What keeps containers with a policy from neighbours the rules would not see, made again after its loss.

A start sees to it for its own links (start.py). A bridge that was made anew, or is one more of its network, shows the
rules no frames until it is told to, nor does one whose switch was turned off, of which the guard hears; tables made
anew keep no links apart until they have the elements. And what a container began while the rules were gone was judged
by nobody. Cold.
"""

from __future__ import annotations

from _socket import socket

from pyrun.network import firewall, leases, messages
from pyrun.network.egress import elements, policy, start
from pyrun.network.records import Network
from pyrun.store import paths


def mutes(networks: list[Network]) -> list[bytes]:
    """The elements of links which exchange no frames with neighbours, since the rules see none of their frames."""
    links = [link for network in networks for link in policed(network) if not _seen(network)]
    template = elements.words() if links else {}
    return [start.muting(template, "mute", link) for link in links]


def hold(network: Network) -> None:
    """Have the rules see what containers with a policy say on any bridge of the network, or have it not said. Before
    links are put into a bridge."""
    links = policed(network)
    if not links:
        return
    words = ("mute", "unmute") if _seen(network) else ("mute",)  # whether they were or not
    template, sock = elements.words(), messages.opened(messages.NETLINK_NETFILTER)
    try:
        messages.transact(
            sock, template, [start.muting(template, word, link) for link in links for word in words]
        )
    except OSError:  # no table, no set: whoever makes them asks for `mutes`
        pass
    finally:
        sock.close()


def restored(network: Network) -> list[str]:
    """Have bridges show the rules again what containers with a policy say; what had to be done, in words."""
    bridges = network.bridges() if policed(network) else []
    off = [
        (bridge, switch) for bridge in bridges for switch, value in switches(bridge).items() if value == "0"
    ]
    if off:
        hold(network)
    return [
        f"nf_call_{switch} of bridge {bridge}" for bridge, switch in off if switches(bridge)[switch] == "1"
    ]


def switches(bridge: str) -> dict[str, str]:
    """What a bridge's own switches say; {} where the kernel has none."""
    try:
        files = {switch: paths.read(start.switch_of(bridge, switch)) for switch in start.SWITCHES}
    except OSError:
        return {}
    return {switch: value.decode("ascii").strip() for switch, value in files.items()}


def turn(bridge: str, values: dict[str, str]) -> None:
    """Have them say this again; fine if the bridge is gone."""
    for switch, value in values.items():
        try:
            paths.write(start.switch_of(bridge, switch), value.encode("ascii"))
        except OSError:
            continue


def policed(network: Network) -> list[str]:
    """The host's ends of the cables of containers on the network that have a policy."""
    addresses = {address for each in policy.all_policies() for address in each.addresses}
    return sorted(
        {
            line[5:]
            for address, lines in (leases.held(network.name).items() if addresses else ())
            if address in addresses
            for line in lines
            if line.startswith("link ")
        }
    )


def _seen(network: Network) -> bool:
    """Whether all its bridges show the rules what passes them; switched on where that can be."""
    bridges = network.bridges()
    seen = [start.shown(bridge, switch) for bridge in bridges for switch in start.SWITCHES]
    return all(seen)


def unjudged(sock: socket) -> list[str]:
    """The addresses with a policy, where rules or elements of policies are missing; [] where all are there."""
    addresses = [address for each in policy.all_policies() for address in each.addresses]
    gone = bool(addresses) and (not firewall.complete(sock) or firewall.lacks_policies(sock))
    return addresses if gone else []


def judge_anew(sock: socket, addresses: list[str]) -> None:
    """Forget what containers of these addresses began, now that there are rules: it is judged as it goes on."""
    if addresses:
        start.forget_flows(sock, elements.words(), addresses)
