"""What pyrun's networking can do, against Docker and podman: the table of docs/networking.md.

A row: what, how it is said to pyrun, whether Docker and podman have it. The options of the second column are looked
for in pyrun's own help when the page is written, so that none of them can be a memory.
"""

from __future__ import annotations

VERSIONS = """Docker: 29, podman: 6 with netavark 2, by their documentation and sources in August 2026; the versions
measured against in [performance.md](performance.md) are older."""
YES, PARTLY, NO = "yes", "partly", "no"
Row = tuple[str, str, str, str]

FEATURES: dict[str, tuple[Row, ...]] = {
    "Networks": (
        ("none, host, bridge, another container's", "--network none, host, bridge, container:NAME", YES, YES),
        ("a namespace of `ip netns add`", "--network ns:NAME", NO, YES),
        ("`ip netns exec NAME` works", "always", NO, "partly: netns-UUID"),
        ("several networks at the start, in the order given", "--network A --network B", YES, YES),
        ("address, MAC, alias, interface name for each", "--network NAME:ip=,ip6=,mac=,alias=,ifname=", YES, YES),
        ("which one the default route takes", "--network NAME:gw-priority=", YES, NO),
        ("a static address on the default network", "--ip", NO, YES),
        ("subnets of both families, a range to hand out of", "network create --subnet --gateway --ip-range --ipv6",
         YES, YES),
        ("no way out", "network create --internal", YES, YES),
        ("neighbours kept apart", "network create --icc=false", YES, NO),
        ("networks kept apart", "always; published ports too: network create --isolate", YES, YES),
        ("connect and disconnect while it runs", "network connect, network disconnect", YES, YES),
        ("macvlan, ipvlan", "--network macvlan:IFACE, ipvlan:IFACE; network create --driver", YES, YES),
        ("the NIC's own segment, by the bridge that is there", "--network l2:IFACE", NO, "partly: unmanaged bridges"),
        ("an existing CNI configuration", "--network cni:NAME", NO, NO),
        ("a bridge that was wired by hand is taken over", "network adopt", NO, "partly: unmanaged bridges"),
        ("more than 1,023 containers on one network", "always", NO, NO),
    ),
    "Names": (
        ("names and aliases on networks one makes", "--network-alias, network connect --alias", YES, YES),
        ("on the default network too", "always", NO, NO),
        ("on macvlan and ipvlan", "always, with an address that pyrun knows", YES, NO),
        ("reverse lookups, several addresses rotate", "always", YES, YES),
        ("servers, search domains, options", "--dns, --dns-search, --dns-option", YES, YES),
        ("nothing is asked outside for an internal network", "always", YES, YES),
        ("no process while nobody asks", "always", "in dockerd", NO),
    ),
    "Ports": (
        ("address, ranges, TCP, UDP, SCTP, random", "-p, -P, --expose", YES, YES),
        ("no program in between, but for [::1]", "always", "partly: userland-proxy=false", YES),
        ("of a container that runs", "port add, port rm", NO, NO),
        ("reserved: a conflict is told with the owner's name", "always; a program's if /proc has it",
         "partly: no name", "partly: no name"),
        ("one element a port, whatever their number", "always", NO, NO),
        ("the host's own firewall is respected, and told of", "--publish-through-firewall overrules", NO, NO),
        ("from where each is reachable", "port", NO, NO),
    ),
    "Policies": (
        ("what a container may open connections to", "--egress, network policy", NO, NO),
        ("its speed", "--net-rate", NO, NO),
        ("a bad line, for tests", "--net-fault", NO, NO),
        ("no foreign MAC, IPv4, IPv6, ARP, ND, no router advertisements", "always", NO, NO),
        ("bytes and packets by container", "network inspect", "partly: docker stats", "partly: podman stats"),
    ),
    "Care": (
        ("rules come back after a flush, and it is told", "always, network reload", "partly: firewalld",
         "partly: network reload"),
        ("policies of others are not changed", "always", "no: FORWARD", YES),
        ("everything is put back with the last network", "network prune", NO, NO),
        ("nftables", "always, without the program nft", "partly: an option", YES),
        ("every step is told as a command of a shell", "--explain, --dry-run", NO, NO),
    ),
}  # fmt: skip


def table() -> list[str]:
    """Lines of Markdown."""
    lines = ["| | pyrun | Docker | podman |", "|---|---|---|---|"]
    for part, rows in FEATURES.items():
        lines.append(f"| **{part}** | | | |")
        lines += [f"| {what} | {_as_code(how)} | {docker} | {podman} |" for what, how, docker, podman in rows]
    return lines


def options() -> set[str]:
    """Every option and verb of the second column: (--ip), (network connect) ..."""
    found = set()
    for rows in FEATURES.values():
        for _, how, _, _ in rows:
            for text in how.replace(";", ",").replace(":", ",").split(","):
                found |= {word for word in text.split() if word.startswith("-")}
                verb = " ".join(text.split()[:2])
                if verb.startswith(("network ", "port ")) and "-" not in verb:
                    found.add(verb)
    return {option.partition("=")[0] for option in found}


def _as_code(how: str) -> str:
    """Words of a command line between backquotes, `always` and explanations as they are."""
    if how.startswith("always"):
        first, comma, rest = how.partition(", network")
        return f"{first}, `network{rest}`" if comma else _explained(how)
    return (
        _explained(f"`{how}`") if " overrules" not in how else f"`{how.removesuffix(' overrules')}` overrules"
    )


def _explained(text: str) -> str:
    return text.replace("too: network create --isolate", "too: `network create --isolate`")
