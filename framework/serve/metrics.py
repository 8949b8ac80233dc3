"""What `/metrics` shows, in the text format of Prometheus. Counted by two threads: the engine's and the web server's."""

import bisect
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping

__all__ = ["Gauges", "Histogram", "Metrics"]

Gauges = Mapping[str, float]

_WINDOW = 10.0  # seconds that the speed is a mean over
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_GAUGES = {
    "requests_running": "Sequences in a slot.",
    "requests_waiting": "Sequences that wait for a slot.",
    "slots": "Sequences that the engine can work on at once.",
    "slots_free": "Slots without a sequence.",
    "weights_version": "Version of the weights.",
}


class Histogram:
    """Seconds in buckets."""

    def __init__(self) -> None:
        self._counts, self._sum = [0] * (len(_SECONDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect.bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """In the text format, where a bucket holds all the smaller ones too."""
        total = 0
        for bound, count in zip((*_SECONDS, None), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{"+Inf" if bound is None else f"{bound:g}"}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Everything that is counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._lock, self._clock = threading.Lock(), clock
        self._requests: Counter[tuple[str, int]] = Counter()
        self._aborted: Counter[str] = Counter({"client": 0, "shutdown": 0})
        self._generated = self._prompt = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._began = clock()
        self._queue, self._first, self._whole = Histogram(), Histogram(), Histogram()

    def request(self, path: str, status: int) -> None:
        """An HTTP request was answered; 499: its client had gone."""
        with self._lock:
            self._requests[path, status] += 1

    def aborted(self, reason: str) -> None:
        """An answer was given up: "client" or "shutdown"."""
        with self._lock:
            self._aborted[reason] += 1

    def accepted(self, prompt_tokens: int) -> None:
        """The engine took a prompt."""
        with self._lock:
            self._prompt += prompt_tokens

    def generated(self, tokens: int) -> None:
        """The engine made tokens."""
        now = self._clock()
        with self._lock:
            self._generated += tokens
            self._recent.append((now, tokens))
            self._forget(now)

    def first_token(self, seconds: float) -> None:
        """From handing in a prompt to its first token."""
        with self._lock:
            self._first.add(seconds)

    def queued(self, seconds: float) -> None:
        """From handing in a prompt to the round of the engine that gave its first token."""
        with self._lock:
            self._queue.add(seconds)

    def finished(self, seconds: float) -> None:
        """From the arrival of a request to the end of its answer."""
        with self._lock:
            self._whole.add(seconds)

    def tokens_per_second(self) -> float:
        """Mean speed of the last ten seconds, waiting included."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            return sum(count for _, count in self._recent) / max(min(_WINDOW, now - self._began), 0.1)

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()

    def text(self, gauges: Gauges) -> str:
        """The whole page; `gauges` are those of `_GAUGES`, as they are now."""
        speed = self.tokens_per_second()
        with self._lock:
            return "\n".join([*self._lines(gauges, speed), ""])

    def _lines(self, gauges: Gauges, speed: float) -> Iterator[str]:
        yield from _head("requests_total", "counter", "HTTP requests by path and status; 499: the client had gone.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'maypole_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("aborted_total", "counter", "Answers given up: the client had gone, or the server stopped.")
        for reason, count in sorted(self._aborted.items()):
            yield f'maypole_aborted_total{{reason="{reason}"}} {count}'
        for name, text in _GAUGES.items():
            yield from _head(name, "gauge", text)
            yield f"maypole_{name} {gauges[name]:g}"
        yield from _head("prompt_tokens_total", "counter", "Tokens of prompts that the engine took.")
        yield f"maypole_prompt_tokens_total {self._prompt}"
        yield from _head("generated_tokens_total", "counter", "Tokens that the engine made.")
        yield f"maypole_generated_tokens_total {self._generated}"
        yield from _head("tokens_per_second", "gauge", "Generated tokens per second, mean of the last ten seconds.")
        yield f"maypole_tokens_per_second {speed:.3f}"
        for name, histogram, text in (
            (
                "queue_seconds",
                self._queue,
                "From handing in a prompt to the round of the engine that gave its first token.",
            ),
            ("first_token_seconds", self._first, "From handing in a prompt to its first tokens."),
            ("request_seconds", self._whole, "From the arrival of a request to the end of its answer."),
        ):
            yield from _head(name, "histogram", text)
            yield from histogram.lines(f"maypole_{name}")


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP maypole_{name} {text}"
    yield f"# TYPE maypole_{name} {kind}"
