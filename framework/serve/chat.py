"""`/v1/chat/completions`: the next turn of a conversation, written with the template of the tokenizer."""

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from framework.errors import UserError
from framework.inference.types import Completion, Update
from framework.serve.completions import finish_reason
from framework.serve.errors import ApiError
from framework.serve.fields import Fields, parse_body, shown
from framework.serve.logprobs import chat_logprobs
from framework.serve.sampling import as_request, read_sampling
from framework.serve.service import Service

__all__ = ["ChatAnswer"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_NO_TOOLS = "tools are not supported by this server. Leave it out"


class ChatAnswer:
    """Implements `framework.serve.answers.Answer`."""

    def __init__(self, raw: bytes, service: Service):
        """Raises ApiError for a request that cannot be answered."""
        fields = Fields(parse_body(raw))
        service.check_model(fields)
        messages = _messages(fields)
        newer, older = fields.integer("max_completion_tokens", low=1), fields.integer("max_tokens", low=1)
        if newer is not None and older is not None and newer != older:
            raise fields.wrong("max_tokens", "it differs from max_completion_tokens, the newer name. Give one of them")
        wanted, top = fields.flag("logprobs"), fields.integer("top_logprobs", low=0, high=service.limits.top_logprobs)
        if top is not None and not wanted:
            raise fields.wrong("top_logprobs", "it needs logprobs to be true")
        _refuse_unsupported(fields)
        max_tokens = older if newer is None else newer
        self.sampling = read_sampling(fields, max_tokens=max_tokens, logprobs=(top or 0) if wanted else None)
        fields.finish()
        service.check_count(self.sampling.samples)
        service.check_size("".join(message["content"] for message in messages), "messages")
        try:
            prompt = service.tokenizer.chat.prompt(messages)
        except UserError as error:
            raise ApiError(400, str(error), param="messages") from error
        self.asks = [as_request(prompt, self.sampling, service.limits, param="messages")]
        self._pieces = service.pieces
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk" if self.sampling.stream else "chat.completion",
            "created": int(time.time()),
            "model": service.name,
        }

    def whole(self, completions: Sequence[Completion], counts: dict[str, Any]) -> dict[str, Any]:
        """The answer in one object."""
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": found.text or "", "refusal": None},
                **self._extras(found),
                **finish_reason(found),
            }
            for i, found in enumerate(completions)
        ]
        return self._head | {"choices": choices, "usage": counts}

    def opening(self) -> Iterator[dict[str, Any]]:
        """Each choice says whose turn it is."""
        for i in range(self.sampling.samples):
            yield self._chunk(i, {"role": "assistant", "content": ""})

    def chunks(self, choice: int, update: Update) -> Iterator[dict[str, Any]]:
        """A chunk with text, then one that says why the choice ended."""
        extras = self._extras(update) if len(update.tokens) else {}
        if update.text or any(value is not None for value in extras.values()):
            yield self._chunk(choice, {"content": update.text or ""}, **extras)
        if update.completion is not None:
            yield self._chunk(choice, {}, **finish_reason(update.completion))

    def closing(self, counts: dict[str, Any]) -> dict[str, Any]:
        """The chunk with token counts."""
        return self._head | {"choices": [], "usage": counts}

    def _chunk(self, choice: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        content = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None} | more
        return self._head | {"choices": [content]} | ({"usage": None} if self.sampling.include_usage else {})

    def _extras(self, found: Completion | Update) -> dict[str, Any]:
        top = self.sampling.logprobs
        content = None if top is None else {"content": chat_logprobs(found, top, self._pieces), "refusal": None}
        return {"logprobs": content} | ({"token_ids": found.tokens.tolist()} if self.sampling.token_ids else {})


def _refuse_unsupported(fields: Fields) -> None:
    fields.refuse("tools", _NO_TOOLS, harmless=([],))
    fields.refuse("tool_choice", _NO_TOOLS, harmless=("none", "auto"))
    fields.refuse("functions", _NO_TOOLS, harmless=([],))
    fields.refuse("function_call", _NO_TOOLS, harmless=("none", "auto"))
    plain = ({"type": "text"},)
    fields.refuse("response_format", 'only {"type": "text"} is supported. Leave it out', harmless=plain)
    fields.refuse("modalities", "answers are text. Leave it out", harmless=(["text"],))
    fields.refuse("audio", "answers are text. Leave it out")
    fields.ignore("parallel_tool_calls")


def _messages(fields: Fields) -> list[dict[str, str]]:
    """Roles and texts. What else OpenAI's messages may hold needs a model that reads it."""
    value = fields.take("messages")
    if not isinstance(value, list) or not value:
        raise fields.wrong("messages", "give at least one message, such as {'role': 'user', 'content': 'Hi'}")
    return [_message(Fields(item, f"messages[{i}]")) for i, item in enumerate(map(_object, value))]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(400, "'messages': each message is an object with role and content.", param="messages")
    return value


def _message(fields: Fields) -> dict[str, str]:
    role = fields.text("role")
    if role in ("tool", "function"):
        raise fields.wrong("role", "answers of tools are not supported by this server")
    if role not in _ROLES:
        raise fields.wrong("role", f"{role!r:.40} is none of {', '.join(_ROLES)}")
    fields.refuse("tool_calls", "calls of tools are not supported by this server", harmless=([],))
    fields.refuse("function_call", "calls of functions are not supported by this server")
    fields.refuse("audio", "sound is not supported by this server")
    fields.ignore("name", "refusal", "annotations")
    content = _content(fields)
    # Templates of thinking models read what was thought under this name.
    thoughts = fields.text("reasoning_content")
    fields.finish()
    extra = {} if thoughts is None else {"reasoning_content": thoughts}
    return {"role": _ROLES[role], "content": content, **extra}


def _content(fields: Fields) -> str:
    content = fields.take("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise fields.wrong("content", "it must be a string, or a list of parts of the type text")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = shown(part.get("type") if isinstance(part, dict) else part)
            raise fields.wrong("content", f"a part of the type {kind} cannot be read: this model reads text")
    return "".join(part["text"] for part in content)
