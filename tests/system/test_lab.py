"""The lab host itself: what the other tests rely on."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import leftovers

pytestmark = pytest.mark.alone

ENTER = Path(__file__).resolve().parents[1] / "lab" / "enter"


def test_the_internet_sees_the_address_a_packet_comes_from(internet: SimpleNamespace) -> None:
    for address in (internet.gateway, internet.far, internet.name):
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
            assert answer.read() == b"you are 198.51.100.2\n"


def test_names_are_answered_by_the_internet_alone() -> None:
    assert socket.gethostbyname("internet.test") == "203.0.113.80"
    with pytest.raises(socket.gaierror):
        socket.gethostbyname("nobody.test")


def test_the_neighbour_reaches_the_host(internet: SimpleNamespace) -> None:
    assert "1 received" in internet.at("neighbour", "ping", "-c1", "-W2", internet.host)


def test_forwarding_is_off_at_the_start() -> None:
    done = subprocess.run(["cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True, check=True)
    assert done.stdout == b"0\n"


def test_it_has_device_nodes_of_its_own() -> None:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [line for line in mounts if line.split()[4] == "/dev" and " - tmpfs " in line]
    assert not [line for line in mounts if " - devtmpfs " in line]


def test_it_is_the_root_of_its_cgroups() -> None:
    paths = {line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    assert paths <= {"/", "/init"}


def test_a_lab_in_a_lab_is_the_same_lab() -> None:
    inside = subprocess.run(
        [ENTER, "readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True
    )
    assert inside.stdout.strip() == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("exec nosuch", 127)])
def test_the_exit_status_is_the_command_s(command: str, status: int) -> None:
    before = leftovers.picture()
    done = enter("sh", "-c", command)
    assert done.returncode == status
    assert leftovers.settle(before) == []


@pytest.fixture
def stale() -> Iterator[Path]:
    """The cgroup of a lab whose outer process was killed, with as many levels as no recursion goes down."""
    tops = [Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")]
    ended = subprocess.Popen(["true"])
    ended.wait()
    top = next(each for each in tops if (each / "cgroup.procs").exists()) / f"pyrun-lab-{ended.pid}"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    yield top
    cgroups().remove(top)


def cgroups() -> ModuleType:
    """lab/cgroups.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("lab_cgroups", ENTER.with_name("cgroups.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def enter(*words: str) -> subprocess.CompletedProcess[str]:
    """In a lab of its own: without PYRUN_LAB, one is made, here as anywhere."""
    environment = {key: value for key, value in os.environ.items() if key != "PYRUN_LAB"}
    return subprocess.run([ENTER, *words], env=environment, capture_output=True, text=True, check=False)


def test_what_another_lab_left_is_removed_however_deep_it_is(stale: Path) -> None:
    done = enter("echo", "entered")
    assert (done.stdout, done.stderr, done.returncode) == ("entered\n", "", 0)
    assert not stale.exists()


def test_what_cannot_be_removed_keeps_nobody_out(stale: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as inmate:
        try:
            (stale / "d/d/cgroup.procs").write_text(str(inmate.pid))
            done = enter("echo", "entered")
        finally:
            inmate.kill()
    assert (done.stdout, done.returncode) == ("entered\n", 0)
    assert done.stderr == f"lab: cannot remove {stale}: Device or resource busy\n"
    assert not (stale / "d/d/d").exists()


@pytest.mark.needs("cgroup1")
def test_frozen_processes_go_on_however_deep_they_are(stale: Path) -> None:
    """Else the end of a lab would wait for them."""
    state = stale / f"{'d/' * 1200}freezer.state"
    state.write_text("FROZEN")
    cgroups().thaw()
    assert state.read_text() == "THAWED\n"


def test_whatever_was_started_inside_ends_with_it() -> None:
    before = leftovers.picture()
    script = "setsid sleep 271828 & ip link add left0 type bridge; mount -t tmpfs x /mnt; mkdir /sys/fs/cgroup/*/left"
    enter("sh", "-c", script)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert b"sleep\x00271828\x00" not in commands
    assert leftovers.settle(before) == []


def test_cgroups_deeper_than_python_recurses_go_too() -> None:
    before = leftovers.picture()
    deep = "cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; for each in $(seq 1200); do mkdir d; cd d; done"
    done = enter("sh", "-c", deep)
    assert (done.returncode, done.stderr) == (0, "")
    assert leftovers.settle(before) == []
