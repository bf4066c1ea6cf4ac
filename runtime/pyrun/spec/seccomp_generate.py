"""Makes seccomp_default.json from Docker's default profile. Run by hand, when Docker changed it:

    git clone https://github.com/moby/profiles
    python3 runtime/pyrun/spec/seccomp_generate.py profiles

The argument is a clone of moby/profiles (or its git directory). Read is seccomp/default.json at HEAD;
written is a table of our own form with repository, commit and date beside it, so that everybody can see
how old it is and what became of it. DEFAULT_DATA in seccomp.py must follow: the last line says its value.

Form: {"source", "default": {"action", "errno"}, "architectures": {native: [also]}, "rules": [rule]}, a rule
being {"action", "errno"?, "names": ["several to a line"], "args"?: [[index, operator, value, second value]],
"needs"?, "unless"?: conditions {"capabilities", "machines", "kernel"}}. A rule holds when all of `needs`
and none of `unless` is the case; several capabilities are all needed, of several machines one is.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NotRequired, TypedDict

REPOSITORY, SOURCE = "https://github.com/moby/profiles", "seccomp/default.json"
TARGET = Path(__file__).with_name("seccomp_default.json")
WIDTH = 106


class Conditions(TypedDict, total=False):
    """kernel: at least that version."""

    capabilities: list[str]
    machines: list[str]
    kernel: str


class Row(TypedDict):
    """A rule: what of these calls is done."""

    action: str
    errno: NotRequired[int]
    names: list[str]
    args: NotRequired[list[list[Any]]]
    needs: NotRequired[Conditions]
    unless: NotRequired[Conditions]


class Default(TypedDict):
    """What is done of every other call."""

    action: str
    errno: int


class Table(TypedDict):
    """The file."""

    source: dict[str, str]
    default: Default
    architectures: dict[str, list[str]]
    rules: list[Row]


def git(clone: str, *args: str) -> str:
    """The output of git in *clone*, which may be a bare directory."""
    return subprocess.run(["git", "-C", clone, *args], check=True, capture_output=True, text=True).stdout


def table(clone: str) -> Table:
    """The whole content of the file to write."""
    text = git(clone, "show", f"HEAD:{SOURCE}")
    commit, date = git(clone, "log", "-1", "--format=%H %cI", "--", SOURCE).split()
    head, head_date = git(clone, "log", "-1", "--format=%H %cI").split()
    profile = json.loads(text)
    return {
        "source": {
            "repository": REPOSITORY,
            "path": SOURCE,
            "commit": commit,
            "date": date,
            "read_at": f"{head} of {head_date}",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
        "default": {"action": profile["defaultAction"], "errno": profile["defaultErrnoRet"]},
        "architectures": {
            each["architecture"]: each["subArchitectures"] or [] for each in profile["archMap"]
        },
        "rules": [rule(entry) for entry in profile["syscalls"]],
    }


def rule(entry: dict[str, Any]) -> Row:
    """One entry of `syscalls` in our form. Raises SystemExit for a key this script does not know."""
    known = {"names", "action", "errnoRet", "args", "includes", "excludes", "comment"}
    if unknown := set(entry) - known:
        raise SystemExit(f"the profile has got new keys: {sorted(unknown)}")
    names = textwrap.wrap(" ".join(sorted(entry["names"])), WIDTH - 8)
    made: Row = {"action": entry["action"], "names": names}
    if "errnoRet" in entry:
        made["errno"] = entry["errnoRet"]
    if entry.get("args"):
        made["args"] = [
            [arg["index"], arg["op"], arg["value"], arg.get("valueTwo", 0)] for arg in entry["args"]
        ]
    if condition := entry.get("includes"):
        made["needs"] = conditions(condition)
    if condition := entry.get("excludes"):
        made["unless"] = conditions(condition)
    return made


def conditions(theirs: dict[str, Any]) -> Conditions:
    """`includes` or `excludes` in our words."""
    words = {"caps": "capabilities", "arches": "machines", "minKernel": "kernel"}
    if unknown := set(theirs) - set(words):
        raise SystemExit(f"the profile has got new conditions: {sorted(unknown)}")
    made: Any = {words[key]: value for key, value in theirs.items()}
    ours: Conditions = made
    return ours


def layout(content: Table) -> str:
    """JSON that a person can read and diff: a rule's head on one line, its names wrapped below."""
    head = {key: value for key, value in content.items() if key != "rules"}
    lines = json.dumps(head, indent=1).removesuffix("\n}").splitlines()
    lines[-1] += ","
    rules = []
    for each in content["rules"]:
        front = json.dumps({key: value for key, value in each.items() if key != "names"})
        names = ",\n".join(f"    {json.dumps(line)}" for line in each["names"])
        rules.append(f'  {front[:-1]}, "names": [\n{names}]}}')
    return "\n".join(lines) + '\n "rules": [\n' + ",\n".join(rules) + "\n ]\n}\n"


def main(clone: str) -> None:
    """Write TARGET and say what DEFAULT_DATA must be."""
    content = table(clone)
    text = layout(content)
    if json.loads(text) != content:
        raise SystemExit("the layout lost something")
    TARGET.write_text(text)
    sys.stderr.write(f'DEFAULT_DATA = "{hashlib.sha256(text.encode()).hexdigest()[:16]}"\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
