"""`--help`, made from the option tables: what is not in tables.py does not exist, and is not documented."""

from __future__ import annotations

import shutil
import textwrap

from pyrun.cli import text
from pyrun.cli.tables import ALIASES, GROUPS, TOP, VERBS, Row
from pyrun.errors import UsageError

_HELP: Row = (("--help",), "flag", "help", False, "", "Show this help")


def show(words: list[str]) -> int:
    """Print the help of a verb (`ps`, `network ls`, an alias), a group or, without words, of pyrun. Returns 0."""
    text.write(page(words, min(shutil.get_terminal_size((100, 24)).columns, 120)))
    return 0


def page(words: list[str], width: int = 100) -> str:
    """The help as text of at most *width* columns. Raises: UsageError for words that name nothing."""
    name = " ".join(words).strip()
    if not name:
        return _top(width)
    if name in GROUPS:
        return _group(name, width)
    verb = ALIASES.get(name, name)
    if verb not in VERBS:
        raise UsageError(f"unknown command '{name}'", "see `pyrun --help`")
    rows, usage, summary, _, _ = VERBS[verb]
    parts = [f"Usage:  {usage}\n", f"{summary}\n"]
    others = sorted(alias for alias, meant in ALIASES.items() if meant == verb)
    if others:
        parts.append("Aliases:\n  " + ", ".join(f"pyrun {alias}" for alias in [verb, *others]) + "\n")
    parts.append("Options:\n" + _options(rows, width))
    below = [(each.partition(" ")[2], VERBS[each][2]) for each in VERBS if each.startswith(f"{verb} ")]
    if below:
        parts.append("Commands:\n" + _columns(below, width))
    return "\n".join(parts)


def _top(width: int) -> str:
    singles = [(verb, VERBS[verb][2]) for verb in VERBS if " " not in verb]
    rows, usage, summary, _, _ = TOP
    return "\n".join([
        f"Usage:  {usage}\n",
        f"{summary}\n",
        "Commands:\n" + _columns(singles, width),
        "Management commands:\n" + _columns(list(GROUPS.items()), width),
        "Options:\n" + _options(rows, width),
        "`pyrun COMMAND --help` tells more about a command.\n",
    ])  # fmt: skip


def _group(name: str, width: int) -> str:
    """A group and its commands, each in one spelling."""
    own = {verb: verb.partition(" ")[2] for verb in VERBS if verb.startswith(f"{name} ")}
    for alias, verb in ALIASES.items():
        if alias.startswith(f"{name} "):
            own.setdefault(verb, alias.partition(" ")[2])
    commands = sorted((word, VERBS[verb][2]) for verb, word in own.items())
    return f"Usage:  pyrun {name} COMMAND\n\n{GROUPS[name]}\n\nCommands:\n{_columns(commands, width)}"


def _options(rows: tuple[Row, ...], width: int) -> str:
    pairs = []
    for names, kind, _, default, metavar, meaning in sorted(
        [*rows, _HELP], key=lambda row: row[0][-1].lstrip("-")
    ):
        short = [name for name in names if not name.startswith("--")]
        spelled = ", ".join([*short, *(name for name in names if name not in short)])
        spelled = spelled if short else f"    {spelled}"
        value = f"[={metavar}]" if kind == "optional" else f" {metavar}" if metavar else ""
        shown = default not in (None, "", (), 0, False)
        pairs.append((spelled + value, meaning + (f" (default {str(default).lower()})" if shown else "")))
    return _columns(pairs, width)


def _columns(pairs: list[tuple[str, str]], width: int) -> str:
    """Two columns, the second one wrapped."""
    left = max(len(name) for name, _ in pairs) + 4
    lines = []
    for name, meaning in pairs:
        wrapped = textwrap.wrap(meaning, max(width - left, 30)) or [""]
        lines.append(f"  {name}".ljust(left) + wrapped[0])
        lines += [" " * left + more for more in wrapped[1:]]
    return "\n".join(lines) + "\n"
