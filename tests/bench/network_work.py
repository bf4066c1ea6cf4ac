"""What the rows of the network do in a process of their own: network_work.py WHAT ARGUMENT...  (prints JSON)

stage TIMES PORT                     the network stage of a start with one published port: milliseconds each
first ADDRESS PORT                   connect: milliseconds until there is an answer, a refusal being one
"""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOST_MS = 5000.0
NOT_COUNTED = 3  # the first runs of a round, of everybody


@contextmanager
def namespace() -> Iterator[int]:
    """The process id of somebody with a network namespace of his own, who sleeps by now: the others are given theirs
    by an `ip netns add` that has ended."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as holder:
        status = Path(f"/proc/{holder.pid}/stat")
        try:
            while " (sleep) S " not in status.read_text():
                time.sleep(0.001)
            yield holder.pid
        finally:
            holder.kill()


def stage(times: str, port: str) -> list[float]:
    """Claims of address, name and port, and all messages to the kernel, as a start has them made.

    All stay until the last is measured, as the others' do: what the kernel does for a namespace that ended would be
    measured with the next one.
    """
    from pyrun import undo
    from pyrun.cli import options, tables
    from pyrun.engine import prepare
    from pyrun.stages import network

    taken_ms = []
    gc.disable()
    with ExitStack() as until_the_end:
        for number in range(int(times) + NOT_COUNTED):
            words = ["-d", "-p", f"{int(port) + number}:80", "busybox", "true"]
            given, _ = options.parse(tables.VERBS["run"], words)
            request = prepare.request(given, {})
            request.name = f"bench-stage-{number}"
            pid = until_the_end.enter_context(namespace())
            began = time.perf_counter_ns()
            network.check(request)
            planned = network.plan(request, network.claim(request))
            network.outside(planned, pid)
            taken_ms.append((time.perf_counter_ns() - began) / 1e6)
            until_the_end.callback(undo.replay_lines, planned.undo)
            # A start leaves it to its monitor to close this: closing waits for what others delete.
            if planned.claimed.netfilter is not None:
                until_the_end.callback(planned.claimed.netfilter.close)
                planned.claimed.netfilter = None
    return taken_ms[NOT_COUNTED:]


def first(address: str, port: str) -> float:
    """The first packet to somebody: what is lost comes again after a second."""
    with socket.socket() as sock:
        sock.settimeout(LOST_MS / 1000)
        began = time.perf_counter_ns()
        try:
            sock.connect((address, int(port)))
        except ConnectionRefusedError:
            pass
        except TimeoutError:
            return LOST_MS
        return (time.perf_counter_ns() - began) / 1e6


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
