"""`pyrun ps`: the containers as rows of plain values, newest first; `cli` turns them into a table or JSON."""

from __future__ import annotations

import time
from typing import Any

from pyrun import jsonlite
from pyrun.errors import NotFound, UsageError
from pyrun.safe import is_number
from pyrun.store import paths, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import TypedDict

    from pyrun.store.record import Record

    class Row(TypedDict):
        """One container. It comes from a file: what is in the lists need not be as it should."""

        id: str
        name: str
        image: str
        image_id: str
        args: list[str]
        created: float  # unix seconds
        state: str
        status: str  # Docker's column
        ports: list[str]
        published: list[Any]  # the same as they were asked for
        network: str
        networks: list[Any]  # network/endpoint.py
        address: str
        labels: dict[str, str]
        exit_status: int | None  # None: unknown or still running
        pid: int  # 0 unless it runs


_FILTERS = ("ancestor", "before", "exited", "id", "label", "name", "network", "publish", "since", "status")
# Docker's; in those that pyrun does not know nobody ever is, which is what a clean-up script asks for.
_STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
# (below how many hours, unit, hours of one unit): the first that fits names a long time.
_SPANS = ((48, "hour", 1), (14 * 24, "day", 24), (60 * 24, "week", 7 * 24), (730 * 24, "month", 30 * 24))


def rows(*, everything: bool = False, filters: list[str] | None = None) -> list[Row]:
    """The containers, newest first.

    everything: those that have ended too, which a filter on status or exited also asks for.
    filters: `key=value`; values of one key are alternatives, labels and different keys must all match.
    Raises: UsageError (unknown filter), NotFound (no such container, of before= and since=).
    """
    wanted = _parse(filters or [])
    now = time.time()
    found = []
    for identifier in state.all_ids():
        try:
            row = _row(state.load(identifier), now)
        except NotFound:  # removed since the listing
            continue
        if not (everything or row["state"] == "running" or "status" in wanted or "exited" in wanted):
            continue
        if all(_passes(row, key, values) for key, values in wanted.items()):
            found.append(row)
    return sorted(found, key=lambda row: row["created"], reverse=True)


def _row(container: Record, now: float) -> Row:
    """Everything `ps` shows of one container."""
    identifier = str(container["id"])
    word = state.status(container)
    record = state.exit_record(identifier) if word == "exited" else None
    ports, network = container.get("ports"), container.get("network")
    return {
        "id": identifier,
        "name": str(container.get("name") or ""),
        "image": str(container.get("image") or container.get("bundle") or ""),
        "image_id": str(container.get("image_id") or ""),
        "args": container.get("args") or _args_of_bundle(identifier),
        "created": unix_s(container.get("created")),
        "state": word,
        "status": _status(container, word, record, now),
        "ports": _all_ports(container.get("exposed"), ports) if word == "running" else [],
        "published": ports if isinstance(ports, list) else [],
        "network": str(network or ""),
        "networks": container.get("networks") or [],
        "address": str(container.get("address") or ""),
        "labels": container.get("labels") or {},
        "exit_status": record[0] if record else None,
        "pid": container.get("pid", 0) if word == "running" else 0,
    }


def _args_of_bundle(identifier: str) -> list[str]:
    """process.args of a bundle's container, which has a copy of its config.json and no record of its own."""
    try:
        config: Any = jsonlite.loads(paths.read(f"{state.run_dir(identifier)}/config.json"))
        return [str(word) for word in config["process"]["args"]]
    except (OSError, ValueError, LookupError, TypeError):  # none, or one that is no config
        return []


def _status(container: Record, word: str, record: tuple[int | None, float] | None, now: float) -> str:
    """Docker's status column: `Up 3 minutes`, `Exited (0) 2 hours ago`, `Exited (unknown)`, `Created`."""
    if word == "running":
        return f"Up {span(state.seconds_up(container))}"
    if word == "created":
        return "Created"
    if record is None:
        return "Exited (unknown)"
    status = "unknown" if record[0] is None else record[0]
    return f"Exited ({status}) {span(now - record[1])} ago"


def span(seconds: float) -> str:
    """A length of time in one round figure, worded and rounded as Docker does: `About an hour`, `3 days`."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return _counted(int(seconds), "second")
    minutes = int(seconds / 60)
    if minutes < 60:
        return "About a minute" if minutes == 1 else _counted(minutes, "minute")
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, unit_hours in _SPANS:
        if hours < limit:
            return _counted(hours // unit_hours, unit)
    return _counted(hours // (365 * 24), "year")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def port_text(port: object) -> str:
    """`0.0.0.0:8080->80/tcp` of (host address, host port, container port, protocol)."""
    if not isinstance(port, list | tuple) or len(port) != 4:
        return str(port)
    address, host_port, container_port, protocol = port
    shown = f"[{address}]" if ":" in str(address) else address or "0.0.0.0"
    return f"{shown}:{host_port}->{container_port}/{protocol}"


def port_texts(ports: list[object]) -> list[str]:
    """The same for all, neighbours as one range: `0.0.0.0:8000-8010->8000-8010/tcp`."""
    runs: list[list[tuple[str, int, int, str]]] = []
    for port in ports:
        if not isinstance(port, list | tuple) or len(port) != 4:
            continue
        host, number, inside, protocol = port
        if runs and runs[-1][-1] == (host, number - 1, inside - 1, protocol):
            runs[-1].append((host, number, inside, protocol))
        else:
            runs.append([(host, number, inside, protocol)])
    return [_run_text(run) for run in runs]


def _all_ports(exposed: object, ports: object) -> list[str]:
    """As Docker lists them: first what is exposed and not published, `80-81/tcp`."""
    published = ports if isinstance(ports, list) else []
    inside = {(each[2], each[3]) for each in published if isinstance(each, list | tuple) and len(each) == 4}
    runs: list[list[tuple[int, str]]] = []
    for number, protocol in exposed if isinstance(exposed, list) else []:
        if (number, protocol) in inside:
            continue
        if runs and runs[-1][-1] == (number - 1, protocol):
            runs[-1].append((number, protocol))
        else:
            runs.append([(number, protocol)])
    shown = [f"{run[0][0]}{f'-{run[-1][0]}' if run[1:] else ''}/{run[0][1]}" for run in runs]
    return [*shown, *port_texts(published)]


def _run_text(run: list[tuple[str, int, int, str]]) -> str:
    first = port_text(run[0])
    if len(run) == 1:
        return first
    place, _, rest = first.partition("->")
    inside, _, protocol = rest.partition("/")
    return f"{place}-{run[-1][1]}->{inside}-{run[-1][2]}/{protocol}"


def unix_s(created: object) -> float:
    """A time of creation as unix seconds, from a number or an RFC 3339 text; 0 if there is none."""
    if isinstance(created, int | float):
        return float(created)
    if not isinstance(created, str) or not created:
        return 0.0
    import datetime

    try:
        return datetime.datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0


def _parse(filters: list[str]) -> dict[str, list[str]]:
    """Group `key=value` by key. Raises: UsageError."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _FILTERS:
            raise UsageError(f"unknown filter '{text}'", f"write KEY=VALUE with one of {', '.join(_FILTERS)}")
        if key == "status" and value not in _STATES:
            raise UsageError(f"filter status={value}: no such status", "it is created, running or exited")
        if key == "exited" and not value.removeprefix("-").isdecimal():
            raise UsageError(f"filter exited={value}: no exit status", "give a number")
        if key in ("before", "since"):
            value = str(unix_s(state.load(state.resolve(value)).get("created")))
        wanted.setdefault(key, []).append(value)
    return wanted


def _passes(row: Row, key: str, values: list[str]) -> bool:
    """As Docker: a container has many labels, and of everything else one."""
    wanted = all if key == "label" else any
    return wanted(_matches(row, key, value) for value in values)


def _matches(row: Row, key: str, value: str) -> bool:
    """Whether *row* passes one filter."""
    if key in _TESTS:
        return bool(_TESTS[key](row, value))
    if key == "exited":
        return row["state"] == "exited" and str(row["exit_status"]) == value
    if key == "network":
        return value in row["network"].split(",")
    if key in ("before", "since"):
        return row["created"] < float(value) if key == "before" else row["created"] > float(value)
    plain = {"id": row["id"][: len(value)], "status": row["state"]}
    return plain[key] == value


def _label_matches(row: Row, value: str) -> bool:
    name, equals, wanted = value.partition("=")
    labels = row["labels"] if isinstance(row["labels"], dict) else {}
    return name in labels and (not equals or labels[name] == wanted)


def _name_matches(row: Row, pattern: str) -> bool:
    """Docker's rule: a regular expression found anywhere in the name."""
    name = row["name"]
    if pattern.replace("-", "").replace("_", "").isalnum():
        return pattern in name
    import re

    try:
        # Docker's names begin with a slash
        return any(re.search(pattern, each) for each in (name, f"/{name}"))
    except re.error as error:
        raise UsageError(
            f"filter name={pattern}: {error}", "a regular expression, or a part of the name"
        ) from None


def _image_matches(row: Row, value: str) -> bool:
    """The image by id, or by name as `run` takes it: one without a tag is that with the tag latest."""
    from pyrun.store import images, references

    identifier, digits = row["image_id"], value.removeprefix("sha256:")
    if not identifier:  # a bundle's container
        return False
    if len(digits) >= images.SHORTEST_ID and identifier.startswith(digits):
        return True
    try:
        # the name it was started by may be another one of the image's, or be another image's by now
        return images.find_id(value) == identifier or references.parse(row["image"]).full == (
            references.parse(value).full
        )
    except UsageError:  # it was started by an id
        return False


def _publishes(row: Row, value: str) -> bool:
    """Whether one of the ports on the host is *value*: `8080`, `53/udp`, `8000-8010/tcp`. Raises: UsageError."""
    numbers, _, protocol = value.partition("/")
    first, dash, last = numbers.partition("-")
    if not (is_number(first) and (is_number(last) or not dash)):
        raise UsageError(f"filter publish={value}: no port", "for example 8080, 53/udp or 8000-8010")
    wanted, ports = range(int(first), int(last or first) + 1), row["published"]
    return any(
        port[1] in wanted and port[3] == (protocol or "tcp")
        for port in ports
        if isinstance(port, list | tuple) and len(port) == 4
    )


_TESTS = {"name": _name_matches, "ancestor": _image_matches, "label": _label_matches, "publish": _publishes}
