"""Attention over pages on TPUs: jax's own ragged paged attention, which reads the pages that a row has and no others."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention
from jax.sharding import AbstractMesh

from framework.mesh import platform, spec

__all__ = ["LANES", "attention", "unsupported", "unsupported_shape"]

LANES = 128  # the kernel's heads are exactly as wide as a vector register
_BITS = {"float32": 32, "bfloat16": 16}
_QUERIES = 32  # a block of queries, that of most entries in jax's table of tuned sizes
_SLOTS = 512  # a block of keys and values: about as many tokens ...
_PAGES = 16  # ... in at most as many pages, because the scalar core has few registers for their numbers
_SCALARS = 768 * 2**10  # bytes of the table; it lies in the scalar memory, 1 MiB, with what the kernel needs beside it


def unsupported(q: jax.Array, kv_pages: jax.Array, table: jax.Array, mesh: AbstractMesh | None) -> str | None:
    """Why the kernel cannot run on these arrays, and what to change; None if it can."""
    if platform() != "tpu":
        return f"it is a TPU kernel, and this program runs on {platform()}"
    return unsupported_shape(q, kv_pages, table, mesh)


def unsupported_shape(q: jax.Array, kv_pages: jax.Array, table: jax.Array, mesh: AbstractMesh | None) -> str | None:
    """The same on any platform: what the kernel cannot do at all."""
    if q.dtype != kv_pages.dtype or q.dtype.name not in _BITS:
        return f"it takes {' or '.join(_BITS)}, and q and kv_pages are {q.dtype} and {kv_pages.dtype}"
    if kv_pages.shape[4] != LANES:
        return (
            f"heads are {kv_pages.shape[4]} wide in kv_pages, and it takes {LANES}: pad narrower ones with zeros "
            "(kernels_pallas.paged_attention.head_width), wider ones cannot be"
        )
    combined = kv_pages.shape[3] // _parts("kv_heads", mesh)
    tiles, rest = divmod(combined, 32 // _BITS[q.dtype.name])
    if rest or not (tiles in (1, 2, 4) or tiles % 8 == 0):
        return (
            f"a device has {combined // 2} key/value heads, which do not fill the tiles of its memory; "
            "1, 2, 4, 8, 16 and so on do (change mesh.tensor)"
        )
    rows, pages = table.shape[0] // _parts("batch", mesh), table.shape[1]
    size = rows * -(-pages // LANES) * LANES * 4
    if size > _SCALARS:
        return (
            f"a table of {rows} rows x {pages} pages takes {size} bytes of its scalar memory (rows of a multiple of {LANES}), and "
            f"{_SCALARS} fit; use larger pages or fewer rows"
        )
    return None


def attention(
    q: jax.Array,
    kv_pages: jax.Array,
    table: jax.Array,
    places: jax.Array,
    *,
    window: int | None,
    mesh: AbstractMesh | None = None,
) -> jax.Array:
    """q [B, T, H, h]; kv_pages [R, P, page, 2 K, 128]; table [B, M]; places [B, T] -> [B, T, H, h]. See `reference.attention`.

    The kernel is a closed box that XLA cannot split: over a mesh each device runs it on its own shards and heads.
    """
    run = functools.partial(_attention, window=window)
    if mesh is None:
        return run(q, kv_pages, table, places)
    heads, rows = spec("batch", None, "heads", None), spec("batch", None)
    pool = spec("batch", None, None, "kv_heads", None)
    return jax.shard_map(
        run,
        in_specs=(heads, pool, rows, rows),
        out_specs=heads,
        check_vma=False,  # kernels do not say along which axes their results vary
    )(q, kv_pages, table, places)


def _attention(q: jax.Array, kv_pages: jax.Array, table: jax.Array, places: jax.Array, *, window: int | None):
    """What one device does. The kernel wants the queries of row after row without gaps, and how many each row has.

    They are the last ones of the row, so that their places follow from the number of slots that the row has.
    """
    batch, length, heads, size = q.shape
    shards, pages, page, combined, width = kv_pages.shape
    shard = jnp.arange(batch, dtype=jnp.int32) // (batch // shards)
    table = table + shard[:, None] * pages  # within all pages of the device
    real = places >= 0
    # A row without queries gets one at its first place: for a row with none the kernel leaves a copy under way.
    idle = ~jnp.any(real, axis=1, keepdims=True)
    used = real | (idle & (jnp.arange(length) == 0))
    slots = jnp.maximum(jnp.max(places, axis=1) + 1, 1)
    ends = jnp.cumsum(jnp.sum(used, axis=1, dtype=jnp.int32))
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])

    flat = jnp.pad(q, ((0, 0), (0, 0), (0, 0), (0, width - size))).reshape(batch * length, heads, width)
    if length > 1:
        flat = flat[jnp.argsort(~used.reshape(-1), stable=True)]
    out = ragged_paged_attention(
        flat,
        kv_pages.reshape(shards * pages, page, combined, width),
        slots,
        table,
        starts,
        jnp.full(1, batch, jnp.int32),
        sm_scale=size**-0.5,
        sliding_window=window,
        num_kv_pages_per_block=min(table.shape[1], _PAGES, max(_SLOTS // page, 1)),
        num_queries_per_block=min(batch * length, _QUERIES),
    )
    if length > 1:
        # Where a query went. Padding reads what some other one got, and drops it below.
        out = out[jnp.maximum(jnp.cumsum(used.reshape(-1)) - 1, 0)]
    out = out.reshape(batch, length, heads, width)[..., :size]
    return jnp.where(real[..., None, None], out, 0)


def _parts(logical: str, mesh: AbstractMesh | None) -> int:
    """Parts that the mesh splits a dimension of this name into."""
    (axes,) = spec(logical)
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return 1 if mesh is None else math.prod(mesh.shape[name] for name in names)
