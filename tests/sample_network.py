"""A network of both families as its record tells of it, for what is made from one."""

from __future__ import annotations

from pyrun.network import records

FOUR = {
    "subnet": "10.77.0.0/16",
    "gateway": "10.77.0.1",
    "prefix": 16,
    "broadcast": "10.77.255.255",
    "range": "",
}

SIX = {"subnet": "fd77:1::/64", "gateway": "fd77:1::1", "prefix": 64, "broadcast": "", "range": ""}

TOLD: dict[str, object] = {
    "name": "bridge",
    "id": "ab" * 32,
    "bridge": "pyrun0",
    "index": 77,
    "mtu": 1450,
    **FOUR,
    "subnets4": [FOUR],
    "gateway6": "fd77:1::1",
    "prefix6": 64,
    "subnets6": [SIX],
}

NETWORK = records.parsed(TOLD)
