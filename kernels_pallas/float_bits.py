"""Float32 numbers by their bits: what is exact on every device, also where the hardware flushes subnormal numbers to zero."""

import jax
import jax.numpy as jnp

__all__ = ["INFINITE", "absolute_bits", "as_bits", "as_float", "exponent", "power_of_two", "rounded"]

INFINITE = 0x7F800000  # the bits of infinity; more is NaN
_SQRT2 = 0x3504F3  # mantissa of the largest float32 below the square root of 2
_LARGEST = 3.4028234663852886e38


def as_bits(x: jax.Array) -> jax.Array:
    """float32 -> int32 of the same bits."""
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def as_float(bits: jax.Array) -> jax.Array:
    """int32 -> float32 of the same bits."""
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def absolute_bits(x: jax.Array) -> jax.Array:
    """Bits of |x|, which are in the order of the numbers; NaN is above infinity."""
    return as_bits(x) & 0x7FFFFFFF


def exponent(absolute: jax.Array, *, nearest: bool = False) -> jax.Array:
    """floor(log2 a) of a float32 a >= 0 given by its bits, or log2 a rounded to the nearest integer; -127 for all below 2^-126.

    Exact, where a logarithm in float32 is a whole number also for some a just below a power of two.
    """
    up = ((absolute & 0x7FFFFF) > _SQRT2).astype(jnp.int32) if nearest else 0
    return (absolute >> 23) - 127 + up


def power_of_two(e: jax.Array) -> jax.Array:
    """2^e in float32 for -126 <= e <= 127."""
    return as_float((e + 127) << 23)


def rounded(product: jax.Array) -> jax.Array:
    """A product that is rounded before it is added to something: compilers make one operation of both, each in its own way.

    The minimum changes no finite number and cannot be left out, because a product can be infinite.
    """
    return jnp.minimum(product, _LARGEST)
