"""Cgroups on the kernel itself: made, filled, frozen, emptied; device rules exchanged under a process.

On a host with v1 controllers the unified hierarchy is there too, without controllers: what v2 has beside them
(cgroup.freeze, cgroup.events, device programs) is tried in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import capabilities
from pyrun import device_rules
from pyrun.cgroups import devices, failures, files, freezer, layout, oom, processes, rootless, update
from pyrun.errors import Conflict, PyrunError, UsageError
from waiting import until

pytestmark = pytest.mark.lab
NAME = f"kernel-test-{os.getpid()}"


class Place:
    """A cgroup of the test's own in each hierarchy."""

    def __init__(self) -> None:
        self.hierarchies = layout.layout()
        self.groups = layout.directories(self.hierarchies, f"/{NAME}")
        self.children: list[subprocess.Popen[bytes]] = []

    def make(self) -> None:
        """As a start does, which is a process of its own: what it claims is free with its end. Raises Conflict."""
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._make()
                os._exit(0)
            except Conflict as error:
                os.write(write_fd, error.message.encode())
                os._exit(0)
            finally:
                os._exit(1)
        os.close(write_fd)
        with os.fdopen(read_fd) as said:
            message = said.read()
        assert os.waitpid(pid, 0)[1] == 0
        if message:
            raise Conflict(message)

    def _make(self) -> None:
        for (names, directory), (_, mount, _) in zip(self.groups, self.hierarchies, strict=True):
            files.make(
                directory, mount, names if layout.is_v2(self.hierarchies) or names != "unified" else ""
            )

    def of(self, controller: str) -> Path:
        """The directory of a controller's hierarchy; v2's for all of them."""
        found = {name: directory for names, directory in self.groups for name in names.split(",")}
        return Path(found["unified"] if layout.is_v2(self.hierarchies) else found[controller])

    def only(self, *controllers: str) -> list[layout.Group]:
        return [group for group in self.groups if set(group[0].split(",")) & set(controllers)]

    def run(self, command: str, *where: Path) -> subprocess.Popen[bytes]:
        """A shell in these cgroups (all of them without any)."""
        procs = [f"{directory}/cgroup.procs" for directory in (where or [d for _, d in self.groups])]

        def join() -> None:
            os.setpgid(0, 0)
            for path in procs:
                with open(path, "w") as file:
                    file.write("0")

        child = subprocess.Popen(["sh", "-c", command], preexec_fn=join, stdout=subprocess.PIPE)
        self.children.append(child)
        return child

    def close(self) -> None:
        freezer.thaw(self.groups)
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait(10)
            if child.stdout:
                child.stdout.close()
        for _, directory in self.groups:
            for path in [*sorted(Path(directory).rglob("*"), reverse=True), Path(directory)]:
                if path.is_dir():
                    until(partial(removed, path))


def removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def ticks(child: subprocess.Popen[bytes]) -> int:
    """How much processor time it has had."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


# ── making ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_cgroup_that_is_lived_in_is_not_taken(place: Place) -> None:
    place.make()
    place.make()  # an empty one is
    place.run("sleep 100")
    until(lambda: processes.all_of(place.groups))
    with pytest.raises(Conflict, match=r"is not empty: .*: [12] process"):
        place.make()


def test_a_frozen_cgroup_is_not_taken(place: Place) -> None:
    place.make()
    freezer.freeze(place.groups)
    with pytest.raises(Conflict, match=r"is frozen"):
        place.make()


@pytest.mark.needs("cgroup1")
def test_a_cpuset_below_one_that_is_not_filled_yet(place: Place) -> None:
    """Two first starts at once: one has made the cgroup above both, and the other is faster than its filling."""
    above = place.of("cpuset")
    os.mkdir(above)
    assert not (above / "cpuset.cpus").read_text().strip()
    files.make(f"{above}/below", "/sys/fs/cgroup/cpuset", "cpuset")
    try:
        for file in ("cpuset.cpus", "cpuset.mems"):
            assert (above / "below" / file).read_text() == (above.parent / file).read_text() != "\n"
    finally:
        os.rmdir(above / "below")
        os.rmdir(above)


@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize("inherits", ["1", "0"])
def test_a_cpuset_below_one_of_ours(place: Place, inherits: str) -> None:
    """What we make above a container's has the kernel fill it; one that is there may not, and is left as it is."""
    above = place.of("cpuset")
    if inherits == "0":
        os.mkdir(above)
    files.make(f"{above}/below", "/sys/fs/cgroup/cpuset", "cpuset")
    try:
        assert (above / "cgroup.clone_children").read_text().strip() == inherits
        for file in ("cpuset.cpus", "cpuset.mems"):
            assert (above / "below" / file).read_text() == (above.parent / file).read_text() != "\n"
    finally:
        os.rmdir(above / "below")
        os.rmdir(above)


@pytest.mark.needs("cgroup1")
def test_a_new_cpuset_can_be_joined(place: Place) -> None:
    place.make()
    directory = place.of("cpuset")
    assert (directory / "cpuset.cpus").read_text() == (directory.parent / "cpuset.cpus").read_text()
    assert (directory / "cpuset.mems").read_text().strip()


@pytest.mark.needs("cgroup1")
def test_a_kernel_without_the_file(place: Place) -> None:
    place.make()
    path = f"{place.of('cpu')}/cpu.no_such_file"
    with pytest.raises(
        UsageError,
        match=r"linux.resources.cpu.x: cannot set '1': this kernel's cpu controller has no file cpu.no_such",
    ):
        files.write(path, "1", "cpu.x")
    files.write(path + "?", "1", "cpu.x")


def test_a_value_the_kernel_refuses_is_named_with_its_field(place: Place) -> None:
    place.make()
    with pytest.raises(UsageError, match=r"linux.resources.pids.limit: cannot write '-7' to .*pids.max: "):
        files.write(f"{place.of('pids')}/pids.max", "-7", "pids.limit")


@pytest.mark.needs("cgroup2")
def test_processes_in_a_parent_keep_it_from_handing_controllers_down(place: Place) -> None:
    place.make()
    directory = place.of("unified")
    place.run("sleep 100")
    until(lambda: processes.all_of(place.groups))
    files.make(f"{directory}/below", str(directory.parent), "unified")
    with pytest.raises(UsageError, match=r"has processes of its own.*no internal processes"):
        files.write(f"{directory}/below/memory.max", "5000000", "memory.limit")


@pytest.mark.needs("cgroup2")
def test_controllers_are_handed_down_through_parents_of_others(place: Place) -> None:
    """A slice somebody made without them."""
    place.make()
    below = place.of("unified") / "slice" / "box"
    below.mkdir(parents=True)
    assert failures.controllers(str(below)) == []
    files.write(f"{below}/pids.max", "5", "pids.limit")
    assert (below / "pids.max").read_text() == "5\n"


@pytest.mark.needs("cgroup2")
def test_an_unknown_controller_in_unified(place: Place) -> None:
    place.make()
    path = f"{place.of('unified')}/nonsense.max"
    with pytest.raises(
        UsageError, match=r"linux.resources.unified: nonsense.max: needs the nonsense controller"
    ):
        files.write(path, "1", "unified: nonsense.max")


def test_giving_a_cgroup_away(place: Place, tmp_path: Path) -> None:
    """The directory and what the kernel lists; names it does not have are passed over."""
    place.make()
    directory = Path(dict(place.groups)["unified"])
    (tmp_path / "delegate").write_text(
        "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\nmemory.no_such\n"
    )
    rootless.chown(str(directory), 1234, str(tmp_path / "delegate"))
    owned = {path.name for path in directory.iterdir() if path.stat().st_uid == 1234}
    assert owned == {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
    assert directory.stat().st_uid == 1234


def test_a_parent_goes_only_when_nobody_is_in_it(place: Place, binary: Path, tmp_path: Path) -> None:
    """The undo list's rmdir-empty: at once, and without a complaint about others."""
    place.make()
    parents = [directory for _, directory in place.groups]
    for directory in parents:
        os.mkdir(f"{directory}/other")
    (tmp_path / "list").write_text(
        "".join(f"rmdir-empty\t{path}\n" for path in [*parents, f"{tmp_path}/gone"])
    )
    for there in (True, False):
        began = time.monotonic()
        done = subprocess.run(
            ["pyrun-undo", tmp_path / "list"], executable=binary, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - began < 1
        assert [Path(path).exists() for path in parents] == [there] * len(parents)
        for directory in parents if there else ():
            os.rmdir(f"{directory}/other")


# ── freezing ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_nobody_runs_while_frozen(place: Place, kind: str) -> None:
    place.make()
    groups = place.only("freezer" if kind == "v1" else "unified")
    if not groups:
        pytest.skip(capabilities.missing("cgroup1" if kind == "v1" else "unified"))
    child = place.run("while :; do :; done")
    until(lambda: ticks(child) > 3)
    freezer.freeze(groups)
    assert freezer.is_frozen(groups)
    before = ticks(child)
    time.sleep(0.2)  # of which it gets nothing
    assert ticks(child) - before <= 1
    freezer.thaw(groups)
    assert not freezer.is_frozen(groups)
    until(lambda: ticks(child) > before + 5)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_freezing_while_processes_keep_being_born(place: Place, kind: str) -> None:
    place.make()
    groups = place.only("freezer" if kind == "v1" else "unified")
    if not groups:
        pytest.skip(capabilities.missing("cgroup1" if kind == "v1" else "unified"))
    for _ in range(3):
        place.run("while :; do (:); done")
    for _ in range(10):
        freezer.freeze(groups)
        before = set(processes.all_of(groups))
        time.sleep(0.01)  # in which none appears or ends
        assert set(processes.all_of(groups)) == before
        freezer.thaw(groups)


def test_a_cgroup_above_that_is_frozen_does_not_count(place: Place) -> None:
    place.make()
    groups = place.only("freezer") or place.only("unified")
    below = [(names, f"{directory}/below") for names, directory in groups]
    os.mkdir(below[0][1])
    freezer.freeze(groups)
    assert not freezer.is_frozen(below)
    freezer.thaw(groups)


def test_thawing_what_is_gone(place: Place) -> None:
    freezer.thaw(place.groups)
    freezer.thaw([])
    assert not freezer.is_frozen(place.groups)
    with pytest.raises(PyrunError, match=r"no cgroup with a freezer"):
        freezer.freeze([])


# ── devices ────────────────────────────────────────────────────────────────────────────────────────

BEFORE = ["deny a", "allow c 1:3 rwm"]
AFTER = ["deny a", "allow c 1:5 rwm"]


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_new_device_rules_take_the_place_of_the_old(place: Place, kind: str) -> None:
    """Again and again, and only ours: a program of somebody else's (systemd's) stays."""
    place.make()
    groups = place.only("devices" if kind == "v1" else "unified")
    if not groups:
        pytest.skip(capabilities.missing("cgroup1" if kind == "v1" else "unified"))
    directory = groups[0][1]
    device_rules.apply(directory, *BEFORE)
    for old, new in ((BEFORE, AFTER), (AFTER, BEFORE), (BEFORE, BEFORE), (BEFORE, AFTER)):
        devices.replace(groups, old, new)
    script = "for d in null zero; do (: </dev/$d) 2>&- && echo $d; done; true"
    child = place.run(script, Path(directory))
    assert child.communicate()[0] == b"zero\n"
    if kind == "v2":
        group_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        assert len(devices.attached(group_fd)) == 1
        os.close(group_fd)


# ── memory ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_kill_for_memory_is_heard_of(place: Place) -> None:
    place.make()
    limit = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    update.apply(place.groups, limit)
    watch = oom.Watch(place.groups)
    place.run("sleep 100")
    assert watch.wait(0) == 0
    place.run("/usr/bin/python3 -c 'a = bytearray(64 << 20)'")
    until(lambda: watch.wait(1), timeout_s=60)  # it may wake up for less: the limit was only reached
    assert not watch.over()
    watch.close()


def test_the_end_is_heard_of(place: Place) -> None:
    place.make()
    child = place.run("exec sleep 100")
    until(lambda: processes.all_of(place.groups))
    watch = oom.Watch(place.groups)
    threading.Timer(0.3, lambda: os.killpg(child.pid, signal.SIGKILL)).start()
    threading.Timer(0.3, child.wait).start()
    began = time.monotonic()
    while not watch.over():
        watch.wait(1)
        assert time.monotonic() - began < 10
    watch.close()


@pytest.mark.parametrize("steps", [[(64, 128), (32, 48), (256, 512), (-1, 0), (16, 16)]])
def test_memory_and_swap_up_and_down(place: Place, steps: list[tuple[int, int]]) -> None:
    """Whichever order the kernel wants them in."""
    place.make()
    v2 = layout.is_v2(place.hierarchies)
    for limit, swap in steps:
        given = {
            key: value if value < 0 else value << 20
            for key, value in (("limit", limit), ("swap", swap))
            if value
        }
        update.apply(place.groups, {"memory": given})
        file = place.of("memory") / ("memory.max" if v2 else "memory.limit_in_bytes")
        found = file.read_text().strip()
        assert found == str(limit << 20) if limit > 0 else not found.isdecimal() or int(found) > 1 << 60


@pytest.mark.needs("cgroup1")
def test_a_failed_update_takes_back_what_it_wrote(place: Place) -> None:
    place.make()
    update.apply(place.groups, {"pids": {"limit": 7}, "cpu": {"quota": 5000, "period": 10000}})
    with pytest.raises(UsageError, match=r"linux.resources.cpu.burst"):
        update.apply(place.groups, {"pids": {"limit": 9}, "cpu": {"quota": 6000, "burst": 900000}})
    assert (place.of("pids") / "pids.max").read_text() == "7\n"
    assert (place.of("cpu") / "cpu.cfs_quota_us").read_text() == "5000\n"


@pytest.mark.needs("cgroup1")
def test_a_limit_below_what_is_in_use(place: Place) -> None:
    place.make()
    child = place.run(
        "/usr/bin/python3 -c 'a = bytearray(32 << 20); print(1, flush=True); import time; time.sleep(100)'"
    )
    assert child.stdout
    child.stdout.readline()
    with pytest.raises(
        UsageError, match=r"memory.limit: must be more than what is in use \(\d+, at most \d+\), not"
    ):
        update.apply(place.groups, {"memory": {"limit": 1 << 20}})
