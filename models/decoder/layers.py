"""The parts of a decoder block: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Every parameter names its dimensions in `logical`; only `framework.mesh` knows which mesh axis a name means.
Letters: B batch, T queries, S keys, D model, H heads, K key/value heads, R = H / K, h head dimension.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from models.decoder.config import DecoderConfig

__all__ = ["MLP", "Attention", "RMSNorm", "apply_rope", "attend", "rope_tables"]


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int, logical: tuple[str | None, ...]) -> nnx.Param:
    value = jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5
    return nnx.Param(value, logical=logical)


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis (arXiv:1910.07467), computed in float32."""

    def __init__(self, size: int, eps: float, logical: str | None = None):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32), logical=(logical,))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (normed * self.scale[...]).astype(x.dtype)


def rope_tables(positions: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the rotary angles (arXiv:2104.09864): positions [B, T] -> two arrays [B, T, h/2], float32."""
    inverse = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * inverse
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn the two halves of each head, as Hugging Face's Llama and Qwen do. x [B, T, H, h]."""
    cos, sin = (t[:, :, None, :].astype(x.dtype) for t in rope)
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def attend(q: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Grouped-query attention. q [B, T, H, h]; keys, values [B, K, S, h]; mask [B, T, S] -> [B, T, H, h].

    The R query heads of a key/value head become rows of one matrix product. Softmax in float32. A query that may look at
    nothing (padding) gets an even average of the values: finite, and masked by whoever reads it.
    """
    batch, length, heads, size = q.shape
    kv_heads = keys.shape[1]
    rows = q.reshape(batch, length, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)  # [B, K, R, T, h]
    scores = jnp.einsum("bkrth,bksh->bkrts", rows, keys, preferred_element_type=jnp.float32) * size**-0.5
    scores = jnp.where(mask[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    out = jnp.einsum("bkrts,bksh->bkrth", weights, values)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


class Attention(nnx.Module):
    """Grouped-query attention with optional QK-norm (Qwen3) and biases (Qwen2.5)."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        d, h, q, kv = config.dim, config.head_dim, config.heads, config.kv_heads
        self.config = config
        self.wq = _weight(rngs, (d, q * h), d, ("embed", "heads"))
        self.wk = _weight(rngs, (d, kv * h), d, ("embed", "kv_heads"))
        self.wv = _weight(rngs, (d, kv * h), d, ("embed", "kv_heads"))
        self.wo = _weight(rngs, (q * h, d), q * h * 2 * config.layers, ("heads", "embed"))
        if config.qkv_bias:
            self.bq = nnx.Param(jnp.zeros((q * h,), jnp.float32), logical=("heads",))
            self.bk = nnx.Param(jnp.zeros((kv * h,), jnp.float32), logical=("kv_heads",))
            self.bv = nnx.Param(jnp.zeros((kv * h,), jnp.float32), logical=("kv_heads",))
        if config.qk_norm:
            self.q_norm = RMSNorm(h, config.norm_eps)
            self.k_norm = RMSNorm(h, config.norm_eps)

    def __call__(
        self,
        x: jax.Array,
        rope: tuple[jax.Array, jax.Array],
        mask: jax.Array,
        cached: tuple[jax.Array, jax.Array, jax.Array] | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """x [B, T, D]; mask [B, T, S]; cached = (keys, values, index) -> (out [B, T, D], (keys, values) [B, K, S, h])."""
        batch, length, _ = x.shape
        h, dtype = self.config.head_dim, x.dtype
        q, k, v = (x @ w[...].astype(dtype) for w in (self.wq, self.wk, self.wv))
        if self.config.qkv_bias:
            q, k, v = (y + b[...].astype(dtype) for y, b in ((q, self.bq), (k, self.bk), (v, self.bv)))
        q, k, v = (y.reshape(batch, length, -1, h) for y in (q, k, v))
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        keys, values = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        if cached is not None:
            old_keys, old_values, index = cached
            keys = jax.lax.dynamic_update_slice(old_keys, keys, (0, 0, index, 0))
            values = jax.lax.dynamic_update_slice(old_values, values, (0, 0, index, 0))
        out = attend(q, keys, values, mask).reshape(batch, length, -1)
        return out @ self.wo[...].astype(dtype), (keys, values)


class MLP(nnx.Module):
    """SwiGLU (arXiv:2002.05202): (silu(x Wg) * x Wu) Wd."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        d, m = config.dim, config.mlp_dim
        self.gate = _weight(rngs, (d, m), d, ("embed", "mlp"))
        self.up = _weight(rngs, (d, m), d, ("embed", "mlp"))
        self.down = _weight(rngs, (m, d), m * 2 * config.layers, ("mlp", "embed"))

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, up = (x @ w[...].astype(x.dtype) for w in (self.gate, self.up))
        return (jax.nn.silu(gate) * up) @ self.down[...].astype(x.dtype)
