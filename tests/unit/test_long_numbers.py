"""Numbers of thousands of digits: int() gives up at 4,300, with a ValueError that is nobody's error message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyrun import signals
from pyrun.cgroups import systemd_properties
from pyrun.cli import oci_options, oci_verbs, options
from pyrun.cli.oci_options import Misused
from pyrun.engine import port_words, ps
from pyrun.engine.oci import exec_
from pyrun.errors import UsageError
from pyrun.network import design, shaping
from pyrun.network.drivers import driver_options
from pyrun.network.egress import parse
from pyrun.spec import seccomp_profile, values
from pyrun.store import platforms

LONG = "9" * 5000


def option(text: str) -> object:
    return options._store({}, ("--n", "int", "n", 0, ""), "--n", text, "pyrun run")  # type: ignore[arg-type]


def _mtu(text: str) -> None:
    wanted = design.Wanted("front")
    wanted.options[driver_options.MTU] = text
    driver_options.settle(wanted)


CALLS: dict[str, Callable[[], object]] = {
    "signal": lambda: signals.number(LONG),
    "signal by an offset": lambda: signals.number(f"RTMIN+{LONG}"),
    "size": lambda: values.size_bytes(f"{LONG}g", "--memory"),
    "size with a fraction": lambda: values.size_bytes(f"1.{LONG}g", "--memory"),
    "cpus": lambda: values.cpu_quota_us(LONG),
    "ulimit": lambda: values.rlimit(f"nofile={LONG}"),
    "--user of pyrun-oci": lambda: exec_._number(LONG, "--user"),
    "port of a container": lambda: port_words.private(LONG),
    "port of a container, zeros before it": lambda: port_words.private("000000001" + LONG),
    "port of a container above 65535, zeros before it": lambda: port_words.private("00000000199999"),
    "filter publish": lambda: ps._publishes({"published": []}, LONG),
    "filter publish, a range": lambda: ps._publishes({"published": []}, f"1-{LONG}"),
    "rate": lambda: shaping.rates(f"in={LONG}mbit"),
    "fault": lambda: shaping.faults(f"delay={LONG}ms"),
    "mtu": lambda: _mtu(LONG),
    "length of a network": lambda: parse._network(f"10.0.0.0/{LONG}", "--egress"),
    "version of a kernel": lambda: seccomp_profile._version(f"{LONG}.1", "x"),
    "cpus of a unit": lambda: systemd_properties.bits(f"1-{LONG}"),
    "option": lambda: option(LONG),
    "negative option": lambda: option(f"-{LONG}"),
}


@pytest.mark.parametrize("what", CALLS)
def test_one_line_says_it(what: str) -> None:
    with pytest.raises(UsageError) as caught:
        CALLS[what]()
    assert "\n" not in caught.value.message


def test_options_of_pyrun_oci() -> None:
    with pytest.raises(Misused, match=r"out of range|parse error"):
        oci_options._whole("n", LONG, "parse error")
    with pytest.raises(ValueError, match="9h"):
        oci_verbs.duration_s(f"{LONG}h")


def test_what_is_left_to_the_kernel() -> None:
    assert systemd_properties._unified({"memory.max": LONG, "cpu.max": f"{LONG} 100000"}) == []


def test_digits_of_other_scripts_in_a_variant() -> None:
    """int() does not know all that str.isdigit calls a digit."""
    machine = platforms.Platform("linux", "arm", "v7")
    assert platforms.rank(platforms.Platform("linux", "arm", "v²"), machine) == -1
