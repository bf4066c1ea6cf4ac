"""The rules that filter what enters this host, or what it forwards, as the kernel has them now, by the programs their
makers use.

nft shows everything in JSON but for what iptables wrote: its table ip filter is read by iptables-save, and so are the
tables of the old iptables, which nft does not see at all. What cannot be read counts as letting nothing in.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
from pathlib import Path

from pyrun.network import records
from pyrun.network.publishing.host_rules import iptables, nftables
from pyrun.network.publishing.host_rules.judge import DROP, Hook

_PATIENCE_S = 10
# How interfaces that lead to containers and machines of this host are called: pyrun's, and others'.
_NOT_OUTSIDE = (
    "lo", "py", "veth", "docker", "br-", "virbr", "lxcbr", "lxdbr", "incusbr", "cni", "podman",
)  # fmt: skip
# IFF_UP, IFF_NOARP, IFF_POINTOPOINT; the scope of a global address in /proc/net/if_inet6. Source: man 7 netdevice.
_UP, _NO_NEIGHBOURS, _TO_ONE, _GLOBAL = 0x01, 0x80, 0x10, "00"
_SIOCGIFADDR, _IFREQ_BYTES = 0x8915, 40
_SAVED = ((False, "ip", "iptables"), (True, "ip6", "ip6tables"))


def hooks(where: str = "input") -> list[Hook]:
    """Every chain that is asked about what enters this host, or with "forward" what it forwards; ours left out."""
    found: list[Hook] = []
    skipped: set[tuple[str, str]] = set()
    document, chain = _ruleset(), where.upper()
    for six, family, program in _SAVED:
        if document is None or not _has(document, family, chain):
            continue
        skipped.add((family, "filter"))
        found += _saved([f"{program}-nft-save", f"{program}-save"], six, chain, program)
    found += nftables.hooks(document, skipped, where) if document else []
    for six, family, program in _SAVED:
        if b"filter" in _read(f"/proc/net/{family}_tables_names"):
            names = [f"{program}-legacy-save", f"{program}-save"]
            found += _saved(names, six, chain, f"{program}-legacy")
    return found if document is not None else [*found, _unread("nft", (False, True))]


def _ruleset() -> dict[str, object] | None:
    program = _found("nft")
    if not program:
        return None
    said = _output([program, "-n", "-j", "list", "ruleset"])
    try:
        document = json.loads(said) if said else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _has(document: dict[str, object], family: str, name: str) -> bool:
    items = document.get("nftables")
    chains = [item.get("chain", {}) for item in items] if isinstance(items, list) else []
    return any(
        (chain.get("family"), chain.get("table"), chain.get("name")) == (family, "filter", name)
        for chain in chains
    )


def _saved(programs: list[str], six: bool, chain: str, whose: str) -> list[Hook]:
    for program in programs:
        path = _found(program)
        if path:
            name = f"the chain {chain} of {whose}"
            found = iptables.hook(_output([path, "-t", "filter"]), name, six=six, begins=chain)
            return [found] if found else []
    return [_unread(programs[0], (six,))]


def _unread(program: str, families: tuple[bool, ...]) -> Hook:
    return Hook(f"the host's firewall cannot be read without `{program}`, so it", "", DROP, {}, families)


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def uplinks() -> list[str]:
    """The interfaces somebody outside may come by: those of the default routes, and every other that is up, has an
    address and is not known to lead to containers."""
    found = {fields[0] for fields in _rows("/proc/net/route")[1:] if fields[1] == fields[7] == "00000000"}
    found |= {
        fields[9]
        for fields in _rows("/proc/net/ipv6_route")
        if fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo"
    }
    # adopted bridges have names of their own
    inside = {network.bridge for network in records.all_networks()}
    everywhere = {fields[5] for fields in _rows("/proc/net/if_inet6") if fields[3] == _GLOBAL}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name in sorted(path.name for path in Path("/sys/class/net").iterdir()):
            if name in inside or name.startswith(_NOT_OUTSIDE) or not _comes_in(name):
                continue
            if name in everywhere or _has_ipv4(sock, name):
                found.add(name)
    return sorted(found) or ["eth0"]


def _comes_in(name: str) -> bool:
    """Whether packets may come by it: it is up, and no dummy, which asks for no neighbours and has no other end."""
    flags = int(_read(f"/sys/class/net/{name}/flags") or b"0", 16)
    return bool(flags & _UP) and not (flags & _NO_NEIGHBOURS and not flags & _TO_ONE)


def _has_ipv4(sock: socket.socket, name: str) -> bool:
    try:
        fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, name.encode().ljust(_IFREQ_BYTES, b"\0"))
    except OSError:
        return False
    return True


def _rows(path: str) -> list[list[str]]:
    return [line.split() for line in _read(path).decode().splitlines()]
