"""How far a command is, on stderr: a bar on a terminal, elsewhere a plain line every ten seconds. And tables."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from framework.pace import show_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["RecordProgress", "wide_console"]


class RecordProgress:
    """Use it as a context manager, and call it with (done, total, what is going on) as often as you like."""

    def __init__(
        self,
        unit: str,
        *,
        file: TextIO | None = None,
        every_s: float = 10.0,
        bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`every_s`: seconds between plain lines. `bar`: None looks at `file`."""
        self._unit, self._file, self._every_s, self._clock = unit, file or sys.stderr, every_s, clock
        self._shows_bar = self._file.isatty() if bar is None else bar
        self._printed_s = clock()
        self._stage = ""
        self._first = (clock(), 0)
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> "RecordProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()

    def __call__(self, done: int, total: int, doing: str) -> None:
        stage = doing.split(" ")[0]
        if stage != self._stage:  # its speed is measured for itself, without what was there before
            self._stage, self._first = stage, (self._clock(), done)
        text = self._text(done, total)
        if self._shows_bar:
            progress, task = self._bar or self._start()
            progress.update(task, description=f"{doing:<32.32}", completed=done, total=total, text=text)
        elif self._clock() - self._printed_s >= self._every_s:
            self._printed_s = self._clock()
            print(f"{doing}  {text}", file=self._file, flush=True)

    def _text(self, done: int, total: int) -> str:
        began_s, before = self._first
        passed_s = self._clock() - began_s
        parts = [f"{done:,}/{total:,} {self._unit}"]
        if done > before and passed_s > 0:
            rate = (done - before) / passed_s
            parts.append(f"{rate:,.0f}/s")
            if done < total:
                parts.append(f"{show_time((total - done) / rate)} left")
        return "  ".join(parts)

    def _start(self) -> "tuple[Progress, TaskID]":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        progress = Progress(*columns, console=Console(file=self._file))
        self._bar = (progress, progress.add_task("", text=""))
        progress.start()
        return self._bar


def wide_console() -> "Console":
    """For tables on stdout: where there is no terminal, lines are as long as they need to be."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=400)
