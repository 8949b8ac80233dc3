"""Means over real tokens. Padding may hold anything, NaN included, and reaches neither a value nor a gradient."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

__all__ = ["clean_tokens", "masked_mean", "masked_sum"]


def masked_sum(x: ArrayLike, mask: ArrayLike) -> Array:
    """Sum of x [...] where mask [...] is non-zero -> []."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # bf16 sums lose a token in every 256
    # `where`, not a product: 0 * nan is nan, in the value and again in the gradient.
    return jnp.sum(jnp.where(jnp.asarray(mask) != 0, x, 0.0))


def masked_mean(x: ArrayLike, mask: ArrayLike, *, denom: ArrayLike | None = None) -> Array:
    """Mean of x [...] where mask [...] is non-zero -> []; an empty mask gives 0.

    `denom` is the token count of the whole batch: pass it when x is one micro-batch of several, then the sum over
    micro-batches is the exact mean of the batch. (A mean of means weighs the tokens of short answers more.)
    """
    if denom is None:
        denom = jnp.sum(jnp.asarray(mask) != 0)
    return masked_sum(x, mask) / jnp.maximum(denom, 1.0)


def clean_tokens(mask: ArrayLike, **arrays: ArrayLike) -> tuple[Array, ...]:
    """Checks that every array is [B, T] like the mask; returns (valid bool, each array in float32 with 0 at padding).

    Losses call this first, so that exp() of a padding place can overflow into neither the loss nor its gradient.
    """
    mask = jnp.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(
            f"mask has shape {mask.shape}; expected [B, T] (responses, tokens). For one response type mask[None]."
        )
    valid = mask != 0
    cleaned = []
    for name, x in arrays.items():
        x = jnp.asarray(x)
        if x.shape != mask.shape:
            hint = f" For one number per response type {name}[:, None] * mask." if x.shape == mask.shape[:1] else ""
            raise ValueError(f"{name} has shape {x.shape}, but mask has shape {mask.shape}; both must be [B, T].{hint}")
        cleaned.append(jnp.where(valid, x.astype(jnp.promote_types(x.dtype, jnp.float32)), 0.0))
    return valid, *cleaned
