"""The specification: log-probability and entropy of given tokens, through the whole [B, T, V] tensor.

Short enough to be read as the definition. Every other implementation is tested against it, on the same grid.
"""

import jax
import jax.numpy as jnp

from framework.products import einsum32


def token_logprobs(
    hidden: jax.Array,  # [B, T, D]
    unembed: jax.Array,  # [D, V], or [V, D] if transposed
    targets: jax.Array,  # [B, T] int
    temperature: jax.Array,  # broadcasts to [B, T], float32, > 0
    entropy_temperature: jax.Array | None,  # the same, or None for `temperature`
    *,
    transposed: bool,
) -> tuple[jax.Array, jax.Array]:  # logp [B, T], entropy [B, T] in nats, float32
    """Naive log-softmax; memory of several [B, T, V] arrays. Arguments as checked by `kernels_pallas.logprob`."""
    equation = "btd,vd->btv" if transposed else "btd,dv->btv"
    logits = einsum32(equation, hidden, unembed)  # [B, T, V]

    vocab = logits.shape[-1]
    logp_all = jax.nn.log_softmax(logits / temperature[..., None])  # [B, T, V]
    in_range = (targets >= 0) & (targets < vocab)  # [B, T]
    picked = jnp.take_along_axis(logp_all, jnp.where(in_range, targets, 0)[..., None], axis=-1)[..., 0]  # [B, T]
    logp = jnp.where(in_range, picked, jnp.nan)  # [B, T]

    if entropy_temperature is not None:
        logp_all = jax.nn.log_softmax(logits / entropy_temperature[..., None])  # [B, T, V]
    entropy = -jnp.sum(jnp.exp(logp_all) * logp_all, axis=-1)  # [B, T]
    return logp, entropy
