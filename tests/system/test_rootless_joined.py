"""An ordinary user's container in the network namespace of another one of the same user's."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from unprivileged import UserPyrun

pytestmark = pytest.mark.needs("user_namespaces")
both = pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.needs(mode)) for mode in ("pasta", "slirp4netns")]
)

SERVE = "mkdir /w; echo hello >/w/index.html; exec httpd -f -h /w -p 80"


@both
def test_the_network_of_another_container(solo: UserPyrun, internet: SimpleNamespace, mode: str) -> None:
    """One namespace, one loopback, and the files that belong to it: as root has it."""
    words = ("run", "-d", "--name", "web", f"--net={mode}", "-h", "shop", "--add-host", "db:10.1.1.1")
    solo.ok(*words, "busybox", "sh", "-c", SERVE)
    of_web = solo.ok("exec", "web", "readlink", "/proc/self/ns/net")
    script = f"""readlink /proc/self/ns/net; hostname; grep db /etc/hosts; echo 10.9.9.9 late >>/etc/hosts
        cat /sys/class/net/*/type | sort -u; wget -qO- http://{internet.far}/
        for i in $(seq 100); do wget -qO- http://127.0.0.1/ && exit; sleep 0.05; done"""
    printed = solo.ok("run", "--rm", "--network=container:web", "busybox", "sh", "-c", script).splitlines()
    assert printed == [of_web, "shop", "10.1.1.1\tdb", "1", "772", f"you are {internet.host}", "hello"]
    assert "10.9.9.9 late" in solo.ok("exec", "web", "cat", "/etc/hosts"), "the file is one and the same"
    solo.ok("run", "-d", "--name", "guest", "--network=container:web", "busybox", "sleep", "100")
    assert solo.ok("exec", "guest", "readlink", "/proc/self/ns/net") == of_web
    solo.ok("rm", "-f", "guest")
    script = f"wget -qO- http://{internet.far}/"
    assert solo.ok("exec", "web", "sh", "-c", script) == f"you are {internet.host}", (
        "the guest's end ends nothing"
    )


def test_of_a_container_on_the_hosts_network(solo: UserPyrun) -> None:
    """Nobody enters the host's namespace, which is root's to do: one is there already."""
    solo.ok("run", "-d", "--name", "web", "--net=host", "busybox", "sleep", "100")
    words = ("run", "--rm", "--network=container:web", "busybox", "readlink", "/proc/self/ns/net")
    done = solo(*words)
    assert done.stdout.strip() == os.readlink("/proc/self/ns/net")
    assert "with --network container:web, which is the host's own, the container reaches" in done.stderr
    script = "ls /sys/class/net; touch /sys/x"
    done = solo("run", "--rm", "--network=container:web", "busybox", "sh", "-c", script)
    assert "eth0" in done.stdout.split() and "Read-only file system" in done.stderr


def test_a_container_whose_network_cannot_be_had(solo: UserPyrun) -> None:
    solo.ok("run", "-d", "--name", "web", "--net=none", "busybox", "sleep", "100")
    for words, told in (
        (
            ("container:web", "-p=8080:80"),
            "--publish is refused with --network container:web: it would change",
        ),
        (
            ("container:web", "--dns=192.0.2.1"),
            "--dns is refused with --network container:web: it would change",
        ),
        (("container:nobody",), "--network container:nobody: no such container"),
        ((f"/proc/{solo.state('web')['pid']}/ns/net",), "only root can connect a container to a network"),
    ):
        error = solo.fails(125, "run", "--rm", f"--network={words[0]}", *words[1:], "busybox", "true")
        assert told in error
    solo.ok("stop", "-t", "0", "web")
    error = solo.fails(125, "run", "--rm", "--network=container:web", "busybox", "true")
    assert error.startswith("pyrun: --network container:web: the container does not run")
