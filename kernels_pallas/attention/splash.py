"""Attention on TPUs: jax's own splash kernel, which skips the blocks of the score matrix that the mask leaves empty."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as mask_info

from framework.mesh import platform

__all__ = ["attention", "attention_over", "block_size", "make_kernel", "pad_length", "unsupported"]

LANES = 128  # a block is a multiple of the lanes of a vector register
_DTYPES = ("float32", "bfloat16")


def unsupported(q: jax.Array, k: jax.Array, v: jax.Array, *, window: int | None = None, context: int = 1) -> str | None:
    """Why the kernel cannot run on these arrays, and what to change; None if it can."""
    if platform() != "tpu":
        return f"it is a TPU kernel, and this program runs on {platform()}"
    return unsupported_shape(q, k, v, window=window, context=context)


def unsupported_shape(
    q: jax.Array, k: jax.Array, v: jax.Array, *, window: int | None = None, context: int = 1
) -> str | None:
    """The same on any platform: what the kernel cannot do at all."""
    if {q.dtype.name, k.dtype.name, v.dtype.name} - set(_DTYPES):
        return f"it takes {' and '.join(_DTYPES)}, and q, k, v are {q.dtype}, {k.dtype}, {v.dtype}"
    part = q.shape[1] // context
    if window is not None and context > 1 and part % LANES:
        # Each part is padded, which would stretch distances across parts.
        fix = -(-part // LANES) * LANES * context
        return (
            f"with a window, the {part} tokens of each of context={context} parts must be a multiple of {LANES}; "
            f"use sequences of {fix} tokens"
        )
    return None


def pad_length(length: int) -> int:
    """Tokens after padding to whole blocks."""
    return -(-length // LANES) * LANES


def block_size(length: int) -> int:
    """Rows and columns of a block: the largest up to 512 that divides the padded length.

    A tall block uses each key that was fetched for more queries; 512 is what large models are commonly trained with.
    """
    return next(size for size in (512, 384, 256, LANES) if pad_length(length) % size == 0)


@functools.lru_cache(maxsize=64)
def make_kernel(heads: int, length: int, window: int | None, context: int, interpret: bool) -> Any:
    """The kernel for rows of `length` padded tokens in `context` parts. What it knows of the mask is numpy: it fits any trace.

    Cached, because finding the empty blocks of a long row takes a while, and all layers share it.
    """
    shape, block = (length, length), block_size(length // context)
    if window is None or window >= length:
        mask = masks.CausalMask(shape, shard_count=context)
    else:
        before = window - 1  # the token itself is one of them
        mask = masks.LocalMask(shape, window_size=(before, 0), offset=0, shard_count=context)
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    # What jax's make_splash_mha does, but it would put the arrays on the device that is traced for, which need not exist.
    heads_mask = masks.MultiHeadMask([mask] * heads)
    shards = {"head_shards": 1, "q_seq_shards": context}  # all heads have one mask: a device takes as many as it holds
    by_rows, mask_function = mask_info.process_mask(heads_mask, (block, block), **shards)
    by_columns, _ = mask_info.process_mask_dkv(heads_mask, (block, block), **shards)
    return kernels.SplashAttentionKernel(
        by_rows,
        by_rows,  # the gradient of queries goes through the blocks as the forward pass does
        by_columns,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=kernels.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name="attention",
        mask_function=mask_function,
        interpret=interpret,
    )


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    window: int | None,
    interpret: bool = False,
) -> jax.Array:
    """q [B, T, H, h]; k, v [B, T, K, h]; segment_ids [B, T] -> [B, T, H, h]. See `reference.attention`.

    Padding (segment 0) looks at earlier padding, where the reference averages everything: finite, and nobody's to read.
    """
    kernel = make_kernel(q.shape[2], pad_length(q.shape[1]), window, 1, interpret)
    return attention_over(kernel, q, k, v, segment_ids, None)


def attention_over(
    kernel: Any,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    gather: Callable[[jax.Array, int], jax.Array] | None,
) -> jax.Array:
    """`attention` with a given kernel. In a part of the row, gather(x, axis) puts the parts of all devices together."""
    length = q.shape[1]
    pad = pad_length(length) - length  # at the end, where causality hides it from all that is real
    if segment_ids is None and pad and gather is not None:
        segment_ids = jnp.ones(q.shape[:2], jnp.int32)  # the end of a part is not the end of the row
    wide = lambda x: jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))).transpose(0, 2, 1, 3)  # noqa: E731 - [B, H, T, h]
    heads, keys, values = wide((q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)), wide(k), wide(v)
    ids = None if segment_ids is None else jnp.pad(segment_ids, ((0, 0), (0, pad)))
    key_ids = ids
    if gather is not None:
        keys, values = gather(keys, 2), gather(values, 2)
        key_ids = None if ids is None else gather(ids, 1)
    segments = None if ids is None else kernels.SegmentIds(ids, key_ids)  # pyright: ignore[reportArgumentType]
    out = jax.vmap(kernel, in_axes=(0, 0, 0, None if segments is None else 0))(heads, keys, values, segments)
    return out.transpose(0, 2, 1, 3)[:, :length].astype(v.dtype)
