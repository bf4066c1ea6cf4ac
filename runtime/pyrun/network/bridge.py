"""Networks: made on first use, healed when something of them is missing, removed when nobody uses them.

A network is a bridge with an address, the table of the firewall, forwarding, and a directory:

    run/networks/<name>/network.json   what it is; written first, so that every later step can be repeated
    run/networks/<name>/template       the messages of a start (templates.py)
    run/networks/<name>/leases/        who has which address (leases.py)

Making and healing are the same steps: each looks whether it is done. Nothing but this package uses pyroute2,
and a start that finds its network standing (health.py) does not come here. What a network is to be: design.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from pyrun import boot, notice
from pyrun.errors import NetworkError, hint_for
from pyrun.network import (
    cables,
    design,
    events,
    firewall,
    foreign_leases,
    forwarding,
    health,
    host,
    leases,
    messages,
    ownership,
    rebuilding,
    records,
    shards,
    tags,
)
from pyrun.network.egress import bridge_filter
from pyrun.store import paths

boot.site_packages()

from pyroute2.iproute import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

from pyrun.network import nft, templates  # noqa: E402
from pyrun.network.records import Network  # noqa: E402
from pyrun.safe import shell_word  # noqa: E402

_NO_DAD = 0x02  # IFA_F_NODAD: nobody else can have the gateway's address


def ensure(name: str, *, quiet: bool = False) -> messages.Template:
    """Make the default network if it is missing, heal whatever else is; returns its template.

    Raises: NotFound for a network nobody made, NetworkError.
    """
    with host.locked(), IPRoute() as route:
        ownership.claim(route)
        network = records.load(name)
        made = network is None
        if network is None:
            network = design.designed(route, name)
            design.check_families(network)
            records.save(network)
        try:
            done = repair(route, network)
        except (OSError, NetlinkError) as error:
            raise failure(f"network {name!r} cannot be set up", error) from error
        if made:
            told = [each.subnet for each in network.pools()]
            text = f"network {name}: bridge {network.bridge} made, {' and '.join(told)}"
            if events.first_time(text):
                notice.say(text)
        elif done and not quiet:
            notice.say(f"network {name}: {' and '.join(done)} was missing and has been restored")
    template = messages.load(name)
    if template is None:
        raise NetworkError(f"network {name!r}: {messages.path(name)} cannot be read back")
    return template


def failure(told: str, error: OSError | NetlinkError) -> NetworkError:
    """*told* with what the kernel said, and the remedy."""
    number = getattr(error, "code", None) or getattr(error, "errno", None) or 0  # NetlinkError or OSError
    return NetworkError(f"{told}: {os.strerror(number)}", hint_for("network", number))


def create(wanted: design.Wanted) -> Network:
    """Define a network and build it. Raises: UsageError, Conflict, NetworkError; nothing is left then."""
    with host.locked(), IPRoute() as route:
        network = design.defined(route, wanted)
        design.check_families(network)
        if network.driver in ("macvlan", "ipvlan"):
            from pyrun.network import drivers

            drivers.check_network(network)
        records.define(network)
    try:
        if network.driver == "bridge":
            ensure(network.name)
    except BaseException:
        try:
            remove(network.name)
        finally:
            records.forget_definition(network.name)
        raise
    return network


def proposal(name: str) -> messages.Template:
    """The template the network has or would get; touches nothing. Raises: NotFound, NetworkError."""
    network = records.load(name)
    if network is None:
        with IPRoute() as route:
            network = design.designed(route, name)
    template = rebuilding.template(network)
    assert template is not None
    return template


def remove(name: str) -> None:
    """Remove a network without containers; with the last one everything else goes too.

    Raises: NotFound, Conflict when a container holds an address.
    """
    with host.locked(), IPRoute() as route:
        network = records.load(name)
        if network is None:
            if records.definition(name) is None:
                raise design.unknown(name)
            # Defined and not built since the last reboot; or on a card, where nothing is built but leases are given.
            foreign_leases.close(name)
            records.forget_definition(name)
            shutil.rmtree(Path(paths.run(), "networks", name), ignore_errors=True)
            return
        foreign_leases.close(name)
        if network.adopted:
            from pyrun.network import adopt

            adopt.restore(network)
        records.forget_definition(name)
        Path(messages.path(name)).unlink(missing_ok=True)
        _delete_links(route, network)
        sock = messages.opened(messages.NETLINK_NETFILTER)
        others = [other for other in records.all_networks() if other.name != name]
        if others:
            _forget_in_table(sock, network)
        else:
            firewall.remove(sock)
            if not ownership.others():  # the rules in other firewalls are for all of ours
                firewall.remove_foreign(sock)
        sock.close()
        directory = Path(paths.run(), "networks", name)
        for file in directory.iterdir():  # also what a killed writer left half-written
            file.unlink(missing_ok=True)
        directory.rmdir()


def repair(route: Any, network: Network, *, thorough: bool = False, counted: bool = False) -> list[str]:
    """Do whatever is not yet done; returns what had to be done, in words. thorough: forwarding too. counted: look for
    cables of containers. Raises: NetworkError, OSError, NetlinkError."""
    done = []
    sock = messages.opened(messages.NETLINK_NETFILTER)
    done += _repair_bridge(route, network)
    if counted:
        done += cables.restored(route, network)
    if thorough:
        done += bridge_filter.restored(network)
    network.master_index = shards.index_of_master(route, network)
    records.save(network)
    network.foreign, opened = firewall.open_foreign(sock, records.all_networks())
    for line in opened:
        if events.first_time(line):
            notice.say(f"{line}; `pyrun network prune` removes them")
    events.note(opened)
    records.save(network)
    text = templates.text(network)
    template = messages.parsed(text)
    assert template is not None
    # A start needs it, or a living container; where it was put back since there is none, it stays so.
    forwarded = not thorough or bool(host.switched()) or forwarding.needed()
    led = rebuilding.resolver_elements(template, network) + forwarding.changes(template)
    try:
        if not health.standing_table(template, sock):
            raise FileNotFoundError
        firewall.commit(sock, firewall.network_elements(nft.NEW_ELEMENT, network) + led)
    except FileNotFoundError:  # or they are of an older version, and lack a set
        rebuilding.build(sock)
        done.append(f"table inet {tags.table()}")
    if forwarded and forwarding.switch_on(template, sock, ipv6=bool(network.subnets6)) and thorough:
        done.append("forwarding")
    host.make_room()
    paths.make(f"{paths.run()}/networks/{network.name}/leases")
    # Last: a start that finds this file believes that all is done.
    paths.replace(messages.path(network.name), text.encode())
    sock.close()
    return done


def _repair_bridge(route: Any, network: Network) -> list[str]:
    """What was missing of it, in words."""
    name = network.bridge
    if network.adopted:
        from pyrun.network import adopt

        return [f"bridge {name}"] if adopt.check_standing(route, network) else []
    found = route.link_lookup(ifname=name)
    if found:
        link = route.get_links(found[0])[0]
        if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "bridge":
            raise NetworkError(
                f"the link {name} exists and is no bridge", f"remove it: `ip link delete {shell_word(name)}`"
            )
    else:
        make_bridge(route, name, leases.mac(network.gateway or network.gateway6), network.mtu)
    index = route.link_lookup(ifname=name)[0]
    label(route, index, network)
    # Nobody is router here but this host. Its own address is not asked about first: meanwhile it would ask nobody.
    wanted = {"accept_ra": "0", "accept_dad": "0", "disable_ipv6": "0" if network.subnets6 else "1"}
    settings = {f"net/ipv6/conf/{name}/{key}": value for key, value in wanted.items()}
    others = [setting for setting, value in settings.items() if host.read_sysctl(setting) != value]
    for setting, value in settings.items():
        host.write_sysctl(setting, value)
    others += _give_addresses(route, network, index)
    route.link("set", index=index, state="up")
    changed = network.index != index
    network.index = index
    gone = not found or not shards.all_there(route, network)
    if gone:
        cables.reconnect(route, network)
    if changed or gone:
        return [f"bridge {name}"]
    return [f"{' and '.join(others)} of bridge {name}"] if others and host.has_ipv6() else []


def label(route: Any, index: int, network: Network) -> None:
    """Have a bridge tell whose it is, for people and other run directories."""
    alias = tags.alias(network.name)
    if route.get_links(index)[0].get_attr("IFLA_IFALIAS") != alias:
        route.link("set", index=index, ifalias=alias)


def make_bridge(route: Any, name: str, mac: str, mtu: int) -> None:
    """A bridge of ours; with a MAC of its own: one without takes that of a port, and changes it when the port goes."""
    route.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_mcast_snooping=0, mtu=mtu)


def _give_addresses(route: Any, network: Network, index: int) -> list[str]:
    """The gateway of every subnet, as an address of the bridge; those that were missing."""
    there = {
        str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        for message in route.get_addr(index=index)
    }
    missing = []
    for each in network.pools():
        if each.gateway in there:
            continue
        six = ":" in each.gateway
        more: dict[str, int | str] = {"flags": _NO_DAD} if six else {"broadcast": each.broadcast}
        family = socket.AF_INET6 if six else socket.AF_INET
        route.addr("add", index=index, address=each.gateway, prefixlen=each.prefix, family=family, **more)
        missing.append(each.gateway)
    return missing


def _delete_links(route: Any, network: Network) -> None:
    """Delete the bridges, and the ends of containers which the kernel has not collected yet.

    As one group: the kernel waits some 20 ms for each deletion, of one link as of a thousand.
    """
    doomed = []
    for name in [*network.shards, network.bridge]:
        for index in route.link_lookup(ifname=name):
            doomed += [
                link["index"]
                for link in route.get_links(master=index)
                if _is_port(str(link.get_attr("IFLA_IFNAME")))
            ]
            doomed += [] if network.adopted and name == network.bridge else [index]
    for change in [
        *[{"index": link, "group": templates.ENDED_GROUP} for link in doomed],
        {"group": templates.ENDED_GROUP},
    ]:
        try:
            route.link("set" if "index" in change else "del", **change)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def _is_port(name: str) -> bool:
    return tags.is_host_link(name) or name.startswith(shards.JOINT_PREFIX)


def _forget_in_table(sock: Any, network: Network) -> None:
    try:
        template = templates.parsed(network)
        led = [
            message
            for action in ("publish", "unpublish")  # whether it is there or not
            for message in rebuilding.resolver_elements(template, network, action)
        ]
        firewall.set_gateway(sock, nft.DELETE_ELEMENT, network)
        firewall.commit(sock, firewall.network_elements(nft.DELETE_ELEMENT, network) + led)
    except FileNotFoundError:
        pass
