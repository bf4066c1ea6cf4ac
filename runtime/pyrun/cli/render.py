"""Progress bars on a terminal, by rich. Nothing else imports it; it is not loaded for a pipe."""

from __future__ import annotations

import threading

from pyrun import boot, notice
from pyrun.safe import visible

boot.site_packages()

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn  # noqa: E402

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.engine.pull import Step


class Bars:
    """Progress of a pull: one bar a layer, on standard error. A context manager; called with each event.

    Meanwhile notices go above the bars: two that write to one terminal would overwrite each other.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[state]:<12}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console or Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Bars:
        self._progress.start()
        notice.install(self._say)
        return self

    def __exit__(self, *_: object) -> None:
        notice.remove()
        self._progress.stop()

    def _say(self, text_: str) -> None:
        self._progress.console.print(visible(text_), markup=False, highlight=False, soft_wrap=True)

    def __call__(self, event: Step) -> None:
        """Show one event of engine/pull.py; may come from any thread."""
        name, state, total = event["layer"] or event["image"], event["state"], event["total"]
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(visible(name), total=None, state="")
            done = state in ("done", "exists")
            current = total if done else event["current"]
            task = self._tasks[name]
            self._progress.update(task, completed=current, total=total or None, state=state)
            if state == "unpacking":  # a phase of its own, and how long it takes is not known: the bar moves
                next(each for each in self._progress.tasks if each.id == task).total = None
