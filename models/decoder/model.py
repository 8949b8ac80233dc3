"""The decoder: one module for training, prefill and cached decoding, so that what the sampler says is what the trainer sees."""

import jax
import jax.numpy as jnp
from flax import nnx

from models.decoder.cache import Cache
from models.decoder.config import DecoderConfig
from models.decoder.layers import MLP, Attention, RMSNorm, rope_tables

__all__ = ["Block", "Decoder"]


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.dim, config.norm_eps, "embed")
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps, "embed")
        self.mlp = MLP(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        mask: jax.Array,
        cached: tuple[jax.Array, jax.Array, jax.Array] | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """x [B, T, D] -> (x [B, T, D], (keys, values))."""
        mixed, kv = self.attention(self.attention_norm(x), rope, mask, cached)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), kv


class Decoder(nnx.Module):
    """A decoder-only transformer. See `DecoderConfig` for what it can be."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        table = jax.random.normal(rngs.params(), (config.vocab_size, config.dim), jnp.float32) * 0.02
        self.embedding = nnx.Param(table, logical=("vocab", "embed"))
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.layers)])
        self.norm = RMSNorm(config.dim, config.norm_eps, "embed")
        if not config.tied:
            head = jax.random.normal(rngs.params(), (config.dim, config.vocab_size), jnp.float32) * 0.02
            self.head = nnx.Param(head, logical=("embed", "vocab"))

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states after the last norm.

        Args:
            tokens: [B, T] int32.
            positions: [B, T] int32, the rotary position of each token in its own sequence.
            segment_ids: [B, T] int32; 0 is padding, tokens see only earlier tokens of their own segment. None: no padding.
            cache: filled slots are seen by every new token; the T new tokens are written at `cache.index`.
                With a cache, segment ids only tell padding (0) from tokens (not 0).

        Returns:
            hidden [B, T, D] and the cache after the write (None if none was given).
        """
        dtype = self.config.compute_dtype
        mask, valid = _masks(tokens, segment_ids, cache)
        rope = rope_tables(positions, self.config.head_dim, self.config.rope_theta)
        x = self.embedding[...].astype(dtype)[tokens]
        keys: list[jax.Array] = []
        values: list[jax.Array] = []
        for i, block in enumerate(self.blocks):
            cached = None if cache is None else (cache.keys[i], cache.values[i], cache.index)
            run = nnx.remat(Block.__call__) if self.config.remat and cache is None else Block.__call__
            x, (k, v) = run(block, x, rope, mask, cached)
            keys.append(k)
            values.append(v)
        hidden = self.norm(x)
        if cache is None:
            return hidden, None
        return hidden, Cache(tuple(keys), tuple(values), valid, cache.index + tokens.shape[1])

    def init_cache(self, rows: int, slots: int) -> Cache:
        """An empty cache for `rows` sequences of at most `slots` tokens."""
        return Cache.create(self.config, rows, slots)

    @property
    def unembed(self) -> jax.Array:
        """The output matrix [D, V], float32."""
        return self.embedding[...].T if self.config.tied else self.head[...]


def _masks(tokens: jax.Array, segment_ids: jax.Array | None, cache: Cache | None) -> tuple[jax.Array, jax.Array]:
    """Which key each query may see [B, T, S], and which slots hold tokens after this call [B, S]."""
    batch, length = tokens.shape
    segments = jnp.ones((batch, length), jnp.int32) if segment_ids is None else segment_ids
    real = segments != 0
    if cache is None:
        causal = jnp.tril(jnp.ones((length, length), bool))
        same = segments[:, :, None] == segments[:, None, :]
        return causal & same & real[:, None, :], real
    valid = jax.lax.dynamic_update_slice(cache.valid, real, (0, cache.index))
    slots, rows = jnp.arange(valid.shape[1]), cache.index + jnp.arange(length)
    return valid[:, None, :] & (slots[None, None, :] <= rows[None, :, None]), valid
