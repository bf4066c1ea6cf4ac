"""The unit of docs/administration.md: a container as a service, whose end systemd learns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Pyrun
from vm.test_oci_systemd import show, until

pytestmark = pytest.mark.needs("systemd")
PAGE = Path(__file__).resolve().parents[2] / "docs/administration.md"
UNIT = Path("/run/systemd/system/web.service")


def systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True, timeout=120)


@pytest.fixture
def service(pyrun: Pyrun) -> Iterator[Pyrun]:
    """The unit as it is on the page, but for where pyrun and its directories are."""
    (text,) = re.findall(r"^```ini\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    given = [f"Environment={name}={pyrun.env[name]}\n" for name in ("PYRUN_ROOT", "PYRUN_RUNROOT")]
    text = text.replace("/usr/local/bin/pyrun", str(pyrun.binary))
    UNIT.write_text(text.replace("[Service]\n", "".join(["[Service]\n", *given])))
    systemctl("daemon-reload")
    yield pyrun
    systemctl("stop", "web")
    UNIT.unlink()
    systemctl("daemon-reload")


def main_process() -> str:
    pid = show("web", "MainPID")["MainPID"]
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_container_is_a_service(service: Pyrun) -> None:
    systemctl("start", "web")
    until(lambda: main_process() == "pyrun-monitor", timeout_s=90)
    first = service.ok("ps", "-q")
    asked = ("curl", "-s", "http://127.0.0.1:8080/hostname")
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    os.kill(int(show("web", "MainPID")["MainPID"]), signal.SIGKILL)
    until(lambda: main_process() == "pyrun-monitor" and service.ok("ps", "-q") not in ("", first))
    systemctl("stop", "web")
    assert show("web", "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert service.ok("ps", "-aq") == ""
