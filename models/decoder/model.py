"""The decoder: one module for training, prefill and cached decoding, so that what the sampler says is what the trainer sees."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from framework.mesh import constrain
from kernels_pallas.logprob import token_logprobs
from models.decoder.cache import FreshCache, KVCache, SlotCache
from models.decoder.config import DecoderConfig
from models.decoder.layers import MLP, Attention, Cached, RMSNorm
from models.decoder.paged import PagedCache
from models.decoder.rope import rope_tables
from models.lookup import lookup

__all__ = ["Block", "Decoder"]

Rope = tuple[jax.Array, jax.Array]

_POLICIES: dict[str, Callable[..., bool] | None] = {
    "full": None,
    # Attention is no matrix product of the kind kept here: its output is kept by name (see kernels_pallas.attention).
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names("attention"),
    ),
}


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, window: int | None):
        dtype = config.param_dtype
        self.attention_norm = RMSNorm(config.dim, config.norm_eps, "embed", dtype)
        self.attention = Attention(config, rngs, window)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps, "embed", dtype)
        self.mlp = MLP(config, rngs)

    def __call__(
        self, x: jax.Array, rope: Rope, segment_ids: jax.Array | None, cached: Cached | None
    ) -> tuple[jax.Array, KVCache | None]:
        """x [B, T, D] -> (x [B, T, D], the cache after the write if there is one)."""
        mixed, cache = self.attention(self.attention_norm(x), rope, segment_ids, cached)
        x = x + mixed
        x = x + self.mlp(self.mlp_norm(x))
        return constrain(x, "batch", "length" if cached is None else None, None), cache


class Decoder(nnx.Module):
    """A decoder-only transformer. See `DecoderConfig` for what it can be.

    `blocks` is a list of blocks or, with `scan`, one block whose arrays have a leading layer axis.
    """

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        dtype = config.param_dtype
        table = jax.random.normal(rngs.params(), (config.vocab_size, config.dim), jnp.float32) * 0.02
        self.embedding = nnx.Param(table.astype(dtype), logical=("vocab", "embed"))
        if config.scan:
            self.blocks: Any = _stacked(config, rngs)
        else:
            self.blocks = nnx.List([Block(config, rngs, config.window(i)) for i in range(config.layers)])
        self.norm = RMSNorm(config.dim, config.norm_eps, "embed", dtype)
        if not config.tied:
            head = jax.random.normal(rngs.params(), (config.dim, config.vocab_size), jnp.float32) * 0.02
            self.head = nnx.Param(head.astype(dtype), logical=("embed", "vocab"))

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        cache: KVCache | None = None,
    ) -> tuple[jax.Array, Any]:
        """Hidden states after the last norm.

        Args:
            tokens: [B, T] int32.
            positions: [B, T] int32, the rotary position of each token in its own sequence.
            segment_ids: [B, T] int32; 0 is padding, tokens see only earlier tokens of their own segment. None: no padding.
            cache: earlier tokens, which every new token sees up to its own position; the new ones are added to it. With a
                cache, segment ids only tell padding (0) from tokens (not 0), unless it is a `FreshCache`.

        Returns:
            hidden [B, T, D] and the cache after the write (None if none was given).
        """
        rope = rope_tables(positions, self.config.head_dim, self.config.rope_theta, self.config.rope_scaling)
        if cache is not None:
            places = positions if segment_ids is None else jnp.where(segment_ids != 0, positions, -1)
            x = lookup(self.embedding[...], tokens, self.config.compute_dtype, along=None)
            return self._decode(x, rope, places, cache)
        x = lookup(self.embedding[...], tokens, self.config.compute_dtype)
        if self.config.scan:
            x = self._scan(x, rope, segment_ids)
        else:
            for block in self.blocks:
                graphdef, state = nnx.split(block)
                x = self._rematerialised(graphdef)(state, x, rope, segment_ids)
        return self.norm(x), None

    def _rematerialised(self, graphdef: Any) -> Callable[..., jax.Array]:
        """A block as a function of its arrays, which keeps for the backward pass what `config.remat` says."""

        def run(state: Any, x: jax.Array, rope: Rope, segment_ids: jax.Array | None) -> jax.Array:
            return nnx.merge(graphdef, state)(x, rope, segment_ids, None)[0]

        remat = self.config.remat
        return run if remat == "none" else jax.checkpoint(run, policy=_POLICIES[remat])

    def _scan(self, x: jax.Array, rope: Rope, segment_ids: jax.Array | None) -> jax.Array:
        graphdef, state = nnx.split(self.blocks)
        run = self._rematerialised(graphdef)
        return jax.lax.scan(lambda x, layer: (run(layer, x, rope, segment_ids), None), x, state)[0]

    def _decode(self, x: jax.Array, rope: Rope, places: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        """Layers unrolled also when they are stacked: a scan that carries the cache would copy it at every step."""
        for i, block in enumerate(self._each_block()):
            x, cache = block(x, rope, None, (cache, i, places))
        return self.norm(x), cache

    def _each_block(self) -> Iterator[Any]:
        if not self.config.scan:
            yield from self.blocks
            return
        graphdef, state = nnx.split(self.blocks)
        for i in range(self.config.layers):
            yield nnx.merge(graphdef, jax.tree.map(lambda stacked, i=i: stacked[i], state))

    def init_cache(self, rows: int, slots: int) -> SlotCache:
        """An empty cache for `rows` sequences of at most `slots` tokens."""
        return SlotCache.create(self.config, rows, slots)

    def init_paged(self, rows: int, *, pages: int, page: int, max_pages: int, shards: int = 1) -> PagedCache:
        """An empty cache in pages of `page` tokens, `pages` of them in each shard, at most `max_pages` a sequence."""
        return PagedCache.create(self.config, rows=rows, pages=pages, page=page, max_pages=max_pages, shards=shards)

    def fresh_cache(self, segment_ids: jax.Array) -> FreshCache:
        """For prompts without a past, several in a row [R, N]: attends as training does and keeps keys and values."""
        return FreshCache((), (), segment_ids, self.config.attention, self.config.context_impl)

    def logprobs(self, hidden: jax.Array, targets: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, jax.Array]:
        """Log-probability [B, T] of each target [B, T] and the entropy [B, T] in nats, see `kernels_pallas.logprob`."""
        return token_logprobs(hidden, self.unembed, targets, temperature)

    @property
    def unembed(self) -> jax.Array:
        """The output matrix [D, V], in `param_dtype`."""
        return self.embedding[...].T if self.config.tied else self.head[...]


def _stacked(config: DecoderConfig, rngs: nnx.Rngs) -> Block:
    """One block whose arrays hold all layers, [L, ...]."""

    @nnx.split_rngs(splits=config.layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs: nnx.Rngs) -> Block:
        return Block(config, rngs, config.window(0))

    blocks = make(rngs)
    for _, variable in nnx.iter_graph(blocks):
        if isinstance(variable, nnx.Param):
            variable.set_metadata(logical=("layers", *variable.get_metadata()["logical"]))
    return blocks
