"""A segment of its own beside the lab host, for tests of what goes beside a card: a veth whose far end answers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CARD, FAR, HOST, GATEWAY = "lan1", "segment", "192.168.50.2", "192.168.50.1"


def shell(*lines: str) -> str:
    """Commands of the host's, all of which must work; what they print."""
    done = subprocess.run(["sh", "-ec", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{lines}: {done.stdout}{done.stderr}"
    return done.stdout


def pings(address: str, at: str = "") -> bool:
    """Whether *address* answers the host, or the network namespace *at*."""
    words = [*(["ip", "netns", "exec", at] if at else []), "ping", "-c1", "-W1", address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextmanager
def segment(*, bridged: bool = False) -> Iterator[None]:
    """The card, the machine behind it, and the host's address: on the card or, *bridged*, on a bridge that holds it."""
    holder = "br0" if bridged else CARD
    shell(
        f"ip netns add {FAR}",
        f"ip link add {CARD} type veth peer name far netns {FAR}",
        f"ip -n {FAR} addr add {GATEWAY}/24 dev far",
        f"ip -n {FAR} link set far up",
        *(
            [f"ip link add br0 type bridge; ip link set br0 up; ip link set {CARD} master br0"]
            if bridged
            else []
        ),
        f"ip addr add {HOST}/24 dev {holder}",
        f"ip link set {CARD} up",
    )
    try:
        yield
    finally:
        for words in (["link", "delete", CARD], ["link", "delete", "br0"], ["netns", "delete", FAR]):
            subprocess.run(["ip", *words], capture_output=True, check=False)
