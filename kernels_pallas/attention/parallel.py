"""Attention on a mesh: rows over `data` and `fsdp`, heads over `tensor`, the length of a row over `context`.

The kernels of a platform are closed boxes that XLA cannot split, so each device runs one on its own part, in jax.shard_map.
Over `context` every device has the queries of its part of the row, and

- "gathered": fetches the keys and values of the whole row, once a layer. Their gradients are summed as they are sent back.
  Heads of keys are few in grouped-query attention, and all but a device's own queries stay where they are.
- "ring": fetches one part after the other and never holds all of them (see `kernels_pallas.attention.ring`).

Both are exact. Parts are contiguous, so with a causal mask the last device has up to twice the work of the average one.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding

from framework.mesh import check_split, spec
from kernels_pallas.attention import cudnn, offset, ring, splash

__all__ = ["ContextImpl", "attention", "check"]

ContextImpl = Literal["gathered", "ring"]
AXIS = spec("length")[0]


def check(q: jax.Array, k: jax.Array, mesh: AbstractMesh) -> None:
    """Refuse heads, rows and lengths that cannot be dealt out evenly; the error says what to change."""
    check_split("attention: queries [B, T, H, h]", q.shape, ("batch", "length", "heads", None), mesh)
    check_split("attention: keys [B, T, K, h]", k.shape, ("batch", "length", "kv_heads", None), mesh)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    window: int | None,
    impl: Literal["blocked", "splash", "cudnn"],
    context_impl: ContextImpl,
    mesh: AbstractMesh,
    interpret: bool = False,
) -> jax.Array:
    """q [B, T, H, h]; k, v [B, T, K, h]; segment_ids [B, T], whole arrays -> [B, T, H, h]. See `reference.attention`."""
    check(q, k, mesh)
    heads, kv_heads = spec("batch", "length", "heads", None), spec("batch", "length", "kv_heads", None)
    segments = () if segment_ids is None else (segment_ids,)
    kernel, kernel_spec = (), ()
    if impl == "splash":
        context = mesh.shape[AXIS]
        padded = splash.pad_length(q.shape[1] // context) * context
        made = splash.make_kernel(_local_heads(q, mesh), padded, window, context, interpret)
        # What a device knows of the mask is about the blocks of its own queries.
        kernel, kernel_spec = (made,), (made.manual_sharding_spec(NamedSharding(mesh, spec(None, "length"))),)
        run = _splash
    elif impl == "cudnn":
        run = _cudnn
    else:
        run = _ring if context_impl == "ring" else _gathered

    def part(q, k, v, *rest):
        return run(mesh, window, q, k, v, rest[0] if segments else None, *rest[len(segments) :])

    return jax.shard_map(
        part,
        in_specs=(heads, kv_heads, kv_heads, *(spec("batch", "length") for _ in segments), *kernel_spec),
        out_specs=heads,
        check_vma=False,  # kernels do not say along which axes their results vary
    )(q, k, v, *segments, *kernel)


def _local_heads(q: jax.Array, mesh: AbstractMesh) -> int:
    (axis,) = spec("heads")
    return q.shape[2] // mesh.shape[axis]


def _gather(x: jax.Array, axis: int) -> jax.Array:
    return jax.lax.all_gather(x, AXIS, axis=axis, tiled=True)


def _ones(x: jax.Array) -> jax.Array:
    return jnp.ones(x.shape[:2], jnp.int32)


def _splash(mesh, window, q, k, v, segment_ids, kernel) -> jax.Array:
    gather: Callable | None = _gather if mesh.shape[AXIS] > 1 else None
    return splash.attention_over(kernel, q, k, v, segment_ids, gather)


def _cudnn(mesh, window, q, k, v, segment_ids) -> jax.Array:
    if mesh.shape[AXIS] == 1:
        return cudnn.attention(q, k, v, segment_ids, window=window)
    own = _ones(q) if segment_ids is None else segment_ids
    first = jax.lax.axis_index(AXIS) * q.shape[1]
    keys, values, key_segments = (_gather(x, 1) for x in (k, v, own))
    return cudnn.attention(q, keys, values, own, window=window, first_query=first, key_segments=key_segments)


def _own(q, k, v, segment_ids) -> tuple[offset.Queries, offset.Keys]:
    """What a device has of the row before anything is fetched."""
    segment_ids = _ones(q) if segment_ids is None else segment_ids
    index = jax.lax.axis_index(AXIS) * q.shape[1] + jnp.arange(q.shape[1])
    queries = offset.Queries(offset.grouped(q, k.shape[2]), segment_ids, index)
    return queries, offset.Keys(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), segment_ids, index)


def _gathered(mesh, window, q, k, v, segment_ids) -> jax.Array:
    queries, own = _own(q, k, v, segment_ids)
    keys = offset.Keys(_gather(own.keys, 2), _gather(own.values, 2), _gather(own.segments, 1), _gather(own.places, 0))
    return offset.ungrouped(offset.attend(queries, keys, window))


def _ring(mesh, window, q, k, v, segment_ids) -> jax.Array:
    queries, own = _own(q, k, v, segment_ids)
    return offset.ungrouped(ring.attend(queries, own, window, AXIS, mesh.shape[AXIS]))
