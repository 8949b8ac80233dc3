"""A model of Tunix with random weights, and a tokenizer whose words are numbers."""

from collections.abc import Sequence

import jax
from flax import nnx
from tunix.models.qwen3.model import ModelConfig, Qwen3

__all__ = ["NumberTokenizer", "build"]


class NumberTokenizer:
    """Text is token ids with spaces between. The end token lies outside the vocabulary: no model says it."""

    def __init__(self, vocab_size: int):
        self.end = vocab_size

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0  # Tunix adds none when this is 0

    def eos_id(self) -> int:
        return self.end

    def pad_id(self) -> int:
        return 0


def build(sizes: dict[str, int]) -> tuple[jax.sharding.Mesh, Qwen3]:
    """A mesh of one device and a model on it."""
    config = ModelConfig(
        num_layers=sizes["layers"],
        vocab_size=sizes["vocab_size"],
        embed_dim=sizes["dim"],
        hidden_dim=sizes["mlp_dim"],
        num_heads=sizes["heads"],
        num_kv_heads=sizes["kv_heads"],
        head_dim=sizes["head_dim"],
        rope_theta=10_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        return mesh, Qwen3(config, rngs=nnx.Rngs(0))
