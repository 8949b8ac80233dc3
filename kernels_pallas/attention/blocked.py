"""Attention in blocks of queries, in plain XLA: never the whole [T, S] matrix, nothing of it kept for the backward pass.

Saved for the backward pass are the output and the log of the softmax's denominator, one number a query; the probabilities are
computed again (as in FlashAttention, arXiv:2205.14135). Blocks are unrolled, so that each takes a static, causal slice of the
keys: half of the work of a full product, and a sliding window costs no more than the window.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from framework.products import einsum32
from kernels_pallas.attention.reference import HIDDEN, visible

__all__ = ["attention"]

BLOCK = 128  # queries at a time; their scores against a few hundred keys stay in the cache of a core
MOST_BLOCKS = 16  # unrolled: more would only slow the compiler down


class _Block(NamedTuple):
    start: int
    stop: int  # queries start..stop
    first: int  # keys first..stop


def _blocks(length: int, window: int | None, block: int) -> Iterator[_Block]:
    block = max(block, -(-length // MOST_BLOCKS))
    for start in range(0, length, block):
        first = 0 if window is None else max(0, start - window + 1)
        yield _Block(start, min(start + block, length), first)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    window: int | None,
    block: int = BLOCK,
) -> jax.Array:
    """q [B, T, H, h]; k, v [B, T, K, h]; segment_ids [B, T] -> [B, T, H, h]. See `reference.attention`."""
    batch, length, heads, size = q.shape
    kv_heads = k.shape[2]
    # One matrix product for each row of the batch and key/value head: the query heads that share a key head are its rows.
    grouped = q.reshape(batch, length, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)  # [B, K, R, T, h]
    keys, values = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)  # [B, K, S, h]
    out: jax.Array = _attention(grouped, keys, values, segment_ids, window, block)  # pyright: ignore[reportAssignmentType]
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def _scores(q: jax.Array, k: jax.Array, segment_ids: jax.Array | None, window: int | None, part: _Block) -> jax.Array:
    """Scaled and masked scores of a block, [B, K, R, Q, S] float32. q [B, K, R, T, h]; k [B, K, S, h]."""
    rows, keys = q[:, :, :, part.start : part.stop], k[:, :, part.first : part.stop]
    scores = einsum32("bkrqh,bksh->bkrqs", rows, keys) * q.shape[-1] ** -0.5
    one = jnp.ones((1, q.shape[3]), jnp.int32) if segment_ids is None else segment_ids
    places = (jnp.arange(part.start, part.stop), jnp.arange(part.first, part.stop))
    mask = visible(one[:, part.start : part.stop], one[:, part.first : part.stop], *places, window)
    return jnp.where(mask[:, None, None], scores, HIDDEN)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q, k, v, segment_ids, window, block):
    return _forward(q, k, v, segment_ids, window, block)[0]


def _forward(q, k, v, segment_ids, window, block):
    outs, logs = [], []
    for part in _blocks(q.shape[3], window, block):
        scores = _scores(q, k, segment_ids, window, part)
        top = jnp.max(scores, axis=-1, keepdims=True)
        e = jnp.exp(scores - top)
        total = jnp.sum(e, axis=-1, keepdims=True)
        out = jnp.einsum("bkrqs,bksh->bkrqh", e.astype(v.dtype), v[:, :, part.first : part.stop])
        outs.append((out / total).astype(v.dtype))
        logs.append(top + jnp.log(total))
    # Named, so that a rematerialisation policy can keep them.
    out = checkpoint_name(jnp.concatenate(outs, axis=3), "attention")
    log_total = checkpoint_name(jnp.concatenate(logs, axis=3), "attention")
    return out, (q, k, v, segment_ids, out, log_total)


def _backward(window, block, saved, g):
    q, k, v, segment_ids, out, log_total = saved
    # sum_s p_s dp_s of a query, without the p: it is g . out (FlashAttention, algorithm 4).
    mean = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), axis=-1, keepdims=True)
    # [B, K, h, S] inside: a product that turns the narrow [Q, h] operand round, and not the wide [Q, S] one.
    dq: list[jax.Array] = []
    dk, dv = (jnp.zeros(x.swapaxes(2, 3).shape, jnp.float32) for x in (k, v))
    for part in _blocks(q.shape[3], window, block):
        start, stop, first = part
        rows, keys = (slice(None),) * 3 + (slice(start, stop),), (slice(None),) * 2 + (slice(first, stop),)
        p = jnp.exp(_scores(q, k, segment_ids, window, part) - log_total[rows])
        dp = einsum32("bkrqh,bksh->bkrqs", g[rows], v[keys])
        ds = (p * (dp - mean[rows]) * q.shape[-1] ** -0.5).astype(q.dtype)
        p = p.astype(v.dtype)
        dq.append(jnp.einsum("bkrqs,bksh->bkrqh", ds, k[keys]))
        part_dk = einsum32("bkrqh,bkrqs->bkhs", q[rows], ds)
        part_dv = einsum32("bkrqh,bkrqs->bkhs", g[rows], p)
        dk, dv = dk.at[..., first:stop].add(part_dk), dv.at[..., first:stop].add(part_dv)
    dk, dv = dk.swapaxes(2, 3).astype(k.dtype), dv.swapaxes(2, 3).astype(v.dtype)
    return jnp.concatenate(dq, axis=3), dk, dv, None


_attention.defvjp(_forward, _backward)
