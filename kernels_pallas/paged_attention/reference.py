"""Attention over pages written out: gather the pages of each row, then dense attention. The specification of the kernels."""

import functools

import jax
import jax.numpy as jnp

from framework.products import einsum32

__all__ = ["attention"]

HIDDEN = -1e30  # finite: a query that may look at nothing (padding) does not divide 0 by 0


def attention(
    q: jax.Array, kv_pages: jax.Array, table: jax.Array, places: jax.Array, *, window: int | None
) -> jax.Array:
    """q [B, T, H, h]; kv_pages [R, P, page, 2 K, w]; table [B, M]; places [B, T] -> [B, T, H, h].

    Shards are an axis that is mapped over, so that XLA splits the gather along it and fetches nothing from elsewhere.
    """
    shards = kv_pages.shape[0]
    rows = [x.reshape(shards, -1, *x.shape[1:]) for x in (q, table, places)]
    out = jax.vmap(functools.partial(_attention, window=window))(kv_pages, *rows)
    return out.reshape(q.shape)


def _attention(kv_pages: jax.Array, q: jax.Array, table: jax.Array, places: jax.Array, *, window: int | None):
    """The same for one shard: kv_pages [P, page, 2 K, w]. Letters: S = M page slots of a row."""
    batch, length, heads, size = q.shape
    kv_heads, width = kv_pages.shape[2] // 2, kv_pages.shape[3]
    own = kv_pages[table].reshape(batch, -1, kv_heads, 2, width)[..., :size]  # [B, S, K, 2, h]
    keys, values = own[..., 0, :], own[..., 1, :]
    slots = jnp.arange(own.shape[1])
    # Zero times what an earlier owner of the page left there would be nan if that was.
    filled = slots <= jnp.max(places, axis=1, keepdims=True)  # [B, S]
    values = jnp.where(filled[:, :, None, None], values, 0)
    distance = places[:, :, None] - slots
    seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)  # [B, T, S]
    grouped = q.reshape(batch, length, kv_heads, heads // kv_heads, size)
    scores = einsum32("btkrh,bskh->bkrts", grouped, keys) * size**-0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, HIDDEN), axis=-1).astype(values.dtype)
    out = jnp.einsum("bkrts,bskh->btkrh", weights, values).reshape(q.shape)
    return jnp.where((places >= 0)[:, :, None, None], out, 0)
