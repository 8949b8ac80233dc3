"""Prefill once a prompt, then decode a whole group in one compiled loop: no host round trip a token, cache updated in place."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from framework.inference.sampling import row_keys, sample_tokens
from framework.inference.types import LanguageModel
from framework.products import einsum32

__all__ = ["DecodeBatch", "Decoded", "decode"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeBatch:
    """P prompts padded on the left to L tokens, and what differs between them."""

    prompts: jax.Array  # [P, L] int32
    segments: jax.Array  # [P, L] int32, 1 on tokens, 0 on padding
    request_ids: jax.Array  # [P] uint32
    sample_offset: jax.Array  # [P] uint32, number of the first sample
    temperature: jax.Array  # [P] float32
    max_tokens: jax.Array  # [P] int32, 0 for an unused row


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoded:
    """R = P * samples rows of at most N new tokens; places after `length` are padding."""

    tokens: jax.Array  # [R, N] int32
    logp: jax.Array  # [R, N] float32
    entropy: jax.Array  # [R, N] float32
    length: jax.Array  # [R] int32
    stopped: jax.Array  # [R] bool, ended by a stop token
    finite: jax.Array  # [] bool, no logit of a live row was NaN or infinite


def decode(
    graphdef: Any,
    params: Any,
    batch: DecodeBatch,
    key: jax.Array,
    *,
    samples: int,
    new_tokens: int,
    stop_tokens: tuple[int, ...],
    pad_token: int,
) -> Decoded:
    """Continue each prompt `samples` times by at most `new_tokens` tokens; ends early when every row has ended."""
    model: LanguageModel = nnx.merge(graphdef, params)
    prompts, length = batch.prompts.shape
    positions = jnp.maximum(jnp.cumsum(batch.segments, axis=1) - 1, 0)
    hidden, cache = model(batch.prompts, positions, batch.segments, model.init_cache(prompts, length))
    unembed = model.unembed

    def logits_of(last: jax.Array) -> jax.Array:
        return einsum32("bd,dv->bv", last, unembed.astype(last.dtype))

    rows = prompts * samples
    spread = lambda x: jnp.repeat(x, samples, axis=0)  # noqa: E731 - a name for one argument
    sample = spread(batch.sample_offset) + jnp.tile(jnp.arange(samples, dtype=jnp.uint32), prompts)
    keys = row_keys(key, spread(batch.request_ids), sample)
    temperature, limit = spread(batch.temperature), spread(batch.max_tokens)
    next_position = spread(positions[:, -1]) + 1
    stops = jnp.array(stop_tokens, jnp.int32)

    def more(carry: tuple[Any, ...]) -> jax.Array:
        t, _, _, done, *_ = carry
        return (t < new_tokens) & ~jnp.all(done)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        t, logits, cache, done, out = carry
        token, logp, entropy = sample_tokens(keys, t, logits, temperature)
        live = ~done
        finite = out.finite & jnp.all(jnp.isfinite(logits) | done[:, None])
        token = jnp.where(live, token, pad_token)
        stop = live & jnp.any(token[:, None] == stops, axis=1)
        put = lambda array, value: jax.lax.dynamic_update_slice(array, value[:, None], (0, t))  # noqa: E731
        out = Decoded(
            put(out.tokens, token),
            put(out.logp, jnp.where(live, logp, 0.0)),
            put(out.entropy, jnp.where(live, entropy, 0.0)),
            out.length + live,
            out.stopped | stop,
            finite,
        )
        done = done | stop | (t + 1 >= limit)
        hidden, cache = model(token[:, None], (next_position + t)[:, None], live[:, None].astype(jnp.int32), cache)
        return t + 1, logits_of(hidden[:, 0]), cache, done, out

    empty = Decoded(
        jnp.full((rows, new_tokens), pad_token, jnp.int32),
        jnp.zeros((rows, new_tokens), jnp.float32),
        jnp.zeros((rows, new_tokens), jnp.float32),
        jnp.zeros((rows,), jnp.int32),
        jnp.zeros((rows,), bool),
        jnp.array(True),
    )
    first = spread(logits_of(hidden[:, -1]))
    start = (jnp.zeros((), jnp.int32), first, cache.repeat(samples).grow(new_tokens), limit <= 0, empty)
    return jax.lax.while_loop(more, step, start)[-1]
