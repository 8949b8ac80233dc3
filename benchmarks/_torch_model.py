"""A Qwen3 model of transformers with random weights, on as many threads as the job says."""

from typing import Any

import torch
import transformers

__all__ = ["build"]


def build(job: dict[str, Any], sizes: dict[str, int]) -> transformers.Qwen3ForCausalLM:
    """Float32, PyTorch's own attention, no end token."""
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    config = transformers.Qwen3Config(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["dim"],
        intermediate_size=sizes["mlp_dim"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
        head_dim=sizes["head_dim"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.Qwen3ForCausalLM._from_config(config, attn_implementation="sdpa")
