"""What the rows of published ports do in processes of their own: port_work.py WHAT ARGUMENT...  (prints JSON)

publish CONTAINER TIMES              publish one port after the other, in process: microseconds each
serve PORT...                        accept on every port and swallow what comes; "ready" when it does
listen PORT...                       let connections to every port come in, and nobody be woken by one; "ready"
connect ADDRESS TIMES PORT...        connect to each port, as often as to the others: port -> microseconds each
send ADDRESS PORT MEGABYTES          send so much, wait until it was swallowed: seconds
"""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence

BLOCK = 1 << 20
FIRST_PORT = 40000
NOT_COUNTED = 100  # connections to each port before those that are timed
BACKLOG, LOOKED_EVERY_S = 4096, 0.02


def publish(container: str, times: str) -> list[float]:
    """Claim, reservation and element of one port: what one more costs a start, or `port add`, in the network."""
    from pyrun.engine import connected
    from pyrun.network import claims, elements, messages
    from pyrun.network.publishing import ports, publication
    from pyrun.store import state

    identifier = state.resolve(container)
    wires = connected.wires_of(state.load(identifier))
    netfilter = messages.opened(messages.NETLINK_NETFILTER)
    template = messages.load(wires[0].network)
    assert template
    leads, owner = publication.targets(wires), claims.owner(identifier)
    taken_us, every = [], list[ports.Port]()
    gc.disable()
    for number in range(FIRST_PORT, FIRST_PORT + int(times)):
        began = time.perf_counter_ns()
        published = publication.settled([("", number, 80, "tcp")], wires)
        publication.claim(published, wires, container, owner, [])
        publication.reserve(published, leads)
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


def listen(*numbers: str) -> None:
    """The kernel answers; a look every now and then empties the queues, which take all that come in between.

    Nobody waits in accept(): to wake him costs the one who connects as much again as the connection, or nothing while
    he is still at the one before. Two ports asked in turns then share that out between them, by chance and for long.
    """
    listeners = [socket.create_server(("0.0.0.0", int(number)), backlog=BACKLOG) for number in numbers]
    print("ready", flush=True)
    while True:
        time.sleep(LOOKED_EVERY_S)
        for listener in listeners:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()


def turns(times: int, numbers: Sequence[str]) -> Iterator[str]:
    """All of *numbers*, *times* times, every second time backwards: nobody is always the one after another."""
    for turn in range(times):
        yield from reversed(numbers) if turn % 2 else numbers


def connect(address: str, times: str, *numbers: str) -> dict[str, list[float]]:
    """How long a connection takes to be there; it is reset at once, so that no port of the client stays taken."""
    gc.disable()
    for number in turns(NOT_COUNTED, numbers):
        _connection_us(address, int(number))
    taken_us: dict[str, list[float]] = {number: [] for number in numbers}
    for number in turns(int(times), numbers):
        taken_us[number].append(_connection_us(address, int(number)))
    return taken_us


def _connection_us(address: str, number: int) -> float:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        began = time.perf_counter_ns()
        sock.connect((address, number))
        return (time.perf_counter_ns() - began) / 1000


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
