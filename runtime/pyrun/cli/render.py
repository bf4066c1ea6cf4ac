"""Terminals: tables with colour and progress bars, by rich. Nothing else imports it; nobody loads this for a pipe."""

from __future__ import annotations

import threading
from typing import Any

from pyrun import boot
from pyrun.cli import text

boot.site_packages()

from rich.console import Console  # noqa: E402
from rich.measure import Measurement  # noqa: E402
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

# The state of a container or layer, by the beginning of its cell.
_COLOURS = (("Up", "green"), ("Exited (0)", "dim"), ("Exited", "yellow"), ("Created", "cyan"))


def table(headers: tuple[str, ...], rows: list[list[str]]) -> None:
    """A table on standard output; one too wide for the terminal is wrapped by that, so that cells stay whole."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        shown.add_column(header, no_wrap=True)
    for row in rows:
        # Text, not str: square brackets in somebody's command are no markup.
        shown.add_row(*[Text(cell, style=_colour(cell)) for cell in map(text.visible, row)])
    console = Console()
    wanted = Measurement.get(Console(width=10_000), Console(width=10_000).options, shown).maximum
    Console(width=max(console.width, wanted)).print(shown, soft_wrap=True)


def _colour(cell: str) -> str:
    return next((colour for beginning, colour in _COLOURS if cell.startswith(beginning)), "")


class Bars:
    """Progress of a pull: one bar a layer, on standard error. A context manager; called with each event."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[state]:<12}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of engine/pull.py; may come from any thread."""
        name = str(event.get("layer") or event.get("image") or "")
        total = int(event.get("total") or 0)
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(text.visible(name), total=None, state="")
            done = event.get("state") in ("done", "exists")
            current = total if done else int(event.get("current") or 0)
            self._progress.update(
                self._tasks[name], completed=current, total=total or None, state=str(event.get("state", ""))
            )
