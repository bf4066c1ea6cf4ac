"""firewalld: our bridges in its zone `trusted`, by its own command.

Its table rejects what no zone of its lets through, after our chains, and may belong to it alone (table owner), so
rules of others are no way in. A zone is: what comes from an interface in `trusted` is accepted, and firewalld lets
through by itself what was redirected to a published port. Docker and podman do the same (Docker in a zone of its
own, podman in this one). The change lasts until firewalld reloads or we remove it: `pyrun network reload` renews it.
Cold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from _socket import socket

from pyrun import notice
from pyrun.network import messages, nft

TABLE = "firewalld"
ZONE = "trusted"
_PATIENCE_S = 30


def running(sock: socket) -> bool:
    """Whether firewalld's table is there."""
    return messages.ask(sock, nft.table(nft.GET_TABLE, TABLE))[0] == 0


def trust(sock: socket, networks: list[dict[str, object]]) -> list[str]:
    """Put every bridge into the zone; what was done, a line each."""
    if not running(sock):
        return []
    told = []
    for bridge in sorted({bridge for network in networks for bridge in _bridges(network)}):
        if _command(f"--zone={ZONE}", f"--query-interface={bridge}") == "yes":
            continue
        answer = _command(f"--zone={ZONE}", f"--change-interface={bridge}")
        if answer == "success":
            told.append(f"firewalld: {bridge} put into its zone {ZONE}")
        else:
            notice.say(f"firewalld may cut containers on {bridge} off: {answer}")
    return told


def _bridges(network: dict[str, object]) -> list[str]:
    further = network.get("shards")
    return (
        [str(network["bridge"]), *(further if isinstance(further, list) else [])] if network["bridge"] else []
    )


def forget(sock: socket) -> int:
    """Take our bridges out of the zone; returns how many."""
    if not running(sock):
        return 0
    listed = _command(f"--zone={ZONE}", "--list-interfaces").split()
    ours = [name for name in listed if name.startswith("pyr")]
    for name in ours:
        _command(f"--zone={ZONE}", f"--remove-interface={name}")
    return len(ours)


def _program() -> str:
    return shutil.which("firewall-cmd", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin") or ""


def _command(*words: str) -> str:
    program = _program()
    if not program:
        return "there is no firewall-cmd"
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else ""
