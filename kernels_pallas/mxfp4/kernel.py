"""MXFP4 on TPUs: conversions that read and write each number once. The product is in `matmul_kernel`.

A block is some rows of 4096 columns, whose scales fill the lanes of a register; a chunk of it is 256 columns, whose codes do.
Blocks that reach beyond the array are cut by Pallas; groups do not know of each other, so that what is read there harms nobody.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels_pallas import lanes
from kernels_pallas.float_bits import absolute_bits
from kernels_pallas.hadamard.kernel import rotate
from kernels_pallas.mxfp4 import reference
from kernels_pallas.mxfp4.matmul_kernel import matmul
from kernels_pallas.mxfp4.quantizer import Quantizer

__all__ = ["dequantize", "matmul", "quantize", "unsupported"]

GROUP = reference.GROUP
_BLOCK = GROUP * lanes.LANES
_CHUNK = 2 * lanes.LANES
_ROWS = 128  # of a block: 2 MiB of float32, of which some are in memory at a time


def unsupported(*arrays: jax.Array, interpret: bool = False) -> str | None:
    """Why the kernels cannot run on these arrays, and what to change; None if they can.

    Any number of rows and of groups will do. Codes and scales (uint8) are as good as float32 and bfloat16.
    """
    for x in arrays:
        if x.dtype.name not in (*lanes.DTYPES, "uint8"):
            return f"it takes {' and '.join(lanes.DTYPES)}, and got {x.dtype}"
    return lanes.unsupported_here(*arrays, interpret=interpret)


def quantize(
    x: jax.Array,  # [..., K]
    q: Quantizer,
    u: jax.Array | None = None,  # [..., K] for stochastic rounding
    *,
    rotated: bool = False,
    signs: jax.Array | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Packed codes uint8 [..., K / 2], scales uint8 [..., K / 32], mask bool [..., K] if `q.masks`: the reference's, to the bit.

    With `rotated`, those of the Hadamard transform of x with these signs [32]. There is no gradient.
    """
    *leading, columns = x.shape
    x, u, signs = jax.lax.stop_gradient((x.reshape(-1, columns), None if u is None else u.reshape(-1, columns), signs))
    rows, width = _block(x)

    def kernel(x_ref, signs_ref, u_ref, codes_ref, scales_ref, mask_ref):
        factors = None if signs_ref is None else signs_ref[...]

        def step(place, scales):
            at = _at(place, _CHUNK)
            group = x_ref[:, at].astype(jnp.float32)
            if rotated:
                group = rotate(group, factors, GROUP, inverse=False)
            largest = lanes.group_max(absolute_bits(group))
            noise = None if u_ref is None else u_ref[:, at].astype(jnp.float32)
            codes, scale, mask = reference.convert(group, largest, lanes.group_sum, q, noise)
            codes_ref[:, _at(place, lanes.LANES)] = lanes.pack(codes)
            if mask is not None:
                mask_ref[:, at] = mask.astype(jnp.int32).astype(jnp.uint8)
            return scales + lanes.collect(scale, GROUP, place * (_CHUNK // GROUP))

        chunks = lanes.real_chunks(columns, width, _CHUNK, pl.program_id(1))
        scales = jax.lax.fori_loop(0, chunks, step, jnp.zeros((rows, lanes.LANES), jnp.float32))
        scales_ref[...] = scales.astype(jnp.int32).astype(jnp.uint8)

    wide, packed, few = (_tile(rows, size) for size in (width, width // 2, lanes.LANES))
    shape = lambda size: jax.ShapeDtypeStruct((x.shape[0], size), jnp.uint8)  # noqa: E731
    codes, scales, mask = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(x.shape[0], rows), pl.cdiv(columns, width)),
        in_specs=[
            wide,
            None if signs is None else pl.BlockSpec((1, _CHUNK), lambda i, j: (0, 0)),
            None if u is None else wide,
        ],
        out_specs=[packed, few, wide if q.masks else None],
        out_shape=[shape(columns // 2), shape(columns // GROUP), shape(columns) if q.masks else None],
        compiler_params=_PARALLEL,
        interpret=interpret,
        name="mxfp4_rotate_quantize" if rotated else "mxfp4_quantize",
    )(x, None if signs is None else jnp.tile(signs.astype(jnp.float32), _CHUNK // GROUP)[None, :], u)
    codes, scales = codes.reshape(*leading, -1), scales.reshape(*leading, -1)
    return codes, scales, None if mask is None else (mask != 0).reshape(*leading, columns)


def dequantize(codes: jax.Array, scales: jax.Array, gain: float = 1.0, *, interpret: bool = False) -> jax.Array:
    """Packed codes uint8 [..., K / 2], scales uint8 [..., K / 32] -> float32 [..., K], as `reference.dequantize` to the bit."""
    *leading, columns = *codes.shape[:-1], 2 * codes.shape[-1]
    codes, scales = codes.reshape(-1, columns // 2), scales.reshape(-1, columns // GROUP)
    rows, width = _block(codes, columns)

    def kernel(codes_ref, scales_ref, x_ref):
        all_scales = scales_ref[...].astype(jnp.int32)

        def step(place, _):
            pairs = lanes.spread(codes_ref[:, _at(place, lanes.LANES)].astype(jnp.int32), _CHUNK, 2, 0)
            even = jax.lax.broadcasted_iota(jnp.int32, pairs.shape, 1) % 2 == 0
            scale = lanes.spread(all_scales, _CHUNK, GROUP, place * (_CHUNK // GROUP))
            x_ref[:, _at(place, _CHUNK)] = reference.values(jnp.where(even, pairs & 15, pairs >> 4), scale, gain)

        jax.lax.fori_loop(0, lanes.real_chunks(columns, width, _CHUNK, pl.program_id(1)), step, None)

    x = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(codes.shape[0], rows), pl.cdiv(columns, width)),
        in_specs=[_tile(rows, width // 2), _tile(rows, lanes.LANES)],
        out_specs=_tile(rows, width),
        out_shape=jax.ShapeDtypeStruct((codes.shape[0], columns), jnp.float32),
        compiler_params=_PARALLEL,
        interpret=interpret,
        name="mxfp4_dequantize",
    )(codes, scales)
    return x.reshape(*leading, columns)


_PARALLEL = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"))


def _block(x: jax.Array, columns: int | None = None) -> tuple[int, int]:
    """Rows and columns of a block of x [M, K], or of something as long with so many columns."""
    columns = x.shape[1] if columns is None else columns
    return lanes.rows_in_block(x.shape[0], _ROWS), min(_BLOCK, pl.cdiv(columns, _CHUNK) * _CHUNK)


def _tile(rows: int, columns: int) -> pl.BlockSpec:
    return pl.BlockSpec((rows, columns), lambda i, j: (i, j))


def _at(place: jax.Array, size: int):
    return pl.ds(pl.multiple_of(place * size, size), size)
