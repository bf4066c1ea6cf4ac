"""Which token servers belong to a registry, and how near an address is: the pure parts of registry/."""

from __future__ import annotations

import socket

import pytest

from pyrun.errors import RegistryError
from pyrun.registry import auth, zones
from pyrun.registry.zones import Zone


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("registry-1.docker.io", "auth.docker.io"), ("registry.hub.docker.com", "auth.docker.io"),
        ("registry.gitlab.com", "gitlab.com"), ("registry.example.com", "gitlab.example.com"),
        ("quay.io", "quay.io"), ("ghcr.io", "GHCR.io."), ("me.azurecr.io", "me.azurecr.io"),
        ("europe-docker.pkg.dev", "europe-docker.pkg.dev"), ("registry.digitalocean.com", "api.digitalocean.com"),
        ("registry.connect.redhat.com", "sso.redhat.com"), ("r.example.co.uk", "auth.example.co.uk"),
        ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "localhost"), ("registry", "registry"),
    ],
)  # fmt: skip
def test_token_servers_that_belong_to_a_registry(registry: str, realm: str) -> None:
    assert auth.belongs(realm, registry)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("quay.io", "evil.example"), ("quay.io", "quay.io.evil.example"), ("quay.io", "evilquay.io"), ("a.io", "io"),
        ("r.example.co.uk", "evil.co.uk"), ("r.example.com.au", "evil.com.au"), ("me.azurecr.io", "evil.azurecr.io"),
        ("me.github.io", "evil.github.io"), ("ec2-1.compute.amazonaws.com", "ec2-2.compute.amazonaws.com"),
        ("registry.lan", "auth.other.lan"), ("registry", "auth"), ("10.1.2.3", "10.9.2.3"), ("1.2", "3.1.2"),
        ("::1", "::2"), ("registry-1.docker.io", "docker.io.evil.example"), ("auth.docker.io", "docker.com"),
        ("registry.example.com", ""), ("", ""), ("0x7f.0x1", "1.0x7f.0x1"), ("r.ghcr.io", "quay.io"),
        ("a..io", "b..io"),
    ],
)  # fmt: skip
def test_token_servers_that_do_not(registry: str, realm: str) -> None:
    assert not auth.belongs(realm, registry)


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("8.8.8.8", Zone.PUBLIC), ("2a00::1", Zone.PUBLIC), ("10.0.0.1", Zone.PRIVATE), ("172.31.0.1", Zone.PRIVATE),
        ("192.168.1.1", Zone.PRIVATE), ("100.100.100.200", Zone.PRIVATE), ("fd00:ec2::254", Zone.PRIVATE),
        ("224.0.0.1", Zone.PRIVATE), ("255.255.255.255", Zone.PRIVATE), ("ff0e::1", Zone.PRIVATE),
        ("169.254.169.254", Zone.LINK_LOCAL), ("fe80::1%lo", Zone.LINK_LOCAL), ("168.63.129.16", Zone.LINK_LOCAL),
        ("192.0.0.192", Zone.LINK_LOCAL), ("127.0.0.1", Zone.LOOPBACK), ("127.9.9.9", Zone.LOOPBACK),
        ("0.0.0.0", Zone.LOOPBACK), ("::", Zone.LOOPBACK), ("::1", Zone.LOOPBACK), ("::ffff:127.0.0.1", Zone.LOOPBACK),
        ("::ffff:10.0.0.1", Zone.PRIVATE), ("64:ff9b::7f00:1", Zone.LOOPBACK), ("2002:7f00:1::", Zone.LOOPBACK),
        ("64:ff9b::808:808", Zone.PUBLIC), ("::ffff:8.8.8.8", Zone.PUBLIC),
    ],
)  # fmt: skip
def test_zones(address: str, zone: Zone) -> None:
    assert zones.zone_of(address) is zone


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "::1"])
def test_a_proxy_is_not_asked_for_an_address_that_is_too_near(host: str) -> None:
    with pytest.raises(RegistryError, match="is a loopback address: a server at a public one"):
        zones.refuse_literal(host, 80, Zone.PUBLIC)
    assert zones.refuse_literal(host, 80, Zone.LOOPBACK) is Zone.LOOPBACK
    assert zones.refuse_literal("name.test", 80, Zone.PUBLIC) is Zone.PUBLIC


def test_what_is_connected_to_is_what_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has another address a moment later (DNS rebinding) is asked about once."""
    answers = iter(["192.0.1.1", "127.0.0.1"])
    connected: list[tuple[str, int]] = []

    def resolved(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 80))]

    monkeypatch.setattr(zones.socket, "getaddrinfo", resolved)
    monkeypatch.setattr(zones.socket, "create_connection", lambda where, _: connected.append(where))
    zones.dial("rebinding.test", 80, 1, Zone.PUBLIC)
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1 of rebinding\.test is a loopback address"):
        zones.dial("rebinding.test", 80, 1, Zone.PUBLIC)
    assert connected == [("192.0.1.1", 80)]
