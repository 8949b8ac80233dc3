"""Token arrays of a rollout or of demonstrations: prompt on the left (left-padded), response on the right (right-padded).

The layout is the one the engine decodes in, so that trainer and sampler see the same tokens at the same positions.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from framework.errors import UserError
from framework.inference import LanguageModel
from kernels_pallas.logprob import token_logprobs

__all__ = ["PolicyBatch", "make_batch", "response_logprobs"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyBatch:
    """B sequences of L prompt and N response tokens."""

    tokens: jax.Array  # [B, L + N] int32
    segments: jax.Array  # [B, L + N] int32, 1 on tokens, 0 on padding
    mask: jax.Array  # [B, N] float32, 1 on response tokens
    old_logp: jax.Array  # [B, N] float32, of the policy that sampled
    adv: jax.Array  # [B, N] float32

    def rows(self, start: int, stop: int) -> "PolicyBatch":
        """Rows start..stop of every array."""
        return jax.tree.map(lambda x: x[start:stop], self)


def make_batch(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    prompt_length: int,
    response_length: int,
    old_logp: Sequence[np.ndarray] | None = None,
    adv: np.ndarray | None = None,
    pad_token: int = 0,
) -> PolicyBatch:
    """Lay out B token sequences. `adv` [B] is spread over the tokens of its response; absent arrays are zeros.

    Raises:
        UserError: a prompt or response longer than its place.
    """
    rows, total = len(prompts), prompt_length + response_length
    tokens = np.full((rows, total), pad_token, np.int32)
    segments = np.zeros((rows, total), np.int32)
    logp = np.zeros((rows, response_length), np.float32)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        for what, given, room in (("prompt", prompt, prompt_length), ("response", response, response_length)):
            if len(given) > room:
                raise UserError(
                    f"{what} {i} has {len(given)} tokens, but there is room for {room}. "
                    f"Set rollout.{'max_prompt' if what == 'prompt' else 'max_new_tokens'}={len(given)}, or use shorter ones."
                )
        start, stop = prompt_length - len(prompt), prompt_length + len(response)
        tokens[i, start:prompt_length], tokens[i, prompt_length:stop] = prompt, response
        segments[i, start:stop] = 1
        if old_logp is not None:
            logp[i, : len(response)] = old_logp[i]
    mask = segments[:, prompt_length:].astype(np.float32)
    spread = mask * (0.0 if adv is None else np.asarray(adv, np.float32)[:, None])
    return PolicyBatch(*(np.asarray(x) for x in (tokens, segments, mask, logp, spread)))  # pyright: ignore[reportArgumentType]


def response_logprobs(
    model: LanguageModel, batch: PolicyBatch, *, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each response token at `temperature`, entropy in nats at temperature 1: two arrays [B, N].

    Only the N hidden states that predict a response token meet the output matrix. The last token of a row predicts nothing, but
    stays in: L + N divides over devices, L + N - 1 would not.
    """
    prompt_length = batch.tokens.shape[1] - batch.mask.shape[1]
    positions = jnp.maximum(jnp.cumsum(batch.segments, axis=1) - 1, 0)
    hidden, _ = model(batch.tokens, positions, batch.segments)
    return token_logprobs(
        hidden[:, prompt_length - 1 : -1],
        model.unembed,
        batch.tokens[:, prompt_length:],
        temperature,
        entropy_temperature=1.0,
    )
