"""The main job, by its very sentence: `pyrun run --net=bridge ubuntu bash`.

No source of Ubuntu's images is reachable from here, so what is called ubuntu in these tests is not Ubuntu: a mirror
table sends Docker Hub's names to a registry on this host, which holds a Debian root as library/ubuntu. It is the
debian image that `make setup` made. Everything else is as on any machine: the name is resolved, the image is pulled
through the registry's protocol, and bash runs on a terminal in a container on the bridge.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from types import SimpleNamespace

import pytest

import leftovers
from command import Pyrun
from image_files import Image, layout
from registries import push, real_registry
from waiting import emptied

STORE = Path("/var/lib/pyrun")
NOT_NEEDED = (
    "./usr/share/doc",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/cache",
    "./var/lib/apt/lists",
)
# bash's own network client
FETCH = 'exec 3<>/dev/tcp/{}/80; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3; exec 3<&-'

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


# ── the mirror ─────────────────────────────────────────────────────────────────────────────────────


def debian_root() -> Path:
    """The only layer of the debian image in this machine's store."""
    for path in STORE.glob("images/*/image.json"):
        image = json.loads(path.read_text())
        if "docker.io/library/debian:latest" in image["names"]:
            return Path(image["layers"][0])
    pytest.fail("there is no debian image in /var/lib/pyrun: `make setup` makes it")


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mirror table: Docker Hub is a registry on this host alone, and there library/ubuntu is a Debian root."""
    directory = tmp_path_factory.mktemp("mirror")
    left_out = [f"--exclude={each}/*" for each in NOT_NEEDED]
    packed = subprocess.run(
        ["tar", "-C", str(debian_root()), "--numeric-owner", *left_out, "-cf-", "."],
        stdout=subprocess.PIPE,
        check=True,
    )
    config = {
        "Cmd": ["/bin/bash"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    image = Image([packed.stdout], config=config, compress=False)
    with real_registry(directory) as host:
        push(
            layout(directory / "layout", image, name="x"),
            host,
            "library/ubuntu:latest",
            "--dest-compress-level=1",
        )
        table = directory / "registries.yaml"
        table.write_text(f"mirrors: {{docker.io: [{{url: 'http://{host}', insecure: true, only: true}}]}}\n")
        yield table


@pytest.fixture
def before() -> dict[str, set[str]]:
    """The host as it was before anything of pyrun."""
    return surroundings()


@pytest.fixture
def ubuntu(before: dict[str, set[str]], pyrun: Pyrun, mirrors: Path) -> Pyrun:
    """A host on which the sentence has been said once: image, bridge and rules are there."""
    pyrun.env["PYRUN_REGISTRIES"] = str(mirrors)
    assert "ubuntu" not in pyrun.ok("images")
    said = pyrun("run", "--net=bridge", "ubuntu", "bash")
    # As in Docker: without -i its input is empty, so bash ends at once and well.
    assert (said.returncode, said.stdout) == (0, ""), said.stderr
    assert "network bridge: bridge pyrun0 made" in said.stderr
    assert "ubuntu" in pyrun.ok("images")
    pyrun.ok("rm", *pyrun.ok("ps", "-a", "-q").split())
    return pyrun


def surroundings() -> dict[str, set[str]]:
    """What leftovers.py sees, and every setting of the network."""
    found = leftovers.picture()
    for path in Path("/proc/sys/net").rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o400 and path.name != "nf_conntrack_count":
            try:
                found["sysctl"].add(f"{path} = {path.read_text().strip()}")
            except OSError:  # some can only be written
                continue
    return found


def settled(before: dict[str, set[str]]) -> list[str]:
    """The differences to *before* once the kernel has had its time."""
    return emptied(lambda: leftovers.difference(before, surroundings()))


# ── somebody at a terminal ─────────────────────────────────────────────────────────────────────────


class Terminal:
    """`pyrun ARGS` on a terminal, and somebody who types."""

    def __init__(self, pyrun: Pyrun, *args: str) -> None:
        self.fd, inner_fd = os.openpty()
        self.process = pyrun.start(
            *args, stdin=inner_fd, stdout=inner_fd, stderr=inner_fd, start_new_session=True
        )
        os.close(inner_fd)
        self.count, self.seen = 0, ""

    def type(self, line: str) -> str:
        """Type a command at the prompt; what it printed, without the terminal's escape sequences."""
        self.read_until(r"[#$] $")
        self.count += 1
        # What is typed is echoed: only the command's own output has the number computed.
        os.write(self.fd, f"{line}; echo done-$(({self.count}+1000))-$?\n".encode())
        seen = self.read_until(rf"done-{self.count + 1000}-\d+\n")
        printed, _, status = seen.partition("-$?\n")[2].rpartition(f"done-{self.count + 1000}-")
        assert status.startswith("0\n"), f"{line!r} failed:\n{seen}"
        return printed

    def read_until(self, pattern: str, timeout_s: float = 20) -> str:
        """Everything printed until *pattern* is found; what follows it stays for the next time."""
        deadline = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited in vain for {pattern!r}:\n{self.seen}"
            self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")
            self.seen = re.sub(r"\x1b\[\??[0-9;]*[a-zA-Z]|\r", "", self.seen)
        found, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return found

    def leave(self, status: int) -> None:
        """Type `exit`, and expect that status of pyrun."""
        os.write(self.fd, f"exit {status}\n".encode())
        assert self.process.wait(10) == status
        os.close(self.fd)


def address_in(shown: str) -> str:
    """The address that `ip -4 addr show` printed."""
    return re.search(r"inet ([0-9.]+)/\d+", shown)[1]  # type: ignore[index]


# ── the tests ──────────────────────────────────────────────────────────────────────────────────────


def test_somebody_types_into_the_shell(ubuntu: Pyrun, internet: SimpleNamespace) -> None:
    shell = Terminal(ubuntu, "run", "-it", "--rm", "--name", "first", "--net=bridge", "ubuntu", "bash")
    assert "ID=debian" in shell.type("cat /etc/os-release"), "the mirror holds a Debian root"
    assert shell.type("tty").startswith("/dev/")
    interface = ip_interface(re.search(r"inet (\S+)", shell.type("ip -4 addr show eth0"))[1])  # type: ignore[index]
    gateway = str(interface.network[1])
    assert shell.type("ip route").splitlines() == [
        f"default via {gateway} dev eth0 ",
        f"{interface.network} dev eth0 proto kernel scope link src {interface.ip} ",
    ]
    assert "1 received" in shell.type(f"ping -c1 -W2 {gateway}")
    # By name, through the lab's DNS server; the far server says whom it sees: the host, not the container.
    assert f"you are {internet.host}" in shell.type(FETCH.format(internet.name))
    # What the neighbour on the LAN is asked, it answers to the host as well.
    assert "1 received" in shell.type(f"ping -c1 -W2 {internet.neighbour}")
    shell.leave(7)


def test_a_second_container_and_the_host(ubuntu: Pyrun) -> None:
    shell = Terminal(ubuntu, "run", "-it", "--rm", "--name", "first", "--net=bridge", "ubuntu", "bash")
    first = address_in(shell.type("ip -4 addr show eth0"))
    ubuntu.ok("run", "-d", "--name", "second", "--net=bridge", "ubuntu", "sleep", "1000")
    second = address_in(ubuntu.ok("exec", "second", "ip", "-4", "addr", "show", "eth0"))
    assert first != second
    assert "1 received" in shell.type(f"ping -c1 -W2 {second}")
    assert "1 received" in ubuntu.ok("exec", "second", "ping", "-c1", "-W2", first)
    for name, address in (("first", first), ("second", second)):
        assert "1 received" in by_hand("ping", "-c1", "-W2", address)
        assert address_in(by_hand("ip", "netns", "exec", name, "ip", "-4", "addr", "show", "eth0")) == address
        assert name in by_hand("ip", "netns", "list").split()
    shell.leave(0)


@pytest.mark.alone
def test_afterwards_the_host_is_as_before(
    ubuntu: Pyrun, before: dict[str, set[str]], internet: SimpleNamespace
) -> None:
    shell = Terminal(ubuntu, "run", "-it", "--rm", "-p", "8080:80", "--net=bridge", "ubuntu", "bash")
    assert "you are" in shell.type(FETCH.format(internet.name))
    ubuntu.ok("run", "-d", "--name", "second", "--net=bridge", "-m", "64m", "ubuntu", "sleep", "1000")
    assert "+ link: pyrun0" in leftovers.difference(before, surroundings()), "the picture shows nothing"
    shell.leave(0)
    ubuntu.ok("rm", "-f", "second")
    rested = (
        FORWARD.read_text() == "0\n"
    )  # the guard waits for two seconds, and less is left on a busy machine
    pruned = ubuntu.ok("network", "prune")
    assert "bridge" in pruned and (rested or "net.ipv4.ip_forward = 0" in pruned)
    assert settled(before) == []


def by_hand(*words: str) -> str:
    """A command of the host."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
