"""`pyrun logs`: which lines, how long it follows, a reader that leaves."""

from __future__ import annotations

import signal

from command import Pyrun
from detached import POLITE, begin, listed


def test_logs_options(pyrun: Pyrun) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done; printf end"
    pyrun.ok("run", "--name", "job", "--net=none", "busybox", "sh", "-c", script)
    done = pyrun("logs", "job")
    assert (done.stdout, done.stderr) == ("out 1\nout 2\nout 3\nend", "err 1\nerr 2\nerr 3\n")
    assert pyrun("logs", "-n", "1", "job").stdout == "end"
    stamp, _, text = pyrun.ok("logs", "-t", "--tail=1", "job").partition(" ")
    assert text == "end" and stamp.startswith("20") and stamp.endswith("Z") and len(stamp) == 30
    assert pyrun("logs", "--since", "10m", "job").stdout == done.stdout
    assert pyrun("logs", "--until", "10m", "job").stdout == ""
    assert "needs a number" in pyrun.fails(1, "logs", "--tail", "few", "job")


def test_logs_follow_until_the_end(pyrun: Pyrun) -> None:
    begin(pyrun, "web")
    follower = pyrun.start("logs", "-f", "web")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    pyrun.ok("stop", "web")
    assert follower.stdout.read() == "bye\n"
    assert follower.wait(5) == 0


def test_logs_follow_survives_removal(pyrun: Pyrun) -> None:
    begin(pyrun, "web", POLITE, "--rm")
    follower = pyrun.start("logs", "-f", "web")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    pyrun.ok("stop", "web")
    assert follower.stdout.read() == "bye\n"
    assert follower.wait(5) == 0
    assert listed(pyrun) == {}


def test_a_reader_that_has_seen_enough(pyrun: Pyrun) -> None:
    """As with any other command, `pyrun logs | head -1` ends by SIGPIPE, silently."""
    pyrun.ok("run", "--name", "job", "--net=none", "busybox", "seq", "30000")
    reader = pyrun.start("logs", "job")
    assert reader.stdout is not None and reader.stderr is not None
    assert reader.stdout.readline() == "1\n"
    reader.stdout.close()
    assert reader.wait(5) == -signal.SIGPIPE
    assert reader.stderr.read() == ""
