"""What the rows of published ports do in processes of their own: port_work.py WHAT ARGUMENT...  (prints JSON)

publish CONTAINER TIMES              publish one port after the other, in process: microseconds each
serve PORT...                        accept on every port and swallow what comes; "ready" when it does
connect ADDRESS TIMES PORT...        connect to each port in turn: port -> microseconds each
send ADDRESS PORT MEGABYTES          send so much, wait until it was swallowed: seconds
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import threading
import time

BLOCK = 1 << 20
FIRST_PORT = 40000


def publish(container: str, times: str) -> list[float]:
    """Claim, reservation and element of one port: what one more costs a start, or `port add`, in the network."""
    from pyrun.network import claims, elements, messages
    from pyrun.network.publishing import ports, publication
    from pyrun.store import state

    identifier = state.resolve(container)
    wires = state.load(identifier)["networks"]
    assert isinstance(wires, list)
    netfilter = messages.opened(messages.NETLINK_NETFILTER)
    template = messages.load(wires[0]["network"])
    assert template
    leads, owner = publication.targets(wires), claims.owner(identifier)
    taken_us, every = [], list[ports.Port]()
    gc.disable()
    for number in range(FIRST_PORT, FIRST_PORT + int(times)):
        began = time.perf_counter_ns()
        published = publication.settled([("", number, 80, "tcp")], wires)
        publication.claim(published, wires, container, owner, [])
        added = [elements.element(template, "publish", port, leads[False]) for port in published]
        messages.transact(netfilter, template, added)
        taken_us.append((time.perf_counter_ns() - began) / 1000)
        every += published
    for port in every:
        messages.transact(netfilter, template, publication.taking_back(template, port, leads))
        claims.release(ports.path(port), owner)
    return taken_us


def serve(*numbers: str) -> None:
    """Swallow everything; at the end of it one byte goes back."""
    for number in numbers:
        listener = socket.create_server(("0.0.0.0", int(number)), backlog=4096)
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def _accept(listener: socket.socket) -> None:
    buffer = bytearray(BLOCK)
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while connection.recv_into(buffer):
                    pass
                connection.send(b".")
            except ConnectionError:  # it only wanted to connect
                pass


def connect(address: str, times: str, *numbers: str) -> dict[str, list[float]]:
    """How long a connection takes to be there; it is reset at once, so that no port of the client stays taken."""
    taken_us: dict[str, list[float]] = {number: [] for number in numbers}
    for _ in range(int(times)):
        for number in numbers:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            began = time.perf_counter_ns()
            sock.connect((address, int(number)))
            taken_us[number].append((time.perf_counter_ns() - began) / 1000)
            sock.close()
    return taken_us


def send(address: str, number: str, megabytes: str) -> float:
    """Seconds from the first byte until the other end has all."""
    block = bytes(BLOCK)
    with socket.create_connection((address, int(number)), timeout=60) as sock:
        began = time.monotonic()
        for _ in range(int(megabytes)):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"."
        return time.monotonic() - began


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
