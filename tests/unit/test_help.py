"""cli/help.py: everything that can be typed is documented, in lines that fit."""

from __future__ import annotations

import pytest

from pyrun.cli import help as help_
from pyrun.cli.tables import ALIASES, GROUPS, VERBS
from pyrun.errors import UsageError


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_documented(verb: str) -> None:
    rows, usage, summary, _, _ = VERBS[verb]
    page = help_.page(verb.split())
    assert page.startswith(f"Usage:  {usage}\n\n{summary}\n")
    for names, *_ in rows:
        for name in names:
            assert f" {name}" in page, f"{verb} {name}"
    assert "--help" in page


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for words in [[], *([group] for group in GROUPS), *(verb.split() for verb in VERBS)]:
        # A second column narrower than 30 would be unreadable: there the terminal wraps.
        wide = [line for line in help_.page(words, width).splitlines() if len(line) > max(width, 72)]
        assert all(
            "Usage:" in line or line.startswith("Load") or "pyrun container" in line for line in wide
        ), wide


def test_the_help_of_run_is_by_topic_with_examples_at_its_end() -> None:
    page = help_.page(["run"], 80)
    topics = [line for line in page.splitlines() if line.endswith(":") and line[0] != " "]
    assert topics[1] == "The container and its image:" and topics[-2:] == ["Other options:", "Examples:"]
    other = page.partition("Other options:\n")[2].partition("\n\n")[0]
    assert other.split()[0] == "--help" and len(other.splitlines()) == 1, "each option has a topic"
    assert len([line for line in page.partition("Examples:\n")[2].splitlines() if "pyrun run" in line]) == 3


def test_top_and_groups_list_every_verb() -> None:
    top = help_.page([])
    for verb in VERBS:
        assert (f"  {verb} " if " " not in verb else f"  {verb.split()[0]} ") in top
    for group in GROUPS:
        page = help_.page([group])
        for verb in VERBS:
            if verb.startswith(f"{group} "):
                assert f"  {verb.split()[1]} " in page
    assert "  ls " in help_.page(["container"])


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_has_the_help_of_its_verb(alias: str) -> None:
    page = help_.page(alias.split())
    assert page == help_.page([ALIASES[alias]])
    assert f"pyrun {alias}" in page


def test_a_verb_with_verbs_below_it_lists_them() -> None:
    page = help_.page(["port"])
    assert "Commands:\n  add  Publish more" in page
    assert "\n  rm   Publish ports" in page
    assert "Commands:" not in help_.page(["ps"])


@pytest.mark.parametrize(
    "word", ["host-shim=on", "mode=bridge|private|vepa|passthru", "l2|l3|l3s", "enable_icc=false"]
)
def test_the_settings_of_the_drivers_are_named(word: str) -> None:
    assert word in " ".join(help_.page(["network", "create"]).split())


def test_help_on_nothing() -> None:
    with pytest.raises(UsageError, match="unknown command 'frob'"):
        help_.page(["frob"])
