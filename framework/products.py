"""Products of two arrays, summed in float32 whatever their type."""

import jax
import jax.numpy as jnp

from framework.mesh import platform

__all__ = ["dot32", "einsum32"]

Axes = tuple[tuple[int, ...], tuple[int, ...]]


def einsum32(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum(equation, a, b)` as a float32 array; bfloat16 operands are multiplied as such where the hardware can."""
    return jnp.einsum(equation, *_operands(a, b), preferred_element_type=jnp.float32)


def dot32(a: jax.Array, b: jax.Array, contract: Axes) -> jax.Array:
    """The same for `jax.lax.dot_general` without batch dimensions; `contract`: axes of a, and those of b, that are summed over."""
    return jax.lax.dot_general(*_operands(a, b), (contract, ((), ())), preferred_element_type=jnp.float32)


def _operands(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """XLA's CPU backend cannot run every product of two bfloat16 into a float32, and makes one of a product of converted
    operands. It does not look through a rounding to the 8 and 7 bits of bfloat16, which changes nothing."""
    if platform() != "cpu" or a.dtype == b.dtype == jnp.float32:
        return a, b
    wide = [x.astype(jnp.float32) for x in (a, b)]
    return tuple(
        jax.lax.reduce_precision(x, 8, 7) if y.dtype == jnp.bfloat16 else x for x, y in zip(wide, (a, b), strict=True)
    )  # pyright: ignore[reportReturnType]
