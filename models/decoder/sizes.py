"""Sizes of published models that experiments name, so that they can be planned without their files."""

from models.decoder.config import DecoderConfig

__all__ = ["QWEN25_7B"]

QWEN25_7B = DecoderConfig(
    vocab_size=152_064,
    dim=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    mlp_dim=18_944,
    rope_theta=1e6,
    qk_norm=False,
    qkv_bias=True,
    tied=False,
)
