"""firewalld: our bridges in its zone `trusted`, by its own command.

Its table rejects what no zone of its lets through, after our chains, and may belong to it alone (table owner), so
rules of others are no way in. A zone is: what comes from an interface in `trusted` is accepted, and firewalld lets
through by itself what was redirected to a published port. Docker and podman do the same (Docker in a zone of its
own, podman in this one). The change lasts until firewalld reloads or we remove it: `pyrun network reload` renews it.
An adopted bridge stays in whatever zone it is, since nobody on it is to be trusted more than before; there, questions
to the resolver are let in, from its subnets to its gateways alone. Cold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from _socket import socket

from pyrun import notice
from pyrun.network import messages, nft
from pyrun.network.records import Network

TABLE = "firewalld"
ZONE = "trusted"
_PATIENCE_S = 30


def running(sock: socket) -> bool:
    """Whether firewalld's table is there."""
    return messages.ask(sock, nft.table(nft.GET_TABLE, TABLE))[0] == 0


def trust(sock: socket, networks: list[Network]) -> list[str]:
    """Put every bridge of ours into the zone; what was done, a line each."""
    if not running(sock):
        return []
    told = [line for network in networks if network.adopted for line in _let_ask(network)]
    for bridge in sorted({bridge for network in networks for bridge in _ours(network)}):
        if _command(f"--zone={ZONE}", f"--query-interface={bridge}") == "yes":
            continue
        answer = _command(f"--zone={ZONE}", f"--change-interface={bridge}")
        if answer == "success":
            told.append(f"firewalld: {bridge} put into its zone {ZONE}")
        else:
            notice.say(f"firewalld may cut containers on {bridge} off: {answer}")
    return told


def _ours(network: Network) -> list[str]:
    """Its bridges, but for an adopted one."""
    return [*([network.bridge] if network.bridge and not network.adopted else []), *network.shards]


def forget(sock: socket) -> int:
    """Take our bridges out of the zone; returns how many."""
    if not running(sock):
        return 0
    listed = _command(f"--zone={ZONE}", "--list-interfaces").split()
    ours = [name for name in listed if name.startswith("pyr")]
    for name in ours:
        _command(f"--zone={ZONE}", f"--remove-interface={name}")
    return len(ours)


def withdraw(network: Network) -> None:
    """What was let in for an adopted bridge, in whatever zone that was, is let in no more."""
    sock = messages.opened(messages.NETLINK_NETFILTER)
    there = running(sock)
    sock.close()
    if not there:
        return
    zone, rules = "", set(_questions(network))
    for line in _output("--list-all-zones").splitlines():
        if line[:1].strip():
            zone = line.split()[0]
        elif line.strip() in rules:
            _command(f"--zone={zone}", f"--remove-rich-rule={line.strip()}")


def _let_ask(network: Network) -> list[str]:
    bridge, rules = network.bridge, _questions(network)
    zone = _command(f"--get-zone-of-interface={bridge}")
    if zone == "no zone":
        zone = _command("--get-default-zone")
    there = {line.strip() for line in _output(f"--zone={zone}", "--list-rich-rules").splitlines()}
    if there.issuperset(rules):
        return []
    answer = _command(f"--zone={zone}", *[f"--add-rich-rule={rule}" for rule in rules])
    if answer == "success":
        return [f"firewalld: questions of containers on {bridge} let in, in its zone {zone}"]
    notice.say(f"firewalld may refuse what containers on {bridge} ask for names: {answer}")
    return []


def _questions(network: Network) -> list[str]:
    """The rules of a zone that let them in, as firewalld itself writes them."""
    return [
        f'rule family="ipv{version}" source address="{each.subnet}" destination address="{each.gateway}" '
        f'port port="53" protocol="{protocol}" accept'
        for version, pools in ((4, network.subnets4), (6, network.subnets6))
        for each in pools
        for protocol in ("udp", "tcp")
    ]


def _program() -> str:
    return shutil.which("firewall-cmd", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin") or ""


def _command(*words: str) -> str:
    return _output(*words).rpartition("\n")[2]


def _output(*words: str) -> str:
    program = _program()
    if not program:
        return "there is no firewall-cmd"
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout if done.returncode == 0 else done.stderr).strip()
