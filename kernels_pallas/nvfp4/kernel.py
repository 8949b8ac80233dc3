"""NVFP4 on TPUs: conversions that read and write each number once. How blocks and chunks lie: see `kernels_pallas.mxfp4.kernel`.

A block is some rows of 2048 columns, whose scales fill the lanes of a register. Each row brings its scale along, so that one for
the tensor and one for each row are the same to the kernel.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels_pallas import lanes
from kernels_pallas.float_bits import absolute_bits
from kernels_pallas.nvfp4 import reference

__all__ = ["dequantize", "quantize", "unsupported"]

GROUP = reference.GROUP
_BLOCK = GROUP * lanes.LANES
_CHUNK = 2 * lanes.LANES
_ROWS = 128  # of a block: 1 MiB of float32, of which some are in memory at a time


def unsupported(*arrays: jax.Array, interpret: bool = False) -> str | None:
    """Why the kernels cannot run on these arrays, and what to change; None if they can. Any number of rows and groups will do."""
    for x in arrays:
        if x.dtype.name not in (*lanes.DTYPES, "uint8"):
            return f"it takes {' and '.join(lanes.DTYPES)}, and got {x.dtype}"
    return lanes.unsupported_here(*arrays, interpret=interpret)


def quantize(
    x: jax.Array,  # [..., K]
    scale: jax.Array,  # float32 [] or [..., 1]
    rounding: str,
    u: jax.Array | None = None,  # [..., K] for stochastic rounding
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Packed codes uint8 [..., K / 2], scales uint8 [..., K / 16]: those of `reference`, to the bit. There is no gradient."""
    *leading, columns = x.shape
    x, u, scale = jax.lax.stop_gradient(
        (x.reshape(-1, columns), None if u is None else u.reshape(-1, columns), _by_row(scale, leading))
    )
    rows, width = _block(x)

    def kernel(x_ref, scale_ref, u_ref, codes_ref, scales_ref):
        factor = scale_ref[...]

        def step(place, scales):
            at = _at(place, _CHUNK)
            group = x_ref[:, at].astype(jnp.float32)
            largest = lanes.group_max(absolute_bits(group), GROUP)
            noise = None if u_ref is None else u_ref[:, at].astype(jnp.float32)
            codes, scale = reference.convert(group, largest, factor, rounding, noise)
            codes_ref[:, _at(place, lanes.LANES)] = lanes.pack(codes)
            return scales + lanes.collect(scale, GROUP, place * (_CHUNK // GROUP))

        chunks = lanes.real_chunks(columns, width, _CHUNK, pl.program_id(1))
        scales = jax.lax.fori_loop(0, chunks, step, jnp.zeros((rows, lanes.LANES), jnp.float32))
        scales_ref[...] = scales.astype(jnp.int32).astype(jnp.uint8)

    wide = _tile(rows, width)
    shape = lambda size: jax.ShapeDtypeStruct((x.shape[0], size), jnp.uint8)  # noqa: E731
    codes, scales = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(x.shape[0], rows), pl.cdiv(columns, width)),
        in_specs=[wide, _column(rows), None if u is None else wide],
        out_specs=[_tile(rows, width // 2), _tile(rows, lanes.LANES)],
        out_shape=[shape(columns // 2), shape(columns // GROUP)],
        compiler_params=_PARALLEL,
        interpret=interpret,
        name="nvfp4_quantize",
    )(x, scale, u)
    return codes.reshape(*leading, -1), scales.reshape(*leading, -1)


def dequantize(codes: jax.Array, scales: jax.Array, scale: jax.Array, *, interpret: bool = False) -> jax.Array:
    """Packed codes uint8 [..., K / 2], scales uint8 [..., K / 16] -> float32 [..., K], as `reference.dequantize` to the bit."""
    *leading, columns = *codes.shape[:-1], 2 * codes.shape[-1]
    codes, scales = codes.reshape(-1, columns // 2), scales.reshape(-1, columns // GROUP)
    reciprocal = _by_row(1.0 / scale, leading)  # not in the kernel, whose quotients may be others
    rows, width = _block(codes, columns)

    def kernel(codes_ref, scales_ref, reciprocal_ref, x_ref):
        all_scales = scales_ref[...].astype(jnp.int32)
        factor = reciprocal_ref[...]

        def step(place, _):
            pairs = lanes.spread(codes_ref[:, _at(place, lanes.LANES)].astype(jnp.int32), _CHUNK, 2, 0)
            even = jax.lax.broadcasted_iota(jnp.int32, pairs.shape, 1) % 2 == 0
            s = reference.e4m3_value(lanes.spread(all_scales, _CHUNK, GROUP, place * (_CHUNK // GROUP)))
            x_ref[:, _at(place, _CHUNK)] = reference.value_of(jnp.where(even, pairs & 15, pairs >> 4), s) * factor

        jax.lax.fori_loop(0, lanes.real_chunks(columns, width, _CHUNK, pl.program_id(1)), step, None)

    x = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(codes.shape[0], rows), pl.cdiv(columns, width)),
        in_specs=[_tile(rows, width // 2), _tile(rows, lanes.LANES), _column(rows)],
        out_specs=_tile(rows, width),
        out_shape=jax.ShapeDtypeStruct((codes.shape[0], columns), jnp.float32),
        compiler_params=_PARALLEL,
        interpret=interpret,
        name="nvfp4_dequantize",
    )(codes, scales, reciprocal)
    return x.reshape(*leading, columns)


_PARALLEL = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"))


def _by_row(scale: jax.Array, leading: list[int]) -> jax.Array:
    return jnp.broadcast_to(scale, (*leading, 1)).reshape(-1, 1)


def _block(x: jax.Array, columns: int | None = None) -> tuple[int, int]:
    """Rows and columns of a block of x [M, K], or of something as long with so many columns."""
    columns = x.shape[1] if columns is None else columns
    return lanes.rows_in_block(x.shape[0], _ROWS), min(_BLOCK, pl.cdiv(columns, _CHUNK) * _CHUNK)


def _tile(rows: int, columns: int) -> pl.BlockSpec:
    return pl.BlockSpec((rows, columns), lambda i, j: (i, j))


def _column(rows: int) -> pl.BlockSpec:
    return pl.BlockSpec((rows, 1), lambda i, j: (i, 0))


def _at(place: jax.Array, size: int):
    return pl.ds(pl.multiple_of(place * size, size), size)
