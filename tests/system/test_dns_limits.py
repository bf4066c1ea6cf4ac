"""What the guard and the resolver behind it may do, and what they cost."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from name_server import GATEWAY, OTHER_ID, WEB, Answer, Site, guards, pss_kb, question, resolvers
from pyrun.network import guard
from waiting import until

pytestmark = pytest.mark.needs("ipv6")


def status_of(pid: int) -> dict[str, str]:
    rows = [line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return {key: value.strip() for key, _, value in rows}


def test_the_resolver_holds_nothing_and_writes_nothing(site: Site) -> None:
    site.need()
    site.client.ask(GATEWAY, "web")
    (pid,) = resolvers(site)
    status = status_of(pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    writable = [
        line
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        if "rw" in line.split()[5].split(",")
    ]
    assert not writable
    assert (
        not os.access(f"/proc/{pid}/exe", os.W_OK)
        or "(deleted)" in os.readlink(f"/proc/{pid}/exe")
        or _is_sealed(pid)
    )


def _is_sealed(pid: int) -> bool:
    """Whether its interpreter cannot be written to through /proc/PID/exe (CVE-2019-5736)."""
    try:
        os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
    except OSError:
        return True
    return False


def test_a_policy_gives_the_next_resolver_the_one_right_it_needs(site: Site) -> None:
    site.need()
    site.client.ask(GATEWAY, "web")
    (first,) = resolvers(site)
    (site.run / "networks/policies" / OTHER_ID).write_text("mode dns\n")
    until(lambda: first not in resolvers(site), timeout_s=2.0)
    assert site.client.ask(GATEWAY, "web").values == [WEB]
    (second,) = resolvers(site)
    cap_net_admin = 1 << 12
    assert {int(status_of(second)[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {cap_net_admin}


def test_the_guards_socket_is_roots_alone(site: Site) -> None:
    site.need()
    status = (site.run / "networks/guard.sock").stat()
    assert status.st_mode & 0o777 == 0o600 and status.st_uid == 0
    for message in (b"", b"\n", b"need", b"need\n", b"need\n../x\t1.2.3.4\t", b"need\n\t\t\t", b"hold\ntcp-0.0.0.0-1\t",
                    b"need\n" + b"x" * 500 + b"\t10.0.0.1\t", b"need\nx\tnonsense\t", b"\xff" * 60000):  # fmt: skip
        sock = guard.connected()
        sock.send(message)
        if message:
            sock.recv(65536)
        sock.close()
    assert site.need() == {"dnsa": 53}


def test_many_networks_cost_little(site: Site) -> None:
    """Fifty networks: the guard alone while nobody asks, and one resolver for all of them."""
    gateways = []
    for number in range(50):
        gateways.append(site.networks.network(f"many{number}", f"10.60.{number}.1"))
        site.networks.lease(f"many{number}", f"10.60.{number}.2", f"{number:064d}", f"name m{number}")
    ports = guard.need(gateways)
    assert set(ports.values()) == {53}
    (own,) = guards(site)
    assert pss_kb(own) < 400
    site.need()
    assert site.client.ask(GATEWAY, "web").values == [WEB]
    (pid,) = resolvers(site)
    assert pss_kb(pid) < 16_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(("10.60.7.1", 0))  # the host itself
        sock.sendto(question("m7"), ("10.60.7.1", 53))
        assert Answer(sock.recv(600)).values == ["10.60.7.2"]
