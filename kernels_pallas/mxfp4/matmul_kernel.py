"""The product of two MXFP4 tensors on TPUs: four bits a number come from memory, and become bfloat16 beside the matrix unit.

An element times its scale is exact in bfloat16, and so are products of two in float32; sums over even and over odd elements are
made apart, so that codes need not be put in order.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels_pallas import lanes
from kernels_pallas.float_bits import INFINITE, as_float
from kernels_pallas.mxfp4 import reference

__all__ = ["matmul"]

GROUP = reference.GROUP
_BLOCK = GROUP * lanes.LANES  # of the summed dimension: the scales fill the lanes of a register
_NAN = 0x7FC00000
_BYTES = 256  # pairs of elements that are unpacked at a time
_SIDE = 512  # of a block of the result: a number that was unpacked is used so often


def matmul(
    a: tuple[jax.Array, jax.Array],  # codes uint8 [..., K / 2], scales uint8 [..., K / 32]
    b: tuple[jax.Array, jax.Array],  # the same of [N, K]
    gain: float = 1.0,
    *,
    interpret: bool = False,
) -> jax.Array:
    """a times b transposed times gain, float32 [..., N]. Elements below 2^-126 are zero, as in all arithmetic of a TPU."""
    *leading, columns = *a[0].shape[:-1], 2 * a[0].shape[-1]
    operands = [x.reshape(-1, x.shape[-1]) for x in (*a, *b)]
    m, n = operands[0].shape[0], operands[2].shape[0]
    rows = lanes.rows_in_block(m, _SIDE)
    outs = min(_SIDE, pl.cdiv(n, lanes.LANES) * lanes.LANES)
    width = min(_BLOCK, pl.cdiv(columns, 2 * _BYTES) * 2 * _BYTES)
    ragged = columns % (2 * _BYTES) != 0

    def kernel(a_ref, a_scales_ref, b_ref, b_scales_ref, y_ref):
        block = pl.program_id(2)

        @pl.when(block == 0)
        def _():
            y_ref[...] = jnp.zeros_like(y_ref)

        def step(place, _):
            at = pl.ds(pl.multiple_of(place * _BYTES, _BYTES), _BYTES)
            left = (
                columns // 2 - block * (width // 2) - place * _BYTES if ragged else None
            )  # bytes of the array from here
            evens, odds = zip(
                *(
                    unpack(codes[:, at].astype(jnp.int32), scales[...].astype(jnp.int32), place, left)
                    for codes, scales in ((a_ref, a_scales_ref), (b_ref, b_scales_ref))
                ),
                strict=True,
            )
            y_ref[...] += _product(*evens) + _product(*odds)

        jax.lax.fori_loop(0, lanes.real_chunks(columns, width, 2 * _BYTES, block), step, None)
        if gain != 1.0:

            @pl.when(block == pl.num_programs(2) - 1)
            def _():
                y_ref[...] *= gain

    def tile(height: int, size: int, of_result: int) -> pl.BlockSpec:
        return pl.BlockSpec((height, size), lambda *place: (place[of_result], place[2]))

    y = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(m, rows), pl.cdiv(n, outs), pl.cdiv(columns, width)),
        in_specs=[tile(height, size, i) for i, height in enumerate((rows, outs)) for size in (width // 2, lanes.LANES)],
        out_specs=pl.BlockSpec((rows, outs), lambda i, j, _: (i, j)),
        out_shape=jax.ShapeDtypeStruct((m, n), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name="mxfp4_matmul",
    )(*operands)
    return y.reshape(*leading, n)


def unpack(
    pairs: jax.Array, scales: jax.Array, place: jax.Array, left: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Bytes [R, 256] of chunk `place`, scale codes [R, 128] of the block -> even and odd elements, each bfloat16 [R, 256].

    `left`: from this byte on, there is nothing, and elements are zero.
    """
    scale = lanes.spread(scales, _BYTES, GROUP // 2, place * (2 * _BYTES // GROUP))
    real = None if left is None else jax.lax.broadcasted_iota(jnp.int32, pairs.shape, 1) < left
    return _element(pairs & 15, scale, real), _element(pairs >> 4, scale, real)


def _element(code: jax.Array, scale: jax.Array, real: jax.Array | None) -> jax.Array:
    """By the bits: the exponent of a float32 is that of the scale plus that of the element."""
    magnitude = code & 7
    half = (scale - 1) << 22  # half the scale, which is code 1; codes from 2 on go up in steps of half an octave
    bits = jnp.where(magnitude > 1, half + (magnitude << 21), jnp.where(magnitude == 1, half, 0))
    bits = (
        jnp.where(bits < 0x400000, 0, jnp.minimum(bits, INFINITE >> 1)) << 1
    )  # the sum may need a bit more than there is
    bits = jnp.where(scale == reference.NAN_SCALE, _NAN, bits) | ((code & 8) << 28)
    if real is not None:
        bits = jnp.where(real, bits, 0)
    return as_float(bits).astype(jnp.bfloat16)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
