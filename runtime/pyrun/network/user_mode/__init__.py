"""The network of an ordinary user's container: a program of that user's stands between it and the host's sockets.

A user may neither make links on the host nor write firewall rules. So pasta (or slirp4netns where that is what there
is) puts a tap device into the container's network namespace and speaks to the world through sockets of its own:

    container ── eth0/tap0 ──► pasta ── connect(), sendto() as the user ──► the host's network
    -p 8080:80:                pasta ◄── listen(8080) on the host

    plan      which program, its words, the undo list; ports are tried with a bind, nothing is claimed
    connect   the namespace gets a name in the run directory, the program is started on it and answers when it is ready

The program ends with the container: its process is noted for the undo list, and pasta also watches that name. Cold:
the program itself takes longer than all of this. Not here: what each program wants to be told (pasta.py, slirp.py), and
why a port cannot be had (complaints.py).
Source: man 1 pasta, man 1 slirp4netns; podman's containers/common libnetwork/{pasta,slirp4netns}.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from _socket import AF_INET, SOCK_DGRAM, socket
from typing import Any

from pyrun import linux
from pyrun.errors import Conflict, NetworkError, StageFailed, UsageError
from pyrun.network import requests, resolver
from pyrun.network.publishing import choosing, ports
from pyrun.network.user_mode import pasta, slirp
from pyrun.plan.operations import Operation
from pyrun.store import paths, state

MODES = requests.OF_A_USER
_PACKAGES = {"pasta": "passt", "slirp4netns": "slirp4netns"}
_PROGRAMS: dict[str, Any] = {"pasta": pasta, "slirp4netns": slirp}
_PRIVILEGED_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# Of the documentation (RFC 5737): nothing is sent there, the kernel only says which address it would send from.
_ANYWHERE = ("192.0.2.1", 9)


def plan(request: dict[str, Any]) -> dict[str, Any]:
    """What stages/network.py wants to know of a container with one of MODES. Raises NetworkError, UsageError,
    Conflict."""
    program = choose(str(request["mode"]))
    wanted = [tuple(port) for port in request["ports"]]
    refuse_low(wanted)
    _refuse_unknown(program, wanted)
    published = _settled(wanted)
    name, pid_file = f"{request['run_dir']}/netns", f"{request['run_dir']}/{program}.pid"
    module = _PROGRAMS[program]
    resolv = [f"nameserver {module.NAME_SERVER}", *resolver.reachable(fall_back=False)]
    return {
        "outside": [
            Operation("NETNS_FILE", name),
            Operation("USER_NETWORK", program, pid_file, name, *module.words(published)),
            *[Operation("FORWARD", *port) for port in published if program == "slirp4netns"],
        ],
        "undo": [f"kill-noted\t{pid_file}", f"umount\t{name}", f"unlink\t{name}"],
        "address": module.ADDRESS or own_address(),
        "ports": published,
        "resolv": resolver.chosen(
            request, [line for at, line in enumerate(resolv) if line not in resolv[:at]]
        ),
        "program": program,
    }


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
        from pyrun.network.user_mode import complaints

        raise complaints.of_own_container(wanted) or error from None


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


def connect(operations: list[Operation], pid: int) -> None:
    """Carry out the plan's operations for the namespace of *pid*. Raises NetworkError, StageFailed."""
    for operation in operations:
        if operation.kind == "NETNS_FILE":
            _name(str(operation.args[0]), pid)
        elif operation.kind == "USER_NETWORK":
            program, pid_file, name, *words = map(str, operation.args)
            _run(program, pid_file, name, words)
        elif operation.kind == "FORWARD":
            host, number, inside, protocol = operation.args
            slirp.forward(slirp.api_socket(name), str(host), int(number), int(inside), str(protocol))


def _name(path: str, pid: int) -> None:
    try:
        paths.write(path, b"")
        linux.mount(f"/proc/{pid}/ns/net", path, None, linux.MS_BIND)
    except OSError as error:
        raise StageFailed("network", "give the network namespace a name", error.errno) from None


def _run(program: str, pid_file: str, name: str, words: list[str]) -> None:
    """Start the program; returns when the network is there, with its process noted in *pid_file*."""
    output_fd = os.memfd_create("output")
    try:
        module = _PROGRAMS[program]
        pid = module.start(program, pid_file, name, words, output_fd)
    except (OSError, subprocess.SubprocessError) as error:
        raise NetworkError(f"{program} cannot be started: {error}") from None
    finally:
        said = os.pread(output_fd, 4096, 0).decode("utf-8", "replace").strip().splitlines()
        os.close(output_fd)
    if pid <= 0:
        from pyrun.network.user_mode import complaints

        if unbound := complaints.of_pasta("\n".join(said)):
            raise unbound
        reason = next((line for line in reversed(said) if line and not line[0].isspace()), "it said nothing")
        raise NetworkError(f"{program} could not connect the container: {reason:.200}", _hint(reason))
    paths.replace(pid_file, f"{pid} {state.start_time(pid)}\n".encode())


def _hint(said: str) -> str:
    if "tun" in said:
        return "the device /dev/net/tun is needed: modprobe tun"
    return "--network=none or --network=host do without it"
