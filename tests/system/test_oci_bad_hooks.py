"""Hooks that hang, flood, fail or leave a daemon; commands that are stopped in one.

Whatever happens, `state` is true, every command ends in time with at most one line, and `delete -f` works and leaves
nothing: every test begins and ends with a picture of the host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile_oci import Done, Oci, Started, message_of, unharmed
from waiting import until

pytestmark = pytest.mark.timeout(60)
INSIDE = ("createContainer", "startContainer")
KINDS = ("prestart", "createRuntime", *INSIDE, "poststart", "poststop")


@pytest.fixture
def oci(static_binary: Path, tmp_path: Path) -> Iterator[Oci]:
    yield from unharmed(static_binary, tmp_path)


def in_the_background(oci: Oci, *words: str) -> Started:
    oci.write()
    options = ("--bundle", str(oci.bundle)) if words[0] in ("create", "run") else ()
    return oci.start(words[0], *options, *words[1:])


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
    assert f"error running {kind} hook #0: " in done[number].err and words in done[number].err, done
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
    until(lambda: children_named("sleep 1009"), "the hook")
    assert oci.state()["status"] == ("running" if kind == "poststart" else "creating" if not failing_step(kind) else
                                     "created")  # fmt: skip
    oci.gone()
    for pid in children_named("sleep 1009") if kind == "poststart" else ():
        os.kill(pid, signal.SIGKILL)
    done = oci.finish(hanging, 5)
    assert done.status == 1 and message_of(done)
    until(lambda: not children_named("sleep 1009"), "the end of the hook")


def test_exec_into_a_container_that_is_being_created(oci: Oci) -> None:
    """Its root is still the host's."""
    hook(oci, "createRuntime", "exec sleep 1010")
    hanging = in_the_background(oci, "create", "box")
    until(lambda: children_named("sleep 1010"), "the hook")
    done = oci("exec", "box", "true")
    assert done.status == 255 and "creating" in message_of(done), done
    oci.gone()
    oci.finish(hanging, 5)


@pytest.mark.parametrize("detach", [True, False])
def test_a_poststart_hook_that_hangs_in_run(oci: Oci, detach: bool) -> None:
    hook(oci, "poststart", "exec sleep 1011")
    hanging = in_the_background(oci, "run", *(["--detach"] if detach else []), "box")
    until(lambda: children_named("sleep 1011"), "the hook")
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
    until(lambda: children_named("sleep 1013"), "the hook")
    hanging.send_signal(number)
    oci.finish(hanging, 5)
    if number == signal.SIGINT:
        assert not children_named("sleep 1013")
        assert "does not exist" in oci("state", "box").err
    else:
        until(lambda: oci.state()["status"] in ("stopped", "creating"), "the state")
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
    until(lambda: len(children_named("sleep 1017")) == daemons, "the daemon")
    for pid in children_named("sleep 1017"):
        os.kill(pid, signal.SIGKILL)


def test_the_hooks_after_one_that_fails_are_not_called(oci: Oci) -> None:
    mark = oci.directory / "mark"
    failing, marking = oci.script("failing", "exit 1"), oci.script("marking", f"touch {mark}")
    oci.config["hooks"] = {"createRuntime": [{"path": failing}, {"path": marking}]}
    oci.write()
    message = oci.refused("create", "--bundle", str(oci.bundle), "box")
    assert f"error running createRuntime hook #0: {failing}: exit status 1" in message and not mark.exists()


def test_a_caller_that_is_stopped(oci: Oci) -> None:
    """SIGSTOP to `create` at some moment: others are told, in time, and once it goes on everything is well."""
    hook(oci, "createRuntime", "exec sleep 1021")
    hanging = in_the_background(oci, "create", "box")
    until(lambda: children_named("sleep 1021"), "the hook")
    hanging.send_signal(signal.SIGSTOP)
    done = oci("delete", "--force", "box", timeout=15)
    assert done.status == 1 and "in use by another" in message_of(done), done
    hanging.send_signal(signal.SIGCONT)
    assert oci.finish(hanging, 5).status == 1
    until(lambda: "does not exist" in oci("state", "box").err, "the end of the container")
    oci.gone()
