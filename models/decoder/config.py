"""Shape of a decoder-only language model (Qwen3-like by default; Qwen2.5 through its fields)."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from framework.errors import UserError

if TYPE_CHECKING:
    from models.decoder.model import Decoder

__all__ = ["DecoderConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """RMSNorm, rotary positions, grouped-query attention, SwiGLU; QK-norm as in Qwen3 (arXiv:2505.09388), biases as in Qwen2.5."""

    vocab_size: int = 272
    """Rows of the embedding matrix."""
    dim: int = 128
    """Width of the residual stream."""
    layers: int = 4
    """Number of transformer blocks."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 2
    """Key/value heads; must divide `heads`."""
    head_dim: int = 32
    """Width of one head; even, because rotary positions turn pairs."""
    mlp_dim: int = 384
    """Width of the SwiGLU layer."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-6
    """Added to the mean square in RMSNorm."""
    qk_norm: bool = True
    """RMSNorm on every query and key head (Qwen3)."""
    qkv_bias: bool = False
    """Biases on the query, key and value projections (Qwen2.5)."""
    tied: bool = True
    """Output matrix is the transposed embedding."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    dtype: str = "float32"
    """Computation type: float32 or bfloat16. Parameters stay float32."""

    def build(self, key: jax.Array) -> "Decoder":
        """Make a randomly initialised model.

        Raises:
            UserError: sizes that cannot work together.
        """
        from models.decoder.model import Decoder  # the model reads this config: import here, not in a circle

        self.validate()
        return Decoder(self, nnx.Rngs(params=key))

    def validate(self) -> None:
        """Check that the sizes fit together; raises UserError with the fix."""
        for field in ("vocab_size", "dim", "layers", "heads", "kv_heads", "head_dim", "mlp_dim"):
            if getattr(self, field) < 1:
                raise UserError(f"model.{field}={getattr(self, field)} must be at least 1.")
        if self.heads % self.kv_heads:
            raise UserError(
                f"model.heads={self.heads} query heads cannot share model.kv_heads={self.kv_heads} key/value heads evenly. "
                f"Use a kv_heads that divides {self.heads}, for example model.kv_heads=1."
            )
        if self.head_dim % 2:
            raise UserError(
                f"model.head_dim={self.head_dim} is odd, but rotary positions turn pairs. Use {self.head_dim + 1}."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"model.dtype={self.dtype!r} is not supported. Use 'float32' or 'bfloat16'.")

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type activations are computed in."""
        return jnp.dtype(self.dtype)

    def parameter_count(self) -> int:
        """Number of trained numbers, embeddings included."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        block = self.dim * (q + 2 * kv) + q * self.dim + 3 * self.dim * self.mlp_dim + 2 * self.dim
        block += 2 * self.head_dim * self.qk_norm + (q + 2 * kv) * self.qkv_bias
        return self.layers * block + self.vocab_size * self.dim * (1 if self.tied else 2) + self.dim
