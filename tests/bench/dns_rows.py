"""The rows of the resolver: how many names a second, how late the latest, and what it costs with 50 networks.

Networks, leases and the askers' namespaces are made by hand (tests/name_server.py), on the lab host: what is measured
is the guard and the resolver as they are installed, asked over a bridge. Two askers, so that the resolver and not the
client is what is full. Not here: containers; Docker's resolver, which every container has one of.
"""

from __future__ import annotations

import posix
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import memory
from contenders import Peers
from hyperfine import Effort
from rows import Figure, Row

sys.path.append(str(Path(__file__).resolve().parents[1]))
from name_server import Inside, Networks
from waiting import until

NETWORKS, LEASES, NAMES = 50, 200, 100
LEAST_A_SECOND, P99_MS, ALL_KB = 3000, 2.0, 16_000
GATEWAY = "10.53.0.1"
SECONDS = 4.0

# What an asker does: many questions under way at once, or one every millisecond. Prints a number.
ASKER = """
import select, socket, sys, time
how, seconds, server, names = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def question(number):
    name = b"w%d" % (number % names)
    head = (number & 0xffff).to_bytes(2, "big") + b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0"
    return head + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1"

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.connect((server, 53))
if how == "rate":
    messages = [question(number) for number in range(1000)]
    answered, end = 0, time.monotonic() + seconds
    for number in range(16):
        sock.send(messages[number])
    while time.monotonic() < end:
        data = sock.recv(600)
        assert data[3] & 15 == 0 and data[7] == 1, data
        answered += 1
        sock.send(messages[answered % 1000])
    print(answered / seconds)
else:
    taken, began = [], time.perf_counter()
    for number in range(int(seconds * 1000)):
        while time.perf_counter() < began + number / 1000:
            time.sleep(0.0001)
        message = question(number)
        sent = time.perf_counter()
        sock.send(message)
        while sock.recv(600)[:2] != message[:2]:
            pass
        taken.append(time.perf_counter() - sent)
    print(sorted(taken)[int(len(taken) * 0.99)] * 1000)
"""


@contextmanager
def fifty_networks() -> Iterator[dict[str, int]]:
    """Fifty networks, two hundred names on one of them, two askers there; afterwards the guard is gone."""
    from contenders import WORK

    from pyrun.network import guard

    WORK.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="dns-", dir=WORK))
    posix.environ[b"PYRUN_RUNROOT"] = str(run).encode()
    made = Networks(run, links=True)
    try:
        gateways = [made.network(f"b{number}", f"10.53.{number}.1") for number in range(NETWORKS)]
        for number in range(LEASES):
            made.lease("b0", f"10.53.0.{number + 2}", f"{number:064d}", f"name w{number}", "alias all")
        for number in range(2):
            made.namespace(f"ask{number}", "b0", f"10.53.0.{number + 2}")
        guard.need(gateways)
        yield guard.status()
    finally:
        made.close()
        until(lambda: not guard.status(), timeout_s=5)
        posix.environ.pop(b"PYRUN_RUNROOT", None)
        shutil.rmtree(run, ignore_errors=True)


def _asked(who: int, how: str, seconds: float) -> subprocess.Popen[str]:
    words = ["nsenter", f"--net={Inside(f'ask{who}').path}", sys.executable, "-I", "-S", "-c", ASKER, how]
    words += [str(seconds), GATEWAY, str(NAMES)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def _result(asker: subprocess.Popen[str]) -> float:
    output, _ = asker.communicate(timeout=60)
    if asker.returncode:
        raise RuntimeError("an asker was not answered")
    return float(output)


def rate_row(_: Peers, effort: Effort) -> list[Figure]:
    """Names a second, of two askers together; told as the time of one."""
    seconds = min(SECONDS, effort.budget_s / 3)
    with fifty_networks():
        Inside("ask0").ask(GATEWAY, "w1")
        askers = [_asked(who, "rate", seconds) for who in range(2)]
        a_second = sum(map(_result, askers))
    what = f"a name from the resolver, {NETWORKS} networks, {LEAST_A_SECOND:,} a second wanted"
    figure = Figure(what, unit="us", ours=1e6 / a_second, limit=1e6 / LEAST_A_SECOND)
    figure.notes = [f"{a_second:,.0f} a second"]
    return [figure]


def latency_row(_: Peers, effort: Effort) -> list[Figure]:
    """The 99th percentile of one asker's wait at a thousand a second."""
    seconds = min(SECONDS, effort.budget_s / 3)
    with fifty_networks():
        Inside("ask0").ask(GATEWAY, "w1")
        p99_ms = _result(_asked(0, "pace", seconds))
    what = "99 of 100 names at 1,000 a second are there within"
    return [Figure(what, ours=p99_ms, limit=P99_MS)]


def memory_row(_: Peers, __: Effort) -> list[Figure]:
    """The PSS of the guard and its spare before anybody asks, and of all three after thousands of names."""
    with fifty_networks() as before:
        alone = memory.pss({before["pid"], before["spare"]})
        for number in range(LEASES):
            Inside("ask0").ask(GATEWAY, f"w{number}")
        _result(_asked(0, "rate", 1.0))
        time.sleep(0.2)
        from pyrun.network import guard

        after = guard.status()
        both = memory.pss({after["pid"], after["spare"], after["resolver"]})
    kb = [float(sum(amount for _, amount in found.values())) for found in (alone, both)]
    notes = [f"{name} {amount}" for name, amount in both.values()]
    return [
        Figure(f"memory of {NETWORKS} networks' names while nobody asks", unit="kB", ours=kb[0], limit=400),
        Figure(
            f"memory of all resolvers, {NETWORKS} networks", unit="kB", ours=kb[1], limit=ALL_KB, notes=notes
        ),
    ]


ROWS: dict[str, Row] = {"dns-rate": rate_row, "dns-latency": latency_row, "dns-memory": memory_row}
