"""The picture of docs/performance.md: pyrun's time as a part of each peer's, as bars.

The figures are read from the tables of the page, so that picture and tables cannot differ. One bar a row of the table,
the rows of one measurement together. It is SVG with its own colours for a light and for a dark page.
"""

from __future__ import annotations

import math
import re
from html import escape
from typing import NamedTuple

SECTIONS = ("engine", "oci")
PEERS = {"docker": "Docker", "podman": "podman", "runc": "runc", "crun": "crun"}
_ROW = re.compile(
    rf"^\| (?P<what>.+) against (?P<peer>{'|'.join(PEERS)}) [^|]*\|[^|]+\|[^|]+\| (?P<ratio>[\d.]+) \|",
    re.MULTILINE,
)

WIDTH, LABELS, RIGHT = 860, 330, 110  # pixels: the picture, what is left of the bars, and right of them
BAR, GAP, TOP = 13, 11, 58  # pixels: a bar's height, between two groups, above the first
STYLE = """
    text { font: 12px system-ui, sans-serif; fill: #1f2328; stroke: #ffffff; stroke-width: 3px; paint-order: stroke }
    .page { fill: #ffffff } .axis { stroke: #d1d9e0 } .whole { stroke: #1f2328; stroke-dasharray: 4 3 }
    .title { font-weight: 600; font-size: 14px } .label { text-anchor: end } .mark { text-anchor: middle }
    .docker { fill: #0969da } .podman { fill: #8250df } .runc { fill: #1a7f37 } .crun { fill: #bc4c00 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; stroke: #0d1117 } .page { fill: #0d1117 }
      .axis { stroke: #3d444d } .whole { stroke: #f0f6fc }
      .docker { fill: #4493f8 } .podman { fill: #ab7df8 } .runc { fill: #3fb950 } .crun { fill: #db6d28 }
    }"""


class Bar(NamedTuple):
    """pyrun's time by the peer's; below 1 pyrun is quicker."""

    peer: str
    ratio: float


def bars(page: str) -> dict[str, list[Bar]]:
    """What was measured -> a bar for each peer, from the page's tables, in their order."""
    found: dict[str, list[Bar]] = {}
    for section in SECTIONS:
        for row in _ROW.finditer(tables(page)[section]):
            found.setdefault(row["what"].replace("`", ""), []).append(Bar(row["peer"], float(row["ratio"])))
    return found


def tables(page: str) -> dict[str, str]:
    """What stands between the page's marks, by the name of the section."""
    return dict(re.findall(r"<!-- bench: (\w+) -->\n(.*?)<!-- end -->", page, re.DOTALL))


def svg(page: str) -> str:
    """The whole picture."""
    groups = bars(page)
    most = max(bar.ratio for group in groups.values() for bar in group)
    end = max(1.0, math.ceil(most * 4) / 4)
    scale = (WIDTH - LABELS - RIGHT) / end
    drawn, y = [], TOP
    for what, group in groups.items():
        drawn += _group(what, group, y, scale)
        y += len(group) * BAR + GAP
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            "  <title>pyrun's time as a part of each peer's</title>",
            f"  <style>{STYLE}\n  </style>",
            f'  <rect class="page" width="{WIDTH}" height="{y}"/>',
            '  <text class="title" x="14" y="22">pyrun\'s time as a part of each peer\'s: shorter is quicker</text>',
            *_axis(end, scale, y - GAP),
            *drawn,
            "</svg>",
            "",
        ]
    )


def _axis(end: float, scale: float, bottom: float) -> list[str]:
    lines = []
    for step in range(round(end * 4) + 1):
        x, name = LABELS + step / 4 * scale, "whole" if step == 4 else "axis"
        lines.append(f'  <line class="{name}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        lines.append(f'  <text class="mark" x="{x:.1f}" y="{TOP - 14}">{step / 4:g}</text>')
    return lines


def _group(what: str, group: list[Bar], y: float, scale: float) -> list[str]:
    middle = y + len(group) * BAR / 2 + 4
    lines = [f'  <text class="label" x="{LABELS - 10}" y="{middle:.1f}">{escape(what)}</text>']
    for number, bar in enumerate(group):
        top, length = y + number * BAR, bar.ratio * scale
        lines.append(
            f'  <rect class="{bar.peer}" x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR - 2}"/>'
        )
        said = f"{bar.ratio:.2f} of {PEERS[bar.peer]}"
        lines.append(f'  <text x="{LABELS + length + 6:.1f}" y="{top + BAR - 3}">{said}</text>')
    return lines
