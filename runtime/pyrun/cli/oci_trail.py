"""`pyrun-oci --debug`: what is done, stage by stage, in words and with times, as it happens.

    [   3.204 ms] exec: options: --tty --user 1000
    [   8.911 ms] planned: 48 operations
    [   8.913 ms]   init: join the cgroup of /sys/fs/cgroup/...
    [   9.702 ms] cloned: init is process 4711

Users of engines paste these lines into their reports. Here is what each stage says; where the stages are is launch.py's
`mark`. Cold: loaded with --debug alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pyrun import STARTED_NS, launch
from pyrun.plan.operations import Operation

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options

Log = Callable[[str], None]

_SAID = {
    "sealed": "the program is a read-only mount of its own",
    "cloned": "init is process {0}",
    "admitted": "init's user namespace has its maps, and init is in its cgroup",
    "network": "the network is wired",
    "mounted": "init has mounted everything",
    "hooks": "the host's hooks have ended",
    "go": "init goes on",
    "born": "the command's process is {0}",
    "executing": "the command is executed",
    "created": "init waits for `start`",
}


def begin(log: Log, command: str, options: Options, defaults: Options, arguments: list[str]) -> None:
    """Tell what was called, and from now on every stage."""
    given = [_option(name, value) for name, value in options.items() if value != defaults.get(name)]
    launch.trail = lambda stage, about: _tell(log, stage, about)
    _line(log, f"{command} {' '.join(arguments)}" + (f", with {' '.join(given)}" if given else ""))


def _option(name: str, value: object) -> str:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, list):
        return " ".join([f"{flag} {each}" for each in value])
    return flag if value is True else f"{flag} {value}"


def _tell(log: Log, stage: str, about: object) -> None:
    if stage == "planned" and isinstance(about, list):
        _line(log, f"planned: {len(about)} operations")
        for operation in about:
            _line(log, f"  init: {_words(operation)}")
        return
    _line(log, f"{stage}: {_SAID.get(stage, '').format(about)}".rstrip(": "))


def _words(operation: Operation) -> str:
    from pyrun.plan.catalogue import action

    return action(operation, "")


def _line(log: Log, text: str) -> None:
    log(f"[{(time.monotonic_ns() - STARTED_NS) / 1e6:8.3f} ms] {text}")
