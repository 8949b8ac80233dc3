"""Conversations to learn from: JSONL and Parquet files or a hub data set, in one schema.

    conversations = ConversationFile(path="chats/*.jsonl", heldout=100).build()
    conversations.train, conversations.heldout                    # for data.tokenise.tokenise

A record has `messages` (a list of role and content), or `prompt` and `completion`, both texts or both such lists. What cannot
be read is an error with file and line; what has nothing to learn is left out, counted and said.
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from data.records import rows
from framework.errors import UserError
from models.messages import is_learnt

__all__ = ["Conversation", "ConversationFile", "ConversationSource", "Conversations", "split_heldout"]

_SHARE_GPT = {"human": "user", "gpt": "assistant"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """One record: either messages for the chat template, or a plain prompt and completion that no template touches."""

    messages: tuple[Mapping[str, Any], ...] = ()
    prompt: str = ""
    completion: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    """Descriptions of tools, for templates that show them."""
    where: str = ""
    """File and line it came from, for errors."""

    @property
    def digest(self) -> str:
        """A number of its content alone: the same on every machine and in any order."""
        content = [self.messages, self.prompt, self.completion, self.tools]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversations:
    """What a source gives: conversations to train on, others to evaluate on, and how many were left out, by reason."""

    train: tuple[Conversation, ...]
    heldout: tuple[Conversation, ...] = ()
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{len(self.train):,} conversations to train on, {len(self.heldout):,} held out"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        return f"{text}; {sum(self.dropped.values()):,} left out: {reasons}" if reasons else text


class ConversationSource(Protocol):
    """A config that makes `Conversations`; says what it left out."""

    def build(self, say: Callable[[str], None] = print) -> Conversations: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversationFile:
    """Conversations from files of your own, or from the Hugging Face hub."""

    path: str
    """A .jsonl or .parquet file, a pattern such as chats/*.jsonl, a folder of such files, or a hub id such as
    HuggingFaceH4/no_robots."""
    split: str = "train"
    """Split of a hub data set."""
    messages: str = "messages"
    """Column of the messages."""
    prompt: str = "prompt"
    """Column of the prompt, read where there is no column of messages."""
    completion: str = "completion"
    """Column of the completion, which is learnt."""
    tools: str = "tools"
    """Column of tool descriptions; may be missing."""
    role: str = "role"
    """Key of the role in a message (ShareGPT: from)."""
    content: str = "content"
    """Key of the text in a message (ShareGPT: value)."""
    roles: Mapping[str, str] = dataclasses.field(default_factory=_SHARE_GPT.copy)
    """Names of roles to change."""
    max_examples: int | None = None
    """Read only so many records; None reads all."""
    heldout: int = 0
    """Number of conversations kept for evaluation, chosen by a digest of their content."""

    def build(self, say: Callable[[str], None] = print) -> Conversations:
        """Read everything, and `say` what was found and what was left out.

        Raises:
            UserError: no file, a record that cannot be read (with its line), or nothing left to train on.
        """
        if self.max_examples is not None and self.max_examples < 1:
            raise UserError(
                f"data.source.max_examples={self.max_examples} reads nothing. Use 1 or more, or None to read all."
            )
        kept: list[Conversation] = []
        dropped: collections.Counter[str] = collections.Counter()
        for number, (where, row) in enumerate(rows(self.path, self.split)):
            if number == self.max_examples:
                break
            conversation = self._conversation(row, where)
            reason = _nothing_to_learn(conversation)
            if reason:
                dropped[reason] += 1
            else:
                kept.append(conversation)
        if not kept:
            reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            raise UserError(
                f"{self.path} has no conversation to learn from ({reasons or 'no records'}). Each record needs messages with an "
                "assistant turn, or a prompt and a completion."
            )
        result = split_heldout(kept, self.heldout, dropped)
        say(f"{self.path}: {result}")
        return result

    def _conversation(self, row: Mapping[str, Any], where: str) -> Conversation:
        tools = self._tools(row.get(self.tools), where)
        if row.get(self.messages) is not None:
            return Conversation(messages=self._messages(row, self.messages, where), tools=tools, where=where)
        missing = [column for column in (self.prompt, self.completion) if row.get(column) is None]
        if missing:
            raise UserError(
                f"{where} has no field {self.messages!r}, nor {' and '.join(map(repr, missing))}. "
                f"Found: {', '.join(map(repr, row)) or 'nothing'}. Name your columns with data.source.messages=, or "
                "data.source.prompt= and data.source.completion=."
            )
        prompt, completion = row[self.prompt], row[self.completion]
        if isinstance(prompt, str) and isinstance(completion, str):
            return Conversation(prompt=prompt, completion=completion, tools=tools, where=where)
        if isinstance(prompt, str) or isinstance(completion, str):
            raise UserError(
                f"{where}: {self.prompt!r} is a {type(prompt).__name__} and {self.completion!r} a {type(completion).__name__}. "
                "Write two texts, or two lists of messages."
            )
        asked = self._messages(row, self.prompt, where)
        answered = self._messages(row, self.completion, where)
        context = tuple({**message, "train": False} if message["role"] == "assistant" else message for message in asked)
        return Conversation(messages=(*context, *answered), tools=tools, where=where)

    def _messages(self, row: Mapping[str, Any], column: str, where: str) -> tuple[Mapping[str, Any], ...]:
        value = row[column]
        if not isinstance(value, list):
            raise UserError(
                f"{where}: {column!r} is {value!r:.60}, which is not a list of messages. Write "
                f'[{{"{self.role}": "user", "{self.content}": ".."}}, ..].'
            )
        return tuple(
            self._message(message, f"{where}: message {i} of {column!r}") for i, message in enumerate(value, 1)
        )

    def _message(self, message: object, where: str) -> Mapping[str, Any]:
        if not isinstance(message, dict):
            raise UserError(f'{where} is {message!r:.60}. Write {{"{self.role}": "user", "{self.content}": ".."}}.')
        # Parquet gives every message all keys that any of them has: one without a value was never written.
        message = {key: value for key, value in message.items() if value is not None}
        role, content = message.pop(self.role, None), message.pop(self.content, None)
        if not isinstance(role, str):
            raise UserError(
                f"{where} has no text {self.role!r}. Found: {', '.join(map(repr, message)) or 'nothing'}. "
                "Name the keys of your messages with data.source.role= and data.source.content= (ShareGPT: from and value)."
            )
        if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            content = "".join(str(part.get("text", "")) for part in content)
        if content is None and message.get("tool_calls"):
            content = ""  # a turn that only calls a tool
        if not isinstance(content, str):
            given = f"is {content!r:.60}, which is not a text" if content is not None else "is missing"
            raise UserError(
                f"{where}: {self.content!r} {given}. Found: {', '.join(map(repr, message)) or 'nothing else'}. Write a text, or "
                "name the keys of your messages with data.source.role= and data.source.content= (ShareGPT: from and value)."
            )
        result = {"role": self.roles.get(role, role), "content": content, **message}
        try:
            is_learnt(result)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return result

    def _tools(self, value: object, where: str) -> tuple[Mapping[str, Any], ...]:
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)  # a column of JSON texts is how Parquet keeps objects of different shape
            except ValueError as error:
                raise UserError(f"{where}: {self.tools!r} is not JSON ({error}). Write a list of tools.") from error
        if not value:
            return ()
        if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
            raise UserError(f"{where}: {self.tools!r} is {value!r:.60}, which is not a list of tools (JSON objects).")
        return tuple(value)


def _nothing_to_learn(conversation: Conversation) -> str | None:
    """Why a conversation is left out, if it is."""
    if conversation.completion is not None:
        return None if conversation.completion.strip() else "with an empty completion"
    if not conversation.messages:
        return "without messages"
    turns = [message for message in conversation.messages if message["role"] == "assistant"]
    if not turns:
        return "without an assistant turn"
    learnt = [turn for turn in turns if is_learnt(turn)]
    if not learnt:
        return "with train: false on every assistant turn"
    if not any(turn["content"].strip() or turn.get("tool_calls") for turn in learnt):
        return "with empty assistant turns only"
    if len(learnt) == 1 and learnt[0] is conversation.messages[0]:
        return "that begin with their only turn to learn"
    return None


def split_heldout(
    conversations: Sequence[Conversation], heldout: int, dropped: Mapping[str, int] | None = None
) -> Conversations:
    """Keep `heldout` conversations for evaluation: those of the smallest digests, so the choice survives another order.

    A copy of a kept one is not trained on either, and counted.
    """
    left_out = dict(dropped or {})
    if heldout < 0 or heldout >= len(conversations):
        raise UserError(
            f"data.source.heldout={heldout} of {len(conversations)} conversations leaves nothing to train on. "
            f"Use data.source.heldout={max(len(conversations) // 10, 0)}."
        )
    digests = [conversation.digest for conversation in conversations]
    chosen = set(sorted(set(digests))[:heldout])
    kept: dict[str, Conversation] = {}
    train: list[Conversation] = []
    for digest, conversation in zip(digests, conversations, strict=True):
        if digest not in chosen:
            train.append(conversation)
        elif digest not in kept:
            kept[digest] = conversation
    copies = len(conversations) - len(train) - len(kept)
    if copies:
        left_out["that are copies of held-out ones"] = copies
    if not train:
        raise UserError(
            f"data.source.heldout={heldout} leaves nothing to train on: the conversations are copies of each other."
        )
    return Conversations(train=tuple(train), heldout=tuple(kept.values()), dropped=left_out)
