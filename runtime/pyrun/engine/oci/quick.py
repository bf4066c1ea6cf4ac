"""What lets start, state, kill and delete do without an interpreter: the file "quick", read by csrc/quick.c.

It says what those commands would find out from state.json and config.json, and by letters which of them have nothing
unusual to do. Whatever is not plain is left to the recipes beside this file.
"""

from __future__ import annotations

from pyrun.jsonlite import indented
from pyrun.spec.values import linux_section
from pyrun.stages import hooks
from pyrun.store import paths

from .state import describe

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun import launch


def note(done: launch.Launch) -> None:
    """Write it for a container whose process is there. The fields: csrc/quick.c."""
    config, job = done.config, done.job
    listening = _notifies(linux_section(config).get("seccomp"))
    letters = "" if hooks.of(config, "poststart") or listening else "s"
    letters += "" if hooks.of(config, "poststop") or job.cgroup.driver == "systemd" else "d"
    made = job.made
    letters += "p" if isinstance(made, list) and "pid" in made else ""
    noted: Any = {**done.state, "pid": done.pid}
    shown = indented(describe(noted, "running"))
    head, _, rest = shown.partition(f'\n  "pid": {done.pid},')
    middle, _, tail = rest.partition('"running"')
    fields = (
        str(done.pid),
        str(done.began),
        letters,
        _freezer(job.cgroup.groups),
        f'{head}\n  "pid": ',
        f',{middle}"',
        f'"{tail}',
    )
    text = "".join([field + "\0" for field in fields]).encode("utf-8", "surrogateescape")
    if len(text) < 65536 and len(fields) == text.count(b"\0"):
        paths.write(f"{job.run_dir}/quick", text)


def _notifies(seccomp: object) -> bool:
    return isinstance(seccomp, dict) and bool(seccomp.get("listenerPath"))


def _freezer(groups: list[tuple[str, str]]) -> str:
    """The file that tells whether the container is paused: it begins with 0, or with THAWED, when it is not."""
    for names, directory in groups:
        if names == "unified" and len(groups) == 1:
            return f"{directory}/cgroup.freeze"
        if "freezer" in names.split(","):
            return f"{directory}/freezer.state"
    return ""
