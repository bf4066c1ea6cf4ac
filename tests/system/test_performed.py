"""What is explained is performed, and what is performed is explained: kind by kind, of real starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun
from performed import OTHERS
from pyrun.plan import catalogue
from pyrun.plan.catalogue.network import CLAIM
from segments import CARD, segment

SCRIPT = Path(__file__).resolve().parents[1] / "performed.py"
KINDS = catalogue.kinds()
CLAIMED = {kind for kind, row in KINDS.items() if row.by == CLAIM}


@pytest.fixture
def card(lab: None) -> Iterator[None]:
    """A card of the host's. Before `pyrun` in a test: it outlives its containers."""
    with segment():
        yield


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory everybody may enter: tmp_path's parents are root's alone."""
    with tempfile.TemporaryDirectory(prefix="pyrun-performed-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def compare(pyrun: Pyrun, tmp_path: Path, *options: str) -> set[str]:
    """Start it; the kinds that were shown and that ran, but for the claims, which are shown alone."""
    record = tmp_path / "record"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(record), "run", "--explain=json", *options],
        capture_output=True, text=True, timeout=60, env=pyrun.env, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0 and "ran" in done.stdout, done.stderr[-500:]
    shown = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))["operations"]
    # poststop hooks are run when the container has ended, by another process
    told = Counter(each["kind"] for each in shown if each["by"] != "planner, poststop")
    claims = {kind: told.pop(kind) for kind in CLAIMED & set(told)}
    ran = Counter(record.read_text().splitlines())
    assert ran == told, f"not run: {told - ran}; not shown: {ran - told}"
    return set(told) | set(claims)


def test_whoever_performs_one_is_watched() -> None:
    assert {row.by for row in KINDS.values()} - {"", CLAIM} == set(OTHERS)


def test_an_image_on_a_bridge_with_much_of_its_own(pyrun: Pyrun, tmp_path: Path) -> None:
    kinds = compare(
        pyrun, tmp_path, "--rm", "--net=bridge", "-p", "8080:80", "-p", "127.0.0.1:81:81/udp", "-m", "64m",
        "--init", "--read-only", "--tmpfs", "/t", "--sysctl", "net.core.somaxconn=77", "-u", "1000",
        "-w", "/made", "--security-opt", "no-new-privileges", "--ulimit", "nofile=90:100", "-v", "/etc:/in:ro",
        "--net-rate", "in=10mbit", "--egress", "10.0.0.0/8",
        "--ip", "10.77.0.9", "busybox", "echo", "ran",
    )  # fmt: skip
    assert kinds >= {*CLAIMED, "VETH", "PUBLISH", "LOCALNET", "RATE", "EGRESS", "COMMIT", "ANNOUNCE"}
    assert kinds >= {
        "cgroup-make",
        "cgroup-write",
        "cgroup-devices",
        "clone",
        "container-directory",
        "EXECUTE",
    }


def test_an_image_with_two_networks_and_ipv6(pyrun: Pyrun, tmp_path: Path) -> None:
    pyrun.ok("network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "six")
    kinds = compare(
        pyrun, tmp_path, "--rm", "--network", "bridge", "--network", "six", "busybox", "echo", "ran"
    )
    assert kinds >= {"IPV6", "ADDRESS6", "ROUTE6"}


def test_an_image_beside_a_card(card: None, pyrun: Pyrun, tmp_path: Path) -> None:
    wanted = f"macvlan:{CARD}:ip=192.168.50.9,host-shim=on"
    kinds = compare(pyrun, tmp_path, "--rm", "--network", wanted, "busybox", "echo", "ran")
    assert kinds >= {"MACVLAN", "SHIM", "CARD_IPV6", "CARD_ADDRESS", "CARD_UP", "CARD_READY"}
    assert kinds >= {"NAMES_OF", "NAMES_INSIDE"}


def test_a_bundle_with_hooks_and_owners(pyrun: Pyrun, tmp_path: Path, place: Path) -> None:
    """Of a bundle: what waits for its ids, hooks of all who call any, a namespace that is joined."""
    bundle = place / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    os.chown(bundle / "rootfs", 100000, 100000)
    subprocess.run([str(pyrun.binary.with_name("pyrun-oci")), "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", "echo", "ran"]}
    config["process"] |= {"env": ["PATH=/bin"], "oomScoreAdj": 100}
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 90, "hard": 100}]
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": 100000, "size": 1000}
    ]
    config["linux"]["namespaces"] += [{"type": "user"}]
    config["mounts"].append(
        {"destination": "/bin", "source": "/bin", "type": "bind", "options": ["rbind", "ro"]}
    )
    config["hooks"] = {
        kind: [{"path": "/bin/true"}]
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    (bundle / "config.json").write_text(json.dumps(config))
    kinds = compare(pyrun, tmp_path, "--network=bridge", "--bundle", str(bundle), "own")
    assert kinds >= {"admit", "oom-score", "rlimit", "hook", "HOOK", "ROOT_IDENTITY"}
