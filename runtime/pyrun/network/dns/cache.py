"""Answers of outside, remembered for a few seconds: as long as they say, but no longer than MOST_S, and so many.

Short, because they are handed on as they came: what a client is told to remember was true MOST_S ago.
"""

from __future__ import annotations

MOST_S = 5.0
MOST_ANSWERS = 2048
_MOST_BYTES = 4096

Address = tuple[str, int]
Key = tuple[tuple[str, ...], bytes]


class Cache:
    """Answers by the servers they came from and the question without its id."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: dict[Key, tuple[float, bytes, list[Address]]] = {}

    def get(self, key: Key, now_s: float) -> tuple[bytes, list[Address]] | None:
        """(the answer without its id, the addresses in it), None when there is none any more."""
        found = self._answers.get(key)
        if found is None:
            return None
        if found[0] <= now_s:
            del self._answers[key]
            return None
        return found[1], found[2]

    def put(self, key: Key, answer: bytes, addresses: list[Address], life_s: float, now_s: float) -> None:
        """Remember an answer for *life_s*; the oldest makes room."""
        if life_s <= 0 or len(answer) > _MOST_BYTES:
            return
        self._answers.pop(key, None)
        if len(self._answers) >= MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = (now_s + min(life_s, MOST_S), answer, addresses)
