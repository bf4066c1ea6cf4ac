"""The lab host itself: what the other tests rely on."""

from __future__ import annotations

import os
import socket
import subprocess
import urllib.request
from pathlib import Path
from types import SimpleNamespace

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
    """A lab of its own: without PYRUN_LAB, one is made, here as anywhere."""
    environment = {key: value for key, value in os.environ.items() if key != "PYRUN_LAB"}
    before = leftovers.picture()
    done = subprocess.run([ENTER, "sh", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == status
    assert leftovers.settle(before) == []


def test_whatever_was_started_inside_ends_with_it() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYRUN_LAB"}
    before = leftovers.picture()
    script = "setsid sleep 271828 & ip link add left0 type bridge; mount -t tmpfs x /mnt; mkdir /sys/fs/cgroup/*/left"
    subprocess.run([ENTER, "sh", "-c", script], env=environment, capture_output=True, check=False)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert b"sleep\x00271828\x00" not in commands
    assert leftovers.settle(before) == []


def test_cgroups_deeper_than_python_recurses_go_too() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYRUN_LAB"}
    before = leftovers.picture()
    deep = "cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; for each in $(seq 1200); do mkdir d; cd d; done"
    done = subprocess.run(
        [ENTER, "sh", "-c", deep], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert leftovers.settle(before) == []
