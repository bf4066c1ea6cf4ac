#!/usr/bin/python3
"""Writes docs/networking.md from a run on the lab host: `make docs`.

Networks and containers are made one after the other; after each step stands what it added to the ruleset. The rules
themselves carry their reasons as comments. What differs from run to run, ids and the prefix of IPv6, is replaced.
tests/system/test_networking_doc.py holds the page to it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

import crossings
import networking_features as features
import ruleset
import yard
from command import Pyrun
from pyrun.network.egress import elements as egress
from pyrun.network.firewall import names

PAGE = Path(__file__).resolve().parents[1] / "docs" / "networking.md"
SLEEP = ("busybox", "sleep", "1000")


class Step(NamedTuple):
    """A heading, what it shows, and commands: of pyrun, or of the shell if they begin with $."""

    title: str
    shows: str
    commands: tuple[tuple[str, ...], ...]


INTERNAL = """What comes from it goes to the chain `within`, by `forward` and by `input`: of this host it reaches the
resolver, and the gateway answers a ping. A container that is to reach one service of this host and nothing else has an
ordinary network and a policy: `--egress 10.77.0.1:3128/tcp`. On a card's segment (macvlan, ipvlan) no rules of this
host are met: there `--internal` means that no way out is given."""
NAMES = f"""What a name resolves to may be reached for as long as the answer says, but for addresses of this host, of
other networks, of links, and of the metadata services of clouds:
{textwrap.fill(", ".join(egress.NEVER), 118)}."""
STEPS = (
    Step("The first container", "The default network is made, and a first link on it may speak for itself.",
         (("run", "-d", "--name", "web", *SLEEP),)),
    Step("Published ports", "Each is one element: for every address of the host, or for one of them.",
         (("run", "-d", "--name", "shop", "-p", "8080:80", "-p", "127.0.0.1:8443:443/udp", *SLEEP),)),
    Step("A port more, while it runs", "", (("port", "add", "web", "9090:90"),)),
    Step("A network with IPv6", "What is published without an address is published on both.",
         (("network", "create", "--ipv6", "six"),
          ("run", "-d", "--name", "page", "--network", "six", "-p", "8081:80", *SLEEP))),
    Step("A network without a way out", INTERNAL,
         (("network", "create", "--internal", "inner"),)),
    Step("Neighbours apart", "Neither the bridge nor the routed way leads from one container to another.",
         (("network", "create", "--icc=false", "apart"),
          ("run", "-d", "--name", "hermit", "--network", "apart", *SLEEP))),
    Step("A network for itself", "", (("network", "create", "--isolate", "alone"),)),
    Step("An egress policy", NAMES,
         (("run", "-d", "--name", "bot", "--egress", "192.0.2.0/24:443/tcp,deny:169.254.169.254", *SLEEP),)),
)  # fmt: skip

# What pyrun changes of the host's settings, and why. One that is not here fails the run.
SETTINGS = {
    "net/ipv4/ip_forward": "packets go from bridge to uplink",
    "net/ipv4/conf/all/forwarding": "the same, by another name",
    "net/ipv4/conf/eth0/forwarding": "the kernel sets it with ip_forward",
    "net/ipv4/conf/default/forwarding": "the kernel sets it with ip_forward",
    "net/ipv4/conf/all/accept_redirects": "the kernel clears it with ip_forward: a router is not sent elsewhere",
    "net/ipv4/conf/lo/forwarding": "the kernel sets it with ip_forward",
    "net/ipv6/conf/all/forwarding": "a network has IPv6",
    "net/ipv6/conf/default/forwarding": "the kernel sets it with the one of all",
    "net/ipv6/conf/eth0/forwarding": "the kernel sets it with the one of all",
    "net/ipv6/conf/lo/forwarding": "the kernel sets it with the one of all",
    "net/ipv6/conf/eth0/accept_ra": "a host that forwards would no longer believe its own router otherwise",
}
BRIDGE_SETTINGS = {
    "net/ipv4/conf/{bridge}/route_localnet": "127.0.0.1:PORT of the host leads to a container; the chain `guard` keeps"
    " everybody else out",
    "net/ipv6/conf/{bridge}/accept_ra": "no container is this host's router",
    "net/ipv6/conf/{bridge}/disable_ipv6": "no IPv6 where none was asked for",
}
# A comparison with the fifteenth character of a name, for which nft has no words.
FIFTEEN_LONG = 'oifname & "" != ""', "(a name of fifteen characters)"
FOREIGN = (
    ("a FORWARD chain that drops, as Docker's, ufw's", ("iptables", "-P", "FORWARD", "DROP")),
    ("an INPUT chain that drops, as ufw's", ("iptables", "-P", "INPUT", "DROP")),
)


class Writer:
    """Runs the steps with *pyrun*, on a host without anything of it."""

    def __init__(self, pyrun: Pyrun) -> None:
        self.pyrun = pyrun
        self.lines: list[str] = []
        self.names: dict[str, str] = {}

    def write(self) -> str:
        """The whole page."""
        as_a_lab_begins()
        before = settings()
        self.say(HEAD, f"Written by `make docs` with {version()}; do not edit.", "", IN_USE)
        self.features()
        done = [self.step(step) for step in STEPS]
        self.say("## The rules", "", RULES, "")
        for family in ("inet", "bridge"):
            self.table(family)
        told = [
            line[4:] for line in (names.__doc__ or "").splitlines() if not line or line.startswith("    ")
        ]
        self.say("## What is in the sets and maps", "", "```", "\n".join(told).strip(), "```", "", SETS, "")
        for lines in done:
            self.say(*lines)
        self.settings(before)
        self.crossings()
        self.foreign()
        return "\n".join(self.lines).rstrip() + "\n"

    def say(self, *lines: str) -> None:
        self.lines += lines

    def features(self) -> None:
        """The table, once every option in it was found in the help."""
        shown = "".join(
            self.pyrun.ok(*verb.split(), "--help")
            for verb in ("run", "network create", "network connect", "network policy", "port", "port add")
        )
        verbs = self.pyrun.ok("network", "--help") + self.pyrun.ok("--help") + shown
        for option in sorted(features.options()):
            known = option.rpartition(" ")[2]
            assert re.search(rf"(?<![\w-]){re.escape(known)}\b", verbs), f"pyrun has no {option}"
        self.say("## What it can do", "", features.VERSIONS, "", *features.table(), "")

    def step(self, step: Step) -> list[str]:
        """Run its commands; returns what to say of them."""
        known = elements()
        for command in step.commands:
            self.pyrun.ok(*command)
        self.learn()
        added = [self.named(each) for each in sorted(elements() - known)]
        shown = [f"$ pyrun {' '.join(command)}" for command in step.commands]
        return [f"### {step.title}", "", *([step.shows, ""] if step.shows else []), "```text", *shown,
                *added, "```", ""]  # fmt: skip

    def learn(self) -> None:
        """What ids, links and prefixes are to be called on the page."""
        for row in map(json.loads, self.pyrun.ok("network", "ls", "--format", "json").splitlines()):
            if row["Bridge"] not in ("", "pyrun0"):
                self.names[row["Bridge"]] = f"pyr-{row['Name']}"
            if row["Subnet6"]:
                self.names[row["Subnet6"].removesuffix("::/64")] = "fd00:1:2"
            if row["Bridge"]:
                (found,) = json.loads(self.pyrun.ok("network", "inspect", row["Name"]))
                for each in found["Containers"].values():
                    self.names[each["HostInterface"]] = f"pyv-{each['Name']}"

    def named(self, text: str) -> str:
        for name in sorted(self.names, key=len, reverse=True):
            text = text.replace(name, self.names[name])
        return text

    def table(self, family: str) -> None:
        """Every chain: its hook, and a line a rule."""
        text = ruleset.nft("--stateless", "list", "table", family, "pyrun")
        self.say(f"### `table {family} pyrun`", "")
        for name, body in re.findall(r"\tchain (\w+) \{\n(.*?)\n\t\}", text, re.DOTALL):
            lines = [line.strip() for line in body.splitlines()]
            hook = lines.pop(0) if lines[0].startswith("type ") else "entered from other chains"
            self.say(f"`{name}`: {hook.replace('; policy accept;', '')}", "", "| rule | why |", "|---|---|")
            for line in lines:
                rule, _, why = line.partition(' comment "')
                rule = rule.replace(*FIFTEEN_LONG)
                assert why, f"a rule without its reason: {line}"
                self.say(f"| `{self.named(rule)}` | {why.removesuffix(chr(34))} |")
            self.say("")

    def settings(self, before: dict[str, str]) -> None:
        """The settings of the host that are others now."""
        self.say(
            "## What changes on the host",
            "",
            CHANGES,
            "",
            "| setting | before | now | why |",
            "|---|---|---|---|",
        )
        after = settings()
        for name in sorted(before):
            if after.get(name, before[name]) != before[name]:
                assert name in SETTINGS, f"nobody says why {name} changes"
                self.say(f"| `{name}` | {before[name]} | {after[name]} | {SETTINGS[name]} |")
        default = {name: value for name, value in after.items() if "/default/" in name}
        for pattern, why in BRIDGE_SETTINGS.items():
            name = pattern.format(bridge="pyrun0")
            usual = default.get(pattern.format(bridge="default"), "")
            self.say(f"| `{pattern.format(bridge='pyrun0')}` | {usual} | {after[name]} | {why} |")
        self.say("")

    def crossings(self) -> None:
        """What passes each policy, of all that a container can send."""
        with tempfile.TemporaryDirectory() as directory:
            program = yard.compile_frames(Path(directory))
            with crossings.crossings(self.pyrun, program) as made:
                self.say("## What passes a policy", "", PASSES, "", *made.table(), "")

    def foreign(self) -> None:
        """Firewalls of others that drop, and our rules in their chains."""
        self.say("## Beside other firewalls", "", BESIDE, "")
        tables = ruleset.nft("list", "tables")
        for what, command in FOREIGN:
            subprocess.run(command, check=True)
            told = self.pyrun("network", "reload")
            shown = subprocess.run(
                [command[0], "-S", command[2]], capture_output=True, text=True, check=True
            ).stdout
            subprocess.run([*command[:-1], "ACCEPT"], check=True)
            assert told.returncode == 0, told.stderr
            ours = [self.named(line) for line in shown.splitlines() if "pyrun: " in line]
            self.say(f"{what[0].upper()}{what[1:]} (`{' '.join(command)}`):", "", "```", *ours, "```", "")
        self.pyrun.ok("rm", "-f", *self.pyrun.ok("ps", "-a", "-q").split())
        self.pyrun.ok("system", "reconcile")  # forwarding rests, whether the guard came to it yet or not
        lines = self.pyrun.ok("network", "prune").splitlines()
        if "table ip filter\n" not in tables:
            ruleset.nft("delete", "table", "ip", "filter")
        self.say("The last `network prune` puts the rest back:", "", "```text", "$ pyrun network prune",
                 *lines, "```")  # fmt: skip


def elements() -> set[str]:
    """What is in the sets and maps, a line an element."""
    found = set()
    for family, table in ruleset.TABLES:
        done = subprocess.run(
            ["nft", "-s", "list", "table", family, table], capture_output=True, text=True, check=False
        )
        text = done.stdout  # none before the first container
        for kind, name, body in re.findall(r"\t(set|map) (\w+) \{\n(.*?)\n\t\}", text, re.DOTALL):
            inside = re.search(r"elements = \{(.*?)\}", body, re.DOTALL)
            for each in inside[1].split(",") if inside else ():
                found.add(f"{family} {kind} {name}: {' '.join(each.split())}")
    return found


def settings() -> dict[str, str]:
    """The settings of the network that can be read, of links that are there from the beginning and of pyrun0."""
    found = {}
    for family in ("ipv4", "ipv6"):
        places = [Path("/proc/sys/net", family), *Path("/proc/sys/net", family).glob("conf/*")]
        for path in (each for place in places for each in place.iterdir() if each.is_file()):
            try:
                found[str(path.relative_to("/proc/sys"))] = path.read_text().strip()
            except OSError:  # only to be written, or secret
                continue
    return {name: value for name, value in found.items() if "fib_" not in name and "tcp_mem" not in name}


def as_a_lab_begins() -> None:
    """The uplink forwards nothing and believes routers: tests that ran before may have left it otherwise."""
    begins = {"ipv6/conf/eth0/forwarding": "0", "ipv6/conf/eth0/accept_ra": "1"}
    for name, value in begins.items():
        Path("/proc/sys/net", name).write_text(value)


def version() -> str:
    """The program that printed the rules."""
    words = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f"nftables {words[1]}"


HEAD = """# Networking

What pyrun's networking can do, and what it does to a host: every rule, every setting, each with its reason.
[by-hand.md](by-hand.md) makes such a network step by step.
"""
IN_USE = """## In use

Networks of your own, names on all of them, ports that come and go while a container runs, and what it may reach:

```console
$ pyrun network create --internal back
...
$ pyrun run -d --name db --network back:alias=store busybox httpd -f -h /etc
...
$ pyrun run -d --name shop --network bridge --network back --hostname shop busybox httpd -f -h /etc
...
$ pyrun exec shop ip -4 -o addr
...
...: eth0    inet 10.77...
...: eth1    inet 192.168...
$ pyrun exec shop wget -q -O /dev/null http://store/hostname && echo "shop reaches db by its alias"
shop reaches db by its alias
$ pyrun port add shop 9090:80
80/tcp -> 0.0.0.0:9090
$ curl -s http://127.0.0.1:9090/hostname
shop
$ pyrun network policy shop deny:169.254.0.0/16
...
$ pyrun rm -f shop db
shop
db
$ pyrun network prune
...
```

Published ports are elements of a map, so one more costs as much as the first, and no proxy program is needed but for
[::1]. `--network l2:eth0` puts a container on the segment of a network card, by the bridge that holds the card.
"""
RULES = """Two tables of its own, each made in one transaction. The chains are the same whatever runs; networks, links
and published ports are elements of sets and maps, so that a change is one element, and a packet costs the same with one
port as with thousands. `nft list table inet pyrun` prints them on any host, with the reasons as comments."""
SETS = """Those with addresses are there for IPv6 as well, with a 6 behind their names. A container without published
ports and policies adds nothing but what its link may send. Below, `pyr-six` stands for the bridge of the network six,
`pyv-web` for the host's end of web's cable, `fd00:1:2` for the host's own prefix."""
PASSES = """What a container can send by its raw sockets, which Docker's capabilities allow, and how much of it arrived:
every type of ICMP and ICMPv6 (from its own address and that of the link, with the hop limits 255, 64 and 1), every
protocol number of IPv4 and IPv6; UDP, an echo and neighbour discovery behind every extension header and in pieces; UDP
behind options of IPv4 and in pieces. What is listed passes; – is nothing. `--isolate` and `--icc=false` leave the ways
to the outside and to this host open.

Neighbour discovery (133, 135, 136) is what a link is made of: it passes with the hop limit 255 alone, which nothing has
that was routed. So do reports of multicast groups (131, 132, 143), from addresses of the link and with the hop limit 1.
Two containers on one link that are in league can tell each other something by them, as by ARP; with `--icc=false` they
cannot. 134 and 137 are for routers: no container sends them."""
CHANGES = """Noted before they are changed, in `networks/before.json` of the run directory, and put back with the last
network, forwarding with the last container already ([administration.md](administration.md), Forwarding); a setting that
has the value already is left alone. A bridge with a container that has an egress policy shows
the rules what passes it (`nf_call_iptables`, `nf_call_ip6tables` of this bridge alone); an adopted one gets its own
values back."""
BESIDE = """Accepting a packet is not final: every chain of the same hook is asked. Where one of somebody else's drops,
pyrun puts a few marked rules in front, into `DOCKER-USER` where Docker is, and takes them away with the last network.
No policy and no rule of others is changed. `pyrun network reload`, every start and pyrun-guard look whether they are
there. Networks of libvirt work beside ours, whoever came first: their subnets are taken by nobody else, and containers
get no further into them than anybody from outside.

A published port is open to the outside if this host's rules would let it in to the host itself, from everybody and by
every card: one that they let in by one card alone stays closed by all of them, which is told, and
`--publish-through-firewall` opens it by all. Into an adopted bridge nothing is let past rules that drop what is
forwarded; `pyrun port` tells which of its ports they keep from the outside."""


def main() -> int:
    """Print the page."""
    if os.environ.get("PYRUN_LAB") != "1":
        print("networking_doc: needs the lab host: make docs", file=sys.stderr)
        return 2
    binary = Path(sys.executable).parent / "pyrun"
    with tempfile.TemporaryDirectory() as directory:
        pyrun = Pyrun(binary, Path(directory))
        try:
            pyrun.ok("pull", "-q", "busybox")
            sys.stdout.write(Writer(pyrun).write())
        finally:
            pyrun.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
