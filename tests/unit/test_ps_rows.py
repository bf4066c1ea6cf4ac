"""engine/ps.py and the plain output of the listings: rows, filters, spans of time, escaping."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyrun.cli import text, verbs, verbs_cold
from pyrun.engine import logs, ps
from pyrun.errors import NotFound, UsageError

IDS = {"web": "a1" * 32, "db": "b2" * 32, "job": "c3" * 32}


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three containers that have ended."""
    environment = {"PYRUN_ROOT": str(tmp_path / "root"), "PYRUN_RUNROOT": str(tmp_path / "run")}
    monkeypatch.setattr(
        "posix.environ", {k.encode(): v.encode() for k, v in (os.environ | environment).items()}
    )
    images = {"web": "nginx:1.27", "db": "docker.io/library/postgres", "job": "busybox"}
    for age, (name, identifier) in enumerate(IDS.items()):
        directory = tmp_path / "root" / "containers" / identifier
        directory.mkdir(parents=True)
        record = {
            "id": identifier, "name": name, "image": images[name], "image_id": f"{age}" * 64,
            "created": time.time() - 100 * age, "args": ["sh", "-c", "echo \x1b[31mred; sleep 1000"],
            "network": "bridge", "ports": [["", 8080, 80, "tcp"]] if name == "web" else [],
            "labels": {"tier": "back", "disk": "fast"} if name == "db" else {},
        }  # fmt: skip
        (directory / "container.json").write_text(json.dumps(record))
        (tmp_path / "root" / "names").mkdir(exist_ok=True)
        (tmp_path / "root" / "names" / name).write_text(f"{identifier}\n")
    refs = tmp_path / "root/refs"
    refs.mkdir()
    (refs / "docker.io%2Flibrary%2Fother%3Alatest").write_text("2" * 64)
    (tmp_path / "root/containers" / IDS["web"] / "exit").write_text(f"0 {time.time() - 125}\n")
    (tmp_path / "root/containers" / IDS["db"] / "exit").write_text(f"137 {time.time() - 3 * 86400}\n")
    return tmp_path


def names(**options: object) -> list[object]:
    return [row["name"] for row in ps.rows(**options)]  # type: ignore[arg-type]


def test_rows(containers: Path) -> None:
    assert names() == []
    rows = ps.rows(everything=True)
    assert [row["name"] for row in rows] == ["web", "db", "job"]  # newest first
    assert [row["status"] for row in rows] == [
        "Exited (0) 2 minutes ago",
        "Exited (137) 3 days ago",
        "Exited (unknown)",
    ]
    assert [row["exit_status"] for row in rows] == [0, 137, None]
    assert rows[0]["ports"] == [], "one that has ended holds none"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["name=web"], ["web"]),
        (["name=b"], ["web", "db", "job"]),
        (["name=^.b$"], ["db"]),
        (["name=^/db$"], ["db"]),
        (["name=web", "name=db"], ["web", "db"]),
        (["name=web", "id=b2"], []),
        (["id=b2b2"], ["db"]),
        (["status=exited"], ["web", "db", "job"]),
        (["status=running"], []),
        (["status=dead"], []),
        (["status=dead", "status=exited"], ["web", "db", "job"]),
        (["exited=137"], ["db"]),
        (["ancestor=nginx"], []),
        (["ancestor=nginx:1.27"], ["web"]),
        (["ancestor=postgres"], ["db"]),
        (["ancestor=2222"], ["job"]),
        (["ancestor=nginx:1.26"], []),
        (["ancestor=busybox:latest"], ["job"]),
        (["ancestor=docker.io/library/busybox"], ["job"]),
        (["ancestor=nginx:latest"], []),
        (["ancestor=other"], ["job"]),
        (["ancestor=No Image"], []),
        (["before=db"], ["job"]),
        (["since=b2b2", "since=web"], ["web"]),
        (["publish=8080"], ["web"]),
        (["publish=8000-9000/tcp"], ["web"]),
        (["publish=8080/udp"], []),
        (["publish=80"], []),
        (["label=tier"], ["db"]),
        (["label=tier=front"], []),
        (["label=tier", "label=disk=fast"], ["db"]),
        (["label=tier", "label=disk=slow"], []),
        (["network=bridge"], ["web", "db", "job"]),
    ],
)
def test_filters(containers: Path, filters: list[str], expected: list[str]) -> None:
    assert names(everything=True, filters=filters) == expected


@pytest.mark.parametrize("value", ["nowhere", "abcdef", "sha256:", "sha256:ab"])
def test_an_image_that_is_not_here_is_not_that_of_a_bundles_container(containers: Path, value: str) -> None:
    """Which has none: `rm -f $(ps -q --filter ancestor=...)` is not to remove it."""
    path = containers / "root/containers" / IDS["job"] / "container.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image": "/srv/bundle", "image_id": ""}))
    assert names(everything=True, filters=[f"ancestor={value}"]) == []


def test_a_filter_on_the_state_needs_no_a(containers: Path) -> None:
    assert names(filters=["status=exited"]) == ["web", "db", "job"]
    assert names(filters=["name=web"]) == []


@pytest.mark.parametrize(
    "bad", ["colour=red", "name", "=x", "status=red", "name=(", "exited=x", "publish=http"]
)
def test_unknown_filters(containers: Path, bad: str) -> None:
    with pytest.raises(UsageError, match="filter"):
        ps.rows(everything=True, filters=[bad])


@pytest.mark.parametrize("key", ["before", "since"])
def test_a_filter_by_a_container_that_is_not_there(containers: Path, key: str) -> None:
    with pytest.raises(NotFound, match="nobody"):
        ps.rows(everything=True, filters=[f"{key}=nobody"])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (5399, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"),
        (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"), (60 * 86400, "2 months"),
        (729 * 86400, "24 months"), (730 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_span(seconds: float, words: str) -> None:
    assert ps.span(seconds) == words


def test_port_text() -> None:
    assert ps.port_text(["127.0.0.1", 53, 5353, "udp"]) == "127.0.0.1:53->5353/udp"
    assert ps.port_text(["::1", 80, 80, "tcp"]) == "[::1]:80->80/tcp"


def test_the_table_and_json(containers: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = {"all": True, "filter": [], "format": "table", "no_trunc": False, "quiet": False}
    assert verbs.call("ps", options, []) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert lines[1].startswith("a1a1a1a1a1a1   nginx:1.27")
    assert "\\x1b" in lines[1] and "\x1b" not in lines[1]
    assert lines[1].endswith("   web")
    verbs.call("ps", options | {"format": "json"}, [])
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["Names"] for row in rows] == ["web", "db", "job"]
    assert (rows[1]["State"], rows[1]["Labels"], rows[1]["ID"]) == ("exited", "tier=back,disk=fast", "b2" * 6)
    verbs.call("ps", options | {"quiet": True, "no_trunc": True}, [])
    assert capfd.readouterr().out.split() == list(IDS.values())
    with pytest.raises(UsageError, match="unknown --format"):
        verbs.call("ps", options | {"format": "yaml"}, [])


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["httpd", "-f"], '"httpd -f"'),
        (["sh", "-c", "echo a"], "\"sh -c 'echo a'\""),
        (["a b", 'say "x"'], '"a b \'say \\"x\\"\'"'),
        (["sh", "-c", "while true; do date; done"], '"sh -c \'while true; …"'),
        (["printf", "\\", "\n"], '"printf \\\\ \\n"'),
        ([], '""'),
    ],
)
def test_the_command_is_quoted_as_docker_quotes_it(args: list[str], shown: str) -> None:
    assert verbs._command({"args": args}, whole=False) == shown


def test_a_narrow_column_is_as_wide_as_dockers() -> None:
    assert text.table(("TAG", "ID"), [["1", "2"]]) == "TAG       ID\n1         2\n"


def test_output_that_others_made_non_blocking() -> None:
    """As a terminal may be that a program before us has left so: nothing is lost."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    data = bytes(1 << 20)
    with open(read_fd, "rb") as reader, ThreadPoolExecutor() as pool:
        read = pool.submit(reader.read)
        try:
            text.write(data, write_fd)
        finally:
            os.close(write_fd)
        assert read.result(10) == data


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0B"), (999, "999B"), (4_261_550, "4.26MB"), (1.2e9, "1.2GB")]
)
def test_size(size: float, shown: str) -> None:
    assert verbs_cold._size(size) == shown


LOG = b"""2026-11-24T08:00:01.000000000Z stdout F one
2026-11-24T08:00:02.000000000Z stderr F oops
2026-11-24T08:00:03.000000000Z stdout P half
2026-11-24T08:00:03.500000000Z stderr F between
2026-11-24T08:00:04.000000000Z stdout F  and half
2026-11-24T08:00:05.000000000Z stdout F \rspinner\x0b\x0c\x85
2026-11-24T08:00:06.000000000Z stdout F
garbage
2026-11-24T08:00:07.000000000Z stdout P $ """


@pytest.fixture
def log(containers: Path) -> Path:
    path = containers / "root/containers" / IDS["web"] / "log"
    path.write_bytes(LOG.replace(b" F\n", b" F \n") + b"\n")
    return path


def read(**options: object) -> bytes:
    return b"".join(piece for _, _, piece in logs.logs("web", **options))  # type: ignore[arg-type]


def test_logs(log: Path) -> None:
    assert read() == b"one\noops\nhalfbetween\n and half\n\rspinner\x0b\x0c\x85\n\n$ "
    errors = [piece for stream, _, piece in logs.logs("web") if stream == "stderr"]
    assert errors == [b"oops\n", b"between\n"]
    stamped = [piece for _, moment, piece in logs.logs("web") if not moment]
    assert stamped == [b" and half\n"]  # the second piece of a line


def test_tail(log: Path) -> None:
    assert read(tail="1") == b"$ "
    assert read(tail="2") == b"\n$ "
    assert read(tail="3") == b"\rspinner\x0b\x0c\x85\n\n$ "
    assert read(tail="0") == b""
    assert read(tail="1000") == read(tail="all") == read(tail="-1") == read()
    with pytest.raises(UsageError, match="--tail"):
        logs.logs("web", tail="some")


def test_tail_of_a_long_log_reads_its_end(log: Path) -> None:
    line = b"2026-11-24T08:00:01.000000000Z stdout F " + b"x" * 60 + b"%07d\n"
    log.write_bytes(b"".join(line % number for number in range(20_000)))
    assert [piece[-8:] for _, _, piece in logs.logs("web", tail="3")] == [
        b"0019997\n",
        b"0019998\n",
        b"0019999\n",
    ]
    assert len(list(logs.logs("web", tail="5000"))) == 5000


def test_since_and_until(log: Path) -> None:
    assert read(since="2026-11-24T08:00:05Z").startswith(b"\rspinner")
    assert read(since="2026-11-24T09:00:05+01:00").startswith(b"\rspinner")
    assert read(until="2026-11-24T08:00:02Z") == b"one\noops\n"
    assert read(until="1795507202") == b"one\noops\n"
    assert read(since="1h30m") == read() or time.time() > 1795507207 + 5400
    for bad in ("yesterday", "10x", "h", "2026-13-01", "2026-11-24.5", "1.5.5", "1e99", "9" * 20, "."):
        with pytest.raises(UsageError, match="--since"):
            logs.logs("web", since=bad)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-24T08:00:05.123456789Z", "2026-11-24T08:00:05.123456789Z"),
        ("2026-11-24T09:00:05.000000001+01:00", "2026-11-24T08:00:05.000000001Z"),
        ("2026-11-24T08:00:05.9999999999Z", "2026-11-24T08:00:05.999999999Z"),
        ("1795507205.123456789", "2026-11-24T08:00:05.123456789Z"),
        ("1795507205.1", "2026-11-24T08:00:05.100000000Z"),
        ("1795507205", "2026-11-24T08:00:05.000000000Z"),
    ],
)
def test_a_time_keeps_its_nanoseconds(text: str, same: str) -> None:
    """What `logs -t` shows is that line's own time, for --since and for --until."""
    assert logs.moment("--since", text) == same


def test_following_ends_with_the_container(log: Path) -> None:
    assert read(follow=True) == read()
