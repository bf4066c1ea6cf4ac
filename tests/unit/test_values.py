"""The notations of `run`'s options: what each parser takes, and the one line it answers with otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.errors import UsageError
from pyrun.spec import env_file, values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6m", 6 << 20), ("512m", 512 << 20), ("1g", 1 << 30), ("1.5g", 3 << 29), ("1GiB", 1 << 30),
        ("64 m", 64 << 20), ("64 MiB", 64 << 20), ("64MB", 64 << 20),
        ("1048576", 1 << 20), ("1048576b", 1 << 20), ("7000k", 7000 << 10),
    ],
)  # fmt: skip
def test_size(text: str, expected: int) -> None:
    assert values.size_bytes(text, "--memory") == expected


@pytest.mark.parametrize(
    "text", ["", "m", "x", "1x", "-1", "1  m", "1..2m", "1e3", "0x10", "١m", "1mm", "nan"]
)
def test_size_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        values.size_bytes(text, "--memory")


def test_memory_has_dockers_floor() -> None:
    for text in ("5m", "1"):
        with pytest.raises(UsageError, match="too small"):
            values.memory_bytes(text)
    assert values.memory_bytes("0") == values.memory_bytes("0m") == 0, "no limit, as there"
    assert values.memory_bytes("6m") == 6 << 20


@pytest.mark.parametrize(
    ("text", "quota"),
    [("1", 100000), ("0.5", 50000), ("1.5", 150000), (".25", 25000), ("2.", 200000), ("0", 0), ("0.00", 0)],
)
def test_cpus(text: str, quota: int) -> None:
    assert values.cpu_quota_us(text) == quota


@pytest.mark.parametrize("text", ["", ".", "-1", "one", "1,5", "0.001", "1e2"])
def test_cpus_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--cpus"):
        values.cpu_quota_us(text)


def test_ulimit() -> None:
    assert values.rlimit("nofile=1024:2048") == ("RLIMIT_NOFILE", 1024, 2048)
    assert values.rlimit("nproc=7") == ("RLIMIT_NPROC", 7, 7)
    assert values.rlimit("core=-1") == ("RLIMIT_CORE", values.RLIM_INFINITY, values.RLIM_INFINITY)


@pytest.mark.parametrize("text", ["", "nofile", "nofile=", "files=1", "nofile=x", "nofile=2:1", "nofile=-2"])
def test_ulimit_refused(text: str) -> None:
    with pytest.raises(UsageError, match="ulimit"):
        values.rlimit(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("kernel.core_pattern=|/bin/sh", "not separate"),
        ("kernel.shm_rmid_forced=1\nkernel.core_pattern=x", "invalid sysctl"),
        ("kernel.shm_rmid_forced+kernel.core_pattern=1", "invalid sysctl"),
        ("net..ipv4=1", "invalid sysctl"),
        ("net.core.somaxconn=1\0", "invalid sysctl"),
        ("net./core=1", "invalid sysctl"),
        ("x", "invalid --sysctl"),
    ],
)
def test_sysctl_of_the_host_is_refused(text: str, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        values.sysctl(text, host_network=False)


def test_sysctl() -> None:
    assert values.sysctl("net.core.somaxconn=1024", host_network=False) == ("net.core.somaxconn", "1024")
    with pytest.raises(UsageError, match="belongs to the host"):
        values.sysctl("net.core.somaxconn=1024", host_network=True)


def test_volume(tmp_path: object) -> None:
    assert values.volume(f"{tmp_path}:/data:") == values.volume(f"{tmp_path}:/data"), (
        "`-v a:b:$MODE`, no mode"
    )
    mount = values.volume(f"{tmp_path}:/data/../srv/:ro")
    assert mount["destination"] == "/srv"
    assert mount["options"] == ["rbind", "ro", "rprivate"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ":/a",
        "name:/a",
        "/:x",
        "/:/",
        "/no/such/place:/a",
        "/tmp:/a:wo",
        "/tmp:/a:ro:rw",
        "/tmp:/a:ro,rw",
        "/tmp:/a:ro,ro",
        "/tmp:/a:z,Z",
        "/tmp:/a:rslave,rprivate",
        "/tmp:/proc/1",
        "/tmp:/x/../proc/sys",
    ],
)
def test_volume_refused(text: str) -> None:
    with pytest.raises(UsageError, match="volume"):
        values.volume(text)


@pytest.mark.parametrize("text", ["tmp", "/", "", "/proc", "/proc/1:size=1m"])
def test_tmpfs_refused(text: str) -> None:
    with pytest.raises(UsageError, match="tmpfs"):
        values.tmpfs(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("/a/../../b", "/b"), ("//a//./b/", "/a/b"), ("/", "/"), ("a", "/a")]
)
def test_normal_path_stops_at_the_root(text: str, expected: str) -> None:
    assert values.normal_path(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "-a", "x" * 64])
def test_hostname_refused(text: str) -> None:
    with pytest.raises(UsageError, match="hostname"):
        values.host_name(text)


def test_environment_takes_the_callers_value(monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setitem(posix.environ, b"PYRUN_TEST_VALUE", b"seen")
    given = ["A=1", "PYRUN_TEST_VALUE", "PYRUN_TEST_ABSENT"]
    assert values.environment(given, "--env") == ["A=1", "PYRUN_TEST_VALUE=seen", "PYRUN_TEST_ABSENT"]


@pytest.mark.parametrize("text", ["=x", "", "="])
def test_environment_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--env"):
        values.environment([text], "--env")


def test_environment_takes_every_name() -> None:
    """As Docker: programs with names of their own (`ProgramFiles(x86)`) exist."""
    given = ["X Y=1", "a.b=2", " =3", "(x)=", "1=="]
    assert values.environment(given, "--env") == given


def test_environment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setitem(posix.environ, b"PYRUN_TEST_VALUE", b"seen")
    (tmp_path / "one").write_bytes(
        "\ufeffA=1\r\n\n # no\n  B= \ufeff x\nPYRUN_TEST_VALUE\nPYRUN_TEST_ABSENT\n".encode()
    )
    (tmp_path / "two").write_text("A=2")
    (tmp_path / "bad").write_text("A=1\nX Y=1\n")
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert env_file.read(paths) == ["A=1", "B= \ufeff x", "PYRUN_TEST_VALUE=seen", "A=2"]
    with pytest.raises(UsageError, match=r"invalid variable for --env-file .*'X Y=1'") as caught:
        env_file.read([str(tmp_path / "bad")])
    assert "'X Y'" in caught.value.hint


@pytest.mark.parametrize("within", ["\v", "\f", "\r", "\x1c", "\x85", "\u2028", "\r\r"])
def test_lines_of_an_environment_file_end_with_a_newline_alone(tmp_path: Path, within: str) -> None:
    (tmp_path / "env").write_bytes(f"A=1{within}B=2\r\r\nC=3\r\n".encode())
    assert env_file.read([str(tmp_path / "env")]) == [f"A=1{within}B=2\r", "C=3"]


@pytest.mark.parametrize("text", ["db", "db:", ":1.2.3.4", "db:300.1.1.1", "a b:1.2.3.4", "db:x::y"])
def test_host_entry_refused(text: str) -> None:
    with pytest.raises(UsageError, match="add-host"):
        values.host_entry(text)


def test_host_entry() -> None:
    assert values.host_entry("db:10.0.0.7") == ("db", "10.0.0.7")
    assert values.host_entry("me=host-gateway") == ("me", "host-gateway")
    assert values.host_entry("six:::1") == ("six", "::1")
