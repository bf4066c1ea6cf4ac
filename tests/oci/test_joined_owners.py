"""config.json: `linux.namespaces[].path` in a container with a user namespace, by which user namespace owns what is
joined: a process that has entered the container's can join no more than what root there has rights over.

Source: man 2 setns, man 7 user_namespaces; the order in which runc joins (libcontainer/nsenter, nsexec.c)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oci.box import Box
from oci.marks import shows
from oci.test_namespaces import FILES
from waiting import until

FLAGS = {"network": "--net", "ipc": "--ipc", "uts": "--uts", "cgroup": "--cgroup", "time": "--time"}
KINDS = ("network", "ipc", "uts", "cgroup")
MAP = "0 100000 65536"
# What can be mounted only by an owner of the namespace that it shows.
OF_KIND = {"network": "sysfs", "ipc": "mqueue", "pid": "proc"}
USER_FIRST: dict[str, Any] = {
    "differs": {"runc": "before 1.2 `exec` enters the user namespace first, and `run` one that is joined"}
}
Make = Callable[..., dict[str, str]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make namespaces of these kinds: their paths. maps: of a user namespace, which then owns the others; inside: the
    path of the user namespace that is around one of theirs."""
    started: list[subprocess.Popen[bytes]] = []

    def make(*kinds: str, maps: str = "", inside: str = "") -> dict[str, str]:
        user = ["--map-root-user"] if inside else ["--user"] if maps else []
        enter = ["nsenter", f"--user={inside}"] if inside else []
        words = [*enter, "unshare", *user, *(FLAGS[kind] for kind in kinds), "sleep", "1000"]
        started.append(subprocess.Popen(words))
        pid = started[-1].pid
        until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "unshare")
        for name in ("uid_map", "gid_map") if maps else ():
            Path(f"/proc/{pid}/{name}").write_text(maps)
        return {
            kind: f"/proc/{pid}/ns/{FILES.get(kind, kind)}" for kind in (*kinds, *(["user"] if maps else []))
        }

    yield make
    for process in started:
        process.kill()
        process.wait()


def join(box: Box, paths: dict[str, str]) -> None:
    """Name them in config.json; with a user namespace of its own, unless it is among them."""
    box.map_ids()
    if "user" in paths and box.runtime.name != "runc":  # before 1.2 it has to be told what is there
        del box.linux["uidMappings"], box.linux["gidMappings"]
    for kind, path in paths.items():
        box.namespace(kind, path)
        box.config["mounts"] = [each for each in box.config["mounts"] if each["type"] != OF_KIND.get(kind)]
    if "uts" in paths:
        del box.config["hostname"]


def is_in(box: Box, paths: dict[str, str]) -> None:
    """The container's process, and one that comes by `exec`, are there, and root in the user namespace."""
    assert Path(f"/proc/{box.pid}").stat().st_uid == 100000
    for kind, path in paths.items():
        name = FILES.get(kind, kind)
        wanted = os.readlink(path)
        assert os.readlink(f"/proc/{box.pid}/ns/{name}") == wanted, kind
        assert box.exec("readlink", f"/proc/self/ns/{name}") == wanted, kind
    assert box.exec("id", "-u") == "0"


def starts(box: Box, verb: str) -> None:
    if verb == "run":
        box.detach()
    else:
        box.create("sleep", "1000")
        box.start()


@shows("config: linux.namespaces[].path", "namespaces: joined ones of the host's, in a user namespace of its own",
       **USER_FIRST)  # fmt: skip
@pytest.mark.parametrize("verb", ["run", "create"])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS, ("time",)], ids=",".join)
def test_owned_by_the_host(box: Box, make: Make, kinds: tuple[str, ...], verb: str) -> None:
    paths = make(*kinds)
    join(box, paths)
    starts(box, verb)
    is_in(box, paths)


@shows("config: linux.namespaces[].path", "namespaces: joined ones of the host's, in a user namespace that is joined",
       **USER_FIRST)  # fmt: skip
def test_owned_by_the_host_beside_a_joined_user_namespace(box: Box, make: Make) -> None:
    paths = make(*KINDS) | make(maps=MAP)
    join(box, paths)
    box.detach()
    is_in(box, paths)


@shows("config: linux.namespaces[].path", "namespaces: joined ones of the user namespace that is joined")
@pytest.mark.parametrize("verb", ["run", "create"])
def test_owned_by_the_joined_user_namespace(box: Box, make: Make, verb: str) -> None:
    paths = make(*KINDS, maps=MAP)
    join(box, paths)
    starts(box, verb)
    is_in(box, paths)


@shows("config: linux.namespaces[].path", "namespaces: joined ones of several user namespaces",
       **USER_FIRST)  # fmt: skip
def test_each_owned_by_another(box: Box, make: Make) -> None:
    """The joined user namespace's, a third one's, one's below the joined one, and the host's."""
    joined = make("ipc", maps=MAP)
    below = make("uts", inside=joined["user"])
    third = make("network", maps="0 300000 1000")
    paths = joined | {"uts": below["uts"], "network": third["network"]} | make("cgroup")
    join(box, paths)
    box.detach()
    is_in(box, paths)


@shows("config: linux.namespaces[].path", "namespaces: a joined pid namespace beside those of other owners",
       **USER_FIRST)  # fmt: skip
@pytest.mark.parametrize("user", [True, False], ids=["joined", "new"])
def test_beside_a_joined_pid_namespace(box: Box, make: Make, user: bool) -> None:
    sandbox = Box(box.runtime, box.directory / "sandbox", box.rootfs, f"{box.id}-sandbox")
    try:
        if user:
            sandbox.map_ids()
        sandbox.detach()
        paths = make("network", "uts") | {"pid": f"/proc/{sandbox.pid}/ns/pid"}
        if user:
            paths["user"] = f"/proc/{sandbox.pid}/ns/user"
        join(box, paths)
        box.detach()
        assert Path(f"/proc/{box.pid}").stat().st_uid == 100000
        for kind, path in paths.items():
            assert os.readlink(f"/proc/{box.pid}/ns/{FILES[kind]}") == os.readlink(path), kind
    finally:
        box.call("delete", "--force", box.id)
        sandbox.close()
