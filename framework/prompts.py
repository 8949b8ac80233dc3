"""Prompts from a JSONL file: texts, conversations or token ids, one a line. Imports no jax."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from framework.errors import UserError

__all__ = ["Prompt", "parse_line", "read_prompts"]

_DEEPEST = 100  # lists and objects in each other; what writes them calls itself for each

_KINDS: Mapping[str, tuple[type, str]] = {
    "messages": (list, 'a list such as [{"role": "user", "content": "..."}]'),
    "prompt": (str, "a text"),
    "question": (str, "a text"),
    "tokens": (list, "a list of token ids"),
}


class _Chat(Protocol):
    def prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]: ...


class Tokenizer(Protocol):
    """The part of a `models.tokenizer.LanguageTokenizer` that prompts need."""

    @property
    def start_ids(self) -> tuple[int, ...]: ...
    @property
    def chat(self) -> _Chat: ...
    def encode(self, text: str) -> list[int]: ...


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One line of a file of prompts, or a text from the command line."""

    line: int
    """Its line in the file, from 1; blank lines are counted."""
    record: Mapping[str, Any]
    """The whole object of the line."""
    kind: str
    """Which of its keys is asked: messages, prompt, question or tokens."""

    def token_ids(self, tokenizer: Tokenizer) -> list[int]:
        """What the model reads: a text behind the tokenizer's start tokens, a conversation through its template, ids as they are.

        Raises:
            UserError: messages that the template refuses, a text that cannot be written, ids that are no whole numbers.
        """
        value = self.record[self.kind]
        if self.kind == "messages":
            tools = self.record.get("tools")
            if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
                raise UserError(
                    'beside "messages", "tools" must be a list of objects, which the chat template writes. Rename the key if it '
                    "is something else."
                )
            return tokenizer.chat.prompt(value, tools)
        if self.kind == "tokens":
            wrong = next((i for i in value if isinstance(i, bool) or not isinstance(i, int)), None)
            if wrong is not None:
                raise UserError(f'"tokens" holds {wrong!r:.40}, and must hold whole numbers only: token ids.')
            return list(value)
        return [*tokenizer.start_ids, *tokenizer.encode(value)]

    def shown(self) -> str:
        """The prompt for a person to read."""
        value = self.record[self.kind]
        if self.kind == "messages":
            last = value[-1] if value else {}
            value = last.get("content") if isinstance(last, dict) else last
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_prompts(file: Path, *, reserved: Sequence[str] = ()) -> list[Prompt]:
    """The prompts of a JSONL file in UTF-8. Each line has one of the keys messages, prompt, question, tokens; others may follow.

    Raises:
        UserError: no such file, a line that is no object, has none or several of the keys, or one of the `reserved` ones.
    """
    try:
        raw = file.read_bytes()  # of a pipe as well
    except FileNotFoundError:
        raise UserError(f"There is no file {file}. --prompts takes a JSONL file, --prompt the text itself.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}. --prompts takes a JSONL file.") from error
    prompts = [
        _prompt(line, number, file, reserved) for number, line in enumerate(raw.split(b"\n"), start=1) if line.strip()
    ]
    if not prompts:
        raise UserError(f'{file} holds no prompts. Each line looks like {{"prompt": "..."}}.')
    return prompts


def parse_line(line: bytes) -> Any:
    """JSON of a line. Raises ValueError for what is no JSON, and for what is nested too deeply."""
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if line.count(b"[") + line.count(b"{") > _DEEPEST:
        level = [value]
        for _ in range(_DEEPEST):
            inner = (
                item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)
            )
            level = list(itertools.chain.from_iterable(inner))
        if any(isinstance(item, dict | list) for item in level):
            raise ValueError(f"it is nested too deeply, in more than {_DEEPEST} levels")
    return value


def _prompt(line: bytes, number: int, file: Path, reserved: Sequence[str]) -> Prompt:
    try:
        record = parse_line(line)
    except ValueError as error:  # json and UTF-8 errors are ValueErrors
        raise UserError(
            f'Line {number} of {file} is not JSON ({error}). Each line looks like {{"prompt": "..."}}.'
        ) from None
    if not isinstance(record, dict):
        raise UserError(
            f"Line {number} of {file} is no JSON object: {line[:40].decode(errors='replace')}. "
            'Each line looks like {"prompt": "..."}.'
        )
    found = [key for key, (kind, _) in _KINDS.items() if isinstance(record.get(key), kind)]
    if len(found) != 1:
        named = [key for key in _KINDS if key in record]
        if found:
            raise UserError(
                f"Line {number} of {file} has {' and '.join(map(repr, found))}, and only one can be the prompt. Rename the other."
            )
        if named:
            raise UserError(f'Line {number} of {file}: "{named[0]}" must be {_KINDS[named[0]][1]}.')
        raise UserError(
            f"Line {number} of {file} has none of the keys {', '.join(_KINDS)}. It has: {', '.join(record) or 'nothing'}."
        )
    if taken := next((key for key in reserved if key in record), None):
        raise UserError(f'Line {number} of {file} has the key "{taken}", where the answer goes. Rename it.')
    return Prompt(number, record, found[0])
