"""The tables of iptables-legacy, which nft does not see: the same marked rules, by its own command.

The kernel has such tables where /proc/net/ip_tables_names names some. They are read and written as a whole, by a
socket option whose layout is iptables' own business; so the command is called, where the table filter is there
at all. A file run/networks/legacy-iptables says that this was looked after, so that a start need not ask.
Cold: networks made or healed, and prune.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from pyrun import notice
from pyrun.network import health
from pyrun.network.firewall import openings
from pyrun.network.records import Network
from pyrun.safe import shell_command

_COMMANDS = (("iptables", health.LEGACY_TABLES), ("ip6tables", health.LEGACY_TABLES6))
_PROTOCOLS = {6: "tcp", 17: "udp", 58: "ipv6-icmp"}
_PATIENCE_S = 20


def let_through(networks: list[Network]) -> list[str]:
    """Put our rules into the table filter where it drops; what was done, a line each."""
    told = []
    for command, listed in _COMMANDS:
        if not has_table(listed):
            continue
        if command == "iptables" or openings.any_ipv6(networks):
            told += _let_through(command, networks)
        Path(health.legacy_note(listed)).touch()
    return told


def has_table(listed: str) -> bool:
    """Whether the kernel holds a table filter of iptables-legacy."""
    try:
        return "filter" in Path(listed).read_text().split()
    except OSError:
        return False


def remove() -> int:
    """Delete our rules; returns how many."""
    removed = 0
    for command, listed in _COMMANDS:
        program = _program(command) if has_table(listed) else ""
        for line in _rules(program) if program else []:
            if health.MARK in line and line.startswith("-A "):
                _run([program, "-w", "-D", *shlex.split(line)[1:]])
                removed += 1
        Path(health.legacy_note(listed)).unlink(missing_ok=True)
    return removed


def _let_through(command: str, networks: list[Network]) -> list[str]:
    program = _program(command)
    if not program:
        notice.say(
            f"this host has tables of {command}-legacy, but no such command: containers may be cut off by them"
        )
        return []
    lines = _rules(program)
    told = []
    for hook in ("FORWARD", "INPUT"):
        if not _drops(lines, hook):
            continue
        chain = "DOCKER-USER" if hook == "FORWARD" and "-N DOCKER-USER" in lines else hook
        there = "\n".join(line for line in lines if line.startswith(f"-A {chain} "))
        missing = [words for words in _wanted(command, hook, networks) if f'"{words[-1]}"' not in there]
        for words in missing:
            _run(
                [
                    program,
                    "-w",
                    "-I",
                    chain,
                    *words[:-1],
                    "-m",
                    "comment",
                    "--comment",
                    words[-1],
                    "-j",
                    "ACCEPT",
                ]
            )
        if missing:
            told.append(f"{hook} of {command}-legacy drops: {len(missing)} rules added to its chain {chain}")
    return told


def _wanted(command: str, hook: str, networks: list[Network]) -> list[list[str]]:
    """The conditions of each rule, and last its comment."""
    if hook == "FORWARD":
        wanted = openings.forwarded(networks)
    else:
        wanted = openings.incoming(networks, ipv6=command == "ip6tables")
    rules = []
    for why, direction, bridge, protocol, port in wanted:
        words = ["-i" if direction == "iifname" else "-o", bridge.replace("*", "+")]
        words += ["-p", _PROTOCOLS[protocol]] if protocol else []
        words += ["--dport", str(port)] if port else []
        rules.append([*words, why])
    return rules


def _drops(lines: list[str], chain: str) -> bool:
    """Whether a chain drops by its policy, or by a last rule without conditions."""
    if f"-P {chain} DROP" in lines:
        return True
    rules = [line for line in lines if line.startswith(f"-A {chain} ")]
    return bool(rules) and rules[-1].startswith((f"-A {chain} -j DROP", f"-A {chain} -j REJECT"))


def _rules(program: str) -> list[str]:
    return _run([program, "-w", "-S"]).splitlines()


def _program(command: str) -> str:
    """The command for the old tables: named so on Debian and Fedora, elsewhere the plain one may be it."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = shutil.which(f"{command}-legacy", path=search)
    if found:
        return found
    plain = shutil.which(command, path=search)
    return plain if plain and "legacy" in _run([plain, "-V"]) else ""


def _run(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        notice.say(f"{words[0]}: {error}")
        return ""
    if done.returncode:
        notice.say(f"{shell_command(words)}: {done.stderr.strip()}")
    return done.stdout
