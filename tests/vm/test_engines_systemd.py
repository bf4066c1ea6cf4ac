"""podman, root's and a user's, and Docker with pyrun-oci as their runtime where systemd makes the cgroups.

tests/peers asks much more of them, with cgroupfs. One image of busybox, no network: the guest is slow.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.container import TOP, Owner
from waiting import PATIENCE, until

pytestmark = pytest.mark.needs("systemd")
PROGRAM = Path(sys.executable).parent / "pyrun-oci"
MB = 1 << 20
TIMEOUT_S = 15.0 * PATIENCE
CONF = """
[containers]
pids_limit = 0
[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime = "pyrun-oci"
runtime_supports_json = ["pyrun-oci"]
[engine.runtimes]
pyrun-oci = ["PROGRAM"]
"""
LIMITS = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--cpus", "0.5")


class Engine:
    """An engine's command line as *owner* calls it."""

    def __init__(self, owner: Owner, *words: str) -> None:
        self.owner, self.words = owner, words

    def __call__(self, *words: str) -> str:
        return self.owner.call(*self.words, *words, timeout_s=TIMEOUT_S)

    def place(self, name: str = "box") -> Path:
        """The cgroup of a running container."""
        pid = self("inspect", "-f", "{{.State.Pid}}", name)
        (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return TOP / line.removeprefix("0::/")


def exercise(engine: Engine, slice_: str, *run_words: str) -> None:
    """What an engine asks of a runtime most: start, look, exec, pause, new limits, stop, remove."""
    engine("run", "-d", "--name", "box", "--network", "none", *LIMITS, *run_words, "busybox", "sleep", "1000")
    place = engine.place()
    assert slice_ in str(place) and ".scope" in str(place), place
    limits = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    assert [(place / name).read_text().strip() for name in limits] == [
        str(64 * MB),
        "0",
        "50",
        "50000 100000",
    ]
    assert engine("exec", "box", "cat", "/proc/self/cgroup") == "0::/"
    engine("pause", "box")
    assert "frozen 1" in (place / "cgroup.events").read_text()
    engine("unpause", "box")
    engine("update", "--memory", "48m", "--memory-swap", "48m", "box")
    assert (place / "memory.max").read_text().strip() == str(48 * MB)
    assert "sleep 1000" in engine("top", "box")
    engine("stop", "-t", "0", "box")
    until(lambda: not place.exists(), "the end of the cgroup")
    engine("rm", "box")
    assert engine("ps", "-a", "-q") == ""


@pytest.fixture(scope="module")
def archive(guest_work: Path) -> Path:
    """The busybox files as a tar file that everybody may read."""
    path = guest_work / "busybox.tar"
    subprocess.run(["tar", "-C", str(guest_work / "template"), "-cf", str(path), "."], check=True)
    conf = guest_work / "containers.conf"
    conf.write_text(CONF.replace("PROGRAM", str(PROGRAM)))
    return path


def podman_of(owner: Owner, archive: Path) -> Iterator[Engine]:
    conf = archive.with_name("containers.conf")
    podman = Engine(owner, "env", f"CONTAINERS_CONF={conf}", "podman")
    podman("import", "-q", str(archive), "busybox")
    yield podman
    podman("rm", "-f", "-t", "0", "-a")


@pytest.fixture(scope="module")
def podman(archive: Path) -> Iterator[Engine]:
    yield from podman_of(Owner(0, ""), archive)


@pytest.fixture(scope="module")
def users_podman(archive: Path, lingering: Owner) -> Iterator[Engine]:
    yield from podman_of(lingering, archive)


def test_podman(podman: Engine) -> None:
    exercise(podman, "/machine.slice/")


def test_podman_passes_streams_and_status_on(podman: Engine) -> None:
    words = ("run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; exit 7")
    done = subprocess.run(podman.owner.words(*podman.words, *words), capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (7, "out\n"), done.stderr


def test_podman_of_a_user(users_podman: Engine) -> None:
    info = json.loads(users_podman("info", "--format", "json"))["host"]
    assert info["security"]["rootless"] and info["cgroupManager"] == "systemd"
    assert info["ociRuntime"]["path"] == str(PROGRAM)
    exercise(users_podman, f"/user@{users_podman.owner.uid}.service/")


@pytest.fixture(scope="module")
def docker(archive: Path, guest_work: Path) -> Iterator[Engine]:
    """A daemon without networks, whose default runtime is ours."""
    directory, socket = guest_work / "docker", f"unix://{guest_work}/docker.sock"
    words = ["dockerd", "--data-root", str(directory), "--exec-root", f"{directory}-exec", "-H", socket,
             "--pidfile", f"{directory}.pid", "--bridge", "none", "--iptables=false", "--ip6tables=false",
             "--add-runtime", f"pyrun={PROGRAM}"]  # fmt: skip
    engine = Engine(Owner(0, ""), "docker", "-H", socket)
    with open(f"{directory}.log", "wb") as log:
        daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while subprocess.run([*engine.words, "version"], capture_output=True, timeout=TIMEOUT_S).returncode:
            text = Path(f"{directory}.log").read_text()[-1500:]
            assert daemon.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.5)
        engine("import", str(archive), "busybox")
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(TIMEOUT_S)
        for line in sorted(Path("/proc/self/mountinfo").read_text().splitlines(), reverse=True):
            if (place := line.split()[4]).startswith(str(directory)):
                subprocess.run(["umount", "--lazy", place], check=False)


@pytest.mark.needs("dockerd")
def test_docker(docker: Engine) -> None:
    assert docker("info", "-f", "{{.CgroupDriver}} {{.CgroupVersion}}") == "systemd 2"
    exercise(docker, "/system.slice/", "--runtime", "pyrun")
