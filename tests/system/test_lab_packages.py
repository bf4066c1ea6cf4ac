"""tests/lab/install-packages: on a machine somebody uses, it leaves nothing behind that keeps services from starting.

dpkg-query and apt-get are stand-ins here, and the directory of policy-rc.d is a tmpfs of this test's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

INSTALL = Path(__file__).resolve().parents[1] / "lab/install-packages"
POLICY = "/usr/sbin/policy-rc.d"
# the shell around it outlives what ends the whole group, and tells what is left
SCRIPT = f"""trap : INT TERM HUP
mount -t tmpfs none /usr/sbin
{{before}}
{INSTALL} some-package >&2; echo "status $?"
cat {POLICY} 2>/dev/null || echo "no policy"
"""
APT = 'cp /usr/sbin/policy-rc.d "$0.policy"; touch "$0.ready"; {}\n'


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A directory for PATH."""
    for name, text in (("dpkg-query", "exit 1\n"), ("apt-get", APT.format("exec sleep 60"))):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def start(stand_ins: Path, before: str = "true") -> subprocess.Popen[str]:
    command = ["unshare", "--mount", "sh", "-c", SCRIPT.format(before=before)]
    environment = os.environ | {"PATH": f"{stand_ins}:/usr/bin:/bin"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_leaves_no_policy(stand_ins: Path, number: int, status: int) -> None:
    """Ctrl-C while apt-get works: the terminal sends it to all of them."""
    process = start(stand_ins)
    deadline = time.monotonic() + 10
    while not (stand_ins / "apt-get.ready").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert "exit 101" in (stand_ins / "apt-get.policy").read_text()
    os.killpg(process.pid, number)
    assert process.communicate(timeout=20)[0] == f"status {status}\nno policy\n"


@pytest.mark.parametrize(
    ("before", "left"),
    [
        (f"echo '# the administrator' >{POLICY}", "# the administrator"),
        # of one that was killed
        (f"echo '# by install-packages of pyrun, while it runs' >{POLICY}", "no policy"),
    ],
)
def test_whose_policy_stays(stand_ins: Path, before: str, left: str) -> None:
    (stand_ins / "apt-get").write_text("#!/bin/sh\n" + APT.format("exit 0"))
    assert start(stand_ins, before).communicate(timeout=20)[0] == f"status 0\n{left}\n"
