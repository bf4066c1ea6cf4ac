"""The rules that filter what enters this host, as the kernel has them now, by the programs their makers use.

nft shows everything in JSON but for what iptables wrote: its table ip filter is read by iptables-save, and so are the
tables of the old iptables, which nft does not see at all. What cannot be read counts as letting nothing in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from pyrun.network.publishing.host_rules import iptables, nftables
from pyrun.network.publishing.host_rules.judge import DROP, Hook

_PATIENCE_S = 10
# Where no default route says which interfaces lead outside.
_NOT_OUTSIDE = ("lo", "pyr", "veth", "docker", "br-", "virbr", "cni", "podman")
_SAVED = ((False, "ip", "iptables"), (True, "ip6", "ip6tables"))


def hooks() -> list[Hook]:
    """Every chain that is asked about what enters this host, ours left out."""
    found: list[Hook] = []
    skipped: set[tuple[str, str]] = set()
    document = _ruleset()
    for six, family, program in _SAVED:
        if document is None or not _has_input(document, family):
            continue
        skipped.add((family, "filter"))
        found += _saved([f"{program}-nft-save", f"{program}-save"], six, f"the chain INPUT of {program}")
    found += nftables.hooks(document, skipped) if document else []
    for six, family, program in _SAVED:
        if b"filter" in _read(f"/proc/net/{family}_tables_names"):
            names = [f"{program}-legacy-save", f"{program}-save"]
            found += _saved(names, six, f"the chain INPUT of {program}-legacy")
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


def _has_input(document: dict[str, object], family: str) -> bool:
    items = document.get("nftables")
    chains = [item.get("chain", {}) for item in items] if isinstance(items, list) else []
    return any(
        (chain.get("family"), chain.get("table"), chain.get("name")) == (family, "filter", "INPUT")
        for chain in chains
    )


def _saved(programs: list[str], six: bool, name: str) -> list[Hook]:
    for program in programs:
        path = _found(program)
        if path:
            found = iptables.hook(_output([path, "-t", "filter"]), name, six=six)
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
    """The interfaces of the default routes; without any, all that are not known to lead to containers."""
    found = [fields[0] for fields in _rows("/proc/net/route")[1:] if fields[1] == fields[7] == "00000000"]
    found += [
        fields[9]
        for fields in _rows("/proc/net/ipv6_route")
        if fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo"
    ]
    if found:
        return sorted(set(found))
    names = sorted(path.name for path in Path("/sys/class/net").iterdir())
    return [name for name in names if not name.startswith(_NOT_OUTSIDE)] or ["eth0"]


def _rows(path: str) -> list[list[str]]:
    return [line.split() for line in _read(path).decode().splitlines()]
