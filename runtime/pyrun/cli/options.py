"""The command line as Docker reads it: words in, a dict of options and a list of arguments out.

Hand-written, since argparse costs more than a whole container start (7.5 ms) and cannot stop at the first
argument. The rules are those of Docker's pflag: `-it` clusters, `-eA=B`, `-e A=B`, `-e=A=B`, `--name x`,
`--name=x`, `--rm=false`, `--` ends the options; a value may begin with a dash. What exists is in `tables.py`.
"""

from __future__ import annotations

from pyrun.cli.tables import ALIASES, GROUPS, VERBS, Row, Verb
from pyrun.errors import UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_BARE = ("flag", "optional")  # the kinds that take no value from the next word
_HELP: Row = (("-h", "--help"), "flag", "help", False, "", "Show this help")


class Misread(UsageError):
    """An option that cannot be read: status 125 of every verb, as Docker's client has it."""


def find_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb that *words* begin with, in its own spelling, and the words after it.

    ("", words) when there is none, or a help option first; (group, ["--help"]) for a group alone, as `network`.
    Raises: UsageError for a word that is no verb.
    """
    if not words or words[0] in ("--help", "-h"):
        return "", words
    first = words[0]
    if first == "help":
        verb, _ = find_verb(words[1:])
        return verb, ["--help"]
    if " ".join(words[:2]) in VERBS:  # `port add` beside `port`
        return " ".join(words[:2]), words[2:]
    if first in VERBS:
        return first, words[1:]
    if first not in GROUPS:
        raise _unknown_verb(words)
    if len(words) == 1 or words[1] in ("--help", "-h"):
        return first, ["--help"]
    both = f"{first} {words[1]}"
    both = ALIASES.get(both, both)
    if both not in VERBS:
        raise _unknown_verb(words)
    return both, words[2:]


def parse(verb: Verb, words: list[str]) -> tuple[Options, list[str]]:
    """Options by destination (every one present, "help" included) and the arguments.

    With `--help` parsing ends at once and nothing is checked.
    Raises: Misread for an unknown option, a missing or malformed value; UsageError for too few or too many arguments.
    """
    rows, usage, _, least, most = verb
    known: dict[str, Row] = dict.fromkeys(_HELP[0], _HELP)
    options: Options = {"help": False}
    for row in rows:
        options[row[2]] = [] if row[1] == "list" else row[3]
        for name in row[0]:
            known[name] = row
    arguments: list[str] = []
    position = 0
    while position < len(words) and not options["help"]:
        word = words[position]
        position += 1
        if word == "--":
            arguments += words[position:]
            break
        if len(word) < 2 or word[0] != "-":
            if usage.endswith("[ARG...]"):
                arguments += words[position - 1 :]
                break
            arguments.append(word)
        elif word[1] == "-":
            position = _long(known, options, usage, words, position)
        else:
            position = _cluster(known, options, usage, words, position)
    if not options["help"]:
        _count(usage, len(arguments), 0 if options.get("bundle") else least, most)
    return options, arguments


def name_of(usage: str) -> str:
    """The command a usage line describes: `pyrun network ls` of `pyrun network ls [OPTIONS]`."""
    return " ".join(word for word in usage.split() if word.islower())


def _long(known: dict[str, Row], options: Options, usage: str, words: list[str], at: int) -> int:
    """Read the `--name[=value]` before *at*; returns the position after it and its value."""
    name, equals, value = words[at - 1].partition("=")
    row = known.get(name)
    if row is None:
        raise _unknown_option(known, usage, name)
    if not equals:
        value, at = _value(row, name, usage, words, at)
    _store(options, row, name, value, usage)
    return at


def _cluster(known: dict[str, Row], options: Options, usage: str, words: list[str], at: int) -> int:
    """Read the short options in the word before *at*, as `-it` or `-eA=B`; returns the position after."""
    letters = words[at - 1][1:]
    while letters:
        name = f"-{letters[0]}"
        letters = letters[1:]
        row = known.get(name)
        if row is None:
            raise _unknown_option(
                known, usage, name, f" in {words[at - 1]}" if len(words[at - 1]) > 2 else ""
            )
        if len(letters) > 1 and letters[0] == "=":
            value, letters = letters[1:], ""
        elif letters and row[1] not in _BARE:
            value, letters = letters, ""
        else:
            value, at = _value(row, name, usage, words, at)
        _store(options, row, name, value, usage)
    return at


def _value(row: Row, name: str, usage: str, words: list[str], at: int) -> tuple[str, int]:
    """The value of an option that has none in its own word, and the position after it: a flag is true, an optional one
    its first choice, else it is the next word."""
    if row[1] in _BARE:
        return "true" if row[1] == "flag" else row[4].partition("|")[0], at
    if at >= len(words):
        raise _wrong(usage, f"option {name} needs a value")
    return words[at], at + 1


def _store(options: Options, row: Row, name: str, value: str, usage: str) -> None:
    """Convert *value* by the row's kind and keep it."""
    kind, destination = row[1], row[2]
    if kind == "list":
        before = options[destination]
        options[destination] = [*(before if isinstance(before, list | tuple) else ()), value]
    elif kind == "flag":
        if value not in _TRUE and value not in _FALSE:
            raise _wrong(usage, f"option {name} is true or false, not '{value}'")
        options[destination] = value in _TRUE
    elif kind == "int":
        digits = value[1:] if value[:1] in ("-", "+") else value
        # int() alone would take "1_000", " 7" and other scripts' digits.
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise _wrong(usage, f"option {name} needs a whole number, not '{value:.60}'")
        options[destination] = int(value)
    elif kind == "optional" and value not in row[4].split("|"):
        raise _wrong(usage, f"option {name} is {row[4].replace('|', ' or ')}, not '{value}'")
    else:
        options[destination] = value


def _count(usage: str, given: int, least: int, most: int) -> None:
    """Refuse too few or too many arguments, of every verb with status 1, as Docker's client."""
    message = ""
    if given < least:
        message = f"{name_of(usage)} needs at least {least} argument{'s' if least > 1 else ''}"
    if 0 <= most < given:
        takes = "no arguments" if most == 0 else f"at most {most} argument{'s' if most > 1 else ''}"
        message = f"{name_of(usage)} takes {takes}, not {given}"
    if message:
        raise UsageError(message, f"usage: {usage}", 1)


def _wrong(usage: str, message: str) -> Misread:
    return Misread(message, f"see `{name_of(usage)} --help`")


def _unknown_verb(words: list[str]) -> UsageError:
    from pyrun.cli import unknown

    return unknown.verb(words)


def _unknown_option(known: dict[str, Row], usage: str, name: str, within: str = "") -> Misread:
    from pyrun.cli import unknown

    return unknown.option(name_of(usage).removeprefix("pyrun").strip(), name, list(known), within)
