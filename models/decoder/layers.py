"""The parts of a decoder block: RMSNorm, grouped-query attention, SwiGLU.

Every parameter names its dimensions in `logical`; only `framework.mesh` knows which mesh axis a name means.
Letters: B batch, T queries, S keys, D model, H heads, K key/value heads, R = H / K, h head dimension.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from framework.mesh import constrain
from kernels_pallas.attention import attention
from models.decoder.cache import KVCache
from models.decoder.config import DecoderConfig
from models.decoder.rope import apply_rope
from models.linear import Linear

__all__ = ["MLP", "Attention", "Cached", "RMSNorm"]

Cached = tuple[KVCache, int, jax.Array]  # the cache, which layer, places [B, T]


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis (arXiv:1910.07467), computed in float32."""

    def __init__(self, size: int, eps: float, logical: str | None = None, param_dtype: str = "float32"):
        self.scale = nnx.Param(jnp.ones((size,), param_dtype), logical=(logical,))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (normed * self.scale[...]).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with optional QK-norm (Qwen3), biases (Qwen2.5) and sliding window (Mistral)."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, window: int | None):
        d, h, q, kv = config.dim, config.head_dim, config.heads, config.kv_heads
        self.config, self.window = config, window
        dtype = config.param_dtype

        def linear(size_in: int, size_out: int, *logical: str, bias: bool, std: float) -> Linear:
            first, second = logical
            return Linear(rngs, size_in, size_out, logical=(first, second), bias=bias, std=std, param_dtype=dtype)

        self.q_proj = linear(d, q * h, "embed", "heads", bias=config.qkv_bias, std=d**-0.5)
        self.k_proj = linear(d, kv * h, "embed", "kv_heads", bias=config.qkv_bias, std=d**-0.5)
        self.v_proj = linear(d, kv * h, "embed", "kv_heads", bias=config.qkv_bias, std=d**-0.5)
        # Smaller by the root of twice the depth: what all blocks add to the residual stream has variance 1 (GPT-2).
        self.o_proj = linear(q * h, d, "heads", "embed", bias=config.o_bias, std=(q * h * 2 * config.layers) ** -0.5)
        self.q_norm = RMSNorm(h, config.norm_eps, param_dtype=dtype) if config.qk_norm else None
        self.k_norm = RMSNorm(h, config.norm_eps, param_dtype=dtype) if config.qk_norm else None

    def __call__(
        self,
        x: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        segment_ids: jax.Array | None,
        cached: Cached | None,
    ) -> tuple[jax.Array, KVCache | None]:
        """x [B, T, D] -> (out [B, T, D], the cache after the write if there is one)."""
        batch, length, _ = x.shape
        split = lambda y: y.reshape(batch, length, -1, self.config.head_dim)  # noqa: E731 - [B, T, H h] -> [B, T, H, h]
        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        along = "length" if cached is None else None
        q = constrain(q, "batch", along, "heads", None)
        k, v = (constrain(y, "batch", along, "kv_heads", None) for y in (k, v))
        if cached is None:
            impl, context_impl = self.config.attention, self.config.context_impl
            out = attention(q, k, v, segment_ids, window=self.window, impl=impl, context_impl=context_impl)
            cache = None
        else:
            cache, layer, places = cached
            out, cache = cache.attend(layer, q, k, v, places, self.window)
        return self.o_proj(out.reshape(batch, length, -1)), cache


class MLP(nnx.Module):
    """SwiGLU (arXiv:2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        d, m, bias, dtype = config.dim, config.mlp_dim, config.mlp_bias, config.param_dtype
        self.gate_proj = Linear(rngs, d, m, logical=("embed", "mlp"), bias=bias, param_dtype=dtype)
        self.up_proj = Linear(rngs, d, m, logical=("embed", "mlp"), bias=bias, param_dtype=dtype)
        std = (m * 2 * config.layers) ** -0.5
        self.down_proj = Linear(rngs, m, d, logical=("mlp", "embed"), bias=bias, std=std, param_dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))
