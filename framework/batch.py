"""Token batches for supervised training: rows of packed or padded sequences, and the examples they are made of."""

import dataclasses

import jax
import numpy as np

__all__ = ["TokenBatch", "TokenExample"]


@dataclasses.dataclass(frozen=True)
class TokenExample:
    """One sequence and which of its tokens are learnt. Made by a chat template, laid out in rows by `data.packing`."""

    tokens: np.ndarray  # [N] int32
    learn: np.ndarray  # [N] bool; the first token has none before it and is never learnt, whatever stands here


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenBatch:
    """B rows of T tokens. A row holds one sequence or several (packing), told apart by their segment."""

    tokens: jax.Array  # [B, T] int32
    positions: jax.Array  # [B, T] int32, starting at 0 in every segment
    segment_ids: jax.Array  # [B, T] int32, 1, 2, ... in every row; 0 is padding
    mask: jax.Array  # [B, T] float32, 1 on the tokens that are learnt, each predicted from the token before it
