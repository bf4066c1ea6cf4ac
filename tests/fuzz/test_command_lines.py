"""Every option of pyrun and pyrun-oci with values at random: taken, or refused in one line; never a traceback.

`run` is only planned (--dry-run). The other verbs do what they do, to a container of this test's own on the lab host.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import attempts
from command import Pyrun
from hostile_oci import Oci
from pyrun.cli import oci_options, oci_tables, tables
from pyrun.engine import bundle, run  # noqa: F401  (in the parent, so that no child has to)
from pyrun.plan import catalogue, explain  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.lab]

VALUES = (
    "", " ", "a", "-", "--", "-1", "+1", "0", "1", "9" * 20, "9" * 310, "9" * 5000, "9" * 310 + "m", "1e999", "nan",
    "inf", "0x10", "1_000", "٣", "²", "/", "..", "/a/../../b", "a\nb", "\x1b[31m", "\udc80", "x" * 5000, ":", "::",
    "=", ",", ",,", "a=", "=a", "a=b", "[::1", "[]:1", "::/0", "1.2.3.4/99", "1.2.3.4/" + "9" * 5000, "0.0.0.0/0",
    "10.0.0.0/8", "fd00::1", "5-", "-5", "5-4", "1-65536", "80/", "80/tcp", "80/frob", "%", "%s", "{}", "{0}", "{name}",
    "$(id)", "`id`", "a:b:c:d:e", ":" * 300, "," * 300, "/dev/full", "/proc/self/mem", "/dev/zero",
)  # fmt: skip
# Values that are right, by the destination of the option, to be changed by a piece or two.
RIGHT: dict[str, tuple[str, ...]] = {
    "publish": ("127.0.0.1:8080-8081:80-81/udp", "[::1]:80:80", "published=80,target=90,protocol=tcp"),
    "expose": ("80-90/udp",), "user": ("1000:1000", "root"), "group_add": ("1000",), "memory": ("512m", "1.5GiB"),
    "shm_size": ("64m",), "cpus": ("0.5",), "ulimit": ("nofile=1024:2048",), "sysctl": ("net.core.somaxconn=1024",),
    "network": ("bridge:ip=10.77.0.9,mac=02:00:00:00:00:01,alias=x,ifname=eth5,gw-priority=3", "container:box", "ns:x",
                "macvlan:eth0:mode=bridge", "cni:x", "l2:eth0"),
    "egress": ("example.org:443/tcp,10.0.0.0/8:80-90/udp,deny:10.1.0.0/16,dns", "[fd00::]/8:443"),
    "net_rate": ("in=10mbit,out=2mbit",), "net_fault": ("delay=100ms,jitter=20ms,loss=1%",),
    "add_host": ("db:10.0.0.7",), "tmpfs": ("/run:size=64m,mode=1777",), "volume": ("/etc:/in:ro,rslave", "/data"),
    "platform": ("linux/arm/v7",), "security_opt": ("seccomp=/etc/hostname", "no-new-privileges:true"),
    "mac_address": ("02:00:00:00:00:01",), "ip": ("10.77.0.9",), "ip6": ("fd00::9",), "filter": (
        "exited=0", "publish=80-90/tcp", "status=running", "label=a=b", "before=box", "since=box", "ancestor=busybox"),
    "since": ("2026-01-31T10:00:00Z", "10m", "1700000000.5"), "until": ("1h30m",), "tail": ("10",),
    "subnets": ("10.9.0.0/24",), "gateways": ("10.9.0.1",), "ranges": ("10.9.0.0/25",),
    "opt": ("parent=eth0", "mode=bridge", "com.docker.network.driver.mtu=1400"), "label": ("a=b",),
    "dns": ("10.0.0.1",), "dns_search": ("a.test",), "dns_option": ("ndots:2",), "stop_signal": ("RTMIN+3", "9"),
    "signal": ("RTMAX-1",), "timeout": ("3",), "cap_add": ("NET_ADMIN",), "env": ("A=b",), "workdir": ("/srv",),
    "interval": ("1m30s",), "additional_gids": ("5",), "cgroup": ("memory:a",), "cpu_quota": ("50000",),
    "memory_swap": ("-1",), "cpuset_cpus": ("0-3,7",), "l3_cache_schema": ("L3:0=f",),
}  # fmt: skip
ARGUMENTS = {"run": ["busybox", "true"], "exec": ["box", "true"], "images": [], "ps": [], "info": [], "version": [],
             "network connect": ["net", "box"], "network disconnect": ["net", "box"], "network ls": [], "port": ["box"],
             "logs": ["box"], "port add": ["box", "80"], "port rm": ["box", "80"], "system reconcile": [],
             "network prune": [], "network reload": [], "load": [], "network policy": ["box", "dns"]}  # fmt: skip
ELSEWHERE = ("system finish", "pull")  # test_documents.py; asks a registry
PLACES = {"network policy": ("box", ""), "port add": ("box", ""), "port rm": ("box", ""), "network create": ("",),
          "network adopt": ("",), "kill": ("",), "images": ("",), "rmi": ("",), "port": ("box", "")}  # fmt: skip


def value_for(destination: str, chance: random.Random) -> str:
    """Something from VALUES, or something right with up to three pieces cut out, doubled or put in."""
    right = RIGHT.get(destination, ())
    if not right or chance.randrange(3) == 0:
        return chance.choice(VALUES)
    text = chance.choice(right)
    for _ in range(chance.randrange(4)):
        first, last = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        text = (
            text[:first] + chance.choice(("", "", text[first:last] * 2, chance.choice(VALUES))) + text[last:]
        )
        if len(text) > 100_000:
            break
    return text


def pyrun_lines(verb: str) -> Callable[[random.Random], list[str]]:
    rows = [row for row in tables.VERBS[verb][0] if row[1] != "flag"]
    flags = [
        row[0][-1] for row in tables.VERBS[verb][0] if row[1] == "flag" and row[2] not in ("follow", "bundle")
    ]

    def line(chance: random.Random) -> list[str]:
        words = [*verb.split(), *(["--dry-run"] if verb == "run" else [])]
        for row in chance.choices(rows, k=chance.choice((1, 1, 1, 2, 3))) if rows else ():
            words.append(f"{row[0][-1]}={value_for(row[2], chance)}")
        words += chance.sample(flags, chance.randrange(2)) if flags else []
        if verb in PLACES and chance.randrange(2):
            return [*words, *[each or value_for(verb.split()[0], chance) for each in PLACES[verb]]]
        return [*words, *ARGUMENTS.get(verb, ["nobody"])]

    return line


def oci_lines(command: str) -> Callable[[random.Random], list[str]]:
    names, _ = oci_options._known(oci_tables.COMMANDS[command][0])
    whole, _ = oci_options._known(oci_tables.GLOBAL)
    live = {"exec": ["box", "true"], "update": ["box"], "ps": ["box"], "list": [], "features": [], "spec": []}

    def given(known: dict[str, tuple[str, str]], chance: random.Random) -> list[str]:
        name = chance.choice(
            [name for name in known if name not in ("h", "help", "log", "root", "console-socket")]
        )
        key, kind = known[name]
        return [f"--{name}={value_for(key, chance)}"] if kind != "b" else [f"--{name}"]

    def line(chance: random.Random) -> list[str]:
        words = given(whole, chance) if chance.randrange(5) == 0 else []
        words.append(command)
        for _ in range(chance.choice((1, 1, 2, 3))):
            words += given(names, chance) if len(names) > 2 else []
        last = [value_for("stop_signal", chance)] if command == "kill" else []
        return [*words, *live.get(command, ["nobody"]), *last]

    return line


def search(
    line: Callable[[random.Random], list[str]], attempt: Callable[[list[str]], str], seed: int, seconds: float
) -> None:
    """Raises AssertionError with each traceback that is found, once."""
    found: dict[str, str] = {}
    for each in (1, seed):
        chance, deadline = random.Random(each), time.monotonic() + seconds
        while time.monotonic() < deadline:
            words = line(chance)
            if told := attempt(words):
                place = (
                    "\n".join([text for text in told.splitlines() if "site-packages" in text][-1:]) or told
                )
                found.setdefault(place, f"{[word[:300] for word in words]}\n{told[-1500:]}")
    assert not found, "\n\n".join(found.values())


@pytest.fixture
def box(pyrun: Pyrun) -> Iterator[Pyrun]:
    """With a container and a network."""
    pyrun.ok("run", "-d", "--name", "box", "--net=bridge", "busybox", "sleep", "1000")
    pyrun.ok("network", "create", "net")
    yield pyrun
    for row in pyrun.ok("network", "ls", "-q").splitlines():
        pyrun("network", "rm", row)


@pytest.mark.parametrize("verb", [verb for verb in tables.VERBS if verb not in ELSEWHERE])
def test_options_of_pyrun(verb: str, box: Pyrun, random_seed: int, seconds: float) -> None:
    def attempt(words: list[str]) -> str:
        return attempts.tracebacks(lambda: attempts.pyrun(*words), box.directory, box.runroot)

    search(pyrun_lines(verb), attempt, random_seed, seconds / 4)


@pytest.mark.parametrize("command", oci_tables.COMMANDS)
def test_options_of_pyrun_oci(
    command: str, static_binary: Path, tmp_path: Path, random_seed: int, seconds: float
) -> None:
    oci = Oci(static_binary.with_name("pyrun-oci"), tmp_path)
    oci.root.mkdir()
    (tmp_path / "here").mkdir()

    def attempt(words: list[str]) -> str:
        def call() -> None:
            os.chdir(tmp_path / "here")
            attempts.pyrun_oci("--root", str(oci.root), *words)

        return attempts.tracebacks(call, tmp_path)

    try:
        if command in ("exec", "update", "ps"):
            oci.detach("box")
        search(oci_lines(command), attempt, random_seed, seconds / 4)
    finally:
        oci.close()
