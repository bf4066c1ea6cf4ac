"""A plan as a document: every operation in its order, who performs it, and what the catalogue says of it.

Loaded only for --explain and --dry-run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from pyrun.safe import shell_word, visible
from pyrun.stages import hooks, namespaces, process
from pyrun.store import paths

from .catalogue import explain
from .operations import Operation

if TYPE_CHECKING:
    from pyrun.spec.oci import Config

if TYPE_CHECKING:  # launch is above plan; the words need only its type
    from pyrun.launch import Launch

Row = tuple[str, Operation, str, str, str]


def steps(launch: Launch) -> Iterator[tuple[str, Operation]]:
    """(who does it, operation) in the order things happen."""
    wired = launch.network
    for operation in wired.before if wired else ():
        yield "planner, before", operation
    if launch.job.layers is not None:
        yield "planner, before", Operation("container-directory", launch.job.keep)
    if launch.job.fuse:
        yield "planner, before", Operation("fuse-overlay", launch.job.keep, *launch.job.layers or ())
    for operation in launch.before:
        yield "planner, before", operation
    for kind in namespaces.born_in(launch.config):
        yield "planner", Operation("join", kind, namespaces.path_of(launch.config, kind))
    yield "planner", Operation("clone", *_namespaces(launch))
    yield from _inside(launch, [*(wired.outside if wired else ()), *_before_pivot(launch.config)])
    for kind in ("poststart", "poststop"):
        for each in hooks.of(launch.config, kind):
            yield f"planner, {kind}", Operation("hook", kind, each["path"])


def _inside(launch: Launch, outside: list[Operation]) -> Iterator[tuple[str, Operation]]:
    """init's operations, and what the planner does while init waits; who has to be admitted waits twice."""
    waits = [index for index, each in enumerate(launch.operations) if each.kind == "WAIT_GO"]
    who = "init"
    for index, operation in enumerate(launch.operations):
        if index in waits:
            last = index == waits[-1]
            for each in outside if last else [Operation("admit"), *process.plan_outside(launch.config)]:
                yield "planner, meanwhile", each
            who = "init, after GO" if last else "init"
        yield who, operation


def _before_pivot(config: Config) -> Iterator[Operation]:
    """What the planner does when the mounts are made: engine/oci/hooks.py."""
    section = config.get("linux")
    devices = section.get("netDevices") if isinstance(section, dict) else None
    for name, device in (devices or {}).items():
        yield Operation("net-device", name, str((device or {}).get("name") or name))
    for kind in ("prestart", "createRuntime"):
        for each in hooks.of(config, kind):
            yield Operation("hook", kind, each["path"])


def _namespaces(launch: Launch) -> list[str]:
    from pyrun.stages.namespaces import made

    return [kind for kind in made(launch.config) if kind != "cgroup"]


def document(launch: Launch, style: str) -> str:
    """The whole plan and its undo list, as text or JSON."""
    rows, child = [], False
    for who, operation in steps(launch):
        sentence, shell, see = explain(operation)
        if child:  # of process 1, which reaps: the rest is the command's
            see = _outside(see, ("/proc/{pid}/", "/proc/$(pgrep -P {pid})/"))
        child = child or operation.kind == "REAPER"
        rows.append((who, operation, sentence, shell, see))
    return _as_json(launch, rows) if style == "json" else _as_text(launch, rows)


def _as_json(launch: Launch, rows: list[Row]) -> str:
    root = _root(launch)
    operations = [
        {
            "by": who,
            "kind": operation.kind,
            "arguments": list(operation.args),
            "sentence": sentence,
            "shell": _rooted(_fill(shell, launch), root),
            "see": _fill(see, launch),
        }
        for who, operation, sentence, shell, see in rows
    ]
    identity = {"id": launch.job.id, "name": launch.job.name}
    return json.dumps({**identity, "operations": operations, "undo": launch.undo})


def _as_text(launch: Launch, rows: list[Row]) -> str:
    lines = [f"container {launch.job.name}: {len(rows)} operations", *_variables(launch), ""]
    before = ""
    for number, (who, _, sentence, shell, see) in enumerate(rows, 1):
        if who != before:
            lines.append(f"  -- {who} --")
            before = who
        lines.append(f"{number:3}. {visible(_short(sentence, launch))}")
        lines += [f"       sh   {_typed(_fill(shell, launch), launch)}"] if shell else []
        lines += [f"       see  {_typed(_fill(see, launch), launch)}"] if see else []
    lines += ["", f"undo list, in {paths.run()}/containers/$ID/undo before the container is begun:"]
    undo = [_short(line, launch).replace("\t", "  ") for line in launch.undo]
    return "\n".join([*lines, *[f"  {visible(line)}" for line in undo]])


def _variables(launch: Launch) -> list[str]:
    """What is to be typed first, so that the commands can be, in the shells that some of them begin, too."""
    state = shell_word(f"{paths.run()}/containers/{launch.job.id}/state.json")
    return [
        f"export ID={launch.job.id}",
        _typed(f"export ROOT={_root(launch)}", launch),
        f"""export PID=$(grep -o '"pid": *[0-9]*' {_typed(state, launch)} | tr -dc 0-9)  # once it runs""",
    ]


@lru_cache(maxsize=1)  # asked for by every line
def _root(launch: Launch) -> str:
    """Where the container's root is mounted, as the shell takes it."""
    kinds = {"ROOT_OVERLAY": 0, "ROOT_BIND": 0, "ROOT_SHOWN": 1}
    found = [each.args[kinds[each.kind]] for each in launch.operations if each.kind in kinds]
    return shell_word(str(found[-1])) if found else "/"


def _short(text: str, launch: Launch) -> str:
    """An image's container has an id of 64 digits, shown as $ID: a line fits the screen, and can still be typed."""
    identity = launch.job.id
    return text.replace(identity, "$ID") if len(identity) == 64 else text


# What a shell takes as it stands, or nearly so: whatever a value has brought with it is in there.
_QUOTED = re.compile(r"""("[^"]*"|\$?'[^']*')""")


def _outside(text: str, *changes: tuple[str, str]) -> str:
    """A command with *changes* made where no quotes are; what is in quotes is an image's or the user's."""
    pieces = _QUOTED.split(text)
    for at in range(0, len(pieces), 2):
        for old, new in changes:
            pieces[at] = pieces[at].replace(old, new)
    return "".join(pieces)


def _rooted(text: str, root: str) -> str:
    """A command with *root* for $ROOT."""
    return _outside(text, ("$ROOT", root))


def _typed(text: str, launch: Launch) -> str:
    """As _short, of a command as the shell takes it: $ID is not filled in in single quotes, where a path with a blank
    is, and a $ROOT that has one is taken apart without double ones."""
    text = _rooted(text, '"$ROOT"') if _root(launch)[0] != "/" else text
    identity = launch.job.id
    if len(identity) == 64:
        apart = {"'": "'$ID'", "$": "'$ID$'"}
        text = _QUOTED.sub(lambda found: found[0].replace(identity, apart.get(found[0][0], "$ID")), text)
    return visible(_short(text, launch))


def _fill(text: str, launch: Launch) -> str:
    """Name and PID in the commands, as far as they are known."""
    if launch.job.rootless_engine:  # an ordinary user enters the user namespace first
        text = _outside(text, ("nsenter -t {pid} ", "nsenter -t {pid} -U --preserve-credentials "))
    pid = str(launch.pid) if launch.pid > 0 else "$PID"
    return _outside(text, ("{name}", launch.job.name), ("{pid}", pid))


_STAGES = {
    "interpreter": "launcher and interpreter",
    "warm planner": "launcher, and its warm planner",
    "imports": "imports",
    "decided": "options, image, config, plan",
    "planned": "undo list, cgroups, files",
    "cloned": "clone and exec of init",
    "network": "network from outside",
    "executing": "init, up to execve",
}


def timings(timeline: list[tuple[str, int]]) -> str:
    """One JSON line: milliseconds of each stage since the launcher began; the monitor adds the rest at the end."""
    import posix

    launched = posix.environ.get(b"PYRUN_LAUNCHED_NS", b"")
    last = int(launched) if launched.isdigit() else timeline[0][1]
    stages = []
    for name, at in timeline:
        if name in _STAGES:
            stages.append({"stage": _STAGES[name], "ms": round((at - last) / 1e6, 3)})
        last = at
    return json.dumps({"timings": stages})
