"""Cross-entropy with all logits at once: the specification."""

import jax
import jax.numpy as jnp

from framework.products import einsum32

__all__ = ["cross_entropy"]


def cross_entropy(
    hidden: jax.Array, unembed: jax.Array, targets: jax.Array, weights: jax.Array, transposed: bool
) -> jax.Array:
    """See the package. hidden [N, D]; unembed [D, V] or, transposed, [V, D]; targets, weights [N]."""
    matrix = unembed.T if transposed else unembed
    logits = einsum32("nd,dv->nv", hidden, matrix.astype(hidden.dtype))
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.where(weights != 0, targets, 0)[:, None], axis=1)
    return -jnp.sum(weights * logp[:, 0])
