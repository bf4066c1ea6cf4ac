"""The peers: Docker, podman and containerd, each with directories of its own on the lab's /run, as the tests call them.

An `Engine` is the command line of one of them together with the runtime its containers get. It keeps the output in
files, since what was started may hold on to it, and ends every command within a time. PYRUN_REFERENCE=1 runs every
test beside runc, not only those that ask for it.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

import leftovers
from oci.terminal import read_terminal
from waiting import until

RUN = Path("/run/peers")
RUNTIMES = ("pyrun-oci", "runc")  # crun is not here: old ones refuse hosts with hybrid cgroups
TIMEOUT_S = 40.0
IMAGE = "busybox"
TICK_S = 0.05

# podman and its builder set limits that a machine without CAP_SYS_RESOURCE must not; pods get no pause program of
# podman's own, which is a package that only pods need
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1000:1000", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
infra_image = "localhost/pause"
runtime_supports_json = ["pyrun-oci", "runc"]
runtime_supports_nocgroup = ["pyrun-oci"]
[engine.runtimes]
"""


def output(*words: str, timeout_s: float = 60) -> str:
    """What a command prints; the test fails unless it ends with 0."""
    done = finished(words, timeout_s=timeout_s)
    assert done.returncode == 0, f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def finished(words: Sequence[str], timeout_s: float = TIMEOUT_S, input: str = "",
             env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """A command that has ended, whatever its status."""
    with (
        tempfile.TemporaryFile("w+") as source,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        source.write(input)
        source.seek(0)
        done = subprocess.run(
            words, stdin=source, stdout=out, stderr=err, timeout=timeout_s, check=False, env=env
        )
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(words), done.returncode, out.read(), err.read())


def page(address: str, place: str = "", tries: int = 40) -> str:
    """What http://ADDRESS/ says to the lab host, or to one of its surroundings; "" if nobody answers."""
    enter = ["nsenter", f"--net=/run/pyrun-lab/{place}"] if place else []
    for _ in range(tries):
        words = [*enter, "busybox", "timeout", "1", "busybox", "wget", "-q", "-O-", f"http://{address}/"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
        time.sleep(TICK_S)
    return ""


def web(text: str, port: int = 80) -> list[str]:
    """The command of a container whose page says *text*."""
    script = f"mkdir -p /www; echo {text} >/www/index.html; exec httpd -f -p {port} -h /www"
    return ["sh", "-c", script]


def limit(pid: int, controller: str, v1: str, v2: str) -> str:
    """A file of the cgroup that process *pid* is in, with cgroup v1 or v2."""
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    top = Path("/sys/fs/cgroup")
    if controller in paths:
        return (top / controller / paths[controller].lstrip("/") / v1).read_text().strip()
    return (top / paths[""].lstrip("/") / v2).read_text().strip()


# ── an engine ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Engine:
    """*run_words* are given to every `run`; *states* is a pattern for the state directories of the runtime below /."""

    name: str
    runtime: str
    words: list[str]
    run_words: list[str]
    states: str
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    others: set[str] = field(default_factory=leftovers.processes)  # somebody else's

    def __call__(
        self, *args: str, input: str = "", timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        return finished([*self.words, *args], timeout_s, input, self.env)

    def ok(self, *args: str, input: str = "", timeout_s: float = TIMEOUT_S) -> str:
        """A command that must succeed; returns what it printed, without the last newline."""
        done = self(*args, input=input, timeout_s=timeout_s)
        assert done.returncode == 0, (
            f"{self.name} {' '.join(args)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout.removesuffix("\n")

    def fails(self, status: int, *args: str) -> str:
        """A command that must end with *status*; returns all it printed, since errors of exec may be on either side."""
        done = self(*args)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def run(self, *args: str, input: str = "") -> str:
        """`run` that must succeed."""
        return self.ok("run", *self.run_words, *args, input=input)

    def start(self, *args: str, options: Sequence[str] = (), name: str = "box") -> None:
        """A detached container called *name*; without *args* it sleeps."""
        self.run("-d", "--name", name, *options, IMAGE, *(args or ("sleep", "1000")))

    def inspect(self, template: str, name: str = "box") -> str:
        return self.ok("inspect", "-f", "{{" + template + "}}", name)

    def pid(self, name: str = "box") -> int:
        return int(self.inspect(".State.Pid", name))

    def logs(self, name: str = "box") -> str:
        return self.ok("logs", name)

    @contextmanager
    def terminal(
        self, *args: str, size: tuple[int, int] = (33, 77)
    ) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """A command with a terminal of *size* rows and columns: the process, and the terminal's other side."""
        master_fd, slave_fd = pty.openpty()
        ioctl(slave_fd, TIOCSWINSZ, pack("HHHH", *size, 0, 0))
        process = subprocess.Popen(
            [*self.words, *args], stdin=slave_fd, stdout=slave_fd, stderr=slave_fd, env=self.env
        )
        os.close(slave_fd)
        try:
            yield process, master_fd
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            os.close(master_fd)

    def left(self) -> list[str]:
        """Of pyrun-oci: processes and state directories that are still there."""
        states = [str(path) for path in Path("/").glob(self.states) if not path.name.startswith(".")]
        return [*states, *(leftovers.processes() - self.others)] if self.runtime == "pyrun-oci" else []

    def clean(self) -> None:
        """Remove every container; what the runtime has then not taken away fails the test."""
        names = self.ok("ps", "-a", "-q").split()
        if names:
            words = ("rm", "-f", *(("-t", "0") if self.name == "podman" else ()), *names)
            # podman sometimes meets its own clean-up of the container that has just ended: "resource busy"
            until(lambda: self(*words).returncode == 0, " ".join(words))
        until(lambda: not self.left(), f"the end of {self.left()}")


def answers(master_fd: int, text: str, until_text: str) -> str:
    """Type *text* into a terminal; returns what it shows up to *until_text*."""
    os.write(master_fd, text.encode())
    return read_terminal(master_fd, until_text)


# ── daemons ────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def daemon(command: list[str], is_up: list[str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon, from the moment in which *is_up* succeeds."""
    with open(log_path, "ab") as log:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(is_up, capture_output=True, timeout=30, check=False).returncode:
            text = log_path.read_text()[-1500:]
            assert running.poll() is None and time.monotonic() < deadline, (
                f"{command[0]} does not start:\n{text}"
            )
            time.sleep(TICK_S)
        yield running
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def docker_client() -> list[str]:
    """The client of the daemon's own package, not another one that happens to be earlier on PATH."""
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")
    assert client, "apt-get install docker.io (Debian 13: docker-cli)"
    return [client, "-H", f"unix://{RUN}/docker.sock"]


@contextmanager
def docker_daemon(*options: str, sysctls: set[str] | None = None) -> Iterator[list[str]]:
    """A Docker daemon; yields the client's words. Whatever it puts on the host is taken away afterwards.

    sysctls: the settings to go back to, if not those of now.
    """
    sysctls = leftovers.sysctls() if sysctls is None else sysctls
    client = docker_client()
    command = ["dockerd", "--data-root", f"{RUN}/data", "--exec-root", f"{RUN}/exec",
               "--pidfile", f"{RUN}/docker.pid", "-H", f"unix://{RUN}/docker.sock", *options]  # fmt: skip
    try:
        with daemon(command, [*client, "version"], RUN / "dockerd.log"):
            yield client
    finally:
        take_away(sysctls)


def take_away(sysctls: set[str]) -> None:
    """What a peer leaves behind: its bridge, its rules, its mounts, its cgroups, forwarding."""
    for name in leftovers.links():
        if name.startswith(("docker", "cni-", "podman")):
            output("ip", "link", "delete", name)
    output("nft", "flush", "ruleset")
    for line in sorted(leftovers.mounts(), reverse=True):
        place = line.split()[1]
        if place.startswith(f"{RUN}/") or place == "/run/netns":
            output("umount", "--lazy", place)
    for cgroup in sorted(leftovers.cgroups(), reverse=True):
        if "/docker" in cgroup or "/libpod" in cgroup:
            Path(cgroup).rmdir()
    for line in sysctls:
        name, _, value = line.partition(" = ")
        if "forward" in name:
            Path("/proc/sys", name).write_text(value)
