"""E2M1, the 4-bit float of MXFP4 and NVFP4: 0, 0.5, 1, 1.5, 2, 3, 4, 6 by code 0 to 7; bit 3 is the sign (code 8 is -0)."""

from typing import Literal

import jax
import jax.numpy as jnp

from kernels_pallas.float_bits import as_bits, as_float

__all__ = [
    "LARGEST",
    "MIDPOINTS",
    "VALUES",
    "Ties",
    "doubled",
    "pack",
    "round_nearest",
    "round_stochastic",
    "round_to_steps",
    "signed",
    "times_power_of_two",
    "unpack",
]

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
LARGEST = 6.0

Ties = Literal["even", "down"]

_ONE, _FOUR = 0x3F800000, 0x40800000  # the bits of 1.0 and 4.0


def check(x: jax.Array, group: int, rounding: str, u: jax.Array | None) -> None:
    """Raises ValueError for x [..., K] that cannot be quantised in groups, and for noise u that is missing, idle or misshapen."""
    if x.ndim < 1 or x.shape[-1] % group:
        raise ValueError(
            f"x {list(x.shape)} cannot be cut into groups of {group} along its last dimension: rows would be mixed. "
            f"Pad it with zeros to a multiple of {group}."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x has type {x.dtype}; give float32 or bfloat16.")
    if (u is None) == (rounding == "stochastic"):
        raise ValueError(
            "Stochastic rounding needs u, a uniform number in [0, 1) for each element: u=jax.random.uniform(key, x.shape)."
            if u is None
            else f"rounding={rounding!r} does not use u. Leave it out, or use rounding='stochastic'."
        )
    if u is not None and u.shape != x.shape:
        raise ValueError(f"u {list(u.shape)} must have the shape of x {list(x.shape)}.")


def round_nearest(z: jax.Array, ties: Ties) -> jax.Array:
    """Magnitude code [...] int32 of |z| given as z >= 0 [...] float32; more than 6 saturates.

    A midpoint goes to the even code as in hardware ("even"), or to the smaller magnitude as in Quartet's training kernel ("down").
    """
    return code_of_steps(round_to_steps(z, ties)[0], z)


def round_stochastic(z: jax.Array, u: jax.Array) -> jax.Array:
    """Magnitude code of z >= 0: the neighbour above iff u < (z - below) / (above - below), u uniform in [0, 1).

    Without bias up to 6; more saturates. A number of the grid never moves.
    """
    return code_of_steps(round_to_steps(z, "stochastic", u)[0], z)


def round_to_steps(z: jax.Array, rounding: str, u: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """z >= 0 as a whole number of gaps between neighbours, and the gap there (0.5 up to 2, 1 up to 4, then 2), both float32.

    All of it is exact: gaps are powers of two, and what is subtracted is a multiple of the last bit. Without saturation.
    """
    # Half of the power of two at or below z, within 1 and 4; its inverse by the exponent too.
    bits = (jnp.clip(as_bits(z), _ONE, _FOUR) & 0x7F800000) - (1 << 23)
    gap, t = as_float(bits), z * as_float((254 << 23) - bits)
    if rounding == "even":  # an even number of gaps is an even code
        return jax.lax.round(t, jax.lax.RoundingMethod.TO_NEAREST_EVEN), gap
    if rounding == "down":
        return jnp.maximum(jnp.ceil(t - 0.5), 0.0), gap
    if u is None:
        raise ValueError("Stochastic rounding needs u, a uniform number in [0, 1) for each element.")
    below = jnp.floor(t)
    return below + (u < t - below), gap


def code_of_steps(steps: jax.Array, z: jax.Array) -> jax.Array:
    """Magnitude code int32 of so many gaps of the size that there is at z: gaps double at codes 4 and 6."""
    first = jnp.where(z < 2, 0, jnp.where(z < 4, 2, 4))
    return jnp.minimum(jnp.minimum(steps, 8.0).astype(jnp.int32) + first, 7)  # z may be infinite


def doubled(code: jax.Array) -> jax.Array:
    """Twice the magnitude of codes (the sign is ignored), an integer: 0, 1, 2, 3, 4, 6, 8, 12."""
    code = code & 7
    step = jnp.maximum(code >> 1, 1) - 1
    return jnp.where(code < 2, code, (2 + (code & 1)) << step)


def signed(magnitude: jax.Array, x: jax.Array) -> jax.Array:
    """Codes with the sign of x [...] float32, that of -0 too."""
    return magnitude | jnp.where(as_bits(x) < 0, 8, 0)


def pack(codes: jax.Array) -> jax.Array:
    """Codes [..., K] of any integer type -> uint8 [..., K / 2]; the element of even number is in the low four bits."""
    if codes.shape[-1] % 2:
        raise ValueError(f"Codes {list(codes.shape)} cannot be packed two a byte: the last dimension is odd.")
    codes = codes.astype(jnp.uint8)
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack(packed: jax.Array) -> jax.Array:
    """uint8 [..., K / 2] -> codes uint8 [..., K], 0 to 15."""
    pairs = jnp.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], 2 * packed.shape[-1])


def times_power_of_two(code: jax.Array, e: jax.Array) -> jax.Array:
    """Value of codes [...] times 2^e, float32, for -127 <= e <= 127 (broadcast); infinite beyond float32.

    By the bits, because results below 2^-126 are subnormal and arithmetic would flush them on many devices.
    """
    twice = doubled(code)
    bits = as_bits(twice.astype(jnp.float32)) + ((e - 1) << 23)  # twice * 2^(e-1) where that is a normal number
    # A subnormal number is a multiple of 2^-149: twice * 2^(e-1) = (twice << e + 148) * 2^-149.
    tiny = twice << jnp.clip(e + 148, 0, 23)
    size = exponent_of_integer(twice) + e - 1
    bits = jnp.where(size < -126, tiny, jnp.where(size > 127, 0x7F800000, bits))
    bits = jnp.where(twice == 0, 0, bits)
    return as_float(bits | ((code & 8) << 28))


def exponent_of_integer(x: jax.Array) -> jax.Array:
    """floor(log2 x) of small positive integers."""
    return (as_bits(x.astype(jnp.float32)) >> 23) - 127
