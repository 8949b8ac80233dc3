"""The key/value cache: one pair of arrays a layer, written in place, one write position for all rows."""

import dataclasses

import jax
import jax.numpy as jnp

from models.decoder.config import DecoderConfig

__all__ = ["Cache"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens seen so far, right-aligned: every row writes at the same `index`.

    Rows of different length are padded on the left; `valid` marks the slots that hold a real token. Separate arrays a layer let
    the compiler update each in place inside a decode loop, where one stacked array would be copied at every step.
    """

    keys: tuple[jax.Array, ...]  # layers x [B, Hkv, S, h]
    values: tuple[jax.Array, ...]  # layers x [B, Hkv, S, h]
    valid: jax.Array  # [B, S] bool
    index: jax.Array  # [] int32, the next slot to write

    @classmethod
    def create(cls, config: DecoderConfig, rows: int, slots: int) -> "Cache":
        """An empty cache for `rows` sequences of at most `slots` tokens."""
        shape = (rows, config.kv_heads, slots, config.head_dim)
        empty = tuple(jnp.zeros(shape, config.compute_dtype) for _ in range(config.layers))
        return cls(empty, empty, jnp.zeros((rows, slots), bool), jnp.zeros((), jnp.int32))

    def repeat(self, samples: int) -> "Cache":
        """Give each row to `samples` neighbours: the shared prompt of a group."""
        keys, values = (tuple(jnp.repeat(x, samples, axis=0) for x in xs) for xs in (self.keys, self.values))
        return Cache(keys, values, jnp.repeat(self.valid, samples, axis=0), self.index)

    def grow(self, slots: int) -> "Cache":
        """Append `slots` empty slots."""
        wide = ((0, 0), (0, 0), (0, slots), (0, 0))
        keys, values = (tuple(jnp.pad(x, wide) for x in xs) for xs in (self.keys, self.values))
        return Cache(keys, values, jnp.pad(self.valid, ((0, 0), (0, slots))), self.index)
