"""`linux.resources` of a container, set and read back: what test_limits_v1.py and test_limits_v2.py share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oci.box import Box
from oci.marks import shows

V1 = pytest.mark.needs("cgroup1")
V2 = pytest.mark.needs("cgroup2")
MB = 1 << 20
BURST = {"quota": 50000, "period": 100000, "burst": 10000}
FIELD = "config: linux.resources."
UNIFIED = Path("/sys/fs/cgroup")


def disk() -> tuple[int, int]:
    """A whole block device, as blkio rules want it."""
    for path in sorted(Path("/sys/block").iterdir()):
        if not path.name.startswith(("loop", "ram", "zram")):
            major, minor = (path / "dev").read_text().strip().split(":")
            return int(major), int(minor)
    return 7, 0


def needed(file: str) -> list[pytest.MarkDecorator]:
    """The marks of a test that reads *file* of a cgroup."""
    return [pytest.mark.needs("bfq")] if ".bfq." in file else []


MAJOR, MINOR = disk()
DISK = f"{MAJOR}:{MINOR}"


def put(box: Box, path: str, value: object) -> None:
    """resources.a.b = value."""
    *parents, last = path.split(".")
    place = box.resources
    for each in parents:
        place = place.setdefault(each, {})
    place[last] = value


def applied(box: Box, controller: str, name: str, **resources: object) -> str:
    """What a file of the cgroup says once a container with these resources is created."""
    box.resources.update(resources)
    box.create("true")
    return box.limit(controller, name)


THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def throttle_rows() -> list[Any]:
    return [
        pytest.param(
            field,
            id=field,
            marks=shows(*(f"{FIELD}blockIO.{field}[].{name}" for name in ("major", "minor", "rate"))),
        )
        for field in THROTTLES
    ]


def throttle(field: str) -> dict[str, object]:
    return {field: [{"major": MAJOR, "minor": MINOR, "rate": 123456}]}
