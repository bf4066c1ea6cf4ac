"""Bad luck: hooks that hang or flood, processes that will not end, torn states, full disks, many at once.

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

from hostile_oci import Done, Oci, Started, message_of, wait_until

pytestmark = pytest.mark.timeout(60)

INSIDE = ("createContainer", "startContainer")
KINDS = ("prestart", "createRuntime", *INSIDE, "poststart", "poststop")


@pytest.fixture
def oci(static_binary: Path, tmp_path: Path) -> Iterator[Oci]:
    command = Oci(static_binary.with_name("pyrun-oci"), tmp_path)
    command.root.mkdir()
    before = command.picture()
    yield command
    command.close()
    command.unchanged(before)


def in_the_background(oci: Oci, *words: str) -> Started:
    oci.write()
    options = ("--bundle", str(oci.bundle)) if words[0] in ("create", "run") else ()
    return oci.start(words[0], *options, *words[1:])


# ── hooks ──────────────────────────────────────────────────────────────────────────────────────────


def hook(oci: Oci, kind: str, text: str, **values: object) -> None:
    """A hook of *kind* that is this script; the program of a startContainer hook lies in the container."""
    script = oci.script("hook", text)
    if kind == "startContainer":
        shutil.copy(script, oci.rootfs / "bin/hook")
        script = "/bin/hook"
    oci.config["hooks"] = {kind: [{"path": script, "env": ["PATH=/bin:/usr/bin"], **values}]}


def lifecycle(oci: Oci) -> list[Done]:
    """create, start, delete; what each came to."""
    oci.write()
    return [
        oci("create", "--bundle", str(oci.bundle), "box"),
        oci("start", "box"),
        oci("delete", "--force", "box"),
    ]


def failing_step(kind: str) -> int:
    """Which command of the lifecycle fails with a hook of this kind."""
    return {"startContainer": 1, "poststart": 1, "poststop": 2}.get(kind, 0)


def check_failed(done: list[Done], kind: str, words: str) -> None:
    """The step that the hook belongs to says so; a poststop hook only warns, as runtime-spec wants it."""
    number = failing_step(kind)
    assert [each.status for each in done[:number]] == [0] * number, done
    assert f"hooks.{kind}[0] " in done[number].err and words in done[number].err, done
    assert "level=warning" in done[2].err if kind == "poststop" else done[number].status == 1, done
    assert len(done[number].err.splitlines()) == 1, done
    assert done[2].status == 0, done


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_hangs_ends_with_its_timeout(oci: Oci, kind: str) -> None:
    """And so does what it has started."""
    hook(oci, kind, "sleep 1007", timeout=1)
    done = lifecycle(oci)
    check_failed(done, kind, "1 s")
    assert 1 <= done[failing_step(kind)].seconds < 3


def children_named(words: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().replace(b"\0", b" ").decode().strip() == words:
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_hook_that_hangs_for_ever(oci: Oci, kind: str) -> None:
    """`delete -f` from elsewhere works, and ends whoever waits for the hook, and the hook if it comes before the
    container's process."""
    hook(oci, kind, "exec sleep 1009")
    if failing_step(kind):
        oci.create()
    hanging = in_the_background(oci, "start" if failing_step(kind) else "create", "box")
    wait_until(lambda: children_named("sleep 1009"), "the hook")
    assert oci.state()["status"] == ("running" if kind == "poststart" else "creating" if not failing_step(kind) else
                                     "created")  # fmt: skip
    oci.gone()
    for pid in children_named("sleep 1009") if kind == "poststart" else ():
        os.kill(pid, signal.SIGKILL)
    done = oci.finish(hanging, 5)
    assert done.status == 1 and message_of(done)
    wait_until(lambda: not children_named("sleep 1009"), "the end of the hook")


def test_exec_into_a_container_that_is_being_created(oci: Oci) -> None:
    """Its root is still the host's."""
    hook(oci, "createRuntime", "exec sleep 1010")
    hanging = in_the_background(oci, "create", "box")
    wait_until(lambda: children_named("sleep 1010"), "the hook")
    done = oci("exec", "box", "true")
    assert done.status == 255 and "creating" in message_of(done), done
    oci.gone()
    oci.finish(hanging, 5)


@pytest.mark.parametrize("detach", [True, False])
def test_a_poststart_hook_that_hangs_in_run(oci: Oci, detach: bool) -> None:
    hook(oci, "poststart", "exec sleep 1011")
    hanging = in_the_background(oci, "run", *(["--detach"] if detach else []), "box")
    wait_until(lambda: children_named("sleep 1011"), "the hook")
    assert oci.state()["status"] == "running"
    oci.gone()
    for pid in children_named("sleep 1011"):
        os.kill(pid, signal.SIGKILL)
    assert message_of(oci.finish(hanging, 5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_create_that_is_interrupted_in_a_hook(oci: Oci, number: int) -> None:
    """SIGINT, as Ctrl-C sends it: undone at once. Otherwise `delete -f` finds what is left."""
    hook(oci, "createRuntime", "exec sleep 1013")
    hanging = in_the_background(oci, "create", "box")
    wait_until(lambda: children_named("sleep 1013"), "the hook")
    hanging.send_signal(number)
    oci.finish(hanging, 5)
    if number == signal.SIGINT:
        assert not children_named("sleep 1013")
        assert "does not exist" in oci("state", "box").err
    else:
        wait_until(lambda: oci.state()["status"] in ("stopped", "creating"), "the state")
        oci.gone()
        for pid in children_named("sleep 1013"):  # nobody is left who knows of it
            os.kill(pid, signal.SIGKILL)


def peak_kb(process: subprocess.Popen[bytes]) -> int:
    """VmHWM of it, as long as it can be seen."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{process.pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0])
    return 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_floods(oci: Oci, kind: str) -> None:
    """100 MB on both streams, then a failure: the beginning is told, the rest takes no memory and no time."""
    flood = "dd if=/dev/zero bs=1048576 count=50 2>/dev/null | tr '\\0' x; "
    if kind == "startContainer":  # the container has only busybox
        flood = "/bin/busybox dd if=/dev/zero bs=1048576 count=50 2>/dev/null | /bin/busybox tr '\\0' x; "
        oci.config["mounts"] = [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/dev", "type": "tmpfs"},
        ]
    hook(oci, kind, f"echo beginning; {{ {flood} }} >&2; {flood} exit 3")
    step = failing_step(kind)
    oci.write()
    words = [("create", "--bundle", str(oci.bundle), "box"), ("start", "box"), ("delete", "--force", "box")]
    done = [oci(*each) for each in words[:step]]
    process = oci.start(*words[step])
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_kb(process))
        time.sleep(0.02)
    done += [oci.finish(process), *[oci(*each) for each in words[step + 1 :]]]
    check_failed(done, kind, "exit status 3: beginning")
    assert len(done[step].err) < 1000 and done[step].seconds < 10, done[step]
    assert peak < 60_000, f"{peak} kB"


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_does_not_read_a_large_state(oci: Oci, kind: str) -> None:
    """A pipe holds 64 kB; these annotations are larger, and nobody may wait for their reader."""
    oci.config["annotations"] = {f"a{number}": "x" * 10_000 for number in range(50)}
    hook(oci, kind, "exec <&-; exit 0")
    assert [(each.status, each.err) for each in lifecycle(oci)] == [(0, "")] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_reads_a_large_state(oci: Oci, kind: str) -> None:
    oci.config["annotations"] = {f"a{number}": "x" * 10_000 for number in range(50)}
    program = "/bin/busybox" if kind == "startContainer" else shutil.which("busybox")
    hook(oci, kind, f"n=$({program} wc -c); test $n -gt 500000 || {{ echo $n; exit 1; }}")
    assert [(each.status, each.err) for each in lifecycle(oci)] == [(0, "")] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_dies_by_a_signal(oci: Oci, kind: str) -> None:
    hook(oci, kind, "echo last words; kill -SEGV $$; sleep 10")
    check_failed(lifecycle(oci), kind, "signal 11: last words")


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_leaves_a_daemon(oci: Oci, kind: str) -> None:
    """It keeps the hook's output open: nobody waits for it, and on the host it may live on."""
    oci.config["process"]["args"] = ["sleep", "1000"]
    hook(oci, kind, "sleep 1017 & exit 0")
    done = lifecycle(oci)
    assert [(each.status, each.err) for each in done] == [(0, "")] * 3
    assert all(each.seconds < 3 for each in done), done
    daemons = int(kind not in INSIDE)  # those inside were the container's, and went with it
    wait_until(lambda: len(children_named("sleep 1017")) == daemons, "the daemon")
    for pid in children_named("sleep 1017"):
        os.kill(pid, signal.SIGKILL)


def test_the_hooks_after_one_that_fails_are_not_called(oci: Oci) -> None:
    mark = oci.directory / "mark"
    failing, marking = oci.script("failing", "exit 1"), oci.script("marking", f"touch {mark}")
    oci.config["hooks"] = {"createRuntime": [{"path": failing}, {"path": marking}]}
    oci.write()
    message = oci.refused("create", "--bundle", str(oci.bundle), "box")
    assert f"hooks.createRuntime[0] {failing}: exit status 1" in message and not mark.exists()


# ── processes that will not end ────────────────────────────────────────────────────────────────────


def test_a_process_that_ignores_signals(oci: Oci) -> None:
    oci.config["process"]["args"] = [
        "sh",
        "-c",
        "trap '' TERM INT HUP; touch /ready; while :; do sleep 1; done",
    ]
    oci.detach()
    wait_until((oci.rootfs / "ready").exists, "the trap")
    for name in ("TERM", "SIGINT", "1", ""):
        oci.ok("kill", "box", *([name] if name else []))
    time.sleep(0.1)
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
        wait_until(lambda: oci.state()["status"] == "stopped", f"the end by {words}", 3)
        oci.ok("delete", "box")
    oci.config["process"]["args"] = [
        "sh",
        "-c",
        "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.1; done",
    ]
    oci.detach()
    wait_until((oci.rootfs / "ready").exists, "the trap")
    oci.ok("pause", "box")
    oci.ok("kill", "box", "TERM")
    assert oci.state()["status"] == "paused"
    oci.ok("resume", "box")
    wait_until(lambda: oci.state()["status"] == "stopped", "the end after `resume`")
    oci.ok("delete", "box")


def test_a_container_paused_before_its_start(oci: Oci) -> None:
    oci.create()
    oci.ok("pause", "box")
    starting = oci.start("start", "box")
    time.sleep(0.2)
    oci.gone()
    assert oci.finish(starting, 5).status == 1


def test_a_cgroup_frozen_by_somebody_else(oci: Oci) -> None:
    """Not by `pause`, but the same in effect."""
    oci.detach()
    group = next(place for names, place in saved(oci)["cgroups"] if names in ("freezer", "unified"))
    for file, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
        if (path := Path(group, file)).exists():
            path.write_text(word)
    wait_until(lambda: oci.state()["status"] == "paused", "the freezing")
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
        wait_until(lambda: oci.state()["status"] == "stopped", "the end")
    for names, place in saved(oci)["cgroups"]:
        if alive:
            Path(place).parent.joinpath("cgroup.procs").write_text(str(pid))
        wait_until(lambda place=place, names=names: removed(place), f"the removal of {names}")
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
    wait_until(lambda: oci.state()["status"] == "stopped", "the state")
    assert oci.state()["pid"] == 0
    assert "cannot start a container that has stopped" in message_of(oci("start", "box"))
    assert "container not running" in message_of(oci("kill", "box", "KILL"))
    assert "cannot exec in a stopped container" in message_of(oci("exec", "box", "true"))
    oci.ok("delete", "box")


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL", "USR1"])
def test_a_created_container_can_be_killed(oci: Oci, name: str) -> None:
    oci.create()
    oci.ok("kill", "box", name)
    wait_until(lambda: oci.state()["status"] == "stopped", "the state")
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
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the process")
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


def test_a_delete_that_waited_for_another_leaves_the_next_container_alone(
    oci: Oci, static_binary: Path
) -> None:
    """The list that it has open was executed meanwhile, and the id given away."""
    oci.create()
    path = oci.root / "box/undo"
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = oci.start("delete", "--force", "box")
        opened = Path(f"/proc/{waiting.pid}/fd")
        wait_until(lambda: str(path) in map(os.path.realpath, opened.glob("*")), "the second delete")
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


# ── --root of every kind ───────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    path = place / "fill"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return path


def test_a_root_without_room(oci: Oci) -> None:
    """Whether bytes or names run out, and wherever in the middle: one line, nothing left."""
    oci.write()
    refused = 0
    for options in [f"size={4096 * pages}" for pages in range(1, 9)] + [
        f"nr_inodes={n}" for n in range(1, 12)
    ]:
        with tmpfs(oci.directory / "small", options) as root:
            before = set(root.rglob("*"))
            done = oci("create", "--bundle", str(oci.bundle), "box", root=root)
            if done.status == 0:
                assert oci("delete", "--force", "box", root=root).status == 0
                continue
            refused += 1
            assert "no space left on device" in message_of(done), (options, done)
            left = {path for path in set(root.rglob("*")) - before if path.name != ".staging"}
            assert not left, (options, left)
    assert refused > 8


def test_a_root_that_is_full_later(oci: Oci) -> None:
    """start, kill, pause and delete make nothing new."""
    oci.write()
    with tmpfs(oci.directory / "small", "size=256k") as root:
        for name in ("one", "two"):
            assert oci("create", "--bundle", str(oci.bundle), name, root=root).status == 0
        filled = fill(root)
        assert "no space left" in message_of(oci("create", "--bundle", str(oci.bundle), "three", root=root))
        for words in (("start", "one"), ("pause", "one"), ("resume", "one"), ("exec", "one", "true"),
                      ("kill", "one", "KILL")):  # fmt: skip
            assert oci(*words, root=root).status == 0, words
        assert oci("delete", "--force", "one", root=root).status == 0
        (root / "two/quick").unlink()  # by the interpreter
        filled = fill(root)
        assert oci("delete", "--force", "two", root=root).status == 0
        assert list(root.iterdir()) in ([filled, root / ".staging"], [root / ".staging", filled])


def test_a_pid_file_without_room(oci: Oci) -> None:
    oci.write()
    with tmpfs(oci.directory / "small", "size=64k") as place:
        filled = fill(place)
        path = place / "pid"
        message = oci.refused("create", "--bundle", str(oci.bundle), "--pid-file", str(path), "box")
        assert f"--pid-file {path}: no space left on device" in message
        assert list(place.iterdir()) == [filled]


def test_a_root_that_cannot_be_written(oci: Oci) -> None:
    oci.write()
    with tmpfs(oci.directory / "small", "ro") as root:
        for below in (root, root / "a/b"):
            done = oci("create", "--bundle", str(oci.bundle), "box", root=below)
            assert "read-only file system" in message_of(done)
        assert oci("list", root=root).status == 0
        assert "does not exist" in message_of(oci("state", "box", root=root))
    for place in ("/proc/x", "/dev/null/x", str(oci.bundle / "config.json")):
        assert oci.refused("create", "--bundle", str(oci.bundle), "box", root=Path(place))
        assert "does not exist" in message_of(oci("delete", "box", root=Path(place)))


def test_a_root_that_becomes_read_only(oci: Oci) -> None:
    """`delete -f` says what it cannot do, and does it once it can."""
    oci.write()
    with tmpfs(oci.directory / "small", "size=1m") as root:
        assert oci("create", "--bundle", str(oci.bundle), "box", root=root).status == 0
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        done = oci("delete", "--force", "box", root=root)
        assert done.status == 1 and "read-only file system" in done.err.lower(), done
        assert json.loads(oci("state", "box", root=root).out)["status"] == "stopped"
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        assert oci("delete", "--force", "box", root=root).status == 0


@pytest.mark.parametrize("length", [100, 108, 250, 2000, 4000])
def test_a_root_with_a_long_path(oci: Oci, length: int) -> None:
    """A socket's path has room for 107 bytes, a path for 4095."""
    root = oci.directory / "long"
    while len(str(root)) < length - 1:
        root /= "x" * min(200, length - len(str(root)) - 1)
    oci.write()
    words = ("create", "--bundle", str(oci.bundle), "box")
    assert oci(*words, root=root).status == 0
    assert oci("start", "box", root=root).status == 0
    assert json.loads(oci("state", "box", root=root).out)["status"] == "running"
    (root / "box/quick").unlink()
    assert json.loads(oci("state", "box", root=root).out)["status"] == "running"
    assert oci("exec", "box", "true", root=root).status == 0
    assert oci("delete", "--force", "box", root=root).status == 0


def test_an_id_as_long_as_a_file_name_can_be(oci: Oci) -> None:
    oci.linux["cgroupsPath"] = "/hostile/long"
    oci.write()
    for name, fits in (("x" * 255, True), ("x" * 256, False)):
        before = oci.picture()
        done = oci("create", "--bundle", str(oci.bundle), name)
        assert (done.status == 0) is fits, done
        if fits:
            assert oci.state(name)["status"] == "created"
            oci.gone(name)
        else:
            assert "file name too long" in message_of(done)
        oci.unchanged(before)


def test_a_root_with_a_path_that_is_too_long(oci: Oci) -> None:
    oci.write()
    root = oci.directory
    while len(str(root)) < 4090:
        root /= "x" * min(200, 4090 - len(str(root)))
    before = oci.picture()
    done = oci("create", "--bundle", str(oci.bundle), "box", root=root)
    assert "file name too long" in message_of(done) or done.status == 1, done
    oci.unchanged(before)
    for words in (("state", "box"), ("delete", "box"), ("start", "box"), ("kill", "box", "KILL")):
        assert "does not exist" in message_of(oci(*words, root=root))


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
        time.sleep(0.001 * number)
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


def test_a_caller_that_is_stopped(oci: Oci) -> None:
    """SIGSTOP to `create` at some moment: others are told, in time, and once it goes on everything is well."""
    hook(oci, "createRuntime", "exec sleep 1021")
    hanging = in_the_background(oci, "create", "box")
    wait_until(lambda: children_named("sleep 1021"), "the hook")
    hanging.send_signal(signal.SIGSTOP)
    done = oci("delete", "--force", "box", timeout=15)
    assert done.status == 1 and "in use by another" in message_of(done), done
    hanging.send_signal(signal.SIGCONT)
    assert oci.finish(hanging, 5).status == 1
    wait_until(lambda: "does not exist" in oci("state", "box").err, "the end of the container")
    oci.gone()


def test_output_that_nobody_reads(oci: Oci) -> None:
    """A full standard output, for the launcher's commands and for the interpreter's."""
    oci.detach()
    for words in (("state", "box"), ("list",), ("ps", "box"), ("features",)):
        with open("/dev/full", "wb") as full:
            done = oci(*words, stdout=full)
        assert done.status != 0 and "no space left on device" in message_of(done), words
    oci.gone()
