"""Choosing a fixed share of the tokens of a batch under jit: static shapes, a traced count, exact numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["rank_threshold", "share_of", "top_n"]


def share_of(count: Array, frac: float, *, size: int) -> Array:
    """int(count * frac) exactly as Python computes it, for a traced count in 0..size and a static frac -> [] int32.

    Float32 cannot do this (0.002 * 1e6 tokens), and integer arithmetic on 29/100 is not what Python's float64 gives for
    0.29 * 100 either. The count is bounded by the static size of the batch, so the places where the result steps up are
    computed here, outside jit, in float64, and looked up inside. The table has int(size * frac) entries.
    """
    shares = (np.arange(size + 1) * frac).astype(np.int64)  # every possible answer
    steps = np.searchsorted(shares, np.arange(1, shares[-1] + 1))  # smallest count whose share is at least 1, 2, ...
    if steps.size == 0:
        return jnp.zeros((), jnp.int32)
    return jnp.searchsorted(jnp.asarray(steps, jnp.int32), count.astype(jnp.int32), side="right").astype(jnp.int32)


def top_n(score: Array, eligible: Array, n: Array, *, n_max: int) -> Array:
    """The n eligible places of largest score (fewer if fewer are eligible): [B, T], [B, T] bool, [] int -> [B, T] bool.

    n is traced and at most the static n_max. Equal scores go to the earlier place, so that never more than n are taken.
    """
    flat = jnp.where(eligible, score, -jnp.inf).ravel()
    n_max = min(n_max, flat.size)
    if n_max == 0:
        return jnp.zeros_like(eligible)
    _, places = jax.lax.top_k(flat, n_max)  # places sorted by score, best first
    chosen = jnp.zeros(flat.shape, bool).at[places].set(jnp.arange(n_max) < n)
    return chosen.reshape(eligible.shape) & eligible  # the rest of top_k's list is -inf, that is: not eligible


def rank_threshold(x: Array, valid: Array, share: float) -> Array:
    """The value with exactly int(share * N) of the N valid places at or below it (more if tied); -inf if none."""
    below = share_of(jnp.sum(valid), share, size=valid.size)
    ordered = jnp.sort(jnp.where(valid, x, jnp.inf).ravel())
    return jnp.where(below > 0, ordered[jnp.maximum(below - 1, 0)], -jnp.inf)
