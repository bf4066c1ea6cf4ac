"""What `network create -o` and ids mean: network/drivers/driver_options.py, records.named, mac_claims.py."""

from __future__ import annotations

import posix
from pathlib import Path
from typing import Any

import pytest

from pyrun import notice
from pyrun.errors import Conflict, UsageError
from pyrun.network import claims, design, leases, mac_claims, records, requests
from pyrun.network.drivers import driver_options
from pyrun.store import state

DOCKERS = "com.docker.network."
ICC, MASQUERADE = f"{DOCKERS}bridge.enable_icc", f"{DOCKERS}bridge.enable_ip_masquerade"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(posix.environ, b"PYRUN_ROOT", str(tmp_path / "root").encode())
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path / "run").encode())
    return tmp_path


def wanted(driver: str = "bridge", mtu: int = 0, icc: bool = True, **options: str) -> design.Wanted:
    made = design.Wanted("front", driver)
    made.mtu, made.icc, made.options = mtu, icc, options
    return made


def settled(given: design.Wanted) -> design.Wanted:
    driver_options.settle(given)
    return given


# ── -o ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "icc"),
    [
        ({}, True), ({ICC: "true"}, True), ({ICC: "1"}, True), ({ICC: "false"}, False), ({ICC: "False"}, False),
        ({ICC: "0"}, False), ({ICC: "true", "icc": False}, False), ({ICC: "false", "driver": "none"}, True),
    ],
)  # fmt: skip
def test_dockers_key_for_icc(given: dict[str, Any], icc: bool) -> None:
    assert settled(wanted(**given)).icc is icc


def test_dockers_key_for_the_mtu() -> None:
    key = f"{DOCKERS}driver.mtu"
    assert (settled(wanted()).mtu, settled(wanted()).mtu_told) == (0, "--mtu")
    assert settled(wanted(**{key: "1400"})).mtu == 1400
    assert settled(wanted(mtu=1300, **{key: "1400"})).mtu == 1300
    assert settled(wanted(**{key: "5"})).mtu_told == f"-o {key}"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({f"{DOCKERS}driver.mtu": "abc"}, f"-o {DOCKERS}driver.mtu abc: is no number of bytes"),
        ({f"{DOCKERS}driver.mtu": "\u0665"}, f"-o {DOCKERS}driver.mtu"),
        ({"mtu": -5}, "--mtu -5: is no number of bytes"),
        ({ICC: "maybe"}, f"-o {ICC}=maybe: is true or false"),
        ({ICC: ""}, f"-o {ICC}=: is true or false"),
    ],
)
def test_a_value_that_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        settled(wanted(**given))
    assert caught.value.message.startswith(named)


@pytest.mark.parametrize(
    ("driver", "given", "ignored"),
    [
        ("bridge", {ICC: "false", f"{DOCKERS}driver.mtu": "1400", f"{DOCKERS}bridge.name": "pyrx"}, []),
        ("bridge", {MASQUERADE: "true"}, []),
        ("bridge", {MASQUERADE: "false"}, [MASQUERADE]),
        ("bridge", {"parent": "eth0", "frob": ""}, ["parent", "frob"]),
        ("none", {ICC: "false"}, [ICC]),
        ("macvlan", {"parent": "eth0", "mode": "vepa"}, []),
    ],
)
def test_what_has_no_effect_is_said(
    driver: str, given: dict[str, str], ignored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [said.append])
    driver_options.say_ignored(wanted(driver, **given))
    assert said == [f"-o {name}: no setting of the driver {driver}, ignored" for name in ignored]


# ── by name or by id ───────────────────────────────────────────────────────────────────────────────


def test_a_network_is_meant_by_name_then_by_the_beginning_of_its_id() -> None:
    for name, identifier in (
        ("front", "abcd1" + "0" * 59),
        ("back", "abcd2" + "0" * 59),
        ("abcd2", "f" * 64),
    ):
        records.define(records.Network(name, identifier))
    assert records.named("front") == "front"
    assert records.named("abcd1" + "0" * 59) == records.named("abcd1") == "front"
    assert records.named("abcd2") == "abcd2", "names come first"
    assert records.named("abcd20") == "back"
    assert records.named("ffff") == "abcd2"
    for nobodys in ("fff", "abcd3", "../front", "abcd1" + "0" * 60, "ABCD1", "", "host"):
        assert records.named(nobodys) == nobodys
    with pytest.raises(UsageError, match="network 'abcd' is ambiguous: 2 ids begin so"):
        records.named("abcd")


# ── MAC addresses ──────────────────────────────────────────────────────────────────────────────────


def lease(store: Path, name: str, address: str, *lines: str) -> None:
    """A lease of a living container."""
    (store / "run/containers" / name).mkdir(parents=True, exist_ok=True)
    path = Path(leases.path("front", address))
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{name} {posix.getpid()} {state.own_start_time()}"
    path.write_text("\n".join([owner, f"name {name}", *lines, ""]))


def claim(address: str, mac: str) -> None:
    """The MAC's claim of whoever has that lease."""
    path = Path(leases.mac_path("front", mac))
    path.parent.mkdir(exist_ok=True)
    path.write_text(Path(leases.path("front", address)).read_text())


def test_a_mac_that_somebody_has(store: Path) -> None:
    lease(store, "derived", "10.1.0.9")
    lease(store, "derived", "fd00::77")
    lease(store, "asks", "10.1.0.8", "mac 02:00:00:00:00:aa")
    lease(store, "chosen", "10.1.0.10", "mac 02:00:00:00:00:aa")
    claim("10.1.0.10", "02:00:00:00:00:aa")
    lease(store, "hopes", "10.1.0.12", "mac 02:00:00:00:00:cc")
    lease(store, "gone", "10.1.0.11", "mac 02:00:00:00:00:bb")
    (store / "run/containers/gone").rmdir()
    Path(leases.path("front", "10.1.0.11")).write_text("gone 999999 1\nname gone\nmac 02:00:00:00:00:bb\n")
    for mac, owner in (("02:42:0a:01:00:09", "derived"), ("02:00:00:00:00:aa", "chosen")):
        with pytest.raises(
            Conflict, match=f"told: the MAC address {mac} is that of container {owner} on network"
        ):
            mac_claims.refuse("front", mac, "told")
    for free in (
        leases.mac("10.1.0.10"), leases.mac("fd00::77"), "02:00:00:00:00:bb", "02:00:00:00:00:cc",
    ):  # fmt: skip
        mac_claims.refuse("front", free, "told")
    mac_claims.refuse("back", "02:00:00:00:00:aa", "told")
    assert claims.names(f"{store}/run/networks/front/leases"), "only looked at"


def test_the_mac_of_the_bridge_itself() -> None:
    records.save(records.parsed({"name": "front", "bridge": "lo"}))  # whose MAC is known everywhere
    one = requests.Endpoint("front")
    mac_claims.refuse_taken([one])
    one.mac = "00:00:00:00:00:00"
    with pytest.raises(Conflict, match="is that of the bridge of network front"):
        mac_claims.refuse_taken([one])
