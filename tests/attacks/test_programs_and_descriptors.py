"""Nothing of the host comes into a container: no writable program, no descriptor, no process to look into.

Descriptors and the working directory, sealed programs, nothing of the image runs outside.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile
import weakened
from command import Pyrun
from waiting import until

# What a process may hold: its pipes or terminal, /dev/null, and the directory `ls` itself is reading.
ALLOWED = re.compile(r"pipe:\[\d+\]|/dev/null|/dev/pts/\d+|/dev/console|/proc/\d+/fd")
LIST = "ls -l /proc/self/fd 2>/dev/null | sed -n 's/.* -> //p'"


def with_attacker(attacker: Path) -> hostile.Change:
    return lambda root: shutil.copy(attacker, root / "attacker")


# ── CVE-2019-5736: the program that enters a container is written to from inside ───────────────────


def careless(pyrun: Pyrun, *command: str, stdin: int = subprocess.DEVNULL) -> None:
    """What a careless runtime does: a process of the host's among those inside, with as few privileges as they have."""
    enter = [
        "nsenter",
        f"--pid=/proc/{pyrun.state('victim')['pid']}/ns/pid",
        "setpriv",
        "--bounding-set=-all",
    ]
    subprocess.run([*enter, "--inh-caps=-all", *command], stdin=stdin, stdout=subprocess.DEVNULL, check=True)


def monitor_of(pyrun: Pyrun, name: str) -> int:
    """The pid of a detached container's monitor, once it has taken over."""
    pid = int(str(pyrun.state(name)["monitor_pid"]))
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"pyrun-monitor"), "the monitor")
    return pid


def test_programs_of_the_host_cannot_be_written_to(pyrun: Pyrun, attacker: Path, tmp_path: Path) -> None:
    """The container opens whatever /proc/PID/exe is not its own; what enters makes it easy by executing itself.

    Without a monitor, and with a binary of its own: a file that somebody executes can be written to by nobody.
    """
    pyrun.binary = weakened.install(tmp_path / "env").with_name("pyrun")
    hostile.put_image(pyrun, "evil", with_attacker(attacker))
    stand_in = tmp_path / "stand-in"
    shutil.copy("/usr/bin/sleep", stand_in)
    out = tmp_path / "out"
    out.mkdir()
    attack = "exec /attacker overwrite 8 >/out/seen"
    pyrun.ok("run", "-d", "--name=victim", "--net=none", "-v", f"{out}:/out", "evil", "sh", "-c", attack)
    os.kill(monitor_of(pyrun, "victim"), signal.SIGKILL)
    careless(pyrun, str(stand_in), "0.1")  # the control
    deadline = time.monotonic() + 7.5
    while time.monotonic() < deadline and f"refused {errno.EROFS}" not in (out / "seen").read_text():
        pyrun("exec", "victim", "/proc/self/exe")
    pyrun.ok("stop", "victim")
    seen = (out / "seen").read_text().splitlines()
    careless_ones = {f"COULD WRITE {path}" for path in (stand_in, "/usr/bin/setpriv", "/usr/bin/nsenter")}
    assert f"COULD WRITE {stand_in}" in seen, seen
    assert not [line for line in seen if line.startswith("COULD") and line not in careless_ones], seen
    assert "saw /" in seen, f"no attack was made: {seen}"  # the name of a file on a mount of its own
    assert f"refused {errno.EROFS}" in seen, seen


def test_the_first_process_is_sealed_too(pyrun: Pyrun) -> None:
    """An image whose entry point is /proc/self/exe executes init itself, as pid 1, under the image's control."""
    done = pyrun("run", "--rm", "--net=none", "busybox", "/proc/self/exe", timeout=20)
    assert done.returncode != 0
    script = 'printf "#!/proc/self/exe\\n" > /x; chmod +x /x; /x; exec 9>>/proc/self/exe'
    done = pyrun("run", "--rm", "--net=none", "busybox", "sh", "-c", script, timeout=20)
    assert done.returncode != 0


def test_interpreter_and_init_lie_on_a_read_only_mount(pyrun: Pyrun) -> None:
    """Of a living monitor, from outside: opened through its own /proc/PID/exe, the file is read-only even for root."""
    pyrun.ok("run", "-d", "--name=victim", "--net=none", "busybox", "sleep", "100")
    path = f"/proc/{monitor_of(pyrun, 'victim')}/exe"
    assert os.stat(path).st_ino == os.stat(pyrun.binary).st_ino
    assert os.fstatvfs(os.open(path, os.O_PATH)).f_flag & os.ST_RDONLY
    assert not os.statvfs(pyrun.binary).f_flag & os.ST_RDONLY  # the control: the file itself is not


# ── the host's /dev/null ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("user", ["0", "1000"])
def test_the_null_device_is_the_containers_own(pyrun: Pyrun, user: str) -> None:
    """Whose root may change its mode and owner. Nothing is changed here: the streams are looked at."""
    look = ("sh", "-c", "test -c /dev/stdin && stat -Lc %d:%i /dev/stdin /dev/null")
    pyrun.ok("run", "-d", "--name=box", f"--user={user}", "--net=none", "busybox", "sleep", "100")
    for shown in (
        pyrun.ok("run", "--rm", f"--user={user}", "--net=none", "busybox", *look),
        pyrun.ok("exec", f"--user={user}", "box", *look),
    ):
        stdin, own = shown.split()
        assert stdin == own


# ── CVE-2024-21626: descriptors that come along ────────────────────────────────────────────────────


@pytest.fixture
def leaked() -> list[int]:
    """Descriptors of the host which pyrun's caller left open and inheritable, low numbers and a high one."""
    fds = [os.open(path, os.O_RDONLY) for path in ("/", "/etc", "/etc/passwd", "/proc")]
    fds.append(os.dup2(fds[0], 100))
    yield fds
    for fd in fds:
        os.close(fd)


def descriptors(pyrun: Pyrun, leaked: list[int], *words: str) -> list[str]:
    done = subprocess.run(
        [str(pyrun.binary), *words], env=pyrun.env, pass_fds=leaked, capture_output=True, stdin=subprocess.DEVNULL,
        text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(
    "options", [(), ("-i",), ("-t",), ("--init",), ("-u", "1000"), ("--net=none", "--privileged")]
)
def test_no_descriptor_comes_along(pyrun: Pyrun, leaked: list[int], options: tuple[str, ...]) -> None:
    found = descriptors(pyrun, leaked, "run", "--rm", *options, "busybox", "sh", "-c", LIST)
    assert len(found) >= 3 and all(ALLOWED.fullmatch(each) for each in found), found


def test_no_descriptor_comes_along_with_exec(pyrun: Pyrun, leaked: list[int]) -> None:
    descriptors(pyrun, leaked, "run", "-d", "--name=victim", "--net=none", "busybox", "sleep", "100")
    found = pyrun.ok("exec", "victim", "sh", "-c", LIST.replace("self", "1")).split()
    assert found and all(ALLOWED.fullmatch(each) for each in found), found
    for options in ((), ("-i",), ("-t",), ("-u", "1000"), ("--privileged",)):
        found = descriptors(pyrun, leaked, "exec", *options, "victim", "sh", "-c", LIST)
        assert len(found) >= 3 and all(ALLOWED.fullmatch(each) for each in found), (options, found)
    # The control: the list does show what comes along where nobody sees to it.
    plain = subprocess.run(["sh", "-c", LIST], pass_fds=leaked, capture_output=True, text=True, check=True)
    assert not all(ALLOWED.fullmatch(each) for each in plain.stdout.split())


def test_no_descriptor_comes_along_with_a_bundle(pyrun: Pyrun, leaked: list[int], tmp_path: Path) -> None:
    bundle = hostile.put_bundle(pyrun, tmp_path / "bundle", args=["sh", "-c", LIST])
    found = descriptors(pyrun, leaked, "run", "--bundle", str(bundle))
    assert len(found) >= 3 and all(ALLOWED.fullmatch(each) for each in found), found


def test_no_working_directory_through_a_descriptor(pyrun: Pyrun, leaked: list[int]) -> None:
    """`-w /proc/self/fd/N`, for run and exec: refused, or a directory of the container."""
    pyrun.ok("run", "-d", "--name=victim", "--net=none", "busybox", "sleep", "100")
    marker = next(name for name in os.listdir("/") if name not in os.listdir(hostile.busybox_layer(pyrun)))
    for number in (*range(12), *leaked):
        for words in (["run", "--rm", "--net=none"], ["exec"]):
            place = "busybox" if words[0] == "run" else "victim"
            command = [
                *words,
                "-w",
                f"/proc/self/fd/{number}",
                place,
                "sh",
                "-c",
                f"ls -d ./{marker} ../{marker}",
            ]
            done = subprocess.run(
                [str(pyrun.binary), *command], env=pyrun.env, pass_fds=leaked, capture_output=True, text=True,
                stdin=subprocess.DEVNULL, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode != 0 and marker not in done.stdout, (number, done)
            assert done.stderr.count("pyrun: ") == 1 or "No such file" in done.stderr, (number, done)


# ── CVE-2016-9962: looking into the process that enters ────────────────────────────────────────────


def looked(pyrun: Pyrun, seconds: float, visit: Callable[[], object]) -> list[list[str]]:
    """What a container sees of its visitors' directories and files, as (what, kind, device:inode, target)."""
    pyrun.ok("run", "-d", "--name=victim", "--net=none", "evil", "/attacker", "look", str(seconds))
    deadline = time.monotonic() + seconds - 0.5
    while time.monotonic() < deadline:
        visit()
    # until it has ended
    seen = [line.split(" ", 3) for line in pyrun.ok("logs", "-f", "victim").splitlines()]
    pyrun.ok("rm", "-f", "victim")
    return [line for line in seen if line[1] != "other"]


def test_a_hostile_container_sees_nothing_of_those_who_enter(pyrun: Pyrun, attacker: Path) -> None:
    """It looks through /proc at every process that comes by, while `exec` comes by again and again."""
    hostile.put_image(pyrun, "evil", with_attacker(attacker))
    seen = looked(pyrun, 4, lambda: pyrun.ok("exec", "victim", "true"))
    assert any(what == "root" for what, *_ in seen), "nobody was seen at all"
    assert {target for *_, target in seen} <= {"/", "/bin/busybox", "/attacker"}, seen
    host = os.stat("/")
    assert f"{host.st_dev}:{host.st_ino}" not in {place for _, _, place, _ in seen}, seen
    # The control: a careless visitor is seen with all it has.
    with open("/etc/passwd") as file:
        seen = looked(pyrun, 1, lambda: careless(pyrun, "sleep", "0.1", stdin=file.fileno()))
    assert "/etc/passwd" in {target for *_, target in seen}, seen
    assert f"{host.st_dev}:{host.st_ino}" in {place for _, _, place, _ in seen}, seen


# ── nothing of the image runs outside ──────────────────────────────────────────────────────────────


def test_an_images_environment_reaches_no_process_of_the_host(pyrun: Pyrun, canary: hostile.Canary) -> None:
    """LD_PRELOAD, PYTHONPATH and PATH of the image (CVE-2025-23266): they are the container's alone."""

    def change(root: Path) -> None:
        for name in ("pyrun", "pyrun-undo", "nft", "ip", "python3"):
            (root / "bin" / name).write_text(f"#!/bin/sh\ntouch {canary.directory}/executed\n")
            (root / "bin" / name).chmod(0o755)
        (root / "evil.so").write_bytes(b"\x7fELF")
        (root / "sitecustomize.py").write_text(f"open('{canary.directory}/imported', 'w')\n")

    evil = [
        "LD_PRELOAD=/evil.so",
        "PYTHONPATH=/",
        "PYTHONSTARTUP=/sitecustomize.py",
        "PATH=/bin",
        "PYRUN_ROOT=/evil",
    ]
    hostile.put_image(pyrun, "evil", change, Env=evil)
    pyrun.ok("run", "-d", "--name=victim", "-p", "8091:80", "evil", "sleep", "100")
    assert "LD_PRELOAD=/evil.so" in pyrun.ok("exec", "victim", "cat", "/proc/1/environ")
    monitor = Path(f"/proc/{pyrun.state('victim')['monitor_pid']}")
    assert b"evil" not in (monitor / "environ").read_bytes().replace(str(pyrun.root).encode(), b"")
    assert str(pyrun.root / "layers") not in (monitor / "maps").read_text()
    pyrun.ok("stop", "-t", "0", "victim")
    pyrun.ok("rm", "victim")
    assert canary.unchanged()
