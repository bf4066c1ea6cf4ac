"""The shell sessions of README.md, vagrant/README.md and docs/*.md are run, in order, and their output is compared.

A session is a block that begins with ```console; `$ ` begins a command (a backslash at the end continues it), the
lines below it are its output. In the output `...` stands for anything in its line, a line of `...` alone for any
number of lines. Every command must succeed, but for those listed in FAILS. A block below `<!-- not run: REASON -->` is
left out. All sessions of one file share one shell. `sudo` there is whoever runs the tests: root, on the lab host.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ruleset
from command import Pyrun

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    REPOSITORY / "README.md", REPOSITORY / "vagrant/README.md", *sorted((REPOSITORY / "docs").glob("*.md"))
]  # fmt: skip
IMAGES = Path("/var/lib/pyrun")
FAILS = {"pyrun-oci delete box"}  # shown for its error

_BLOCK = re.compile(r"(<!-- not run: [^>]+-->\n+)?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "\x01status "


def sessions(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a document that are to be run, each with the output lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for not_run, block in _BLOCK.findall(text):
        if not_run:
            continue
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and found[-1][0].endswith("\\") and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", [])
            elif found:
                found[-1][1].append(line)
    return found


def pattern(lines: list[str]) -> re.Pattern[str]:
    """The output lines as a regular expression."""
    parts = [r"(?:.*\n)*?" if line.strip() == "..." else one_line(line) for line in lines]
    return re.compile("".join(parts))


def one_line(line: str) -> str:
    return ".*?".join(re.escape(part) for part in line.rstrip().split("...")) + r"[ \t]*\n"


def run(commands: list[str], environment: dict[str, str]) -> list[tuple[str, int]]:
    """Run them in one shell: the output and exit status of each."""
    script = 'sudo() { "$@"; }\n' + "".join(
        f"{command}\nprintf '\\n{_MARK}%d\\n' $?\n" for command in commands
    )
    done = subprocess.run(["bash"], input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=environment, cwd=REPOSITORY, timeout=300, check=False)  # fmt: skip
    pieces = re.split(rf"\n{_MARK}(\d+)\n", done.stdout)
    return list(zip(pieces[::2], map(int, pieces[1::2]), strict=False))


@pytest.fixture
def tables(pyrun: Pyrun) -> Iterator[None]:
    """iptables makes its tables when it is first asked, and leaves them empty; `pyrun` finds none."""
    names = {"table ip filter", "table ip nat"} - set(ruleset.nft("list", "tables").splitlines())
    yield
    for name in names & set(ruleset.nft("list", "tables").splitlines()):
        ruleset.nft("delete", *name.split())


@pytest.mark.alone
@pytest.mark.timeout(320)
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_sessions_are_true(document: Path, pyrun: Pyrun) -> None:
    wanted = sessions(document.read_text())
    assert wanted or document.parent.name == "docs", "a README shows nothing that can be run"
    for kind in ("refs", "images"):  # the images of `make setup`; image.json names their layers by full path
        if (IMAGES / kind).is_dir():
            subprocess.run(["cp", "-a", f"{IMAGES}/{kind}/.", f"{pyrun.root}/{kind}/"], check=True)
    environment = pyrun.env | {"PATH": f"{pyrun.binary.parent}:{pyrun.env['PATH']}"}
    happened = run([command for command, _ in wanted], environment)
    wrong = []
    for (command, expected), (output, status) in zip(wanted, happened, strict=False):
        shown = output if output.endswith("\n") or not output else output + "\n"
        if expected and not pattern(expected).fullmatch(shown):
            wrong.append(f"$ {command}\n{shown}--- instead of ---\n" + "\n".join(expected))
        elif bool(status) != (command in FAILS):
            wrong.append(f"$ {command}\n{shown}--- exit status {status}")
    assert len(happened) == len(wanted), f"the shell ended after {len(happened)} of {len(wanted)} commands"
    assert not wrong, f"{document.name}\n" + "\n\n".join(wrong)


def test_a_session_is_understood() -> None:
    text = "```console\n$ echo a\na\n$ printf '%s\\n' \\\n  b c\n...\n$ true\n```\n<!-- not run: needs a terminal -->\n"
    text += "```console\n$ false\n```\n"
    assert sessions(text) == [("echo a", ["a"]), ("printf '%s\\n' \\\n  b c", ["..."]), ("true", [])]


def test_output_is_compared() -> None:
    assert pattern(["one ... three", "...", "end"]).fullmatch("one two three\nx\ny\nend\n")
    assert not pattern(["one", "end"]).fullmatch("one\nmore\nend\n")


def test_what_is_said_to_be_missing_is(pyrun: Pyrun) -> None:
    """docs/docker-differences.md: every command and option of its tables is refused by name."""
    text = (REPOSITORY / "docs/docker-differences.md").read_text()
    commands, *tables = text.partition("## Options without effect")[0].split("\n## Options ")
    verbs = listed(commands)
    assert {"start", "inspect", "cp", "image prune"} <= set(verbs)
    for verb in verbs:
        assert f"not there yet: {verb}" in pyrun.fails(1, *verb.split(), "x")
    found = 0
    for table in tables:
        verb = "".join(re.findall(r"\Aof `([a-z ]+)`", table))
        for option in listed(table):
            assert f"not there yet: option {option}" in pyrun.fails(125, *verb.split(), option)
            found += 1
    assert found > 100
    assert "unknown --format" in pyrun.fails(1, "ps", "--format", "{{.Names}}")
    (filters,) = re.findall(r"^  Missing and refused: (.*)\.$", text, re.MULTILINE)
    for name in re.findall(r"`([a-z-]+)`", filters):
        assert f"unknown filter '{name}=x'" in pyrun.fails(1, "ps", "--filter", f"{name}=x")


def listed(table: str) -> list[str]:
    """The names in the first column."""
    cells = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
