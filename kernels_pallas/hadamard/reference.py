"""The specification of the block Hadamard transform: sums and differences by halves, in float32."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["hadamard", "matrix"]


def matrix(size: int) -> np.ndarray:
    """H [size, size] float32: (-1)^popcount(i and j) / sqrt(size), Sylvester's order. Symmetric, and its own inverse."""
    h = np.ones((1, 1), np.float32)
    while len(h) < size:
        h = np.block([[h, h], [h, -h]])
    return (h * np.float32(size**-0.5)).astype(np.float32)


def hadamard(x: jax.Array, signs: jax.Array | None, block: int, *, inverse: bool = False) -> jax.Array:
    """(x * signs) H over each `block` of the last dimension, [..., K] -> float32 [..., K]; inverse: (x H) * signs.

    The order of the sums is part of the specification, so that codes made of the result are equal to the bit.
    """
    shape = x.shape
    y = x.astype(jnp.float32).reshape(*shape[:-1], shape[-1] // block, block)
    if signs is not None and not inverse:
        y = y * signs.astype(jnp.float32)
    half = block // 2
    while half:
        pairs = y.reshape(*y.shape[:-1], block // (2 * half), 2, half)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        y = jnp.stack([first + second, first - second], axis=-2).reshape(y.shape)
        half //= 2
    y = y * np.float32(block**-0.5)
    if signs is not None and inverse:
        y = y * signs.astype(jnp.float32)
    return y.reshape(shape)
