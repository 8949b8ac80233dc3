"""Causal grouped-query attention written out: the specification that every other implementation is tested against."""

import jax
import jax.numpy as jnp

from framework.products import einsum32

__all__ = ["attention", "visible"]

HIDDEN = -1e30  # finite: a query that may look at nothing (padding) averages all values instead of dividing 0 by 0


def visible(
    query_segments: jax.Array, key_segments: jax.Array, query_index: jax.Array, key_index: jax.Array, window: int | None
) -> jax.Array:
    """Which key each query may look at, [B, T, S] bool: earlier in the row, of its own segment, not padding, in the window.

    query_segments [B, T], key_segments [B, S]: 0 is padding. query_index [T], key_index [S]: places in the row.
    """
    distance = query_index[:, None] - key_index[None, :]
    near = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return near[None] & same & (key_segments != 0)[:, None, :]


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    window: int | None,
    first_query: jax.Array | int = 0,
    key_segments: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(h)) v with the R = H / K query heads of a key/value head in one product; softmax in float32.

    q [B, T, H, h]; k, v [B, S, K, h]; segment_ids [B, T] -> [B, T, H, h]. Query t stands at place `first_query` + t among
    the S keys, whose segments are `key_segments` [B, S] (None: those of the queries).
    """
    batch, length, heads, size = q.shape
    kv_heads, slots = k.shape[2], k.shape[1]
    if segment_ids is None:
        segment_ids = jnp.ones((batch, length), jnp.int32)
    keys = segment_ids if key_segments is None else key_segments
    mask = visible(segment_ids, keys, first_query + jnp.arange(length), jnp.arange(slots), window)
    grouped = q.reshape(batch, length, kv_heads, heads // kv_heads, size)
    scores = einsum32("btkrh,bskh->bkrts", grouped, k) * size**-0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, HIDDEN), axis=-1).astype(v.dtype)
    return jnp.einsum("bkrts,bskh->btkrh", weights, v).reshape(batch, length, heads, size)
