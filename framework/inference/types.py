"""What goes into a generation engine and what comes out, and what the engine asks of a model."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol, Self

import jax
import numpy as np

__all__ = ["Completion", "DecodeCache", "LanguageModel", "Request"]


class DecodeCache(Protocol):
    """A key/value cache that can be shared by a group and made longer."""

    def repeat(self, samples: int) -> Self: ...
    def grow(self, slots: int) -> Self: ...


class LanguageModel(Protocol):
    """What the engine needs of a model: the training forward, an output matrix and an empty cache."""

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array | None = None, cache: Any = None
    ) -> tuple[jax.Array, Any]: ...

    @property
    def unembed(self) -> jax.Array: ...

    def init_cache(self, rows: int, slots: int) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt to be continued `samples` times."""

    id: int
    """Names the request in the randomness: the same (key, id, sample, position) gives the same token whatever else runs."""
    prompt: Sequence[int]
    samples: int = 1
    max_tokens: int | None = None
    """At most this many new tokens; None: as many as the engine was built for."""
    temperature: float = 1.0
    """0 picks the most likely token."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """One continuation. `tokens` includes the stop token; the arrays have the same length."""

    request_id: int
    sample: int
    tokens: np.ndarray  # [n] int32
    logp: np.ndarray  # [n] float32, of the distribution sampled from (for temperature 0: of the untempered one)
    entropy: np.ndarray  # [n] float32, nats, of the untempered distribution
    finish_reason: Literal["stop", "length"]
    version: int = 0  # of the weights
