"""`/v1/completions`: texts or token ids are continued."""

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from framework.inference.types import Completion, Update
from framework.serve.errors import ApiError
from framework.serve.fields import Fields, parse_body
from framework.serve.logprobs import text_logprobs
from framework.serve.pieces import Offsets
from framework.serve.sampling import as_request, read_sampling
from framework.serve.service import Service

__all__ = ["TextAnswer", "finish_reason"]

_DEFAULT_TOKENS = 16  # as OpenAI has it


class TextAnswer:
    """Implements `framework.serve.answers.Answer`."""

    def __init__(self, raw: bytes, service: Service):
        """Raises ApiError for a request that cannot be answered."""
        fields = Fields(parse_body(raw))
        service.check_model(fields)
        prompts = _prompts(fields)
        asked = fields.integer("max_tokens", low=1)
        logprobs = fields.integer("logprobs", low=0, high=service.limits.top_logprobs)
        fields.refuse(
            "best_of", "choosing among answers is not supported. Leave it out", harmless=(fields.peek("n", 1),)
        )
        fields.refuse("echo", "answers hold the continuation only. Leave it out", harmless=(False,))
        fields.refuse("suffix", "filling in the middle of a text is not supported. Leave it out", harmless=("",))
        self.sampling = read_sampling(fields, max_tokens=_DEFAULT_TOKENS if asked is None else asked, logprobs=logprobs)
        fields.finish()
        service.check_count(len(prompts) * self.sampling.samples)  # before a tokenizer works on any of them
        self.asks = [
            as_request(_tokens(prompt, service), self.sampling, service.limits, param="prompt") for prompt in prompts
        ]
        self._pieces = service.pieces
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }
        self._offsets: dict[int, Offsets] = {}

    def whole(self, completions: Sequence[Completion], counts: dict[str, Any]) -> dict[str, Any]:
        """The answer in one object."""
        choices = [
            self._choice(i, found.text or "", found) | finish_reason(found) for i, found in enumerate(completions)
        ]
        return self._head | {"choices": choices, "usage": counts}

    def opening(self) -> Iterator[dict[str, Any]]:
        """A stream begins with its first text."""
        return iter(())

    def chunks(self, choice: int, update: Update) -> Iterator[dict[str, Any]]:
        """A chunk with text, then one that says why the choice ended."""
        shown = self.sampling.logprobs is not None or self.sampling.token_ids
        if update.text or (shown and len(update.tokens)):
            yield self._chunk(self._choice(choice, update.text or "", update) | {"finish_reason": None})
        if update.completion is not None:
            yield self._chunk({"index": choice, "text": "", "logprobs": None} | finish_reason(update.completion))

    def closing(self, counts: dict[str, Any]) -> dict[str, Any]:
        """The chunk with token counts."""
        return self._head | {"choices": [], "usage": counts}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._head | {"choices": [choice]} | ({"usage": None} if self.sampling.include_usage else {})

    def _choice(self, choice: int, text: str, found: Completion | Update) -> dict[str, Any]:
        logprobs = None
        if self.sampling.logprobs is not None:
            offsets = self._offsets.setdefault(choice, Offsets(self._pieces))
            logprobs = text_logprobs(found, self.sampling.logprobs, self._pieces, offsets)
        ids = {"token_ids": found.tokens.tolist()} if self.sampling.token_ids else {}
        return {"index": choice, "text": text, "logprobs": logprobs} | ids


def finish_reason(found: Completion) -> dict[str, Any]:
    """Why a choice ended; `stop_reason` is the stop string, or the id of the stop token."""
    return {"finish_reason": found.finish_reason, "stop_reason": found.stop}


def _prompts(fields: Fields) -> list[str] | list[list[int]]:
    """A string, a list of strings, token ids, or a list of lists of token ids."""
    value = fields.take("prompt")
    kinds = "a string, a list of strings, a list of token ids, or a list of lists of token ids"
    if value is None:
        raise fields.wrong("prompt", f"it is missing. Give {kinds}")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", f"it must be {kinds}")
    if all(isinstance(item, str) for item in value):
        return value
    if _ids(value):
        return [value]
    if all(isinstance(item, list) and _ids(item) for item in value):
        return value
    raise fields.wrong("prompt", f"it must be {kinds}, all of one kind")


def _tokens(prompt: str | list[int], service: Service) -> list[int]:
    if isinstance(prompt, str):
        return service.encode(prompt, "prompt")
    return _checked(prompt, service.limits.vocab_size)


def _ids(value: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def _checked(ids: list[int], vocab_size: int) -> list[int]:
    wrong = next((i for i in ids if not 0 <= i < vocab_size), None)
    if wrong is not None:
        message = f"The prompt has token {str(wrong)[:30]}, but the model has tokens 0 to {vocab_size - 1}."
        raise ApiError(400, message, param="prompt")
    return ids
