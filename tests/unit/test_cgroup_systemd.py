"""The systemd driver: messages held to jeepney's bytes, properties, unit names, talks with a stand-in for systemd."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, new_method_call

from jobs import placed
from pyrun.cgroups import bus, bus_library, bus_messages, systemd, systemd_properties
from pyrun.errors import PyrunError, UsageError
from pyrun.spec.oci import Config
from systemd_bus import FakeSystemd

V2 = [("unified", "/sys/fs/cgroup", "/user.slice/session-1.scope")]
V1 = [
    ("name=systemd", "/sys/fs/cgroup/systemd", "/user.slice/session-1.scope"),
    ("memory", "/sys/fs/cgroup/memory", "/"),
]
RESOURCES: dict[str, Any] = {
    "devices": [
        {"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ],
    "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 1 << 20},
    "cpu": {"quota": 50500, "period": 100000, "shares": 512, "cpus": "0-2,9", "mems": "0"},
    "pids": {"limit": 0},
    "blockIO": {"weight": 500},
    "unified": {"memory.high": "1048576", "pids.max": "max", "cpu.max": "max 20000", "io.max": "8:0 rbps=1"},
}  # fmt: skip


def config_of(path: str = "") -> Config:
    return {"linux": {"cgroupsPath": path, "resources": RESOURCES}, "annotations": {}}


# ── messages ───────────────────────────────────────────────────────────────────────────────────────


def encoded(serial: int, member: str, signature: str, values: tuple[Any, ...]) -> bytes:
    """A call of systemd's manager as the library has it: the judge of bus_messages.message()."""
    path, interface = bus.MANAGER[1], bus.MANAGER[2]
    systemd_ = DBusAddress(path, bus_name=bus.MANAGER[0], interface=interface)
    return bytes(new_method_call(systemd_, member, signature or None, values).serialise(serial=serial))


@pytest.mark.parametrize(
    ("member", "signature", "values"),
    [
        ("Subscribe", "", ()),
        ("StopUnit", "ss", ("a.scope", "replace")),
        ("ResetFailedUnit", "s", ("",)),
        ("ResetFailedUnit", "s", ("ü" * 300,)),
        ("AttachProcessesToUnit", "ssau", ("a.scope", "/sub", [1, 2, 3])),
        ("X", "ybiuxt", (7, True, -5, 5, -(1 << 60), 1 << 63)),
        ("X", "yt(ys)a(yay)", (1, 2, (3, "four"), [(5, b"\1\2"), (6, b"")])),
        (
            "X",
            "av",
            ([("s", "text"), ("t", 5), ("a(ss)", [("a", "b"), ("c", "d")]), ("as", []), ("ay", b"\7")],),
        ),
        ("X", "a(sv)yat", ([], 1, [])),
        ("X", "og", ("/a/b", "a(sv)")),
    ],
)
def test_every_message_has_the_librarys_bytes(member: str, signature: str, values: tuple[Any, ...]) -> None:
    for serial in (1, 70000):
        ours = bus_messages.message(serial, bus.MANAGER, member, signature, values)
        assert ours == encoded(serial, member, signature, values)


@pytest.mark.parametrize("v2", [True, False])
def test_a_whole_start_has_the_librarys_bytes(v2: bool) -> None:
    config = config_of("system.slice:docker:1234")
    properties = systemd_properties.scope(config, "c1", placed(V2 if v2 else V1, config, "systemd"), 4711)
    assert ("IOAccounting" if v2 else "BlockIOAccounting") in dict(properties)
    values: tuple[Any, ...] = ("docker-1234.scope", "replace", properties, [])
    ours = bus_messages.message(3, bus.MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", values)
    assert ours == encoded(3, "StartTransientUnit", "ssa(sv)a(sa(sv))", values)


def test_types_of_a_signature() -> None:
    assert bus_messages.types("ssa(sv)a(sa(sv))uay") == ["s", "s", "a(sv)", "a(sa(sv))", "u", "ay"]


# ── names and places ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "slice_", "unit", "directory"),
    [
        ("", "system.slice", "pyrun-oci-c1.scope", "/system.slice/pyrun-oci-c1.scope"),
        ("a.slice:docker:12", "a.slice", "docker-12.scope", "/a.slice/docker-12.scope"),
        (":docker:12", "system.slice", "docker-12.scope", "/system.slice/docker-12.scope"),
        ("a-b-c.slice:p:n", "a-b-c.slice", "p-n.scope", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
        ("-.slice:p:n", "-.slice", "p-n.scope", "/p-n.scope"),
        ("a.slice::n", "a.slice", "n.scope", "/a.slice/n.scope"),
        ("a.slice:p:n+1", "a.slice", "p-n\\x2b1.scope", "/a.slice/p-n\\x2b1.scope"),
    ],
)
def test_units(path: str, slice_: str, unit: str, directory: str) -> None:
    found = placed(V2, config_of(path), "systemd")
    assert (found.slice, found.unit) == (slice_, unit)
    assert found.groups == [("unified", "/sys/fs/cgroup" + directory)]


@pytest.mark.parametrize(
    "path", ["/a/b", "a:b", "a.slice:p:n:m", "a.slice:p:", "a.slice:p:n.slice", "a:p:n", "a--b.slice:p:n", ".slice:p:n",
             "a.slice:p:../../b", "a.slice:p:" + "n" * 250]
)  # fmt: skip
def test_no_units(path: str) -> None:
    with pytest.raises(UsageError, match=r"linux.cgroupsPath"):
        placed(V2, config_of(path), "systemd")


def test_a_users_systemd_has_its_own_part_of_the_tree() -> None:
    place = "/user.slice/user-1000.slice/user@1000.service"
    own = [("unified", "/sys/fs/cgroup", f"{place}/app.slice/x.service")]
    assert placed(own, config_of(), "systemd", rootless=True).groups == [
        ("unified", f"/sys/fs/cgroup{place}/user.slice/pyrun-oci-c1.scope")
    ]


# ── properties ─────────────────────────────────────────────────────────────────────────────────────


def test_properties_of_v2() -> None:
    found = dict(systemd_properties.limits({**RESOURCES, "unified": {}}, v2=True))
    assert found == {
        "MemoryMax": ("t", 64 << 20), "MemoryLow": ("t", 1 << 20), "MemorySwapMax": ("t", 64 << 20),
        "CPUWeight": ("t", 59), "CPUQuotaPeriodUSec": ("t", 100000), "CPUQuotaPerSecUSec": ("t", 510000),
        "TasksMax": ("t", 1), "IOWeight": ("t", 4950), "AllowedCPUs": ("ay", b"\x07\x02"),
        "AllowedMemoryNodes": ("ay", b"\x01"),
    }  # fmt: skip


def test_properties_of_v1() -> None:
    found = dict(systemd_properties.limits({**RESOURCES, "unified": {}}, v2=False))
    assert found == {
        "MemoryLimit": ("t", 64 << 20), "CPUShares": ("t", 512), "CPUQuotaPeriodUSec": ("t", 100000),
        "CPUQuotaPerSecUSec": ("t", 510000), "TasksMax": ("t", 1), "BlockIOWeight": ("t", 500),
        "AllowedCPUs": ("ay", b"\x07\x02"), "AllowedMemoryNodes": ("ay", b"\x01"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            {"memory": {"limit": -1}},
            {"MemoryMax": systemd_properties.INFINITY, "MemorySwapMax": systemd_properties.INFINITY},
        ),
        ({"pids": {"limit": -1}}, {"TasksMax": systemd_properties.INFINITY}),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPerSecUSec": systemd_properties.INFINITY}),
        ({"cpu": {"idle": 1, "shares": 9}}, {"CPUWeight": 0}),
        ({"unified": {"cpu.idle": "1", "cpu.weight": "5"}}, {"CPUWeight": 0}),
        ({"unified": {"pids.max": "0"}}, {"TasksMax": 1}),
        ({"pids": {"limit": 5}, "unified": {"pids.max": "7"}}, {"TasksMax": 7}),
        ({"unified": {"cpu.max": "30000"}}, {"CPUQuotaPeriodUSec": 100000, "CPUQuotaPerSecUSec": 300000}),
        ({"unified": {"memory.max": "nonsense", "cgroup.freeze": "0"}}, {}),
    ],
)
def test_single_properties(resources: dict[str, Any], expected: dict[str, int]) -> None:
    found = systemd_properties.limits(resources, v2=True)
    assert {name: value for name, (_, value) in found} == expected


def test_device_rules_as_an_allow_list() -> None:
    found = systemd_properties.devices(RESOURCES)
    assert found[:2] == [("DeviceAllow", ("a(ss)", [])), ("DevicePolicy", ("s", "strict"))]
    allowed = found[2][1][1]
    assert ("/dev/char/10:229", "rw") in allowed
    assert ("char-*", "m") in allowed and ("block-*", "m") in allowed and ("char-136", "mrw") in allowed
    everything = systemd_properties.devices({"devices": [{"allow": True, "access": "rwm"}]})
    assert everything == [("DeviceAllow", ("a(ss)", [])), ("DevicePolicy", ("s", "auto"))]


def test_a_set_of_cpus_must_be_one() -> None:
    assert systemd_properties.bits("0") == b"\x01"
    assert systemd_properties.bits("8, 15,") == b"\x00\x81"
    for bad in ("", "a", "3-1", "99999999999"):
        with pytest.raises(UsageError):
            systemd_properties.bits(bad)


def annotated(name: str, value: str) -> Any:
    found = systemd_properties.annotated(
        {"annotations": {f"org.systemd.property.{name}": value, "other": "x"}}
    )
    return found[0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", ("s", "inactive-or-failed"))),
        ("TimeoutStopUSec", "uint64 123456789", ("TimeoutStopUSec", ("t", 123456789))),
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", ("t", 5000000))),
        ("TimeoutStopSec", "0.5", ("TimeoutStopUSec", ("t", 500000))),
        ("After", "['a.service', \"b.service\"]", ("After", ("as", ["a.service", "b.service"]))),
        ("SendSIGKILL", "false", ("SendSIGKILL", ("b", False))),
        ("KillSignal", "15", ("KillSignal", ("i", 15))),
    ],
)
def test_annotations(name: str, value: str, expected: Any) -> None:
    assert annotated(name, value) == expected


@pytest.mark.parametrize(
    "name", ["ExecStart", "ExecStopPost", "User", "Wants", "Requires", "Slice", "Delegate", "x", ""]
)
def test_annotations_that_may_do_harm_are_refused(name: str) -> None:
    """CVE-2024-3154: an annotation of a pod ran a program as root of the host."""
    with pytest.raises(UsageError, match=r"may not be set by an annotation"):
        annotated(name, "'x'")
    with pytest.raises(UsageError, match=r"may not be set by an annotation"):
        placed(V2, {"annotations": {f"org.systemd.property.{name}": "'/bin/sh'"}}, "systemd")


@pytest.mark.parametrize(
    ("name", "value"),
    [("CollectMode", "inactive"), ("CollectMode", "'a'b'"), ("TimeoutStopUSec", "-1"), ("TimeoutStopUSec", "'5'"),
     ("SendSIGKILL", "1"), ("After", "'a'"), ("KillSignal", "99999999999")],
)  # fmt: skip
def test_annotations_of_the_wrong_type(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"annotations.org.systemd.property.{name}: must be"):
        annotated(name, value)


# ── talks ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    path = str(tmp_path / "bus,1")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path.replace(',', '%2c')},guid=00")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={path.replace(',', '%2c')}")
    yield path


def talk(address: str, replies: dict[str, list[Any]], **more: Any) -> FakeSystemd:
    return FakeSystemd(address, replies, **more)


def started(properties: list[tuple[str, Any]] | None = None) -> None:
    connection = bus.connect(user=False)
    try:
        systemd._start(connection, "a.scope", properties or [("CollectMode", ("s", "inactive"))])
    finally:
        connection.close()


def test_a_start_waits_for_its_own_job(address: str) -> None:
    fake = talk(address, {"StartTransientUnit": [("job", "done")]})
    started()
    assert [name for name, _ in fake.calls] == ["Hello", "AddMatch", "StartTransientUnit"]
    assert fake.greeting == b"\0AUTH EXTERNAL\r\nDATA\r\n"
    assert fake.called("StartTransientUnit")[0][:2] == ("a.scope", "replace")


def test_a_failed_unit_of_that_name_is_reset_once(address: str) -> None:
    exists = (
        "org.freedesktop.systemd1.UnitExists",
        "Unit a.scope was already loaded or has a fragment file.",
    )
    fake = talk(address, {"StartTransientUnit": [exists, ("job", "done")]})
    started()
    assert fake.called("ResetFailedUnit") == [("a.scope",)]
    fake = talk(address + "2", {"StartTransientUnit": [exists]})
    os.rename(address + "2", address)
    with pytest.raises(
        PyrunError, match=r"systemd refused StartTransientUnit: Unit a.scope was already loaded"
    ):
        started()


def test_a_property_that_is_too_new_is_left_out(address: str) -> None:
    unknown = (
        "org.freedesktop.DBus.Error.PropertyReadOnly",
        "Cannot set property OOMPolicy, or unknown property.",
    )
    fake = talk(address, {"StartTransientUnit": [unknown, ("job", "done")]})
    started([("CollectMode", ("s", "inactive")), ("OOMPolicy", ("s", "kill"))])
    assert [name for name, _ in fake.called("StartTransientUnit")[1][2]] == ["CollectMode"]


def test_one_that_is_not_new_is_an_error(address: str) -> None:
    unknown = (
        "org.freedesktop.DBus.Error.PropertyReadOnly",
        "Cannot set property Slice, or unknown property.",
    )
    talk(address, {"StartTransientUnit": [unknown]})
    with pytest.raises(PyrunError, match=r"Cannot set property Slice"):
        started([("Slice", ("s", "x.slice"))])


def test_a_job_that_fails(address: str) -> None:
    fake = talk(address, {"StartTransientUnit": [("job", "failed")]})
    with pytest.raises(PyrunError, match=r"systemd could not start a.scope: failed"):
        started()
    assert fake.called("ResetFailedUnit")


def test_a_bus_that_does_not_let_us_in(address: str) -> None:
    talk(address, {}, welcome=b"REJECTED EXTERNAL\r\n")
    with pytest.raises(PyrunError, match=r"does not let us in: 'REJECTED"):
        started()


def test_a_bus_that_hangs_up(address: str) -> None:
    talk(address, {}, welcome=b"")
    with pytest.raises(
        PyrunError, match=r"the bus to systemd broke while it was to StartTransientUnit: it was closed"
    ):
        started()


def test_no_bus(address: str) -> None:
    with pytest.raises(PyrunError, match=r"cannot reach systemd by unix:path=.*No such file"):
        started()


def test_a_user_without_a_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(PyrunError, match=r"no bus to the user's systemd"):
        bus.address(user=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert bus.sockets(bus.address(user=True)) == ["/run/user/7/bus"]
    assert bus.sockets("tcp:host=a;unix:abstract=b,guid=1") == [b"\0b"]


def test_stop(address: str, tmp_path: Path) -> None:
    fake = talk(address, {"StopUnit": [("job", "done")]})
    systemd.stop({"unit": "a.scope", "cgroups": [["unified", str(tmp_path)]]})
    assert fake.called("StopUnit") == [("a.scope", "replace")]
    assert fake.called("ResetFailedUnit") == [("a.scope",)]


def test_a_stop_of_what_is_gone(address: str, tmp_path: Path) -> None:
    systemd.stop({"unit": "a.scope", "cgroups": [["unified", str(tmp_path / "gone")]]})  # no bus is asked
    talk(address, {"StopUnit": [("org.freedesktop.systemd1.NoSuchUnit", "Unit a.scope not loaded.")]})
    systemd.stop({"unit": "a.scope", "cgroups": [["unified", str(tmp_path)]]})


def test_the_library_half(address: str) -> None:
    fake = talk(address, {"SetUnitProperties": [("", ())]})
    connection = bus.connect(user=False)
    bus_library.set_properties(connection, "a.scope", [("TasksMax", ("t", 5))])
    assert fake.called("SetUnitProperties") == [("a.scope", True, [("TasksMax", ("t", 5))])]
    connection.close()


def test_the_library_half_says_what_systemd_said(address: str) -> None:
    talk(
        address, {"SetUnitProperties": [("org.freedesktop.systemd1.NoSuchUnit", "Unit a.scope not loaded.")]}
    )
    connection = bus.connect(user=False)
    with pytest.raises(PyrunError, match=r"systemd refused SetUnitProperties: Unit a.scope not loaded."):
        bus_library.set_properties(connection, "a.scope", [])
    connection.close()
