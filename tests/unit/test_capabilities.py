"""Capabilities: the table, masks, and Docker's rules for adding and dropping."""

from __future__ import annotations

import pathlib
import re

import pytest

from pyrun.errors import UsageError
from pyrun.spec import capabilities, defaults
from pyrun.spec.capabilities import ALL, DEFAULT, mask_of, names_of, parse_add_drop


def bit(*names: str) -> int:
    return mask_of(tuple("CAP_" + name for name in names))


def test_the_table_is_the_kernels() -> None:
    header = pathlib.Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    numbers = {
        name: int(number)
        for name, number in re.findall(r"#define\s+(CAP_\w+)\s+(\d+)\s*$", header.read_text(), re.MULTILINE)
        if name != "CAP_LAST_CAP"
    }
    assert numbers == capabilities.NUMBERS


def test_there_are_41_and_docker_gives_14() -> None:
    assert len(capabilities.NAMES) == 41
    assert len(set(capabilities.DEFAULT_NAMES)) == 14
    assert mask_of(capabilities.DEFAULT_NAMES) == DEFAULT


def test_masks_and_names_are_inverse() -> None:
    assert mask_of(names_of(DEFAULT)) == DEFAULT
    assert names_of(ALL) == list(capabilities.NAMES)
    assert names_of(0) == []
    assert names_of(1 << 41 | 1) == ["CAP_CHOWN"]


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ([], [], False, DEFAULT),
        (["NET_ADMIN"], [], False, DEFAULT | bit("NET_ADMIN")),
        (["cap_net_admin"], [], False, DEFAULT | bit("NET_ADMIN")),
        (["Net_Admin", "SYS_TIME"], ["kill"], False, DEFAULT & ~bit("KILL") | bit("NET_ADMIN", "SYS_TIME")),
        ([], ["ALL"], False, 0),
        (["chown"], ["all"], False, bit("CHOWN")),
        (["ALL"], [], False, ALL),
        (["ALL"], ["SYS_ADMIN", "NET_RAW"], False, ALL & ~bit("SYS_ADMIN", "NET_RAW")),
        (["ALL"], ["ALL"], False, ALL),
        (["ALL", "NET_ADMIN"], ["NET_ADMIN"], False, ALL & ~bit("NET_ADMIN")),
        (["KILL"], ["KILL"], False, DEFAULT),
        ([], ["ALL"], True, ALL),
        (["nonsense"], [], True, ALL),
    ],
)
def test_docker_rules(add: list[str], drop: list[str], privileged: bool, expected: int) -> None:
    assert parse_add_drop(add, drop, privileged, held=ALL) == expected


def test_all_is_what_pyrun_has() -> None:
    held = ALL & ~bit("SYS_RESOURCE")
    assert parse_add_drop(["ALL"], [], False, held) == held
    assert parse_add_drop([], [], True, held) == held


def test_adding_what_pyrun_lacks_is_an_error_but_dropping_is_not() -> None:
    held = ALL & ~bit("SYS_RESOURCE")
    with pytest.raises(UsageError, match="capability not available here: CAP_SYS_RESOURCE"):
        parse_add_drop(["SYS_RESOURCE"], [], False, held)
    assert parse_add_drop([], ["SYS_RESOURCE"], False, held) == DEFAULT


@pytest.mark.parametrize(
    ("word", "hint"),
    [("NET_ADMN", "did you mean NET_ADMIN?"), ("cap_sysadmin", "did you mean SYS_ADMIN?"), ("xyzzy", "")],
)
def test_unknown_names_the_value_and_the_nearest(word: str, hint: str) -> None:
    for add, drop in (([word], []), ([], [word])):
        with pytest.raises(UsageError) as caught:
            parse_add_drop(add, drop, False, held=ALL)
        assert caught.value.message == f"unknown capability: {word!r}"
        assert caught.value.hint == hint
    with pytest.raises(UsageError):
        mask_of([word])


def test_an_oci_config_needs_full_names() -> None:
    with pytest.raises(UsageError, match="unknown capability: 'KILL'"):
        mask_of(["KILL"])


def test_available_reads_the_effective_set() -> None:
    status = b"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n"
    assert capabilities.available(status) == ALL & ~bit("SYS_RESOURCE")
    assert capabilities.available(b"Name:\tx\n") == ALL
    assert 0 <= capabilities.available() <= ALL


def test_thermal_throttle_is_masked_where_it_exists(tmp_path: pathlib.Path) -> None:
    assert defaults.masked_paths(str(tmp_path)) == defaults.MASKED_PATHS
    for name in ("cpu0", "cpu2", "cpu10"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    for name in ("cpu1", "cpufreq", "cpuidle"):
        (tmp_path / name).mkdir()
    added = defaults.masked_paths(str(tmp_path))[len(defaults.MASKED_PATHS) :]
    assert added == tuple(f"{tmp_path}/cpu{number}/thermal_throttle" for number in (0, 2, 10))
