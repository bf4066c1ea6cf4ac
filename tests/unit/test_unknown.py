"""cli/unknown.py: what Docker has and pyrun has not yet is told as such, and typing errors with what was meant."""

from __future__ import annotations

import pytest

from pyrun.cli import options, unknown
from pyrun.cli.tables import ALIASES, GROUPS, TOP, VERBS
from pyrun.errors import UsageError


def refused(*words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        verb, rest = options.find_verb(list(words))
        options.parse(VERBS[verb], rest)
    return caught.value


@pytest.mark.parametrize(
    ("words", "message", "hint", "status"),
    [
        (["start", "web"], "not there yet: start", "instead: `pyrun run` ", 1),
        (["container", "start", "web"], "not there yet: container start", "instead: `pyrun run` ", 1),
        (["image", "prune"], "not there yet: image prune", "instead: `pyrun rmi ", 1),
        (["volume", "ls"], "not there yet: volume", "instead: -v ", 1),
        (["rum", "x"], "unknown command 'rum'", "did you mean run?", 1),
        (["satrt", "x"], "unknown command 'satrt'", "did you mean start?", 1),
        (["network", "lst"], "unknown command 'network lst'", "did you mean network ls?", 1),
        (["network", "frobnicate"], "unknown command 'network frobnicate'", "see `pyrun network --help`", 1),
        (["qqq"], "unknown command 'qqq'", "see `pyrun --help`", 1),
        (["--frob", "ps"], "unknown option --frob", "see `pyrun --help`", 125),
        (["-H", "tcp://x", "ps"], "not there yet: option -H", "instead: PYRUN_ROOT", 125),
        (["run", "--mount", "type=bind,src=/a,dst=/b", "x"], "not there yet: option --mount", "instead: -v ", 125),
        (["run", "--restart=always", "x"], "not there yet: option --restart", "instead: a unit of systemd", 125),
        (["run", "-c", "5", "x"], "not there yet: option -c", "instead: --cpus", 125),
        (["run", "--intractive", "x"], "unknown option --intractive", "did you mean --interactive?", 125),
        (["run", "--nam=x", "u"], "unknown option --nam", "did you mean --name?", 125),
        (["run", "---rm", "u"], "unknown option ---rm", "did you mean --rm?", 125),
        (["run", "-X", "x"], "unknown option -X", "see `pyrun run --help`", 125),
        (["ps", "-n", "1"], "not there yet: option -n", "instead: `pyrun ps -a | head", 125),
        (["ps", "web"], "pyrun ps takes no arguments, not 1", "usage: pyrun ps [OPTIONS]", 1),
        (["run"], "pyrun run needs at least 1 argument", "usage: pyrun run [OPTIONS] IMAGE", 1),
        (["exec", "web"], "pyrun exec needs at least 2 arguments", "usage: pyrun exec [OPTIONS] CONTAINER", 1),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_from_what_is_misspelled(
    words: list[str], message: str, hint: str, status: int
) -> None:
    error = refused(*words)
    assert (error.message, error.status) == (message, status)
    assert error.hint.startswith(hint), error.hint


def test_nothing_that_is_there_is_said_not_to_be() -> None:
    """A verb or option that lands takes its row of unknown.py with it."""
    assert not set(unknown.VERBS) & {*VERBS, *ALIASES, *GROUPS}
    for verb, rows in unknown.OPTIONS.items():
        known = {name for row in (VERBS[verb] if verb else TOP)[0] for name in row[0]}
        missing = [name for spellings in rows for name in spellings.split()]
        assert not known.intersection(missing), verb
        assert len(missing) == len(set(missing)), verb
