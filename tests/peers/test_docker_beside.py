"""pyrun beside Docker and podman on one host: each one's containers keep working, and pyrun leaves no trace.

A Docker daemon sets the policy of its FORWARD chain to drop, which would cut off everybody else's containers. pyrun
puts two marked rules into DOCKER-USER, Docker's own place for them, and takes them away with its last network.

The daemon and podman run the files of pyrun's busybox image; all they write is on the lab's /run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import leftovers
from command import Pyrun
from peers.engines import RUN, docker_daemon, finished, output, page, take_away, web

ASK = ("timeout", "5", "wget", "-q", "-O-")
MARK = "pyrun: containers"


def chain(name: str) -> str:
    """A chain of table `ip filter`, as iptables shows it; "" if there is none."""
    return finished(["iptables", "-S", name]).stdout


# ── Docker ─────────────────────────────────────────────────────────────────────────────────────────


class Docker:
    """A Docker daemon of this test's own, with a container `web` whose port 80 is the host's 8081."""

    def __init__(self, client: list[str], archive: Path) -> None:
        self.words = client
        if not self("images", "-q", "busybox"):
            self("import", str(archive), "busybox")
        self("run", "-d", "--name", "web", "-p", "8081:80", "busybox", *web("dock"))

    def __call__(self, *args: str) -> str:
        return output(*self.words, *args).strip()

    def works(self, internet: SimpleNamespace) -> None:
        """Its container is reached from everywhere, and reaches the internet; so does a new one."""
        assert page("127.0.0.1:8081") == page(f"{internet.host}:8081") == "dock"
        assert page(f"{internet.host}:8081", "neighbour") == "dock"
        ask = (*ASK, f"http://{internet.far}/")
        assert self("exec", "web", *ask) == f"you are {internet.host}"
        assert self("run", "--rm", "busybox", *ask) == f"you are {internet.host}"


@contextmanager
def daemon(archive: Path, sysctls: set[str]) -> Iterator[Docker]:
    """The daemon, and afterwards a host without a trace of it, with those settings."""
    with docker_daemon(sysctls=sysctls) as client:
        running = Docker(client, archive)
        try:
            yield running
        finally:
            finished([*client, "rm", "-f", "web"])


@pytest.fixture
def docker(lab: None, archive: Path) -> Iterator[Docker]:
    """A daemon that is there before anything of pyrun."""
    with daemon(archive, leftovers.sysctls()) as running:
        yield running


@pytest.mark.needs("dockerd")
def test_docker_and_pyrun_side_by_side(docker: Docker, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    docker.works(internet)
    assert "-P FORWARD DROP" in chain("FORWARD"), "nothing here would cut pyrun's containers off"
    rules_before, links_before = leftovers.rules(), leftovers.links()

    begun = pyrun("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *web("pyr"))
    assert begun.returncode == 0, begun.stderr
    assert "DOCKER-USER" in begun.stderr, "the user is told"
    assert pyrun.ok("exec", "web", *ASK, f"http://{internet.far}/") == f"you are {internet.host}"
    assert page("127.0.0.1:8080") == page(f"{internet.host}:8080") == "pyr"
    assert page(f"{internet.host}:8080", "neighbour") == page(f"{internet.host}:8080", "internet") == "pyr"
    assert chain("DOCKER-USER").count(MARK) == 2
    assert MARK not in chain("FORWARD")
    assert "-P FORWARD DROP" in chain("FORWARD"), "a foreign policy is not ours to change"
    other = pyrun.ok("run", "--rm", "busybox", *ASK, f"http://{internet.host}:8081/")
    assert other == "dock", "one peer's container does not reach the other's published port"
    docker.works(internet)
    assert chain("DOCKER-USER").count(MARK) == 2, "a second start added rules"

    pyrun.ok("rm", "-f", "web")
    docker.works(internet)
    pyrun.ok("network", "prune")
    docker.works(internet)
    assert MARK not in output("nft", "list", "ruleset")
    assert (leftovers.rules(), leftovers.links()) == (rules_before, links_before)


@pytest.mark.needs("dockerd")
def test_a_daemon_that_starts_later(pyrun: Pyrun, archive: Path, internet: SimpleNamespace) -> None:
    """It drops what pyrun's containers send until the next start of pyrun, which heals and says so."""
    settings = leftovers.sysctls()
    begun = pyrun("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *web("pyr"))
    assert "DOCKER-USER" not in begun.stderr
    assert page(f"{internet.host}:8080", "neighbour") == "pyr"
    with daemon(archive, settings) as docker:
        # A daemon that finds forwarding switched on leaves the policy alone; its administrator may not.
        output("iptables", "-P", "FORWARD", "DROP")
        assert page(f"{internet.host}:8080", "neighbour", tries=1) == ""
        healed = pyrun("run", "--rm", "busybox", *ASK, f"http://{internet.far}/")
        assert (healed.returncode, healed.stdout) == (0, f"you are {internet.host}\n"), healed.stderr
        # by that start, or by the guard a moment before
        events = Path(pyrun.runroot, "networks/events")
        assert "DOCKER-USER" in healed.stderr + (events.read_text() if events.exists() else "")
        assert page(f"{internet.host}:8080", "neighbour") == "pyr"
        docker.works(internet)
        pyrun.ok("rm", "-f", "web")
        pruned = pyrun("network", "prune")
        assert "ip_forward stays 1: docker0 came after pyrun switched it on" in pruned.stderr
        assert MARK not in output("nft", "list", "ruleset")
        docker.works(internet)


# ── podman ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def podman(lab: None, archive: Path) -> Iterator[list[str]]:
    """podman's words, and a container `web` of it whose port 80 is the host's 8081."""
    sysctls = leftovers.sysctls()
    words = ["podman", "--root", f"{RUN}/beside", "--runroot", f"{RUN}/beside-run", "--runtime", "runc",
             "--cgroup-manager", "cgroupfs"]  # fmt: skip
    limits = ("--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000")  # without CAP_SYS_RESOURCE
    output(*words, "import", str(archive), "busybox")
    output(*words, "run", "-d", "--name", "web", *limits, "-p", "8081:80", "busybox", *web("pod"))
    yield words
    output(*words, "rm", "-a", "-f", "-t", "0")
    take_away(sysctls)


@pytest.mark.needs("podman")
@pytest.mark.needs("runc")
def test_podman_and_pyrun_side_by_side(podman: list[str], pyrun: Pyrun, internet: SimpleNamespace) -> None:
    def podman_works() -> None:
        assert page(f"{internet.host}:8081") == page(f"{internet.host}:8081", "neighbour") == "pod"
        asked = output(*podman, "exec", "web", *ASK, f"http://{internet.far}/")
        assert asked == f"you are {internet.host}\n"

    podman_works()
    rules_before = leftovers.rules()
    pyrun.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *web("pyr"))
    assert page("127.0.0.1:8080") == page(f"{internet.host}:8080", "neighbour") == "pyr"
    assert pyrun.ok("exec", "web", *ASK, f"http://{internet.far}/") == f"you are {internet.host}"
    podman_works()
    pyrun.ok("rm", "-f", "web")
    pyrun.ok("network", "prune")
    podman_works()
    assert leftovers.rules() == rules_before
