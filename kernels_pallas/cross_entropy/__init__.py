"""The training loss of a language model: a weighted sum of negative log-likelihoods, without the [B, T, V] logits.

    loss = cross_entropy(hidden, unembed, targets, weights=mask / mask.sum())

For log-probabilities of each token, which a policy loss needs, see `kernels_pallas.logprob`.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from framework.mesh import current_mesh
from kernels_pallas.cross_entropy import chunked, reference
from kernels_pallas.logprob import token_logprobs

__all__ = ["cross_entropy"]


def cross_entropy(
    hidden: jax.Array,  # [B, T, D]
    unembed: jax.Array,  # [D, V]; with transposed=True [V, D], as a tied embedding matrix is stored
    targets: jax.Array,  # [B, T] int
    weights: jax.Array,  # [B, T]; 0 leaves a token out, whatever its target
    *,
    transposed: bool = False,
    impl: Literal["auto", "chunked", "logprob", "reference"] = "auto",
    chunk: int | None = None,  # tokens at a time, of "chunked"; None picks
) -> jax.Array:
    """sum of weights * -log softmax(hidden @ unembed)[target], a float32 number; differentiable in hidden and unembed.

    "chunked" makes the gradient in the forward pass (three products with the matrix where recomputing takes four). On more than
    one device "auto" takes "logprob", whose vocabulary may be split.

    Raises:
        ValueError: shapes that do not belong together, or an unknown implementation.
    """
    want = "[V, D]" if transposed else "[D, V]"
    if hidden.ndim != 3 or not hidden.shape[:2] == targets.shape == weights.shape or unembed.ndim != 2:
        raise ValueError(
            f"Expected hidden [B, T, D], unembed {want}, targets and weights [B, T]; got hidden {list(hidden.shape)}, unembed "
            f"{list(unembed.shape)}, targets {list(targets.shape)}, weights {list(weights.shape)}."
        )
    size, vocabulary = unembed.shape[::-1] if transposed else unembed.shape
    if size != hidden.shape[2]:
        raise ValueError(
            f"The width of hidden is {hidden.shape[2]}, but unembed {list(unembed.shape)} read as {want} has D={size}. "
            f"If unembed is stored the other way round, pass transposed={not transposed}."
        )
    if impl not in ("auto", "chunked", "logprob", "reference"):
        raise ValueError(f"impl={impl!r} is not an implementation. Use 'auto', 'chunked', 'logprob' or 'reference'.")
    mesh = current_mesh()
    if impl == "logprob" or (impl == "auto" and mesh is not None and mesh.size > 1):
        # A target that is left out may be anything, also no token.
        logp, _ = token_logprobs(hidden, unembed, jnp.where(weights != 0, targets, 0), transposed=transposed)
        return -jnp.sum(weights * logp)
    flat = hidden.reshape(-1, size), unembed, targets.reshape(-1), weights.reshape(-1).astype(jnp.float32)
    if impl == "reference":
        return reference.cross_entropy(*flat, transposed)
    return chunked.cross_entropy(*flat, transposed, chunk or chunked.pick_chunk(flat[0].shape[0], vocabulary))
