"""The transform as a product with the matrix, which XLA does quickest on CPUs and GPUs."""

import jax
import jax.numpy as jnp

from kernels_pallas.hadamard.reference import matrix

__all__ = ["hadamard"]


def hadamard(x: jax.Array, signs: jax.Array | None, block: int, *, inverse: bool = False) -> jax.Array:
    """As `reference.hadamard`, up to rounding. The signs go into the matrix, so that they cost nothing."""
    h = jnp.asarray(matrix(block))
    if signs is not None:
        h = h * signs.astype(jnp.float32)[None, :] if inverse else h * signs.astype(jnp.float32)[:, None]
    blocks = x.astype(jnp.float32).reshape(-1, block)
    # Not in TF32 or in passes of bfloat16: codes are made of the result.
    return jnp.dot(blocks, h, precision=jax.lax.Precision.HIGHEST).reshape(x.shape)
