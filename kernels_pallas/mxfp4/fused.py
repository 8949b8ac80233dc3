"""MXFP4 in as few operations as XLA can make one pass of: values and codes at once, for training on any hardware.

Three liberties against `reference`, where a training step cannot tell the difference: sums are made in XLA's order (a QuEST scale
within rounding of a power of two can come out as its neighbour), numbers below 2^-126 are zero, as in all arithmetic of XLA on a
CPU, and QuEST's scale of numbers above 1e19 is NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas import e2m1
from kernels_pallas.float_bits import INFINITE, absolute_bits, as_bits, as_float, exponent, power_of_two
from kernels_pallas.mxfp4 import reference
from kernels_pallas.mxfp4.quantizer import Quantizer

__all__ = ["Kept", "Quantized", "quantize", "values"]

GROUP = reference.GROUP
_BITS = np.arange(8, dtype=np.uint8)[:, None]


class Quantized(NamedTuple):
    """A tensor [..., K] in MXFP4, in several forms; those that are not used are never computed under jit."""

    values: (
        jax.Array
    )  # float32 [..., K], element times scale, without the quantiser's gain; NaN in a group that is not finite
    codes: jax.Array  # uint8 [..., K]; bit 4 is set where an element did not saturate, if the quantiser has a mask
    scales: jax.Array  # uint8 [..., K / 32]

    def kept(self) -> "Kept":
        """What a backward pass needs of it, 4-bit codes and 1-bit masks. Not the order of `e2m1.pack`: whole pieces of a group are
        put on top of each other, which XLA does without computing an element twice."""
        group = self.codes.reshape(*self.scales.shape, GROUP)
        codes = (group[..., : GROUP // 2] & 15) | (group[..., GROUP // 2 :] << 4)
        eighths = (group >> 4).reshape(*group.shape[:-1], 8, GROUP // 8)
        return Kept(codes, self.scales, jnp.sum(eighths << _BITS, axis=-2, dtype=jnp.uint8))


class Kept(NamedTuple):
    """A tensor [..., K] in 5.25 bits a number."""

    codes: jax.Array  # uint8 [..., K / 32, 16], elements i and i + 16 of a group in a byte
    scales: jax.Array  # uint8 [..., K / 32]
    mask: (
        jax.Array | None
    )  # uint8 [..., K / 32, 4], elements i, i + 4, ... of a group in a byte; None: no element saturated

    def values(self) -> jax.Array:
        """float32 [..., K], element times scale."""
        group = jnp.concatenate([self.codes & 15, self.codes >> 4], axis=-1)
        *leading, groups = self.scales.shape
        return values(group.reshape(*leading, groups * GROUP), self.scales)

    def masked(self, x: jax.Array) -> jax.Array:
        """x [..., K] with zeros where an element saturated; what is not finite becomes NaN there, so that it stays visible."""
        if self.mask is None:
            return x
        bits = (self.mask[..., None, :] >> _BITS) & 1
        return x * bits.reshape(x.shape).astype(x.dtype)


def quantize(x: jax.Array, q: Quantizer, u: jax.Array | None = None) -> Quantized:
    """As `reference.quantize`, and the values with it."""
    shape = x.shape
    grouped = lambda y: y.reshape(*shape[:-1], shape[-1] // GROUP, GROUP)  # noqa: E731 - [..., K] -> [..., K / 32, 32]
    group = grouped(x.astype(jnp.float32))
    absolute = jnp.abs(group)
    if q.scale == "quest":
        mean, square = (jnp.mean(y, axis=-1, keepdims=True) for y in (group, group * group))
        # Not finite if an element is not, and if squares are beyond float32.
        scale = reference.QUEST_SCALE * jnp.sqrt(jnp.maximum(square - mean * mean, 0.0)) + reference.QUEST_FLOOR
        largest = as_bits(scale)
        e = exponent(largest, nearest=q.exponent == "nearest")
    else:
        largest = jnp.max(absolute_bits(group), axis=-1, keepdims=True)  # of the bits: a NaN is the largest
        e = exponent(largest, nearest=q.exponent == "nearest") - 2
    finite = (largest & 0x7FFFFFFF) < INFINITE
    e = jnp.clip(e, -126, reference.LARGEST_EXPONENT)
    z = absolute * power_of_two(-e)
    if q.scale == "absmax":
        z = 0.75 * z
    steps, gap = e2m1.round_to_steps(z, q.rounding, None if u is None else grouped(u))
    size = jnp.minimum(steps * gap, e2m1.LARGEST) * jnp.where(finite, power_of_two(e), jnp.nan)
    values = as_float(as_bits(size) | (as_bits(group) & -0x80000000))
    codes = e2m1.signed(e2m1.code_of_steps(steps, z), group) | jnp.where(z < e2m1.LARGEST, 16, 0)
    codes = jnp.where(finite, codes, 0).astype(jnp.uint8).reshape(shape)
    scales = jnp.where(finite, e + 127, reference.NAN_SCALE).astype(jnp.uint8)[..., 0]
    return Quantized(values.reshape(shape), codes, scales)


def values(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """As `reference.dequantize` without gain: codes [..., K] of any integer type, scales uint8 [..., K / 32] -> [..., K]."""
    shape = codes.shape
    group = codes.astype(jnp.int32).reshape(*shape[:-1], shape[-1] // GROUP, GROUP)
    scale = scales.astype(jnp.int32)[..., None]
    half = jnp.where(scale == reference.NAN_SCALE, jnp.nan, 0.5 * power_of_two(jnp.maximum(scale - 127, -125)))
    size = e2m1.doubled(group).astype(jnp.float32) * half
    return as_float(as_bits(size) | ((group & 8) << 28)).reshape(shape)
