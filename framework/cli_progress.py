"""How far generation is, on stderr: a bar on a terminal, elsewhere a plain line every ten seconds."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from framework.pace import show_time

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["TokenProgress"]

_WINDOW_S = 10.0  # seconds that the shown speed is measured over


class TokenProgress:
    """Use it as a context manager, and call `update` as often as you like."""

    def __init__(
        self,
        name: str,
        *,
        total: int,
        done: int = 0,
        file: TextIO | None = None,
        every_s: float = 10.0,
        bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` of `total` were there before. `every_s`: seconds between plain lines. `bar`: None looks at `file`."""
        self._name, self._total, self._before, self._done = name, total, done, done
        self._file, self._every_s, self._clock = file or sys.stderr, every_s, clock
        self._shows_bar = self._file.isatty() if bar is None else bar
        self._began = clock()
        self._tokens = 0
        self._recent: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> "TokenProgress":
        if self._shows_bar:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            progress = Progress(*columns, console=Console(file=self._file))
            self._bar = (
                progress,
                progress.add_task(self._name, total=self._total, completed=self._done, text=self._text()),
            )
            progress.start()
        else:
            self._thread = threading.Thread(target=self._print_lines, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._bar is not None:
            self._bar[0].stop()
        if self._thread is not None:
            self._thread.join()

    def update(self, done: int, tokens: int) -> None:
        """So many of all are done, and so many tokens were generated since the beginning."""
        with self._lock:
            now = self._clock()
            self._done, self._tokens = done, tokens
            self._recent.append((now, tokens))
            while len(self._recent) > 2 and now - self._recent[1][0] > _WINDOW_S:
                self._recent.popleft()
            text = self._text()
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=done, text=text)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began

    def line(self) -> str:
        """As it is printed where there is no terminal."""
        with self._lock:
            return f"{self._name} {self._text()}"

    def _text(self) -> str:
        parts = [f"{self._done:,}/{self._total:,}"]
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        if last > first:
            parts.append(f"{(last - first) / max(last_s - first_s, 1e-9):,.0f} tokens/s")
        finished = self._done - self._before
        if finished and self._done < self._total:
            parts.append(f"{show_time((self._clock() - self._began) / finished * (self._total - self._done))} left")
        return "  ".join(parts)

    def _print_lines(self) -> None:
        while not self._closed.wait(self._every_s):
            print(self.line(), file=self._file, flush=True)
