"""Shape of a decoder-only language model: Llama, Mistral, Qwen2 / Qwen2.5 and Qwen3 are settings of one config."""

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from framework.errors import UserError
from kernels_pallas.attention import ContextImpl
from kernels_pallas.attention import Impl as AttentionImpl
from models.decoder.rope import RopeScaling, check_scaling

if TYPE_CHECKING:
    from models.decoder.model import Decoder

__all__ = ["DecoderConfig"]

Remat = Literal["none", "full", "dots"]
DType = Literal["float32", "bfloat16"]


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
    rope_scaling: RopeScaling | None = None
    """How positions are stretched beyond the length first trained on (Llama 3.1, YaRN)."""
    max_position: int | None = None
    """Longest sequence the weights are meant for, in tokens; None: not known. Read and written with checkpoints."""
    sliding_window: int | None = None
    """A token looks at this many tokens at most, itself included (Mistral); None: at all earlier ones."""
    full_layers: int = 0
    """The first layers that look at all earlier tokens in spite of `sliding_window` (Qwen2's max_window_layers)."""
    norm_eps: float = 1e-6
    """Added to the mean square in RMSNorm."""
    qk_norm: bool = True
    """RMSNorm on every query and key head (Qwen3)."""
    qkv_bias: bool = False
    """Biases on the query, key and value projections (Qwen2.5)."""
    o_bias: bool = False
    """A bias on the output projection of attention (Llama's attention_bias)."""
    mlp_bias: bool = False
    """Biases in the SwiGLU layer (Llama's mlp_bias)."""
    tied: bool = True
    """Output matrix is the transposed embedding."""
    scan: bool = False
    """One stacked array for all layers, compiled once (quick to compile); False: layers unrolled (quicker to run)."""
    remat: Remat = "none"
    """What the backward pass computes again: nothing; "full": all of a block but its input; "dots": all but matrix products."""
    attention: AttentionImpl = "auto"
    """Implementation of attention, see `kernels_pallas.attention`; "auto" takes the best for the platform."""
    context_impl: ContextImpl = "gathered"
    """How `mesh.context` devices share keys and values: "gathered" once a layer, or "ring", which never holds all of them."""
    dtype: DType = "float32"
    """Type that activations are computed in."""
    param_dtype: DType = "float32"
    """Type that parameters are kept in; float32 with dtype="bfloat16" is training with master weights."""

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
        for field, allowed in (
            ("dtype", get_args(DType)),
            ("param_dtype", get_args(DType)),
            ("remat", get_args(Remat)),
            ("attention", get_args(AttentionImpl)),
            ("context_impl", get_args(ContextImpl)),
        ):
            if getattr(self, field) not in allowed:
                raise UserError(
                    f"model.{field}={getattr(self, field)!r} is not supported. Use {' or '.join(map(repr, allowed))}."
                )
        if self.sliding_window is not None and self.sliding_window < 1:
            raise UserError(
                f"model.sliding_window={self.sliding_window} leaves nothing to look at. Use 4096, or None for no window."
            )
        if not 0 <= self.full_layers <= self.layers:
            raise UserError(f"model.full_layers={self.full_layers} must lie between 0 and model.layers={self.layers}.")
        if self.scan and len({self.window(i) for i in range(self.layers)}) > 1:
            raise UserError(
                f"model.scan=True compiles one layer for all, but the first {self.full_layers} of {self.layers} layers have no "
                "sliding window and the others have. Use model.scan=False."
            )
        check_scaling(self.rope_scaling)

    def window(self, layer: int) -> int | None:
        """Sliding window of a layer, counted from 0."""
        return None if layer < self.full_layers else self.sliding_window

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The type activations are computed in."""
        return jnp.dtype(self.dtype)

    def parameter_count(self) -> int:
        """Number of trained numbers, embeddings included."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        block = self.dim * (q + 2 * kv) + q * self.dim + 3 * self.dim * self.mlp_dim + 2 * self.dim
        block += 2 * self.head_dim * self.qk_norm + (q + 2 * kv) * self.qkv_bias
        block += self.dim * self.o_bias + (2 * self.mlp_dim + self.dim) * self.mlp_bias
        return self.layers * block + self.vocab_size * self.dim * (1 if self.tied else 2) + self.dim
