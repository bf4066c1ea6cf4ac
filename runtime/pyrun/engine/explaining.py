"""--explain during a real start: the plan before it is carried out, and the time of each stage afterwards."""

from __future__ import annotations

from pyrun import launch, notice


def announce(options: dict[str, object], prepared: launch.Launch) -> None:
    """Say the plan; what that costs is nobody's stage."""
    if not options.get("explain"):
        return
    from pyrun.plan.explain import document

    notice.say(document(prepared, str(options["explain"])))
    launch.mark("explained")


def timing(options: dict[str, object]) -> list[str]:
    """With --explain=json: say how long the stages took so far, and have the monitor say the rest (its words)."""
    if options.get("explain") != "json":
        return []
    from pyrun.plan.explain import timings

    notice.say(timings(launch.timeline))
    return ["timing=2"]
