"""containerd with `ctr run --runc-binary`: its shim, which is also what Kubernetes uses, drives pyrun-oci."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import leftovers
from peers import engines
from peers.engines import RUN, RUNTIMES, Engine, limit, output
from waiting import until

pytestmark = [pytest.mark.needs("containerd"), pytest.mark.needs("runc"), pytest.mark.timeout(120)]
beside_runc = pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)

# ctr drops output that it has not opened yet when the process ends, which happens on a busy machine
LINGER = "sleep 0.3"
IMAGE = "docker.io/library/busybox:latest"
CONFIG = f"""version = 2
root = "{RUN}/containerd"
state = "{RUN}/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{RUN}/containerd.sock"
"""


class Containerd(Engine):
    """`ctr` names containers and their tasks apart: `clean` removes both."""

    def start(self, *args: str, options: Sequence[str] = (), name: str = "box") -> None:
        self.run("-d", *options, IMAGE, name, *(args or ("sleep", "1000")))

    def status(self, name: str = "box") -> str:
        lines = [line.split() for line in self.ok("task", "ls").splitlines()]
        (found,) = [words for words in lines if words[0] == name]
        return found[2]

    def pid(self, name: str = "box") -> int:
        lines = [line.split() for line in self.ok("task", "ls").splitlines()]
        return int(next(words[1] for words in lines if words[0] == name))

    def clean(self) -> None:
        for name in self.ok("task", "ls", "-q").split():
            self("task", "rm", "-f", name)
        if names := self.ok("container", "ls", "-q").split():
            self.ok("container", "rm", *names)
        until(lambda: not self.left(), f"the end of {self.left()}")


@pytest.fixture(scope="module")
def client(archive: Path) -> Iterator[list[str]]:
    """A containerd with the busybox image; yields the words of `ctr`."""
    sysctls = leftovers.sysctls()
    root, layout = RUN / "busybox", RUN / "layout"
    root.mkdir()
    output("tar", "-C", str(root), "-xf", str(archive))
    output("umoci", "init", "--layout", str(layout))
    output("umoci", "new", "--image", f"{layout}:busybox")
    output("umoci", "insert", "--image", f"{layout}:busybox", str(root), "/")
    output("skopeo", "copy", "-q", f"oci:{layout}:busybox", f"oci-archive:{RUN}/busybox.oci:{IMAGE}")
    (RUN / "containerd.toml").write_text(CONFIG)
    words = ["ctr", "-a", f"{RUN}/containerd.sock"]
    command = ["containerd", "-c", f"{RUN}/containerd.toml"]
    with engines.daemon(command, [*words, "version"], RUN / "containerd.log"):
        output(*words, "image", "import", f"{RUN}/busybox.oci")
        yield words
    engines.take_away(sysctls)


@pytest.fixture
def ctr(client: list[str], runtime: str, runtime_paths: dict[str, str]) -> Iterator[Containerd]:
    """containerd with one runtime or the other."""
    options = ["--runc-binary", runtime_paths[runtime]]
    found = Containerd("ctr", runtime, client, options, "run/containerd/runc/default/*")
    yield found
    found.clean()


@beside_runc
def test_run(ctr: Containerd) -> None:
    assert ctr.run("--rm", IMAGE, "box", "sh", "-c", f"echo hello; {LINGER}") == "hello"
    ctr.fails(7, "run", *ctr.run_words, "--rm", IMAGE, "box", "sh", "-c", "exit 7")
    error = ctr.fails(1, "run", *ctr.run_words, "--rm", IMAGE, "box", "no-such")
    assert 'exec: "no-such": executable file not found in $PATH' in error
    ctr.clean()
    error = ctr.fails(1, "run", *ctr.run_words, "--rm", IMAGE, "box", "/etc/passwd")
    assert 'exec: "/etc/passwd": permission denied' in error


@beside_runc
def test_exec(ctr: Containerd) -> None:
    ctr.start()
    assert ctr.ok("task", "exec", "--exec-id", "one", "box", "sh", "-c", f"echo hi; {LINGER}") == "hi"
    ctr.fails(3, "task", "exec", "--exec-id", "two", "box", "sh", "-c", "exit 3")
    error = ctr.fails(1, "task", "exec", "--exec-id", "three", "box", "no-such")
    assert "executable file not found in $PATH" in error
    printed = ctr.ok("task", "exec", "--exec-id", "four", "--cwd", "/tmp", "--user", "7:8", "box",
                     "sh", "-c", f"pwd; id -u; id -g; {LINGER}")  # fmt: skip
    assert printed.split() == ["/tmp", "7", "8"]


def test_a_terminal(ctr: Containerd) -> None:
    ctr.start()
    script = "tty; read line; echo got $line; exit 4"
    with ctr.terminal("task", "exec", "-t", "--exec-id", "one", "box", "sh", "-c", script) as (process, fd):
        assert "/dev/pts/" in engines.read_terminal(fd, "\n")
        assert "got typed" in engines.answers(fd, "typed\n", "got typed\n")
        assert process.wait(20) == 4


@beside_runc
def test_pause_and_kill(ctr: Containerd) -> None:
    ctr.start()
    ctr.ok("task", "pause", "box")
    assert ctr.status() == "PAUSED"
    ctr.ok("task", "resume", "box")
    assert ctr.status() == "RUNNING"
    ctr.ok("task", "kill", "-s", "KILL", "box")
    until(lambda: ctr.status() == "STOPPED", "the end")
    ctr.ok("task", "rm", "box")
    ctr.ok("container", "rm", "box")
    assert ctr.ok("container", "ls", "-q") == ""


def test_a_signal_that_is_caught(ctr: Containerd) -> None:
    ctr.start("sh", "-c", "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.05; done")
    until(Path(f"/proc/{ctr.pid()}/root/ready").exists, "the trap")
    ctr.ok("task", "kill", "-s", "TERM", "box")
    until(lambda: ctr.status() == "STOPPED", "the end")
    assert "exit code 3" in ctr("task", "rm", "box").stderr


def test_removed_while_it_runs(ctr: Containerd) -> None:
    ctr.start()
    pid = ctr.pid()
    ctr.fails(1, "task", "rm", "box")
    ctr.ok("task", "rm", "-f", "box")
    assert not Path(f"/proc/{pid}").exists()


@beside_runc
def test_processes_and_metrics(ctr: Containerd) -> None:
    ctr.start(options=("--memory-limit", str(32 << 20)))
    pid = ctr.pid()
    assert limit(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    ctr.ok("task", "exec", "--detach", "--exec-id", "one", "box", "sleep", "1000")
    listed = ctr.ok("task", "ps", "box").splitlines()[1:]
    assert len(listed) == 2 and str(pid) in [line.split()[0] for line in listed]
    metrics = json.loads(ctr.ok("task", "metrics", "--format", "json", "box"))
    assert int(metrics["pids"]["current"]) == 2


def test_the_shim_asks_for_pids_by_exec_and_pid_file(ctr: Containerd) -> None:
    """Two containers of one name in turn, with different pids: nothing of the first answers for the second."""
    ctr.start()
    first = ctr.pid()
    ctr.clean()
    ctr.start()
    assert ctr.pid() != first and Path(f"/proc/{ctr.pid()}").exists()
