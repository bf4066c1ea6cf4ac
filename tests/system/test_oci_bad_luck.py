"""Bad luck: processes that will not end, torn state directories, many at once, others who do not do their part.

Whatever happens, `state` is true, every command ends in time with at most one line, and `delete -f` works and leaves
nothing: every test begins and ends with a picture of the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostile_oci import Oci, Started, message_of, unharmed
from waiting import until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def oci(static_binary: Path, tmp_path: Path) -> Iterator[Oci]:
    yield from unharmed(static_binary, tmp_path)


# ── processes that will not end ────────────────────────────────────────────────────────────────────


def test_a_process_that_ignores_signals(oci: Oci) -> None:
    oci.config["process"]["args"] = [
        "sh",
        "-c",
        "trap '' TERM INT HUP; touch /ready; while :; do sleep 1; done",
    ]
    oci.detach()
    until((oci.rootfs / "ready").exists, "the trap")
    for name in ("TERM", "SIGINT", "1", ""):
        oci.ok("kill", "box", *([name] if name else []))
    time.sleep(0.1)  # in which nothing ends it
    assert oci.state()["status"] == "running"
    assert "is not stopped: running" in message_of(oci("delete", "box"))
    oci.gone()


def test_a_paused_container(oci: Oci) -> None:
    """delete -f ends it; exec is refused; kill KILL ends it, by either way; other signals wait for `resume`."""
    oci.detach()
    oci.ok("pause", "box")
    assert oci.state()["status"] == "paused"
    assert "cannot exec in a paused container" in message_of(oci("exec", "box", "true"))
    assert "is not stopped: paused" in message_of(oci("delete", "box"))
    oci.gone()
    for words in (("kill", "box", "KILL"), ("--debug", "kill", "box", "9"), ("kill", "--all", "box", "KILL")):
        oci.detach()
        oci.ok("pause", "box")
        assert oci(*words).status == 0  # --debug: by the interpreter
        until(lambda: oci.state()["status"] == "stopped", f"the end by {words}", timeout_s=3)
        oci.ok("delete", "box")
    oci.config["process"]["args"] = [
        "sh",
        "-c",
        "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.1; done",
    ]
    oci.detach()
    until((oci.rootfs / "ready").exists, "the trap")
    oci.ok("pause", "box")
    oci.ok("kill", "box", "TERM")
    assert oci.state()["status"] == "paused"
    oci.ok("resume", "box")
    until(lambda: oci.state()["status"] == "stopped", "the end after `resume`")
    oci.ok("delete", "box")


def test_a_container_paused_before_its_start(oci: Oci) -> None:
    oci.create()
    oci.ok("pause", "box")
    starting = oci.start("start", "box")
    time.sleep(0.2)  # by now it waits for what is paused
    oci.gone()
    assert oci.finish(starting, 5).status == 1


def test_a_cgroup_frozen_by_somebody_else(oci: Oci) -> None:
    """Not by `pause`, but the same in effect."""
    oci.detach()
    group = next(place for names, place in saved(oci)["cgroups"] if names in ("freezer", "unified"))
    for file, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
        if (path := Path(group, file)).exists():
            path.write_text(word)
    until(lambda: oci.state()["status"] == "paused", "the freezing")
    oci.gone()


def test_delete_where_systemd_cannot_be_had(oci: Oci) -> None:
    """The container's scope stays systemd's to tidy; everything else goes."""
    oci.detach()
    state = saved(oci) | {"driver": "systemd", "unit": "pyrun-box.scope"}
    (oci.root / "box/state.json").write_text(json.dumps(state))
    (oci.root / "box/quick").unlink()  # `create` with that driver would have it say that there is more to do
    done = oci("delete", "--force", "box")
    assert done.status == 0 and "level=warning" in done.err, done
    assert not (oci.root / "box").exists()


def saved(oci: Oci, name: str = "box") -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = json.loads((oci.root / name / "state.json").read_text())
    return found


@pytest.mark.parametrize("alive", [True, False])
def test_a_cgroup_that_somebody_removed(oci: Oci, alive: bool) -> None:
    """Its processes moved away, then the directories gone."""
    oci.detach()
    pid = oci.state()["pid"]
    if not alive:
        os.kill(pid, signal.SIGKILL)
        until(lambda: oci.state()["status"] == "stopped", "the end")
    for names, place in saved(oci)["cgroups"]:
        if alive:
            Path(place).parent.joinpath("cgroup.procs").write_text(str(pid))
        until(lambda place=place, names=names: removed(place), f"the removal of {names}")
    if alive:
        assert oci.state()["status"] == "running"
        for words in (
            ("pause", "box"),
            ("exec", "box", "true"),
            ("update", "--pids-limit", "5", "box"),
            ("ps", "box"),
        ):
            done = oci(*words)
            assert done.seconds < 3 and (done.status == 0 or message_of(done)), (words, done)
    oci.gone()


def removed(place: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(place)
    return not os.path.exists(place)


@pytest.mark.parametrize("quick", [True, False])
def test_init_killed_between_create_and_start(oci: Oci, quick: bool) -> None:
    oci.create()
    if not quick:
        (oci.root / "box/quick").unlink()
    os.kill(oci.state()["pid"], signal.SIGKILL)
    until(lambda: oci.state()["status"] == "stopped", "the state")
    assert oci.state()["pid"] == 0
    assert "cannot start a container that has stopped" in message_of(oci("start", "box"))
    assert "container not running" in message_of(oci("kill", "box", "KILL"))
    assert "cannot exec in a stopped container" in message_of(oci("exec", "box", "true"))
    oci.ok("delete", "box")


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL", "USR1"])
def test_a_created_container_can_be_killed(oci: Oci, name: str) -> None:
    oci.create()
    oci.ok("kill", "box", name)
    until(lambda: oci.state()["status"] == "stopped", "the state")
    oci.ok("delete", "box")


# ── state directories that are not as they should be ───────────────────────────────────────────────

DAMAGES: dict[str, Callable[[Path], object]] = {
    "state.json torn": lambda where: (where / "state.json").write_text(
        (where / "state.json").read_text()[:40]
    ),
    "state.json empty": lambda where: (where / "state.json").write_text(""),
    "state.json a list": lambda where: (where / "state.json").write_text("[]"),
    "state.json gone": lambda where: (where / "state.json").unlink(),
    "undo gone": lambda where: (where / "undo").unlink(),
    "undo torn": lambda where: (where / "undo").write_text((where / "undo").read_text()[:30]),
    "undo empty": lambda where: (where / "undo").write_text(""),
    "undo nonsense": lambda where: (where / "undo").write_text("frob\t/x\nrmtree\n\n\0\n"),
    "config.json gone": lambda where: (where / "config.json").unlink(),
    "config.json torn": lambda where: (where / "config.json").write_text("{"),
    "quick gone": lambda where: (where / "quick").unlink(),
    "quick torn": lambda where: (where / "quick").write_bytes((where / "quick").read_bytes()[:20]),
    "quick empty": lambda where: (where / "quick").write_bytes(b""),
    "quick of zeros": lambda where: (where / "quick").write_bytes(b"\0" * 100),
    "plan.json torn": lambda where: (where / "plan.json").write_text("[["),
    "start.sock gone": lambda where: (where / "start.sock").unlink(),
    "created gone": lambda where: (where / "created").unlink(),
    "a directory in it": lambda where: (where / "x/y").mkdir(parents=True),
    "no list, and a directory": lambda where: (
        (where / "undo").rename(where / "other") and (where / "y").mkdir()
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_directory(oci: Oci, name: str) -> None:
    """No command does worse than one line, and `delete -f` leaves nothing, the process included."""
    oci.create()
    pid = oci.state()["pid"]
    DAMAGES[name](oci.root / "box")
    for words in (("state", "box"), ("list",), ("kill", "box", "0"), ("ps", "box"), ("exec", "box", "true"),
                  ("pause", "box"), ("resume", "box"), ("start", "box"), ("kill", "box", "USR1")):  # fmt: skip
        done = oci(*words, timeout=10)
        assert done.seconds < 5 and (done.status == 0 or message_of(done)), (words, done)
    done = oci("delete", "--force", "box")
    assert done.status == 0, done
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the process")
    assert not (oci.root / "box").exists() and oci.ok("list", "-q") == ""


def test_an_empty_state_directory(oci: Oci) -> None:
    """Nothing is known of it, so there is nothing but the directory to take away."""
    (oci.root / "box").mkdir()
    assert oci.state()["status"] == "stopped"
    assert "cannot start a container that has stopped" in message_of(oci("start", "box"))
    oci.gone()


@pytest.mark.parametrize("quick", [True, False])
def test_a_pid_that_is_somebody_elses_by_now(oci: Oci, quick: bool) -> None:
    """After a restart of the host, or of pids: nobody else is killed."""
    oci.detach()
    pid = oci.state()["pid"]
    time.sleep(2 / os.sysconf("SC_CLK_TCK"))  # a process is told from its successor by the tick it began in
    other = Started(["sleep", "1019"])
    oci.started.append(other)
    where = oci.root / "box"
    for name in ("state.json", "quick"):
        path = where / name
        path.write_bytes(path.read_bytes().replace(str(pid).encode(), str(other.pid).encode(), 1))
    if not quick:
        (where / "quick").unlink()
    assert str(saved(oci)["pid"]) == str(other.pid)
    assert (oci.state()["status"], oci.state()["pid"]) == ("stopped", 0)
    assert "container not running" in message_of(oci("kill", "box", "KILL"))
    oci.gone()  # the cgroup's processes are ended all the same
    assert other.poll() is None


def has_open(pid: int, path: Path) -> bool:
    """Whether one of the process's descriptors is of *path*."""
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if os.readlink(descriptor) == str(path):
                return True
    return False


def test_a_delete_that_waited_for_another_leaves_the_next_container_alone(
    oci: Oci, static_binary: Path
) -> None:
    """The list that it has open was executed meanwhile, and the id given away."""
    oci.create()
    path = oci.root / "box/undo"
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = oci.start("delete", "--force", "box")
        until(lambda: has_open(waiting.pid, path), "the second delete")
        words = ["pyrun-undo", f"fd={lock.fileno()}"]
        subprocess.run(words, executable=static_binary, pass_fds=[lock.fileno()], check=True)
        oci.create()
    assert oci.finish(waiting)[:3] == (0, "", "")
    assert oci.state()["status"] == "created"
    oci.gone()


def test_a_list_that_has_been_executed_is_not_executed_again(oci: Oci) -> None:
    """One that lost its name between open and lock; here a mount keeps it where it is looked for."""
    oci.create()
    bystander = oci.directory / "bystander"
    bystander.mkdir()
    executed, place = oci.directory / "executed", oci.root / "box/undo"
    executed.write_text(f"rmdir\t{bystander}\n")
    subprocess.run(["mount", "--bind", str(executed), str(place)], check=True)
    executed.unlink()
    oci("delete", "--force", "box")
    subprocess.run(["umount", str(place)], check=True)
    assert bystander.exists()
    oci.gone()


def test_what_died_before_it_had_its_place_is_swept(oci: Oci) -> None:
    """And what is still at it is left alone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    for number in (gone.pid, os.getpid()):
        (oci.root / f".staging/box.{number}").mkdir(parents=True)
        (oci.root / f".staging/box.{number}/undo").touch()
    oci.create()
    oci.gone()
    assert [path.name for path in (oci.root / ".staging").iterdir()] == [f"box.{os.getpid()}"]
    shutil.rmtree(oci.root / ".staging")


# ── many at once ───────────────────────────────────────────────────────────────────────────────────


def test_two_creates_of_one_id(oci: Oci) -> None:
    """Exactly one wins, twenty times."""
    oci.write()
    for _ in range(20):
        both = [oci.start("create", "--bundle", str(oci.bundle), "box") for _ in range(2)]
        done = sorted((oci.finish(each) for each in both), key=lambda each: each.status)
        assert [each.status for each in done] == [0, 1], done
        message = message_of(done[1])
        assert "already exists" in message or "exists" in message or "somebody" in message.lower(), message
        assert oci.state()["status"] == "created"
        oci.gone()


def test_two_creates_of_one_id_in_two_roots(oci: Oci, tmp_path: Path) -> None:
    """One cgroup is for one container: one of the two gets it, and is none the worse for the other's trying."""
    roots = [tmp_path / "one", tmp_path / "two"]
    oci.write()
    for _ in range(20):
        both = [oci.start("create", "--bundle", str(oci.bundle), "box", root=root) for root in roots]
        done = [oci.finish(each) for each in both]
        assert sorted(each.status for each in done) == [0, 1], done
        loser = next(each for each in done if each.status)
        assert "linux.cgroupsPath is for one container alone" in message_of(loser)
        winner = roots[done.index(loser) ^ 1]
        assert json.loads(oci("state", "box", root=winner).out)["status"] == "created"
        assert oci("start", "box", root=winner).status == 0
        assert oci("delete", "--force", "box", root=winner).status == 0
        assert not any(root.exists() and list(root.glob("[!.]*")) for root in roots)


def test_two_starts_at_once(oci: Oci) -> None:
    """Exactly one wins, whoever serves it; the other says why."""
    for number in range(16):
        oci.create()
        if number % 2:
            (oci.root / "box/quick").unlink()
        both = [oci.start("start", "box") for _ in range(2)]
        done = sorted((oci.finish(each) for each in both), key=lambda each: each.status)
        assert [each.status for each in done] == [0, 1], done
        assert "cannot start a" in message_of(done[1])
        assert oci.state()["status"] == "running"
        oci.gone()


@pytest.mark.parametrize("force", [True, False])
def test_delete_while_start_runs(oci: Oci, force: bool) -> None:
    for number in range(16):
        oci.create()
        if number % 4 > 1:
            (oci.root / "box/quick").unlink()
        starting = oci.start("start", "box")
        time.sleep(0.001 * number)  # the moment of the delete
        deleting = oci("delete", *(["--force"] if force else []), "box")
        started = oci.finish(starting)
        assert started.status == 0 or message_of(started)
        if force or deleting.status == 0:
            assert deleting.status == 0, deleting
            assert "does not exist" in oci("state", "box").err
        else:
            assert "is not stopped: running" in message_of(deleting)
            assert oci.state()["status"] == "running"
            oci.gone()


def test_two_deletes_at_once(oci: Oci) -> None:
    for number in range(10):
        oci.detach()
        if number % 2:
            (oci.root / "box/quick").unlink()
        both = [oci.start("delete", "--force", "box") for _ in range(2)]
        assert [oci.finish(each)[:3] for each in both] == [(0, "", "")] * 2
        assert "does not exist" in oci("state", "box").err


def test_thirty_at_once(oci: Oci) -> None:
    """create, start, state, delete of different ids: nobody is in another's way."""
    oci.write()
    wrong: list[object] = []

    def life(name: str) -> None:
        for words in (("create", "--bundle", str(oci.bundle), name), ("start", name), ("state", name),
                      ("delete", "--force", name)):  # fmt: skip
            line = oci.command(*words)
            with (oci.directory / f"{name}.said").open("w") as said:
                streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": said}
                status = subprocess.run(line, env=oci.env, timeout=60, check=False, **streams).returncode
            if status or (oci.directory / f"{name}.said").read_text():
                wrong.append((words, status, (oci.directory / f"{name}.said").read_text()))

    threads = [threading.Thread(target=life, args=(f"box{number}",)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not wrong, wrong
    assert [path.name for path in oci.root.iterdir() if path.name != ".staging"] == []


# ── others who do not do their part ────────────────────────────────────────────────────────────────


def test_a_console_socket_that_nobody_accepts(oci: Oci) -> None:
    """The queue of a listener is full: `delete -f` ends the wait that `create` is in."""
    oci.config["process"]["terminal"] = True
    oci.write()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(oci.directory / "console"))
    listener.listen(0)
    first = socket.socket(socket.AF_UNIX)
    first.connect(str(oci.directory / "console"))
    words = ("create", "--bundle", str(oci.bundle), "--console-socket", str(oci.directory / "console"), "box")
    waiting = oci.start(*words)
    assert "--console-socket" in message_of(oci.finish(waiting, 15))
    for each in (first, listener):
        each.close()
    assert "does not exist" in oci("state", "box").err


def test_output_that_nobody_reads(oci: Oci) -> None:
    """A full standard output, for the launcher's commands and for the interpreter's."""
    oci.detach()
    for words in (("state", "box"), ("list",), ("ps", "box"), ("features",)):
        with open("/dev/full", "wb") as full:
            done = oci(*words, stdout=full)
        assert done.status != 0 and "no space left on device" in message_of(done), words
    oci.gone()
