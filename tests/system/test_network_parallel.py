"""Two hundred starts and stops side by side on one network: no address and no port is anybody's twice.

Starts alone are in test_parallel.py; here containers end at the same time, so that what one gives up the next one gets.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import hostile
import ruleset
from command import Pyrun

STARTS, AT_A_TIME = 200, 10

pytestmark = pytest.mark.timeout(240)


class Ledger:
    """Who has what at this moment; `twice` is what somebody got while another had it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: dict[str, str] = {}
        self.twice: list[str] = []
        self.given: Counter[str] = Counter()

    def take(self, things: list[str], name: str) -> None:
        with self.lock:
            self.twice += [
                f"{thing}: {self.held[thing]} and {name}" for thing in things if thing in self.held
            ]
            self.held |= dict.fromkeys(things, name)
            self.given.update(things)

    def give(self, things: list[str]) -> None:
        with self.lock:
            for thing in things:
                self.held.pop(thing, None)


def test_starts_and_stops_side_by_side(pyrun: Pyrun) -> None:
    """A small subnet, so that addresses come round; each container says itself which it has."""
    pyrun.ok("network", "create", "--ipv6", "--subnet=192.0.2.0/27", "yard")
    ledger, rules = Ledger(), ruleset.whole()

    def live(number: int) -> str:
        name = f"c{number:03d}"
        words = (
            "-d",
            "--name",
            name,
            "--network=yard",
            "-p",
            "80",
            "-p",
            "53/udp",
            "busybox",
            "sleep",
            "100",
        )
        identifier = pyrun.ok("run", *words)
        record = json.loads((pyrun.root / "containers" / identifier / "container.json").read_text())
        (wire,) = record["networks"]
        things = [wire["address"], wire["address6"], wire["link"]]
        things += [f"{host}:{port}/{kind}" for host, port, _, kind in record["ports"]]
        ledger.take(things, name)
        inside = pyrun.ok("exec", name, "ip", "-o", "addr", "show", "eth0") if number % 5 == 0 else ""
        ledger.give(things)
        pyrun.ok("rm", "-f", name)
        wrong = inside and f"{wire['address']}/" not in inside
        return f"{name}: {wire['address']}, inside: {inside}" if wrong else ""

    began = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        wrong = [text for text in pool.map(live, range(STARTS)) if text]
    print(f"\n{STARTS} starts and stops in {time.monotonic() - began:.0f} s")
    assert not wrong and not ledger.twice
    addresses = {thing: times for thing, times in ledger.given.items() if thing.startswith("192.0.2.")}
    assert sum(addresses.values()) == STARTS and max(addresses.values()) > 3, "no address came round"
    assert not hostile.stored(pyrun)
    assert ruleset.whole() == rules
    assert pyrun.ok("network", "reload") == "nothing was missing"
