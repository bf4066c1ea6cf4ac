"""What pasta is told: the host's own addresses and routes in the container, published ports, nothing of the loopback.

    --config-net      copy the address and routes of the host's interface, bring all up
    --no-map-gw       the gateway's address is the gateway, not a way to the services on the host's loopback
    -t -u             exactly the published ports; -T -U none: the container's loopback does not lead to the host's
    --dns-forward     name queries to this address go to the host's first name server, wherever that listens

It returns when the device is there, a child of its own serving it: the pid file says which. Source: man 1 pasta.
"""

from __future__ import annotations

import subprocess

from pyrun.network.publishing import ports
from pyrun.store import paths

NAME_SERVER = "169.254.1.1"  # as podman's
ADDRESS = ""  # the host's
_PATIENCE_S = 20


def words(published: list[ports.Port]) -> list[str]:
    """The command line but for the namespace and the pid file."""
    result = ["--config-net", "--quiet", "--no-map-gw", "--dns-forward", NAME_SERVER]
    for letter, protocol in (("t", "tcp"), ("u", "udp")):
        chosen = [port for port in published if port[3] == protocol]
        for host, number, inside, _ in chosen:
            place = "" if host == ports.ANY else f"{host}/"
            result += [f"-{letter}", f"{place}{number}:{inside}"]
        if not chosen:
            result += [f"-{letter}", "none"]
    return [*result, "-T", "none", "-U", "none"]


def command(pid_file: str, name: str, given: list[str]) -> list[str]:
    """The whole command line."""
    return ["pasta", *given, "--pid", pid_file, "--netns", name]


def start(program: str, pid_file: str, name: str, given: list[str], output_fd: int) -> int:
    """Run it; its process, or 0 if it failed. Raises OSError, subprocess.SubprocessError."""
    del program
    done = subprocess.run(
        command(pid_file, name, given),
        stdin=subprocess.DEVNULL,
        stdout=output_fd,
        stderr=output_fd,
        timeout=_PATIENCE_S,
        check=False,
    )
    return int(paths.read(pid_file)) if done.returncode == 0 else 0
