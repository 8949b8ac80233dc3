"""The compiled calls of the engine: prefill of many prompts at once, and up to K decode steps without the host.

B rows of the cache, R batch shards, N tokens of a flat prefill, K steps of a call, V tokens, D model width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from framework.inference.sampling import Sampling, draw, row_keys
from framework.inference.types import Ask, LanguageModel
from framework.products import einsum32

__all__ = ["ENDED", "Decoded", "Rows", "decode", "extend", "prefill", "score"]

ENDED = ("running", "stop", "length", "error")  # what the numbers in `Decoded.ended` mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """What the host says of each row; all [B, ...]. A row has its cache filled below `place`."""

    live: jax.Array  # bool
    token: jax.Array  # int32, the next input, not in the cache yet
    place: jax.Array  # int32, its position
    count: jax.Array  # int32, tokens generated so far
    limit: jax.Array  # int32, ends when count reaches it
    base: jax.Array  # [B, 2] uint32, key of the caller
    request: jax.Array  # uint32
    sample: jax.Array  # uint32
    sampling: Sampling
    stops: jax.Array  # [B, n] int32, tokens that end the row; -1 is none
    watch: jax.Array  # int32, line of the watch table: tokens after which the host wants to look
    top: jax.Array  # bool, wants the most likely tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoded:
    """Of one call; places of a row after its `length` are 0."""

    tokens: jax.Array  # [B, K] int32
    logp: jax.Array  # [B, K] float32
    logp_untempered: jax.Array  # [B, K] float32
    entropy: jax.Array  # [B, K] float32
    top_tokens: jax.Array  # [B, K, k] int32
    top_logp: jax.Array  # [B, K, k] float32
    hidden: jax.Array  # [B, K, D or 0]
    length: jax.Array  # [B] int32, new tokens
    ended: jax.Array  # [B] int32, see ENDED
    asked: jax.Array  # [B] bool, `ask` wants the host
    steps: jax.Array  # [] int32
    live_steps: jax.Array  # [] int32, sum of the rows that were live over the steps


def prefill(graphdef: Any, params: Any, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> Any:
    """Keys and values of prompts that stand one after another in rows [R, N]; segment 0 is padding."""
    model: LanguageModel = nnx.merge(graphdef, params)
    _, fresh = model(tokens, positions, segments, model.fresh_cache(segments))
    return fresh


def extend(graphdef: Any, params: Any, cache: Any, rows: jax.Array, tokens: jax.Array, positions: jax.Array) -> Any:
    """Add tokens [R, N] to one row of each shard; rows [R], -1: none of this shard. Position -1 is padding."""
    model: LanguageModel = nnx.merge(graphdef, params)
    real = (positions >= 0) & (rows >= 0)[:, None]
    _, part = model(tokens, jnp.maximum(positions, 0), real.astype(jnp.int32), cache.take(jnp.maximum(rows, 0)))
    return cache.put(rows, part)


def decode(
    graphdef: Any,
    params: Any,
    cache: Any,
    rows: Rows,
    watch: jax.Array,
    enough: jax.Array,
    *,
    steps: int,
    top: int = 0,
    keep_hidden: bool = False,
    ask: Ask | None = None,
) -> tuple[Any, Decoded]:
    """At most `steps` tokens for every live row.

    Comes back early when no row is live, when `enough` rows have ended (the host has others to put in their place), or when
    one asks for the host: it drew a token of its line of `watch` [W, V], or `ask` says so.
    """
    model: LanguageModel = nnx.merge(graphdef, params)
    unembed = model.unembed
    batch, width = rows.live.shape[0], unembed.shape[0]
    keys = row_keys(rows.base, rows.request, rows.sample)

    def more(carry: tuple[Any, ...]) -> jax.Array:
        t, live, _, wanted, *_ = carry
        ended = jnp.sum(rows.live & ~live)
        return (t < steps) & jnp.any(live) & (ended < enough) & ~wanted

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        t, live, token, _, count, cache, out = carry
        place = rows.place + (count - rows.count)
        hidden, cache = model(token[:, None], place[:, None], live[:, None].astype(jnp.int32), cache)
        hidden = hidden[:, 0]
        logits = einsum32("bd,dv->bv", hidden, unembed.astype(hidden.dtype))
        drawn = draw(keys, count, logits, rows.sampling, rows.stops)
        good = live & drawn.finite
        token = jnp.where(good, drawn.token, token)
        count = count + good
        stop = good & jnp.any(token[:, None] == rows.stops, axis=1)
        end = jnp.where(live & ~drawn.finite, 3, jnp.where(stop, 1, jnp.where(good & (count >= rows.limit), 2, 0)))
        asked = jnp.zeros_like(live) if ask is None else good & ask(hidden, logits, token)
        wanted = jnp.any(asked | good & watch[rows.watch, token])

        def put(array: jax.Array, value: jax.Array) -> jax.Array:
            kept = jnp.where(good.reshape(-1, *(1,) * (value.ndim - 1)), value, 0)
            return jax.lax.dynamic_update_slice_in_dim(array, kept[:, None].astype(array.dtype), t, axis=1)

        if top:
            given = jax.lax.cond(
                jnp.any(rows.top), lambda x: tuple(jax.lax.top_k(x, top)), lambda x: _no_top(x, top), logits
            )
            top_logp, top_tokens = given[0] - drawn.logz[:, None], given[1]
        else:
            top_logp, top_tokens = _no_top(logits, 0)
        out = Decoded(
            put(out.tokens, token),
            put(out.logp, drawn.logp),
            put(out.logp_untempered, drawn.logp_untempered),
            put(out.entropy, drawn.entropy),
            put(out.top_tokens, top_tokens),
            put(out.top_logp, top_logp),
            put(out.hidden, hidden) if keep_hidden else out.hidden,
            out.length + good,
            jnp.where(live, end, out.ended),
            asked,
            t + 1,
            out.live_steps + jnp.sum(live, dtype=jnp.int32),
        )
        return t + 1, live & (end == 0), token, wanted, count, cache, out

    wide = lambda dtype, *more: jnp.zeros((batch, steps, *more), dtype)  # noqa: E731
    floats, zero = jnp.float32, jnp.zeros((), jnp.int32)
    hidden = wide(unembed.dtype, width) if keep_hidden else wide(floats, 0)
    empty = Decoded(
        *(wide(jnp.int32), wide(floats), wide(floats), wide(floats), wide(jnp.int32, top), wide(floats, top), hidden),
        *(jnp.zeros(batch, jnp.int32), jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool), zero, zero),
    )
    start = (zero, rows.live, rows.token, jnp.array(False), rows.count, cache, empty)
    carry = jax.lax.while_loop(more, step, start)
    return carry[-2], carry[-1]


def _no_top(logits: jax.Array, top: int) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((logits.shape[0], top), logits.dtype), jnp.zeros((logits.shape[0], top), jnp.int32)


def score(
    graphdef: Any, params: Any, tokens: jax.Array, segments: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy [B, T] of the token that follows each; the last column means nothing."""
    model: LanguageModel = nnx.merge(graphdef, params)
    positions = jnp.maximum(jnp.cumsum(segments, axis=1) - 1, 0)
    hidden, _ = model(tokens, positions, segments)
    return model.logprobs(hidden, jnp.roll(tokens, -1, axis=1), temperature)  # pyright: ignore[reportArgumentType]
