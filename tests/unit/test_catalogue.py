"""The catalogue of operations: one row a kind, which fits who performs it, whatever was imported."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrun.errors import StageFailed
from pyrun.plan import catalogue
from pyrun.plan.catalogue.rows import Row
from pyrun.plan.operations import Operation
from pyrun.plan.performers import PERFORMERS

REPOSITORY = Path(__file__).resolve().parents[2]
INIT = dict(re.findall(r'\[OP_(\w+)\] = \{op_\w+, "([sn*#]*)"\}', (REPOSITORY / "csrc/init.c").read_text()))
KINDS = catalogue.kinds()


def taken_by(function: Callable[..., object], after: int = 0) -> tuple[list[str], bool]:
    """The types of a function's arguments, and whether more may follow. after: how many of them."""
    given = list(inspect.signature(function).parameters.values())[after:]
    needed = [each for each in given if each.default is each.empty and each.kind is not each.VAR_POSITIONAL]
    return [str(each.annotation) for each in needed], len(needed) != len(given)


def told_of(row: Row) -> tuple[list[str], bool]:
    """The same of a row; a template takes any type."""
    if not isinstance(row.told, str):
        return taken_by(row.told)
    names = row.told.split()
    needed = [each for each in names if not each.endswith("...")]
    return ["any"] * len(needed), len(needed) != len(names)


def test_every_kind_is_performed_by_one() -> None:
    assert len(INIT) > 60 and not set(INIT) & set(PERFORMERS)
    assert set(INIT) | set(PERFORMERS) <= set(KINDS)
    for kind, row in KINDS.items():
        assert (kind in INIT) + (kind in PERFORMERS) + bool(row.by) == 1, kind
    topics = [importlib.import_module(f"pyrun.plan.catalogue.{each}").ROWS for each in catalogue.TOPICS]
    assert sum(map(len, topics)) == len(KINDS), "a kind has two rows"


@pytest.mark.parametrize("kind", sorted(INIT))
def test_the_arguments_are_those_that_init_takes(kind: str) -> None:
    types, more = told_of(KINDS[kind])
    wanted = [{"s": "str", "n": "int"}[each] for each in INIT[kind].rstrip("*#")]
    assert len(types) == len(wanted) and more == (INIT[kind][-1:] in ("*", "#"))
    assert all(one in ("any", other) for one, other in zip(types, wanted, strict=True))


@pytest.mark.parametrize("kind", sorted(PERFORMERS))
def test_the_arguments_are_those_that_its_performer_takes(kind: str) -> None:
    """And there is one: a module and a function of that name."""
    module, name = PERFORMERS[kind]
    before = int(KINDS[kind].stage in ("network", "process"))  # the link, or a pid
    types, more = taken_by(getattr(importlib.import_module(module), name), after=before)
    told, told_more = told_of(KINDS[kind])
    assert (len(types), more) == (len(told), told_more)


def test_who_else_performs_one_is_there() -> None:
    """LEASE, PORT and NETWORK are the claim, which a start makes before it carries out its plan."""
    others = {kind: row.by for kind, row in KINDS.items() if row.by}
    assert {kind for kind, by in others.items() if by == "the claim"} == {"LEASE", "PORT", "NETWORK"}
    for by in set(others.values()) - {"the claim"}:
        module, _, name = by.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), by


def test_stages_and_words() -> None:
    stages = {path.stem for path in (REPOSITORY / "runtime/pyrun/stages").glob("*.py")}
    for kind, row in KINDS.items():
        assert row.stage in stages, kind
        assert not row.words or re.match(r"[a-z]+ ", row.words), kind
        assert not re.match(r"(the|a|an|of|it|its|this|there) ", row.words), f"{kind} is no verb phrase"


def test_nothing_depends_on_what_was_imported() -> None:
    """A process that has imported nothing else knows every kind, and no words until they are asked for."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pyrun.plan import performers, plan\n"
        "from pyrun.network import attach\n"
        "assert 'pyrun.plan.catalogue' not in sys.modules and 'pyrun.network.drivers' not in sys.modules\n"
        "print(*performers.PERFORMERS)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(Path(catalogue.__file__).parents[3])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.split() == list(PERFORMERS)


def test_nothing_is_added_at_run_time() -> None:
    wrong = [
        str(path)
        for path in (REPOSITORY / "runtime/pyrun").rglob("*.py")
        if re.search(r"PERFORM(ERS)?(\.(update|setdefault|pop)|\[[^\]]*\] =[^=])", path.read_text())
    ]
    assert not wrong


def test_an_error_has_the_words_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever performs it; a driver's own hint, where it has one, goes before that of the stage."""
    from pyrun.network import attach
    from pyrun.network.drivers import links

    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(attach, "netns_name", refuse)
    operation = Operation("NETNS_NAME", "/run/netns/web", "me")
    words = f"network: cannot {catalogue.explain(operation)[0]}: "
    refusal = links.Refused(errno.EBUSY, "busy")
    for refusal.hint in ("", "the card is down"):
        with pytest.raises(StageFailed) as failed:
            attach.perform(1, operation)
        assert failed.value.message == f"{words}{os.strerror(errno.EBUSY)}"
        assert failed.value.hint == refusal.hint
