"""What TPU kernels do with numbers that lie along the lanes of a vector register: exchanges within groups, and two codes a byte.

A Mosaic kernel cannot reshape lanes or take every second one. So neighbours are met by rolling, and lanes are gathered and spread
by products with matrices of zeros and ones, exact for the integers up to 256 that codes and scales are.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from framework.mesh import platform, split_mesh

__all__ = [
    "DTYPES",
    "LANES",
    "butterfly",
    "collect",
    "group_max",
    "group_sum",
    "pack",
    "partner",
    "real_chunks",
    "rows_in_block",
    "spread",
    "unsupported_here",
]

LANES = 128
DTYPES = ("float32", "bfloat16")
_SUBLANES = 32  # rows of a tile of 8-bit numbers


def unsupported_here(*arrays: jax.Array, interpret: bool) -> str | None:
    """Why no kernel of this package can run on these arrays in this place, and what to change; None if it can."""
    if not interpret and platform() != "tpu":
        return f"it is a TPU kernel, and this program runs on {platform()}"
    mesh = split_mesh()
    if mesh is not None:
        return f"XLA cannot split a kernel over the {mesh.size} devices of the mesh; call it within jax.shard_map"
    for x in arrays:
        manual = getattr(jax.typeof(x), "manual_axis_type", None)
        if getattr(manual, "varying", ()):
            return "kernels do not say along which axes their results vary; use jax.shard_map with check_vma=False"
        if math.prod(x.shape) == 0:
            return f"an array {list(x.shape)} is empty"
    return None


def rows_in_block(rows: int, most: int) -> int:
    """Rows of a block: whole tiles of 8-bit numbers, no more than there are. Rows beyond the end are never written."""
    return min(most, -(-rows // _SUBLANES) * _SUBLANES)


def real_chunks(columns: int, block: int, chunk: int, place: jax.Array) -> jax.Array | int:
    """Chunks with a real column in block number `place`, of columns that are cut into blocks and these into chunks."""
    if columns <= block:
        return pl.cdiv(columns, chunk)
    return jnp.minimum(block // chunk, (columns - place * block + chunk - 1) // chunk)


def _lane(shape: tuple[int, ...], axis: int = 1) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def partner(x: jax.Array, stride: int) -> jax.Array:
    """x [R, L] -> x[:, lane xor stride], for a power of two `stride`; L is a multiple of its double."""
    lanes = x.shape[1]
    ahead, behind = pltpu.roll(x, lanes - stride, 1), pltpu.roll(x, stride, 1)
    return jnp.where(_lane(x.shape) & stride == 0, ahead, behind)


def group_sum(x: jax.Array, size: int = 32) -> jax.Array:
    """Sum over each `size` lanes, in every lane of the group; in the order of `mxfp4.reference.sum_by_halves`."""
    while size > 1:
        size //= 2
        x = x + partner(x, size)
    return x


def group_max(x: jax.Array, size: int = 32) -> jax.Array:
    """Maximum over each `size` lanes, in every lane of the group."""
    while size > 1:
        size //= 2
        x = jnp.maximum(x, partner(x, size))
    return x


def butterfly(x: jax.Array, size: int) -> jax.Array:
    """x [R, L] float32 times the Hadamard matrix over each `size` lanes, not normalised; in the order of `hadamard.reference`."""
    half = size // 2
    while half:
        other = partner(x, half)
        x = jnp.where(_lane(x.shape) & half == 0, x + other, other - x)
        half //= 2
    return x


def collect(x: jax.Array, size: int, first: jax.Array | int) -> jax.Array:
    """x [R, L], an integer up to 256 of each `size` lanes -> float32 [R, 128] with that of group g in lane first + g, else 0."""
    source, target = (_lane((x.shape[1], LANES), axis) for axis in (0, 1))
    return _product(x, (source % size == 0) & (source // size + first == target))


def spread(x: jax.Array, lanes: int, size: int, first: jax.Array | int) -> jax.Array:
    """x [R, 128], integers up to 256 -> int32 [R, lanes]: lane l has that of lane first + l // size."""
    source, target = (_lane((x.shape[1], lanes), axis) for axis in (0, 1))
    return _product(x, source == target // size + first).astype(jnp.int32)


def pack(codes: jax.Array) -> jax.Array:
    """Codes [R, 256] int32 -> uint8 [R, 128], two a byte: the one of even number is in the low four bits."""
    pairs = codes + (partner(codes, 1) << 4)  # right in even lanes
    return collect(pairs, 2, 0).astype(jnp.int32).astype(jnp.uint8)


def _product(x: jax.Array, selection: jax.Array) -> jax.Array:
    # bfloat16 has eight bits: exact for these numbers, and so is a sum with one term that is not zero.
    ones = selection.astype(jnp.float32).astype(jnp.bfloat16)
    return jnp.dot(x.astype(jnp.float32).astype(jnp.bfloat16), ones, preferred_element_type=jnp.float32)
