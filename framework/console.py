"""What a run says while it works: one live line on a terminal, a plain line now and then elsewhere.

Never a silent half minute: while something long goes on (a compilation, a slow step) a heartbeat thread
says so at least every ten seconds.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from framework.distributed import is_main
from framework.pace import Pace, show_time

# Metric -> the word for it on the line. Evaluations stay on the line until the next one.
SHOWN = {
    "loss/total": "loss",
    "reward/mean": "reward",
    "policy/entropy": "entropy",
    "eval/accuracy": "accuracy",
}
_TOKENS = "throughput/tokens_per_s"
_BAR_FITS = 90  # columns; a narrower terminal shows numbers only


class Console:
    """Progress of a run of one or more stages. Use it as a context manager, or call `close`.

    On many hosts only that of process 0 says anything.
    """

    def __init__(
        self,
        *,
        stages: Sequence[tuple[str, int]] = (),
        file: TextIO | None = None,
        every_s: float = 5.0,
        heartbeat_s: float = 10.0,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stages`: the plan, (name, steps) in order, for the time left over all of them. `every_s`: least time
        between plain progress lines. `heartbeat_s`: longest silence. `live`: None looks at `file`."""
        self._file = file or sys.stdout
        self._rich = RichConsole(file=self._file, highlight=False)
        self._quiet = not is_main()
        self.live = (
            False if self._quiet else self._file.isatty() and not self._rich.is_dumb_terminal if live is None else live
        )
        self._every_s, self._heartbeat_s, self._clock = every_s, heartbeat_s, clock
        self._plan = list(stages)
        self._lock = threading.RLock()
        self._last_output_s = -float("inf")
        self._last_progress_s = -float("inf")
        self._status: list[tuple[str, float]] = []  # what is going on, innermost last, and since when
        self._name, self._step, self._steps = "", 0, 0
        self._moved_s = 0.0  # when the last step ended
        self._values: dict[str, float] = {}
        self._pace = Pace(clock)
        self._live: Live | None = None
        self._closed = threading.Event()
        self._heart: threading.Thread | None = None

    # --- what a loop calls ---

    @contextlib.contextmanager
    def stage(self, name: str, steps: int, start: int = 0) -> Iterator[None]:
        """A stage of `steps` steps, of which `start` were done before (a resumed run)."""
        with self._lock:
            self._name, self._step, self._steps = name, start, steps
            self._values, self._moved_s = {}, self._clock()
            self._last_progress_s = -float("inf")
            self._pace = Pace(self._clock)
        self.print(f"{name}: {steps} steps" if start == 0 else f"{name}: continuing after step {start} of {steps}")
        self._start()
        try:
            yield
        finally:
            self._stop_live()  # leaves the finished line as it was last
            with self._lock:
                self._name = ""

    def step(self, step: int, metrics: Mapping[str, object] | None = None) -> None:
        """`step` steps are finished. Cheap: prints only when it is time to."""
        with self._lock:
            self._step = step
            self._moved_s = now = self._clock()
            self._pace.step()
            for name, value in (metrics or {}).items():
                if name in SHOWN or name == _TOKENS:
                    self._values[name] = float(value)  # pyright: ignore[reportArgumentType]
            if not self.live and (now - self._last_progress_s >= self._every_s or step >= self._steps):
                self._last_progress_s = now
                self.print(self._line())

    @contextlib.contextmanager
    def status(self, text: str, *, one_off: bool = True) -> Iterator[None]:
        """Say what is going on, such as "compiling train step". Nests.

        `one_off`: it will not happen again each few steps, so its time is left out of the estimate.
        """
        began = self._clock()
        with self._lock:
            self._status.append((text, began))
            if not self.live:
                self.print(f"... {text}")
        self._start()
        try:
            yield
        finally:
            with self._lock:
                self._status.remove((text, began))
                if one_off and not self._status:
                    self._pace.leave_out(self._clock() - began)
                alone = not self._status and not self._name
            if alone:
                self._stop_live()

    def print(self, text: str) -> None:
        """A line of its own, above the live line if there is one."""
        if self._quiet:
            return
        if self.live:
            # Without our lock: rich takes its own here, and its thread takes them the other way round (_render).
            self._rich.print(Text(text))
            return
        with self._lock:
            self._last_output_s = self._clock()
            print(text, file=self._file, flush=True)

    def seconds_left(self) -> float | None:
        """Estimate for this stage and the planned ones after it; None before there is anything to go by."""
        pace = self._pace.seconds_per_step()
        if pace is None:
            return None
        # A later stage is assumed to go at the pace of this one, until it has a pace of its own.
        names = [name for name, _ in self._plan]
        later = self._plan[names.index(self._name) + 1 :] if self._name in names else []
        return pace * (self._steps - self._step + sum(steps for _, steps in later))

    def close(self) -> None:
        self._closed.set()
        self._stop_live()
        if self._heart is not None and self._heart is not threading.current_thread():
            self._heart.join()
            self._heart = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how it looks ---

    def _line(self) -> str:
        return "  ".join([f"{self._name} {self._step}/{self._steps}", *self._details()])

    def _details(self) -> list[str]:
        if not self._name:
            return []
        parts = [f"{word} {self._values[name]:.3g}" for name, word in SHOWN.items() if name in self._values]
        if _TOKENS in self._values:
            parts.append(f"{self._values[_TOKENS]:,.0f} tokens/s")
        left = self.seconds_left()
        if left is not None and self._step < self._steps:
            parts.append(f"{show_time(left)} left")
        return parts

    def _render(self) -> Table:
        """The live line: rich calls this four times a second from its own thread."""
        with self._lock:
            now = self._clock()
            head = f"{self._name} {self._step}/{self._steps}" if self._name else ""
            details = [*self._details(), *(f"{text}, {show_time(now - since)}" for text, since in self._status[-1:])]
            bar = ProgressBar(total=max(self._steps, 1), completed=self._step, width=24)
        row = Table.grid(padding=(0, 1))
        row.add_column(no_wrap=True, min_width=len(head))
        cells: list[RenderableType] = [Text(head)] if head else []
        if head and self._rich.width >= _BAR_FITS:
            cells.append(bar)
            row.add_column(no_wrap=True)
        row.add_column(no_wrap=True)  # a narrow terminal cuts the line instead of breaking it
        row.add_row(*cells, Text("  ".join(details)))
        return row

    def _start(self) -> None:
        """Start the thread that keeps talking: rich's own on a terminal, the heartbeat elsewhere."""
        with self._lock:
            live = None
            if self.live and self._live is None:
                # A status outside a stage vanishes when it is over; the line of a stage stays.
                live = self._live = Live(
                    get_renderable=self._render, console=self._rich, refresh_per_second=4, transient=not self._name
                )
            if not self.live and not self._quiet and self._heart is None:
                self._closed.clear()
                self._heart = threading.Thread(target=self._beat, name="console heartbeat", daemon=True)
                self._heart.start()
        if live is not None:
            live.start()

    def _stop_live(self) -> None:
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat_s / 20):
            self.heartbeat()

    def heartbeat(self) -> None:
        """Print a line if something is going on and the last output is nearly `heartbeat_s` old."""
        with self._lock:
            now = self._clock()
            if now - self._last_output_s < 0.9 * self._heartbeat_s:
                return
            if self._status:
                text, since = self._status[-1]
                self.print(f"... {text}, {show_time(now - since)}")
            elif self._name and self._step < self._steps:
                self.print(
                    f"... {self._name}, step {self._step + 1} of {self._steps}, {show_time(now - self._moved_s)}"
                )
