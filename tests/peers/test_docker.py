"""Docker with `--add-runtime`: what podman has not, or has in another way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peers.engines import IMAGE, Engine
from peers.test_podman import CONTAINERFILE
from waiting import until

pytestmark = [pytest.mark.needs("dockerd"), pytest.mark.timeout(120)]


def test_it_lists_its_runtimes(docker: Engine) -> None:
    runtimes = json.loads(docker.ok("info", "-f", "{{json .Runtimes}}"))
    assert runtimes["pyrun"]["path"].endswith("/pyrun-oci") and "runc" in runtimes
    docker.start()
    assert docker.inspect(".HostConfig.Runtime") == docker.run_words[-1]


def test_health(docker: Engine) -> None:
    """The daemon runs the check by exec, once a second."""
    options = ("--health-cmd", "test -e /ok", "--health-interval", "1s", "--health-retries", "1")
    docker.start(options=options)
    until(lambda: docker.inspect(".State.Health.Status") == "unhealthy", "a failing check")
    docker.ok("exec", "box", "touch", "/ok")
    until(lambda: docker.inspect(".State.Health.Status") == "healthy", "a check that succeeds")


def test_build(docker: Engine, tmp_path: Path) -> None:
    """By the daemon's own builder: each RUN is a container of the default runtime, which is ours here."""
    (tmp_path / "Dockerfile").write_text(CONTAINERFILE.replace("localhost/", ""))
    docker.ok("build", "-q", "--no-cache", "-t", "built", str(tmp_path))
    assert docker.run("--rm", "built") == "built\n0\n/tmp"
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN exit 3\n")
    assert "non-zero code: 3" in docker("build", str(tmp_path)).stderr


def test_the_daemons_init(docker: Engine) -> None:
    """--init: the daemon's little init is bound into the container and reaps."""
    assert "docker-init" in docker.run("--rm", "--init", IMAGE, "cat", "/proc/1/cmdline")


def test_restart_policy(docker: Engine) -> None:
    docker.start("sh", "-c", "exit 1", options=("--restart", "on-failure:2"))
    until(lambda: docker.inspect(".RestartCount") == "2", "the second restart")
    until(lambda: docker.inspect(".State.Status") == "exited", "the end")


def test_a_private_cgroup_namespace(docker: Engine) -> None:
    printed = docker.run("--rm", "--cgroupns", "private", IMAGE, "cat", "/proc/self/cgroup")
    assert {line.split(":")[2] for line in printed.splitlines()} == {"/"}


def test_the_daemon_hears_of_a_kill_by_the_kernel(docker: Engine) -> None:
    options = ("--memory", "16m", "--memory-swap", "16m")
    # containerd begins to listen when `start` has returned
    docker.start("sh", "-c", "sleep 1; tail /dev/zero; exit 1", options=options)
    docker.ok("wait", "box")
    until(lambda: docker.inspect(".State.OOMKilled") == "true", "the daemon's knowledge")
