"""The specification of NVFP4: groups of 16 elements E2M1 with a scale in E4M3 along the last dimension, one float32 scale in all.

One product is rounded (a number times the tensor's scale); what follows is decided by exact comparisons, because a quotient and its
rounding to 4 or 8 bits would be rounded twice. Back, codes are multiplied by the reciprocal of the tensor's scale, as hardware
does: compilers make one of a division by a scale anyway, each when it likes. Products below 2^-126 count as 0, and so do values
below it that are made of codes: much hardware has no such numbers.
"""

import jax
import jax.numpy as jnp

from kernels_pallas import e2m1
from kernels_pallas.float_bits import INFINITE, absolute_bits, as_bits, as_float, exponent, power_of_two

__all__ = [
    "E4M3_LARGEST",
    "GROUP",
    "NAN_SCALE",
    "convert",
    "dequantize",
    "e4m3_value",
    "group_scale",
    "quantize",
    "round_scaled",
    "scaled",
    "stochastic_scaled",
    "tensor_scale",
    "value_of",
]

GROUP = 16
NAN_SCALE = 0x7F  # the NaN of E4M3
E4M3_LARGEST = 448.0
_LARGEST_PRODUCT = E4M3_LARGEST * e2m1.LARGEST  # 2688: what the largest number of a tensor becomes
_LARGEST_SCALE = 2.0**126  # its reciprocal is a normal number
_SMALLEST_NORMAL = 2.0**-126


def tensor_scale(x: jax.Array, *, rows: bool = False) -> jax.Array:
    """G = 448 * 6 / largest absolute value of x [...], float32 []; of the finite numbers; at most 2^126; 1 for zeros.

    `rows`: that of each row of its own, [..., 1].
    """
    absolute = absolute_bits(x.astype(jnp.float32))
    largest = jnp.where(absolute < INFINITE, absolute, 0).max(-1 if rows else None, keepdims=rows, initial=0)
    scale = jnp.minimum(_LARGEST_PRODUCT / as_float(largest), _LARGEST_SCALE)  # a subnormal largest may count as 0
    return jnp.where(largest == 0, 1.0, scale)


def quantize(
    x: jax.Array, scale: jax.Array, rounding: str = "even", u: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """x [..., K] float, scale float32 [] or [..., 1] -> codes int32 [..., K], E4M3 scales uint8 [..., K / 16].

    `u` [..., K] uniform in [0, 1) for rounding="stochastic".
    """
    shape = x.shape
    grouped = lambda y: y.reshape(*shape[:-1], shape[-1] // GROUP, GROUP)  # noqa: E731 - [..., K] -> [..., K / 16, 16]
    group = grouped(x.astype(jnp.float32))
    largest = jnp.max(absolute_bits(group), axis=-1, keepdims=True)  # of the bits: a NaN is the largest
    factor = jnp.asarray(scale, jnp.float32)[..., None]
    codes, scales = convert(group, largest, factor, rounding, None if u is None else grouped(u))
    return codes.reshape(shape), scales.astype(jnp.uint8)[..., 0]


def convert(
    group: jax.Array,  # [..., 16] float32
    largest: jax.Array,  # [..., 1] int32: the largest bits of an absolute value in the group
    scale: jax.Array,  # float32, broadcast
    rounding: str,
    u: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Codes [..., 16] and scale code [..., 1], int32. The kernel calls it too."""
    code = group_scale(scaled(largest, scale))
    s = e4m3_value(code)
    product = scaled(absolute_bits(group), scale)
    if rounding == "stochastic":
        assert u is not None
        magnitude = stochastic_scaled(product, s, u)
    else:
        magnitude = round_scaled(product, s, rounding)
    finite = largest < INFINITE
    codes = jnp.where(finite & (code > 0), e2m1.signed(magnitude, group), 0)
    return codes, jnp.where(finite, code, NAN_SCALE)


def scaled(absolute: jax.Array, scale: jax.Array) -> jax.Array:
    """|x| times the scale, rounded to float32, from the bits of |x|; a subnormal x is an integer times 2^-149."""
    # Powers of two are put in by the bits: a compiler would gather two constants to one that is subnormal, or flush x itself.
    integer, by = as_bits(absolute.astype(jnp.float32)), as_bits(scale)
    integer = as_float(jnp.where(absolute == 0, 0, integer - (23 << 23)))
    by = as_float(jnp.where(by < (127 << 23), 0, by - (126 << 23)))  # below 1 the product is below 2^-126
    product = jnp.where(absolute < 0x800000, integer * by, as_float(absolute) * scale)
    return jnp.where(product >= _SMALLEST_NORMAL, product, 0.0)


def group_scale(product: jax.Array) -> jax.Array:
    """product >= 0 -> code int32 of the number in E4M3 nearest to product / 6, ties to the even code; 448 is the largest (126).

    The quotient is n steps of 2^(e - 3), n from 0 to 16: it is counted how many of the midpoints it is beyond.
    """
    product = jnp.minimum(product, _LARGEST_PRODUCT)  # also without NaN: those have been replaced
    bits = as_bits(product)
    third = ((bits & 0x7FFFFF) >= 0x400000).astype(jnp.int32)  # 1.5 / 6 is a power of two
    e = jnp.clip(exponent(bits) - 3 + third, -6, 8)
    step = power_of_two(e - 3)
    n = jnp.zeros(product.shape, jnp.int32)
    for below in range(16):
        midpoint = step * (3.0 * (2 * below + 1))  # 6 * (below + 1/2), exact
        above = product >= midpoint if below % 2 else product > midpoint
        n += above.astype(jnp.int32)
    return ((e + 6) << 3) + n  # 8 steps and more carry into the exponent


def e4m3_value(code: jax.Array) -> jax.Array:
    """float32 of codes of E4M3 without sign (any integer type); 127 is NaN."""
    code = code.astype(jnp.int32)
    field, fraction = code >> 3, code & 7
    normal = as_float(((field + 120) << 23) | (fraction << 20))
    value = jnp.where(field == 0, fraction.astype(jnp.float32) * 2.0**-9, normal)
    return jnp.where(code == NAN_SCALE, jnp.nan, value)


def round_scaled(product: jax.Array, s: jax.Array, ties: str) -> jax.Array:
    """Magnitude code of product / s [...], s > 0 broadcast: the midpoints times s are exact, the quotient would not be."""
    code = jnp.zeros(product.shape, jnp.int32)
    for below, midpoint in enumerate(e2m1.MIDPOINTS):
        above = product >= midpoint * s if ties == "even" and below % 2 else product > midpoint * s
        code += above.astype(jnp.int32)
    return code


def stochastic_scaled(product: jax.Array, s: jax.Array, u: jax.Array) -> jax.Array:
    """Magnitude code of product / s: the neighbour above iff u * (above - below) * s < product - below * s; 6 is the largest."""
    below = jnp.zeros(product.shape, jnp.int32)
    for value in e2m1.VALUES[1:]:
        below += (product >= value * s).astype(jnp.int32)
    gap = jnp.where(below < 4, 0.5, jnp.where(below < 6, 1.0, 2.0))
    rest = product - (0.5 * e2m1.doubled(below).astype(jnp.float32)) * s  # exact: the two are within a factor of 2
    return below + ((u * (gap * s) < rest) & (below < 7)).astype(jnp.int32)


def value_of(codes: jax.Array, s: jax.Array) -> jax.Array:
    """Elements [...] times s, float32: at most 7 bits of mantissa, so exact also in bfloat16."""
    value = 0.5 * e2m1.doubled(codes).astype(jnp.float32) * s
    return as_float(as_bits(value) | ((codes & 8) << 28))


def dequantize(codes: jax.Array, scales: jax.Array, scale: jax.Array | None) -> jax.Array:
    """codes [..., K] (any integer type), scales uint8 [..., K / 16] -> float32 [..., K]: element * s * (1 / scale).

    `scale` None: element * s, which is exact, and also in bfloat16.
    """
    shape = codes.shape
    group = codes.astype(jnp.int32).reshape(*shape[:-1], shape[-1] // GROUP, GROUP)
    value = value_of(group, e4m3_value(scales)[..., None])
    if scale is not None:
        value = value * (1.0 / jnp.asarray(scale, jnp.float32))[..., None]
    return value.reshape(shape)
