"""Keys and values of the tokens seen so far. A slot of a row is the position of its token: rows of any age stand side by side.

Letters: B rows, T new tokens, S slots, K key/value heads, H query heads, h head dimension, R batch shards, N tokens of a flat
prefill.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Protocol, Self

import jax
import jax.numpy as jnp

from framework.mesh import constrain, platform
from framework.products import einsum32
from kernels_pallas.attention import ContextImpl, attention
from kernels_pallas.attention import Impl as AttentionImpl
from models.decoder.config import DecoderConfig

__all__ = ["FreshCache", "KVCache", "SlotCache", "attend"]


class KVCache(Protocol):
    """What attention asks of a cache."""

    def attend(
        self, layer: int, q: jax.Array, k: jax.Array, v: jax.Array, places: jax.Array, window: int | None
    ) -> tuple[jax.Array, Self]:
        """Write the new keys and values, then look at everything up to each query's place.

        Args:
            layer: counted from 0.
            q: [B, T, H, h]; k, v: [B, T, K, h].
            places: [B, T] int32, the position of each new token; -1 is padding, which is not written.
            window: a query at place p sees places above p - window; None: all up to p.

        Returns:
            out [B, T, H, h], finite garbage for padding, and the cache after the write.
        """
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlotCache:
    """S slots for each of B rows.

    Keys lie in blocks of n slots, transposed, so that a CPU reads one piece of memory after the other and finds the numbers that
    it multiplies side by side (`benchmarks/decode_bound.py` times a step). Separate arrays a layer let the compiler update each
    in place inside a decode loop, where one stacked array would be copied at every step.
    """

    keys: tuple[jax.Array, ...]  # layers x [B, K, S / n, h, n]
    values: tuple[jax.Array, ...]  # layers x [B, K, S, h]

    @classmethod
    def create(cls, config: DecoderConfig, rows: int, slots: int) -> "SlotCache":
        """An empty cache for `rows` sequences of at most `slots` tokens."""

        def zeros(*shape: int) -> jax.Array:
            empty = jnp.zeros((rows, config.kv_heads, *shape), config.compute_dtype)
            return constrain(empty, "batch", "kv_heads", *(None for _ in shape))

        size, layers = config.head_dim, range(config.layers)
        block = math.gcd(slots, 64)
        keys = tuple(zeros(slots // block, size, block) for _ in layers)
        return cls(keys, tuple(zeros(slots, size) for _ in layers))

    @property
    def slots(self) -> int:
        """S."""
        return self.values[0].shape[2]

    def attend(
        self, layer: int, q: jax.Array, k: jax.Array, v: jax.Array, places: jax.Array, window: int | None
    ) -> tuple[jax.Array, "SlotCache"]:
        """See `KVCache.attend`."""
        at, v = jnp.where(places < 0, self.slots, places), finite_values(v)  # out of bounds is dropped
        n = self.keys[layer].shape[-1]
        put_key = jax.vmap(lambda row, p, new: row.at[:, p // n, :, p % n].set(new, mode="drop"))
        put_value = jax.vmap(lambda row, p, new: row.at[:, p].set(new, mode="drop"))
        keys = put_key(self.keys[layer], at, k.astype(self.keys[layer].dtype))
        values = put_value(self.values[layer], at, v.transpose(0, 2, 1, 3).astype(self.values[layer].dtype))
        slot = jnp.arange(self.slots)
        mask = slot <= places[..., None]
        if window is not None:
            mask &= slot > places[..., None] - window
        return attend(q, keys, values, mask), self._with(layer, keys, values)

    def _with(self, layer: int, keys: jax.Array, values: jax.Array) -> "SlotCache":
        swap = lambda old, new: (*old[:layer], new, *old[layer + 1 :])  # noqa: E731 - the same for both
        return SlotCache(swap(self.keys, keys), swap(self.values, values))

    def insert(self, fresh: "FreshCache", rows: jax.Array, places: jax.Array) -> "SlotCache":
        """Write the tokens of a flat prefill [R, N] to their rows (within the shard; -1: nowhere) and places."""
        shards = rows.shape[0]
        at = jnp.where(rows < 0, self.values[0].shape[0] // shards, rows)

        def put(
            caches: tuple[jax.Array, ...], new: tuple[jax.Array, ...], write: Callable[..., jax.Array]
        ) -> tuple[jax.Array, ...]:
            by_shard = functools.partial(_over_shards, shards)
            return tuple(by_shard(write, c, at, places, x.astype(c.dtype)) for c, x in zip(caches, new, strict=True))

        n = self.keys[0].shape[-1]
        return SlotCache(
            put(self.keys, fresh.keys, lambda c, r, p, x: c.at[r, :, p // n, :, p % n].set(x, mode="drop")),
            put(self.values, fresh.values, lambda c, r, p, x: c.at[r, :, p].set(x, mode="drop")),
        )

    def copy(self, source: jax.Array, target: jax.Array) -> "SlotCache":
        """Give rows `target` what rows `source` hold; both [R, J], within the shard, target -1: unused."""
        shards = source.shape[0]
        at = jnp.where(target < 0, self.values[0].shape[0] // shards, target)
        move = lambda c, s, t: c.at[t].set(c[s], mode="drop")  # noqa: E731 - one expression for keys and values
        return jax.tree.map(lambda c: _over_shards(shards, move, c, source, at), self)

    def take(self, rows: jax.Array) -> "SlotCache":
        """The cache of one row of each shard, [R] -> R rows."""
        pick = lambda c, r: jax.lax.dynamic_index_in_dim(c, r, keepdims=False)  # noqa: E731
        shards = rows.shape[0]
        return jax.tree.map(lambda c: jax.vmap(pick)(c.reshape(shards, -1, *c.shape[1:]), rows), self)

    def put(self, rows: jax.Array, part: "SlotCache") -> "SlotCache":
        """The reverse of `take`: write R rows back; row -1: nowhere."""
        shards = rows.shape[0]
        at = jnp.where(rows < 0, self.values[0].shape[0] // shards, rows)
        write = lambda c, r, x: c.at[r].set(x, mode="drop")  # noqa: E731
        return jax.tree.map(lambda c, x: _over_shards(shards, write, c, at, x), self, part)

    def resize(self, slots: int) -> "SlotCache":
        """More slots a row, or only the first ones; whole blocks of keys."""
        keys = tuple(_resized(x, 2, slots // x.shape[-1]) for x in self.keys)
        return SlotCache(keys, tuple(_resized(x, 2, slots) for x in self.values))


def _over_shards(shards: int, function: Callable[..., jax.Array], cache: jax.Array, *args: jax.Array) -> jax.Array:
    """`function(rows of a shard, arguments of the shard)` for each shard: nothing crosses from one device to another."""
    return jax.vmap(function)(cache.reshape(shards, -1, *cache.shape[1:]), *args).reshape(cache.shape)


def _resized(x: jax.Array, axis: int, size: int) -> jax.Array:
    if size <= x.shape[axis]:
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)
    wide = [(0, size - x.shape[axis] if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, wide)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FreshCache:
    """Of a prefill without a past: attends as training does, several prompts a row told apart by segment, and keeps what it saw."""

    keys: tuple[jax.Array, ...]  # layers so far x [R, N, K, h]
    values: tuple[jax.Array, ...]
    segments: jax.Array  # [R, N] int32, 0 is padding
    impl: AttentionImpl = dataclasses.field(default="auto", metadata={"static": True})
    context_impl: ContextImpl = dataclasses.field(default="gathered", metadata={"static": True})

    def attend(
        self, layer: int, q: jax.Array, k: jax.Array, v: jax.Array, places: jax.Array, window: int | None
    ) -> tuple[jax.Array, "FreshCache"]:
        """See `KVCache.attend`; a query sees earlier tokens of its own segment."""
        del layer, places  # layers come in order, and segments are in order of place
        v = finite_values(v)
        out = attention(q, k, v, self.segments, window=window, impl=self.impl, context_impl=self.context_impl)
        return out, dataclasses.replace(self, keys=(*self.keys, k), values=(*self.values, v))


def finite_values(v: jax.Array) -> jax.Array:
    """Zeros for NaN and infinite values: a sequence that goes wrong must not reach others, and 0 x NaN is NaN.

    Who looks at a masked slot multiplies its value by zero: neighbours in a flat prefill, and whoever gets the slot next. Its keys
    stay as they are. They make the sequence's own scores NaN, so that it is found out.
    """
    return jnp.where(jnp.isfinite(v), v, 0)


def attend(q: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention over a cache. q [B, T, H, h]; keys [B, K, S / n, h, n]; values [B, K, S, h]; mask [B, T, S] -> [B, T, H, h].

    The R query heads of a key/value head become rows of one matrix product. Softmax in float32. A query that may look at
    nothing (padding) gets an even average of the values: finite, and masked by whoever reads it.
    """
    batch, length, heads, size = q.shape
    kv_heads = keys.shape[1]
    rows = q.reshape(batch, length, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)  # [B, K, R, T, h]
    if length == 1 and platform() == "cpu":
        # A product and a sum, which the compiler makes one loop over each block; a batched product of so few rows is slower.
        one = rows.reshape(*rows.shape[:3], 1, size, 1).astype(jnp.float32) * size**-0.5  # [B, K, R, 1, h, 1]
        scores = jnp.sum(one * keys[:, :, None].astype(jnp.float32), axis=-2)
    else:
        scores = einsum32("bkrth,bknhs->bkrtns", rows, keys) * size**-0.5
    scores = scores.reshape(*rows.shape[:4], -1)
    scores = jnp.where(mask[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    out = jnp.einsum("bkrts,bksh->bkrth", weights, values)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)
