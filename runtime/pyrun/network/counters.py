"""What went through a container's links: the kernel counts, at the host's end of each.

What that end received is what the container sent. Source: Documentation/ABI/testing/sysfs-class-net-statistics.
"""

from __future__ import annotations

from pyrun.store import paths

_COUNTERS = {
    "sent_bytes": "rx_bytes", "sent_packets": "rx_packets", "received_bytes": "tx_bytes",
    "received_packets": "tx_packets", "dropped_packets": "rx_dropped",
}  # fmt: skip


def read(link: str) -> dict[str, int]:
    """What the container sent and received by this link since it was made; {} when there is no such link."""
    found = {}
    for ours, kernel in _COUNTERS.items():
        try:
            found[ours] = int(paths.read(f"/sys/class/net/{link}/statistics/{kernel}"))
        except (OSError, ValueError):
            return {}
    return found
