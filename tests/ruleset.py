"""pyrun's rules on this host, one at a time: by taking one out, a test shows that it would notice.

Rules are known by their comments. pyrun-guard, which brings tables back, is ended first; it comes with the next start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from waiting import until

TABLES = (("inet", "pyrun"), ("bridge", "pyrun"))


def nft(*words: str) -> str:
    done = subprocess.run(["nft", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"nft {' '.join(words)}: {done.stderr}"
    return done.stdout


def rules(family: str) -> list[dict[str, Any]]:
    """Every rule of our table of a family: chain, handle, comment ..."""
    listed = json.loads(nft("-j", "-a", "list", "table", family, "pyrun"))["nftables"]
    return [each["rule"] for each in listed if "rule" in each]


def take_out(run: Path, *comments: str) -> None:
    """Delete the rules with these comments, in both tables. AssertionError for one that is not there."""
    end_guard(run)
    found = set()
    for family, table in TABLES:
        for rule in rules(family):
            if rule.get("comment", "") in comments:
                nft("delete", "rule", family, table, rule["chain"], "handle", str(rule["handle"]))
                found.add(rule["comment"])
    assert found == set(comments), f"no such rule: {set(comments) - found}; weaken it in another way"


def whole() -> str:
    """Both tables as text, without what counts."""
    return "".join(nft("--stateless", "list", "table", *table) for table in TABLES)


def delete() -> None:
    """Both tables, as somebody's `nft flush ruleset` would."""
    for table in TABLES:
        nft("delete", "table", *table)


def guards(run: Path) -> list[int]:
    """The process ids of the guard of this run directory: one or none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # gone
            continue
        if words[:2] == [b"pyrun-guard", str(run).encode()]:
            found.append(int(path.parent.name))
    return found


def end_guard(run: Path) -> None:
    """Have it end as if it was to: killed, it would be there again in a moment (csrc/guard_spare.c)."""
    for pid in guards(run):
        os.kill(pid, signal.SIGTERM)
    until(lambda: not guards(run), "the end of the guard", timeout_s=5)
