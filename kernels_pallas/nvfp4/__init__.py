"""NVFP4: 4-bit floats (E2M1) in groups of 16 along the last dimension, a scale in E4M3 each and one in float32 for the tensor.

    packed = quantize(x)                                   # NVFP4: codes uint8 [..., K / 2], scales uint8 [..., K / 16]
    values = dequantize(packed)                            # float32 [..., K]
    y = matmul(a, b)                                       # a [..., K] and b [N, K], both NVFP4 -> float32 [..., N]

G = 448 * 6 / absmax of the tensor, s = E4M3(G * absmax of the group / 6), element = E2M1(x * G / s), value = element * s / G.
Shards of one tensor, and parts that are quantised one after the other, need one G: `tensor_scale` of the whole as `scale`.
"""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from framework.errors import UserError
from kernels_pallas import e2m1
from kernels_pallas.nvfp4 import kernel, native, reference

__all__ = ["GROUP", "NVFP4", "Impl", "Rounding", "dequantize", "fake_quantize", "matmul", "quantize", "tensor_scale"]

GROUP = reference.GROUP
Impl = Literal["auto", "pallas", "interpret", "reference"]
Rounding = Literal["even", "down", "stochastic"]

tensor_scale = reference.tensor_scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NVFP4:
    """A tensor [..., K] in 4.5 bits a number: value = element * s / scale. A group with a NaN or an infinity has the scale NaN."""

    codes: jax.Array  # uint8 [..., K / 2], the element of even number in the low four bits
    scales: jax.Array  # uint8 [..., K / 16], the bits of float8_e4m3fn
    scale: jax.Array  # float32 [], the G that numbers were multiplied by; or [..., 1], one for each row

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., K] of the numbers it stands for."""
        return (*self.codes.shape[:-1], 2 * self.codes.shape[-1])


def quantize(
    x: jax.Array,  # [..., K], float32 or bfloat16, K a multiple of 16
    *,
    rounding: Rounding = "even",
    scale: jax.Array | None = None,  # float32 [] or [..., 1], 2^-126 to 2^126; None: tensor_scale(x)
    u: jax.Array | None = None,  # [..., K] uniform in [0, 1), for rounding="stochastic"
    impl: Impl = "auto",
) -> NVFP4:
    """The tensor in NVFP4. Ties go to the even code as in hardware ("even") or to the smaller magnitude ("down").

    Group scales are rounded to nearest, ties to even, and saturate at 448; one that is rounded to 0 makes a group of zeros. A NaN
    or an infinity makes its group NaN and leaves the others as they are: the scale of the tensor is that of its finite numbers.
    With a `scale` of your own, larger numbers saturate.

    "reference" is the specification, "pallas" and "interpret" (the kernel in the interpreter) equal it to the bit. "auto" takes
    "pallas" on a TPU where it can run, and the reference elsewhere.

    Raises:
        UserError: an implementation asked for by name cannot run here.
        ValueError: K is no multiple of 16, a rounding that is none, u missing, not wanted or of another shape.
    """
    scale = _check(x, rounding, scale, u)
    if _use_kernel(impl, "quantize", x):
        codes, scales = kernel.quantize(x, scale, rounding, u, interpret=impl == "interpret")
        return NVFP4(codes, scales, scale)
    codes, scales = reference.quantize(x, scale, rounding, u)
    return NVFP4(e2m1.pack(codes), scales, scale)


def dequantize(x: NVFP4, *, impl: Impl = "auto") -> jax.Array:
    """float32 [..., K], element * s * (1 / scale), the reciprocal and the product rounded.

    Values below 2^-126 are 0 where the hardware has no such numbers.
    """
    if _use_kernel(impl, "dequantize", x.codes):
        return kernel.dequantize(x.codes, x.scales, x.scale, interpret=impl == "interpret")
    return reference.dequantize(e2m1.unpack(x.codes), x.scales, x.scale)


def fake_quantize(
    x: jax.Array, *, rounding: Rounding = "even", scale: jax.Array | None = None, u: jax.Array | None = None
) -> jax.Array:
    """The values [..., K] float32 that x has in NVFP4: `dequantize(quantize(x))` without the packing."""
    scale = _check(x, rounding, scale, u)
    return reference.dequantize(*reference.quantize(x, scale, rounding, u), scale)


def matmul(a: NVFP4, b: NVFP4, *, impl: Literal["exact", "native"] = "exact") -> jax.Array:
    """a [..., K] times b [N, K] transposed, summed in float32, times the reciprocals of both tensor scales: [..., N].

    Products of two elements and their group scales are exact in float32; sums and what is done with tensor scales are rounded.
    "exact" multiplies the values, everywhere. "native" multiplies the four bits themselves on a GPU that can; tests lower it
    for one and none has run it, which is why it has to be asked for.

    Raises:
        UserError: "native" on another machine.
        ValueError: shapes that do not fit, a scale for each row of b.
    """
    if impl not in ("exact", "native"):
        raise UserError(f"matmul impl={impl!r} is not one. Use 'exact' or 'native'.")
    if a.shape[-1] != b.shape[-1] or len(b.shape) != 2:
        raise ValueError(f"a {list(a.shape)} and b {list(b.shape)} cannot be multiplied: give a [..., K] and b [N, K].")
    if b.scale.ndim:
        raise ValueError(
            f"b has scales {list(b.scale.shape)}; the right operand needs one scale [] for the whole tensor."
        )
    if impl == "native":
        if (reason := native.unsupported()) is not None:
            raise UserError(f"native matmul cannot run: {reason}. Use impl='exact'.")
        y = native.matmul(a.codes, a.scales, b.codes, b.scales)
        return y * (1.0 / a.scale) * (1.0 / b.scale)
    left, right = (reference.dequantize(e2m1.unpack(x.codes), x.scales, None) for x in (a, b))
    y = jnp.einsum("...k,nk->...n", left, right, precision=jax.lax.Precision.HIGHEST)
    return y * (1.0 / a.scale) * (1.0 / b.scale)


def _use_kernel(impl: str, op: str, x: jax.Array) -> bool:
    if impl not in get_args(Impl):
        raise UserError(f"{op} impl={impl!r} is not one. Use {' or '.join(map(repr, get_args(Impl)))}.")
    if impl == "reference":
        return False
    reason = kernel.unsupported(x, interpret=impl == "interpret")
    if impl in ("pallas", "interpret") and reason is not None:
        raise UserError(f"{impl} {op} cannot run: {reason}. Or use 'auto', which takes what can run.")
    return reason is None


def _check(x: jax.Array, rounding: str, scale: jax.Array | None, u: jax.Array | None) -> jax.Array:
    """The scale to use. Raises ValueError for what does not fit together."""
    if rounding not in get_args(Rounding):
        raise ValueError(f"rounding={rounding!r} is not known. Use {' or '.join(map(repr, get_args(Rounding)))}.")
    e2m1.check(x, GROUP, rounding, u)
    if scale is None:
        return reference.tensor_scale(x)
    scale = jnp.asarray(scale, jnp.float32)
    if scale.shape not in ((), (*x.shape[:-1], 1)):
        raise ValueError(
            f"scale {list(scale.shape)} does not belong to x {list(x.shape)}. Give one number [], or one for each row "
            f"{[*x.shape[:-1], 1]}."
        )
    return scale
