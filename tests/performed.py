"""pyrun's command line with a note of every operation that is carried out: `python performed.py RECORD ARGUMENTS...`.

The kinds are written to the file RECORD, a line each, in the order in which they happen:

    the planner's    by the one function that performs them (plan/performers.py)
    init's           as they are in the plan it was given: read from its bytes, once init has said it is ready
    others           by the functions that the catalogue names

A test holds them against what --explain shows.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pyrun import launch, linux
from pyrun.cli import main
from pyrun.stages import hooks, namespaces

RECORD_FD = -1


def note(kinds: list[str]) -> None:
    """Write down what happened. From whichever process."""
    os.write(RECORD_FD, "".join(f"{kind}\n" for kind in kinds).encode())


def of_init(plan: bytes) -> Iterator[str]:
    """The kinds of a plan as init reads it, csrc/init.c: number, count of arguments, arguments."""
    names = [name for name in dir(linux.lib) if name.startswith("OP_") and name != "OP_LAST"]
    numbers = {int(getattr(linux.lib, name)): name.removeprefix("OP_") for name in names}
    words = plan.decode("utf-8", "surrogateescape").split("\0")[:-1]
    while words:
        yield numbers[int(words[0])]
        del words[: 2 + int(words[1])]


def born(prepared: launch.Launch, *_: object) -> list[str]:
    return [*["join" for _ in namespaces.born_in(prepared.config)], "clone"]


def called(config: Any, kind: str, *_: object, **__: object) -> list[str]:
    return ["hook" for _ in hooks.of(config, kind)]


# Who performs what is no operation of plan/performers.py -> the kinds of one call.
OTHERS: dict[str, Callable[..., list[str]]] = {
    "pyrun.launch:_born": born,
    "pyrun.launch:_admit": lambda *_: ["admit"],
    "pyrun.engine.run:_make": lambda *_: ["container-directory"],
    "pyrun.engine.oci.hooks:run": called,
    "pyrun.network.net_devices:take": lambda devices, _: ["net-device" for _ in devices],
    "pyrun.store.overlay_kind:mount_fuse": lambda *_: ["fuse-overlay"],
}


def tell(place: str, kinds: Callable[..., list[str]]) -> None:
    """Have the function at *place* noted, once it has returned."""
    name, _, function = place.partition(":")
    module = importlib.import_module(name)
    original = getattr(module, function)

    def noted(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        note(kinds(*given, **named))
        return result

    setattr(module, function, noted)


def begin(record: str) -> None:
    """From now on everything is noted."""
    global RECORD_FD
    RECORD_FD = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    plans: list[bytes] = []
    encode, wait = launch.encode, launch._until_executing

    def encoded(operations: Any) -> bytes:
        plans.append(encode(operations))
        return plans[-1]

    def waited(prepared: launch.Launch) -> Any:
        outcome = wait(prepared)
        if outcome.ready:
            note(list(of_init(plans[-1])))
        return outcome

    for name, function in (("encode", encoded), ("_until_executing", waited)):
        setattr(launch, name, function)
    tell("pyrun.plan.performers:perform", lambda operation, *_: [operation.kind])
    for place, kinds in OTHERS.items():
        tell(place, kinds)


if __name__ == "__main__":
    begin(sys.argv[1])
    main.main(sys.argv[1:])
