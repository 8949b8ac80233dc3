"""Attention of a few new tokens a row over keys and values that lie in pages, by the best implementation of the platform.

    out = paged_attention(q, kv_pages, table, places, window=None)

A pool of pages holds the keys and values of many rows; the table says which pages are whose, so that a row takes the memory of the
tokens that it has, and rows with the same beginning share its pages. `models.decoder.paged` fills the pool.
"""

from typing import Literal, get_args

import jax

from framework.errors import UserError
from framework.mesh import check_split, platform, split_mesh
from kernels_pallas.paged_attention import reference, tpu

__all__ = ["Impl", "head_width", "paged_attention"]

Impl = Literal["auto", "tpu", "reference"]


def paged_attention(
    q: jax.Array,  # [B, T, H, h]
    kv_pages: jax.Array,  # [R, P, page, 2 K, w]: keys of head j in 2 j, values in 2 j + 1; w >= h, see `head_width`
    table: jax.Array,  # [B, M] int32, the pages of each row in order, counted within the row's shard
    places: jax.Array,  # [B, T] int32, where in its row a query stands, counted from 0; -1 is padding
    *,
    window: int | None = None,  # tokens that a token looks at, itself included; None: all earlier ones
    impl: Impl = "auto",
) -> jax.Array:
    """The query at place p looks at the row's slots s <= p, with a window p - s < window: [B, T, H, h]. Softmax in float32.

    The slots up to a row's last place must be written. Real places of a row count up by one. Padding comes out as zeros. What pages
    hold beyond the last place of their row, also nan, changes nothing.

    R is the number of shards: rows b with the same b // (B / R) have their pages in one shard. Under `with jax.set_mesh(mesh)` the
    shards are split over the batch axes and heads over theirs; nothing crosses from one to another.

    "auto" takes jax's ragged paged attention on a TPU where it can run, and the reference otherwise.

    Raises:
        UserError: an implementation asked for by name cannot run here, or the mesh does not divide heads or shards.
        ValueError: arrays that do not fit together.
    """
    if impl not in get_args(Impl):
        raise UserError(f"paged attention impl={impl!r} is not one. Use {' or '.join(map(repr, get_args(Impl)))}.")
    _check(q, kv_pages, table, places)
    mesh = split_mesh()
    if mesh is not None:
        check_split("paged attention: queries [B, T, H, h]", q.shape, ("batch", None, "heads", None), mesh)
        shards, _, _, combined, _ = kv_pages.shape  # keys and values of a head stay together
        check_split("paged attention: shards and heads [R, K]", (shards, combined // 2), ("batch", "kv_heads"), mesh)
    reason = tpu.unsupported(q, kv_pages, table, mesh)
    if impl == "tpu" and reason is not None:
        raise UserError(f"tpu paged attention cannot run: {reason}. Or use 'auto', which takes what can run.")
    if impl == "reference" or reason is not None:
        return reference.attention(q, kv_pages, table, places, window=window)
    return tpu.attention(q, kv_pages, table, places, window=window, mesh=mesh)


def head_width(size: int) -> int:
    """Width of a head of `size` in a pool on this platform.

    A TPU's kernel wants whole registers; its memory is laid out in them anyway, so that this takes no more of it.
    """
    return tpu.LANES if platform() == "tpu" and size < tpu.LANES else size


def _check(q: jax.Array, kv_pages: jax.Array, table: jax.Array, places: jax.Array) -> None:
    got = f"q {list(q.shape)}, kv_pages {list(kv_pages.shape)}, table {list(table.shape)}, places {list(places.shape)}"
    if (q.ndim, kv_pages.ndim, table.ndim) != (4, 5, 2) or places.shape != q.shape[:2] or len(table) != len(q):
        raise ValueError(
            f"Expected q [B, T, H, h], kv_pages [R, P, page, 2 K, w], table [B, M], places [B, T]; got {got}."
        )
    if len(q) % len(kv_pages):
        raise ValueError(f"The B={len(q)} rows cannot be in R={len(kv_pages)} shards of equal size; got {got}.")
    combined, width = kv_pages.shape[3:]
    if combined % 2 or q.shape[2] % (combined // 2) or width < q.shape[3]:
        raise ValueError(
            f"kv_pages need an even number 2 K of heads with K a divisor of H={q.shape[2]}, each at least h={q.shape[3]} "
            f"wide; got {got}."
        )
