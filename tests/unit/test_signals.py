"""signals.py: names and numbers, as `kill -s` and a container's stop signal take them."""

from __future__ import annotations

import os
import signal

import pytest

from pyrun import signals
from pyrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("term", 15),
        ("15", 15),
        ("KILL", 9),
        ("64", 64),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMIN+30", 64),
        ("RTMAX", 64),
        ("RTMAX-2", 62),
        ("CHLD", 17),
    ],
)
def test_number(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "+9", "9.0", "FOO", "SIG", "_DFL", "SIG_IGN", "RTMIN+31", "RTMAX+1", "RTMIN-1", "RTMIN+",
     "TERM+1", "٩", "TERM ", "SIGSIGTERM", "BLOCK"],
)  # fmt: skip
def test_no_such_signal(text: str) -> None:
    with pytest.raises(UsageError, match="unknown signal"):
        signals.number(text)


def test_every_signal_of_this_system_has_its_number() -> None:
    for each in signal.Signals:
        assert signals.number(each.name) == each.value
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD, signal.SIGIO):
        assert signals.name(each.value) == each.name


def test_a_number_without_a_name() -> None:
    assert signals.name(40) == "40"


def test_die_of_is_seen_by_the_parent() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            signals.die_of(signals.PIPE)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGPIPE
