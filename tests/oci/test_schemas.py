"""What is printed, or given to hooks, against the specification's own JSON schemas (tests/unit/schema)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.box import Box
from oci.marks import shows
from unit import oci_schema


def violations(found: object, schema: str) -> list[tuple[str, str]]:
    return list(oci_schema.errors(found, oci_schema.whole(schema)))


@shows("spec")
@pytest.mark.parametrize("options", [(), ("--rootless",)])
def test_spec(box: Box, options: tuple[str, ...]) -> None:
    box.ok("spec", *options)
    config: dict[str, Any] = json.loads((box.bundle / "config.json").read_text())
    assert not violations(config, "config-schema.json")
    config["process"]["cwd"] = 1
    assert violations(config, "config-schema.json") == [("process.cwd", "is no string")], "the check bites"


@shows("state")
def test_state(box: Box) -> None:
    """In every status the specification has; "paused" is one that runtimes may add, and did."""
    box.config["annotations"] = {"a.b": "c"}
    seen = []
    box.create("sleep", "1000")
    for verbs in ((), ("start",), ("pause",), ("resume",), ("kill", "KILL")):
        if verbs:
            box.ok(verbs[0], box.id, *verbs[1:])
        if verbs[:1] == ("kill",):
            box.wait_for("stopped")
        state = box.state()
        seen.append(state["status"])
        rules = violations(state, "state-schema.json")
        assert rules == ([("status", "is not in the list")] if seen[-1] == "paused" else []), state
    assert seen == ["created", "running", "paused", "running", "stopped"]


@shows("state")
def test_the_state_that_hooks_get(box: Box) -> None:
    """The first ones while it is being created, the last ones when nothing is left of it."""
    seen = box.directory / "seen"
    hook = {"path": str(box.script("hook", f"cat >>{seen}; echo >>{seen}"))}
    box.config["hooks"] = {
        kind: [hook] for kind in ("createRuntime", "poststart", "poststop")
    }  # fmt: skip
    box.run("true")
    states = [json.loads(line) for line in seen.read_text().splitlines() if line]
    assert len(states) == 3
    for state in states:
        assert not violations(state, "state-schema.json"), state
    assert [state["status"] for state in states][-1] == "stopped"
    del states[0]["status"]
    assert violations(states[0], "state-schema.json") == [("status", "is required")], "the check bites"
