"""What the handlers of requests share."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from framework.errors import UserError
from framework.serve.errors import ApiError, shutting_down
from framework.serve.fields import Fields
from framework.serve.metrics import Metrics
from framework.serve.pieces import Pieces
from framework.serve.sampling import Keyed, Limits
from framework.serve.worker import Job, Worker

__all__ = ["Service"]

T = TypeVar("T")


@dataclasses.dataclass
class Service:
    """One model behind one server."""

    worker: Worker
    tokenizer: Any
    """A `models.tokenizer.LanguageTokenizer`."""
    limits: Limits
    metrics: Metrics
    names: Sequence[str]
    """What requests may call the model; answers use the first."""
    created: int
    """Unix time in seconds."""
    api_key: str | None = None
    draining: bool = False
    """Told to stop: what is under way goes on, what is new is refused."""

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.tokenizer)
        self._arriving: set[asyncio.Timeout] = set()  # requests whose body is not here yet
        # One thread: templates and tokenizers take milliseconds, and tokenizers are not made for two threads at once.
        self._reader = ThreadPoolExecutor(1, "reader")

    @property
    def name(self) -> str:
        """Of the model."""
        return self.names[0]

    @contextlib.asynccontextmanager
    async def arriving(self, seconds: float) -> AsyncIterator[None]:
        """Around the reading of a body: it has this long, and no longer than the server lives."""
        if self.draining:
            raise shutting_down()
        try:
            async with asyncio.timeout(seconds) as limit:
                self._arriving.add(limit)
                try:
                    yield
                finally:
                    self._arriving.discard(limit)
        except TimeoutError as error:
            if self.draining:
                raise shutting_down() from error
            message = f"The body of the request was not here after {seconds:g} s. Send it at once."
            raise ApiError(408, message, headers={"Connection": "close"}) from error

    def end(self) -> None:
        """The grace time is over: every answer and every request that is still coming in gets an error."""
        self.worker.abort_all()
        for limit in self._arriving:
            if not limit.expired():
                limit.reschedule(0)  # the time that the event loop counts from lies long ago

    async def read(self, function: Callable[[bytes, "Service"], T], raw: bytes) -> T:
        """Run the part of a request that reads it where it holds up no other answer."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, raw, self)

    async def submit(self, asks: Sequence[Keyed]) -> Job:
        """Hand prompts to the engine and wait until it has taken them."""
        if self.draining:
            raise shutting_down()
        job = self.worker.submit(asks)
        try:
            await job.accepted()
        except BaseException:
            job.close()
            raise
        return job

    def check_model(self, fields: Fields) -> None:
        """Raises ApiError unless the request is for this model."""
        name = fields.text("model")
        if name is None:
            raise ApiError(400, f"You must provide a model parameter. This server has {self.name!r}.", param="model")
        if name not in self.names:
            raise self.no_model(name)

    def no_model(self, name: str) -> ApiError:
        """The error for a model that is not served here."""
        message = f"The model {name[:80]!r} does not exist. This server has {', '.join(map(repr, self.names))}."
        return ApiError(404, message, param="model", code="model_not_found")

    def check_count(self, wanted: int) -> None:
        """Raises ApiError for more answers than slots and queue hold together."""
        if wanted > self.limits.max_queue + self.worker.gauges["slots"]:
            raise ApiError(
                400,
                f"The request asks for {wanted} answers at once, and the server keeps at most {self.limits.max_queue} waiting. "
                "Send fewer prompts in a request, or smaller n.",
            )

    def check_size(self, text: str, param: str) -> None:
        """Raises ApiError for a text that cannot fit, before a tokenizer works on it for seconds."""
        longest = self.limits.max_length * self.pieces.longest
        if len(text) > longest:
            raise ApiError(
                400,
                f"This model's maximum context length is {self.limits.max_length} tokens, which no text of more than {longest} "
                f"characters fits in. However, you sent {len(text)}. Shorten the prompt.",
                param=param,
                code="context_length_exceeded",
            )

    def encode(self, text: str, param: str) -> list[int]:
        """Ids of a plain text with what stands before every text. Raises ApiError for half of a character."""
        self.check_size(text, param)
        try:
            return [*self.tokenizer.start_ids, *self.tokenizer.encode(text)]
        except UserError as error:
            raise ApiError(400, str(error), param=param) from error

    def close(self) -> None:
        """End the reader's thread."""
        self._reader.shutdown(wait=False)
