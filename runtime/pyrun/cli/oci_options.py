"""The command line as runc reads it: Go's flag package, which one dash or two are the same to.

`-root x`, `--root x`, `-root=x`; a flag is true alone or takes `=true`, `=0` ...; the word after an option is its
value whatever it looks like; letters are never joined. Options may stand behind the arguments, except where an
argument ends them (exec, ps, and the command itself); what looks like an option there and is none is an argument
(`kill ID -9`). Wording: Go's. Which options exist: oci_tables.py. Source: pkg.go.dev/flag, runc's behaviour.
"""

from __future__ import annotations

from pyrun.errors import UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_INT_MAX = (1 << 63) - 1


class Misused(UsageError):
    """A command line that cannot be read: the help is shown before the error."""


def parse(table: str, words: list[str], *, stops: bool) -> tuple[Options, list[str]]:
    """Options by name with _ for - (every one present, and "help"), and the arguments.

    table: as oci_tables.py has them; stops: the first argument ends the options. Raises Misused.
    """
    names, options = _known(table)
    arguments: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            return options, arguments + words[position:]
        name, equals, value = word.lstrip("-").partition("=") if word.startswith("-") else ("", "", "")
        dashes = len(word) - len(word.lstrip("-"))
        if not dashes or word == "-" or (arguments and name not in names):
            arguments.append(word)
            if stops:
                return options, arguments + words[position:]
            continue
        if dashes > 2 or not name:
            raise Misused(f"bad flag syntax: {word}")
        if name not in names:
            raise Misused(f"flag provided but not defined: -{name}")
        key, kind = names[name]
        if not equals and kind != "b":
            if position == len(words):
                raise Misused(f"flag needs an argument: -{name}")
            value = words[position]
            position += 1
        _store(options, key, kind, name, value if equals or kind != "b" else "true")
    return options, arguments


def _known(table: str) -> tuple[dict[str, tuple[str, str]], Options]:
    """What every spelling means, and what is true of the options that are not given."""
    names = {"help": ("help", "b"), "h": ("help", "b")}
    options: Options = {"help": False}
    for entry in table.split():
        spellings, _, rest = entry.partition(":")
        kind, _, default = rest.partition("=")
        name, _, letter = spellings.partition(",")
        key = name.replace("-", "_")
        names[name] = (key, kind[0])
        if letter:
            names[letter] = names[name]
        if kind.endswith("?"):
            options[key] = None
        elif kind in "ln":
            options[key] = []
        elif default:
            _store(options, key, kind, name, default)
        else:
            options[key] = {"b": False, "i": 0}.get(kind, "")
    return names, options


def _store(options: Options, key: str, kind: str, name: str, value: str) -> None:
    if kind == "b":
        if value not in _TRUE and value not in _FALSE:
            raise Misused(f'invalid boolean value "{value}" for -{name}: parse error')
        options[key] = value in _TRUE
    elif kind in "ln":
        complaint = f'strconv.ParseInt: parsing "{value}": invalid syntax'
        added: str | int = _whole(name, value, complaint) if kind == "n" else value
        before = options[key]
        options[key] = [*(before if isinstance(before, list) else ()), added]
    elif kind == "i":
        options[key] = _whole(name, value, "parse error")
    elif kind == "d":
        from .oci_verbs import duration_s

        try:
            options[key] = duration_s(value)
        except ValueError:
            raise Misused(f'invalid value "{value}" for flag -{name}: parse error') from None
    else:
        options[key] = value


def _whole(name: str, value: str, complaint: str) -> int:
    digits = value[1:] if value[:1] in ("-", "+") else value
    # int() alone would take "1_000", " 7" and other scripts' digits
    if not (digits.isascii() and digits.isdigit()):
        raise Misused(f'invalid value "{value}" for flag -{name}: {complaint}')
    if len(digits) > 40 or abs(int(value)) > _INT_MAX:
        raise Misused(f'invalid value "{value}" for flag -{name}: value out of range')
    return int(value)
