"""`--help`, made from the option tables: what is not in tables.py does not exist, and is not documented."""

from __future__ import annotations

import shutil
import textwrap

from pyrun.cli import text
from pyrun.cli.tables import ALIASES, GROUPS, TOP, VERBS, Row

_HELP: Row = (("--help",), "flag", "help", False, "", "Show this help")

# A long list of options is read by topic: those of `run`, by destination. What is in no topic is told at the end.
_RUN_TOPICS: dict[str, str] = {
    "The container and its image": "name hostname label rm init pull platform quiet bundle stop_signal stop_timeout",
    "Terminal and streams": "interactive tty detach sig_proxy",
    "The command": "entrypoint env env_file workdir user group_add",
    "Files": "volume tmpfs read_only shm_size",
    "Network": "network network_alias ip ip6 mac_address dns dns_option dns_search add_host egress net_rate net_fault",
    "Published ports": "publish publish_all expose publish_through_firewall",
    "Limits": "memory cpus pids_limit ulimit",
    "Rights": "privileged cap_add cap_drop security_opt sysctl",
    "What is done": "explain dry_run",
}
_RUN_EXAMPLES = """\
Examples:
  # a shell, and nothing is left of it
  pyrun run -it --rm debian bash
  # a server in the background, on port 8080 of this host
  pyrun run -d --name web -p 8080:80 busybox httpd -f
  # every step of a start and how to check it, without doing it
  pyrun run --rm --dry-run --explain busybox true
"""


def show(words: list[str]) -> int:
    """Print the help of a verb (`ps`, `network ls`, an alias), a group or, without words, of pyrun. Returns 0."""
    text.write(page(words, shutil.get_terminal_size((100, 24)).columns))
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
        from pyrun.cli import unknown

        raise unknown.verb(name.split())
    rows, usage, summary, _, _ = VERBS[verb]
    parts = [f"Usage:  {usage}\n", f"{summary}\n"]
    others = sorted(alias for alias, meant in ALIASES.items() if meant == verb)
    if others:
        parts.append("Aliases:\n  " + ", ".join(f"pyrun {alias}" for alias in [verb, *others]) + "\n")
    parts += _by_topic(rows, width) if verb == "run" else ["Options:\n" + _options([*rows, _HELP], width)]
    below = [(each.partition(" ")[2], VERBS[each][2]) for each in VERBS if each.startswith(f"{verb} ")]
    if below:
        parts.append("Commands:\n" + _columns(below, width))
    if verb == "run":
        parts.append(_RUN_EXAMPLES)
    return "\n".join(parts)


def _top(width: int) -> str:
    singles = [(verb, VERBS[verb][2]) for verb in VERBS if " " not in verb]
    rows, usage, summary, _, _ = TOP
    return "\n".join([
        f"Usage:  {usage}\n",
        f"{summary}\n",
        "Commands:\n" + _columns(singles, width),
        "Management commands:\n" + _columns(list(GROUPS.items()), width),
        "Options:\n" + _options([*rows, _HELP], width),
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


def _by_topic(rows: tuple[Row, ...], width: int) -> list[str]:
    topics: dict[str, list[Row]] = {topic: [] for topic in [*_RUN_TOPICS, "Other options"]}
    for row in [*rows, _HELP]:
        found = (topic for topic, destinations in _RUN_TOPICS.items() if row[2] in destinations.split())
        topics[next(found, "Other options")].append(row)
    left = max(len(_spelled(row)) for row in rows) + 4
    return [f"{topic}:\n{_options(listed, width, left)}" for topic, listed in topics.items() if listed]


def _spelled(row: Row) -> str:
    """`-e, --env NAME[=VALUE]`"""
    names, kind, _, _, metavar, _ = row
    short = [name for name in names if not name.startswith("--")]
    spelled = ", ".join([*short, *(name for name in names if name not in short)])
    spelled = spelled if short else f"    {spelled}"
    return spelled + (f"[={metavar}]" if kind == "optional" else f" {metavar}" if metavar else "")


def _options(rows: list[Row], width: int, left: int = 0) -> str:
    pairs = []
    for row in sorted(rows, key=lambda row: row[0][-1].lstrip("-")):
        default, meaning = row[3], row[5]
        shown = default not in (None, "", (), 0, False)
        pairs.append((_spelled(row), meaning + (f" (default {str(default).lower()})" if shown else "")))
    return _columns(pairs, width, left)


def _columns(pairs: list[tuple[str, str]], width: int, left: int = 0) -> str:
    """Two columns, the second one wrapped; it begins at *left*, or as far left as can be."""
    left = left or max(len(name) for name, _ in pairs) + 4
    lines = []
    for name, meaning in pairs:
        wrapped = textwrap.wrap(meaning, max(width - left, 30)) or [""]
        lines.append(f"  {name}".ljust(left) + wrapped[0])
        lines += [" " * left + more for more in wrapped[1:]]
    return "\n".join(lines) + "\n"
