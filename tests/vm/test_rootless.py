"""An ordinary user with cgroup v2 and a systemd of its own: limits in a scope, or in a cgroup that was delegated.

The user is the guest's own (vagrant/provision.sh): it lingers, so that its systemd runs without a login.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unprivileged import User, UserPyrun, as_user
from waiting import until

pytestmark = pytest.mark.needs("systemd")
TOP = Path("/sys/fs/cgroup")
NONE = "--net=none"
SLEEP = ("busybox", "sleep", "1000")


def users_systemd() -> Path:
    uid = pwd.getpwnam("user").pw_uid
    return TOP / f"user.slice/user-{uid}.slice/user@{uid}.service"


@pytest.fixture
def user(static_binary: Path, prepared_store: Path) -> Iterator[UserPyrun]:
    """pyrun as the guest's user, whose runtime directory is the one of its systemd."""
    uid = pwd.getpwnam("user").pw_uid
    command = UserPyrun(static_binary, User("user", uid, 100_000))
    shutil.rmtree(command.runtime)
    command.runtime = Path(f"/run/user/{uid}/pyrun-test")
    command.runroot = command.runtime
    command.env |= {"XDG_RUNTIME_DIR": f"/run/user/{uid}", "PYRUN_RUNROOT": str(command.runroot)}
    command.copy_store(prepared_store)
    yield command
    command.close()
    assert not list(users_systemd().rglob("pyrun-*"))


def cgroup_of(pid: object) -> Path:
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return TOP / line.removeprefix("0::/")


def test_no_cgroup_without_a_limit(user: UserPyrun) -> None:
    user.ok("run", "-d", "--name", "box", NONE, *SLEEP)
    assert cgroup_of(user.state("box")["pid"]) == cgroup_of("self")
    assert user.ok("exec", "box", "ls", "-A", "/sys/fs/cgroup") == ""


def test_limits_in_a_scope_of_the_users_systemd(user: UserPyrun) -> None:
    user.ok("run", "-d", "--name", "box", NONE, "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", *SLEEP)
    place = cgroup_of(user.state("box")["pid"])
    assert (
        place.is_relative_to(users_systemd()) and place.name.startswith("pyrun-") and place.suffix == ".scope"
    )
    limits = [(place / name).read_text().strip() for name in ("memory.max", "cpu.max", "pids.max")]
    assert limits == [str(64 << 20), "50000 100000", "50"]
    assert user.ok("exec", "box", "cat", "/proc/self/cgroup") == "0::/"
    assert user.ok("exec", "box", "cat", "/sys/fs/cgroup/memory.max") == str(64 << 20)
    user.ok("rm", "-f", "box")
    until(lambda: not place.exists(), "the end of the cgroup", timeout_s=20)


def test_limits_in_a_delegated_cgroup(user: UserPyrun) -> None:
    """Beside the scope that systemd-run made, without asking systemd for another."""
    pyrun = f"{user.binary.read_text().split()[-2]}"
    script = f"{pyrun} run --rm {NONE} -m 64m busybox sh -c 'cat /proc/self/cgroup /sys/fs/cgroup/memory.max'"
    done = user.run_as("systemd-run", "--user", "--scope", "-q", "-p", "Delegate=yes", "sh", "-c", script)
    assert done.stdout.split() == ["0::/", str(64 << 20)], done.stderr


def test_without_a_systemd_to_ask(user: UserPyrun) -> None:
    env = {"XDG_RUNTIME_DIR": "/nonexistent", "DBUS_SESSION_BUS_ADDRESS": ""}
    error = user.fails(125, "run", "--rm", NONE, "-m", "64m", "busybox", "true", env=env)
    assert "--memory needs a cgroup of this user's own, and there is none" in error


def test_pyrun_oci_with_the_users_systemd(user: UserPyrun, tmp_path: Path) -> None:
    bundle = user.home / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    for name in ("proc", "dev", "sys"):
        (bundle / "rootfs" / name).mkdir()
    shutil.copy("/bin/busybox", bundle / "rootfs/bin/busybox")
    for name in ("cat", "sleep"):
        (bundle / "rootfs/bin" / name).symlink_to("busybox")
    subprocess.run(["chown", "-hR", str(user.user.uid), str(bundle)], check=True)
    program = str(Path(user.binary.read_text().split()[-2]).with_name("pyrun-oci"))

    def oci(*words: str) -> str:
        line = as_user(user.user, program, "--systemd-cgroup", *words)
        with open(tmp_path / "out", "w+") as out:
            done = subprocess.run(line, cwd=bundle, env=user.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                  timeout=120, check=False)  # fmt: skip
            out.seek(0)
            text = out.read()
        assert done.returncode == 0, text
        return text

    oci("spec", "--rootless")
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
    config["linux"]["resources"] = {"memory": {"limit": 64 << 20}}
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"box-{os.getpid()}"
    oci("run", "--detach", name)
    try:
        place = cgroup_of(json.loads(oci("state", name))["pid"])
        assert place.is_relative_to(users_systemd()) and place.suffix == ".scope"
        assert (place / "memory.max").read_text().strip() == str(64 << 20)
        assert oci("exec", name, "cat", "/sys/fs/cgroup/memory.max").strip() == str(64 << 20)
    finally:
        oci("delete", "--force", name)
    assert not place.exists()


@pytest.mark.needs("pasta")
def test_pasta(user: UserPyrun) -> None:
    assert "nameserver 169.254.1.1" in user.ok("run", "--rm", "busybox", "cat", "/etc/resolv.conf")
