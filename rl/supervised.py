"""Supervised warm start: next-token loss on the responses of demonstrations, prompts are context only."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from framework.state import TrainState
from rl.batch import PolicyBatch, response_logprobs
from rl.masked import masked_mean

__all__ = ["supervised_step"]


def supervised_step(
    graphdef: Any, state: TrainState, batch: PolicyBatch, *, tx: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step on the mean negative log-likelihood of the response tokens (nats per token)."""

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        logp, entropy = response_logprobs(nnx.merge(graphdef, params), batch)
        return -masked_mean(logp, batch.mask), masked_mean(jax.lax.stop_gradient(entropy), batch.mask)

    (loss, entropy), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    state, norms = state.apply(grads, tx)
    tokens = jnp.sum(batch.mask)
    return state, {"loss/total": loss, "policy/entropy": entropy, "batch/tokens": tokens} | norms
