"""Bundles and command lines, run by pyrun-oci and by each peer that is on PATH: what differs is declared, or a failure.

The other bodies of this floor say what must be; these say where three runtimes part, and whether we want that. The
entries and the differences are in bundles.py and lines.py, what they are in observing.py. A declared difference that is
gone is a failure, too: its reason has to go. They are those of the versions that Debian 12 has; other versions are not
compared.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from oci import bundles, lines
from oci.box import Box
from oci.observing import ENTRIES, VERSIONS, Entry, Facts, runc

assert bundles and lines  # they fill ENTRIES


def seen(entry: Entry, box: Box) -> Facts:
    """What this runtime makes of it, with names and places that are the test's own taken out."""
    names = {str(box.directory): "DIR", box.id: "ID"}
    return {key: _plain(value, names) for key, value in entry.observe(box).items()}


def _plain(value: object, names: dict[str, str]) -> object:
    if isinstance(value, list):
        return [_plain(each, names) for each in value]
    if isinstance(value, str):
        for name, word in names.items():
            value = value.replace(name, word)
    return value


def undeclared(entry: Entry, peer: str, ours: Facts, theirs: Facts) -> list[str]:
    """What differs and is not declared, and what is declared and does not differ."""
    differing = {fact for fact in ours | theirs if ours.get(fact) != theirs.get(fact)}
    patterns = {fact for each in entry.differences if each.peer == peer for fact in each.facts}
    known = {fact for fact in differing if any(fnmatchcase(fact, pattern) for pattern in patterns)}
    gone = {pattern for pattern in patterns if not any(fnmatchcase(fact, pattern) for fact in differing)}
    return [
        *(
            f"{peer}: {fact}: {theirs.get(fact)!r}, ours {ours.get(fact)!r}"
            for fact in sorted(differing - known)
        ),
        *(f"{peer}: {pattern}: declared to differ, and does not" for pattern in sorted(gone)),
    ]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_differs_is_declared(boxes: Callable[[str], Box | None], entry: Entry) -> None:
    box = boxes("pyrun-oci")
    assert box
    ours = seen(entry, box)
    wrong: list[str] = []
    for peer, version in VERSIONS.items():
        beside = boxes(peer)
        if beside and beside.runtime.version == version:
            # A peer's error is sometimes lost on its way from the child: it is asked again
            found = undeclared(entry, peer, ours, seen(entry, beside))
            wrong += found and undeclared(entry, peer, ours, seen(entry, beside))
    assert not wrong, "\n".join(wrong)


def test_every_difference_has_its_reason() -> None:
    assert len(ENTRIES) >= 30 and len({each.name for each in ENTRIES}) == len(ENTRIES)
    assert all(each.why and each.facts for entry in ENTRIES for each in entry.differences)


def test_what_a_comparison_finds() -> None:
    """It fails for what is not declared, and for what is declared in vain."""
    entry = Entry("x", lambda box: {}, (runc("why", "a*"), runc("why", "gone")))
    ours: Facts = {"a1": 1, "b": 2, "only ours": 3}
    found = undeclared(entry, "runc", ours, {"a1": 2, "b": 3})
    assert [line.split(": ")[1] for line in found] == ["b", "only ours", "gone"]
    assert undeclared(entry, "crun", ours, ours) == []
