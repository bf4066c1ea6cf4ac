"""resolv.conf of a container with --dns, --dns-search and --dns-option: network/resolver.py, engine/prepare.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyrun import notice
from pyrun.engine import prepare
from pyrun.errors import UsageError
from pyrun.network import requests, resolver, user_mode, wiring

HOST = "# of the host\nnameserver 192.0.2.53\nsearch lan.test\ndomain lan.test\noptions timeout:1\n"


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resolv.conf").write_text(HOST)
    monkeypatch.setattr(resolver, "HOST_FILE", str(tmp_path / "resolv.conf"))


def asked(**options: Any) -> requests.Dns:
    return resolver.asked(options)


@pytest.mark.parametrize(
    ("options", "of_the_host", "at_a_gateway"),
    [
        ({}, ["nameserver 192.0.2.53", "search lan.test", "domain lan.test", "options timeout:1"],
         ["nameserver 10.1.0.1", "search lan.test", "domain lan.test", "options timeout:1"]),
        ({"dns": ["192.0.2.1", "2001:DB8::1"]},
         ["search lan.test", "domain lan.test", "options timeout:1", "nameserver 192.0.2.1", "nameserver 2001:db8::1"],
         ["nameserver 10.1.0.1", "search lan.test", "domain lan.test", "options timeout:1"]),
        ({"dns_search": ["a.test", "b.test."]},
         ["nameserver 192.0.2.53", "options timeout:1", "search a.test b.test."],
         ["nameserver 10.1.0.1", "search a.test b.test.", "options timeout:1"]),
        ({"dns_search": ["."]}, ["nameserver 192.0.2.53", "options timeout:1"],
         ["nameserver 10.1.0.1", "options timeout:1"]),
        ({"dns_option": ["ndots:3", "rotate"]},
         ["nameserver 192.0.2.53", "search lan.test", "domain lan.test", "options ndots:3 rotate"],
         ["nameserver 10.1.0.1", "search lan.test", "domain lan.test", "options ndots:3 rotate"]),
    ],
)  # fmt: skip
def test_what_is_asked_takes_the_place_of_the_hosts(
    options: dict[str, Any], of_the_host: list[str], at_a_gateway: list[str]
) -> None:
    assert resolver.chosen(asked(**options), resolver.same_as_host()) == of_the_host
    assert resolver.at("10.1.0.1", asked(**options)) == at_a_gateway


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dns": ["abc"]}, "--dns 'abc': is no IP address"),
        ({"dns": ["10.1.0"]}, "--dns '10.1.0': is no IP address"),
        ({"dns": ["fe80::1%eth0"]}, "is no IP address"),
        ({"dns": [""]}, "--dns '': is no IP address"),
        ({"dns_search": ["a..b"]}, "--dns-search: 'a..b' is no host name"),
        ({"dns_search": ["a/b"]}, "--dns-search: 'a/b' is no host name"),
        ({"dns_search": ["x" * 70]}, "is no host name"),
        ({"dns_search": ["a b"]}, "--dns-search 'a b': one word"),
        ({"dns_search": [""]}, "--dns-search '': one word"),
        ({"dns_option": ["a b"]}, "--dns-option 'a b': one word"),
    ],
)
def test_what_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(**options)
    assert named in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("mode", ["host", "none"])
def test_the_file_is_what_the_network_says(mode: str) -> None:
    request, wired = requests.Request("a" * 64, "web", mode), wiring.NetworkPlan()
    request.hostname, request.dns = "web", asked(dns=["192.0.2.1"])
    wired.resolv = resolver.chosen(request.dns, [])
    assert prepare.files({}, request, wired)["resolv.conf"] == b"nameserver 192.0.2.1\n"


def test_the_program_of_a_user_is_asked_unless_another_server_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_mode, "choose", lambda mode: "pasta")
    request = requests.Request("a" * 64, "web", "pasta")
    request.run_dir, request.dns = "/run/x", asked()
    own = f"nameserver {user_mode.pasta.NAME_SERVER}"
    assert user_mode.plan(request).resolv[0] == own
    request.dns = asked(dns=["192.0.2.1"], dns_search=["a.test"])
    told = user_mode.plan(request).resolv
    assert told == ["options timeout:1", "nameserver 192.0.2.1", "search a.test"]


# ── the servers of the host ──────────────────────────────────────────────────────────────────────────


def resolv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, behind: str = "") -> list[str]:
    (tmp_path / "resolv.conf").write_text(text)
    (tmp_path / "behind").write_text(behind)
    monkeypatch.setattr(resolver, "HOST_FILE", str(tmp_path / "resolv.conf"))
    monkeypatch.setattr(resolver, "BEHIND_STUB", str(tmp_path / "behind"))
    return resolver.reachable(fall_back=True)


def test_loopback_and_ipv6_servers_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# a\nsearch example.org\nnameserver 127.0.0.1\nnameserver ::1\nnameserver\t192.0.2.53\noptions ndots:2\n"
    assert resolv(tmp_path, monkeypatch, text) == [
        "search example.org",
        "nameserver 192.0.2.53",
        "options ndots:2",
    ]


def test_the_servers_behind_the_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolv(tmp_path, monkeypatch, "nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n") == [
        "nameserver 192.0.2.9"
    ]


@pytest.mark.parametrize("text", ["", "nameserver 127.0.0.1\n", "nameserver\n"])
def test_nothing_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    said: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [said.append])
    assert resolv(tmp_path, monkeypatch, text) == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]
    assert len(said) == 1
