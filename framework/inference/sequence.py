"""What the host knows of one sample of a request while it waits, runs or is held."""

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

from framework.inference.text import TextStream
from framework.inference.types import Completion, FinishReason, Request, TextDecoder, Ticket, Update

__all__ = ["Ending", "Log", "Sequence"]

State = Literal["waiting", "filling", "running", "held", "done"]


@dataclasses.dataclass
class Log:
    """Numbers of each new token, in the order of the tokens; every field is a list of arrays [n, ...] to be joined."""

    logp: list[np.ndarray] = dataclasses.field(default_factory=list)
    logp_untempered: list[np.ndarray] = dataclasses.field(default_factory=list)
    entropy: list[np.ndarray] = dataclasses.field(default_factory=list)
    top_tokens: list[np.ndarray] = dataclasses.field(default_factory=list)
    top_logp: list[np.ndarray] = dataclasses.field(default_factory=list)
    hidden: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, more: dict[str, np.ndarray]) -> None:
        """Append arrays by field name."""
        for name, value in more.items():
            getattr(self, name).append(value)

    def forget_last(self, names: Iterable[str]) -> None:
        """NaN for the last token in these fields. Forks share arrays, so that it is a copy that changes."""
        for name in names:
            parts = getattr(self, name)
            i = max(i for i, part in enumerate(parts) if len(part))
            parts[i] = parts[i].copy()
            parts[i][-1] = np.nan

    def cut(self, length: int) -> dict[str, np.ndarray | None]:
        """The first `length` of each field; None for one that was never recorded."""
        joined = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: np.concatenate(parts)[:length] if parts else None for name, parts in joined.items()}

    def copy(self) -> "Log":
        """One that grows on its own."""
        return Log(*(list(getattr(self, f.name)) for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Ending:
    """Why a sample ended, and after how many new tokens; None: all it has."""

    reason: FinishReason
    stop: int | str | None = None
    error: str | None = None
    length: int | None = None


@dataclasses.dataclass(eq=False)
class Sequence:
    """One sample. `context` is what the model has read or is about to: its last token is the next input."""

    ticket: Ticket
    sample: int
    key: tuple[np.ndarray, int, int]  # [2] uint32, and the two numbers folded into it
    limit: int  # most new tokens
    stops: tuple[int, ...]
    order: int  # of its request: those handed in later are younger
    watch: int = 0
    stream: TextStream | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    log: Log = dataclasses.field(default_factory=Log)
    state: State = "waiting"
    slot: int | None = None
    filled: int = 0  # places of its row that hold keys and values
    version: int = 0
    cap: int | None = None  # of its group: most new tokens without the closing one
    ending: Ending | None = None
    unsaid: str = ""  # text of tokens put in by hand, for the next update

    @property
    def request(self) -> Request:
        """Of the ticket."""
        return self.ticket.request

    @property
    def length(self) -> int:
        """Prompt and new tokens."""
        return len(self.request.prompt) + len(self.tokens)

    @property
    def next_token(self) -> int:
        """The next input."""
        return self.tokens[-1] if self.tokens else int(self.request.prompt[-1])

    @property
    def unfilled(self) -> int:
        """Tokens that must go into the cache before it can be decoded."""
        return self.length - 1 - self.filled

    def context(self, start: int, stop: int) -> list[int]:
        """Tokens at places start to stop."""
        return [*map(int, self.request.prompt), *self.tokens][start:stop]

    def completion(self, tokenizer: TextDecoder | None = None) -> Completion:
        """What it became; its ending is set. `tokenizer` is needed where the ending cuts tokens whose text was said."""
        ending = self.ending
        assert ending is not None
        length = len(self.tokens) if ending.length is None else ending.length
        text = None if self.stream is None else self.stream.text
        if ending.length is not None and tokenizer is not None:
            text = tokenizer.decode(self.tokens[:length])
        found = self.log.cut(length)
        empty = np.zeros(0, np.float32)
        logp, untempered, entropy = (
            empty if (x := found[name]) is None else x for name in ("logp", "logp_untempered", "entropy")
        )
        return Completion(
            request_id=self.request.id,
            sample=self.sample,
            tokens=np.asarray(self.tokens[:length], np.int32),
            logp=logp,
            logp_untempered=untempered,
            entropy=entropy,
            finish_reason=ending.reason,
            version=self.version,
            stop=ending.stop,
            text=text,
            top_tokens=found["top_tokens"],
            top_logp=found["top_logp"],
            hidden=found["hidden"],
            error=ending.error,
        )

    def update(
        self,
        new: dict[str, np.ndarray] | None = None,
        *,
        text: str | None = None,
        asked: bool = False,
        completion: Completion | None = None,
    ) -> Update:
        """News of it: `new` has an array for "tokens" and for each field of the log."""
        new = {"tokens": np.zeros(0, np.int32)} if new is None else new
        empty = np.zeros(0, np.float32)
        return Update(
            ticket=self.ticket,
            sample=self.sample,
            tokens=new["tokens"],
            logp=new.get("logp", empty),
            logp_untempered=new.get("logp_untempered", empty),
            entropy=new.get("entropy", empty),
            top_tokens=new.get("top_tokens"),
            top_logp=new.get("top_logp"),
            text=text,
            asked=asked,
            completion=completion,
        )
