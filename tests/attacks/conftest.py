"""Fixtures of the attack tests: canaries, the attacker's program, and arenas for the OCI command line.

An arena makes containers of one runtime: pyrun-oci, a weakened pyrun-oci, or an old peer. All it makes, canaries too,
is on a tmpfs of the lab host, which goes with it: nothing else is in reach of whoever falls for an attack.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import capabilities
import hostile
import weakened
from command import Pyrun
from oci import runtime as runtimes
from oci.box import Box, Done, make_root
from waiting import soon
from yard import LAN6, Yard, compile_frames, run

WORK = Path("/run/pyrun-attacks")
_numbers = itertools.count(1)


@pytest.fixture
def canary(tmp_path: Path) -> hostile.Canary:
    return hostile.Canary(tmp_path / "canary")


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.compile_attacker(tmp_path_factory.mktemp("attacker"))


@pytest.fixture(scope="session")
def frames_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What sends frames from inside (frames.c)."""
    return compile_frames(tmp_path_factory.mktemp("frames"))


class Arena:
    """Containers of one runtime, and the canary they must not reach. `box()` is a fresh bundle."""

    def __init__(self, runtime: runtimes.Runtime, directory: Path, template: Path) -> None:
        self.runtime = runtime
        self.directory = directory
        self.template = template
        self.canary = hostile.Canary(directory / "canary")
        self.boxes: list[Box] = []

    def box(self) -> Box:
        name = f"attack-{os.getpid()}-{next(_numbers)}"
        box = Box(self.runtime, self.directory / name, self.template, name)
        self.boxes.append(box)
        return box

    def go(self, box: Box, verb: str, *args: str, **keywords: object) -> Done:
        """Run *args* to their end by `run`, or by `create` and `start`; the container's output is in the result."""
        box.write(*args)
        if verb == "run":
            return box.call("run", "--bundle", str(box.bundle), box.id, **keywords)  # type: ignore[arg-type]
        done = box.call("create", "--bundle", str(box.bundle), box.id, **keywords)  # type: ignore[arg-type]
        output = box.directory / f"{box._calls}.out"
        if done.status == 0:
            started = box.call("start", box.id)
            soon(lambda: started.status or box.state()["status"] == "stopped", 10)
            done = Done(started.status, output.read_text(errors="replace"), started.err)
        box.call("delete", "--force", box.id)
        return done

    def shown(self, box: Box, verb: str, *args: str, options: Sequence[str] = (), **keywords: object) -> str:
        """What *args* print by *verb*: as the container's process, or by `exec`, with *options*, beside it.

        keywords: those of Box.call.
        """
        if verb != "exec":
            return self.go(box, verb, *args, **keywords).out
        box.detach(**keywords)
        return box.exec(*args, options=options, **keywords)

    def on_a_terminal(self, box: Box, *args: str) -> str:
        """What `run` of a config with a terminal prints there."""
        box.process["terminal"] = True
        box.write(*args)
        command = box.runtime.command(box.root, ("run", "--bundle", str(box.bundle), box.id))
        return hostile.on_a_terminal(command, dict(os.environ))

    def harm(self) -> list[str]:
        """What is not as it was: of the canary, and mounts of the host on or from it."""
        before, after = self.canary.before, self.canary.picture()
        harm = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return sorted(harm) + [line for line in mounts if str(self.canary.directory) in line]

    def close(self) -> None:
        """What a weakened build has lost sight of ends too: by its cgroup, which bears the box's name."""
        for box in self.boxes:
            box.close()
            for path in Path("/proc").glob("[0-9]*/cgroup"):
                with contextlib.suppress(OSError):  # gone meanwhile
                    if f"/{box.id}\n" in path.read_text():
                        os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.fixture(scope="session")
def lab_tmpfs(lab: None) -> Iterator[Path]:
    WORK.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "attacks", str(WORK)], check=True)
    make_root(WORK / "template", "/bin/busybox")
    yield WORK
    subprocess.run(["umount", "--lazy", str(WORK)], check=True)
    WORK.rmdir()


@pytest.fixture
def arena_of(lab_tmpfs: Path) -> Iterator[Callable[[runtimes.Runtime], Arena]]:
    """`arena_of(runtime)`."""
    made: list[Arena] = []

    def make(runtime: runtimes.Runtime) -> Arena:
        made.append(Arena(runtime, lab_tmpfs / f"arena{next(_numbers)}", lab_tmpfs / "template"))
        return made[-1]

    yield make
    for arena in made:
        arena.close()
        subprocess.run(["rm", "-rf", str(arena.directory)], check=False)


@pytest.fixture
def arena(arena_of: Callable[[runtimes.Runtime], Arena]) -> Arena:
    """pyrun-oci as it is installed."""
    found = runtimes.find("pyrun-oci")
    assert found, "pyrun-oci is not installed in this environment"
    return arena_of(found)


@pytest.fixture(scope="session")
def weak_installation(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`weak_installation(*changes)`: a pyrun-oci without a protection, see weakened.py; made once."""
    made: dict[tuple[weakened.Change, ...], Path] = {}

    def get(*changes: weakened.Change) -> Path:
        if changes not in made:
            made[changes] = weakened.install(tmp_path_factory.mktemp("weak") / "env", *changes)
        return made[changes]

    return get


@pytest.fixture
def weak(
    arena_of: Callable[[runtimes.Runtime], Arena], weak_installation: Callable[..., Path]
) -> Callable[..., Arena]:
    """`weak(*changes)`: an arena of such an installation."""
    return lambda *changes: arena_of(runtimes.Runtime("pyrun-oci", str(weak_installation(*changes)), (9,)))


@pytest.fixture
def old(arena_of: Callable[[runtimes.Runtime], Arena]) -> Callable[[str, tuple[int, ...]], Arena]:
    """`old("runc", (1, 1, 5))`: an arena of a peer that is not newer; without one the test is skipped."""

    def find(name: str, newest: tuple[int, ...]) -> Arena:
        found = runtimes.find(name)
        if not found or found.version > newest:
            pytest.skip(capabilities.INAPPLICABLE[f"old {name}"])
        return arena_of(found)

    return find


# ── the network ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def yard(pyrun: Pyrun, frames_program: Path) -> Yard:
    return Yard(pyrun, frames_program)


@pytest.fixture
def routed(yard: Yard, internet: SimpleNamespace) -> Iterator[None]:
    """The neighbour knows the way to the network, by IPv4 and IPv6."""
    neighbour = lambda *words: internet.at("neighbour", "ip", *words)  # noqa: E731
    run("ip", "address", "add", f"{LAN6}2/64", "dev", "eth0", "nodad")
    neighbour("address", "add", f"{LAN6}3/64", "dev", "eth0", "nodad")
    neighbour("route", "add", yard.subnet, "via", internet.host)
    neighbour("-6", "route", "add", yard.subnet6, "via", f"{LAN6}2")
    yield
    neighbour("route", "delete", yard.subnet)
    neighbour("-6", "route", "delete", yard.subnet6)
    neighbour("address", "delete", f"{LAN6}3/64", "dev", "eth0")
    run("ip", "address", "delete", f"{LAN6}2/64", "dev", "eth0")
