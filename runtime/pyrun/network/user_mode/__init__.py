"""The network of an ordinary user's container: a program of that user's stands between it and the host's sockets.

A user may neither make links on the host nor write firewall rules. So pasta (or slirp4netns where that is what there
is) puts a tap device into the container's network namespace and speaks to the world through sockets of its own:

    container ── eth0/tap0 ──► pasta ── connect(), sendto() as the user ──► the host's network
    -p 8080:80:                pasta ◄── listen(8080) on the host

    plan      which program, its words, the undo list; ports are tried with a bind, nothing is claimed
    perform   the namespace gets a name in the run directory, the program is started on it and answers when it is ready

The program ends with the container: its process is noted for the undo list, and pasta also watches that name. Cold:
the program itself takes longer than all of this. Not here: what each program wants to be told (pasta.py, slirp.py).
Source: man 1 pasta, man 1 slirp4netns; podman's containers/common libnetwork/{pasta,slirp4netns}.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from _socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

from pyrun import linux
from pyrun.errors import Conflict, NetworkError, NotFound, UsageError
from pyrun.network import requests, resolver
from pyrun.network.publishing import choosing, ports
from pyrun.network.requests import Request
from pyrun.network.user_mode import pasta, slirp
from pyrun.network.wiring import NetworkPlan
from pyrun.plan.operations import Operation
from pyrun.store import paths, state

MODES = requests.OF_A_USER
_PACKAGES = {"pasta": "passt", "slirp4netns": "slirp4netns"}
_PROGRAMS: dict[str, Any] = {"pasta": pasta, "slirp4netns": slirp}
_PRIVILEGED_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# Of the documentation (RFC 5737): nothing is sent there, the kernel only says which address it would send from.
_ANYWHERE = ("192.0.2.1", 9)


def plan(request: Request) -> NetworkPlan:
    """What stages/network.py wants to know of a container with one of MODES. Raises NetworkError, UsageError,
    Conflict."""
    planned, program = NetworkPlan(), choose(request.mode)
    refuse_low(request.ports)
    _refuse_unknown(program, request.ports)
    published = _settled(request.ports)
    name, pid_file = f"{request.run_dir}/netns", f"{request.run_dir}/{program}.pid"
    module = _PROGRAMS[program]
    resolv = [f"nameserver {module.NAME_SERVER}", *resolver.reachable(fall_back=False)]
    planned.outside = [
        Operation("NETNS_FILE", name),
        Operation("USER_NETWORK", program, pid_file, name, *module.words(published)),
        *[
            Operation("FORWARD", *port, slirp.api_socket(name))
            for port in published
            if program == "slirp4netns"
        ],
    ]
    planned.undo = [f"kill-noted\t{pid_file}", f"umount\t{name}", f"unlink\t{name}"]
    planned.address = module.ADDRESS or own_address()
    planned.ports, planned.program = published, program
    planned.resolv = resolver.chosen(request.dns, list(dict.fromkeys(resolv)))
    return planned


def choose(mode: str, path: str | None = None) -> str:
    """pasta, or slirp4netns where only that is installed and pasta was not asked for by name. Raises NetworkError."""
    default = mode == ""
    for program in MODES if default else (mode,):
        if shutil.which(program, path=path or os.environ.get("PATH") or os.defpath):
            return program
    raise NetworkError(
        f"--network={mode or 'pasta'}: there is no program {mode or 'pasta'} here",
        f"apt-get install {_PACKAGES[mode or 'pasta']}; or --network=none, --network=host",
    )


def refuse_low(wanted: list[ports.Port], setting: str = _PRIVILEGED_PORTS) -> None:
    """Ports that an ordinary user may not listen on. Raises UsageError."""
    first = int(paths.read(setting)) if paths.exists(setting) else 1024
    for host, number, inside, protocol in wanted:
        if 0 < number < first:
            raise UsageError(
                f"-p {host or ports.ANY}:{number}:{inside}/{protocol}: ports below {first} are root's",
                f"another one, or as root: sysctl net.ipv4.ip_unprivileged_port_start={number}",
            )


def _settled(wanted: list[ports.Port]) -> list[ports.Port]:
    """Every default filled in, and all of them free. Raises Conflict, NetworkError."""
    try:
        return choosing.settle(wanted, keep=False)
    except Conflict as error:
        raise of_own_container(wanted) or error from None


def _refuse_unknown(program: str, wanted: list[ports.Port]) -> None:
    """What the programs do not pass on. Raises UsageError."""
    for port in wanted:
        host, number, inside, protocol = port
        if ":" in host and program == "slirp4netns":
            raise UsageError(
                f"-p {ports.spelled(port)}: slirp4netns publishes on IPv4 addresses alone",
                "--network=pasta, or an IPv4 address",
            )
        if protocol == "sctp":
            raise UsageError(
                f"-p {host or ports.ANY}:{number}:{inside}/sctp: {program} publishes TCP and UDP alone",
                "as root, a network of the host's",
            )


def own_address() -> str:
    """The host's address on its way to the world, which pasta copies into the container; empty without one."""
    probe = socket(AF_INET, SOCK_DGRAM)
    try:
        probe.connect(_ANYWHERE)
        return str(probe.getsockname()[0])
    except OSError:
        return ""
    finally:
        probe.close()


def name_namespace(pid: int, path: str) -> None:
    """Give the network namespace of *pid* a name that its program enters it by. Raises OSError."""
    paths.write(path, b"")
    linux.mount(f"/proc/{pid}/ns/net", path, None, linux.MS_BIND)


def run(pid: int, program: str, pid_file: str, name: str, *given: str) -> None:
    """Start the program in the namespace *name*; returns when the network is there, with its process noted in
    *pid_file*. Raises NetworkError."""
    del pid
    output_fd = os.memfd_create("output")
    try:
        started = _PROGRAMS[program].start(program, pid_file, name, list(given), output_fd)
    except (OSError, subprocess.SubprocessError) as error:
        raise NetworkError(f"{program} cannot be started: {error}") from None
    finally:
        said = os.pread(output_fd, 4096, 0).decode("utf-8", "replace").strip().splitlines()
        os.close(output_fd)
    if started <= 0:
        if unbound := of_pasta("\n".join(said)):
            raise unbound
        reason = next((line for line in reversed(said) if line and not line[0].isspace()), "it said nothing")
        raise NetworkError(f"{program} could not connect the container: {reason:.200}", _hint(reason))
    paths.replace(pid_file, f"{started} {state.start_time(started)}\n".encode())


def _hint(said: str) -> str:
    if "tun" in said:
        return "the device /dev/net/tun is needed: modprobe tun"
    return "--network=none or --network=host do without it"


# ── why a port cannot be had ───────────────────────────────────────────────────────────────────────


# Of pasta's complaint: the option, the address, the port of the host, the port inside.
_BIND_FAILED = re.compile(r"ailed to bind.*-([tu]) (?:([0-9a-f.:]+)/)?(\d+)(?:-\d+)?:(\d+)")


def of_own_container(wanted: list[ports.Port]) -> Conflict | None:
    """The error about a port that another container of this user publishes; None if none of them does."""
    for identifier in state.all_ids():
        try:
            container = state.load(identifier)
        except NotFound:  # removed since the listing
            continue
        listed = container.get("ports")
        if isinstance(listed, list) and state.process_alive(container):
            dual = container.get("mode") == "pasta"
            for port in wanted:
                if any(_in_the_way(port, other, dual=dual) for other in listed):
                    return ports.taken(port, str(container.get("name") or identifier[:12]))
    return None


def _in_the_way(port: ports.Port, other: list[Any], *, dual: bool) -> bool:
    """dual: without an address, or with that of all, *other* is listened to in IPv6 as well."""
    host, number, _, protocol = port
    if not number or isinstance(number, ports.HostRange) or (number, protocol) != (other[1], other[3]):
        return False
    return ports.overlap(host or ports.ANY, other[0]) or (dual and other[0] == ports.ANY)


def of_pasta(said: str) -> NetworkError | None:
    """The error about a port on which pasta could not listen, from its own words; None if that is not what it said."""
    found = _BIND_FAILED.search(said)
    if found is None:
        return None
    letter, host, number, inside = found.groups()
    port = (host or "", int(number), int(inside), {"t": "tcp", "u": "udp"}[letter])
    hint = f"`ss -{letter}lnp 'sport = :{number}'` names the process that has the port, if any"
    if ":" in port[0] and not _ipv6_leads_out():
        hint = (
            "this host has no IPv6 default route, and without one pasta has no IPv6: an IPv4 address, or none"
        )
    return NetworkError(f"-p {ports.spelled(port)}: pasta cannot listen there", hint)


def _ipv6_leads_out() -> bool:
    if not paths.exists("/proc/net/ipv6_route"):
        return False
    rows = [line.split() for line in paths.read("/proc/net/ipv6_route").decode().splitlines()]
    return any(row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo" for row in rows)
