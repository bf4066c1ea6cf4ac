"""--explain during a real start: the plan before it is carried out, and the time of each stage afterwards."""

from __future__ import annotations

from pyrun import launch, notice

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


def announce(options: Options, prepared: launch.Launch) -> None:
    """Say the plan; what that costs is nobody's stage."""
    if not options.get("explain"):
        return
    from pyrun.plan.explain import document

    for line in document(prepared, str(options["explain"])).split("\n"):
        notice.say(line)
    launch.mark("explained")


def timing(options: Options) -> list[str]:
    """With --explain=json: say how long the stages took so far, and have the monitor say the rest (its words)."""
    if options.get("explain") != "json":
        return []
    from pyrun.plan.explain import timings

    notice.say(timings(launch.timeline))
    return ["timing=2"]
