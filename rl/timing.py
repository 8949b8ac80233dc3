"""Seconds spent in each phase of a step."""

import contextlib
import time
from collections.abc import Iterator

__all__ = ["Timer"]


class Timer:
    """`with timer("rollout"): ...` adds up seconds by phase. Whoever times device work waits for it inside the block."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """Seconds by phase as `time/<phase>_s`."""
        return {f"time/{phase}_s": seconds for phase, seconds in self.seconds.items()}
