"""The engine in a thread of its own. Requests go in through a queue of commands; tokens come back into the event loop."""

import asyncio
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from framework.errors import UserError
from framework.inference.types import QueueFull, Ticket, Update
from framework.serve.errors import ApiError, ClientGone, failed, queue_full, shutting_down
from framework.serve.metrics import Gauges, Metrics
from framework.serve.sampling import Keyed

if TYPE_CHECKING:
    from framework.inference.engine import Engine

__all__ = ["Job", "News", "Worker"]

log = logging.getLogger("maypole.serve")


@dataclasses.dataclass(frozen=True)
class News:
    """What a round of the engine gave one sample of one prompt."""

    prompt: int
    """Number of the prompt in its HTTP request."""
    update: Update


@dataclasses.dataclass
class _Place:
    """Where the tokens of a ticket go. Belongs to the engine's thread."""

    job: "Job"
    prompt: int
    left: int  # samples that have not ended
    began: float
    silent: bool = True


class Job:
    """The prompts of one HTTP request in the engine. Made, read and closed in the event loop."""

    def __init__(self, worker: "Worker", asks: Sequence[Keyed]):
        self.asks = asks
        self.gone = False  # read by the engine's thread: nobody wants the tokens any more
        self._worker, self._left = worker, sum(request.samples for request, _ in asks)
        self._inbox: asyncio.Queue[list[News] | Exception] = asyncio.Queue()

    async def accepted(self) -> None:
        """Wait until the engine has taken all prompts. Raises ApiError if it refuses one, and then has none of them."""
        await self._get()

    @property
    def done(self) -> bool:
        """Whether every sample has ended."""
        return self._left == 0

    async def news(self) -> list[News]:
        """What the next round brings. Raises ApiError when the engine fails or stops, ClientGone after `drop`."""
        found = await self._get()
        self._left -= sum(item.update.completion is not None for item in found)
        return found

    async def _get(self) -> list[News]:
        found = await self._inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    def put(self, found: list[News] | Exception) -> None:
        """Called in the event loop."""
        self._inbox.put_nowait(found)

    def drop(self) -> None:
        """The client has gone: whoever waits for news is woken with ClientGone."""
        self.put(ClientGone())

    def close(self, reason: str | None = None) -> None:
        """Give back what the engine still holds for it. With a `reason` that counts as an abort."""
        if not self.gone:
            self.gone = True
            self._worker.forget(self, None if self.done else reason)


class Worker:
    """Owns the engine from `start` to `stop`: nothing else may touch it meanwhile."""

    def __init__(self, engine: "Engine", metrics: Metrics):
        self.failure: BaseException | None = None
        """What the engine raised: it cannot be used after that."""
        self._engine, self._metrics = engine, metrics
        self._on_failure: Callable[[], None] = lambda: None
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._places: dict[Ticket, _Place] = {}
        self._outbox: list[tuple[Job, list[News] | Exception]] = []
        self._open: set[Job] = set()  # belongs to the event loop
        self._halted = self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gauges = self._read_gauges()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ---- from the event loop

    def on_failure(self, call: Callable[[], None]) -> None:
        """Call this in the event loop when the engine raises."""
        self._on_failure = call

    def start(self) -> None:
        """Begin; tokens come to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, asks: Sequence[Keyed]) -> Job:
        """Hand in prompts with their keys. `Job.accepted` says whether the engine takes them."""
        if self.failure is not None:
            raise failed(_first_line(self.failure))
        job = Job(self, asks)
        self._open.add(job)
        began = time.monotonic()
        self._commands.put(lambda: self._submit(job, began))
        return job

    def forget(self, job: Job, reason: str | None) -> None:
        """Abort a job, if it has not ended. Called by `Job.close`."""
        self._open.discard(job)
        if reason is not None:
            self._metrics.aborted(reason)
        if not job.done:
            self._commands.put(lambda: self._abort(job))

    def abort_all(self) -> None:
        """End every answer with "shutting down" and refuse what comes, now, however long a round of the engine takes."""
        self._closed = True
        for job in self._open:
            self._metrics.aborted("shutdown")
            job.put(shutting_down())

    def stop(self, timeout: float) -> None:
        """End the thread, or give up after `timeout` seconds: then it is still `busy`. Blocks, so not for the event loop."""
        self._commands.put(self._halt)
        self._thread.join(timeout)

    @property
    def busy(self) -> bool:
        """Whether the thread lives: after `stop`, in a round of the engine that takes long, such as a compilation."""
        return self._thread.is_alive()

    @property
    def gauges(self) -> Gauges:
        """How full the engine was after its last round."""
        return self._gauges

    # ---- in the engine's thread

    def _run(self) -> None:
        while not self._halted:
            try:
                self._take_commands()
                if not self._halted and self.failure is None and not self._engine.idle:
                    self._round()
                self._gauges = self._read_gauges()
            except Exception as error:
                log.exception("The generation engine failed; every answer that was under way gets status 500.")
                self._fail(error)
            self._send()

    def _take_commands(self) -> None:
        """All that wait; when there is nothing to generate, sleep until one comes."""
        if self._engine.idle or self.failure is not None:
            self._commands.get()()
        while not self._halted:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _submit(self, job: Job, began: float) -> None:
        if job.gone:
            return
        refusal = failed(_first_line(self.failure)) if self.failure else shutting_down() if self._closed else None
        tickets: list[Ticket] = []
        waiting = self._engine.stats.waiting
        try:
            for request, key in job.asks if refusal is None else ():
                tickets.append(self._engine.submit(request, key))
        except QueueFull:
            refusal = queue_full(waiting)
        except UserError as error:
            refusal = ApiError(400, str(error))
        if refusal is not None:
            for ticket in tickets:
                self._engine.abort(ticket)
            self._outbox.append((job, refusal))
            return
        for number, ticket in enumerate(tickets):
            self._places[ticket] = _Place(job, number, ticket.request.samples, began)
            self._metrics.accepted(len(ticket.request.prompt))
        self._outbox.append((job, []))

    def _round(self) -> None:
        """One round of the engine, its tokens sorted by job."""
        news: dict[Job, list[News]] = {}
        tokens, began = 0, time.monotonic()
        updates = self._engine.step()
        now = time.monotonic()
        for update in updates:
            tokens += len(update.tokens)
            place = self._places.get(update.ticket)
            if place is None:  # aborted
                continue
            if place.silent and len(update.tokens):
                place.silent = False
                self._metrics.queued(began - place.began)
                self._metrics.first_token(now - place.began)
            if update.completion is not None:
                place.left -= 1
                if not place.left:
                    del self._places[update.ticket]
            news.setdefault(place.job, []).append(News(place.prompt, update))
        self._metrics.generated(tokens)
        self._outbox.extend(news.items())

    def _abort(self, job: Job) -> None:
        for ticket in [ticket for ticket, place in self._places.items() if place.job is job]:
            del self._places[ticket]
            if self.failure is None:
                self._engine.abort(ticket)

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        for job in dict.fromkeys(place.job for place in self._places.values()):
            self._outbox.append((job, failed(_first_line(error))))
        self._places.clear()
        self._post(self._on_failure)

    def _halt(self) -> None:
        self._halted = True

    def _send(self) -> None:
        """Everything of a round in one call into the event loop."""
        outbox, self._outbox = self._outbox, []
        if outbox:
            self._post(lambda: [job.put(found) for job, found in outbox if not job.gone])

    def _post(self, call: Callable[[], object]) -> None:
        assert self._loop is not None, "the thread runs after start() only"
        self._loop.call_soon_threadsafe(call)

    def _read_gauges(self) -> Gauges:
        stats = self._engine.stats
        return {
            "requests_running": stats.running,
            "requests_waiting": stats.waiting,
            "slots": stats.slots,
            "slots_free": stats.free_slots,
            "weights_version": self._engine.version,
        }


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
