"""What slirp4netns is told: a private 10.0.2.0/24 in the container, translated in user space.

    --disable-host-loopback   10.0.2.2 does not lead to the services on the host's loopback
    --enable-sandbox, --enable-seccomp   it sees no file of the host's while it reads the container's packets
    --api-socket              published ports are asked for there, one JSON request each

It stays in the foreground and writes a byte to --ready-fd. Source: man 1 slirp4netns.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess

from pyrun.errors import NetworkError
from pyrun.network.publishing import ports
from pyrun.store import paths, state

NAME_SERVER = "10.0.2.3"
ADDRESS = "10.0.2.100"
_PATIENCE_S = 20
_DEVICE, _SOCKET = "tap0", "slirp.sock"


def words(published: list[ports.Port]) -> list[str]:
    """The command line but for the namespace, the socket and the ready descriptor."""
    del published  # asked for at the socket
    return ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"]


def api_socket(name: str) -> str:
    """Where it listens for requests; a socket's path has room for 107 bytes, so both sides name it relative to its
    directory."""
    return f"{name.rpartition('/')[0]}/{_SOCKET}"


def command(name: str, given: list[str], ready: int | str = "READY") -> list[str]:
    """The whole command line."""
    more = [f"--ready-fd={ready}", f"--api-socket={_SOCKET}", "--netns-type=path"]
    return ["slirp4netns", *given, *more, name, _DEVICE]


def start(program: str, pid_file: str, name: str, given: list[str], output_fd: int) -> int:
    """Run it; its process, noted at once in *pid_file*: unlike pasta, it does not end with the namespace's name.
    0 if it failed. Raises OSError."""
    del program
    ready_fd, theirs_fd = os.pipe()
    try:
        child = subprocess.Popen(
            command(name, given, theirs_fd),
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=(theirs_fd,),
            start_new_session=True,
            cwd=name.rpartition("/")[0],
        )
        paths.replace(pid_file, f"{child.pid} {state.start_time(child.pid)}\n".encode())
    finally:
        os.close(theirs_fd)
    readable, _, _ = select.select([ready_fd], [], [], _PATIENCE_S)
    ready = bool(readable) and os.read(ready_fd, 1) == b"1"
    os.close(ready_fd)
    if not ready:
        child.kill()
        child.wait()
        return 0
    pid = child.pid
    child.returncode = 0  # whoever reaps it: the monitor, which this process becomes
    return pid


def forward(pid: int, host: str, number: int, inside: int, protocol: str, path: str) -> None:
    """Publish a port. path: of the socket that the program listens at. Raises NetworkError."""
    del pid
    request = {
        "execute": "add_hostfwd",
        "arguments": {"proto": protocol, "host_addr": host, "host_port": number, "guest_port": inside},
    }
    directory, _, leaf = path.rpartition("/")
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(f"/proc/self/fd/{directory_fd}/{leaf}")
            connection.sendall(json.dumps(request).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while data := connection.recv(4096):
                answer += data
    except OSError as error:
        raise NetworkError(f"slirp4netns does not answer: {error}") from None
    finally:
        os.close(directory_fd)
    if "error" in json.loads(answer or b'{"error": {}}'):
        raise NetworkError(
            f"-p {host}:{number}:{inside}/{protocol}: slirp4netns cannot listen there",
            "is it in use? publish another port",
        )
