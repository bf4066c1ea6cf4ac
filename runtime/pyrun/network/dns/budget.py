"""Who may ask how much: an account for every address, cleared ten times a second.

A question that was answered before costs 1, one that has to be read 8, one that is dropped because its sender has too
many in the queue at once 20. Beyond COSTLY an address gets only the cheap ones; beyond FLOOD it is muted: the guard
keeps its packets out of the queue it shares with the others of its network. Whoever waits for answers before it asks
on never gets there, however fast it is; 3,000 lookups a second cost 300 in a tenth.
"""

from __future__ import annotations

PERIOD_S = 0.1
READ_COST = 8
EXCESS_COST = 20
COSTLY = 4000  # some 4,000 questions a second that were not asked before
FLOOD = 60_000  # 600,000 a second, several times what the resolver can answer
_MOST = 4096
_MUTED_MOST_S = 60
_FORGIVEN_S = 60.0


class Budget:
    """spent: address -> what it cost in this period. The loop adds to it directly."""

    __slots__ = ("_until_s", "muted", "spent")

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.muted: dict[str, tuple[float, int]] = {}  # until when, how often
        self._until_s = 0.0

    def renew(self, now_s: float) -> None:
        """Begin a new period if the last is over."""
        if now_s >= self._until_s or len(self.spent) > _MOST:
            self.spent.clear()
            self._until_s = now_s + PERIOD_S

    def may_read(self, source: str) -> bool:
        """Charge a question that has to be read; False: not now."""
        spent = self.spent.get(source, 0)
        if spent > COSTLY:
            return False
        self.spent[source] = spent + READ_COST
        return True

    def mutes(self, source: str, now_s: float) -> int:
        """For how many seconds to mute an address now, 0: not, or it was said. Longer for who does not stop."""
        if self.spent.get(source, 0) < FLOOD:
            return 0
        until_s, times = self.muted.get(source, (0.0, 0))
        if until_s > now_s:
            return 0
        if len(self.muted) > _MOST:
            self.muted.clear()
        times = times + 1 if now_s - until_s < _FORGIVEN_S else 1
        seconds = min(1 << 2 * (times - 1), _MUTED_MOST_S)
        self.muted[source] = (now_s + seconds, times)
        return seconds
