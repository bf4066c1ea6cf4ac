"""What a plan says to a reader: each operation in one sentence, the shell's equivalent, and how to check it.

Loaded only for --explain, --dry-run and the wording of a failure. The kinds of the network stage are explained
in network/explain.py. The check commands run on the host, some with programs not every host has (conntrack, bpftool,
numactl); none is run in the container, whose image may have it and must not be trusted as root of the host.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pyrun.stages import hooks
from pyrun.store import paths

from .explain_kinds import KINDS, Explanation
from .operations import Operation

if TYPE_CHECKING:  # launch is above plan; the words need only its type
    from pyrun.launch import Launch

Row = tuple[str, Operation, str, str, str]


def explain(operation: Operation) -> Explanation:
    """(sentence, shell equivalent, see-it command); the last two may be empty."""
    return _explainer(operation.kind)(operation)


def _explainer(kind: str) -> Callable[[Operation], Explanation]:
    from .explain_lifecycle import LIFECYCLE
    from .explain_mounts import MOUNTS
    from .explain_process import PROCESS

    for kinds in (KINDS, MOUNTS, LIFECYCLE, PROCESS):
        if kind in kinds:
            return kinds[kind]
    # its library takes a tenth of a second: not for the failure of a mount
    from pyrun.network.explain import EXPLAIN

    return EXPLAIN[kind]


def action(operation: Operation, detail: str = "") -> str:
    """The operation as the verb phrase of an error: `cannot ...`."""
    sentence = explain(operation)[0]
    place = f" ({detail})" if detail and detail not in sentence else ""
    return sentence[:1].lower() + sentence[1:] + place


def steps(launch: Launch) -> Iterator[tuple[str, Operation]]:
    """(who does it, operation) in the order things happen."""
    wired = launch.network or {}
    for operation in _operations(wired.get("before")):
        yield "planner, before", operation
    if launch.job.get("layers") is not None:
        yield "planner, before", Operation("container-directory", str(launch.job["keep"]))
    if launch.job.get("fuse"):
        layers = launch.job["layers"]
        assert isinstance(layers, list)
        yield "planner, before", Operation("fuse-overlay", str(launch.job["keep"]), *layers)
    for operation in launch.before:
        yield "planner, before", operation
    yield "planner", Operation("clone", *_namespaces(launch))
    yield from _inside(launch, [*_operations(wired.get("outside")), *_before_pivot(launch.config)])
    for kind in ("poststart", "poststop"):
        for each in hooks.of(launch.config, kind):
            yield f"planner, {kind}", Operation("hook", kind, str(each["path"]))


def _inside(launch: Launch, outside: list[Operation]) -> Iterator[tuple[str, Operation]]:
    """init's operations, and what the planner does while init waits; who has to be admitted waits twice."""
    waits = [index for index, each in enumerate(launch.operations) if each.kind == "WAIT_GO"]
    who = "init"
    for index, operation in enumerate(launch.operations):
        if index in waits:
            last = index == waits[-1]
            for each in outside if last else [Operation("admit")]:
                yield "planner, meanwhile", each
            who = "init, after GO" if last else "init"
        yield who, operation


def _before_pivot(config: dict[str, object]) -> Iterator[Operation]:
    """What the planner does when the mounts are made: engine/oci/hooks.py."""
    section = config.get("linux")
    devices = section.get("netDevices") if isinstance(section, dict) else None
    for name, device in (devices or {}).items():
        yield Operation("net-device", name, str((device or {}).get("name") or name))
    for kind in ("prestart", "createRuntime"):
        for each in hooks.of(config, kind):
            yield Operation("hook", kind, str(each["path"]))


def _operations(value: object) -> list[Operation]:
    return value if isinstance(value, list) else []


def _namespaces(launch: Launch) -> list[str]:
    from pyrun.stages.namespaces import made

    return [kind for kind in made(launch.config) if kind != "cgroup"]


def document(launch: Launch, style: str) -> str:
    """The whole plan and its undo list, as text or JSON."""
    rows, child = [], False
    for who, operation in steps(launch):
        sentence, shell, see = explain(operation)
        if child:  # of process 1, which reaps: the rest is the command's
            see = see.replace("/proc/{pid}/", "/proc/$(pgrep -P {pid})/")
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
    identity = {"id": launch.job["id"], "name": launch.job["name"]}
    return json.dumps({**identity, "operations": operations, "undo": launch.undo})


def _as_text(launch: Launch, rows: list[Row]) -> str:
    lines = [f"container {launch.job['name']}: {len(rows)} operations", *_variables(launch), ""]
    before = ""
    for number, (who, _, sentence, shell, see) in enumerate(rows, 1):
        if who != before:
            lines.append(f"  -- {who} --")
            before = who
        lines.append(f"{number:3}. {_short(sentence, launch)}")
        lines += [f"       sh   {_typed(_fill(shell, launch), launch)}"] if shell else []
        lines += [f"       see  {_typed(_fill(see, launch), launch)}"] if see else []
    lines += ["", f"undo list, in {paths.run()}/containers/$ID/undo before the container is begun:"]
    return "\n".join(lines + [f"  {_short(line, launch)}".replace("\t", "  ") for line in launch.undo])


def _variables(launch: Launch) -> list[str]:
    """What is to be typed first, so that the commands can be, in the shells that some of them begin, too."""
    state = shlex.quote(f"{paths.run()}/containers/{launch.job['id']}/state.json")
    return [
        f"export ID={launch.job['id']}",
        _typed(f"export ROOT={_root(launch)}", launch),
        f"""export PID=$(grep -o '"pid": *[0-9]*' {_typed(state, launch)} | tr -dc 0-9)  # once it runs""",
    ]


def _root(launch: Launch) -> str:
    """Where the container's root is mounted, as the shell takes it."""
    found = [each.args[0] for each in launch.operations if each.kind in ("ROOT_OVERLAY", "ROOT_BIND")]
    return shlex.quote(str(found[-1])) if found else "/"


def _short(text: str, launch: Launch) -> str:
    """An image's container has an id of 64 digits, shown as $ID: a line fits the screen, and can still be typed."""
    identity = str(launch.job["id"])
    return text.replace(identity, "$ID") if len(identity) == 64 else text


# What stands in quotes, and what is filled in where none are.
_PIECES = re.compile(r""""[^"]*"|'[^']*'|\$ROOT\b""")


def _rooted(text: str, root: str) -> str:
    """A command with *root* for $ROOT; what the user has put in quotes is the user's."""
    return _PIECES.sub(lambda found: root if found[0] == "$ROOT" else found[0], text)


def _typed(text: str, launch: Launch) -> str:
    """As _short, of a command as the shell takes it: $ID is not filled in in single quotes, where a path with a blank
    is, and a $ROOT that has one is taken apart without double ones."""
    text = _rooted(text, '"$ROOT"') if _root(launch)[0] == "'" else text
    identity = str(launch.job["id"])
    apart = identity if len(identity) < 64 else "'$ID'"
    text = _PIECES.sub(
        lambda found: found[0].replace(identity, apart) if found[0][0] == "'" else found[0], text
    )
    return _short(text, launch)


def _fill(text: str, launch: Launch) -> str:
    """Name and PID in the commands, as far as they are known."""
    if launch.job.get("rootless_engine"):  # an ordinary user enters the user namespace first
        text = text.replace("nsenter -t {pid} ", "nsenter -t {pid} -U --preserve-credentials ")
    return text.replace("{name}", str(launch.job["name"])).replace(
        "{pid}", str(launch.pid) if launch.pid > 0 else "$PID"
    )


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
