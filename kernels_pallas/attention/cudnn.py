"""Attention on NVIDIA GPUs: the fused kernels of cuDNN, called through jax.nn.dot_product_attention."""

from typing import Literal

import jax
import jax.numpy as jnp

from framework.mesh import platform
from kernels_pallas.attention.reference import visible

__all__ = ["attention", "unsupported"]

Implementation = Literal[
    "cudnn", "xla"
]  # "xla" is the same function of jax on any platform, for tests of what we pass it
_DTYPES = ("bfloat16", "float16")


def unsupported(q: jax.Array, k: jax.Array, v: jax.Array) -> str | None:
    """Why the kernel cannot run on these arrays, and what to change; None if it can."""
    if platform() != "gpu":
        return f"it needs an NVIDIA GPU, and this program runs on {platform()}"
    return unsupported_shape(q, k, v, _capability())


def unsupported_shape(q: jax.Array, k: jax.Array, v: jax.Array, capability: float | None) -> str | None:
    """The same for a GPU of compute capability `capability` (None: not known, assumed to be new)."""
    if {q.dtype, k.dtype, v.dtype} != {q.dtype} or q.dtype.name not in _DTYPES:
        return (
            f"it takes {' or '.join(_DTYPES)}, and q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; "
            "use model.dtype='bfloat16'"
        )
    if capability is not None and capability < 8.0:
        return f"it needs compute capability 8.0 (Ampere) or newer, and this GPU has {capability}"
    largest = 256 if capability is None or capability >= 9.0 else 128
    if q.shape[-1] % 8 or q.shape[-1] > largest:
        return f"head_dim={q.shape[-1]} must be a multiple of 8 and at most {largest} on this GPU"
    return None


def _capability() -> float | None:
    """Compute capability of the GPU at hand; None where the program is compiled for another machine, 0 if not NVIDIA's."""
    if jax.default_backend() != "gpu":
        return None
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return 0.0
    return float(device.compute_capability)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    window: int | None,
    first_query: jax.Array | int = 0,
    key_segments: jax.Array | None = None,
    implementation: Implementation = "cudnn",
) -> jax.Array:
    """q [B, T, H, h]; k, v [B, S, K, h]; segment_ids [B, T] -> [B, T, H, h]. See `reference.attention`.

    Causal and windowed rows, also padded on the right, cost no memory: the kernel knows these masks. Packed rows, rows padded
    on the left and parts of a row pass theirs as [B, 1, T, S] numbers in the type of q, the same for all heads.
    """
    if segment_ids is None and key_segments is None and k.shape[1] == q.shape[1]:
        return _known(q, k, v, None, window, implementation)
    if segment_ids is None:
        segment_ids = jnp.ones(q.shape[:2], jnp.int32)
    if key_segments is not None:
        return _masked(q, k, v, segment_ids, key_segments, window, first_query, implementation)
    # Whether rows are packed is data, so both programs are compiled, and one of them runs.
    lengths = jnp.sum(segment_ids != 0, axis=1, dtype=jnp.int32)
    expected = jnp.where(jnp.arange(q.shape[1]) < lengths[:, None], segment_ids[:, :1], 0)
    return jax.lax.cond(
        jnp.all(segment_ids == expected),
        lambda: _known(q, k, v, jnp.maximum(lengths, 1), window, implementation),
        lambda: _masked(q, k, v, segment_ids, segment_ids, window, 0, implementation),
    )


def _known(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    lengths: jax.Array | None,
    window: int | None,
    implementation: Implementation,
) -> jax.Array:
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        is_causal=True,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        local_window_size=None if window is None else (window - 1, 0),  # jax does not count the token itself
        implementation=implementation,
    )


def _masked(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    key_segments: jax.Array,
    window: int | None,
    first_query: jax.Array | int,
    implementation: Implementation,
) -> jax.Array:
    # cuDNN takes masks of even lengths only. What is added at the end is padding: seen by nothing that is real.
    length = q.shape[1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    segment_ids, key_segments = (jnp.pad(s, ((0, 0), (0, s.shape[1] % 2))) for s in (segment_ids, key_segments))
    index = first_query + jnp.arange(q.shape[1])
    mask = visible(segment_ids, key_segments, index, jnp.arange(k.shape[1]), window)
    # A query that may look at nothing (padding) looks at its first key: finite in every version of the kernel.
    mask = mask.at[:, :, 0].set(mask[:, :, 0] | (segment_ids == 0))
    out = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)
    return out[:, :length]
