"""The transform on TPUs: sums and differences of lanes, each number read and written once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels_pallas import lanes

__all__ = ["hadamard", "rotate", "unsupported"]

_CHUNK = 256  # lanes that are worked on at a time, so that what lies between stays small
_COLUMNS = 2048  # of a block
_ROWS = 256
_LARGEST_BLOCK = 1024


def unsupported(x: jax.Array, block: int, *, interpret: bool = False) -> str | None:
    """Why the kernel cannot run on x [..., K], and what to change; None if it can. Any number of rows and of blocks will do."""
    if x.dtype.name not in lanes.DTYPES:
        return f"it takes {' and '.join(lanes.DTYPES)}, and x is {x.dtype}"
    if block > _LARGEST_BLOCK:
        return f"block={block} is more than it holds at a time; use at most {_LARGEST_BLOCK}"
    return lanes.unsupported_here(x, interpret=interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def hadamard(
    x: jax.Array, signs: jax.Array | None, block: int, inverse: bool = False, interpret: bool = False
) -> jax.Array:
    """As `reference.hadamard`, to the bit. Its gradient is the transform the other way round."""
    return _call(x, signs, block, inverse, interpret)


def _forward(x: jax.Array, signs: jax.Array | None, block: int, inverse: bool, interpret: bool):
    return _call(x, signs, block, inverse, interpret), (x, signs)


def _backward(
    block: int, inverse: bool, interpret: bool, saved: tuple[jax.Array, jax.Array | None], g: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    x, signs = saved
    dx = _call(g, signs, block, not inverse, interpret).astype(x.dtype)
    if signs is None or not jnp.issubdtype(signs.dtype, jnp.floating):
        return dx, None
    # y = (x s) H or (x H) s, and H is symmetric: what the signs multiply, times what comes to that place.
    plain = _call(x if inverse else g, None, block, False, interpret)
    products = plain * (g if inverse else x).astype(jnp.float32)
    return dx, jnp.sum(products.reshape(-1, block), axis=0).astype(signs.dtype)


hadamard.defvjp(_forward, _backward)


def rotate(x: jax.Array, signs: jax.Array | None, block: int, inverse: bool) -> jax.Array:
    """The transform of a chunk [R, L] float32 within a kernel; signs [1, L]."""
    if signs is not None and not inverse:
        x = x * signs
    x = lanes.butterfly(x, block) * np.float32(block**-0.5)
    return x * signs if signs is not None and inverse else x


def _call(x: jax.Array, signs: jax.Array | None, block: int, inverse: bool, interpret: bool) -> jax.Array:
    shape, columns = x.shape, x.shape[-1]
    x = x.reshape(-1, columns)
    chunk = max(_CHUNK, block)
    rows = lanes.rows_in_block(x.shape[0], _ROWS * _CHUNK // chunk)
    width = min(_COLUMNS, pl.cdiv(columns, chunk) * chunk)
    tile = pl.BlockSpec((rows, width), lambda i, j: (i, j))

    def kernel(x_ref, signs_ref, y_ref):
        factors = None if signs_ref is None else signs_ref[...]

        def step(place, _):
            at = pl.ds(pl.multiple_of(place * chunk, chunk), chunk)
            y_ref[:, at] = rotate(x_ref[:, at].astype(jnp.float32), factors, block, inverse)

        jax.lax.fori_loop(0, lanes.real_chunks(columns, width, chunk, pl.program_id(1)), step, None)

    y = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(x.shape[0], rows), pl.cdiv(columns, width)),
        in_specs=[tile, None if signs is None else pl.BlockSpec((1, chunk), lambda i, j: (0, 0))],
        out_specs=tile,
        out_shape=jax.ShapeDtypeStruct(x.shape, jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        interpret=interpret,
        name="hadamard",
    )(x, None if signs is None else jnp.tile(signs.astype(jnp.float32), chunk // block)[None, :])
    return y.reshape(shape)
