"""More containers on one network than a bridge has ports: further bridges, each joined to the first by a veth pair.

A bridge takes 1,023 ports (BR_PORT_BITS of the kernel); the next link is refused with EXFULL. Then a bridge without
an address of its own is made and joined to the first one: to the containers it is one segment, with one gateway. The
template, which the following starts use, is turned to a bridge that has room. Cold: one start in a thousand comes here.
"""

from __future__ import annotations

import errno
from typing import Any

from pyrun import boot, notice
from pyrun.errors import NetworkError
from pyrun.network import firewall, host, messages, records, tags
from pyrun.network.firewall import firewalld
from pyrun.network.records import Network
from pyrun.store import paths

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

from pyrun.network import nft, templates  # noqa: E402
from pyrun.safe import shell_word  # noqa: E402

JOINT_PREFIX = "pyj"
# The kernel's limit is 1,023; a few are left for the joints to further bridges and for what others put in.
_ROOM = 1000
_PERMANENT, _SELF = 0x80, 0x02  # NUD_PERMANENT, NTF_SELF of linux/neighbour.h


def with_room(name: str) -> messages.Template:
    """Turn the network's template to a bridge with room for a port, making one if need be; returns it.

    Raises: NetworkError.
    """
    with host.locked(), IPRoute() as route:
        network = records.load(name)
        if network is None:
            raise NetworkError(
                f"network {name} was removed meanwhile", "`pyrun network ls` lists those there are"
            )
        if not all_there(route, network):
            from pyrun.network import cables

            cables.reconnect(route, network)
        network.master = _roomy(route, network)
        network.master_index = index_of_master(route, network)
        records.save(network)
        paths.replace(messages.path(name), templates.text(network).encode())
        return templates.parsed(network)


def index_of_master(route: Any, network: Network) -> int:
    """Of the bridge that new links join; 0 where that is the first one."""
    found = route.link_lookup(ifname=network.master) if network.master in network.shards else []
    return int(found[0]) if found else 0


def _roomy(route: Any, network: Network) -> str:
    for name in network.bridges():
        index = route.link_lookup(ifname=name)
        if index and len(list(route.get_links(master=index[0]))) < _ROOM:
            return str(name)
    return _grown(route, network)


def _grown(route: Any, network: Network) -> str:
    """One more bridge, joined to the first, known to the firewall and noted."""
    number = len(network.shards) + 1
    # an adopted bridge may be called anything, and as long as a name can be
    own = network.bridge if not network.adopted else f"pyr{network.id[:8]}"
    name = f"{own}-{number}"
    network.shards.append(name)
    records.save(network)  # before it is made, so that whoever removes the network finds it
    if paths.read("/proc/sys/net/ipv4/conf/all/rp_filter")[:1] == b"1":
        notice.say(
            f"network {network.name}: containers on its further bridge {name} reach nothing beyond their network "
            "while net.ipv4.conf.all.rp_filter is 1, since the route to them goes by the first bridge; 2 is fine"
        )
    _joined(route, network, name, number)
    sock = messages.opened(messages.NETLINK_NETFILTER)
    firewall.commit(sock, firewall.network_elements(nft.NEW_ELEMENT, network))
    firewall.set_gateway(sock, nft.NEW_ELEMENT, network)
    for line in firewalld.trust(sock, [network]):
        notice.say(f"{line}; `pyrun network prune` removes it")
    sock.close()
    return name


def _joined(route: Any, network: Network, name: str, number: int) -> None:
    from pyrun.network import bridge

    if not route.link_lookup(ifname=name):
        bridge.make_bridge(route, name, firewall.FURTHER_MAC, network.mtu)
    _set_up(network, name)
    index = route.link_lookup(ifname=name)[0]
    bridge.label(route, index, network)
    route.link("set", index=index, state="up")
    ends = [f"{JOINT_PREFIX}{network.id[:6]}{number:02x}{side}" for side in "ab"]
    if not route.link_lookup(ifname=ends[0]):
        own = {"mtu": network.mtu}
        route.link("add", ifname=ends[0], kind="veth", peer={"ifname": ends[1], **own}, **own)
    for end in ends:
        host.write_sysctl(f"net/ipv6/conf/{end}/disable_ipv6", "1")
    first, second = (route.link_lookup(ifname=end)[0] for end in ends)
    for end in (first, second):  # out first: with its port a bridge forgets who was behind it
        route.link("set", index=end, master=0)
    try:  # so that a frame for the gateway may enter by any of the bridges
        route.fdb("add", ifindex=network.index, lladdr=firewall.FURTHER_MAC, state=_PERMANENT, flags=_SELF)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
    route.link("set", index=second, master=index, state="up")
    try:
        route.link("set", index=first, master=network.index, state="up")
    except NetlinkError as error:
        if error.code != errno.EXFULL:
            raise
        _make_room(route, network, index)
        route.link("set", index=first, master=network.index, state="up")


def _set_up(network: Network, name: str) -> None:
    """The settings of a further bridge: it answers for no address, but what its containers send to the gateway enters
    here (firewall/bridged.py), answers to the host's 127.0.0.1 too."""
    loopback = host.read_sysctl(f"net/ipv4/conf/{network.bridge}/route_localnet") or "0"
    quiet = (
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "addr_gen_mode", "1"),
        ("ipv6", "disable_ipv6", "0" if network.subnets6 else "1"),
        ("ipv4", "arp_ignore", "1"),
        ("ipv4", "rp_filter", "0"),
        ("ipv4", "route_localnet", loopback),
    )
    for family, key, value in quiet:
        host.write_sysctl(f"net/{family}/conf/{name}/{key}", value)


def _make_room(route: Any, network: Network, bridge: int) -> None:
    """Move a container's link from the full bridge to the new one: the joint needs its port. Nothing else of the
    container changes; a packet on its way at that moment is sent again."""
    from pyrun.network.egress import bridge_filter

    bridge_filter.hold(network)
    for link in reversed(list(route.get_links(master=network.index))):
        if tags.is_host_link(str(link.get_attr("IFLA_IFNAME"))):
            route.link("set", index=link["index"], master=bridge)
            return
    raise NetworkError(
        f"network {network.name}: the bridge {network.bridge} is full, and none of its ports is a container's",
        f"take foreign links out of it: `bridge link show master {shell_word(network.bridge)}`",
    )


def standing(route: Any, network: Network) -> list[str]:
    """The further bridges, each joined again to a first one that was made anew."""
    for number, name in enumerate(network.shards, 1):
        _joined(route, network, name, number)
    return list(network.shards)


def all_there(route: Any, network: Network) -> bool:
    """Whether none of the further bridges was deleted."""
    return all(route.link_lookup(ifname=name) for name in network.shards)


def join(route: Any, network: Network, link: int) -> None:
    """Put a container's link into the first of the bridges that takes it, unless it is in one of them."""
    bridges = [route.link_lookup(ifname=name)[0] for name in network.bridges()]
    if route.get_links(link)[0].get_attr("IFLA_MASTER") in bridges:
        route.link("set", index=link, state="up")
        return
    for bridge in bridges:
        try:
            route.link("set", index=link, master=bridge, state="up")
            return
        except NetlinkError as error:
            if error.code != errno.EXFULL:
                raise
