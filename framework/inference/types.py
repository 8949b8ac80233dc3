"""What goes into a generation engine and what comes out, and what the engine asks of a model and a tokenizer."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, Self

import jax
import numpy as np

__all__ = [
    "Cache",
    "Completion",
    "FinishReason",
    "GroupStop",
    "LanguageModel",
    "QueueFull",
    "Request",
    "Scores",
    "TextDecoder",
    "Ticket",
    "Update",
]

FinishReason = Literal["stop", "length", "abort", "group", "error"]


class Cache(Protocol):
    """Keys and values of many rows; see `models.decoder.cache`. R is the number of batch shards: nothing crosses between them."""

    def insert(self, fresh: Any, rows: jax.Array, places: jax.Array) -> Self:
        """Write the tokens of a flat prefill, [R, N]."""
        ...

    def copy(self, source: jax.Array, target: jax.Array) -> Self:
        """Fork rows (a paged cache: pages), both [R, J]."""
        ...

    def take(self, rows: jax.Array) -> Self:
        """One row of each shard, [R]."""
        ...

    def put(self, rows: jax.Array, part: Self) -> Self:
        """Write them back."""
        ...


class LanguageModel(Protocol):
    """What the engine needs of a model: the training forward, an output matrix, an empty cache and log-probabilities."""

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array | None = None, cache: Any = None
    ) -> tuple[jax.Array, Any]: ...

    @property
    def unembed(self) -> jax.Array: ...

    def init_cache(self, rows: int, slots: int) -> Any: ...

    def init_paged(self, rows: int, *, pages: int, page: int, max_pages: int, shards: int = 1) -> Any: ...

    def fresh_cache(self, segment_ids: jax.Array) -> Any: ...

    def logprobs(
        self, hidden: jax.Array, targets: jax.Array, temperature: float = 1.0
    ) -> tuple[jax.Array, jax.Array]: ...


class TextDecoder(Protocol):
    """What the engine needs of a tokenizer, for stop strings and text."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` up to the first stop id."""
        ...


class QueueFull(RuntimeError):
    """More requests wait than the engine was told to keep."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupStop:
    """Ends the samples of a request once `count` of them have closed (short-m@k, arXiv:2505.17813).

    A sample closes with `token`, such as the one of `</think>`; its length is the number of tokens before that. The `count`
    shortest go on to their own end (equal lengths: the lower number first); every other one is cut at the length of the longest
    of them. Decided by length and not by time, so that samples which had to wait for a slot change nothing.
    """

    token: int
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to be continued `samples` times."""

    id: int
    """Names the request in the randomness: the same (key, id, sample, position) gives the same token whatever else runs."""
    prompt: Sequence[int]
    samples: int = 1
    max_tokens: int | None = None
    """At most this many new tokens; None: `EngineConfig.max_new_tokens`."""
    min_tokens: int = 0
    """No stop token is drawn before so many new tokens; log-probabilities are those of the distribution without it."""
    temperature: float = 1.0
    """0 picks the most likely token."""
    top_k: int = 0
    """Only the k most likely tokens (equal ones are all kept); 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that together have at least this probability (nucleus); after top_k."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the most likely one."""
    stop: tuple[str, ...] = ()
    """Texts that end a continuation, also when they are spread over tokens; needs an engine with a tokenizer."""
    stop_tokens: tuple[int, ...] = ()
    """Token ids that end it, besides those of the engine."""
    ignore_stop: bool = False
    """The engine's own stop tokens do not end it."""
    top_logprobs: int = 0
    """Also give the n most likely tokens at every step, at most `EngineConfig.top_logprobs`."""
    group: GroupStop | None = None
    """Ends its samples together."""
    hold: bool = False
    """Keep the cache of a sample that ended by itself, to `resume`, `fork` or `release` it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """A request that was handed in. Two tickets are never equal."""

    request: Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """One continuation of n tokens. `tokens` includes the stop token, or the token that completed a stop string."""

    request_id: int
    sample: int
    tokens: np.ndarray  # [n] int32
    logp: np.ndarray  # [n] float32, of the distribution sampled from (for temperature 0: of the untempered one)
    logp_untempered: np.ndarray  # [n] float32, of the model's own distribution
    entropy: np.ndarray  # [n] float32, nats, of the model's own distribution
    finish_reason: FinishReason
    version: int = 0
    """Of the weights that drew the last token."""
    stop: int | str | None = None
    """The stop token or stop text that ended it."""
    text: str | None = None
    """Decoded, without the stop text; None without a tokenizer."""
    top_tokens: np.ndarray | None = None  # [n, k] int32, most likely first
    top_logp: np.ndarray | None = None  # [n, k] float32, untempered
    hidden: np.ndarray | None = None  # [n, D], the state each token was drawn from
    error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """What one round of the engine gave one sample: n new tokens, and its completion when it has ended."""

    ticket: Ticket
    sample: int
    tokens: np.ndarray  # [n] int32
    logp: np.ndarray  # [n] float32
    logp_untempered: np.ndarray  # [n] float32
    entropy: np.ndarray  # [n] float32
    top_tokens: np.ndarray | None = None  # [n, k] int32
    top_logp: np.ndarray | None = None  # [n, k] float32
    text: str | None = None
    """Text that is final now: what could be the beginning of a stop text, or of a character, comes later."""
    asked: bool = False
    """The engine's `ask` said yes to the last token: the sample waits for `resume`."""
    completion: Completion | None = None


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of a given text of n tokens: log-probability and entropy (nats) of tokens 1 to n - 1, each given the ones before."""

    logp: np.ndarray  # [n - 1] float32
    entropy: np.ndarray  # [n - 1] float32


Ask = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(hidden [B, D], logits [B, V], token [B]) -> [B] bool: pause these samples. Runs inside the compiled decode loop."""
