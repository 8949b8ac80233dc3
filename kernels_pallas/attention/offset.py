"""Attention of some queries of a row to some of its keys, where both know their place in the row only at run time.

This is what a device does that holds a part of the row. The blocks of `kernels_pallas.attention.blocked` cannot be cut to the
causal half here, because one program runs on all parts; otherwise the method is the same. Every result comes with the log of
its softmax's denominator, so that the results over several sets of keys can be merged.

Letters: t queries, S keys, K key/value heads, R query heads of each, h head dimension.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from framework.products import einsum32
from kernels_pallas.attention.reference import HIDDEN, visible

__all__ = ["Keys", "Queries", "attend", "backward", "forward", "grouped", "ungrouped"]

BLOCK = 128  # queries at a time


class Queries(NamedTuple):
    """Some queries: their heads, segments and places in the row."""

    heads: jax.Array  # [B, K, R, t, h]
    segments: jax.Array  # [B, t]
    places: jax.Array  # [t]


class Keys(NamedTuple):
    """Some keys with their values."""

    keys: jax.Array  # [B, K, S, h]
    values: jax.Array  # [B, K, S, h]
    segments: jax.Array  # [B, S]
    places: jax.Array  # [S]


def grouped(x: jax.Array, kv_heads: int) -> jax.Array:
    """[B, t, H, h] -> [B, K, R, t, h]: the query heads that share a key head stand together."""
    batch, length, heads, size = x.shape
    return x.reshape(batch, length, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)


def ungrouped(x: jax.Array) -> jax.Array:
    """[B, K, R, t, h] -> [B, t, H, h]."""
    batch, kv_heads, shared, length, size = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, length, kv_heads * shared, size)


def _scores(q: Queries, k: Keys, window: int | None) -> jax.Array:
    scores = einsum32("bkrqh,bksh->bkrqs", q.heads, k.keys)
    mask = visible(q.segments, k.segments, q.places, k.places, window)
    return jnp.where(mask[:, None, None], scores * q.heads.shape[-1] ** -0.5, HIDDEN)


def _to_blocks(x: jax.Array, axis: int, block: int) -> jax.Array:
    """Cut `axis` into blocks, in front; the last is filled with zeros (segment 0: padding)."""
    length = x.shape[axis]
    count = -(-length // block)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, count * block - length)
    cut = jnp.pad(x, widths).reshape(*x.shape[:axis], count, block, *x.shape[axis + 1 :])
    return jnp.moveaxis(cut, axis, 0)


def _from_blocks(x: jax.Array, axis: int, length: int) -> jax.Array:
    whole = jnp.moveaxis(x, 0, axis)
    whole = whole.reshape(*whole.shape[:axis], -1, *whole.shape[axis + 2 :])
    return jax.lax.slice_in_dim(whole, 0, length, axis=axis)


def _query_blocks(q: Queries) -> Queries:
    block = min(BLOCK, q.places.shape[0])
    return Queries(_to_blocks(q.heads, 3, block), _to_blocks(q.segments, 1, block), _to_blocks(q.places, 0, block))


def forward(q: Queries, k: Keys, window: int | None) -> tuple[jax.Array, jax.Array]:
    """The output [B, K, R, t, h] in float32, and the log of the denominator [B, K, R, t, 1]."""

    def one(part: Queries) -> tuple[jax.Array, jax.Array]:
        scores = _scores(part, k, window)
        top = jnp.max(scores, axis=-1, keepdims=True)
        e = jnp.exp(scores - top)
        total = jnp.sum(e, axis=-1, keepdims=True)
        out = einsum32("bkrqs,bksh->bkrqh", e.astype(k.values.dtype), k.values)
        return out / total, top + jnp.log(total)

    out, log_total = jax.lax.map(one, _query_blocks(q))
    length = q.places.shape[0]
    return _from_blocks(out, 3, length), _from_blocks(log_total, 3, length)


def backward(
    q: Queries, k: Keys, window: int | None, log_total: jax.Array, g: jax.Array, mean: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values in float32. log_total and mean = g . out, [B, K, R, t, 1], are over ALL keys."""
    scale = q.heads.shape[-1] ** -0.5
    block = min(BLOCK, q.places.shape[0])

    def one(sums, parts):
        part, log_total, g, mean = parts
        p = jnp.exp(_scores(part, k, window) - log_total)
        dp = einsum32("bkrqh,bksh->bkrqs", g, k.values)
        ds = (p * (dp - mean) * scale).astype(part.heads.dtype)
        p = p.astype(k.values.dtype)
        dq = einsum32("bkrqs,bksh->bkrqh", ds, k.keys)
        dk = einsum32("bkrqs,bkrqh->bksh", ds, part.heads)
        dv = einsum32("bkrqs,bkrqh->bksh", p, g)
        return (sums[0] + dk, sums[1] + dv), dq

    zeros = jnp.zeros(k.keys.shape, jnp.float32), jnp.zeros(k.values.shape, jnp.float32)
    parts = (_query_blocks(q), *(_to_blocks(x, 3, block) for x in (log_total, g, mean)))
    (dk, dv), dq = jax.lax.scan(one, zeros, parts)
    return _from_blocks(dq, 3, q.places.shape[0]), dk, dv


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def attend(q: Queries, k: Keys, window: int | None) -> jax.Array:
    """Softmax over the given keys: [B, K, R, t, h], in the type of the values."""
    return _forward(q, k, window)[0]


def _forward(q, k, window):
    out, log_total = forward(q, k, window)
    # Named, so that a rematerialisation policy can keep them.
    out = checkpoint_name(out.astype(k.values.dtype), "attention")
    return out, (q, k, out, checkpoint_name(log_total, "attention"))


def _backward(window, saved, g):
    q, k, out, log_total = saved
    mean = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), axis=-1, keepdims=True)
    dq, dk, dv = backward(q, k, window, log_total, g, mean)
    return (
        Queries(dq.astype(q.heads.dtype), None, None),  # pyright: ignore[reportArgumentType]
        Keys(dk.astype(k.keys.dtype), dv.astype(k.values.dtype), None, None),  # pyright: ignore[reportArgumentType]
    )


attend.defvjp(_forward, _backward)
