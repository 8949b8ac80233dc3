"""MXFP4: 4-bit floats (E2M1) in groups of 32 along the last dimension, each group with a power of two (E8M0).

    packed = quantize(x)                                   # MXFP4: codes uint8 [..., K / 2], scales uint8 [..., K / 32]
    values = dequantize(packed)                            # float32 [..., K]
    packed, mask = rotate_quantize(x, QUEST)               # Hadamard and Quartet's forward quantiser in one pass
    y = matmul(a, b)                                       # a [..., K] and b [N, K], both MXFP4 -> float32 [..., N]

`Quantizer` says how the scale is chosen and how elements are rounded; OCP, QUEST, ABSMAX_RTN and ABSMAX_SR are the usual ones.
"""

import dataclasses
from typing import Literal, get_args

import jax

from framework.errors import UserError
from kernels_pallas import e2m1
from kernels_pallas import hadamard as rotation
from kernels_pallas.mxfp4 import fused, kernel, product, reference
from kernels_pallas.mxfp4.quantizer import ABSMAX_RTN, ABSMAX_SR, OCP, QUEST, Quantizer

__all__ = [
    "ABSMAX_RTN",
    "ABSMAX_SR",
    "GROUP",
    "MXFP4",
    "OCP",
    "QUEST",
    "Impl",
    "Quantizer",
    "dequantize",
    "fake_quantize",
    "matmul",
    "quantize",
    "rotate_quantize",
]

GROUP = reference.GROUP
Impl = Literal["auto", "pallas", "interpret", "xla", "reference"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MXFP4:
    """A tensor [..., K] in 4.25 bits a number: value = element * 2^(scale - 127) * gain. Scale 255 is NaN."""

    codes: jax.Array  # uint8 [..., K / 2], the element of even number in the low four bits
    scales: jax.Array  # uint8 [..., K / 32], E8M0
    gain: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., K] of the numbers it stands for."""
        return (*self.codes.shape[:-1], 2 * self.codes.shape[-1])


def quantize(
    x: jax.Array,  # [..., K], float32 or bfloat16, K a multiple of 32
    q: Quantizer = OCP,
    *,
    u: jax.Array | None = None,  # [..., K] uniform in [0, 1), for rounding="stochastic"
    impl: Impl = "auto",
) -> tuple[MXFP4, jax.Array | None]:
    """The tensor in MXFP4, and for a quantiser with a mask, bool [..., K], which elements did not saturate (else None).

    "reference" is the specification, "pallas" and "interpret" (the kernel in the interpreter) equal it to the bit.
    "auto" takes "pallas" on a TPU where it can run, and the reference, which XLA makes one pass of, elsewhere.

    Raises:
        UserError: an implementation asked for by name cannot run here; a quantiser with an unknown name in it.
        ValueError: K is no multiple of 32; u is missing, not wanted, or of another shape.
    """
    _check(x, q, u)
    if _use_kernel(impl, "quantize", x):
        codes, scales, mask = kernel.quantize(x, q, u, interpret=impl == "interpret")
        return MXFP4(codes, scales, q.gain), mask
    return _packed(*reference.quantize(x, q, u), q)


def rotate_quantize(
    x: jax.Array,
    q: Quantizer,
    *,
    signs: jax.Array | None = None,  # [32] of -1 and 1 before the transform
    u: jax.Array | None = None,
    impl: Impl = "auto",
) -> tuple[MXFP4, jax.Array | None]:
    """`quantize(hadamard(x, signs), q)` with blocks of 32, the groups of MXFP4, in one pass where there is a kernel.

    "xla" rotates by a product with the matrix: a code can differ from the reference's where a number is within rounding of a
    boundary between two codes. See `quantize` for the rest.
    """
    _check(x, q, u)
    rotation.check(x, signs, GROUP)
    if _use_kernel(impl, "rotate_quantize", x):
        codes, scales, mask = kernel.quantize(x, q, u, rotated=True, signs=signs, interpret=impl == "interpret")
        return MXFP4(codes, scales, q.gain), mask
    if impl == "reference":
        return _packed(*reference.quantize(rotation.hadamard(x, signs, impl="reference"), q, u), q)
    done = fused.quantize(rotation.hadamard(x, signs, impl="xla"), q, u)
    return _packed(done.codes & 15, done.scales, done.codes > 15 if q.masks else None, q)


def dequantize(x: MXFP4, *, impl: Impl = "auto") -> jax.Array:
    """float32 [..., K]. Exact but for the gain; values that float32 does not hold are infinite, subnormal ones are kept."""
    if _use_kernel(impl, "dequantize", x.codes):
        return kernel.dequantize(x.codes, x.scales, x.gain, interpret=impl == "interpret")
    return reference.dequantize(e2m1.unpack(x.codes), x.scales, x.gain)


def fake_quantize(x: jax.Array, q: Quantizer = OCP, *, u: jax.Array | None = None) -> jax.Array:
    """The values [..., K] float32 that x has in MXFP4: `dequantize(quantize(x))` without the packing, in one pass.

    Numbers below 2^-126 count as zero, and QuEST's sums are in XLA's order, see `fused`.
    """
    _check(x, q, u)
    values = fused.quantize(x, q, u).values
    return values if q.gain == 1.0 else values * q.gain


def matmul(a: MXFP4, b: MXFP4, *, impl: Impl = "auto") -> jax.Array:
    """a [..., K] times b [N, K] transposed, summed in float32: [..., N].

    Products of two elements and two scales are exact in float32; only sums are rounded. "auto" takes the kernel on a TPU where it
    can run (4-bit operands travel, and become bfloat16 on the chip, which holds them exactly), and a product of float32 values
    elsewhere: jax has no block-scaled product of this format for any hardware yet.
    """
    if a.shape[-1] != b.shape[-1] or len(b.shape) != 2:
        raise ValueError(f"a {list(a.shape)} and b {list(b.shape)} cannot be multiplied: give a [..., K] and b [N, K].")
    if _use_kernel(impl, "matmul", a.codes, b.codes):
        gain = a.gain * b.gain
        return kernel.matmul((a.codes, a.scales), (b.codes, b.scales), gain, interpret=impl == "interpret")
    return product.matmul(a, b)


def _packed(
    codes: jax.Array, scales: jax.Array, mask: jax.Array | None, q: Quantizer
) -> tuple[MXFP4, jax.Array | None]:
    return MXFP4(e2m1.pack(codes), scales, q.gain), mask


def _use_kernel(impl: str, op: str, *arrays: jax.Array) -> bool:
    if impl not in get_args(Impl):
        raise UserError(f"{op} impl={impl!r} is not one. Use {' or '.join(map(repr, get_args(Impl)))}.")
    if impl in ("xla", "reference"):
        return False
    reason = kernel.unsupported(*arrays, interpret=impl == "interpret")
    if impl in ("pallas", "interpret") and reason is not None:
        raise UserError(f"{impl} {op} cannot run: {reason}. Or use 'auto', which takes what can run.")
    return reason is None


def _check(x: jax.Array, q: Quantizer, u: jax.Array | None) -> None:
    q.validate()
    e2m1.check(x, GROUP, q.rounding, u)
