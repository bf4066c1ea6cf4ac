"""Hostile packets where init's messages are expected: the planner's decoder (handshake.py) and what is made of them.

init is ours until it execs, so nobody should be able to send these; whoever can all the same gets one line of error
out of the planner, no traceback, no descriptor that stays open, and no endless wait.
"""

from __future__ import annotations

import array
import os
import random
import socket
import time

import pytest

from pyrun import handshake, verdict
from pyrun.errors import PyrunError
from pyrun.plan.operations import Operation
from pyrun.safe import visible

OPERATIONS = [
    Operation("CGROUP_JOIN", "/x"),
    Operation("MOUNT", "/proc", "proc", "proc", 0, ""),
    Operation("EXECUTE", "sh"),
]
WORDS = (b"", b"0", b"1", b"2", b"13", b"-1", b"-99", b"99999999999999999999", "²".encode(), b"1_0", b" ", b"\xff\xfe",
         b"\0", b"a" * 900, b"\n", b"\x1b[2J", b"\t7", b"0x10", b"2147483648")  # fmt: skip
LETTERS = b"GWCRFTN\0F FF\xff"


def packet(chance: random.Random) -> bytes:
    letter = bytes([chance.choice(LETTERS)]) if chance.random() < 0.95 else b""
    return (letter + b" ".join(chance.choices(WORDS, k=chance.randrange(4))))[:2000]


def deliver(packets: list[bytes], passed: int) -> str:
    """Let the planner read *packets*, each with *passed* descriptors; returns its error, or nothing."""
    ours, inits_fd = handshake.pair()
    inits = socket.socket(fileno=inits_fd)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for each in packets:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * passed))] if passed else []
        inits.sendmsg([each], rights)
    os.close(null)
    inits.close()
    outcome = handshake.Outcome()
    try:
        verdict.judge(OPERATIONS, handshake.wait(ours, outcome), oci=False, run_dir="", groups=[])
    except PyrunError as error:
        return visible(f"{error.message} {error.hint}")  # as cli/ prints it
    finally:
        os.close(ours)
        if outcome.tty_fd >= 0:
            assert not os.get_inheritable(outcome.tty_fd)
            os.close(outcome.tty_fd)
    assert outcome.ready or outcome.created
    return ""


def test_any_packets(random_seed: int, seconds: float) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for seed in (1, random_seed):
        chance = random.Random(seed)
        deadline, count = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            packets = [packet(chance) for _ in range(chance.randrange(1, 5))]
            said = deliver(packets, chance.choice((0, 0, 0, 1, 1, 3)))
            assert said.isprintable() and len(said) < 2500, (packets, said)
            count += 1
        assert count > 100
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "words", [b"F", b"F1", b"Fx 1 y", b"F-5 2 y", b"F1 99999999999 y", "F² ² y".encode()]
)
def test_failures_that_are_none(words: bytes) -> None:
    assert "protocol error" in deliver([words], 0).lower()


def test_a_failure_as_init_sends_it() -> None:
    assert "cannot" in deliver([b"F1 2 proc/x"], 0)
    assert deliver([b"R"], 0) == ""
