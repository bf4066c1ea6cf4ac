"""What a kernel without IPv6 refuses is not said to it; the whole of it is tests/vm/test_no_ipv6.py."""

from __future__ import annotations

import pytest

from pyrun.errors import NetworkError
from pyrun.network import design, host, messages, records, templates

TOLD = {"name": "front", "bridge": "pyrfront", "index": 7, "mtu": 1500, "gateway": "10.9.0.1"}
FOUR = records.parsed(TOLD)
SIX = records.parsed({**TOLD, "subnet6": "fd00:9::/64", "subnets6": [{"subnet": "fd00:9::/64"}]})
AF_SPEC = (26 | 0x8000).to_bytes(2, "little"), (26).to_bytes(2, "little")  # IFLA_AF_SPEC of linux/if_link.h


def attributes(message: bytes) -> list[bytes]:
    """The kinds of the attributes of a message about a link, after struct nlmsghdr and ifinfomsg."""
    found, at = [], 16 + 16
    while at < len(message):
        found.append(message[at + 2 : at + 4])
        at += (int.from_bytes(message[at : at + 2], "little") + 3) & ~3
    return found


@pytest.mark.parametrize("six", [True, False])
def test_a_port_of_the_bridge(monkeypatch: pytest.MonkeyPatch, six: bool) -> None:
    """It is told to have no address of IPv6 by itself, where there is IPv6."""
    monkeypatch.setattr(host, "has_ipv6", lambda: six)
    kinds = attributes(templates.encode(FOUR, templates.MARKS)["label"])
    assert len(kinds) == 2 + six
    assert any(kind in kinds for kind in AF_SPEC) is six
    assert messages.parsed(templates.text(FOUR)) is not None


def test_a_network_with_ipv6_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "has_ipv6", lambda: False)
    design.check_families(FOUR)
    with pytest.raises(
        NetworkError, match=r"network 'front' cannot have fd00:9::/64: this kernel has no IPv6"
    ):
        design.check_families(SIX)
    monkeypatch.setattr(host, "has_ipv6", lambda: True)
    design.check_families(SIX)
