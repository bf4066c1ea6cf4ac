"""What becomes of a start of an ordinary user's, and what the network programs are told: pure parts."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from pyrun import boot
from pyrun.engine import rootless
from pyrun.errors import NetworkError, UsageError
from pyrun.network import requests, user_mode
from pyrun.network.user_mode import pasta, slirp
from pyrun.spec.values import RLIM_INFINITY
from pyrun.store import paths

MAP = "         0      12345          1\n         1     200000      65536\n"


@pytest.mark.parametrize(
    ("given", "expected"), [(None, -1), ("", -1), ("12345", 12345), ("x", -1), ("-1", -1)]
)
def test_rootless_uid(monkeypatch: pytest.MonkeyPatch, given: str | None, expected: int) -> None:
    environment = {} if given is None else {b"PYRUN_ROOTLESS": given.encode()}
    monkeypatch.setattr("posix.environ", environment)
    assert boot.rootless_uid() == expected


@pytest.mark.parametrize(("number", "expected"), [(0, True), (1, True), (65536, True), (65537, False)])
def test_mapped(number: int, expected: bool) -> None:
    assert rootless.mapped("uid", number, MAP) is expected


def test_last_id() -> None:
    assert rootless.last_id(MAP) == 65536
    assert rootless.last_id("0 1000 1\n") == 0


def test_limits_are_clamped_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(rootless.notice, "say", said.append)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 1000))
    limit: dict[str, Any] = {"type": "RLIMIT_NOFILE", "soft": 500, "hard": 900}
    assert rootless.clamped(limit) is limit and not said
    above = {"type": "RLIMIT_NOFILE", "soft": RLIM_INFINITY, "hard": RLIM_INFINITY}
    assert rootless.clamped(above) == {"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 1000}
    assert said == ["--ulimit nofile=unlimited: this user's own limit is 1000, which is used"]


def test_pasta_publishes_what_is_asked_for_and_nothing_else() -> None:
    words = " ".join(pasta.words([("0.0.0.0", 8080, 80, "tcp"), ("127.0.0.1", 53, 5353, "udp")]))
    assert "-t 8080:80 -u 127.0.0.1/53:5353 -T none -U none" in words
    assert "--no-map-gw" in words and "--config-net" in words
    assert "-t none -u none -T none -U none" in " ".join(pasta.words([]))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Failed to bind any port for '-t ::1/8105:80', exiting", "-p [::1]:8105:80: pasta cannot listen"),
        (
            "Failed to bind port 53 (Address already in use) for option '-u 10.0.0.1/53:5353'",
            "-p 10.0.0.1:53:5353/udp: pasta cannot listen",
        ),
        ("Failed to bind any port for '-t 8105:80', exiting", "-p 8105:80: pasta cannot listen there"),
        ("Failed to open() /dev/net/tun", ""),
    ],
)
def test_what_pasta_could_not_listen_to_has_its_name(said: str, told: str) -> None:
    found = user_mode.of_pasta(f"No external interface for IPv6\n{said}")
    assert found.message.startswith(told) and told if found else not told


def test_slirp4netns_is_kept_from_the_hosts_loopback() -> None:
    line = slirp.command("/run/x/netns", slirp.words([]), 9)
    assert "--disable-host-loopback" in line and "--enable-sandbox" in line and "--enable-seccomp" in line
    assert line[-2:] == ["/run/x/netns", "tap0"] and "--ready-fd=9" in line
    assert slirp.api_socket("/run/x/netns") == "/run/x/slirp.sock"


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_no_program_publishes_sctp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Refused, where pasta would be told of no such port at all and the container start without it."""
    monkeypatch.setenv("PATH", _programs(tmp_path, program))
    request = requests.Request("a" * 64, "web", program)
    request.ports, request.run_dir = [("0.0.0.0", 38412, 38412, "sctp")], str(tmp_path)
    with pytest.raises(
        UsageError, match=f"^-p 0.0.0.0:38412:38412/sctp: {program} publishes TCP and UDP alone$"
    ):
        user_mode.plan(request)


def _programs(directory: Path, *names: str) -> str:
    for name in names:
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return str(directory)


def test_which_program(tmp_path: Path) -> None:
    path = _programs(tmp_path, "slirp4netns")
    assert user_mode.choose("", path) == "slirp4netns"
    with pytest.raises(NetworkError, match="no program pasta here"):
        user_mode.choose("pasta", path)
    _programs(tmp_path, "pasta")
    assert user_mode.choose("", path) == "pasta"
    assert user_mode.choose("slirp4netns", path) == "slirp4netns"


def test_low_ports(tmp_path: Path) -> None:
    setting = tmp_path / "start"
    setting.write_text("1024\n")
    user_mode.refuse_low([("", 1024, 80, "tcp"), ("", 0, 80, "tcp")], str(setting))
    with pytest.raises(UsageError, match="ports below 1024 are root's"):
        user_mode.refuse_low([("", 1023, 80, "tcp")], str(setting))
    setting.write_text("80\n")
    user_mode.refuse_low([("", 80, 80, "tcp")], str(setting))


def test_the_cache_of_who_may_not_write_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.environ", {b"HOME": b"/home/me"})
    monkeypatch.setattr(paths, "is_user", lambda: True)
    monkeypatch.setattr("posix.access", lambda *_: False)
    assert paths.cache() == "/home/me/.cache/pyrun"
    monkeypatch.setattr("posix.environ", {b"HOME": b"/home/me", b"XDG_CACHE_HOME": b"/elsewhere"})
    assert paths.cache() == "/elsewhere/pyrun"
    monkeypatch.setattr(paths, "is_user", lambda: False)
    assert paths.cache() == "/var/lib/pyrun/cache"
    monkeypatch.setattr("posix.environ", {b"PYRUN_ROOT": b"/given"})
    assert paths.cache() == "/given/cache"


def test_slirp4netns_is_noted_before_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed while waiting for it leaves a note of whom to end; it would stay for ever."""
    program = tmp_path / "slirp4netns"
    program.write_text("#!/bin/sh\nexec sleep 100\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slirp, "_PATIENCE_S", 0.05)
    note = tmp_path / "slirp.pid"
    assert slirp.start("slirp4netns", str(note), str(tmp_path / "netns"), [], 2) == 0
    pid, started = map(int, note.read_text().split())
    assert started > 0 and not Path(f"/proc/{pid}").exists()
