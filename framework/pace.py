"""How fast a run goes, and how to write a duration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_WINDOW = 20  # recent steps that the pace is taken from


class Pace:
    """Mean seconds a step over the recent steps. The first step, which compiles, does not count if there are others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mark_s = clock()
        self._left_out_s = 0.0
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._first: float | None = None

    def leave_out(self, seconds: float) -> None:
        """Do not count this much of the step that is going on (a compilation)."""
        self._left_out_s += seconds

    def step(self) -> None:
        now = self._clock()
        seconds = max(now - self._mark_s - self._left_out_s, 0.0)
        self._mark_s, self._left_out_s = now, 0.0
        if self._first is None:
            self._first = seconds
        else:
            self._recent.append(seconds)

    def seconds_per_step(self) -> float | None:
        if self._recent:
            return sum(self._recent) / len(self._recent)
        return None


def show_time(seconds: float) -> str:
    """Like 12 s, 3 min 05 s, 2 h 07 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
