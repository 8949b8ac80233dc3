"""The specification of MXFP4: groups of 32 elements E2M1 with one power of two (E8M0) along the last dimension.

Exact on every float32, subnormal ones included: exponents are read from the bits, never computed by a logarithm. A group with a NaN
or an infinity gets the scale NaN (code 255) and codes 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels_pallas import e2m1
from kernels_pallas.float_bits import INFINITE, absolute_bits, as_bits, as_float, exponent, power_of_two, rounded
from kernels_pallas.mxfp4.quantizer import Quantizer

__all__ = [
    "GROUP",
    "LARGEST_EXPONENT",
    "NAN_SCALE",
    "QUEST_FLOOR",
    "QUEST_SCALE",
    "convert",
    "dequantize",
    "quantize",
    "sum_by_halves",
    "values",
]

GROUP = 32
NAN_SCALE = 255
LARGEST_EXPONENT = 125  # 6 * 2^125 is the largest value that float32 holds
QUEST_SCALE = (
    2.92247856 / 6
)  # scale of E2M1 with the least squared error on N(0, 1), in standard deviations (the paper's code)
QUEST_FLOOR = 1e-8  # added to it (the paper's code)


def quantize(x: jax.Array, q: Quantizer, u: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """x [..., K] float -> codes int32 [..., K], scales uint8 [..., K / 32], mask bool [..., K] if `q.masks`.

    `u` [..., K] uniform in [0, 1) for stochastic rounding.
    """
    shape = x.shape
    grouped = lambda y: y.reshape(*shape[:-1], shape[-1] // GROUP, GROUP)  # noqa: E731 - [..., K] -> [..., K / 32, 32]
    group = grouped(x.astype(jnp.float32))
    largest = jnp.max(absolute_bits(group), axis=-1, keepdims=True)  # of the bits: a NaN is the largest
    codes, scale, mask = convert(group, largest, sum_by_halves, q, None if u is None else grouped(u))
    scales = scale.astype(jnp.uint8)[..., 0]
    return codes.reshape(shape), scales, None if mask is None else mask.reshape(shape)


def convert(
    group: jax.Array,  # [..., 32] float32
    largest: jax.Array,  # [..., 1] int32: the largest bits of an absolute value in the group
    total: Callable[[jax.Array], jax.Array],  # sum over a group, [..., 32] -> [..., 1]
    q: Quantizer,
    u: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Codes [..., 32] int32, scale code [..., 1] int32, mask [..., 32] bool. The kernel calls it too, with its own way to sum."""
    e = shared_exponent(group, largest, total, q)
    z = scaled(absolute_bits(group), e)
    if q.scale == "absmax":
        z = 0.75 * z
    if q.rounding == "stochastic":
        assert u is not None
        magnitude = e2m1.round_stochastic(z, u)
    else:
        magnitude = e2m1.round_nearest(z, q.rounding)
    finite = largest < INFINITE
    codes = jnp.where(finite, e2m1.signed(magnitude, group), 0)
    scale = jnp.where(finite, e + 127, NAN_SCALE)
    return codes, scale, (z < e2m1.LARGEST) & finite if q.masks else None


def shared_exponent(
    group: jax.Array, largest: jax.Array, total: Callable[[jax.Array], jax.Array], q: Quantizer
) -> jax.Array:
    """e [..., 1] int32 of the scale 2^e of groups [..., 32]. See `convert`."""
    nearest = q.exponent == "nearest"
    if q.scale != "quest":
        # 2 is the largest exponent of E2M1. A group of zeros gets the smallest scale.
        return jnp.clip(exponent(largest, nearest=nearest) - 2, -127, LARGEST_EXPONENT)
    # In units of a power of two near the largest element, so that no square is beyond float32; the unit is exact.
    unit = jnp.clip(exponent(largest), -125, 125)
    # Rounded: of a number that is itself a product with c, XLA would make one with c / 2^unit, which can be too small for float32.
    v = rounded(group) * power_of_two(-unit)
    mean = total(v) * (1 / GROUP)
    variance = jnp.maximum(total(rounded(v * v)) * (1 / GROUP) - rounded(mean * mean), 0.0)
    scale = rounded(QUEST_SCALE * jnp.sqrt(variance)) * power_of_two(unit) + QUEST_FLOOR
    return jnp.clip(exponent(as_bits(scale), nearest=nearest), -127, LARGEST_EXPONENT)


def sum_by_halves(x: jax.Array) -> jax.Array:
    """Sum over the last dimension [..., 32] -> [..., 1]: halves are added to each other. The order is part of the specification."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x


def scaled(absolute: jax.Array, e: jax.Array) -> jax.Array:
    """|x| / 2^e in float32 from the bits of |x|; a subnormal x is an integer times 2^-149."""
    normal = as_float(absolute) * power_of_two(-e)
    subnormal = absolute.astype(jnp.float32) * power_of_two(jnp.maximum(-149 - e, -126))
    return jnp.where(absolute < 0x800000, subnormal, normal)


def dequantize(codes: jax.Array, scales: jax.Array, gain: float = 1.0) -> jax.Array:
    """codes [..., K] (any integer type), scales uint8 [..., K / 32] -> float32 [..., K]: code * 2^(scale - 127) * gain."""
    shape = codes.shape
    group = codes.astype(jnp.int32).reshape(*shape[:-1], shape[-1] // GROUP, GROUP)
    scale = scales.astype(jnp.int32)[..., None]
    return values(group, scale, gain).reshape(shape)


def values(codes: jax.Array, scale: jax.Array, gain: float = 1.0) -> jax.Array:
    """float32 of codes [...] int32 and the codes of their scales [...] int32 (broadcast)."""
    value = e2m1.times_power_of_two(codes, scale - 127)
    value = jnp.where(scale == NAN_SCALE, jnp.nan, value)
    return value if gain == 1.0 else value * gain
