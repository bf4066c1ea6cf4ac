"""Word of the kernel's having killed a process of the container for want of memory.

v1: an eventfd tied to memory.oom_control; it fires as well when the cgroup is removed. v2: memory.events counts
oom_kill and can be polled; cgroup.events says `populated 0` when the last process has gone.
Source: cgroup-v1/memory.rst (OOM control), cgroup-v2.rst (memory.events, cgroup.events).
"""

from __future__ import annotations

import os
import select

from .layout import Group
from .readings import exists, keyed, text


class Watch:
    """Counts the kills of one container: `wait` for more of them. Close it."""

    def __init__(self, groups: list[Group]) -> None:
        place = {name: directory for names, directory in groups for name in names.split(",")}
        self.memory = place.get("memory", "")
        self.unified = place.get("unified", "") if not self.memory else ""
        self.alive = self.memory or self.unified or (groups[0][1] if groups else "")
        self.poll, self.fds = select.poll(), list[int]()
        self.killed = self._count()
        if self.memory:
            self._tie()
        elif self.unified:
            for name in ("memory.events", "cgroup.events"):
                self._watch(f"{self.unified}/{name}")

    def _tie(self) -> None:
        """Source: man 2 eventfd; `EVENTFD OOM_CONTROL_FD` into cgroup.event_control."""
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = os.open(f"{self.memory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            self.fds += [event, control]
            with open(f"{self.memory}/cgroup.event_control", "w") as file:
                file.write(f"{event} {control}")
        except OSError:
            return  # statistics can be had without
        self.poll.register(event, select.POLLIN)

    def _watch(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self.fds.append(fd)
        os.pread(fd, 4096, 0)  # from now on
        self.poll.register(fd, select.POLLPRI)

    def _count(self) -> int:
        return keyed(f"{self.unified}/memory.events").get("oom_kill", 0) if self.unified else 0

    def over(self) -> bool:
        """Whether the container is: its cgroup is gone, or nobody is in it."""
        if not self.alive or not exists(self.alive):
            return True
        events = text(f"{self.unified}/cgroup.events") if self.unified else ""
        return "populated 0" in events or not (events or text(f"{self.alive}/cgroup.procs").strip())

    def wait(self, seconds: float) -> int:
        """Wait for a kill, the time, or any other change; returns how many kills there were."""
        notified = 0
        for fd, _ in self.poll.poll(max(0.0, seconds) * 1000):
            if self.memory:
                try:
                    notified += int.from_bytes(os.read(fd, 8), "little")
                except BlockingIOError:
                    continue
            else:
                os.pread(fd, 4096, 0)
        if self.memory:  # v1 tells of it before it counts it, and of the cgroup's end too
            return notified if exists(self.alive) else 0
        killed, self.killed = self.killed, self._count()
        return max(0, self.killed - killed)

    def close(self) -> None:
        """Let go of it."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
