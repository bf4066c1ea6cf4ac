"""Networks that come and go on one host: pyrun's beside a Docker daemon with FORWARD policy DROP, and Docker's and
podman's beside pyrun's.

After every step both sides are asked whether all works: published ports from everywhere, the way out, names, and that
neither side's unpublished ports are reached from the other. What is left in the end is what was there before.
One container a side, default networks: test_docker_beside.py.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import leftovers
from command import Pyrun
from peers.engines import RUN, docker_daemon, finished, output, page, take_away, web
from waiting import until

MARK = "pyrun: containers"
# A daemon's start and end change many rules; the guard looks once a second at most.
HEALED_S = 8.0

pytestmark = pytest.mark.timeout(240)


class Side:
    """One engine with a container `web`, published, and a container `client` beside it."""

    def __init__(self, call: Callable[..., str], port: int, text: str) -> None:
        self.call, self.port, self.text = call, port, text
        self.call("run", "-d", "--name", "web", "-p", f"{port}:80", "busybox", *web(text))
        self.call("run", "-d", "--name", "client", "busybox", *web("private", 81))

    def ask(self, url: str, seconds: str = "3") -> str:
        """What `client` is told; "" for nothing."""
        try:
            return self.call("exec", "client", "timeout", seconds, "wget", "-q", "-O-", url)
        except AssertionError:
            return ""

    def wrong(self, internet: SimpleNamespace) -> list[str]:
        """What does not work."""
        here = f"{internet.host}:{self.port}"
        checks = {
            "from this host": page(f"127.0.0.1:{self.port}", tries=10) == self.text,
            "from the LAN": page(here, "neighbour", tries=10) == self.text,
            "from the internet": page(here, "internet", tries=10) == self.text,
            "the way out": self.ask(f"http://{internet.far}/") == f"you are {internet.host}",
        }
        return [what for what, works in checks.items() if not works]

    def remove(self) -> None:
        self.call("rm", "-f", "web", "client")


class Both:
    """Docker's side and pyrun's."""

    def __init__(self, docker: Side, pyrun: Side, internet: SimpleNamespace, command: Pyrun) -> None:
        self.docker, self.pyrun, self.internet, self.command = docker, pyrun, internet, command

    def work(self, when: str, within_s: float = 0) -> None:
        """Both do; after *within_s* at the latest."""
        deadline = time.monotonic() + within_s
        while any(wrong := {name: side.wrong(self.internet) for name, side in self.sides().items()}.values()):
            assert time.monotonic() < deadline, f"{when}: {wrong}"
        for name, side in self.sides().items():
            other = self.pyrun if side is self.docker else self.docker
            published = side.ask(f"http://{self.internet.host}:{other.port}/")
            assert published == other.text, f"{when}: {name} does not reach what the other side publishes"
            unpublished = side.ask(f"http://{self.address(other)}:81/", "0.5")
            assert unpublished == "", f"{when}: {name} reaches an unpublished port: {unpublished}"

    def sides(self) -> dict[str, Side]:
        return {"docker": self.docker, "pyrun": self.pyrun}

    def address(self, side: Side) -> str:
        return side.call("exec", "client", "hostname", "-i").split()[0]


def words(client: list[str]) -> Callable[..., str]:
    return lambda *args: output(*client, *args).strip()


@contextmanager
def docker_side(archive: object, sysctls: set[str], port: int = 8081) -> Iterator[Side]:
    with docker_daemon(sysctls=sysctls) as client:
        call = words(client)
        if not call("images", "-q", "busybox"):
            call("import", str(archive), "busybox")
        finished([*client, "rm", "-f", "web", "client"])
        side = Side(call, port, "dock")
        try:
            yield side
        finally:
            finished([*client, "rm", "-f", "web", "client"])


@pytest.fixture
def both(lab: None, archive: object, pyrun: Pyrun, internet: SimpleNamespace) -> Iterator[Both]:
    """The daemon first, whose FORWARD chain drops, then pyrun."""
    with docker_side(archive, leftovers.sysctls()) as docker:
        rules = leftovers.rules()
        assert "-P FORWARD DROP" in output("iptables", "-S", "FORWARD")
        yield Both(docker, Side(pyrun.ok, 8080, "pyr"), internet, pyrun)
        pyrun.ok("rm", "-f", "web", "client")
        pyrun.ok("network", "prune")
        assert MARK not in output("nft", "list", "ruleset")
        assert leftovers.rules() == rules
        assert docker.wrong(internet) == []


@pytest.mark.needs("dockerd")
def test_networks_of_pyrun_come_and_go(both: Both) -> None:
    """With IPv6, internal, isolated; connected and disconnected; removed; flushed and healed."""
    pyrun = both.command
    both.work("at the beginning")
    for name, *options in (("six", "--ipv6"), ("inner", "--internal"), ("apart", "--isolate", "--icc=false")):
        pyrun.ok("network", "create", *options, name)
        both.work(f"after network create {' '.join(options)}")
        pyrun.ok("network", "connect", name, "client")
        both.work(f"after network connect {name}")
    pyrun.ok("network", "reload")
    both.work("after network reload")
    for name in ("six", "inner", "apart"):
        pyrun.ok("network", "disconnect", name, "client")
        pyrun.ok("network", "rm", name)
        both.work(f"after network rm {name}")
    for table in ("inet", "bridge"):
        output("nft", "delete", "table", table, "pyrun")
    both.work("after pyrun's tables were deleted", HEALED_S)


@pytest.mark.needs("dockerd")
def test_networks_of_docker_come_and_go(both: Both, internet: SimpleNamespace) -> None:
    """And ports of its containers; neither side notices the other's."""
    call = both.docker.call
    both.work("at the beginning")
    for options in (
        (),
        ("--internal",),
        ("--subnet=172.31.0.0/24", "-o", "com.docker.network.bridge.enable_icc=false"),
    ):
        call("network", "create", *options, "other")
        both.work(f"after docker network create {' '.join(options)}")
        call("run", "-d", "--name=more", "--network=other", "-p", "8083:80", "busybox", *web("more"))
        if options != ("--internal",):
            assert page(f"{internet.host}:8083", "neighbour") == "more"
        both.work("after docker run there")
        call("rm", "-f", "more")
        call("network", "rm", "other")
        both.work("after docker network rm")
    error = both.command.fails(1, "network", "create", "--subnet=172.17.0.0/16", "clash")
    assert "172.17.0.0/16" in error


@pytest.mark.needs("dockerd")
def test_the_daemon_is_started_again(pyrun: Pyrun, archive: object, internet: SimpleNamespace) -> None:
    """pyrun's containers, which were there first, are healed without any start: while it comes, restarts, and goes."""
    settings = leftovers.sysctls()
    ours = Side(pyrun.ok, 8080, "pyr")

    def well(when: str) -> None:
        deadline = time.monotonic() + HEALED_S
        while wrong := ours.wrong(internet):
            assert time.monotonic() < deadline, f"{when}: {wrong}"

    for round_ in ("comes", "comes again"):
        with docker_side(archive, settings) as docker:
            # as its administrator may; found on, it leaves forwarding alone
            output("iptables", "-P", "FORWARD", "DROP")
            well(f"the daemon {round_}")
            assert docker.wrong(internet) == []
            assert "-P FORWARD DROP" in output("iptables", "-S", "FORWARD")
            keep = leftovers.sysctls()
        # what it leaves is taken away together with forwarding and pyrun's rules: as if somebody reset the host
        assert keep >= {"net/ipv4/ip_forward = 1"}
        well(f"the daemon {round_}, and goes")


# ── podman ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def podman(lab: None, archive: object) -> Iterator[Side]:
    """podman, with what manages networks for it here: netavark or the CNI plugins."""
    sysctls = leftovers.sysctls()
    client = ["podman", "--root", f"{RUN}/network", "--runroot", f"{RUN}/network-run", "--runtime", "runc",
              "--cgroup-manager", "cgroupfs"]  # fmt: skip
    limits = ("--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000")  # without CAP_SYS_RESOURCE

    def call(verb: str, *args: str) -> str:
        more = limits if verb == "run" else ()
        return output(*client, verb, *more, *(("-t", "0") if verb == "rm" else ()), *args).strip()

    output(*client, "import", str(archive), "busybox")
    yield Side(call, 8082, "pod")
    output(*client, "rm", "-a", "-f", "-t", "0")
    take_away(sysctls)


@pytest.mark.needs("podman")
@pytest.mark.needs("runc")
def test_networks_of_podman_come_and_go(podman: Side, pyrun: Pyrun, internet: SimpleNamespace) -> None:
    ours = Side(pyrun.ok, 8080, "pyr")
    try:
        for step in (("network", "create", "other"), ("network", "rm", "-f", "other")):
            podman.call(*step)
            until(lambda: not ours.wrong(internet), f"pyrun after podman {' '.join(step)}")
            assert podman.wrong(internet) == []
        for name in ("one", "two"):
            pyrun.ok("network", "create", "--ipv6", name)
            pyrun.ok("network", "connect", name, "client")
            assert podman.wrong(internet) == ours.wrong(internet) == []
        for name in ("one", "two"):
            pyrun.ok("network", "disconnect", name, "client")
            pyrun.ok("network", "rm", name)
            assert podman.wrong(internet) == ours.wrong(internet) == []
        subprocess.run(["nft", "delete", "table", "inet", "pyrun"], check=True)
        until(lambda: not ours.wrong(internet), "the guard", timeout_s=HEALED_S)
        assert podman.wrong(internet) == []
    finally:
        ours.remove()
    pyrun.ok("network", "prune")
    assert podman.wrong(internet) == []
