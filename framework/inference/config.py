"""Sizes of a generation engine: everything it compiles for and all the memory it takes follows from them."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Literal, get_args

from framework.errors import UserError

__all__ = ["EngineConfig", "Layout"]

Layout = Literal["slots", "paged"]

_SHORTEST = 64  # tokens; the smallest bucket of prompts and half of that of cache lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What an engine compiles for. Lengths are tokens."""

    slots: int = 32
    """Sequences decoded together; those beyond wait for a free slot."""
    max_length: int = 512
    """Longest sequence, prompt and continuation together."""
    max_new_tokens: int = 256
    """Longest continuation of a request that does not say its own `max_tokens`."""
    decode_steps: int = 16
    """Decode steps in one compiled call; between calls the host fills free slots and passes tokens on."""
    prefill_tokens: int = 512
    """Prompt tokens a device takes at once; a longer prompt goes in parts, between which the others are decoded."""
    layout: Layout = "slots"
    """Cache: "slots" gives each sequence `max_length` places; "paged" gives out pages as sequences grow."""
    page_size: int = 16
    """Tokens of a page of the paged layout; 128 for TPU."""
    cache_bytes: int | None = None
    """Memory for keys and values, over all devices: fewer slots or pages where it does not suffice. None: as much as it takes."""
    stop_tokens: tuple[int, ...] = (1,)
    """Token ids that end a continuation."""
    max_stop_tokens: int = 8
    """Stop tokens that a request may have, those of the engine included."""
    pad_token: int = 0
    """Token id of unused places."""
    top_logprobs: int = 0
    """Largest `Request.top_logprobs`."""
    keep_hidden: bool = False
    """Completions carry the hidden state that each token was drawn from."""
    max_queue: int | None = None
    """Sequences that may wait for a slot; `submit` refuses more with `QueueFull`. None: no limit."""

    def validate(self) -> None:
        """Raises UserError with the fix where sizes cannot work."""
        for field in (
            "slots",
            "max_length",
            "max_new_tokens",
            "decode_steps",
            "prefill_tokens",
            "page_size",
            "max_stop_tokens",
        ):
            if getattr(self, field) < 1:
                raise UserError(f"engine.{field}={getattr(self, field)} must be at least 1.")
        if self.max_length < 2:
            raise UserError(f"engine.max_length={self.max_length} holds no prompt and new token. Use at least 2.")
        if self.layout not in get_args(Layout):
            raise UserError(f"engine.layout={self.layout!r} is none of {', '.join(get_args(Layout))}.")
        if self.top_logprobs < 0 or (self.max_queue is not None and self.max_queue < 0):
            raise UserError(
                f"engine.top_logprobs={self.top_logprobs} and max_queue={self.max_queue} must not be negative."
            )
        if len(self.stop_tokens) > self.max_stop_tokens:
            raise UserError(
                f"engine.stop_tokens has {len(self.stop_tokens)} tokens, but engine.max_stop_tokens={self.max_stop_tokens}. "
                f"Set max_stop_tokens={len(self.stop_tokens)}."
            )

    @property
    def capacity(self) -> int:
        """Places of a row in the cache: `max_length`, rounded up."""
        if self.layout == "paged":
            return _round_up(self.max_length, self.page_size)
        short = _round_up(self.max_length, 32)  # keys lie in blocks of 32 or 64
        return short if short <= 96 else _round_up(self.max_length, 64)

    @property
    def cache_lengths(self) -> tuple[int, ...]:
        """Lengths to which all rows of the cache are read at every step: as short as the longest of them allows.

        The slots layout has no more places than that, and grows when a row needs more.
        """
        unit = self.page_size if self.layout == "paged" else 1
        lengths = (_round_up(2 * _SHORTEST * 2**i, unit) for i in itertools.count())
        shorter = itertools.takewhile(lambda n: n < self.capacity, lengths)
        return (*shorter, self.capacity)

    @property
    def prefill_lengths(self) -> tuple[int, ...]:
        """Numbers of prompt tokens that are taken at once."""
        shorter = itertools.takewhile(lambda n: n < self.prefill_tokens, (_SHORTEST * 2**i for i in itertools.count()))
        return (*shorter, self.prefill_tokens)

    @property
    def max_pages(self) -> int:
        """Pages of the longest sequence."""
        return self.capacity // self.page_size

    def pages_within(self, bytes_of_page: int, slots: int, shards: int) -> int:
        """Pages of a shard, as many as `cache_bytes` allows and all slots can use; the first one belongs to nobody."""
        most = slots // shards * self.max_pages + 1
        if self.cache_bytes is None:
            return most
        fit = self.cache_bytes // (bytes_of_page * shards)
        least = self.max_pages + 1
        if fit < least:
            raise UserError(
                f"engine.cache_bytes={self.cache_bytes:,} is too little: one sequence of max_length={self.max_length} on each of "
                f"{shards} shard(s) takes {least * shards * bytes_of_page:,} bytes in pages of {self.page_size}. "
                f"Set cache_bytes={least * shards * bytes_of_page}, or a shorter max_length."
            )
        return min(most, fit)

    def slots_within(self, bytes_of: Callable[[int, int], int], shards: int) -> int:
        """Slots, as many as `cache_bytes` allows and a multiple of `shards`. `bytes_of(rows, places)` is the size of a cache."""
        slots = _round_up(self.slots, shards)
        if self.cache_bytes is None or self.layout == "paged":
            return slots
        each = bytes_of(1, self.capacity)
        fit = self.cache_bytes // (each * shards) * shards
        if fit < shards:
            raise UserError(
                f"engine.cache_bytes={self.cache_bytes:,} is too little: {shards} sequence(s) of max_length={self.max_length} "
                f"take {each * shards:,} bytes. Set cache_bytes={each * shards}, or a shorter max_length."
            )
        return min(slots, fit)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
