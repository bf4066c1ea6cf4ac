"""Every type of ICMP and ICMPv6, every protocol number, every extension header, in pieces too, across each policy.

What is sent and how it is told apart: crossings.py. Where nothing of it may pass, nothing does. That it would get there
is shown by a network without a policy, and by the rules as they were: those are put back, and the attack works again.
Rules: network/firewall/routed.py, bridged.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ruleset
from crossings import COLUMNS, WAYS, Crossings, Way, crossings
from places import setting, uplink6
from yard import shared

ROUTED = "the discovery of neighbours, which every policy lets through, is never routed"
OF_THE_LINK = "its address of the link is for nothing else"
INTERNAL = "an --internal network reaches nothing but itself"
THIS_HOST = "an --internal network reaches nothing else of this host"
ND, GROUPS = [133, 135, 136], [131, 132, 143]
SIX = COLUMNS[0]

# Of what some ways do let pass: the types of ICMPv6 and ICMP. All else must be empty.
SOME = {
    "`--internal`, to this host": ([128, 135, 136], [8]),
    "`--egress none`, to a neighbour": (sorted(ND + GROUPS), []),
    "`--egress none`, to this host": (sorted([*ND, *GROUPS, 129]), []),
}


@pytest.fixture(scope="module")
def made(static_binary: Path, prepared_store: Path, frames_program: Path,
         tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crossings]:  # fmt: skip
    directory = tmp_path_factory.mktemp("policies")
    with (
        shared(static_binary, prepared_store, directory) as pyrun,
        uplink6(),
        crossings(pyrun, frames_program) as found,
    ):
        yield found


@pytest.fixture
def whole(made: Crossings) -> Iterator[Crossings]:
    """The same, whose rules are as they were afterwards."""
    before = ruleset.whole()
    yield made
    ruleset.delete()
    made.pyrun.ok("network", "reload")
    assert ruleset.whole() == before


def way(told: str) -> Way:
    return next(each for each in WAYS if each.told == told)


@pytest.mark.parametrize(
    "each", [each for each in WAYS if "no policy" in each.told], ids=lambda each: each.target
)
def test_without_a_policy_it_arrives(made: Crossings, each: Way) -> None:
    """The control: what is tried is well-formed, on its way, and seen where it arrives."""
    found = made.passed(each)
    types, protocols, headers, icmp, protocols4, options = (found[column] for column in COLUMNS)
    assert set(range(256)) - set(types[0]) <= {134, 137, *(ND if each.target == "world" else ())}
    assert len(protocols[0]) >= 250 and len(icmp[0]) == len(protocols4[0]) == 256 and options[0]
    missing = {name for name in headers[0] if name.endswith(("UDP", "echo"))}
    assert len(missing) * 3 == headers[1] * 2, "each header"


@pytest.mark.parametrize(
    "each", [each for each in WAYS if "no policy" not in each.told], ids=lambda each: f"{each.source}-{each.target}"
)  # fmt: skip
def test_what_passes_a_policy(made: Crossings, each: Way) -> None:
    found = made.passed(each)
    six, four = SOME.get(each.told, ([], []))
    passed = [found[column][0] for column in COLUMNS]
    kinds = {str(what).partition(": ")[2] for what in passed[2]}
    assert kinds <= ({"discovery"} if 135 in six else set()) | ({"echo"} if 128 in six else set())
    assert (sorted(passed[0]), passed[1], passed[3:]) == (six, [], [four, [], []])  # type: ignore[type-var]


@pytest.mark.parametrize("each", [each for each in WAYS if "policy" not in each.told and "a neighbour" in each.told],
                         ids=lambda each: each.source)  # fmt: skip
def test_where_the_host_shows_bridged_frames_to_no_rules(made: Crossings, each: Way) -> None:
    """The bridge of a container with a policy does, whatever is said for all bridges; --icc=false needs none."""
    with (
        setting("net/bridge/bridge-nf-call-iptables", "0"),
        setting("net/bridge/bridge-nf-call-ip6tables", "0"),
    ):
        test_what_passes_a_policy(made, each)


# ── the rules as they were ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("table", "rule", "which", "types"),
    [
        ("inet pyrun forward", "icmpv6 type nd-neighbor-solicit accept", WAYS[3:6], [135]),
        ("inet pyrun forward", "icmpv6 type nd-neighbor-solicit accept", WAYS[7:12], [135]),
        ("inet pyrun egress", "icmpv6 type mld2-listener-report accept", WAYS[10:11], [143]),
    ],
)
def test_believed_with_any_hop_limit(
    whole: Crossings, table: str, rule: str, which: tuple[Way, ...], types: list[int]
) -> None:
    ruleset.nft("insert", "rule", *table.split(), rule)
    for each in which:
        assert whole.passed(each)[SIX][0] == types, each


@pytest.mark.parametrize(
    ("comment", "told", "types"),
    [
        (ROUTED, "`--egress none`, to the outside", ND),
        (OF_THE_LINK, "`--egress none`, to this host", [128, 129]),
        (INTERNAL, "`--internal`, to the outside", [128, 129]),
        (THIS_HOST, "`--internal`, to this host", [0, 129]),
    ],
)
def test_without_the_rule(whole: Crossings, comment: str, told: str, types: list[int]) -> None:
    ruleset.take_out(whole.pyrun.runroot, comment)
    assert set(types) <= set(whole.passed(way(told))[SIX][0])
