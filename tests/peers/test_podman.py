"""podman with pyrun-oci as its runtime: what Docker has not, or has in another way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peers.engines import IMAGE, Engine
from waiting import until

pytestmark = [pytest.mark.needs("podman"), pytest.mark.timeout(120)]

CONTAINERFILE = """
FROM localhost/busybox
RUN echo built >/made && id -u >>/made
ENV WHO=me
WORKDIR /tmp
RUN test "$WHO" = me && pwd >>/made
CMD ["cat", "/made"]
"""
# every RUN is a container of the builder's, which sets limits of its own
BUILD = ("build", "-q", "--isolation", "oci", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000")

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: duo
spec:
  containers:
  - name: server
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: [/bin/sh, -c, "mkdir /www; echo pod >/www/index.html; exec httpd -f -p 8000 -h /www"]
    resources:
      limits:
        memory: 64Mi
  - name: asker
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: [/bin/sh, -c, "until wget -q -O- http://127.0.0.1:8000/; do sleep 0.1; done 2>/dev/null; exec sleep 1000"]
"""


def test_it_knows_its_runtime(podman: Engine, runtime_paths: dict[str, str]) -> None:
    podman.start()
    assert podman.inspect(".OCIRuntime") == podman.runtime
    info = json.loads(podman.ok("info", "--format", "json"))["host"]["ociRuntime"]
    assert info["path"] == runtime_paths[podman.runtime] and info["version"].startswith(podman.runtime), info


def test_health(podman: Engine) -> None:
    podman.start(options=("--health-cmd", "test -e /ok", "--health-interval", "disable"))
    assert "unhealthy" in podman.fails(1, "healthcheck", "run", "box")
    podman.ok("exec", "box", "touch", "/ok")
    podman.ok("healthcheck", "run", "box")
    states = json.loads(podman.ok("inspect", "box"))[0]["State"]
    health = states.get("Health") or states["Healthcheck"]
    assert [each["ExitCode"] for each in health["Log"]] == [1, 0]


def test_build(podman: Engine, runtime_paths: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    runtime = runtime_paths[podman.runtime]
    podman.ok(*BUILD, "--no-cache", "--runtime", runtime, "-t", "built", str(tmp_path))
    assert podman.run("--rm", "built") == "built\n0\n/tmp"
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nRUN exit 3\n")
    error = podman(*BUILD, "--runtime", runtime, str(tmp_path)).stderr
    assert "exit status 3" in error, error


def test_a_pod_of_two_containers(podman: Engine, tmp_path: Path) -> None:
    """They share the network of a third one, which podman makes for the pod."""
    (tmp_path / "pod.yaml").write_text(POD)
    podman.ok("play", "kube", str(tmp_path / "pod.yaml"))
    until(lambda: podman.logs("duo-asker") == "pod", "the answer of the other container")
    names = podman.ok("ps", "--format", "{{.Names}}").split()
    assert {"duo-server", "duo-asker"} < set(names) and len(names) == 3
    assert len({podman.pid(name) for name in names}) == 3
    podman.ok("pod", "pause", "duo")
    assert podman.inspect(".State.Status", "duo-server") == "paused"
    podman.ok("pod", "unpause", "duo")
    podman.ok("pod", "stop", "-t", "0", "duo")
    podman.ok("play", "kube", "--down", str(tmp_path / "pod.yaml"))
    assert podman.ok("ps", "-a", "-q") == ""


def test_a_user_namespace(podman: Engine) -> None:
    podman.start(options=("--uidmap", "0:200000:1000", "--gidmap", "0:300000:1000"))
    assert podman.ok("exec", "box", "sh", "-c", "id -u; cat /proc/self/uid_map").split() == [
        "0",
        "0",
        "200000",
        "1000",
    ]
    status = Path(f"/proc/{podman.pid()}").stat()
    assert (status.st_uid, status.st_gid) == (200000, 300000)


def test_no_cgroups(podman: Engine) -> None:
    """--cgroups=disabled is crun's `--cgroup-manager disabled`."""
    if podman.runtime == "runc":
        pytest.xfail("runc has no such option")
    podman.start(options=("--cgroups", "disabled"))
    own = Path("/proc/self/cgroup").read_text()
    assert Path(f"/proc/{podman.pid()}/cgroup").read_text() == own, "it stays in the caller's"


def test_a_runtime_that_answers_without_json(podman: Engine, tmp_path: Path) -> None:
    """podman asks only runtimes it was told of for JSON; the others' words decide 127 all the same."""
    conf = Path(podman.env["CONTAINERS_CONF"])
    (tmp_path / "conf").write_text(conf.read_text().replace('"pyrun-oci", ', ""))
    told = Engine(**{**podman.__dict__, "env": podman.env | {"CONTAINERS_CONF": str(tmp_path / "conf")}})
    assert "not found" in told.fails(127, "run", "--rm", IMAGE, "no-such")
    assert told.run("--rm", IMAGE, "echo", "ran") == "ran"
