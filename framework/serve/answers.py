"""From a request that was read to an answer, whole or as a stream of events, until the client goes away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from framework.inference.types import Completion, Update
from framework.serve.errors import ApiError, ClientGone, dumps, failed, json_response, shutting_down
from framework.serve.sampling import Keyed, Sampling
from framework.serve.service import Service
from framework.serve.worker import Job

__all__ = ["Answer", "respond", "usage"]

_EVENTS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # a proxy such as nginx passes each event on at once
}


class Answer(Protocol):
    """A request that was read, and how its answer is written. Choice i * n + s is sample s of prompt i."""

    @property
    def asks(self) -> Sequence[Keyed]:
        """A request of the engine for each prompt."""
        ...

    @property
    def sampling(self) -> Sampling:
        """The same for all of them."""
        ...

    def whole(self, completions: Sequence[Completion], counts: dict[str, Any]) -> dict[str, Any]:
        """The answer in one object."""
        ...

    def opening(self) -> Iterator[dict[str, Any]]:
        """Chunks at the beginning of a stream."""
        ...

    def chunks(self, choice: int, update: Update) -> Iterator[dict[str, Any]]:
        """Chunks for what a choice got."""
        ...

    def closing(self, counts: dict[str, Any]) -> dict[str, Any]:
        """The chunk with token counts."""
        ...


async def respond(http: HttpRequest, service: Service, answer: Answer) -> Response:
    """Generate. Errors up to the first tokens have a status of their own; later ones are events of the stream."""
    job = await service.submit(answer.asks)
    began = time.monotonic()
    if answer.sampling.stream:
        return _Events(service, answer, job, began)
    try:
        async with _watching(http.receive, job):
            completions = await _all(job, answer)
    except ClientGone:
        job.close("client")
        raise
    finally:
        job.close()
    service.metrics.finished(time.monotonic() - began)
    return json_response(answer.whole(completions, _counts(answer, completions)))


@contextlib.asynccontextmanager
async def _watching(receive: Receive, job: Job) -> AsyncIterator[None]:
    """Drops the job when the client closes the connection."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        job.drop()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


async def _all(job: Job, answer: Answer) -> list[Completion]:
    """The completions in the order of the choices."""
    found: dict[int, Completion] = {}
    while not job.done:
        for news in await job.news():
            if news.update.completion is not None:
                _check(news.update.completion)
                found[news.prompt * answer.sampling.samples + news.update.sample] = news.update.completion
    return [found[choice] for choice in sorted(found)]


def _check(completion: Completion) -> None:
    if completion.finish_reason == "error":
        raise failed(completion.error or "it gave no reason.")
    if completion.finish_reason == "abort":
        raise shutting_down()


def _counts(answer: Answer, completions: Sequence[Completion]) -> dict[str, Any]:
    return usage(
        sum(len(request.prompt) for request, _ in answer.asks), sum(len(found.tokens) for found in completions)
    )


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts as the API writes them."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class _Events(Response):
    """Server-sent events: one a chunk, `[DONE]` at the end."""

    def __init__(self, service: Service, answer: Answer, job: Job, began: float):
        super().__init__(headers=_EVENTS)
        del self.headers["content-length"]
        self._service, self._answer, self._job, self._began = service, answer, job, began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async with _watching(receive, self._job):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await write(b"".join(map(_event, self._answer.opening())))
                try:
                    async for data in self._stream():
                        await write(data)
                except ApiError as error:
                    await write(_event(error.body()), more=False)
                    return
                await write(b"data: [DONE]\n\n", more=False)
            self._service.metrics.finished(time.monotonic() - self._began)
        except ClientGone:
            self._job.close("client")
        finally:
            self._job.close()

    async def _stream(self) -> AsyncIterator[bytes]:
        """The events of one round at a time."""
        completions: list[Completion] = []
        while not self._job.done:
            events: list[bytes] = []
            for news in await self._job.news():
                done = news.update.completion
                if done is not None:
                    _check(done)
                    completions.append(done)
                choice = news.prompt * self._answer.sampling.samples + news.update.sample
                events += map(_event, self._answer.chunks(choice, news.update))
            if events:
                yield b"".join(events)
        if self._answer.sampling.include_usage:
            yield _event(self._answer.closing(_counts(self._answer, completions)))


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"
